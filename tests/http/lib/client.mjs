// What the tests do to a gate: issue keys, make tiers, send calls, read usage, and wait for what comes by itself.
import assert from "node:assert/strict";
import http from "node:http";
import { setTimeout as pause } from "node:timers/promises";

export const ERROR_TYPE = "application/problem+json";

/** The header of the admin API. */
export function asAdmin(gate) {
  return { authorization: `Bearer ${gate.adminToken}` };
}

/** Issues a key: `{ id, key, tier, … }`. */
export async function issueKey(gate, tier = "unlimited") {
  const response = await fetch(`${gate.url}/_tollgate/keys`, {
    method: "POST",
    headers: asAdmin(gate),
    body: JSON.stringify({ tier, name: "test" }),
  });
  assert.equal(response.status, 201, await response.clone().text());
  return response.json();
}

/** What the key's object says of it. */
export async function usageOf(gate, { id }) {
  const response = await fetch(`${gate.url}/_tollgate/keys/${id}/usage`, { headers: asAdmin(gate) });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

/** Adds tiers to D1: `{ name: [{ quota, period, algorithm, burst }] }`; a policy bears the name of its period. */
export async function addTiers(gate, tiers) {
  const sql = Object.entries(tiers).flatMap(([name, policies]) => [
    `INSERT INTO tiers (name) VALUES ('${name}')`,
    ...policies.map(
      ({ quota, period, algorithm = "fixed", burst = "NULL" }) =>
        `INSERT INTO tier_limits (tier, policy, quota, period, algorithm, burst)
         VALUES ('${name}', '${period}', ${quota}, '${period}', '${algorithm}', ${burst})`,
    ),
  ]);
  await gate.d1(sql.join(";"));
}

/** The sums of a key's rows in D1, over all epochs of this month: `{ rows, calls, denied }`. */
export async function meteredOf(gate, { id }) {
  const [sums] = await gate.d1(
    `SELECT COUNT(*) AS rows, COALESCE(SUM(calls), 0) AS calls, COALESCE(SUM(denied), 0) AS denied
     FROM usage_monthly WHERE key_id = '${id}'`,
  );
  return sums;
}

/** One request over `agent`'s connections: `{ status, headers, rawHeaders, body }`. */
export function send(gate, target, { agent, body, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(gate.url);
    const request = http.request({ hostname, port, path: target, agent, ...options }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const { statusCode: status, headers, rawHeaders } = response;
        resolve({ status, headers, rawHeaders, body: Buffer.concat(chunks) });
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** One call with a key. */
export function call(gate, { key }, target = "/", { headers, ...options } = {}) {
  return send(gate, target, { headers: { "x-api-key": key, ...headers }, ...options });
}

/** Sends calls with a key over so many connections, as fast as they are answered. */
export async function flood(gate, key, { calls, connections, ...options }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  try {
    const each = (_, n) => call(gate, key, `/flood/${n}`, { agent, ...options });
    return await Promise.all(Array.from({ length: calls }, each));
  } finally {
    agent.destroy();
  }
}

/** How many answers had each status. */
export function countStatuses(answers) {
  const counts = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/** Runs `probe` until it returns a true value, which is returned; `what` says in the failure what was awaited. */
export async function until(what, probe, { within = 20_000, every = 50 } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    const found = await probe();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${within} ms: ${what}`);
    await pause(every);
  }
}

/** A 429 as the contract has it; returns its `Retry-After`. */
export function assertDenied(answer, policies) {
  assert.equal(answer.status, 429);
  assert.equal(answer.headers["content-type"], ERROR_TYPE);
  assert.equal(answer.headers["cache-control"], "no-store");
  assert.match(answer.headers["retry-after"] ?? "none", /^[1-9]\d*$/);
  const problem = JSON.parse(answer.body);
  assert.deepEqual(problem["violated-policies"], policies);
  assert.equal(problem.retry_after, Number(answer.headers["retry-after"]));
  return problem.retry_after;
}

/** Another refusal as the contract has it. */
export function assertRefused(answer, status) {
  assert.equal(answer.status, status, String(answer.body));
  assert.equal(answer.headers["content-type"], ERROR_TYPE);
  assert.equal(answer.headers["cache-control"], "no-store");
  assert.equal(JSON.parse(answer.body).status, status);
}

/** The values of a header as the other side sent them, in their order and spelling: `["Name: value", …]`. */
export function linesOf(rawHeaders, pattern) {
  const lines = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (pattern.test(rawHeaders[i])) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
  }
  return lines;
}
