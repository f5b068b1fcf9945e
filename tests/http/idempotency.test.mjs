// Calls with one Idempotency-Key against a month, over real sockets and through kill -9.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { isHealthy, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { addTiers, assertRefused, call, countStatuses, issueKey, usageOf } from "./lib/client.mjs";

const CONNECTIONS = 20;
const FREE = 5;
const QUOTA = 60;

let origin;
let gate;
let directory;

before(async () => {
  origin = await startOrigin();
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-state-"));
  gate = await startGate({ origin: origin.url, persistTo: directory, vars: { FLUSH_SECONDS: "1" } });
  await addTiers(gate, { three: [{ quota: 3, period: "month" }], sixty: [{ quota: QUOTA, period: "month" }] });
});

after(async () => {
  await gate?.stop({ hard: true });
  await origin?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

const pay = (key, idempotencyKey, target = "/orders", options = {}) =>
  call(gate, key, target, { method: "POST", body: "x", ...options, headers: { "idempotency-key": idempotencyKey } });

/** Runs `one(n)` so many times over some connections. Resolves to the responses. */
async function many(count, one) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  try {
    return await Promise.all(Array.from({ length: count }, (_, n) => one(n, { agent })));
  } finally {
    agent.destroy();
  }
}

const monthOf = async (key) => (await usageOf(gate, key)).policies[0].used;

test("150 different calls with one key: one passes, the others are 422 and spend nothing", async () => {
  const key = await issueKey(gate, "three");
  origin.reset();
  assert.equal((await pay(key, "z", "/0")).status, 200);
  const others = await many(149, (n, options) => pay(key, "z", `/${n + 1}?a=${n}`, options));
  others.forEach((answer) => assertRefused(answer, 422));
  assert.deepEqual([origin.count(), await monthOf(key), (await usageOf(gate, key)).calls], [1, 1, 1]);
});

test("150 times the same call with one key: eight pass, and the month of three is exhausted", async () => {
  const key = await issueKey(gate, "three");
  origin.reset();
  assert.equal((await pay(key, "z")).status, 200);
  const repeats = await many(149, (_, options) => pay(key, "z", "/orders", options));
  assert.deepEqual(countStatuses(repeats), { 200: 7, 429: 142 });
  assert.ok(repeats.filter(({ status }) => status === 200).every(({ headers }) => headers["x-tollgate-idempotent-replay"] === "1"));
  assert.deepEqual([origin.count(), await monthOf(key), (await usageOf(gate, key)).calls], [8, 3, 8]);
  // The month is exhausted for calls without the field too.
  assert.equal((await call(gate, key)).status, 429);
});

test("hundreds of keys after the month is exhausted are all refused", async () => {
  const key = await issueKey(gate, "three");
  for (const text of ["a", "b", "c"]) assert.equal((await pay(key, text)).status, 200);
  origin.reset();
  const answers = await many(300, (n, options) => pay(key, `new ${n}`, "/orders", options));
  assert.deepEqual(countStatuses(answers), { 429: 300 });
  assert.equal(origin.count(), 0);
});

test("kill -9 under load adds no free repeat", async () => {
  const key = await issueKey(gate, "sixty");
  origin.reset();
  const keys = Array.from({ length: 15 }, (_, n) => `order ${n}`);
  let acknowledged = 0;
  for (const most of [20, 30, 30]) {
    const [pid] = await gate.workerdPids();
    const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS });
    let isKilled = false;
    let answered = 0;
    await Promise.all(Array.from({ length: CONNECTIONS }, async (_, lane) => {
      for (let n = lane; !isKilled; n += 1) {
        const status = await pay(key, keys[n % keys.length], "/orders", { agent }).then((answer) => answer.status, () => 0);
        if (status === 200) acknowledged += 1;
        answered += 1;
        if (answered >= most && !isKilled) {
          isKilled = true;
          process.kill(pid, "SIGKILL");
        }
      }
    }));
    agent.destroy();
    await until("a new workerd answers", async () => {
      const pids = await gate.workerdPids();
      return pids.length === 1 && pids[0] !== pid && (await isHealthy(gate.url));
    });
  }
  // The rest of the month and of the free repeats. A call that was in flight when its isolate ended
  // stays in flight for five minutes.
  for (const text of keys) await many(12, (_, options) => pay(key, text, "/orders", options));

  const seen = new Map();
  for (const { headers } of origin.requests()) {
    const text = headers["idempotency-key"];
    seen.set(text, (seen.get(text) ?? 0) + 1);
  }
  const charged = [...seen.values()].reduce((sum, count) => sum + Math.max(1, count - FREE), 0);
  const { calls } = await usageOf(gate, key);
  const used = await monthOf(key);
  assert.ok(charged <= used && used <= QUOTA, `the origin saw ${charged} calls that cost something, ${used} of ${QUOTA} were charged`);
  assert.ok(acknowledged <= calls && origin.count() <= calls, `${calls} counted, ${acknowledged} answered, ${origin.count()} at the origin`);
  assert.ok(calls <= used + FREE * keys.length, `${calls} counted, ${used} charged`);
});
