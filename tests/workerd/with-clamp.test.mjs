// TOKEN_CLAMP=true, and a small TOKEN_BODY_BYTES.
import { beforeAll, beforeEach, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { call, issue, problem, rateLimit, receivedOne } from "./lib/gate.mjs";

const BUDGET = 1_000;
let key;
let tiers = 0;

beforeAll(() => sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/answer', 'POST', 'openai', 100, 5000)"));

beforeEach(async () => {
  const tier = `clamped-${(tiers += 1)}`;
  await sql("INSERT INTO tiers (name) VALUES (?)", tier);
  await sql("INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES (?, 'budget', 'tokens', ?, 'day')", tier, BUDGET);
  key = await issue(tier);
});

const ask = (body) => call(key, "/answer?parts=[]&status=500", { method: "POST", body, headers: { "Content-Type": "application/json" } });

test("a call that asks for more than is left gets a smaller cap, which the answer names", async () => {
  const body = '{"messages":[],"max_tokens":4000,"n":2}';
  const response = await ask(body);
  const cap = Math.floor((BUDGET - body.length) / 2);
  expect(response.headers.get("x-tollgate-token-cap")).toBe(String(cap));
  expect(rateLimit(response).budget.r).toBe(BUDGET - body.length - 2 * cap);
  expect((await receivedOne()).body).toBe(body.replace("4000", cap));
});

test("one that fits, and one that has no form in which a cap can be written, do not", async () => {
  const fitting = await ask('{"messages":[],"max_tokens":40}');
  expect(fitting.headers.has("x-tollgate-token-cap")).toBe(false);
  await problem(await ask('[{"max_tokens":4000}]'), 400);
  await problem(await ask(`{"messages":["${"x".repeat(400)}"],"max_tokens":4000}`), 400);
});

test("a cap that the origin does not know is also sent in its own field, which the answer does not name", async () => {
  const body = '{"messages":[],"max_output_tokens":1}';
  const response = await ask(body);
  expect(response.headers.has("x-tollgate-token-cap")).toBe(false);
  expect(rateLimit(response).budget.r).toBe(BUDGET - body.length - 1);
  expect((await receivedOne()).body).toBe(body.replace("{", '{"max_tokens":1,'));
});
