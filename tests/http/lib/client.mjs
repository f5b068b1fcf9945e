// Operations on a gate: keys, tiers, calls, usage, and polling.
import assert from "node:assert/strict";
import http from "node:http";
import { AdminClient } from "../../../scripts/lib/admin.mjs";
import { checkDenial, checkProblem } from "../../support/problem.mjs";

/** The admin API of a gate: over `gate.fetch` where it has one, else over HTTP. */
export function adminOf(gate) {
  const fetchPath = gate.fetch ?? ((path, init) => fetch(gate.url + path, init));
  return new AdminClient({ fetch: fetchPath, token: gate.adminToken });
}

/** Issues a key: `{ id, key, tier, … }`. */
export const issueKey = (gate, tier = "unlimited") => adminOf(gate).issueKey(tier, "test");

/** Imports keys. */
export async function importKeys(gate, keys, tier = "unlimited") {
  for (const result of await adminOf(gate).importLines(keys.map((key) => ({ key, tier })))) assert.ok(result.id, JSON.stringify(result));
}

/** The usage of a key, from its object. */
export const usageOf = (gate, key) => adminOf(gate).usageOf(key);

/**
 * Adds tiers to D1: `{ name: [{ quota, period, algorithm, burst }] }`; each policy is named by its
 * period.
 */
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

/** Number of responses by status. */
export function countStatuses(answers) {
  const counts = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

const checkable = ({ status, headers, body }) => ({ status, header: (name) => headers[name], body: String(body) });

/** Checks a 429; returns its `Retry-After`. */
export const assertDenied = (answer, policies) => checkDenial(checkable(answer), policies);

/** Checks a refusal other than 429. */
export const assertRefused = (answer, status) => checkProblem(checkable(answer), status);

/** The values of a header as sent, in order and spelling: `["Name: value", …]`. */
export function linesOf(rawHeaders, pattern) {
  const lines = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (pattern.test(rawHeaders[i])) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
  }
  return lines;
}
