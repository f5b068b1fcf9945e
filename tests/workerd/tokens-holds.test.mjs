// The holds of token calls at the gate: how long they stay open, what they cost, how many there are,
// and how usage and the audit log show what was charged.
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { admin, api, call, issue, problem, rateLimit, received, releaseOrigin, usage, wait } from "./lib/gate.mjs";
import { crash, evict, intercept, runAlarm, stub } from "./lib/object.mjs";

const BUDGET = 1_000;
const CHAT = { model: "m", messages: [{ role: "user", content: "Hello" }], max_tokens: 200 };
/** What a call of it holds. */
const HELD = JSON.stringify(CHAT).length + 200;
const EVENTS = { "content-type": "text/event-stream" };
const START = `event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n`;
const TEXT = `event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"four"}}\n\n`;
const END = `event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":6}}\n\n`;
const PING = "event: ping\ndata: {}\n\n";

let tiers = 0;
let key;

beforeAll(() =>
  sql(
    `INSERT INTO token_routes (pattern, method, format, default_output, max_output, bytes_per_token, max_input) VALUES
       ('/answer', 'POST', 'openai', 100, 400, 1, NULL), ('/answer', 'PATCH', 'anthropic', 100, 400, 1, NULL),
       ('/answer', 'PUT', 'openai', 100, 400, 10000, 300), ('/echo', 'PUT', 'openai', 100, 400, 10000, 300), ('/socket', 'GET', 'header', 100, 400, 1, NULL)`,
  ),
);

async function issueWith(auditDays) {
  const tier = `holding-${(tiers += 1)}`;
  await sql("INSERT INTO tiers (name, audit_days) VALUES (?, ?)", tier, auditDays);
  await sql("INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES (?, 'budget', 'tokens', ?, 'day'), (?, 'minute', 'requests', 50, 'minute')", tier, BUDGET, tier);
  return issue(tier);
}

beforeEach(async () => {
  key = await issueWith(2);
});

/** A call whose response has these parts; one that is null waits for a release. */
function send(parts, { method = "PATCH", headers = EVENTS, status = 200, body = JSON.stringify(CHAT), ...init } = {}) {
  const query = new URLSearchParams({ parts: JSON.stringify(parts), status, headers: JSON.stringify(headers) });
  return call(key, `/answer?${query}`, { method, body, headers: { "Content-Type": "application/json" }, ...init });
}

const reported = (total) => [JSON.stringify({ usage: { prompt_tokens: 1, completion_tokens: total - 1, total_tokens: total } })];
const JSON_BODY = { method: "POST", headers: { "content-type": "application/json" } };

/** `[used, held]` of the budget, tokens of the month, those that are estimated and those that expired. */
async function standing() {
  const { policies, tokens, tokens_estimated, tokens_expired } = await usage(key);
  const { used, held } = policies.find(({ policy }) => policy === "budget");
  return { budget: [used, held], tokens, tokens_estimated, tokens_expired };
}

const charged = (tokens, { held = 0, estimated = 0, expired = 0 } = {}) => ({ budget: [tokens, held], tokens, tokens_estimated: estimated, tokens_expired: expired });

/** Tokens of the calls in the audit log: held, charged, by what. */
async function logged() {
  const { entries } = await api.json("GET", `/keys/${key.id}/audit`);
  return entries.filter(({ tokens_held }) => tokens_held !== null).map((entry) => [entry.tokens_held, entry.tokens, entry.tokens_basis]);
}

const rowsWritten = async () => (await (await stub(key).fetch(`https://key.object/v1/stats?id=${key.id}`)).json()).rows_written;

/** Resolves to what `look` gives once it is `expected`, or to what it gives at last. */
async function until(look, expected) {
  let seen;
  for (let i = 0; i < 100; i += 1) {
    seen = await look();
    if (JSON.stringify(seen) === JSON.stringify(expected)) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return seen;
}

describe("a stream", () => {
  test("that goes on for longer than ten minutes keeps its hold", async () => {
    const response = await send([START, null, PING, null, TEXT, null, PING, null, END]);
    const reader = response.body.getReader();
    const next = async () => new TextDecoder().decode((await reader.read()).value);
    expect(await next()).toBe(START);
    for (const part of [PING, TEXT, PING]) {
      wait(390);
      await releaseOrigin();
      expect(await next()).toBe(part);
      expect(await standing()).toEqual(charged(0, { held: HELD }));
    }
    await runAlarm(key);
    expect(await standing()).toEqual(charged(0, { held: HELD }));
    await releaseOrigin();
    expect(await next()).toBe(END);
    expect((await reader.read()).done).toBe(true);
    expect(await standing()).toEqual(charged(15));
  });

  test("that is silent for ten minutes is charged whole, and corrected by its late settle", async () => {
    const response = await send([START, null, END]);
    const reader = response.body.getReader();
    const next = async () => new TextDecoder().decode((await reader.read()).value);
    expect(await next()).toBe(START);
    const last = next();
    wait(599);
    expect(await standing()).toEqual(charged(0, { held: HELD }));
    wait(1);
    // No call is needed for that, nor an object that is awake.
    await evict(key);
    expect(await runAlarm(key)).toBe(true);
    expect(await sql("SELECT tokens FROM usage_monthly WHERE key_id = ?", key.id)).toEqual([{ tokens: HELD }]);
    expect(await standing()).toEqual(charged(HELD, { expired: HELD }));
    expect(await logged()).toEqual([[HELD, HELD, "expired"]]);
    await crash(key);
    expect(await standing()).toEqual(charged(HELD, { expired: HELD }));
    await releaseOrigin();
    expect(await last).toBe(END);
    expect((await reader.read()).done).toBe(true);
    expect(await standing()).toEqual(charged(15));
    expect(await logged()).toEqual([[HELD, 15, "reported"]]);
  });

  test("is renewed at most every 200 seconds", async () => {
    const response = await send([START, null, PING, null, PING, null, PING, null, END]);
    const requests = await intercept(key);
    const reader = response.body.getReader();
    await reader.read();
    for (const seconds of [199, 1, 199]) {
      wait(seconds);
      await releaseOrigin();
      await reader.read();
    }
    await releaseOrigin();
    while (!(await reader.read()).done);
    expect(requests).toEqual(["/v1/renew", "/v1/end"]);
  });
});

describe("what is charged is marked", () => {
  test("by what the origin reports, by the hold, or not at all", async () => {
    await (await send(reported(42), JSON_BODY)).text();
    await (await send(["{}"], JSON_BODY)).text();
    await (await send(['{"error":1}'], { ...JSON_BODY, status: 500 })).text();
    expect(await standing()).toEqual(charged(42 + HELD));
    expect(await logged()).toEqual([[HELD, 42, "reported"], [HELD, HELD, "held"], [HELD, 0, "reported"]]);
    const { entries } = await api.json("GET", `/keys/${key.id}/audit`);
    expect(entries.map(({ status, origin_status }) => [status, origin_status])).toEqual([[200, 200], [200, 200], [500, 500]]);
  });

  test("as an estimate if the client leaves", async () => {
    const response = await send([START + TEXT, null, TEXT]);
    const reader = response.body.getReader();
    await reader.read();
    expect(await logged()).toEqual([[HELD, null, null]]);
    await reader.cancel();
    expect(await until(standing, charged(14, { estimated: 14 }))).toEqual(charged(14, { estimated: 14 }));
    expect(await logged()).toEqual([[HELD, 14, "estimated"]]);
    await crash(key);
    expect(await standing()).toEqual(charged(14, { estimated: 14 }));
  });

  test("as expired if a reservation is not settled, until it is", async () => {
    const { id } = await api.json("POST", `/keys/${key.id}/reservations`, { tokens: 70, ttl_seconds: 60 }, 201);
    wait(60);
    expect(await standing()).toEqual(charged(70, { expired: 70 }));
    await api.json("POST", `/keys/${key.id}/reservations/${id}/settle`, { tokens: 30 });
    expect(await standing()).toEqual(charged(30));
  });

  test("and other calls have none", async () => {
    await call(key, "/free");
    const { entries } = await api.json("GET", `/keys/${key.id}/audit`);
    expect(entries).toMatchObject([{ tokens_held: null, tokens: null, tokens_basis: null }]);
  });
});

describe("a token call", () => {
  test.each([["with", 2], ["without", 0]])("takes two requests to its object and two rows, %s an audit log", async (_how, auditDays) => {
    key = await issueWith(auditDays);
    await (await send(reported(10), JSON_BODY)).text();
    const requests = await intercept(key);
    const before = await rowsWritten();
    requests.length = 0;
    await (await send(reported(10), JSON_BODY)).text();
    expect(requests).toEqual(["/v1/check", "/v1/end"]);
    expect((await rowsWritten()) - before).toBe(2);
    // Nothing comes later.
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(requests.filter((path) => path !== "/v1/stats")).toEqual(["/v1/check", "/v1/end"]);
  });

  test("takes one more request if its route is new to the isolate", async () => {
    await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/new', 'POST', 'openai', 100, 400)");
    key = await issueWith(2);
    await call(key, "/free");
    const requests = await intercept(key);
    await (await call(key, "/new", { method: "POST", body: "{}" })).text();
    expect(requests).toEqual(["/v1/check", "/v1/check", "/v1/end"]);
    await sql("DELETE FROM token_routes WHERE pattern = '/new'");
  });

  test("shares the rows of its settle with other calls of the key", async () => {
    await sql("UPDATE tier_limits SET quota = 100000 WHERE tier = ? AND policy = 'budget'", `holding-${tiers}`);
    key = await issue(`holding-${tiers}`);
    const count = 30;
    const responses = await Promise.all(Array.from({ length: count }, () => send([null, ...reported(10)], JSON_BODY)));
    expect(responses.map(({ status }) => status)).toEqual(Array(count).fill(200));
    const before = await rowsWritten();
    expect(before).toBeLessThan(count);
    await releaseOrigin();
    await Promise.all(responses.map((response) => response.text()));
    expect(await standing()).toEqual(charged(10 * count));
    const settles = (await rowsWritten()) - before;
    expect(settles).toBeLessThan(count);
  });
});

test("with 1,000 open holds a token call is denied, and other calls are not", async () => {
  const reserve = (ttl_seconds) => admin("POST", `/keys/${key.id}/reservations`, { tokens: 1, ttl_seconds });
  await sql("UPDATE tier_limits SET quota = 100000 WHERE tier = ? AND policy = 'budget'", `holding-${tiers}`);
  key = await issue(`holding-${tiers}`);
  expect((await reserve(90)).status).toBe(201);
  for (let made = 1; made < 1_000; made += 111) {
    const responses = await Promise.all(Array.from({ length: 111 }, () => reserve(600)));
    expect(responses.map(({ status }) => status)).toEqual(Array(111).fill(201));
  }
  wait(20);
  const response = await send(reported(10), JSON_BODY);
  expect((await problem(response, 429))["violated-policies"]).toEqual(["reservations"]);
  expect(response.headers.get("retry-after")).toBe("70");
  expect((await call(key, "/free")).status).toBe(200);
  expect((await received()).map(({ path }) => path)).toEqual(["/free"]);
  // Then the first of them has expired.
  wait(69);
  await problem(await send(reported(10), JSON_BODY), 429);
  wait(1);
  expect((await send(reported(10), JSON_BODY)).status).toBe(200);
});

describe("a long body without a length", () => {
  const stream = (text, chunk) => {
    let at = 0;
    return new ReadableStream({
      pull(controller) {
        if (at >= text.length) return controller.close();
        controller.enqueue(new TextEncoder().encode(text.slice(at, at + chunk)));
        at += chunk;
      },
    });
  };
  const long = `{"n":2,"messages":["${"x".repeat(2_500_000)}"]}`;
  const init = (text) => ({ method: "PUT", body: stream(text, 100_000), duplex: "half", headers: { "Content-Type": "application/json" } });

  test("is streamed on if the row says what its origin accepts, and holds that", async () => {
    await sql("UPDATE tier_limits SET quota = 2000 WHERE tier = ? AND policy = 'budget'", `holding-${tiers}`);
    key = await issue(`holding-${tiers}`);
    const response = await call(key, "/answer?parts=[]&status=500", init(long));
    expect(response.status).toBe(500);
    expect(rateLimit(response).budget.r).toBe(2_000 - 300 - 2 * 400);
    const [{ body, headers }] = await received();
    expect(body).toBe(long);
    expect(headers["content-length"]).toBe(undefined);
    // As it comes, the beginning first.
    const echo = await call(key, "/echo", init(long.slice(0, 1_300_000)));
    expect(await echo.text()).toBe(long.slice(0, 1_300_000));
  });

  test("is 411 if it does not", async () => {
    const response = await call(key, "/answer", { ...init(long), method: "POST" });
    expect((await problem(response, 411)).detail).toMatch(/1048576/);
    expect(await received()).toEqual([]);
    expect(await standing()).toEqual(charged(0));
  });
});

test("a WebSocket is charged its whole hold when it opens", async () => {
  const response = await call(key, "/socket", { headers: { Upgrade: "websocket" } });
  expect(response.status).toBe(101);
  const socket = response.webSocket;
  const message = new Promise((resolve) => socket.addEventListener("message", ({ data }) => resolve(data)));
  socket.accept();
  socket.send("hello");
  expect(await message).toBe("echo hello");
  expect(await standing()).toEqual(charged(100));
  expect(await logged()).toEqual([[100, 100, "held"]]);
  socket.close();
});
