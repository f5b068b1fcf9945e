// Windows aligned to the UTC clock, as a client sees them.
import { describe, expect, test } from "vitest";
import { makeTier, metered, takeAway, usageRows } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, rateLimit, rateLimitPolicy, setClock, statuses, usage, wait } from "./lib/gate.mjs";
import { crash, runAlarm } from "./lib/object.mjs";

test("a free key has 10 calls a minute, and the 11th is denied", async () => {
  const key = await issue();
  await admit(key, 10);
  expect((await call(key)).status).toBe(429);
});

test("a client that waits for Retry-After is admitted, and one second earlier it is not", async () => {
  setClock("2031-03-12T12:00:17.000Z");
  const key = await issue();
  await admit(key, 10);
  expect(await denied(key)).toBe(43);
  wait(42);
  expect(await denied(key)).toBe(1);
  wait(1);
  await admit(key, 1);
});

test("Retry-After is rounded up to whole seconds, and is at least 1", async () => {
  setClock("2031-03-12T12:00:17.250Z");
  const key = await issue();
  await admit(key, 10);
  expect(await denied(key)).toBe(43);
  setClock("2031-03-12T12:00:59.999Z");
  expect(await denied(key)).toBe(1);
});

test("a minute is that of the clock, not the one since the first call", async () => {
  setClock("2031-03-12T12:00:59.000Z");
  const key = await issue();
  await admit(key, 10);
  expect(await denied(key)).toBe(1);
  setClock("2031-03-12T12:01:00.000Z");
  await admit(key, 10);
  expect(await denied(key)).toBe(60);
});

test("an unused quota is not added to the next minute", async () => {
  const key = await issue();
  await admit(key, 3);
  wait(60);
  expect(await statuses(key, 11)).toEqual([...Array(10).fill(200), 429]);
});

test("exactly the quota is admitted of calls that arrive together", async () => {
  const key = await issue();
  const all = await Promise.all(Array.from({ length: 25 }, () => call(key)));
  expect(all.filter(({ status }) => status === 200)).toHaveLength(10);
  expect(all.filter(({ status }) => status === 429)).toHaveLength(15);
  expect((await usage(key)).calls).toBe(10);
});

test("keys do not share their quotas", async () => {
  const [one, other] = [await issue(), await issue()];
  await admit(one, 10);
  await denied(one);
  await admit(other, 10);
});

test.each([
  ["hour", "2031-03-12T10:59:30.000Z", 30, 3600],
  ["day", "2031-03-12T23:58:30.000Z", 90, 86_400],
])("a fixed %s is aligned to the UTC clock", async (period, time, left, length) => {
  setClock(time);
  const key = await issue(await makeTier({ quota: 2, period }));
  const response = await call(key);
  expect(rateLimitPolicy(response)).toEqual({ [period]: { q: 2, w: length } });
  expect(rateLimit(response)).toEqual({ [period]: { r: 1, t: left } });
  await admit(key, 1);
  expect(await denied(key)).toBe(left);
  wait(left - 1);
  expect(await denied(key)).toBe(1);
  wait(1);
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
});

const MONTH_ENDS = [
  ["2031-01", 31, "2031-02", 28],
  ["2031-02", 28, "2031-03", 31],
  ["2032-02", 29, "2032-03", 31],
  ["2031-04", 30, "2031-05", 31],
  ["2031-12", 31, "2032-01", 31],
];

test.each(MONTH_ENDS)("at the end of %s (%i days) the month's counter starts again, and not before", async (month, days, next, nextDays) => {
  const key = await issue(await makeTier({ quota: 3, period: "month" }));
  setClock(`${month}-${days}T23:59:57.500Z`);
  await admit(key, 2);
  const last = await call(key);
  expect(rateLimitPolicy(last)).toEqual({ month: { q: 3, w: days * 86_400 } });
  expect(rateLimit(last)).toEqual({ month: { r: 0, t: 3 } });
  expect(await denied(key)).toBe(3);
  setClock(`${month}-${days}T23:59:59.999Z`);
  expect(await denied(key)).toBe(1);
  setClock(`${next}-01T00:00:00.000Z`);
  const first = await call(key);
  expect(rateLimitPolicy(first)).toEqual({ month: { q: 3, w: nextDays * 86_400 } });
  expect(rateLimit(first)).toEqual({ month: { r: 2, t: nextDays * 86_400 } });
  expect(await usage(key)).toMatchObject({ month: next, calls: 1 });
});

test.each(MONTH_ENDS)("both %s and the month after its end are metered", async (month, days, next) => {
  const key = await issue();
  setClock(`${month}-${days}T23:59:59.000Z`);
  await admit(key, 3);
  setClock(`${next}-01T00:00:01.000Z`);
  await admit(key, 2);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ [month]: { calls: 3, denied: 0 }, [next]: { calls: 2, denied: 0 } });
});

test.each([
  ["2031-01", 31],
  ["2031-02", 28],
  ["2032-02", 29],
  ["2031-04", 30],
])("a month quota used up on the first day of %s is free after its %i days", async (month, days) => {
  setClock(`${month}-01T00:00:00.000Z`);
  const key = await issue(await makeTier({ quota: 1, period: "month" }));
  await admit(key, 1);
  expect(await denied(key)).toBe(days * 86_400);
  wait(days * 86_400 - 1);
  expect(await denied(key)).toBe(1);
  wait(1);
  await admit(key, 1);
});

test("the ended month is kept until D1 has it, through outage, eviction and further months", async () => {
  const key = await issue();
  setClock("2031-01-31T23:59:50.000Z");
  await admit(key, 4);
  const giveBack = await takeAway("usage_monthly");
  setClock("2031-02-10T00:00:00.000Z");
  await admit(key, 2);
  await runAlarm(key);
  await crash(key);
  setClock("2031-04-01T00:00:00.000Z");
  await admit(key, 1);
  await runAlarm(key);
  expect((await usage(key)).calls).toBe(1);
  await giveBack();
  await runAlarm(key);
  expect(await metered(key)).toEqual({
    "2031-01": { calls: 4, denied: 0 },
    "2031-02": { calls: 2, denied: 0 },
    "2031-04": { calls: 1, denied: 0 },
  });
  expect(new Set((await usageRows(key)).map(({ epoch }) => epoch)).size).toBe(1);
});

describe("with an override that begins or ends within the wait", () => {
  /** A key of a tier with one policy and a temporary override; times are seconds from now. */
  async function overridden(policy, body, from, until) {
    const key = await issue(await makeTier(policy));
    const at = (seconds) => (seconds === undefined ? null : new Date(Date.now() + seconds * 1000).toISOString());
    const response = await admin("PUT", `/keys/${key.id}/overrides/${policy.period}`, { ...body, from: at(from), until: at(until) });
    expect(response.status).toBe(201);
    return key;
  }

  /** A client that honours Retry-After is admitted, and one second earlier it is not. */
  async function admitAfter(key, seconds) {
    expect(await denied(key)).toBe(seconds);
    wait(seconds - 1);
    expect(await denied(key)).toBe(1);
    wait(1);
    await admit(key, 1);
  }

  test("the override adds room when it begins", async () => {
    const key = await overridden({ quota: 10, period: "minute" }, { quota: 20, period: "minute" }, 8);
    await admit(key, 10);
    const response = await call(key);
    // The window continues, but the policy does not.
    expect(rateLimit(response)).toEqual({ minute: { r: 0, t: 8 } });
    expect((await usage(key)).policies[0].reset_at).toBe(new Date(Date.now() + 8000).toISOString().replace(".000", ""));
    await admitAfter(key, 8);
    expect(rateLimit(await call(key))).toEqual({ minute: { r: 8, t: 52 } });
  });

  test("room that ends with the override does not count", async () => {
    const sliding = (quota) => ({ quota, period: "hour", algorithm: "sliding" });
    const key = await overridden(sliding(3), sliding(6), undefined, 3000);
    await admit(key, 3);
    wait(1200);
    await admit(key, 3);
    // Three expire after an hour, and then three is the quota of the tier.
    await admitAfter(key, 3600);
  });

  test("a temporarily blocked key gets the remaining time", async () => {
    const key = await overridden({ quota: 10, period: "minute" }, { quota: 0, period: "minute" }, undefined, 90);
    await admitAfter(key, 90);
  });

  test("a policy that begins is in the fields at once", async () => {
    const key = await overridden({ quota: 10, period: "minute" }, { quota: 10, period: "minute" });
    const from = new Date(Date.now() + 3000).toISOString();
    await admin("PUT", `/keys/${key.id}/overrides/hour`, { quota: 50, period: "hour", from });
    await admit(key, 10);
    expect(await denied(key)).toBe(60);
    wait(3);
    const response = await call(key);
    expect(response.status).toBe(429);
    expect(rateLimit(response)).toEqual({ minute: { r: 0, t: 57 }, hour: { r: 40, t: 3597 } });
  });
});
