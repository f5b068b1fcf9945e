// Reservations by many services at once: never more than the quota is given out, by the services'
// own sum, and kill -9 loses none.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { adminOf, issueKey, usageOf } from "./lib/client.mjs";
import { makeClock, startDirectGate } from "./lib/direct.mjs";

const QUOTA = 1_000;
const EACH = 100;
const FIT = QUOTA / EACH;
const CLIENTS = 64;
const KILLS = 5;

let gate;
let api;

before(async () => {
  gate = await startDirectGate({ clock: makeClock({ from: "2031-03-12T12:00:00.000Z" }) });
  api = adminOf(gate);
  // One token in 86 s comes back: nothing flows back while a test runs.
  const bucket = { policy: "day", unit: "tokens", quota: QUOTA, period: "day", algorithm: "bucket", burst: QUOTA };
  await api.json("PUT", "/tiers/bucket", { policies: [bucket] }, 201);
  await api.json("PUT", "/tiers/window", { policies: [{ policy: "day", unit: "tokens", quota: QUOTA, period: "day" }] }, 201);
});

after(() => gate?.stop());

const pathOf = (key, ...parts) => ["/keys", key.id, "reservations", ...parts].join("/");

/** The status and body of a request; status 0 if the connection broke. */
async function send(method, path, body) {
  const response = await api.request(method, path, body).catch(() => undefined);
  if (response === undefined) return { status: 0 };
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
}

const reserve = (key, tokens = EACH) => send("POST", pathOf(key), { tokens, ttl_seconds: 3600 });
const settle = (key, { id }, tokens) => send("POST", pathOf(key, id, "settle"), { tokens });

async function open(key) {
  const { status, body } = await send("GET", pathOf(key));
  assert.equal(status, 200);
  return body.reservations;
}

async function policyOf(key) {
  return (await usageOf(gate, key)).policies[0];
}

const clients = (work) => Promise.all(Array.from({ length: CLIENTS }, work));

for (const tier of ["bucket", "window"]) {
  test(`of ${CLIENTS} concurrent reservations exactly as many are made as fit (${tier})`, async () => {
    const key = await issueKey(gate, tier);
    const answers = await clients(() => reserve(key));
    const made = answers.filter(({ status }) => status === 201);
    assert.equal(made.length, FIT);
    for (const { status, body } of answers.filter((answer) => answer.status !== 201)) {
      assert.equal(status, 429);
      assert.deepEqual(body["violated-policies"], ["day"]);
    }
    assert.deepEqual((await open(key)).map(({ id }) => id).sort(), made.map(({ body }) => body.id).sort());
    const { used, held, remaining } = await policyOf(key);
    if (tier === "window") assert.deepEqual({ used, held, remaining }, { used: 0, held: QUOTA, remaining: 0 });
  });

  test(`while ${CLIENTS} clients reserve and settle, their own sum never passes the quota (${tier})`, async () => {
    const key = await issueKey(gate, tier);
    let [sum, largest, charged, settled] = [0, 0, 0, 0];
    // Nothing is settled before each client has an answer, so that the quota is used up once.
    const full = Promise.withResolvers();
    let answered = 0;
    await clients(async (_, client) => {
      for (let turn = 0; turn < 40; turn += 1) {
        const { status, body } = await reserve(key);
        assert.ok([201, 429].includes(status), `${status}`);
        if (turn === 0 && (answered += 1) === CLIENTS) full.resolve();
        if (status === 429) continue;
        sum += EACH;
        largest = Math.max(largest, sum);
        assert.ok(sum <= QUOTA, `${sum} of ${QUOTA}`);
        await full.promise;
        const tokens = (client * 7 + turn) % 4;
        // The object gives back before the client hears of it.
        sum -= EACH - tokens;
        charged += tokens;
        settled += 1;
        assert.equal((await settle(key, body, tokens)).body.tokens, tokens);
      }
    });
    assert.ok(largest === QUOTA && settled >= FIT, `${largest} at most, ${settled} settled`);
    assert.deepEqual(await open(key), []);
    const { used, held } = await policyOf(key);
    assert.equal(held, 0);
    // A bucket has drained some since.
    if (tier === "window") assert.equal(used, charged);
    else assert.ok(used <= charged && used >= charged - 10, `${used} of ${charged}`);
  });
}

/** Kills workerd once `isDue()` while the clients work, and waits for the next one. */
async function killWhen(isDue, work) {
  const pid = await gate.pid();
  let isKilled = false;
  await clients(async (_, client) => {
    while (!isKilled) {
      await work(client);
      if (!isKilled && isDue()) {
        isKilled = true;
        process.kill(pid, "SIGKILL");
      }
    }
  });
  await gate.restarted();
}

test("kill -9 loses no reservation and lets no more than the quota be reserved", async () => {
  for (let kill = 0; kill < KILLS; kill += 1) {
    const key = await issueKey(gate, "window");
    const made = [];
    await killWhen(() => made.length > kill, async () => {
      const { status, body } = await reserve(key);
      if (status === 201) made.push(body);
    });
    assert.ok(made.length > 0 && made.length <= FIT, `${made.length} made`);
    const kept = new Map((await open(key)).map((reservation) => [reservation.id, reservation]));
    assert.ok(kept.size <= FIT, `${kept.size} are open`);
    for (const reservation of made) assert.deepEqual(kept.get(reservation.id), reservation);
    // What was asked without an answer may have been made too.
    const answers = await clients(() => reserve(key));
    assert.equal(answers.filter(({ status }) => status === 201).length, FIT - kept.size);
    assert.equal((await policyOf(key)).held, QUOTA);
  }
});

test("kill -9 while clients settle: each settle that was answered stands, and none counts twice", async () => {
  const key = await issueKey(gate, "window");
  /** By id: tokens of each settle that was sent, and whether it was answered. */
  const settles = new Map();
  for (let kill = 0; kill < KILLS; kill += 1) {
    const before = settles.size;
    await killWhen(() => settles.size >= before + 20, async (client) => {
      const { status, body } = await reserve(key);
      if (status !== 201) return;
      const sent = { tokens: (client + kill) % 3, isAnswered: false };
      settles.set(body.id, sent);
      sent.isAnswered = (await settle(key, body, sent.tokens)).status === 200;
    });
    const isOpen = new Set((await open(key)).map(({ id }) => id));
    for (const [id, { isAnswered }] of settles) assert.ok(!isAnswered || !isOpen.has(id), "a settle was lost");
    for (const [id, sent] of settles) {
      // Sent again, like a client does that got no answer.
      const again = await settle(key, { id }, isOpen.has(id) ? sent.tokens : 99);
      assert.deepEqual([again.status, again.body.tokens], [200, sent.tokens]);
      sent.isAnswered = true;
    }
    // What was made without an answer is nobody's.
    for (const { id } of await open(key)) assert.equal((await send("DELETE", pathOf(key, id))).status, 204);
    const charged = [...settles.values()].reduce((sum, { tokens }) => sum + tokens, 0);
    const { used, held } = await policyOf(key);
    assert.deepEqual({ used, held }, { used: charged, held: 0 });
    assert.ok(used <= QUOTA);
  }
});
