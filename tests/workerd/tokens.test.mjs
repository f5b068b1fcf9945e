// Token budgets at the gate: what a call holds, what its answer is charged, what passes.
import { env } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { call, issue, problem, rateLimit, received, receivedOne, releaseOrigin, wait } from "./lib/gate.mjs";
import { crash } from "./lib/object.mjs";

const BUDGET = 1_000;
let tiers = 0;
let key;

beforeAll(() =>
  sql(
    `INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES
       ('/answer', 'POST', 'openai', 100, 400), ('/answer', 'PUT', 'header', 100, 400), ('/answer', 'PATCH', 'anthropic', 100, 400), ('/answer', 'DELETE', 'gemini', 100, 400)`,
  ),
);

beforeEach(async () => {
  const tier = `budget-${(tiers += 1)}`;
  await sql("INSERT INTO tiers (name) VALUES (?)", tier);
  await sql("INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES (?, 'budget', 'tokens', ?, 'day'), (?, 'minute', 'requests', 50, 'minute')", tier, BUDGET, tier);
  key = await issue(tier);
});

/** A call whose answer has these parts. */
function ask(body, parts, { status = 200, headers = {}, method = "POST", more = {}, fields = {} } = {}) {
  const query = new URLSearchParams({ parts: JSON.stringify(parts), status, headers: JSON.stringify(headers), ...more });
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return call(key, `/answer?${query}`, { method, body: text, headers: { "Content-Type": "application/json", ...fields } });
}

/** Tokens that are left, as a call of another route says. */
const left = async () => rateLimit(await call(key, "/free")).budget.r;

const CHAT = { model: "m", messages: [{ role: "user", content: "Hello" }], max_tokens: 200 };
const LENGTH = JSON.stringify(CHAT).length;
const usage = (total) => ({ usage: { prompt_tokens: 10, completion_tokens: total - 10, total_tokens: total } });
const EVENTS = { "content-type": "text/event-stream" };

describe("a hold", () => {
  test("is made before the origin is asked, and settled by what the answer reports", async () => {
    const answer = JSON.stringify({ choices: [], ...usage(42) });
    const response = await ask(CHAT, [answer.slice(0, 20), answer.slice(20, 51), answer.slice(51)], { headers: { "content-type": "application/json" } });
    expect(response.status).toBe(200);
    expect(rateLimit(response).budget.r).toBe(BUDGET - LENGTH - 200);
    expect(await response.text()).toBe(answer);
    expect(await left()).toBe(BUDGET - 42);
    const [{ body, headers }] = await received();
    expect(body).toBe(JSON.stringify(CHAT));
    expect(headers["accept-encoding"]).toBe("identity");
  });

  test("is made by every call, also once the isolate knows the route", async () => {
    for (let i = 0; i < 3; i += 1) await (await ask(CHAT, [JSON.stringify(usage(10))])).text();
    expect(await left()).toBe(BUDGET - 30);
  });

  test("that does not fit is 429, and one that never fits 400; the origin gets nothing", async () => {
    await (await ask(CHAT, [JSON.stringify(usage(900))])).text();
    const refused = await problem(await ask(CHAT, []), 429);
    expect(refused["violated-policies"]).toEqual(["budget"]);
    expect((await problem(await ask({ ...CHAT, n: 9 }, []), 400)).detail).toMatch(/may use \d+ tokens, more than the quota of 1000/);
    expect(await received()).toHaveLength(1);
    // What holds less may still pass, and other routes too.
    expect((await ask({ messages: [], max_tokens: 1 }, [])).status).toBe(200);
    expect((await call(key, "/free")).status).toBe(200);
  });

  test("never lets concurrent calls pass the budget", async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => ask(CHAT, [JSON.stringify(usage(200))])));
    const admitted = answers.filter(({ status }) => status === 200);
    expect(admitted).toHaveLength(Math.floor(BUDGET / (LENGTH + 200)));
    await Promise.all(answers.map((answer) => answer.text()));
    expect(await left()).toBe(BUDGET - 200 * admitted.length);
  });
});

describe("what is charged", () => {
  test.each([
    ["the whole hold of an answer without usage", { parts: ["{}"] }, LENGTH + 200],
    ["nothing of a failure without usage", { parts: ['{"error":1}'], status: 500 }, 0],
    ["nothing of a refusal by the origin", { parts: [], status: 400 }, 0],
    ["more than was held, whole", { parts: [JSON.stringify(usage(950))] }, 950],
    ["more than is left", { parts: [JSON.stringify(usage(5_000))] }, BUDGET],
    ["the field of format header", { parts: ["x"], method: "PUT", headers: { "x-tollgate-tokens": "33" } }, 33],
  ])("%s", async (_what, { parts, ...rest }, charged) => {
    const response = await ask(CHAT, parts, rest);
    expect(response.status).toBe(rest.status ?? 200);
    expect(response.headers.has("x-tollgate-tokens")).toBe(false);
    expect(await response.text()).toBe(parts.join(""));
    expect(await left()).toBe(BUDGET - charged);
  });

  test("nothing if the origin does not answer", async () => {
    await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/down', 'POST', 'openai', 100, 400)");
    const fresh = await issue(`budget-${tiers}`);
    expect((await call(fresh, "/down", { method: "POST", body: "{}" })).status).toBe(502);
    expect(rateLimit(await call(fresh, "/free")).budget.r).toBe(BUDGET);
    await sql("DELETE FROM token_routes WHERE pattern = '/down'");
  });
});

describe("a stream", () => {
  const delta = (text) => `data: {"choices":[{"delta":{"content":"${text}"}}]}\n\n`;
  const last = `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17}}\n\n`;
  const done = "data: [DONE]\n\n";
  const whole = delta("Hel") + delta("lo") + last + done;
  const cutAt = (text, ...places) => [0, ...places].map((from, i) => text.slice(from, [...places, text.length][i]));

  test("whose usage the client asks for passes byte for byte", async () => {
    const body = { ...CHAT, stream: true, stream_options: { include_usage: true } };
    const response = await ask(body, cutAt(whole, 3, 47, 48, 90, 133), { headers: EVENTS });
    expect(await response.text()).toBe(whole);
    expect((await receivedOne()).body).toBe(JSON.stringify(body));
    expect(await left()).toBe(BUDGET - 17);
  });

  test("whose usage it does not ask for is asked for it, and that event is taken out", async () => {
    const response = await ask({ ...CHAT, stream: true }, cutAt(whole, 3, 47, 48, 90, 133), { headers: EVENTS });
    expect(await response.text()).toBe(delta("Hel") + delta("lo") + done);
    expect(JSON.parse((await receivedOne()).body)).toEqual({ ...CHAT, stream: true, stream_options: { include_usage: true } });
    expect(await left()).toBe(BUDGET - 17);
  });

  test("passes as it comes", async () => {
    const body = { ...CHAT, stream: true, stream_options: { include_usage: true } };
    const response = await ask(body, [delta("Hel"), null, last, done], { headers: EVENTS });
    const reader = response.body.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe(delta("Hel"));
    expect(await left()).toBe(BUDGET - JSON.stringify(body).length - 200);
    await releaseOrigin();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) rest += new TextDecoder().decode(part.value);
    expect(rest).toBe(last + done);
    expect(await left()).toBe(BUDGET - 17);
  });
});

describe("a client that leaves", () => {
  const start = `event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n`;
  const text = `event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"four"}}\n\n`;

  async function begun(init) {
    const query = new URLSearchParams({ parts: JSON.stringify([start + text, null, text]), headers: JSON.stringify(EVENTS) });
    const response = await call(key, `/answer?${query}`, { method: "PATCH", body: JSON.stringify(CHAT), headers: { "Content-Type": "application/json" }, ...init });
    const reader = response.body.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe(start + text);
    return reader;
  }

  async function settled() {
    for (let i = 0; i < 50; i += 1) {
      const tokens = await left();
      if (tokens !== BUDGET - LENGTH - 200) return tokens;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return "not settled";
  }

  test("by its signal is charged the input and what was delivered", async () => {
    const leaving = new AbortController();
    const reader = await begun({ signal: leaving.signal });
    leaving.abort();
    expect(await settled()).toBe(BUDGET - 14);
    await reader.cancel().catch(() => {});
  });

  test("by its stream is charged the same", async () => {
    const reader = await begun();
    await reader.cancel();
    expect(await settled()).toBe(BUDGET - 14);
  });
});

test("a hold that nobody settles is charged whole after ten minutes, and corrected by a late settle", async () => {
  const response = await ask({ ...CHAT, stream: true, stream_options: { include_usage: true } }, ["data: {}\n\n", null, `data: ${JSON.stringify(usage(20))}\n\n`], { headers: EVENTS });
  const held = BUDGET - rateLimit(response).budget.r;
  const reader = response.body.getReader();
  await reader.read();
  wait(599);
  expect(await left()).toBe(BUDGET - held);
  wait(2);
  expect(await left()).toBe(BUDGET - held);
  await releaseOrigin();
  while (!(await reader.read()).done);
  expect(await left()).toBe(BUDGET - 20);
});

describe("usage is read at any chunk borders", () => {
  const anthropic =
    `event: message_start\r\ndata: {"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}\r\n\r\n` +
    `event: content_block_delta\r\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\\"usage\\": é"}}\r\n\r\n` +
    `event: message_delta\r\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":15}}\r\n\r\n`;
  const gemini = '[{"candidates":[],"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}},\r\n{"candidates":[],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"totalTokenCount":13}}]';
  const openai = JSON.stringify({ object: "response", output: [], usage: { input_tokens: 30, output_tokens: 6, total_tokens: 36 } });

  test.each([
    ["anthropic, streamed", "PATCH", anthropic, EVENTS, 40],
    ["anthropic, whole", "PATCH", '{"usage":{"input_tokens":5,"cache_read_input_tokens":3,"output_tokens":2}}', {}, 10],
    ["gemini, a list", "DELETE", gemini, { "content-type": "application/json" }, 13],
    ["gemini, streamed", "DELETE", `data: ${gemini.slice(1, -1).split(",\r\n").join("\r\n\r\ndata: ")}\r\n\r\n`, EVENTS, 13],
    ["openai, a response", "POST", openai, { "content-type": "application/json" }, 36],
  ])("%s", async (_what, method, answer, headers, total) => {
    for (const size of [1, 7, 64]) {
      const parts = answer.match(new RegExp(`[^]{1,${size}}`, "g"));
      const before = await left();
      const response = await ask(CHAT, parts, { method, headers });
      expect(await response.text()).toBe(answer);
      expect(before - (await left())).toBe(total);
    }
  });
});

test("a hold outlives its object", async () => {
  const response = await ask(CHAT, [null, JSON.stringify(usage(20))]);
  await crash(key);
  expect(await left()).toBe(BUDGET - LENGTH - 200);
  await releaseOrigin();
  await response.text();
  await crash(key);
  expect(await left()).toBe(BUDGET - 20);
});

test("a free repeat by its idempotency key is forwarded and holds nothing", async () => {
  const fields = { "Idempotency-Key": "once" };
  await (await ask(CHAT, [JSON.stringify(usage(20))], { fields })).text();
  const again = await ask(CHAT, [JSON.stringify(usage(20))], { fields });
  expect(again.headers.get("x-tollgate-idempotent-replay")).toBe("1");
  await again.text();
  expect(await left()).toBe(BUDGET - 20);
  const bodies = (await received()).filter(({ method }) => method === "POST").map(({ body }) => body);
  expect(bodies).toEqual([JSON.stringify(CHAT), JSON.stringify(CHAT)]);
});

test("an idempotency key with another body is 422: a free repeat is the call that was charged", async () => {
  const fields = { "Idempotency-Key": "once" };
  const small = { ...CHAT, max_tokens: 1 };
  const answer = [JSON.stringify(usage(20))];
  await (await ask(small, answer, { fields })).text();
  for (const body of [{ ...small, max_tokens: 40_000, n: 100 }, { ...small, max_tokens: 2 }, JSON.stringify(small) + " ", ""]) {
    const refused = await problem(await ask(body, answer, { fields }), 422);
    expect(refused.detail).toContain("Idempotency-Key");
  }
  const again = await ask(small, answer, { fields });
  expect([again.status, again.headers.get("x-tollgate-idempotent-replay")]).toEqual([200, "1"]);
  await again.text();
  // Where no tokens are spent the body is not read.
  const pay = (body) => call(key, "/free", { method: "POST", body, headers: fields });
  expect((await pay("a")).status).toBe(422);
  const other = (body) => call(key, "/free", { method: "POST", body, headers: { "Idempotency-Key": "other" } });
  expect([(await other("a")).status, (await other("b")).status]).toEqual([200, 200]);
});

test("a change of a row holds within 60 seconds, also in an isolate that remembers another", async () => {
  await (await ask(CHAT, [JSON.stringify(usage(20))])).text();
  await sql("UPDATE token_routes SET max_output = 50, default_output = 10 WHERE pattern = '/answer' AND method = 'POST'");
  wait(60);
  await left();
  const response = await ask(CHAT, [JSON.stringify(usage(20))]);
  expect(rateLimit(response).budget.r).toBe(BUDGET - 20 - LENGTH - 50);
  await response.text();
  await sql("DELETE FROM token_routes WHERE method = 'POST'");
  wait(60);
  await left();
  for (let i = 0; i < 2; i += 1) await (await ask(CHAT, [JSON.stringify(usage(20))])).text();
  expect(await left()).toBe(BUDGET - 40);
  expect((await received()).filter(({ method }) => method === "POST").map(({ body }) => body)).toEqual(Array(4).fill(JSON.stringify(CHAT)));
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/answer', 'POST', 'openai', 100, 400)");
});

describe("a body", () => {
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
  const send = (body, fields = {}) => call(key, "/answer?parts=[]&status=500", { method: "POST", body, duplex: "half", headers: { "Content-Type": "application/json", ...fields } });

  test("that is compressed is 415", async () => {
    await problem(await send("x", { "Content-Encoding": "gzip" }), 415);
    expect(await received()).toEqual([]);
    expect(await left()).toBe(BUDGET);
  });

  test("without a length is measured while it is read", async () => {
    const response = await send(stream(JSON.stringify(CHAT), 7));
    expect(rateLimit(response).budget.r).toBe(BUDGET - LENGTH - 200);
    expect((await receivedOne()).body).toBe(JSON.stringify(CHAT));
  });

  test("without a length that is longer than is read is 411", async () => {
    expect((await problem(await send(stream("x".repeat(1_200_000), 100_000)), 411)).detail).toMatch(/1048576/);
    expect(await received()).toEqual([]);
  });

  test("that is longer than is read counts whole, and is forwarded whole", async () => {
    const long = `{"messages":["${"x".repeat(1_200_000)}"]}`;
    await problem(await send(long), 400);
    const tier = `budget-${tiers}`;
    await sql("UPDATE tier_limits SET quota = 2000000 WHERE tier = ? AND policy = 'budget'", tier);
    key = await issue(tier);
    const response = await send(long);
    expect(rateLimit(response).budget.r).toBe(2_000_000 - long.length - 400);
    const { body, headers } = await receivedOne();
    expect(body).toBe(long);
    expect(headers["content-length"]).toBe(String(long.length));
  });

  test("that is empty holds the default output", async () => {
    expect(rateLimit(await send(undefined)).budget.r).toBe(BUDGET - 100);
  });
});

test("a route that spends no tokens is forwarded as ever", async () => {
  const response = await call(key, "/echo", { method: "POST", body: "as it is" });
  expect(await response.text()).toBe("as it is");
  expect((await receivedOne()).headers["accept-encoding"]).not.toBe("identity");
  expect(env.TOKEN_CLAMP).toBe("false");
});
