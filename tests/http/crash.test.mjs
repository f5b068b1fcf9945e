// What survives kill -9 and a restart.
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { freshSecret, isHealthy, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { addTiers, assertDenied, call, countStatuses, flood, issueKey, meteredOf, usageOf } from "./lib/client.mjs";

const QUOTA = 300;
const CONNECTIONS = 20;

let origin;
let gate;
let directory;
let options;
const issued = [];
const logs = [];

before(async () => {
  origin = await startOrigin();
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-state-"));
  options = {
    origin: origin.url,
    persistTo: directory,
    vars: { ADMIN_TOKEN: freshSecret(), KEY_SECRET: freshSecret(), FLUSH_SECONDS: "1" },
  };
  gate = await startGate(options);
  await addTiers(gate, {
    // Without a window that could end during the test.
    crash: [{ quota: 1, period: "day", algorithm: "bucket", burst: QUOTA }],
    few: [{ quota: 1, period: "day", algorithm: "bucket", burst: 5 }],
  });
});

after(async () => {
  await gate?.stop({ hard: true });
  await origin?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

async function issue(tier) {
  const key = await issueKey(gate, tier);
  issued.push(key);
  return key;
}

/**
 * Calls over some connections until `acknowledged` were answered 200, then kills workerd, with calls
 * in flight if there are any. POST, because wrangler's proxy repeats a GET whose connection
 * broke.
 */
async function killUnderLoad(key, acknowledged, connections = CONNECTIONS) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  const [pid] = await gate.workerdPids();
  let acked = 0;
  let unanswered = 0;
  let isKilled = false;
  async function connection() {
    while (!isKilled) {
      const status = await call(gate, key, "/load", { agent, method: "POST" }).then((answer) => answer.status, () => 0);
      if (status === 200) acked += 1;
      else unanswered += 1;
      if (acked >= acknowledged && !isKilled) {
        isKilled = true;
        process.kill(pid, "SIGKILL");
      }
    }
  }
  await Promise.all(Array.from({ length: connections }, connection));
  agent.destroy();
  await until("a new workerd answers", async () => {
    const pids = await gate.workerdPids();
    return pids.length === 1 && pids[0] !== pid && (await isHealthy(gate.url));
  });
  return { acked, unanswered };
}

test("kill -9 of workerd under load loses no admitted call and admits none above the quota", async () => {
  const key = await issue("crash");
  origin.reset();
  let acked = 0;
  let unanswered = 0;
  for (const acknowledged of [40, 60]) {
    const load = await killUnderLoad(key, acknowledged);
    acked += load.acked;
    unanswered += load.unanswered;
    const { calls } = await usageOf(gate, key);
    assert.ok(calls >= acked, `${calls} counted, ${acked} answered 200`);
    assert.ok(calls <= acked + unanswered, `${calls} counted, ${acked} answered 200, ${unanswered} not`);
    assert.ok(origin.count() <= calls, `the origin saw ${origin.count()} calls, ${calls} are counted`);
    assert.ok(origin.count() >= acked);
  }

  const { calls } = await usageOf(gate, key);
  const seen = origin.count();
  const rest = await flood(gate, key, { calls: QUOTA, connections: CONNECTIONS, method: "POST" });
  assert.deepEqual(countStatuses(rest), { 200: QUOTA - calls, 429: calls });
  assert.equal(origin.count(), seen + QUOTA - calls);
  assert.ok(origin.count() <= QUOTA);
  assert.equal((await usageOf(gate, key)).calls, QUOTA);
});

test("after a crash the row in D1 becomes equal to the counts of the object", async () => {
  const [key] = issued;
  const { calls } = await usageOf(gate, key);
  assert.equal(calls, QUOTA);
  const row = await until("D1 has every call", async () => {
    const sums = await meteredOf(gate, key);
    assert.ok(sums.calls <= calls, `D1 has ${sums.calls} of ${calls} calls`);
    return sums.calls === calls && sums;
  }, { within: 40_000 });
  assert.equal(row.rows, 1);
});

test("kill -9 loses no sequential calls, whose writes are not confirmed", async () => {
  const key = await issue("crash");
  let acked = 0;
  let unanswered = 0;
  // Within the eight writes that may be unconfirmed, and beyond.
  for (const [acknowledged, connections] of [[1, 1], [7, 1], [12, 1], [10, 2]]) {
    const load = await killUnderLoad(key, acknowledged, connections);
    acked += load.acked;
    unanswered += load.unanswered;
    const { calls } = await usageOf(gate, key);
    assert.ok(calls >= acked, `${calls} counted, ${acked} answered 200`);
    assert.ok(calls <= acked + unanswered, `${calls} counted, ${acked} answered 200, ${unanswered} not`);
  }
});

test("counts and denials outlive a restart of everything on the same state", async () => {
  const used = await issue("few");
  const half = await issue("few");
  assert.deepEqual(countStatuses(await flood(gate, used, { calls: 7, connections: 1 })), { 200: 5, 429: 2 });
  assert.deepEqual(countStatuses(await flood(gate, half, { calls: 2, connections: 1 })), { 200: 2 });

  logs.push(gate.log());
  await gate.stop({ hard: true });
  gate = await startGate(options);
  origin.reset();

  assert.equal((await usageOf(gate, used)).calls, 5);
  assert.equal((await usageOf(gate, half)).calls, 2);
  assertDenied(await call(gate, used), ["day"]);
  assert.deepEqual(countStatuses(await flood(gate, half, { calls: 5, connections: 1 })), { 200: 3, 429: 2 });
  assert.equal(origin.count(), 3);
});

test("neither the stored state nor the log ever holds a key or its secret", async () => {
  logs.push(gate.log());
  const files = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const stored = await Promise.all(files.map((file) => readFile(path.join(file.parentPath, file.name), "latin1")));
  assert.ok(stored.length >= 3 && issued.length >= 3, "there are files, and keys to look for");
  for (const { id, key } of issued) {
    const secret = key.slice(key.lastIndexOf("_") + 1);
    const needles = [key, secret, secret.slice(0, 32)];
    assert.ok(stored.some((text) => text.includes(id)), "the key's id is stored, so the search can find something");
    for (const text of [...stored, ...logs]) {
      assert.ok(!needles.some((needle) => text.includes(needle)), `a file or the log holds the secret of key ${id}`);
    }
  }
  for (const name of ["ADMIN_TOKEN", "KEY_SECRET"]) {
    assert.ok(![...stored, ...logs].some((text) => text.includes(options.vars[name])), `${name} is stored or logged`);
  }
});
