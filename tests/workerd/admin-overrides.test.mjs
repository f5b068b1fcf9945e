// Overrides: policies of one key, in place of its tier's or in addition.
import { describe, expect, test } from "vitest";
import { makeTier, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, rateLimit, rateLimitPolicy, setClock, statuses, usage, wait } from "./lib/gate.mjs";
import { evict, intercept } from "./lib/object.mjs";

const put = (key, policy, body) => admin("PUT", `/keys/${key.id}/overrides/${policy}`, body);
const remove = (key, policy) => admin("DELETE", `/keys/${key.id}/overrides/${policy}`);

async function list(key, query = "") {
  const response = await admin("GET", `/keys/${key.id}/overrides${query}`);
  expect(response.status).toBe(200);
  return response.json();
}

const MINUTE = {
  policy: "minute", unit: "requests", quota: 12, period: "minute", algorithm: "fixed", burst: null, from: null, until: null,
};

test("an override replaces the tier's policy on the next request, is listed, replaced, and deleted", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  const created = await put(key, "minute", { quota: 12, period: "minute" });
  expect([created.status, await created.json()]).toEqual([201, MINUTE]);
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
  expect(await list(key)).toEqual({ overrides: [MINUTE], next_cursor: null });
  const replaced = await put(key, "minute", { quota: 13, period: "minute" });
  expect([replaced.status, await replaced.json()]).toEqual([200, { ...MINUTE, quota: 13 }]);
  expect(await statuses(key, 2)).toEqual([200, 429]);
  expect((await remove(key, "minute")).status).toBe(204);
  expect(rateLimitPolicy(await call(key))).toMatchObject({ minute: { q: 10 } });
  expect(await list(key)).toEqual({ overrides: [], next_cursor: null });
  await problem(await remove(key, "minute"), 404);
});

test("an override can be added to a tier's policies; fields keep the order of periods", async () => {
  const key = await issue();
  await admit(key, 2);
  await put(key, "weekday", { quota: 4, period: "day" });
  await put(key, "burst", { quota: 60, period: "hour", algorithm: "bucket", burst: 3 });
  const response = await call(key);
  expect(Object.keys(rateLimitPolicy(response))).toEqual(["minute", "burst", "weekday", "month"]);
  expect(rateLimit(response)).toMatchObject({ burst: { r: 0 }, weekday: { r: 1 } });
  expect((await usage(key)).policies.map(({ policy }) => policy)).toEqual(["minute", "burst", "weekday", "month"]);
  await denied(key);
});

test("a key without limits of its tier can be limited", async () => {
  const key = await issue("unlimited");
  await put(key, "day", { quota: 1, period: "day" });
  expect(await statuses(key, 2)).toEqual([200, 429]);
});

test("an override holds between its two moments, to the millisecond, without a read of D1", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "day" }));
  await put(key, "day", { quota: 3, period: "day", from: "2031-03-12T13:00:10+01:00", until: "2031-03-12T12:00:20Z" });
  expect(await statuses(key, 2)).toEqual([200, 429]);
  const giveBack = await takeAway("keys", "overrides");
  try {
    setClock("2031-03-12T12:00:09.999Z");
    await denied(key);
    await evict(key);
    setClock("2031-03-12T12:00:10.000Z");
    await admit(key, 1);
    setClock("2031-03-12T12:00:19.999Z");
    await admit(key, 1);
    setClock("2031-03-12T12:00:20.000Z");
    const response = await call(key);
    expect(rateLimitPolicy(response)).toMatchObject({ day: { q: 1 } });
    await problem(response, 429);
  } finally {
    await giveBack();
  }
});

test("one without an end does not end, one without a beginning holds at once", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "minute" }));
  await put(key, "minute", { quota: 2, period: "minute", until: "2031-03-12T12:05:00Z" });
  await put(key, "later", { quota: 1, period: "minute", from: "2031-03-12T12:10:00Z" });
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
  setClock("2031-03-12T12:05:00Z");
  expect(await statuses(key, 2)).toEqual([200, 429]);
  setClock("2031-03-12T12:10:00Z");
  expect(Object.keys(rateLimitPolicy(await call(key)))).toEqual(["later", "minute"]);
});

test("an override that was made while the object was unreachable takes effect within 60 seconds", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "day" }));
  await admit(key, 1);
  const asked = await intercept(key, (answer) => (asked.at(-1) === "/v1/refresh" ? new Response(null, { status: 500 }) : answer()));
  expect((await put(key, "day", { quota: 2, period: "day" })).status).toBe(201);
  await denied(key);
  wait(60);
  await admit(key, 1);
});

test("an override written by hand is in effect within 60 seconds", async () => {
  const key = await issue();
  await admit(key, 1);
  await sql("INSERT INTO overrides (key_id, policy, quota, period, created_at) VALUES (?, 'minute', 1, 'minute', '')", key.id);
  wait(60);
  expect(await statuses(key, 2)).toEqual([200, 429]);
});

test("lists are pages", async () => {
  const key = await issue();
  for (const policy of ["b", "a", "c"]) await put(key, policy, { quota: 1, period: "day" });
  const first = await list(key, "?limit=2");
  expect(first.overrides.map(({ policy }) => policy)).toEqual(["a", "b"]);
  const second = await list(key, `?limit=2&cursor=${first.next_cursor}`);
  expect(second).toMatchObject({ overrides: [{ policy: "c" }], next_cursor: null });
  await problem(await admin("GET", `/keys/${key.id}/overrides?limit=0`), 400);
  await problem(await admin("GET", `/keys/${key.id}/overrides?tier=free`), 400);
});

test("a key has at most 16, which can still be replaced", async () => {
  const key = await issue();
  for (let n = 0; n < 16; n += 1) expect((await put(key, `p${n}`, { quota: 1000, period: "day" })).status).toBe(201);
  await problem(await put(key, "one-more", { quota: 1, period: "day" }), 409);
  expect((await put(key, "p3", { quota: 1, period: "day" })).status).toBe(200);
  expect(await statuses(key, 2)).toEqual([200, 429]);
});

describe("PUT changes nothing for", () => {
  test.each([
    ["no JSON", "minute", "", 400, undefined],
    ["no quota", "minute", { period: "day" }, 422, "quota"],
    ["no period", "minute", { quota: 1 }, 422, "period"],
    ["a quota that is too large", "minute", { quota: 1_000_000_001, period: "day" }, 422, "quota"],
    ["a quota below 0", "minute", { quota: -1, period: "day" }, 422, "quota"],
    ["a period that there is not", "minute", { quota: 1, period: "week" }, 422, "period"],
    ["an algorithm that there is not", "minute", { quota: 1, period: "day", algorithm: "leaky" }, 422, "algorithm"],
    ["a month that is sliding", "minute", { quota: 1, period: "month", algorithm: "sliding" }, 422, "algorithm"],
    ["tokens that slide", "minute", { unit: "tokens", quota: 1, period: "day", algorithm: "sliding" }, 422, "algorithm"],
    ["a sliding quota that is too large", "minute", { quota: 10_001, period: "day", algorithm: "sliding" }, 422, "quota"],
    ["a burst without a bucket", "minute", { quota: 1, period: "day", burst: 2 }, 422, "burst"],
    ["a beginning that is no time", "minute", { quota: 1, period: "day", from: "now" }, 422, "from"],
    ["an end before the beginning", "minute", { quota: 1, period: "day", from: "2031-01-02T00:00:00Z", until: "2031-01-01T00:00:00Z" }, 422, "until"],
    ["an unknown field", "minute", { quota: 1, period: "day", when: 1 }, 422, "when"],
    ["a name in capitals", "Minute", { quota: 1, period: "day" }, 422, "policy"],
    ["a name that is too long", "x".repeat(33), { quota: 1, period: "day" }, 422, "policy"],
    ["no name", "", { quota: 1, period: "day" }, 422, "policy"],
  ])("%s", async (_what, policy, body, status, field) => {
    const key = await issue();
    expect((await problem(await put(key, policy, body), status)).field).toBe(field);
    expect((await list(key)).overrides).toEqual([]);
  });
});

test("404 for an unknown key", async () => {
  for (const id of ["abcdefghij234567", "NOT-AN-ID"]) {
    await problem(await put({ id }, "minute", { quota: 1, period: "day" }), 404);
    await problem(await remove({ id }, "minute"), 404);
    await problem(await admin("GET", `/keys/${id}/overrides`), 404);
  }
});
