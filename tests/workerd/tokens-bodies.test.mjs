// Bodies of token calls that arrive slowly or not at all, and holds of calls that are not made.
import { env } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { call, issue, problem, rateLimit, received, usage } from "./lib/gate.mjs";
import { crash, intercept } from "./lib/object.mjs";
import { takeTimeOver } from "./lib/timers.mjs";

const BUDGET = 10_000;
const MIB = 1 << 20;
const CHAT = JSON.stringify({ messages: [], max_tokens: 200 });
/** Bodies of one key that have room at once, and of all keys, if their length is not known. */
const [OF_KEY, OF_ALL] = [8 * MIB, 32 * MIB].map((bytes) => bytes / env.TOKEN_BODY_BYTES);

let key;

beforeAll(async () => {
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/answer', 'POST', 'openai', 100, 400)");
  await sql("INSERT INTO tiers (name) VALUES ('budget')");
  await sql("INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES ('budget', 'budget', 'tokens', ?, 'day'), ('budget', 'minute', 'requests', 50, 'minute')", BUDGET);
});

beforeEach(async () => {
  key = await issue("budget");
});

const TARGET = `/answer?parts=${encodeURIComponent('["{}"]')}&status=500`;
const post = (key, body, fields = {}) => call(key, TARGET, { method: "POST", body, duplex: "half", headers: { "Content-Type": "application/json", ...fields } });

/** Tokens that are left, as a call of another route says. */
const left = async () => rateLimit(await call(key, "/free")).budget.r;

/** A call whose body has begun and waits. `finish()` resolves to its response. */
async function stall(key) {
  let controller;
  let isRead;
  const reading = new Promise((resolve) => (isRead = resolve));
  const stalled = {};
  const body = new ReadableStream({
    start: (given) => (controller = given),
    // Called again once the first bytes have been read.
    pull: () => isRead(),
  }, { highWaterMark: 0 });
  stalled.response = post(key, body);
  stalled.finish = () => {
    controller.enqueue(new TextEncoder().encode(CHAT));
    controller.close();
    return stalled.response;
  };
  await Promise.race([reading, stalled.response]);
  return stalled;
}

async function stallMany(key, count) {
  const all = [];
  for (let n = 0; n < count; n += 1) all.push(await stall(key));
  return all;
}

const finish = (stalled) => Promise.all(stalled.map(async ({ finish }) => (await (await finish()).text())));

describe("bodies that do not arrive", () => {
  test("have room for 8 MiB of a key, and more is refused and counts nothing", async () => {
    const stalled = await stallMany(key, OF_KEY);
    const refused = await post(key, CHAT);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect((await problem(refused, 503)).detail).toMatch(/too many bodies/);
    // Other keys, and other routes of the key.
    expect((await post(await issue("budget"), CHAT)).status).toBe(500);
    expect((await call(key, "/free")).status).toBe(200);
    await finish(stalled.slice(0, 1));
    expect((await post(key, CHAT)).status).toBe(500);
    await finish(stalled.slice(1));
    const { calls } = await usage(key);
    expect(calls).toBe(OF_KEY + 2);
    await finish(await stallMany(key, OF_KEY));
  });

  test("have room for 32 MiB of all keys", async () => {
    const stalled = [];
    for (let n = 0; n < OF_ALL / OF_KEY; n += 1) stalled.push(...(await stallMany(await issue("budget"), OF_KEY)));
    expect(stalled).toHaveLength(OF_ALL);
    await problem(await post(key, CHAT), 503);
    await finish(stalled);
    expect((await post(key, CHAT)).status).toBe(500);
  });

  test("have the room that they declare, and what has arrived has its own", async () => {
    const stalled = await stallMany(key, OF_KEY - 1);
    const answers = await Promise.all(Array.from({ length: 10 }, () => post(key, CHAT)));
    expect(answers.map(({ status }) => status)).not.toContain(503);
    await finish(stalled);
  });

  test("are given up after 30 seconds", async () => {
    await call(key, "/free");
    const { pass } = await takeTimeOver(key);
    const stalled = await stall(key);
    let response;
    stalled.response.then((given) => (response = given));
    await pass(29);
    expect(response).toBe(undefined);
    await pass(2);
    expect((await problem(await stalled.response, 408)).detail).toBe("the body did not arrive within 30 s");
    expect(await received()).toHaveLength(1);
    expect(await left()).toBe(BUDGET);
    // Their room is released.
    await finish(await stallMany(key, OF_KEY));
  });
});

describe("a call whose first response was lost gives its hold back", () => {
  const lost = () => Object.assign(new Error("Network connection lost."), { retryable: true });

  test("if the object is overloaded then", async () => {
    await (await post(key, CHAT)).text();
    let requests = 0;
    const asked = await intercept(key, async (answer, state) => {
      requests += 1;
      if (requests === 2) throw new Error("Durable Object is overloaded. Too many requests queued.");
      const line = await answer();
      if (requests > 1) return line;
      await state.storage.sync();
      throw lost();
    });
    await problem(await post(key, CHAT), 503);
    expect(asked.length).toBeGreaterThanOrEqual(2);
    await crash(key);
    expect(await left()).toBe(BUDGET);
  });

  test("if the object goes on to send it back", async () => {
    const lacksHold = await sentBackLine();
    await (await post(key, CHAT)).text();
    let requests = 0;
    await intercept(key, async (answer, state) => {
      requests += 1;
      // It is sent again twice.
      if (requests > 1 && requests <= 4) return lacksHold;
      const line = await answer();
      if (requests > 1) return line;
      await state.storage.sync();
      throw lost();
    });
    await problem(await post(key, CHAT), 503);
    expect(requests).toBeGreaterThanOrEqual(4);
    await crash(key);
    expect(await left()).toBe(BUDGET);
  });

  /** The line by which an object sends a call back that names no hold. */
  async function sentBackLine() {
    const other = await issue("budget");
    let line;
    await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/fresh', 'POST', 'openai', 100, 400)");
    await intercept(other, async (answer) => {
      const given = await answer();
      line ??= given;
      return given;
    });
    await (await call(other, "/fresh", { method: "POST", body: CHAT })).text();
    return line;
  }
});
