// Calls that repeat another by their Idempotency-Key.
import { describe, expect, test, vi } from "vitest";
import { makeTier, sql } from "./lib/database.mjs";
import { call, issue, problem, rateLimit, received, releaseOrigin, statuses, usage, used, wait } from "./lib/gate.mjs";
import { crash, evict, objectText, runAlarm } from "./lib/object.mjs";

const REPLAY = "x-tollgate-idempotent-replay";
const pay = (key, idempotencyKey, path = "/", headers = {}) =>
  call(key, path, { method: "POST", body: "x", headers: { "Idempotency-Key": idempotencyKey, ...headers } });

const DAY = 86_400;

test("a repeat is forwarded and marked, and charged to the minute but not to the month", async () => {
  const key = await issue();
  const first = await pay(key, "order-1");
  expect([first.status, first.headers.get(REPLAY), rateLimit(first).month.r]).toEqual([200, null, 999]);
  const second = await pay(key, "order-1");
  expect([second.status, second.headers.get(REPLAY)]).toEqual([200, "1"]);
  expect(rateLimit(second)).toMatchObject({ minute: { r: 8 }, month: { r: 999 } });
  expect(await used(key)).toEqual({ minute: 2, month: 1 });
  // Every call that went to the origin is counted.
  expect((await usage(key)).calls).toBe(2);
  const sent = await received();
  expect(sent.map(({ headers }) => headers[REPLAY])).toEqual([undefined, "1"]);
  expect(sent.map(({ headers }) => headers["idempotency-key"])).toEqual(["order-1", "order-1"]);
});

test("a client cannot mark its own calls", async () => {
  const key = await issue();
  const response = await pay(key, "mine", "/", { [REPLAY]: "1", x_tollgate_idempotent_replay: "1" });
  expect(response.headers.get(REPLAY)).toBeNull();
  const [{ headers }] = await received();
  expect(Object.keys(headers).filter((name) => name.includes("replay"))).toEqual([]);
});

test("a repeat passes where the month is used up, and not where the minute is", async () => {
  const key = await issue(await makeTier({ quota: 3, period: "minute" }, { quota: 1, period: "month" }));
  expect((await pay(key, "a")).status).toBe(200);
  expect((await pay(key, "b")).status).toBe(429);
  expect((await call(key)).status).toBe(429);
  const repeated = [await pay(key, "a"), await pay(key, "a"), await pay(key, "a")];
  expect(repeated.map(({ status }) => status)).toEqual([200, 200, 429]);
  expect((await problem(repeated[2], 429))["violated-policies"]).toEqual(["minute"]);
});

test("a denied first attempt leaves no trace: the next one is charged", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "minute" }, { quota: 10, period: "month" }));
  expect((await call(key)).status).toBe(200);
  expect((await pay(key, "late")).status).toBe(429);
  wait(60);
  const first = await pay(key, "late");
  expect([first.status, first.headers.get(REPLAY)]).toEqual([200, null]);
  expect((await used(key)).month).toBe(2);
});

describe("a repeat while the first is in flight", () => {
  test("is 409, is counted nowhere and not forwarded, until the origin has answered", async () => {
    const key = await issue();
    const first = pay(key, "slow", "/held");
    await vi.waitFor(async () => expect(await received()).toHaveLength(1), { timeout: 5000 });
    const repeat = await pay(key, "slow", "/held");
    expect(repeat.headers.get("retry-after")).toBe("1");
    await problem(repeat, 409);
    expect(await used(key)).toEqual({ minute: 1, month: 1 });
    // Others are not held up.
    expect((await pay(key, "other")).status).toBe(200);
    await releaseOrigin();
    expect((await first).status).toBe(200);
    expect((await pay(key, "slow")).headers.get(REPLAY)).toBe("1");
    expect(await used(key)).toEqual({ minute: 3, month: 2 });
  });

  test("is known as such after the object has been evicted, and for five minutes at most", async () => {
    const key = await issue();
    const first = pay(key, "slow", "/held");
    await vi.waitFor(async () => expect(await received()).toHaveLength(1), { timeout: 5000 });
    await evict(key);
    expect((await pay(key, "slow")).status).toBe(409);
    wait(5 * 60);
    expect((await pay(key, "slow")).headers.get(REPLAY)).toBe("1");
    await releaseOrigin();
    await first;
  });
});

test("that a call has ended is durable before its answer", async () => {
  const key = await issue();
  expect((await pay(key, "order")).status).toBe(200);
  await crash(key);
  expect((await pay(key, "order")).headers.get(REPLAY)).toBe("1");
});

test("a call whose origin does not answer has ended too", async () => {
  const key = await issue();
  expect((await pay(key, "order", "/down")).status).toBe(502);
  const repeat = await pay(key, "order");
  expect([repeat.status, repeat.headers.get(REPLAY)]).toEqual([200, "1"]);
});

test("after 24 hours a key is new, however often it was repeated", async () => {
  const key = await issue();
  await pay(key, "order");
  wait(DAY - 60);
  expect((await pay(key, "order")).headers.get(REPLAY)).toBe("1");
  wait(60);
  expect((await pay(key, "order")).headers.get(REPLAY)).toBeNull();
});

test("keys belong to an API key", async () => {
  const [one, other] = [await issue(), await issue()];
  await pay(one, "order");
  expect((await pay(other, "order")).headers.get(REPLAY)).toBeNull();
});

test.each([["x".repeat(256)], ["\u00fc"], ["a\tb"]])("%j is no idempotency key: 400, and counted nowhere", async (text) => {
  const key = await issue();
  const { detail } = await problem(await pay(key, text), 400);
  expect(detail).toContain("Idempotency-Key");
  expect(await used(key)).toEqual({ minute: 0, month: 0 });
});

test("they are stored in chunks, and let go of when they are over", async () => {
  const key = await issue("unlimited");
  const count = 1100;
  const before = await writes(key);
  for (let i = 0; i < count; i += 50) {
    const all = await Promise.all(Array.from({ length: 50 }, (_, j) => pay(key, `k${i + j}`)));
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([200]));
  }
  expect(await chunks(key)).toBe(2);
  expect(await writes(key) - before).toBeLessThan(2.1 * count);
  await evict(key);
  expect((await pay(key, "k0")).headers.get(REPLAY)).toBe("1");
  wait(DAY + 60);
  expect((await pay(key, "k0")).headers.get(REPLAY)).toBeNull();
  await vi.waitFor(async () => expect(await chunks(key)).toBe(0));
});

async function chunks(key) {
  const text = await objectText(key);
  return text.split("\n").filter((table) => table.includes("until_ms")).flatMap((table) => JSON.parse(table)).length;
}

async function writes(key) {
  const { env } = await import("cloudflare:workers");
  return (await (await env.KEYS.getByName(key.id).fetch(`https://key.object/v1/stats?id=${key.id}`)).json()).rows_written;
}
