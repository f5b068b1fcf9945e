// Lookups of imported keys that wait together, at workerd's own socket: clients that leave during
// them, floods, cold starts.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { startOrigin } from "../../scripts/lib/gate.mjs";
import { countStatuses, importKeys, send } from "./lib/client.mjs";
import { d1Count, PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";
import { connect, head, readAnswer } from "./lib/raw.mjs";

const madeUp = () => `sk_live_${randomUUID()}`;
const many = (count, make) => Array.from({ length: count }, make);

let origin;
before(async () => {
  origin = await startOrigin();
});
after(() => origin?.stop());

/** A call over its own connection: `{ answer, leave }`. */
async function begin(gate, key, address = "192.0.2.1") {
  const socket = await connect(gate);
  socket.on("error", () => {});
  const lines = ["Host: api.test", `X-API-Key: ${key}`, `CF-Connecting-IP: ${address}`];
  socket.write(head(`GET ${PUBLIC_URL}/ HTTP/1.1`, lines));
  const answer = readAnswer(socket).finally(() => socket.destroy());
  answer.catch(() => {});
  return { answer, leave: () => socket.resetAndDestroy() };
}

function call(gate, key, { agent, address = "192.0.2.1" } = {}) {
  return send(gate, `${PUBLIC_URL}/`, { agent, headers: { host: "api.test", "x-api-key": key, "cf-connecting-ip": address } });
}

async function statusesWithin(milliseconds, calls) {
  const begun = performance.now();
  const answers = await Promise.all(calls.map(({ answer }) => answer));
  const took = performance.now() - begun;
  assert.ok(took < milliseconds, `answered after ${took} ms`);
  return answers.map(({ status }) => status);
}

describe("clients that leave", () => {
  const D1_TAKES = 300;
  // Much less than the time after which a query counts as lost.
  const AT_ONCE = 3_000;
  let gate;
  let keys;

  before(async () => {
    gate = await startDirectGate({ vars: { ORIGIN: origin.url }, d1Takes: D1_TAKES });
    keys = many(12, madeUp);
    await importKeys(gate, keys);
  });
  after(() => gate?.stop());

  test("while their request runs a query that others wait for", async () => {
    const leavers = await Promise.all([keys[0], madeUp()].map((key, n) => begin(gate, key, `198.51.100.${n}`)));
    await pause(100);
    // The first two wait for the queries of clients that leave, the others for the next one.
    const stay = await Promise.all([keys[0], keys[0], keys[1], keys[2], madeUp()].map((key) => begin(gate, key)));
    await pause(50);
    for (const { leave } of leavers) leave();
    assert.deepEqual(await statusesWithin(AT_ONCE, stay), [200, 200, 200, 200, 401]);
  });

  test("while their request waits for queries of others", async () => {
    const first = await Promise.all([keys[3], keys[4]].map((key) => begin(gate, key)));
    await pause(50);
    const leavers = await Promise.all(many(10, (_, n) => begin(gate, madeUp(), `198.51.100.${10 + n}`)));
    const stay = await Promise.all([keys[5], keys[6], madeUp()].map((key) => begin(gate, key)));
    await pause(50);
    for (const { leave } of leavers) leave();
    assert.deepEqual(await statusesWithin(AT_ONCE, [...first, ...stay]), [200, 200, 200, 200, 401]);
  });

  test("all of them, at any moment", async () => {
    for (let after = 0; after <= 700; after += 100) {
      const leavers = await Promise.all(many(20, (_, n) => begin(gate, madeUp(), `198.51.${after % 256}.${n}`)));
      const stays = await begin(gate, keys[7 + (after / 100) % 5]);
      await pause(after);
      for (const { leave } of leavers) leave();
      assert.deepEqual(await statusesWithin(AT_ONCE, [stays]), [200], `after ${after} ms`);
    }
  });

  test("from an address that was just refused", async () => {
    const address = "198.51.100.200";
    assert.equal((await (await begin(gate, madeUp(), address)).answer).status, 401);
    const leavers = await Promise.all(many(100, () => begin(gate, madeUp(), address)));
    await pause(100);
    for (const { leave } of leavers) leave();
    assert.deepEqual(await statusesWithin(AT_ONCE, [await begin(gate, madeUp(), address)]), [401]);
  });
});

describe("many at once", () => {
  let gate;

  before(async () => {
    gate = await startDirectGate({ vars: { ORIGIN: origin.url }, d1Takes: 5 });
  });
  after(() => gate?.stop());

  test("a cold isolate admits hundreds of imported keys without a query for each", async () => {
    const keys = many(200, madeUp);
    await importKeys(gate, keys);
    const before = await d1Count(gate);
    const agent = new http.Agent({ keepAlive: true, maxSockets: 100 });
    const answers = await Promise.all(keys.map((key) => call(gate, key, { agent })));
    agent.destroy();
    assert.deepEqual(countStatuses(answers), { 200: 200 });
    const queries = (await d1Count(gate)) - before;
    assert.ok(queries <= 100, `${queries} queries`);
    const again = await d1Count(gate);
    for (const key of keys.slice(0, 20)) assert.equal((await call(gate, key)).status, 200);
    assert.equal(await d1Count(gate), again);
  });

  test("a flood of invented keys from one address costs four queries a second, and cached keys none", async () => {
    const [known, fresh] = [madeUp(), madeUp()];
    await importKeys(gate, [known, fresh]);
    assert.equal((await call(gate, known)).status, 200);
    assert.equal((await call(gate, madeUp(), { address: "203.0.113.9" })).status, 401);
    const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
    const [begun, before] = [performance.now(), await d1Count(gate)];
    let isFlooding = true;
    const flooders = many(32, async () => {
      const statuses = [];
      while (isFlooding) statuses.push(await call(gate, madeUp(), { agent, address: "203.0.113.9" }));
      return statuses;
    });
    const until = begun + 3_000;
    while (performance.now() < until) {
      assert.equal((await call(gate, known)).status, 200);
      await pause(5);
    }
    assert.equal((await call(gate, fresh)).status, 200, "an address that was not refused");
    isFlooding = false;
    const refused = (await Promise.all(flooders)).flat();
    agent.destroy();
    assert.deepEqual(Object.keys(countStatuses(refused)), ["401"]);
    const seconds = (performance.now() - begun) / 1000;
    const queries = (await d1Count(gate)) - before;
    assert.ok(queries <= seconds * 4 + 2, `${queries} queries in ${seconds} s, ${refused.length} refused`);
  });
});
