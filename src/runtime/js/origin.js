// Forwards requests to the origin, and its responses to the client.
import { namesOf, setAll } from "./fields.js";
import { currentInstance, requireInstance } from "./instance.js";
import { reply } from "./response.js";
import { AnswerWatch, canBeRelayed, continued } from "./tokens.js";

/**
 * The parameters of forwarding. They are applied here because header fields are on this side, and
 * each would otherwise cost a crossing. `reserved` and `reservedInResponses` match names of fields.
 */
const rules = { badGateway: { status: 0, body: "", fields: "" }, loopStatus: 0, reserved: /^/, reservedInResponses: /^/ };

/** Sets the rules, once per isolate. */
export function setForwardingRules(status, body, fields, loopStatus, reserved, reservedInResponses) {
  rules.badGateway = { status, body, fields };
  rules.loopStatus = loopStatus;
  rules.reserved = new RegExp(reserved);
  rules.reservedInResponses = new RegExp(reservedInResponses);
}

/**
 * Forwards a request: same method and streamed body, header fields less those `dropped` (one a
 * line) and reserved ones. Redirects are left to the client, and no cache is read or written. The
 * origin's response is streamed back with `answerFields`. If the request fails, the response is
 * 502.
 *
 * `call.ended(status, begun, now, cost)` is called with the origin's status, or 0, and its field
 * `X-Tollgate-Cost`. If it returns a promise, the response waits for that.
 */
export function forward(request, url, dropped, fields, answerFields, call) {
  const ended = call === undefined ? undefined : onEnd(call);
  let sent;
  try {
    const headers = headersToOrigin(request, dropped, fields);
    // `fetch` copies the request. Its own URL is not changed.
    const { method } = request;
    const init = { headers, redirect: "manual", cache: "no-store" };
    if (url === undefined) {
      sent = fetch(request, init);
    } else {
      // workerd treats `Content-Length: 0` as a body, which `fetch` rejects with these methods.
      const body = method === "GET" || method === "HEAD" ? undefined : request.body;
      sent = fetch(url, { ...init, method, body });
    }
  } catch (error) {
    sent = Promise.reject(error);
  }
  return relayed(sent, answerFields, ended);
}

function headersToOrigin(request, dropped, fields) {
  const headers = new Headers(request.headers);
  const names = dropped === "" ? [] : dropped.split("\n");
  for (const name of headers.keys()) if (rules.reserved.test(name)) names.push(name);
  for (const name of names) headers.delete(name);
  setAll(headers, fields);
  return headers;
}

/**
 * Forwards a request whose body has been read, as `forward` does: with `bytes` as its body, or with
 * as many bytes as `length` says, of which `rest` reads those after `bytes`. `answer` reads the
 * response, if the call has a hold.
 */
export function forwardRead(request, url, dropped, fields, answerFields, call, [bytes, length, rest], answer, context) {
  const ended = call === undefined ? undefined : onEnd(call);
  const watch = answer === undefined ? undefined : new AnswerWatch(answer, request, context);
  let sent;
  try {
    const headers = headersToOrigin(request, dropped, fields);
    // The runtime sets it, for the body that is sent.
    headers.delete("content-length");
    const { method } = request;
    const hasBody = method !== "GET" && method !== "HEAD" && request.body !== null;
    const body = rest === undefined ? bytes : continued(bytes, length, rest);
    const init = { method, headers, redirect: "manual", cache: "no-store", signal: watch?.signal };
    sent = fetch(url ?? request.url, hasBody ? { ...init, body } : init);
  } catch (error) {
    sent = Promise.reject(error);
  }
  if (watch === undefined) return relayed(sent, answerFields, ended);
  const read = sent.then(
    (response) => watch.begin(response),
    (error) => watch.fail().then(() => Promise.reject(error)),
  );
  return relayed(read, answerFields, ended);
}

/** Forwards a CORS preflight with the fields `kept` (one a line) and `fields`, and no others. */
export function forwardPreflight(request, url, kept, fields) {
  const headers = new Headers();
  for (const name of kept === "" ? [] : kept.split("\n")) headers.set(name, request.headers.get(name));
  setAll(headers, fields);
  // OPTIONS responses are never cached, and with `cache` the runtime would add fields.
  const init = { method: "OPTIONS", headers, body: null, redirect: "manual" };
  return relayed(fetch(url ?? request, init), "", undefined);
}

/**
 * Reports the status of the origin's response to `call`. The client gets its response even if that
 * fails.
 */
function onEnd(call) {
  const instance = currentInstance();
  const begun = Date.now();
  const log = (error) => console.error(`tollgate: the outcome of a call was not recorded: ${error?.message ?? error}`);
  return (status, cost) => {
    try {
      requireInstance(instance);
      return call.ended(status, begun, Date.now(), cost)?.catch(log);
    } catch (error) {
      return void log(error);
    }
  };
}

function relayed(sent, answerFields, ended) {
  const failed = (error) => {
    console.error(`tollgate: the request to the origin failed: ${error?.message ?? error}`);
    const noted = ended?.(0);
    const { status, body, fields } = rules.badGateway;
    const answer = reply(status, body, answerFields + fields);
    return noted === undefined ? answer : noted.then(() => answer);
  };
  return sent.then((response) => {
    if (!canBeRelayed(response)) {
      response.body?.cancel().catch(() => {});
      return failed(new Error(`its response has the status ${response.status}`));
    }
    const noted = ended?.(response.status, response.headers.get("x-tollgate-cost") ?? undefined);
    const answer = relay(response, answerFields);
    return noted === undefined ? answer : noted.then(() => answer);
  }, failed);
}

function relay(response, fields) {
  const answer = new Response(response.webSocket ? null : response.body, response);
  const { headers } = answer;
  for (const name of response.headers.keys()) {
    if (!rules.reservedInResponses.test(name)) continue;
    if (response.status === rules.loopStatus) hasLoopStatus = true;
    headers.delete(name);
  }
  setAll(headers, fields);
  if (fields !== "" && headers.has("access-control-allow-origin")) expose(headers, fields);
  return answer;
}

/**
 * Exposes the added fields to scripts, if the origin's response is readable by scripts of other
 * origins. This is in JavaScript because a response of the origin does not enter the wasm.
 */
function expose(headers, fields) {
  const listed = (headers.get("access-control-expose-headers") ?? "").split(",").map((name) => name.trim());
  const names = listed.filter((name) => name !== "");
  // `*` means every name, but with credentials it is a literal name (Fetch standard §4.10).
  const isLiteral = headers.get("access-control-allow-credentials") === "true";
  if (names.includes("*") && !isLiteral) return;
  const known = new Set(names.map((name) => name.toLowerCase()));
  const added = namesOf(fields).filter((name) => !known.has(name.toLowerCase()));
  headers.set("access-control-expose-headers", [...names, ...added].join(", "));
}

/** Whether a response had the status of a loop and a reserved field. */
let hasLoopStatus = false;

/** Whether there was one since the last call of this function. */
export function hasSeenLoop() {
  const seen = hasLoopStatus;
  hasLoopStatus = false;
  return seen;
}

/**
 * Fetches `url` with one header field. Resolves to the response without its body, or to `undefined`
 * after a failure or a timeout.
 */
export async function probe(url, name, value, milliseconds) {
  try {
    const signal = AbortSignal.timeout(milliseconds);
    const response = await fetch(url, { headers: { [name]: value }, redirect: "manual", cache: "no-store", signal });
    await response.body?.cancel();
    return response;
  } catch {
    return undefined;
  }
}
