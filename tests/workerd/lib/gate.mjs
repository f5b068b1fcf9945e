// Talking to the gate as its clients and its administrators do, and to the origin behind it.
import { env, exports } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { AdminClient } from "../../support/admin.mjs";
import { checkProblem } from "../../support/problem.mjs";

/** Where the gate answers; any host would do. */
export const GATE = "https://gate.test";

/** The whole text of every key that a test was given: none of them may show up in a log or at the origin. */
export const issuedKeys = [];

/** Sends a request to the Worker. Redirects are not followed, so that what it answers is what the test sees. */
export function send(path, init = {}) {
  return exports.default.fetch(GATE + path, { redirect: "manual", ...init });
}

/** A call with a key (as `issue` gives it, or its text) in X-API-Key. */
export function call(key, path = "/", init = {}) {
  return send(path, { ...init, headers: { "X-API-Key": key.key ?? key, ...init.headers } });
}

/** Calls one after the other; resolves to their statuses. */
export async function statuses(key, count) {
  const all = [];
  for (let i = 0; i < count; i += 1) all.push((await call(key)).status);
  return all;
}

/** Calls one after the other that must all be admitted. */
export async function admit(key, count) {
  expect(await statuses(key, count)).toEqual(Array(count).fill(200));
}

/** A call that must be denied; resolves to its Retry-After. */
export async function denied(key) {
  const response = await call(key);
  expect(response.status).toBe(429);
  return Number(response.headers.get("retry-after"));
}

/** The admin API, with `ADMIN_TOKEN`. */
export const api = new AdminClient({ fetch: send, token: env.ADMIN_TOKEN });

/** A request to the admin API. */
export const admin = (method, path, body, headers) => api.request(method, path, body, headers);

/** Issues a key. */
export async function issue(tier = "free", name = "a test") {
  const key = await api.issueKey(tier, name);
  issuedKeys.push(key.key);
  return key;
}

/** The key's usage, as the admin API tells it. */
export const usage = (key) => api.usageOf(key);

/** What the admin API says was used of each policy, by its name. */
export async function used(key) {
  const { policies } = await usage(key);
  return Object.fromEntries(policies.map(({ policy, used }) => [policy, used]));
}

/** What the origin has received in this test, oldest first. */
export async function received() {
  return (await env.ORIGIN_CONTROL.fetch("https://control.test/")).json();
}

/** The one request that the origin has received. */
export async function receivedOne() {
  const requests = await received();
  expect(requests).toHaveLength(1);
  return requests[0];
}

/** Lets the origin's answers at /in-two-parts and /held go on; with a `query` those at /held with that very query. */
export function releaseOrigin(query = "") {
  return env.ORIGIN_CONTROL.fetch(`https://control.test/release${query}`);
}

/** Sets the clock of the Worker and of the objects. */
export function setClock(time) {
  vi.setSystemTime(time);
}

/** Moves that clock by so many seconds. */
export function wait(seconds) {
  vi.setSystemTime(Date.now() + seconds * 1000);
}

/** `"minute";r=9;t=42, …` as `{ minute: { r: 9, t: 42 } }`. */
export function parseFields(value) {
  return Object.fromEntries(
    value.split(", ").map((item) => {
      const [name, ...parameters] = item.split(";");
      return [JSON.parse(name), Object.fromEntries(parameters.map((p) => p.split("=")).map(([k, v]) => [k, Number(v)]))];
    }),
  );
}

/** Where a response says that the key stands: its RateLimit field. */
export function rateLimit(response) {
  return parseFields(response.headers.get("ratelimit"));
}

/** Its RateLimit-Policy field. */
export function rateLimitPolicy(response) {
  return parseFields(response.headers.get("ratelimit-policy"));
}

/** Checks that a response is a refusal of tollgate's own, readable by browsers, kept by nobody; resolves to its body. */
export async function problem(response, status) {
  const { headers } = response;
  expect(headers.get("access-control-allow-origin")).toBe(env.CORS_ALLOW_ORIGIN);
  const exposed = headers.get("access-control-expose-headers").split(", ");
  expect(exposed).toEqual(expect.arrayContaining(["RateLimit", "RateLimit-Policy", "Retry-After"]));
  const answer = { status: response.status, header: (name) => headers.get(name), body: await response.text() };
  return checkProblem(answer, status);
}
