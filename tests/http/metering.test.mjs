// Usage in D1, with the real alarm.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { applyMigrations, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { addTiers, call, countStatuses, flood, issueKey, meteredOf, usageOf } from "./lib/client.mjs";

let origin;
let gate;
let directory;

before(async () => {
  origin = await startOrigin();
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-state-"));
  // The object judges every denial, so that the count of denials is exact.
  const vars = { FLUSH_SECONDS: "1", DENY_CACHE_SECONDS: "0" };
  gate = await startGate({ origin: origin.url, persistTo: directory, vars });
  await addTiers(gate, { three: [{ quota: 1, period: "day", algorithm: "bucket", burst: 3 }] });
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

function rowsOf(key) {
  return gate.d1(`SELECT month, epoch, calls, denied, updated_at FROM usage_monthly WHERE key_id = '${key.id}'`);
}

function metered(key, calls, denied) {
  return until(`D1 has ${calls} calls and ${denied} denials`, async () => {
    const sums = await meteredOf(gate, key);
    assert.ok(sums.calls <= calls && sums.denied <= denied, `D1 has ${sums.calls} calls and ${sums.denied} denials`);
    return sums.calls === calls && sums.denied === denied && sums;
  }, { within: 40_000 });
}

test("after a flush the row of a key's month equals its calls", async () => {
  const key = await issueKey(gate, "enterprise");
  assert.deepEqual(await rowsOf(key), []);
  const month = () => new Date().toISOString().slice(0, 7);
  const first = month();
  assert.deepEqual(countStatuses(await flood(gate, key, { calls: 30, connections: 10 })), { 200: 30 });
  await metered(key, 30, 0);
  const [row] = await rowsOf(key);
  assert.ok([first, month()].includes(row.month));
  assert.match(row.epoch, /./);
  assert.ok(Math.abs(Date.parse(row.updated_at) - Date.now()) < 120_000);
  assert.match(row.updated_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
  assert.equal((await usageOf(gate, key)).calls, 30);
});

test("further calls raise the same row to the new total", async () => {
  const key = await issueKey(gate, "enterprise");
  await call(gate, key);
  await metered(key, 1, 0);
  assert.deepEqual(countStatuses(await flood(gate, key, { calls: 4, connections: 4 })), { 200: 4 });
  assert.equal((await metered(key, 5, 0)).rows, 1);
});

test("two keys are flushed to separate rows", async () => {
  const [one, two] = await Promise.all([issueKey(gate, "enterprise"), issueKey(gate, "enterprise")]);
  await Promise.all([flood(gate, one, { calls: 7, connections: 5 }), flood(gate, two, { calls: 11, connections: 5 })]);
  await metered(one, 7, 0);
  await metered(two, 11, 0);
});

test("denied requests are counted as denied, and never as calls", async () => {
  const key = await issueKey(gate, "three");
  assert.deepEqual(countStatuses(await flood(gate, key, { calls: 8, connections: 1 })), { 200: 3, 429: 5 });
  assert.equal((await usageOf(gate, key)).calls, 3);
  assert.equal((await metered(key, 3, 5)).rows, 1);
});

test("a key that was never called has no row", async () => {
  const key = await issueKey(gate, "enterprise");
  assert.equal((await usageOf(gate, key)).calls, 0);
  const called = await issueKey(gate, "enterprise");
  await call(gate, called);
  await metered(called, 1, 0);
  assert.deepEqual(await rowsOf(key), []);
});

test("applying the migrations again changes nothing", async () => {
  const contents = async () => {
    const [row] = await gate.d1(
      `SELECT
         (SELECT json_group_array(sql) FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '%_cf_%') AS tables,
         (SELECT json_group_array(name) FROM d1_migrations) AS migrations,
         (SELECT json_group_array(tier || ' ' || policy || ' ' || quota)
            FROM tier_limits WHERE tier <> 'three') AS limits,
         (SELECT json_group_array(key_id || epoch || calls) FROM usage_monthly) AS usage`,
    );
    return Object.fromEntries(Object.entries(row).map(([name, list]) => [name, JSON.parse(list)]));
  };
  const once = await contents();
  assert.ok(once.migrations.length >= 3 && once.usage.length >= 5);
  assert.deepEqual(once.limits.sort(), [
    "basic minute 50", "basic month 10000", "enterprise minute 1000", "enterprise month 1000000",
    "free minute 10", "free month 1000", "pro minute 200", "pro month 100000",
  ]);
  await applyMigrations({ persistTo: directory });
  const twice = await contents();
  assert.deepEqual({ ...twice, limits: twice.limits.sort() }, once);
});
