// Requests to the gate as clients and operators send them, and the origin behind it.
import { env, exports } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { AdminClient } from "../../../scripts/lib/admin.mjs";
import { checkProblem } from "../../support/problem.mjs";

/** The URL of the gate; any host works. */
export const GATE = "https://gate.test";

/** All keys that a test has received: none may appear in a log or at the origin. */
export const issuedKeys = [];

/** Sends a request to the Worker. Redirects are not followed. */
export function send(path, init = {}) {
  return exports.default.fetch(GATE + path, { redirect: "manual", ...init });
}

/** A call with a key (the result of `issue`, or a text) in X-API-Key. */
export function call(key, path = "/", init = {}) {
  return send(path, { ...init, headers: { "X-API-Key": key.key ?? key, ...init.headers } });
}

/** Sends consecutive calls; resolves to their statuses. */
export async function statuses(key, count) {
  const all = [];
  for (let i = 0; i < count; i += 1) all.push((await call(key)).status);
  return all;
}

/** Sends consecutive calls, which must all be admitted. */
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

/** The key's usage through the admin API. */
export const usage = (key) => api.usageOf(key);

/** The usage of each policy through the admin API, by name. */
export async function used(key) {
  const { policies } = await usage(key);
  return Object.fromEntries(policies.map(({ policy, used }) => [policy, used]));
}

/** The requests that the origin received in this test, oldest first. */
export async function received() {
  return (await env.ORIGIN_CONTROL.fetch("https://control.test/")).json();
}

/** The only request that the origin received. */
export async function receivedOne() {
  const requests = await received();
  expect(requests).toHaveLength(1);
  return requests[0];
}

/**
 * Releases the origin's responses at /in-two-parts and /held; with `query` those at /held with that
 * query.
 */
export function releaseOrigin(query = "") {
  return env.ORIGIN_CONTROL.fetch(`https://control.test/release${query}`);
}

/** Sets the clock of the Worker and of the objects. */
export function setClock(time) {
  vi.setSystemTime(time);
}

/** Advances that clock by so many seconds. */
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

/** The RateLimit field of a response, parsed. */
export function rateLimit(response) {
  return parseFields(response.headers.get("ratelimit"));
}

/** Its RateLimit-Policy field. */
export function rateLimitPolicy(response) {
  return parseFields(response.headers.get("ratelimit-policy"));
}

/**
 * Checks that a response is a refusal of tollgate: readable by browsers, never cached. Resolves to
 * its body.
 */
export async function problem(response, status) {
  const { headers } = response;
  expect(headers.get("access-control-allow-origin")).toBe(env.CORS_ALLOW_ORIGIN);
  const exposed = headers.get("access-control-expose-headers").split(", ");
  expect(exposed).toEqual(expect.arrayContaining(["RateLimit", "RateLimit-Policy", "Retry-After"]));
  const answer = { status: response.status, header: (name) => headers.get(name), body: await response.text() };
  return checkProblem(answer, status);
}
