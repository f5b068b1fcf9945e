// WebSocket upgrades.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { addTiers, assertDenied, assertRefused, issueKey, usageOf } from "./lib/client.mjs";
import { echoUpgrade, openWebSocket } from "./lib/websocket.mjs";

let origin;
let gate;
let key;

before(async () => {
  origin = await startOrigin({ upgrade: echoUpgrade });
  gate = await startGate({ origin: origin.url, vars: { ALLOW_QUERY_KEY: "true" } });
  await addTiers(gate, { two: [{ quota: 1, period: "day", algorithm: "bucket", burst: 2 }] });
  key = await issueKey(gate, "pro");
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

test("a WebSocket upgrade passes through, and messages go both ways", async () => {
  origin.reset();
  const socket = await openWebSocket(gate, "/ws?room=1", { "x-api-key": key.key, "sec-websocket-protocol": "chat" });
  assert.equal(socket.status, 101);
  assert.ok(socket.isAccepted);
  assert.equal(await socket.exchange("hello"), "hello");
  assert.equal(await socket.exchange("x".repeat(1000)), "x".repeat(1000));
  assert.ok(await socket.close());
  const [received] = origin.requests();
  assert.equal(received.path, "/ws?room=1");
  assert.equal(received.headers["sec-websocket-protocol"], "chat");
  assert.equal(received.headers["x-tollgate-key-id"], key.id);
  assert.equal(received.headers["x-api-key"], undefined);
});

test("the 101 of an upgrade carries the rate-limit fields and the origin's own", async () => {
  const socket = await openWebSocket(gate, "/ws", { "x-api-key": key.key });
  assert.match(socket.headers["ratelimit-policy"] ?? "none", /^"minute";q=200;w=60, "month";q=100000;w=\d+$/);
  assert.match(socket.headers.ratelimit ?? "none", /^"minute";r=\d+;t=\d+, "month";r=\d+;t=\d+$/);
  assert.equal(socket.headers["x-origin"], "echo");
  await socket.close();
});

test("an upgrade is one call, with any number of messages", async () => {
  const { calls } = await usageOf(gate, key);
  const socket = await openWebSocket(gate, "/ws", { "x-api-key": key.key });
  for (let n = 0; n < 5; n += 1) assert.equal(await socket.exchange(`message ${n}`), `message ${n}`);
  await socket.close();
  assert.equal((await usageOf(gate, key)).calls, calls + 1);
});

test("an upgrade without quota is answered 429 and never reaches the origin", async () => {
  const exhausted = await issueKey(gate, "two");
  for (let n = 0; n < 2; n += 1) {
    const socket = await openWebSocket(gate, "/ws", { "x-api-key": exhausted.key });
    assert.equal(socket.status, 101);
    await socket.close();
  }
  origin.reset();
  assertDenied(await openWebSocket(gate, "/ws", { "x-api-key": exhausted.key }), ["day"]);
  assert.equal(origin.count(), 0);
});

test("an upgrade without a key, or with a forged one, is answered 401 and never reaches the origin", async () => {
  origin.reset();
  assertRefused(await openWebSocket(gate, "/ws"), 401);
  assertRefused(await openWebSocket(gate, "/ws", { "x-api-key": `${key.key}x` }), 401);
  assert.equal(origin.count(), 0);
});

test("a browser's WebSocket, which cannot set a header, has its key in the query", async () => {
  origin.reset();
  const socket = new WebSocket(`${gate.url.replace("http", "ws")}/ws?room=2&api_key=${key.key}`);
  const echoed = await new Promise((resolve, reject) => {
    socket.onopen = () => socket.send("from a browser");
    socket.onmessage = ({ data }) => resolve(data);
    socket.onerror = () => reject(new Error("the WebSocket failed"));
  });
  assert.equal(echoed, "from a browser");
  const closed = new Promise((resolve) => {
    socket.onclose = resolve;
  });
  socket.close();
  await closed;
  assert.deepEqual(origin.requests().map(({ path }) => path), ["/ws?room=2"]);
});
