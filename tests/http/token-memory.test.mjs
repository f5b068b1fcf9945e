// The memory of workerd while large streams pass a token route: flat, as for any other route.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";
import { startOrigin } from "../../scripts/lib/gate.mjs";
import { run } from "../../scripts/lib/processes.mjs";
import { until } from "../support/until.mjs";
import { adminOf, issueKey, usageOf } from "./lib/client.mjs";
import { PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";

const MB = 1024 * 1024;
const LARGE = 150 * MB;
const SAMPLE_MS = 50;
/**
 * Growth at most by a further stream. The first one leaves about 120 MB, whatever its length: V8
 * does not collect the buffers of streams that pass through JavaScript before there are so many.
 */
const MOST_GROWTH = 100 * MB;
/** Bytes at most that are under way while the client does not read: sockets' buffers. */
const MOST_UNDER_WAY = 30 * MB;
const USAGE = { prompt_tokens: 10, completion_tokens: 32, total_tokens: 42 };
const event = (value) => `data: ${JSON.stringify(value)}\n\n`;
const DELTA = event({ choices: [{ index: 0, delta: { content: "word ".repeat(50) } }], usage: null });
/** Many events, which end anywhere in the pieces that the gate reads. */
const BLOCK = Buffer.from(DELTA.repeat(200));
const BLOCKS = Math.ceil(LARGE / BLOCK.length);
const END = Buffer.from(`${event({ choices: [], usage: USAGE })}data: [DONE]\n\n`);

let origin;
let gate;
let key;
/** Bytes that the origin has sent in its latest answer. */
let sent;

before(async () => {
  origin = await startOrigin({ respond });
  gate = await startDirectGate({ vars: { ORIGIN: origin.url } });
  const admin = adminOf(gate);
  const route = { pattern: "/v1/chat/*", method: "POST", format: "openai", default_output: 100, max_output: 400 };
  await admin.json("PUT", "/token-routes", route, 201);
  await admin.json("PUT", "/tiers/budget", { policies: [{ policy: "budget", unit: "tokens", quota: 10_000_000, period: "day" }] }, 201);
  key = await issueKey(gate, "budget");
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

async function respond(_req, res) {
  res.writeHead(200, { "content-type": "text/event-stream" });
  sent = 0;
  for (let n = 0; n < BLOCKS; n += 1) {
    if (!res.write(BLOCK)) await once(res, "drain");
    sent += BLOCK.length;
  }
  res.end(END);
}

/** Resident memory of workerd, in bytes. */
const resident = async (pid) => 1024 * Number(await run("ps", ["-o", "rss=", "-p", String(pid)]));

/** A response whose body has not been read. */
async function open(path, body) {
  const { hostname, port } = new URL(gate.url);
  const headers = { host: "api.test", "x-api-key": key.key, "content-type": "application/json", "content-length": body.length };
  const request = http.request({ hostname, port, path: PUBLIC_URL + path, method: "POST", headers, agent: false });
  request.end(body);
  const [response] = await once(request, "response");
  assert.equal(response.statusCode, 200);
  return response;
}

async function digestOf(chunks) {
  const hash = createHash("sha256");
  for await (const chunk of chunks) hash.update(chunk);
  return hash.digest("hex");
}

/** Gets a large stream: `{ digest, seconds, from, peak, after }`, the last three of workerd's memory. */
async function download(path, body) {
  const pid = await gate.pid();
  const from = await resident(pid);
  const began = Date.now();
  const response = await open(path, body);
  let isOver = false;
  let peak = from;
  const sampling = (async () => {
    while (!isOver) {
      peak = Math.max(peak, await resident(pid));
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    }
  })();
  const digest = await digestOf(response);
  isOver = true;
  await sampling;
  return { digest, seconds: (Date.now() - began) / 1000, from, peak, after: await resident(pid) };
}

function* blocks(block, end) {
  for (let n = 0; n < BLOCKS; n += 1) yield block;
  yield end;
}

const body = (more) => JSON.stringify({ model: "m", messages: [], stream: true, max_tokens: 200, ...more });

const TOKENS = "/v1/chat/completions";
const asked = body({ stream_options: { include_usage: true } });

test("150 MB of events pass a token route byte for byte, in flat memory", async (t) => {
  const whole = await digestOf(blocks(BLOCK, END));
  // What the origin sends because the gate has asked for usage is taken out.
  const stripped = await digestOf(blocks(Buffer.from(String(BLOCK).replaceAll(',"usage":null', "")), "data: [DONE]\n\n"));
  const plan = [
    ["another route", "/plain", body(), whole],
    ["usage asked for by the client, first", TOKENS, asked, whole],
    ["usage asked for by the gate", TOKENS, body(), stripped],
  ];
  let charged = 0;
  for (const [name, path, content, digest] of plan) {
    const cost = await download(path, content);
    const [from, peak, after] = [cost.from, cost.peak, cost.after].map((value) => Math.round(value / MB));
    t.diagnostic(JSON.stringify({ name, seconds: cost.seconds, from, peak, after }));
    assert.equal(cost.digest, digest, name);
    if (!name.endsWith("first")) assert.ok(cost.peak - cost.from < MOST_GROWTH, `${name}: from ${from} MB to ${peak} MB`);
    if (path === TOKENS) charged += USAGE.total_tokens;
    assert.equal((await usageOf(gate, key)).policies[0].used, charged);
  }
});

test("a client that does not read stops the origin", async (t) => {
  const response = await open(TOKENS, asked);
  let still = 0;
  let last;
  await until("nothing more is sent", () => {
    still = sent === last ? still + 1 : 0;
    last = sent;
    return still === 20;
  });
  t.diagnostic(`${Math.round(sent / MB)} MB under way`);
  assert.ok(sent < MOST_UNDER_WAY, `${sent} bytes`);
  assert.equal(await digestOf(response), await digestOf(blocks(BLOCK, END)));
});
