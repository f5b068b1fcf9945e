// Races for a token budget over real connections: whatever ends 64 streams, the origin's own count
// of tokens never passes the quota, and nothing is read for nothing.
import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { adminOf, countStatuses, issueKey, usageOf } from "./lib/client.mjs";
import { makeClock, PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";

const STREAMS = 64;
const FITTING = 10;
const CAP = 100;
const BODY = JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello" }], max_tokens: CAP, stream: true });
const HOLD = BODY.length + CAP;
/** Not a multiple of a hold. */
const QUOTA = FITTING * HOLD + 1;
/** What the origin counts for the texts of BODY. */
const INPUT = Math.ceil("userHello".length / 4);
const POLICIES = [{ policy: "budget", unit: "tokens", quota: QUOTA, period: "day" }];
const ROUTE = { pattern: "/v1/chat/*", method: "POST", format: "openai", default_output: CAP, max_output: CAP };

let origin;
let gate;

before(async () => {
  origin = await startOrigin();
  gate = await startGate({ origin: origin.url });
  await setUp(gate);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

async function setUp(gate) {
  const admin = adminOf(gate);
  await admin.json("PUT", "/token-routes", ROUTE, 201);
  await admin.json("PUT", "/tiers/budget", { policies: POLICIES }, 201);
}

/**
 * Sends a streamed call and leaves once `leaves(words)` holds of what has come. Resolves to its
 * status, 0 without a response, and the number of words that have come.
 */
function stream(gate, { key }, { fields, leaves = () => false, target = "/v1/chat/completions", host } = {}) {
  return new Promise((resolve) => {
    const { hostname, port } = new URL(gate.url);
    const headers = { "x-api-key": key, "content-type": "application/json", "content-length": BODY.length, ...(host && { host }), "x-demo-words": CAP, ...fields };
    const answer = { status: 0, words: 0, isWhole: false };
    let text = "";
    const request = http.request({ hostname, port, path: target, method: "POST", headers, agent: false }, (response) => {
      answer.status = response.statusCode;
      response.setEncoding("utf8").on("data", (data) => {
        text += data;
        answer.words = text.match(/"content":"[^"]/g)?.length ?? 0;
        if (leaves(answer.words)) response.destroy();
      });
      response.on("end", () => (answer.isWhole = text.endsWith("data: [DONE]\n\n")));
      response.on("error", () => {});
      response.on("close", () => resolve(answer));
    });
    request.on("error", () => resolve(answer));
    request.end(BODY);
  });
}

const streams = (gate, key, options) => Promise.all(Array.from({ length: STREAMS }, (_, n) => stream(gate, key, options?.(n))));

/** The key's budget: `{ used, held, remaining }`. The tokens of the month are those of the day. */
async function budgetOf(gate, key) {
  const { tokens, policies: [budget] } = await usageOf(gate, key);
  assert.equal(tokens, budget.used);
  return budget;
}

const slow = { "x-demo-delay": "5" };

test("64 streams at once against a budget that fits 10, again and again: the origin's own count ends below the quota", async (t) => {
  const key = await issueKey(gate, "budget");
  const rounds = [];
  do {
    const answers = await streams(gate, key, () => ({ fields: slow }));
    const { 200: admitted = 0, 429: denied = 0 } = countStatuses(answers);
    assert.equal(admitted + denied, STREAMS);
    for (const { status, words, isWhole } of answers) if (status === 200) assert.ok(isWhole && words === CAP, `${words} words`);
    assert.ok(origin.tokens(key) <= QUOTA, `${origin.tokens(key)} spent`);
    const { used, held } = await budgetOf(gate, key);
    assert.deepEqual({ used, held }, { used: origin.tokens(key), held: 0 });
    rounds.push(admitted);
  } while (rounds.at(-1) > 0);
  assert.ok(rounds[0] >= FITTING, `${rounds}`);
  // What is given back is used, until a hold does not fit any more.
  assert.ok(origin.tokens(key) > QUOTA - HOLD, `${origin.tokens(key)} spent`);
  t.diagnostic(JSON.stringify({ admitted: rounds, spent: origin.tokens(key), quota: QUOTA }));
});

test("64 streams whose clients leave in the middle: what was delivered is charged, and the origin's own count is below the quota", async (t) => {
  const key = await issueKey(gate, "budget");
  const answers = await streams(gate, key, (n) => ({ fields: slow, leaves: (words) => words >= 1 + (n % 20) }));
  await until("all holds are settled", async () => (await budgetOf(gate, key)).held === 0);
  const admitted = answers.filter(({ status }) => status === 200);
  assert.ok(admitted.length >= FITTING && admitted.every(({ isWhole }) => !isWhole));
  const delivered = admitted.reduce((sum, { words }) => sum + INPUT + words, 0);
  const { used } = await budgetOf(gate, key);
  assert.ok(delivered <= used && used <= QUOTA, `${delivered} delivered, ${used} charged`);
  assert.ok(origin.tokens(key) <= QUOTA, `${origin.tokens(key)} spent`);
  t.diagnostic(JSON.stringify({ admitted: admitted.length, delivered, spent: origin.tokens(key), charged: used, quota: QUOTA }));
});

test("64 streams of an origin that reports nothing: 10 are admitted, and their holds are charged whole", async () => {
  const key = await issueKey(gate, "budget");
  for (let round = 0; round < 2; round += 1) {
    const answers = await streams(gate, key, () => ({ fields: { ...slow, "x-demo-usage": "none" } }));
    assert.deepEqual(countStatuses(answers), round === 0 ? { 200: FITTING, 429: STREAMS - FITTING } : { 429: STREAMS });
    const { used, held, remaining } = await budgetOf(gate, key);
    assert.deepEqual({ used, held, remaining }, { used: FITTING * HOLD, held: 0, remaining: 1 });
    assert.equal(origin.tokens(key), FITTING * (INPUT + CAP));
  }
});

test("64 streams that kill -9 cuts off: their holds outlive it, and are charged whole when they expire", async () => {
  // A hold of ten minutes expires after ten seconds, far from the end of a day.
  const clock = makeClock({ from: "2031-03-12T06:00:00Z", speed: 60 });
  const direct = await startDirectGate({ vars: { ORIGIN: origin.url }, clock });
  try {
    await setUp(direct);
    const key = await issueKey(direct, "budget");
    const socket = { target: `${PUBLIC_URL}/v1/chat/completions`, host: "api.test" };
    const streaming = new Set();
    const note = (n) => (words) => {
      if (words >= 3) streaming.add(n);
      return false;
    };
    const answering = streams(direct, key, (n) => ({ ...socket, fields: { "x-demo-delay": "200" }, leaves: note(n) }));
    await until("the admitted streams have begun", () => streaming.size === FITTING, { every: 5 });
    process.kill(await direct.pid(), "SIGKILL");
    const admitted = (await answering).filter(({ status }) => status === 200);
    assert.deepEqual(admitted.map(({ isWhole }) => isWhole), Array(FITTING).fill(false));
    await direct.restarted();

    const cut = await budgetOf(direct, key);
    assert.equal(cut.used + cut.held, FITTING * HOLD, "nothing is given back");
    assert.equal((await stream(direct, key, socket)).status, 429);
    await until("the holds have expired", async () => (await budgetOf(direct, key)).held === 0, { within: 60_000 });
    const { used, remaining } = await budgetOf(direct, key);
    assert.deepEqual({ used, remaining }, { used: FITTING * HOLD, remaining: 1 });
    assert.ok(origin.tokens(key) >= FITTING * (INPUT + 3) && origin.tokens(key) <= used, `${origin.tokens(key)} spent`);
    assert.equal((await stream(direct, key, socket)).status, 429);
  } finally {
    await direct.stop();
  }
});
