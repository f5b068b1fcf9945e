// Exactness under concurrency, by the origin's own count.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { addTiers, assertDenied, call, countStatuses, flood, issueKey, usageOf } from "./lib/client.mjs";

const QUOTA = 100;
const CALLS = 500;
const CONNECTIONS = 50;
const ROUNDS = 2;

let origin;
let gate;

before(async () => {
  origin = await startOrigin();
  gate = await startGate({ origin: origin.url });
  await addTiers(gate, {
    "fixed-100": [{ quota: QUOTA, period: "day" }],
    // One unit in 864 s: the test ends before the bucket refills.
    "bucket-100": [{ quota: 100, period: "day", algorithm: "bucket", burst: QUOTA }],
    "sliding-100": [{ quota: QUOTA, period: "day", algorithm: "sliding" }],
  });
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

/** Repeats `round` if a UTC day began in it, which opens a new window. */
async function withinOneDay(round) {
  for (;;) {
    const day = new Date().getUTCDate();
    const result = await round();
    if (new Date().getUTCDate() === day) return result;
  }
}

for (const tier of ["fixed-100", "bucket-100", "sliding-100"]) {
  for (let round = 1; round <= ROUNDS; round += 1) {
    const what = `${CALLS} requests on ${CONNECTIONS} connections against a limit of ${QUOTA}`;
    test(`${what} reach the origin exactly ${QUOTA} times (${tier}, round ${round})`, async () => {
      const { key, answers } = await withinOneDay(async () => {
        const key = await issueKey(gate, tier);
        origin.reset();
        return { key, answers: await flood(gate, key, { calls: CALLS, connections: CONNECTIONS }) };
      });
      assert.equal(origin.count(), QUOTA);
      assert.deepEqual(countStatuses(answers), { 200: QUOTA, 429: CALLS - QUOTA });
      for (const answer of answers.filter(({ status }) => status === 429)) assertDenied(answer, ["day"]);
      assert.equal(new Set(origin.requests().map(({ path }) => path)).size, QUOTA);
      assert.equal((await usageOf(gate, key)).calls, QUOTA);
    });
  }
}

test("each admitted call gets a different remaining count", async () => {
  const answers = await withinOneDay(async () => {
    const key = await issueKey(gate, "fixed-100");
    return flood(gate, key, { calls: QUOTA, connections: CONNECTIONS });
  });
  const remaining = answers.map(({ headers }) => Number(headers.ratelimit.match(/^"day";r=(\d+);/)[1]));
  assert.deepEqual(remaining.sort((a, b) => a - b), Array.from({ length: QUOTA }, (_, n) => n));
});

test("keys are counted separately: a flood of one key uses nothing of another", async () => {
  const [one, other] = await Promise.all([issueKey(gate, "fixed-100"), issueKey(gate, "fixed-100")]);
  const [flooded, light] = await Promise.all([
    flood(gate, one, { calls: 150, connections: 25 }),
    flood(gate, other, { calls: 50, connections: 25 }),
  ]);
  assert.deepEqual(countStatuses(flooded), { 200: QUOTA, 429: 50 });
  assert.deepEqual(countStatuses(light), { 200: 50 });
  assert.match((await call(gate, other)).headers.ratelimit, /^"day";r=49;/);
});
