// Requests to the operator's webhook.
import { headersOf } from "./fields.js";

/** Posts `body`. Resolves to `undefined` if the receiver accepted it, and to the reason if not. */
export async function post(url, fields, body, milliseconds) {
  const controller = new AbortController();
  const { signal } = controller;
  // AbortSignal.timeout cannot be cleared: it would keep the object in memory until its end.
  const timer = setTimeout(() => controller.abort(new Error(`no answer within ${milliseconds} ms`)), milliseconds);
  try {
    const init = { method: "POST", headers: headersOf(fields), body, redirect: "manual", signal };
    const response = await fetch(url, init);
    await response.body?.cancel();
    return response.ok ? undefined : `status ${response.status}`;
  } catch (error) {
    return String(error?.message ?? error);
  } finally {
    clearTimeout(timer);
  }
}
