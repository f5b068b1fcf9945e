// What crosses into the wasm while an answer passes is bounded: each chunk once.
import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { excess, startCounted } from "../../bench/lib/crossings.mjs";
import { TOKEN_SETS } from "../../bench/lib/tiers.mjs";
import { build, startOrigin } from "../../scripts/lib/gate.mjs";

const EVENTS = 500;
const EVENT = `data: {"choices":[{"delta":{"content":"four"}}],"usage":null}\n\n`;
const END = `data: {"choices":[],"usage":{"total_tokens":${EVENTS}}}\n\ndata: [DONE]\n\n`;
const STREAM = EVENT.repeat(EVENTS) + END;
const JSON_ANSWER = JSON.stringify({ choices: [{ message: { content: "four ".repeat(20_000) } }], usage: { total_tokens: EVENTS } });
const STREAMED = { model: "m", stream: true, max_tokens: EVENTS, messages: [] };

let origin;
let gate;

before(async () => {
  await build();
  origin = await startOrigin({ respond });
  const sql = ["INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/v1/*', 'POST', 'openai', 100, 1000)"];
  gate = await startCounted({ upstream: `127.0.0.1:${origin.port}`, stateIn: tmpdir(), sets: TOKEN_SETS, sql });
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

function respond(req, res) {
  if (req.url === "/v1/json") return res.writeHead(200, { "content-type": "application/json" }).end(JSON_ANSWER);
  res.writeHead(200, { "content-type": "text/event-stream" });
  for (let i = 0; i < EVENTS; i += 1) res.write(EVENT);
  res.end(END);
}

/** Counts of one call, with the text of its answer. */
async function counted(target, body) {
  let text;
  const counts = await gate.call(async (address, key) => {
    const headers = { "x-api-key": key, "content-type": "application/json" };
    const response = await fetch(`http://${address}${target}`, { method: "POST", headers, body: JSON.stringify(body) });
    assert.equal(response.status, 200);
    text = await response.text();
  });
  return { ...counts, text };
}

function isBounded(counts, bytes) {
  assert.ok(counts.chunks > 10, `${counts.chunks} chunks`);
  assert.equal(excess(counts, bytes), undefined);
}

test("a stream whose usage the client asks for crosses once, and nothing comes back", async () => {
  const { text, ...counts } = await counted("/v1/stream", { ...STREAMED, stream_options: { include_usage: true } });
  assert.equal(text, STREAM);
  isBounded(counts, STREAM.length);
  assert.equal(counts.bytesOut, 0);
});

test("a stream whose usage is taken out comes back once", async () => {
  const { text, ...counts } = await counted("/v1/stream", STREAMED);
  assert.equal(text, `${EVENT.replace(`,"usage":null`, "").repeat(EVENTS)}data: [DONE]\n\n`);
  isBounded(counts, STREAM.length);
  // What is held back at the end is returned by another call.
  assert.ok(counts.bytesOut <= text.length, `${counts.bytesOut} bytes came back`);
});

test("an answer that is no stream crosses once, and nothing comes back", async () => {
  const { text, ...counts } = await counted("/v1/json", { model: "m", messages: [] });
  assert.equal(text, JSON_ANSWER);
  isBounded(counts, JSON_ANSWER.length);
  assert.equal(counts.bytesOut, 0);
});

test("an answer of a route that spends no tokens is not read", async () => {
  const { text, chunks, passes } = await counted("/free", STREAMED);
  assert.equal(text, STREAM);
  assert.deepEqual({ chunks, passes }, { chunks: 0, passes: 0 });
});
