// Token budgets over real connections: clients that leave, compressed and large answers.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { adminOf, call, issueKey, send } from "./lib/client.mjs";
import { PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";
import { connect, head } from "./lib/raw.mjs";

const BUDGET = 100_000_000;
const LARGE = 20 * 1024 * 1024;
const BODY = JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello" }], max_tokens: 200 });
const USAGE = { prompt_tokens: 10, completion_tokens: 32, total_tokens: 42 };
const DELTA = `data: {"choices":[{"delta":{"content":"four"}}]}\n\n`;
const LARGE_BODY = JSON.stringify({ filler: "x".repeat(LARGE), usage: USAGE });

const HOLD = BODY.length + 200;
const FITTING = 10;

let origin;
let gate;
/** Tokens that the origin has spent at /v1/streams. */
let tokens = 0;
/** Connections of the origin on which an answer was cut off. */
let cuts = 0;

before(async () => {
  origin = await startOrigin({ respond });
  gate = await startGate({ origin: origin.url });
  await gate.d1(`INSERT INTO token_routes (pattern, method, format, default_output, max_output, bytes_per_token, max_input) VALUES
      ('/v1/*', 'POST', 'openai', 100, 400, 1, NULL), ('/v1/images', 'POST', 'openai', 100, 400, 10000, 5000);
    INSERT INTO tiers (name) VALUES ('budget'), ('narrow');
    INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES
      ('budget', 'budget', 'tokens', ${BUDGET}, 'day'), ('narrow', 'budget', 'tokens', ${FITTING * HOLD + 1}, 'day')`);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

function respond(req, res, received) {
  if (req.url === "/v1/stream") {
    // workerd notices that a client has left when it writes to it.
    const beat = setInterval(() => res.write(": more\n\n"), 50);
    res.on("close", () => clearInterval(beat));
    res.on("close", () => (cuts += 1));
    res.writeHead(200, { "content-type": "text/event-stream" });
    return res.write(DELTA);
  }
  if (req.url === "/v1/streams") {
    tokens += HOLD;
    res.writeHead(200, { "content-type": "text/event-stream" });
    res.write(DELTA);
    return setTimeout(() => res.end(`data: ${JSON.stringify({ choices: [], usage: { total_tokens: HOLD } })}\n\ndata: [DONE]\n\n`), 50);
  }
  const json = { "content-type": "application/json" };
  if (req.url === "/v1/images") {
    const length = req.headers["content-length"] ?? null;
    return res.writeHead(200, json).end(JSON.stringify({ hash: received.body_sha256, length }));
  }
  if (req.url.startsWith("/v1/odd")) {
    // No server of Node's sends these.
    const status = req.url.slice("/v1/odd/".length);
    req.socket.on("close", () => (cuts += 1));
    return req.socket.write(`HTTP/1.1 ${status} Odd\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nsome`);
  }
  if (req.url === "/v1/gzip") return res.writeHead(200, { ...json, "content-encoding": "gzip" }).end(gzipSync(JSON.stringify({ usage: USAGE })));
  if (req.url === "/v1/large") return res.writeHead(200, { ...json, "content-length": LARGE_BODY.length }).end(LARGE_BODY);
  res.writeHead(200, json).end("{}");
}

async function spent(key) {
  const { headers } = await call(gate, key, "/free");
  return BUDGET - Number(/"budget";r=(\d+)/.exec(headers.ratelimit)[1]);
}

const ask = (key, target, options) =>
  call(gate, key, target, { method: "POST", body: BODY, headers: { "content-type": "application/json" }, ...options });

/** Sends a call and leaves once `has` holds of what has come. */
async function leave(key, target, has) {
  const socket = await connect(gate);
  const fields = ["Host: api.test", `X-API-Key: ${key.key}`, "Content-Type: application/json", `Content-Length: ${BODY.length}`];
  let text = "";
  socket.on("data", (data) => (text += data));
  socket.write(head(`POST ${target} HTTP/1.1`, fields) + BODY);
  await until("the gate has got so far", () => has(text));
  socket.resetAndDestroy();
}

test("a client that leaves in mid-stream is charged the input and what was delivered, and the origin's answer ends", async () => {
  const key = await issueKey(gate, "budget");
  cuts = 0;
  await leave(key, "/v1/stream", (text) => text.includes("four"));
  await until("the origin's answer is cut off", () => cuts === 1);
  await until("the hold is settled", async () => (await spent(key)) === BODY.length + 4);
});

test("the usage of an answer that is compressed all the same is read, and the client can read the answer", async () => {
  const key = await issueKey(gate, "budget");
  const response = await fetch(new URL("/v1/gzip", gate.url), { method: "POST", body: BODY, headers: { "x-api-key": key.key, "content-type": "application/json" } });
  assert.deepEqual(await response.json(), { usage: USAGE });
  assert.equal(await spent(key), 42);
});

test("a large answer comes back as it was, with its length", async () => {
  const key = await issueKey(gate, "budget");
  const response = await fetch(new URL("/v1/large", gate.url), { method: "POST", body: BODY, headers: { "x-api-key": key.key, "accept-encoding": "identity" } });
  const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
  assert.equal(digest(Buffer.from(await response.arrayBuffer())), digest(LARGE_BODY));
  assert.equal(response.headers.get("content-length"), String(LARGE_BODY.length));
  assert.equal(await spent(key), 42);
});

test("a large body without a length reaches the origin as it was where the row bounds its input", async () => {
  const key = await issueKey(gate, "budget");
  const headers = { "content-type": "application/json", "transfer-encoding": "chunked" };
  const { status, body } = await ask(key, "/v1/images", { body: LARGE_BODY, headers });
  assert.deepEqual([status, JSON.parse(body)], [200, { hash: createHash("sha256").update(LARGE_BODY).digest("hex"), length: null }]);
  // The response has no usage.
  assert.equal(await spent(key), 5_000 + 400);
});

test("64 streams at once against a budget that fits 10: the origin never spends more than the budget", async () => {
  const key = await issueKey(gate, "narrow");
  const body = BODY.replace('"max', '"stream":true,"max').replace('"Hello"', '""');
  const answers = await Promise.all(Array.from({ length: 64 }, () => ask(key, "/v1/streams", { body })));
  const count = (status) => answers.filter((answer) => answer.status === status).length;
  assert.ok(tokens <= FITTING * HOLD + 1, `${tokens} spent`);
  assert.equal(count(200) + count(429), 64);
  assert.equal(count(200), tokens / HOLD);
  for (const { status, body } of answers) if (status === 200) assert.equal(String(body), `${DELTA}data: [DONE]\n\n`);
});

test("a hold survives kill -9 in mid-stream", async () => {
  const direct = await startDirectGate({ vars: { ORIGIN: origin.url } });
  try {
    const api = adminOf(direct);
    const route = { pattern: "/v1/*", method: "POST", format: "openai", default_output: 100, max_output: 400 };
    assert.equal((await api.request("PUT", "/token-routes", route)).status, 201);
    const policies = [{ policy: "budget", unit: "tokens", quota: BUDGET, period: "day" }];
    assert.equal((await api.request("PUT", "/tiers/budget", { description: "", audit_days: 0, policies })).status, 201);
    const key = await issueKey(direct, "budget");
    const ask = (path, method, body) => send(direct, `${PUBLIC_URL}${path}`, { method, body, headers: { host: "api.test", "x-api-key": key.key } });
    const streaming = ask("/v1/stream", "POST", BODY).catch(() => "cut");
    await until("the hold is made", async () => /r=(\d+)/.exec((await ask("/free", "GET")).headers.ratelimit)[1] === String(BUDGET - HOLD));
    process.kill(await direct.pid(), "SIGKILL");
    assert.equal(await streaming, "cut");
    await direct.restarted();
    assert.match((await ask("/free", "GET")).headers.ratelimit, new RegExp(`"budget";r=${BUDGET - HOLD};`));
  } finally {
    await direct.stop();
  }
});

test("what does not fit is refused as other policies refuse", async () => {
  const key = await issueKey(gate, "budget");
  const answer = await ask(key, "/v1/x", { body: BODY.replace('"m"', `"m","n":${BUDGET}`) });
  assert.equal(answer.status, 400);
  assert.equal((await send(gate, "/v1/x", { method: "POST", body: BODY })).status, 401);
});

for (const status of [199, 600, 999]) {
  test(`an answer of status ${status} is 502 and charged nothing, and the origin's answer ends`, async () => {
    const key = await issueKey(gate, "budget");
    cuts = 0;
    const { status: given } = await ask(key, `/v1/odd/${status}`);
    assert.equal(given, 502);
    await until("the hold is given back", async () => (await spent(key)) === 0);
    await until("the origin's answer is cut off", () => cuts === 1);
  });
}

test("clients that leave in mid-body give its room back", async () => {
  const key = await issueKey(gate, "budget");
  // The route is known then, so that a body is read at once.
  assert.equal((await ask(key, "/v1/any")).status, 200);
  const fields = ["Host: api.test", `X-API-Key: ${key.key}`, "Content-Type: application/json", `Content-Length: ${1024 * 1024}`];
  const sockets = [];
  // 8 MiB of a key have room.
  for (let n = 0; n < 8; n += 1) {
    const socket = await connect(gate);
    socket.write(head("POST /v1/any HTTP/1.1", fields) + BODY);
    sockets.push(socket);
  }
  await until("no room is left", async () => (await ask(key, "/v1/any")).status === 503);
  for (const socket of sockets) socket.resetAndDestroy();
  await until("there is room again", async () => (await ask(key, "/v1/any")).status === 200);
});
