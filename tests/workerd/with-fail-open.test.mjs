// FAIL_MODE=open, and an ORIGIN with a path.
import { runInDurableObject } from "cloudflare:test";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { metered, setKey, sql, takeAway } from "./lib/database.mjs";
import { admit, call, denied, issue, problem, received, receivedOne, send, statuses, usage, used, wait } from "./lib/gate.mjs";
import { importKey, madeUp } from "./lib/imports.mjs";
import { forge, mistype } from "./lib/keys.mjs";
import { breakWrites, crash, intercept, runAlarm, stub } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

test("requests go to ORIGIN, under its path", async () => {
  const key = await issue();
  await call(key, "/a%2Fb?x=1");
  expect((await receivedOne()).url).toBe("https://origin.test/base/a%2Fb?x=1");
});

test("while nothing fails, calls are limited and have no mark", async () => {
  const key = await issue();
  const response = await call(key);
  expect(response.headers.has("x-tollgate-fail-open")).toBe(false);
  expect((await receivedOne()).headers).not.toHaveProperty("x-tollgate-fail-open");
  expect(await statuses(key, 10)).toEqual([...Array(9).fill(200), 429]);
});

test("a key's first use with D1 down is forwarded with X-Tollgate-Fail-Open: 1, and counted later", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  for (let i = 0; i < 3; i += 1) {
    const response = await call(key, "/open");
    expect(response.status).toBe(200);
    expect(response.headers.get("x-tollgate-fail-open")).toBe("1");
  }
  await giveBack();
  const requests = await received();
  expect(requests.map(({ headers }) => headers["x-tollgate-fail-open"])).toEqual(["1", "1", "1"]);
  expect(requests.map(({ headers }) => headers["x-tollgate-key-id"])).toEqual(Array(3).fill(key.id));
  wait(5);
  await admit(key, 1);
  expect(await used(key)).toEqual({ minute: 4, month: 4 });
  await runAlarm(key);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 4, denied: 0 } });
});

test("calls let through while writes failed are counted once, with the calls that follow", async () => {
  const key = await issue();
  await admit(key, 2);
  const repair = await breakWrites(key);
  for (let i = 0; i < 3; i += 1) expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  await repair();
  await admit(key, 1);
  expect((await usage(key)).calls).toBe(6);
  await admit(key, 1);
  await crash(key);
  expect((await usage(key)).calls).toBe(7);
});

test("an object that fails lets the call through, and it is counted later", async () => {
  const key = await issue();
  await intercept(key, () => {
    throw new Error("unreachable");
  });
  expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  expect(await received()).toHaveLength(1);
  await crash(key);
  await admit(key, 1);
  expect((await usage(key)).calls).toBe(2);
});

test.each([
  "Durable Object is overloaded. Too many requests queued.",
  "Durable Object is overloaded. Too much data queued.",
  "Durable Object is overloaded. Requests queued for too long.",
  "Durable Object is overloaded. Too many requests for the same object within a 10 second window.",
  "Your account is generating too much load on Durable Objects. Please back off and try again later.",
  "Durable Object's isolate exceeded its memory limit and was reset.",
  "Durable Object exceeded its CPU time limit and was reset.",
])("a failure that a flood can cause lets no call through: %s", async (message) => {
  const key = await issue();
  const asked = await intercept(key, () => {
    throw new Error(message);
  });
  const response = await call(key);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  expect(response.headers.has("x-tollgate-fail-open")).toBe(false);
  await problem(response, 503);
  expect(await received()).toEqual([]);
  expect(asked).toEqual(["/v1/check"]);
  expect(logged.filter((line) => line.includes(message))).toHaveLength(1);
  await crash(key);
  await admit(key, 10);
  expect((await usage(key)).calls).toBe(10);
});

test.each([
  "Exceeded the account's spending cap for Durable Objects",
  "Internal error in Durable Object storage caused object to be reset.",
])("a failure that no caller can cause lets calls through: %s", async (message) => {
  const key = await issue();
  await intercept(key, () => {
    throw new Error(message);
  });
  expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
});

test("a call that was counted before its response was lost is not counted again later", async () => {
  const key = await issue();
  await intercept(key, async (answer, state) => {
    await answer();
    await state.storage.sync();
    throw new Error("unreachable");
  });
  expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  await crash(key);
  await admit(key, 1);
  expect(await received()).toHaveLength(2);
  expect((await usage(key)).calls).toBe(2);
});

/**
 * Makes the object count so many calls whose responses are lost: each is let through and may have
 * been counted.
 */
async function loseAnswers(key, count) {
  let isLost = true;
  await intercept(key, async (answer, state) => {
    const line = await answer();
    if (!isLost) return line;
    await state.storage.sync();
    throw new Error("unreachable");
  });
  for (let i = 0; i < count; i += 1) expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  isLost = false;
}

/** So many calls through other isolates, all at once, before the isolate's timer fires. */
async function callElsewhere(key, count) {
  const [{ secret_hash }] = await sql("SELECT secret_hash FROM keys WHERE id = ?", key.id);
  const question = (n) => `https://key.object/v1/check?id=${key.id}&h=${secret_hash}&n=${1_000_000 + n}`;
  const questions = Array.from({ length: count }, (_, n) => question(n));
  const answers = await runInDurableObject(stub(key), (object) => Promise.all(questions.map((question) => object.ask(question))));
  expect(answers.every((answer) => answer.startsWith("1 admitted"))).toBe(true);
}

test("calls that were counted before their responses were lost are not counted again 1,100 calls later", async () => {
  const key = await issue("unlimited");
  await loseAnswers(key, 20);
  await callElsewhere(key, 1100);
  await admit(key, 25);
  await crash(key);
  expect((await usage(key)).calls).toBe(20 + 1100 + 25);
});

test("calls that were counted before their responses were lost are not counted again after restarts and other calls", async () => {
  const key = await issue("unlimited");
  await loseAnswers(key, 20);
  await crash(key);
  await callElsewhere(key, 10);
  await crash(key);
  await admit(key, 24);
  expect((await usage(key)).calls).toBe(20 + 10 + 24);
});

test("calls that never arrived are counted after restarts and 100 other calls", async () => {
  const key = await issue("unlimited");
  await admit(key, 1);
  await intercept(key, () => {
    throw new Error("unreachable");
  });
  for (let i = 0; i < 5; i += 1) expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  await crash(key);
  await callElsewhere(key, 100);
  await crash(key);
  await admit(key, 6);
  expect((await usage(key)).calls).toBe(1 + 5 + 100 + 6);
});

test("a call whose repeated request failed is not counted twice if the first was counted", async () => {
  const key = await issue();
  await admit(key, 1);
  let questions = 0;
  await intercept(key, async (answer, state) => {
    questions += 1;
    if (questions > 1) return "1 failed";
    await answer();
    await state.storage.sync();
    throw Object.assign(new Error("Network connection lost."), { retryable: true });
  });
  expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  expect(questions).toBe(2);
  await crash(key);
  await admit(key, 1);
  expect((await usage(key)).calls).toBe(3);
});

test("calls let through use up the quota", async () => {
  const key = await issue();
  await admit(key, 1);
  const repair = await breakWrites(key);
  await statuses(key, 12);
  await repair();
  await denied(key);
  expect(await used(key)).toEqual({ minute: 13, month: 13 });
});

describe("with routes that cost more", () => {
  beforeAll(() => sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/dear/*', '*', 10), ('/dear/*', 'DELETE', 3)"));
  afterAll(() => sql("DELETE FROM route_costs"));

  /** Lets six calls of cost 10, one of cost 3 and one of cost 1 through: 64 in total. */
  async function letThrough(key) {
    for (const path of ["/dear/a", "/dear/b%2Cc", "/dear/a", "//dear/%64", "/dear/a:b", "/dear/a?x=1", "/cheap"]) {
      expect((await call(key, path)).headers.get("x-tollgate-fail-open")).toBe("1");
    }
    expect((await call(key, "/dear/a", { method: "DELETE" })).headers.get("x-tollgate-fail-open")).toBe("1");
  }

  test("calls let through while writes fail cost what their routes do", async () => {
    const key = await issue("pro");
    await admit(key, 1);
    const repair = await breakWrites(key);
    await letThrough(key);
    await repair();
    await admit(key, 1);
    expect(await used(key)).toEqual({ minute: 66, month: 66 });
    expect((await usage(key)).calls).toBe(10);
    await runAlarm(key);
    const [hour] = await sql("SELECT calls, denied, cost FROM usage_hourly WHERE key_id = ? AND class = 'unjudged'", key.id);
    expect(hour).toEqual({ calls: 8, denied: 0, cost: 64 });
    const [month] = await sql("SELECT calls, cost FROM usage_monthly WHERE key_id = ?", key.id);
    expect(month).toEqual({ calls: 10, cost: 66 });
  });

  test("calls of a key's first use while D1 is down cost what their routes do", async () => {
    const key = await issue("pro");
    const giveBack = await takeAway("keys");
    await letThrough(key);
    await giveBack();
    wait(5);
    await admit(key, 1);
    expect(await used(key)).toEqual({ minute: 65, month: 65 });
  });

  test("calls that never arrived cost what their routes do, and counted ones are charged once", async () => {
    const key = await issue("pro");
    await admit(key, 1);
    let arrives = false;
    await intercept(key, async (answer, state) => {
      if (arrives) await answer();
      await state.storage.sync();
      throw new Error("unreachable");
    });
    await letThrough(key);
    arrives = true;
    await call(key, "/dear/counted");
    await crash(key);
    await admit(key, 10);
    expect(await used(key)).toEqual({ minute: 85, month: 85 });
    await crash(key);
    expect((await usage(key)).calls).toBe(20);
  });

  test("calls for which the outbox has no room are 503, and those of other keys are not", async () => {
    const [key, other] = [await issue("enterprise"), await issue("enterprise")];
    await admit(key, 1);
    await admit(other, 1);
    const repairs = [await breakWrites(key), await breakWrites(other)];
    const long = (n) => `/dear/${n}${"x".repeat(12_000)}`;
    for (let n = 0; n < 5; n += 1) expect((await call(key, long(n))).status).toBe(200);
    const response = await call(key, long(5));
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    await problem(response, 503);
    // A call to a recorded target needs no more room.
    expect((await call(key, long(0))).status).toBe(200);
    expect((await call(other, long(5))).status).toBe(200);
    for (const repair of repairs) await repair();
    // A long report is delivered in parts.
    await admit(key, 6);
    expect(await used(key)).toEqual({ minute: 67, month: 67 });
    expect(await received()).toHaveLength(2 + 6 + 1 + 6);
  });
});

test("a client's X-Tollgate-Fail-Open is dropped while tollgate fails open, and the key is not forwarded", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  await call(key, `/?api_key=${key.key}`, { headers: { "X-Tollgate-Fail-Open": "no", "X-Tollgate-Tier": "forged", x_api_key: key.key } });
  await giveBack();
  const { headers, url } = await receivedOne();
  expect(headers["x-tollgate-fail-open"]).toBe("1");
  expect(headers).not.toHaveProperty("x-tollgate-tier");
  expect(JSON.stringify(headers) + url).not.toContain(key.key);
});

test("refusals that need no I/O are given while everything else fails", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  const refused = [mistype(key.key), await forge({ secret: "not-the-secret" }), "hello"];
  for (const presented of refused) await problem(await call(presented), 401);
  await problem(await send("/"), 401);
  await giveBack();
  expect(await received()).toEqual([]);
});

test("a possible imported key does not pass while D1 is down, and a cached one does", async () => {
  const [known, unheard] = [await importKey(), await importKey()];
  await admit(known, 1);
  await crash(known);
  const giveBack = await takeAway("keys");
  await problem(await call(unheard), 503);
  await problem(await call(madeUp()), 503);
  const repair = await breakWrites(known);
  const response = await call(known);
  expect([response.status, response.headers.get("x-tollgate-fail-open")]).toEqual([200, "1"]);
  await repair();
  await giveBack();
  await admit(unheard, 1);
});

test("an object with a profile denies and refuses while D1 is down", async () => {
  const [key, disabled] = [await issue(), await issue()];
  await admit(key, 10);
  await setKey(disabled, "status", "disabled");
  await problem(await call(disabled), 403);
  const giveBack = await takeAway("keys", "usage_monthly");
  await denied(key);
  await problem(await call(disabled), 403);
  await giveBack();
});

test("a call on a token route that the isolate has seen is 503 while its object is out of reach, and nothing is held", async () => {
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/llm', 'POST', 'openai', 100, 400)");
  const ask = (key) => call(key, "/llm", { method: "POST", body: '{"messages":[]}' });
  expect((await ask(await issue())).status).toBe(200);
  const key = await issue();
  const giveBack = await takeAway("keys");
  const before = (await received()).length;
  await problem(await ask(key), 503);
  expect((await call(key, "/other")).headers.get("x-tollgate-fail-open")).toBe("1");
  expect(await received()).toHaveLength(before + 1);
  await giveBack();
  await sql("DELETE FROM token_routes");
});

test("a call with a body is 503 while its object is out of reach if the isolate has seen a token call of its key, whatever its path", async () => {
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/wide/*', 'POST', 'openai', 1, 400)");
  const ask = (key, path, init) => call(key, path, { method: "POST", body: '{"messages":[]}', ...init });
  const [key, other] = [await issue(), await issue()];
  expect((await ask(key, `/wide/${"x".repeat(2_000)}`)).status).toBe(200);
  await admit(other, 1);
  const repairs = [await breakWrites(key), await breakWrites(other)];
  const before = (await received()).length;
  for (const path of ["/wide/new", `/wide/${"x".repeat(2_000)}`, "/other"]) await problem(await ask(key, path), 503);
  expect(await received()).toHaveLength(before);
  // Without a body, and of other keys.
  expect((await call(key, "/other")).headers.get("x-tollgate-fail-open")).toBe("1");
  expect((await ask(other, "/other")).headers.get("x-tollgate-fail-open")).toBe("1");
  for (const repair of repairs) await repair();
  await sql("DELETE FROM token_routes");
});
