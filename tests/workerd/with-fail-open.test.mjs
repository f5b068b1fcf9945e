// FAIL_MODE=open, and an ORIGIN with a path.
import { expect, test } from "vitest";
import { metered, setKey, takeAway } from "./lib/database.mjs";
import { admit, call, denied, issue, problem, received, receivedOne, send, statuses, usage, used, wait } from "./lib/gate.mjs";
import { importKey, madeUp } from "./lib/imports.mjs";
import { forge, mistype } from "./lib/keys.mjs";
import { breakWrites, crash, intercept, runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

test("requests go to ORIGIN, under its path", async () => {
  const key = await issue();
  await call(key, "/a%2Fb?x=1");
  expect((await receivedOne()).url).toBe("https://origin.test/base/a%2Fb?x=1");
});

test("while nothing fails, calls are limited as ever and bear no mark", async () => {
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
    throw new Error("no answer for you");
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
])("what a flood brings about lets nobody through: %s", async (message) => {
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
])("what no caller brings about alone is a failure like any other: %s", async (message) => {
  const key = await issue();
  await intercept(key, () => {
    throw new Error(message);
  });
  expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
});

test("a call that the object had counted before its answer was lost is not counted again later", async () => {
  const key = await issue();
  await intercept(key, async (answer, state) => {
    await answer();
    await state.storage.sync();
    throw new Error("no answer for you");
  });
  expect((await call(key)).headers.get("x-tollgate-fail-open")).toBe("1");
  await crash(key);
  await admit(key, 1);
  expect(await received()).toHaveLength(2);
  expect((await usage(key)).calls).toBe(2);
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

test("a client's own X-Tollgate-Fail-Open is dropped while tollgate fails open, and the key is not forwarded", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  await call(key, `/?api_key=${key.key}`, { headers: { "X-Tollgate-Fail-Open": "no", "X-Tollgate-Tier": "forged", x_api_key: key.key } });
  await giveBack();
  const { headers, url } = await receivedOne();
  expect(headers["x-tollgate-fail-open"]).toBe("1");
  expect(headers).not.toHaveProperty("x-tollgate-tier");
  expect(JSON.stringify(headers) + url).not.toContain(key.key);
});

test("what is refused on the CPU alone is refused while everything else fails", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  const refused = [mistype(key.key), await forge({ secret: "not-the-secret" }), "hello"];
  for (const presented of refused) await problem(await call(presented), 401);
  await problem(await send("/"), 401);
  await giveBack();
  expect(await received()).toEqual([]);
});

test("what may be an imported key does not pass while D1 cannot be asked, and one that is known does", async () => {
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

test("an object that has a profile goes on denying and refusing with D1 down", async () => {
  const [key, disabled] = [await issue(), await issue()];
  await admit(key, 10);
  await setKey(disabled, "status", "disabled");
  await problem(await call(disabled), 403);
  const giveBack = await takeAway("keys", "usage_monthly");
  await denied(key);
  await problem(await call(disabled), 403);
  await giveBack();
});
