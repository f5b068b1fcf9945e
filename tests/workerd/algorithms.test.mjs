// Sliding and bucket policies, tiers of several policies, and tiers without any.
import { expect, test } from "vitest";
import { makeTier, sql } from "./lib/database.mjs";
import { admit, call, denied, issue, problem, rateLimit, rateLimitPolicy, setClock, statuses, usage, wait } from "./lib/gate.mjs";
import { crash } from "./lib/object.mjs";

test("the tiers shipped are free, basic, pro, enterprise and unlimited, with the limits of the contract", async () => {
  const rows = await sql("SELECT tier, period, quota, policy, unit, algorithm FROM tier_limits ORDER BY quota, tier DESC");
  expect(rows.map(({ tier, period, quota }) => [tier, period, quota])).toEqual([
    ["free", "minute", 10],
    ["basic", "minute", 50],
    ["pro", "minute", 200],
    ["free", "month", 1000],
    ["enterprise", "minute", 1000],
    ["basic", "month", 10_000],
    ["pro", "month", 100_000],
    ["enterprise", "month", 1_000_000],
  ]);
  expect(rows.every((row) => row.policy === row.period && row.unit === "requests" && row.algorithm === "fixed")).toBe(true);
  const tiers = await sql("SELECT name FROM tiers ORDER BY name");
  expect(tiers.map(({ name }) => name)).toEqual(["basic", "enterprise", "free", "pro", "unlimited"]);
});

test.each([
  ["free", 10, 1000],
  ["basic", 50, 10_000],
  ["pro", 200, 100_000],
  ["enterprise", 1000, 1_000_000],
])("a key of tier %s has its tier's quotas", async (tier, minute, month) => {
  const response = await call(await issue(tier));
  expect(rateLimitPolicy(response)).toEqual({ minute: { q: minute, w: 60 }, month: { q: month, w: 31 * 86_400 } });
  expect(rateLimit(response)).toMatchObject({ minute: { r: minute - 1 }, month: { r: month - 1 } });
});

test("a tier with no row for a period has no limit there, and its calls are counted", async () => {
  const key = await issue("unlimited");
  await admit(key, 60);
  expect((await call(key)).headers.has("ratelimit")).toBe(false);
  expect(await usage(key)).toMatchObject({ calls: 61, policies: [] });
});

test("a sliding policy admits no more than its quota in any rolling period", async () => {
  setClock("2031-03-12T12:00:50.000Z");
  const key = await issue(await makeTier({ quota: 3, period: "minute", algorithm: "sliding" }));
  await admit(key, 1);
  wait(15);
  await admit(key, 1);
  wait(15);
  await admit(key, 1);
  expect(await denied(key)).toBe(30);
  wait(29);
  expect(await denied(key)).toBe(1);
  wait(1);
  expect(await statuses(key, 2)).toEqual([200, 429]);
  expect(await denied(key)).toBe(15);
});

test("a sliding policy states what remains and when more is released", async () => {
  const key = await issue(await makeTier({ quota: 3, period: "hour", algorithm: "sliding" }));
  await admit(key, 1);
  wait(600);
  const response = await call(key);
  expect(rateLimitPolicy(response)).toEqual({ hour: { q: 3, w: 3600 } });
  expect(rateLimit(response)).toEqual({ hour: { r: 1, t: 3000 } });
});

test("a bucket admits its burst at once and then its quota per period, evenly", async () => {
  const key = await issue(await makeTier({ quota: 6, period: "minute", algorithm: "bucket", burst: 2 }));
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
  expect(await denied(key)).toBe(10);
  wait(9);
  expect(await denied(key)).toBe(1);
  wait(1);
  expect(await statuses(key, 2)).toEqual([200, 429]);
  wait(3600);
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
});

test("the remaining units of a bucket never exceed its stated limit", async () => {
  const key = await issue(await makeTier({ quota: 60, period: "minute", algorithm: "bucket", burst: 120 }));
  const response = await call(key);
  expect(rateLimitPolicy(response)).toEqual({ minute: { q: 120, w: 120 } });
  expect(rateLimit(response)).toEqual({ minute: { r: 119, t: 1 } });
  const legacy = ["limit", "remaining"].map((name) => response.headers.get(`x-ratelimit-${name}`));
  expect(legacy).toEqual(["120", "119"]);
  expect((await usage(key)).policies).toMatchObject([{ quota: 60, burst: 120, used: 1, remaining: 119 }]);
});

test("a bucket without a burst admits its quota at once", async () => {
  const key = await issue(await makeTier({ quota: 4, period: "hour", algorithm: "bucket" }));
  expect(await statuses(key, 5)).toEqual([200, 200, 200, 200, 429]);
  expect(await denied(key)).toBe(900);
});

test.each(["sliding", "bucket"])("a %s policy continues when its object restarts", async (algorithm) => {
  const key = await issue(await makeTier({ quota: 4, period: "hour", algorithm }));
  await admit(key, 3);
  await crash(key);
  wait(1);
  expect(await statuses(key, 2)).toEqual([200, 429]);
});

test("months cannot be sliding or bucket", async () => {
  for (const algorithm of ["sliding", "bucket"]) {
    await expect(makeTier({ quota: 4, period: "month", algorithm })).rejects.toThrow("a month is fixed");
  }
});

test("policies have their names in the tier", async () => {
  const key = await issue(await makeTier({ policy: "burst-guard", quota: 1, period: "minute" }));
  expect(rateLimit(await call(key))).toEqual({ "burst-guard": { r: 0, t: 60 } });
  expect(await problem(await call(key), 429)).toMatchObject({ "violated-policies": ["burst-guard"] });
});

test("every violated policy is named, and Retry-After is the longest over them", async () => {
  setClock("2031-03-12T12:10:30.000Z");
  const key = await issue(await makeTier({ quota: 2, period: "minute" }, { quota: 2, period: "hour" }, { quota: 9, period: "day" }));
  await admit(key, 2);
  const response = await call(key);
  expect(response.headers.get("retry-after")).toBe("2970");
  expect((await problem(response, 429))["violated-policies"]).toEqual(["minute", "hour"]);
  wait(2969);
  expect(await denied(key)).toBe(1);
  wait(1);
  await admit(key, 1);
});

test("a call that one policy denies spends nothing of the others", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "minute" }, { quota: 5, period: "hour" }));
  await admit(key, 1);
  for (let i = 0; i < 4; i += 1) await denied(key);
  wait(60);
  expect(rateLimit(await call(key))).toMatchObject({ hour: { r: 3 } });
});
