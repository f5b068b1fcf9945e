// The memory of workerd while a large stream passes a token route, read or not read by the client.
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
import { connect, head, readAnswer } from "./lib/raw.mjs";

const MB = 1024 * 1024;
const LARGE = 250 * MB;
/**
 * Memory is measured while the last 100 MB pass. Before, V8 leaves about 120 MB of buffers of
 * streams that pass through JavaScript, whatever their length, until it collects them.
 */
const MEASURED = 100 * MB;
/** Growth at most meanwhile. */
const MOST_GROWTH = 40 * MB;
const SAMPLE_MS = 50;
/** Bytes at most that are under way while the client does not read: sockets' buffers. */
const MOST_UNDER_WAY = 30 * MB;
/** Clients of one key that send all of a body but its last byte. */
const STALLED = 200;
/** Growth at most meanwhile; the bodies of one key have room for 8 MiB. */
const MOST_STALLED = 100 * MB;
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
async function open(body) {
  const { hostname, port } = new URL(gate.url);
  const headers = { host: "api.test", "x-api-key": key.key, "content-type": "application/json", "content-length": body.length };
  const request = http.request({ hostname, port, path: `${PUBLIC_URL}/v1/chat/completions`, method: "POST", headers, agent: false });
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

/** The chunks of a large response. `memory` gets workerd's before and during its last part. */
async function* measured(response, memory) {
  const pid = await gate.pid();
  memory.start = await resident(pid);
  let bytes = 0;
  let sampling;
  for await (const chunk of response) {
    bytes += chunk.length;
    if (!sampling && bytes > LARGE - MEASURED) {
      memory.before = await resident(pid);
      memory.peak = memory.before;
      sampling = setInterval(async () => (memory.peak = Math.max(memory.peak, await resident(pid))), SAMPLE_MS);
    }
    yield chunk;
  }
  clearInterval(sampling);
  memory.peak = Math.max(memory.peak, await resident(pid));
}

function* blocks(block, end) {
  for (let n = 0; n < BLOCKS; n += 1) yield block;
  yield end;
}

const body = (more) => JSON.stringify({ model: "m", messages: [], stream: true, max_tokens: 200, ...more });

const TOKENS = "/v1/chat/completions";
const asked = body({ stream_options: { include_usage: true } });

test("a large stream passes a token route byte for byte, in flat memory", async (t) => {
  const memory = {};
  const digest = await digestOf(measured(await open(body()), memory));
  // What the origin sends because the gate has asked for usage is taken out.
  const left = Buffer.from(String(BLOCK).replaceAll(',"usage":null', ""));
  assert.equal(digest, await digestOf(blocks(left, "data: [DONE]\n\n")));
  const inMegabytes = Object.entries(memory).map(([name, value]) => [name, Math.round(value / MB)]);
  t.diagnostic(JSON.stringify(Object.fromEntries(inMegabytes)));
  assert.ok(memory.peak - memory.before < MOST_GROWTH, JSON.stringify(memory));
  // workerd may just be closing the connection that was used before.
  http.globalAgent.destroy();
  assert.equal((await usageOf(gate, key)).policies[0].used, USAGE.total_tokens);
});

test("a client that does not read stops the origin", async (t) => {
  const response = await open(body({ stream_options: { include_usage: true } }));
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

test("clients that do not finish their bodies take bounded memory", async (t) => {
  const pid = await gate.pid();
  const before = await resident(pid);
  const fields = ["Host: api.test", `X-API-Key: ${key.key}`, "Content-Type: application/json", `Content-Length: ${MB}`];
  const start = Buffer.alloc(MB - 1, " ");
  const sockets = [];
  const statuses = [];
  for (let n = 0; n < STALLED; n += 1) {
    const socket = await connect(gate);
    socket.on("error", () => {});
    socket.write(head(`POST ${PUBLIC_URL}${TOKENS} HTTP/1.1`, fields));
    socket.write(start);
    sockets.push(socket);
    // Some connections end before the response is read, because the body is not.
    readAnswer(socket).then(({ status }) => statuses.push(status), () => statuses.push(0));
  }
  await until("the rest is refused", () => statuses.length >= STALLED - 8);
  assert.ok(statuses.every((status) => [0, 503].includes(status)), String(statuses));
  const growth = (await resident(pid)) - before;
  for (const socket of sockets) socket.destroy();
  t.diagnostic(`${Math.round(growth / MB)} MB`);
  assert.ok(growth < MOST_STALLED, `${growth} bytes`);
});
