// A change of a tier with thousands of keys, of which 200 are in use, reaches all of them while no
// object can read D1.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { adminOf, call, issueKey } from "./lib/client.mjs";

// Here one workerd holds all objects, each with three open files: 10,000 keys need `ulimit -n
// 32000` and minutes.
const KEYS = Number(process.env.TOLLGATE_TIER_KEYS ?? 2_000);
const ACTIVE = 200;
const TIER = "crowd";

let origin;
let gate;

before(async () => {
  origin = await startOrigin();
  // No flush writes to D1 while the test changes tables there.
  gate = await startGate({ origin: origin.url, vars: { DENY_CACHE_SECONDS: "0", FLUSH_SECONDS: "3600" } });
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

async function putTier(quota) {
  const body = { policies: [{ policy: "day", quota, period: "day" }] };
  const answer = await adminOf(gate).request("PUT", `/tiers/${TIER}`, body);
  assert.ok([200, 201].includes(answer.status), await answer.clone().text());
  return answer.json();
}

/** In groups, so that no more than so many connections are open. */
async function each(keys, work) {
  const results = [];
  for (let at = 0; at < keys.length; at += 20) results.push(...(await Promise.all(keys.slice(at, at + 20).map(work))));
  return results;
}

/** Ids of keys that were issued and never called, in rows like those of the admin API. */
function addIdleKeys(count) {
  const hash = "0".repeat(64);
  return gate.d1(
    `INSERT INTO keys (id, tier, secret_hash, created_at)
     WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ${count})
     SELECT ${letters("n", 16)}, '${TIER}', '${hash}', '2026-01-01T00:00:00Z' FROM numbers`,
  );
}

/** SQL for a number in base 4, in letters of an id. */
function letters(column, width) {
  return Array.from({ length: width }, (_, place) => `substr('abcd', (${column} >> ${2 * (width - 1 - place)}) % 4 + 1, 1)`).join(" || ");
}

test("the next request of every active key is judged by the new limits, though no object can read D1", async (t) => {
  await putTier(1);
  const keys = await each(Array.from({ length: ACTIVE }), () => issueKey(gate, TIER));
  await addIdleKeys(KEYS - ACTIVE);
  const [{ count }] = await gate.d1(`SELECT COUNT(*) AS count FROM keys WHERE tier = '${TIER}'`);
  assert.equal(count, KEYS);
  const statuses = async (key) => (await call(gate, key)).status;
  assert.deepEqual(new Set(await each(keys, statuses)), new Set([200]));
  assert.deepEqual(new Set(await each(keys, statuses)), new Set([429]));

  // From here on no object can read D1: its queries need this table, those of the Worker do not.
  await gate.d1("ALTER TABLE route_costs RENAME TO route_costs_away");
  const begun = performance.now();
  const { pushed, pending } = await putTier(2);
  t.diagnostic(`${pushed} of ${pushed + pending} keys have the change after ${Math.round(performance.now() - begun)} ms`);
  assert.equal(pushed + pending, KEYS);
  // On a slow machine the push continues after the response.
  if (pending > 0) await until("every key has the change", async () => (await putTier(2)).pending === 0, { within: 240_000 });
  assert.deepEqual(new Set(await each(keys, statuses)), new Set([200]));
  assert.deepEqual(new Set(await each(keys, statuses)), new Set([429]));
  await gate.d1("ALTER TABLE route_costs_away RENAME TO route_costs");
});
