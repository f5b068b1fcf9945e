// Changes by hand in D1, and notified ones: they take effect in time, and no usage is lost.
import { describe, expect, test } from "vitest";
import { makeTier, setKey, setPolicies, sql } from "./lib/database.mjs";
import { admit, call, denied, issue, problem, rateLimit, rateLimitPolicy, received, statuses, usage, used, wait } from "./lib/gate.mjs";
import { crash, evict, objectText, refresh, runAlarm } from "./lib/object.mjs";

/**
 * Calls every 5 seconds of the fake clock until `isDone(response)`; resolves to the seconds that
 * took.
 */
async function secondsUntil(key, isDone) {
  for (let seconds = 0; seconds <= 120; seconds += 5) {
    if (isDone(await call(key))) return seconds;
    wait(5);
    // A profile that is refreshed during a request applies to the next one.
    await usage(key);
  }
  throw new Error("not in effect after 2 minutes");
}

test("a tier that is changed during a month is in effect within 60 seconds, and usage carries over", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  await setKey(key, "tier", "pro");
  wait(60);
  const response = await call(key);
  expect(rateLimitPolicy(response)).toMatchObject({ minute: { q: 200 }, month: { q: 100_000 } });
  expect(rateLimit(response)).toMatchObject({ minute: { r: 199 }, month: { r: 99_989 } });
  expect((await received()).at(-1).headers["x-tollgate-tier"]).toBe("pro");
});

test.each([
  ["tier", (key) => setKey(key, "tier", "pro"), (response) => response.headers.get("ratelimit-policy")?.includes("q=200")],
  ["status", (key) => setKey(key, "status", "disabled"), (response) => response.status === 403],
])("a key that is called continuously has its new %s within 60 seconds", async (_what, change, isDone) => {
  const key = await issue("enterprise");
  await admit(key, 1);
  wait(7);
  await change(key);
  expect(await secondsUntil(key, isDone)).toBeLessThanOrEqual(60);
});

test("a quota that is raised admits at once what the old one denied", async () => {
  const tier = await makeTier({ quota: 3, period: "day" });
  const key = await issue(tier);
  expect(await statuses(key, 4)).toEqual([200, 200, 200, 429]);
  await setPolicies(tier, { quota: 5, period: "day" });
  wait(60);
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
});

test("a quota that is lowered denies at once what the old one would have admitted", async () => {
  const tier = await makeTier({ quota: 9, period: "day" });
  const key = await issue(tier);
  await admit(key, 5);
  await setPolicies(tier, { quota: 4, period: "day" });
  wait(60);
  const response = await call(key);
  expect(rateLimit(response)).toMatchObject({ day: { r: 0 } });
  await problem(response, 429);
  expect(await used(key)).toEqual({ day: 5 });
});

test("a new policy includes the usage of its period", async () => {
  const tier = await makeTier({ quota: 100, period: "minute" });
  const key = await issue(tier);
  await admit(key, 4);
  await setPolicies(tier, { quota: 6, period: "hour" }, { quota: 100, period: "month" });
  wait(60);
  const response = await call(key);
  expect(rateLimit(response)).toMatchObject({ hour: { r: 1 }, month: { r: 95 } });
});

test.each(["sliding", "bucket"])("a change of the algorithm to %s and back loses no usage", async (algorithm) => {
  const tier = await makeTier({ quota: 5, period: "day" });
  const key = await issue(tier);
  await admit(key, 3);
  await setPolicies(tier, { quota: 5, period: "day", algorithm });
  wait(60);
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
  await setPolicies(tier, { quota: 5, period: "day" });
  wait(60);
  await denied(key);
});

test("removed limits no longer deny, and the calls stay counted", async () => {
  const tier = await makeTier({ quota: 1, period: "month" });
  const key = await issue(tier);
  expect(await statuses(key, 2)).toEqual([200, 429]);
  await setPolicies(tier);
  wait(60);
  await admit(key, 3);
  await setPolicies(tier, { quota: 4, period: "month" });
  wait(60);
  await denied(key);
});

describe("a key is 403 within 60 seconds if it is", () => {
  test.each(["disabled", "revoked"])("%s by hand", async (status) => {
    const key = await issue();
    await admit(key, 1);
    await setKey(key, "status", status);
    wait(60);
    await problem(await call(key), 403);
    expect(await received()).toHaveLength(1);
    await setKey(key, "status", "active");
    wait(60);
    await admit(key, 1);
    expect((await usage(key)).calls).toBe(2);
  });
});

test("a change takes effect with the next request once the object is notified", async () => {
  const key = await issue();
  await admit(key, 10);
  await setKey(key, "tier", "basic");
  await refresh(key);
  expect(rateLimit(await call(key))).toMatchObject({ minute: { r: 39 }, month: { r: 9989 } });
  await setKey(key, "status", "disabled");
  await refresh(key);
  await problem(await call(key), 403);
});

test("a key whose row is deleted is 401, and its object deletes everything once D1 has the counts", async () => {
  const key = await issue();
  await admit(key, 2);
  await sql("DELETE FROM keys WHERE id = ?", key.id);
  wait(60);
  await problem(await call(key), 401);
  await runAlarm(key);
  expect(await sql("SELECT calls FROM usage_monthly WHERE key_id = ?", key.id)).toEqual([{ calls: 2 }]);
  expect(await objectText(key)).toBe("");
  expect(await runAlarm(key)).toBe(false);
});

describe("usage is the same after", () => {
  test.each([
    ["an eviction in mid-window", evict],
    ["a crash", crash],
  ])("%s", async (_what, end) => {
    const key = await issue();
    await admit(key, 6);
    await end(key);
    expect(await used(key)).toEqual({ minute: 6, month: 6 });
    expect(await statuses(key, 5)).toEqual([200, 200, 200, 200, 429]);
    await crash(key);
    await denied(key);
  });
});
