// Bodies stream in both directions, and the origin's response arrives unchanged.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { call, issueKey, linesOf, send, usageOf } from "./lib/client.mjs";
import { connect, head, readAnswer } from "./lib/raw.mjs";

const LARGE = 20 * 1024 * 1024;
const TEXT = JSON.stringify({ list: Array.from({ length: 500 }, (_, n) => `entry ${n}`) });
const GZIPPED = gzipSync(TEXT);

let origin;
let gate;
let key;
/** Makes the origin finish its response. */
let finish;

before(async () => {
  origin = await startOrigin({ respond });
  gate = await startGate({ origin: origin.url });
  key = await issueKey(gate, "pro");
});

after(async () => {
  finish?.();
  await gate?.stop();
  await origin?.stop();
});

const ANSWERS = {
  "/redirect": (res) => res.writeHead(302, { location: "http://else.test/elsewhere?x=1#y" }).end("moved"),
  "/redirect-here": (res) => res.writeHead(307, { location: "/echo" }).end(),
  "/gzip": (res) => res.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" }).end(GZIPPED),
  "/cookies": (res) => res.writeHead(200, { "set-cookie": ["a=1; Path=/", "b=2; HttpOnly"] }).end(),
  "/cacheable": (res, { headers }) =>
    res.writeHead(200, { "cache-control": "public, max-age=600", etag: '"v1"' }).end(headers["x-tollgate-key-id"]),
  "/empty": (res) => res.writeHead(204).end(),
  "/large": (res) => res.writeHead(200, { "content-type": "text/x" }).end(Buffer.alloc(LARGE, "tollgate")),
  "/own-fields": (res) => res.writeHead(200, { ratelimit: '"origin";r=1;t=1', "x-ratelimit-remaining": "77" }).end(),
};

async function respond(req, res, received) {
  if (req.url === "/slow") {
    res.writeHead(200, { "content-type": "text/plain" });
    res.write("first");
    await new Promise((resolve) => {
      finish = resolve;
    });
    return res.end("last");
  }
  const status = req.url.match(/^\/status\/(\d+)$/)?.[1];
  if (status) {
    return res.writeHead(Number(status), { "content-type": "text/x", "x-origin": "yes" }).end(`origin ${status}`);
  }
  if (ANSWERS[req.url]) return ANSWERS[req.url](res, received);
  res.writeHead(200, { "content-type": "application/json" });
  res.end(JSON.stringify({ bytes: received.body_bytes, sha256: received.body_sha256 }));
}

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

const HALVES = [Buffer.alloc(64 * 1024, "1"), Buffer.alloc(64 * 1024, "2")];
const FRAMINGS = {
  "with a Content-Length": { header: `Content-Length: ${HALVES[0].length * 2}`, frame: (half) => [half], end: "" },
  chunked: {
    header: "Transfer-Encoding: chunked",
    frame: (half) => [`${half.length.toString(16)}\r\n`, half, "\r\n"],
    end: "0\r\n\r\n",
  },
};

for (const [name, { header, frame, end }] of Object.entries(FRAMINGS)) {
  test(`a request body streams: the first half arrives before the second is sent (${name})`, async () => {
    origin.reset();
    const socket = await connect(gate);
    socket.write(head("POST /echo HTTP/1.1", ["Host: api.test", `X-API-Key: ${key.key}`, header]));
    for (const part of frame(HALVES[0])) socket.write(part);
    await until("the first half is at the origin", () => origin.requests()[0]?.body_bytes >= HALVES[0].length);
    assert.equal(origin.requests()[0].body_bytes, HALVES[0].length);
    for (const part of frame(HALVES[1])) socket.write(part);
    socket.write(end);
    const answer = await readAnswer(socket);
    socket.destroy();
    assert.equal(answer.status, 200);
    assert.deepEqual(JSON.parse(answer.body), { bytes: HALVES[0].length * 2, sha256: sha256(Buffer.concat(HALVES)) });
    const framing = header.split(":")[0];
    assert.deepEqual(linesOf(origin.requests()[0].raw_headers, new RegExp(`^${framing}$`, "i")), [header]);
  });
}

test("a response body streams: its first part arrives before the origin has sent the rest", async () => {
  finish = undefined;
  const { hostname, port } = new URL(gate.url);
  const request = http.get({ hostname, port, path: "/slow", headers: { "x-api-key": key.key } });
  const response = await new Promise((resolve, reject) => request.on("response", resolve).on("error", reject));
  let text = "";
  response.on("data", (chunk) => {
    text += chunk;
  });
  await until("the first part is here", () => text !== "");
  assert.equal(text, "first");
  assert.equal(response.statusCode, 200);
  assert.match(response.headers.ratelimit, /^"minute";r=\d+;t=\d+, "month";r=\d+;t=\d+$/);
  await until("the origin waits", () => finish);
  finish();
  await until("the answer is complete", () => response.complete);
  assert.equal(text, "firstlast");
});

test("a large body passes intact to the origin", async () => {
  const body = randomBytes(LARGE);
  const answer = await call(gate, key, "/echo", { method: "PUT", body });
  assert.deepEqual(JSON.parse(answer.body), { bytes: LARGE, sha256: sha256(body) });
});

test("a large body passes intact from the origin", async () => {
  const { body } = await call(gate, key, "/large");
  assert.equal(body.length, LARGE);
  assert.equal(sha256(body), sha256(Buffer.alloc(LARGE, "tollgate")));
});

test("redirects are not followed: status and Location arrive as the origin sent them", async () => {
  for (const [target, status, location] of [
    ["/redirect", 302, "http://else.test/elsewhere?x=1#y"],
    ["/redirect-here", 307, "/echo"],
  ]) {
    origin.reset();
    const answer = await call(gate, key, target);
    assert.equal(answer.status, status);
    assert.equal(answer.headers.location, location);
    assert.equal(origin.count(), 1);
  }
});

test("a gzipped response passes intact, with its Content-Encoding", async () => {
  const answer = await call(gate, key, "/gzip", { headers: { "accept-encoding": "gzip" } });
  assert.equal(answer.headers["content-encoding"], "gzip");
  const text = await new Response(new Blob([answer.body]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  assert.equal(text, TEXT);
});

test("a gzipped request body is forwarded as the bytes that were sent", async () => {
  const headers = { "content-encoding": "gzip" };
  const answer = await call(gate, key, "/echo", { method: "POST", body: GZIPPED, headers });
  assert.deepEqual(JSON.parse(answer.body), { bytes: GZIPPED.length, sha256: sha256(GZIPPED) });
});

test("the origin's statuses pass, errors too, with the rate-limit fields added", async () => {
  for (const status of [201, 400, 401, 403, 404, 418, 429, 500, 503]) {
    const answer = await call(gate, key, `/status/${status}`);
    assert.equal(answer.status, status);
    assert.equal(String(answer.body), `origin ${status}`);
    assert.equal(answer.headers["content-type"], "text/x");
    assert.equal(answer.headers["x-origin"], "yes");
    assert.match(answer.headers["ratelimit-policy"], /^"minute";q=200;w=60, "month";q=100000;w=\d+$/);
  }
});

test("a response without a body passes", async () => {
  const answer = await call(gate, key, "/empty");
  assert.equal(answer.status, 204);
  assert.equal(answer.body.length, 0);
});

test("repeated Set-Cookie fields of the origin stay separate", async () => {
  const { headers } = await call(gate, key, "/cookies");
  assert.deepEqual(headers["set-cookie"], ["a=1; Path=/", "b=2; HttpOnly"]);
});

test("the rate-limit fields are the gate's, not the origin's", async () => {
  const { headers } = await call(gate, key, "/own-fields");
  assert.match(headers.ratelimit, /^"minute";r=\d+;t=\d+, "month"/);
  assert.notEqual(headers["x-ratelimit-remaining"], "77");
});

test("a cacheable answer for one key is never served to another", async () => {
  const other = await issueKey(gate, "pro");
  origin.reset();
  const bodies = [];
  for (const each of [key, other, key]) bodies.push(String((await call(gate, each, "/cacheable")).body));
  assert.deepEqual(bodies, [key.id, other.id, key.id]);
  assert.equal(origin.count(), 3);
});

test("HEAD is forwarded as HEAD, answered without a body, and counted like GET", async () => {
  const { calls } = await usageOf(gate, key);
  origin.reset();
  const answer = await call(gate, key, "/echo", { method: "HEAD" });
  assert.equal(answer.status, 200);
  assert.equal(answer.body.length, 0);
  assert.deepEqual(origin.requests().map(({ method }) => method), ["HEAD"]);
  assert.equal((await usageOf(gate, key)).calls, calls + 1);
});

test("a refused call's body is not forwarded", async () => {
  origin.reset();
  const headers = { "x-api-key": "wrong" };
  const answer = await send(gate, "/echo", { method: "POST", body: Buffer.alloc(1024), headers });
  assert.equal(answer.status, 401);
  assert.equal(origin.count(), 0);
});
