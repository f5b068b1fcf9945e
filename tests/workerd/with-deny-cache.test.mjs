// DENY_CACHE_SECONDS at its default of 10: an isolate repeats denials, as correct as those of the
// object.
import { describe, expect, test } from "vitest";
import { makeTier, metered, setKey } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, received, statuses, usage, wait } from "./lib/gate.mjs";
import { intercept, refresh, runAlarm } from "./lib/object.mjs";

test("repeated denials count Retry-After down, and the call at its end is admitted", async () => {
  const key = await issue();
  await admit(key, 10);
  for (let left = 60; left >= 1; left -= 1) {
    expect(await denied(key)).toBe(left);
    wait(1);
  }
  await admit(key, 10);
});

test("a flood of denied calls asks the object once in DENY_CACHE_SECONDS", async () => {
  const key = await issue();
  await admit(key, 10);
  const asked = await intercept(key);
  for (let second = 0; second < 20; second += 1) {
    expect(await statuses(key, 3)).toEqual([429, 429, 429]);
    wait(1);
  }
  expect(asked.length).toBeGreaterThanOrEqual(1);
  expect(asked.length).toBeLessThanOrEqual(3);
});

test("repeated denials tell the same policies, and the same fields less the time that has passed", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  wait(4);
  const response = await call(key);
  expect(response.headers.get("ratelimit")).toMatch(/^"minute";r=0;t=56, "month";r=990;t=\d+$/);
  expect(response.headers.get("ratelimit-policy")).toBe('"minute";q=10;w=60, "month";q=1000;w=2678400');
  expect(await problem(response, 429)).toMatchObject({ "violated-policies": ["minute"], retry_after: 56 });
});

test("denials of one key say nothing of another", async () => {
  const [key, other] = [await issue(), await issue()];
  await admit(key, 10);
  expect(await statuses(key, 3)).toEqual([429, 429, 429]);
  await admit(other, 10);
});

test("a denial is still none of the origin's business, and is counted as denied and not as a call", async () => {
  const key = await issue();
  await admit(key, 10);
  expect(await statuses(key, 6)).toEqual(Array(6).fill(429));
  expect(await received()).toHaveLength(10);
  wait(60);
  await admit(key, 1);
  expect((await usage(key)).calls).toBe(11);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 11, denied: 6 } });
});

test("an upgrade is in effect DENY_CACHE_SECONDS later at the latest", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  await setKey(key, "tier", "pro");
  await refresh(key);
  wait(10);
  await admit(key, 5);
});

const REPLAY = "x-tollgate-idempotent-replay";
const pay = (key, idempotencyKey, path = "/") =>
  call(key, path, { method: "POST", body: "x", headers: { "Idempotency-Key": idempotencyKey } });
const only = (asked, name) => asked.filter((path) => path === `/v1/${name}`);

/** Sends consecutive calls, which must all be denied; resolves to their Retry-After values. */
async function waits(count, one) {
  const all = [];
  for (let i = 0; i < count; i += 1) {
    const response = await one(i);
    expect(response.status).toBe(429);
    all.push(Number(response.headers.get("retry-after")));
  }
  return all;
}

describe("an Idempotency-Key", () => {
  test.each([
    ["one and the same", () => "z"],
    ["ever new ones", (i) => `z${i}`],
    ["long ones", (i) => `${i}`.padStart(255, "|")],
  ])("does not step around a denial by the minute: %s", async (_, text) => {
    const key = await issue();
    await pay(key, text(0));
    await admit(key, 9);
    const asked = await intercept(key);
    wait(3);
    expect(await waits(300, (i) => pay(key, text(i)))).toEqual(Array(300).fill(57));
    expect(only(asked, "check").length).toBeLessThanOrEqual(2);
    wait(56);
    expect(await waits(1, () => pay(key, text(7)))).toEqual([1]);
    wait(1);
    const repeat = await pay(key, text(0));
    expect([repeat.status, repeat.headers.get(REPLAY)]).toEqual([200, "1"]);
  });

  test("does not on a GET, even if it is none", async () => {
    const key = await issue();
    await admit(key, 10);
    const asked = await intercept(key);
    const keyed = (i) => call(key, "/", { headers: { "Idempotency-Key": i % 2 ? `z${i}` : "x".repeat(256) } });
    await waits(300, keyed);
    expect(only(asked, "check")).toHaveLength(1);
  });

  const month = () => makeTier({ quota: 3, period: "month" });
  const untilApril = (Date.parse("2031-04-01T00:00:00Z") - Date.parse("2031-03-12T12:00:00Z")) / 1000;

  test("of a new call is denied by the month without asking again, and a repeat passes meanwhile", async () => {
    const key = await issue(await month());
    for (const text of ["a", "b", "c"]) expect((await pay(key, text)).status).toBe(200);
    const asked = await intercept(key);
    expect(await waits(100, () => pay(key, "d"))).toEqual(Array(100).fill(untilApril));
    expect(await waits(50, () => call(key))).toEqual(Array(50).fill(untilApril));
    expect(only(asked, "check")).toHaveLength(1);
    for (const text of ["a", "b", "c"]) expect((await pay(key, text)).headers.get(REPLAY)).toBe("1");
    // A different request under the same key is another call.
    expect((await pay(key, "a", "/other")).status).toBe(422);
    expect((await pay(key, "d", "/other")).status).toBe(429);
    expect(only(asked, "check")).toHaveLength(6);
  });

  test("of ever new calls costs ten object requests a second, and all get the same response", async () => {
    const key = await issue(await month());
    for (const text of ["a", "b", "c"]) await pay(key, text);
    await waits(1, () => call(key));
    const asked = await intercept(key);
    for (let second = 0; second < 3; second += 1) {
      const all = await waits(100, (i) => pay(key, `${second}/${i}`));
      expect(all).toEqual(Array(100).fill(untilApril - second));
      wait(1);
    }
    expect(only(asked, "check").length).toBeLessThanOrEqual(31);
    // A second later the object is asked about repeats again.
    expect((await pay(key, "a")).headers.get(REPLAY)).toBe("1");
    expect(await received()).toHaveLength(4);
  });

  test("of a repeat that the minute denies states the minute's wait, and of a new call the month's", async () => {
    const key = await issue(await makeTier({ quota: 3, period: "minute" }, { quota: 2, period: "month" }));
    for (const text of ["a", "b"]) await pay(key, text);
    expect((await pay(key, "a")).headers.get(REPLAY)).toBe("1");
    const asked = await intercept(key);
    expect(await waits(50, () => pay(key, "a"))).toEqual(Array(50).fill(60));
    expect((await problem(await pay(key, "a"), 429))["violated-policies"]).toEqual(["minute"]);
    expect(await waits(50, () => pay(key, "new"))).toEqual(Array(50).fill(untilApril));
    expect((await problem(await pay(key, "new"), 429))["violated-policies"]).toEqual(["minute", "month"]);
    expect(await waits(50, () => call(key))).toEqual(Array(50).fill(untilApril));
    expect(only(asked, "check").length).toBeLessThanOrEqual(3);
  });

  test("is denied like any other call where the tier ignores it", async () => {
    const tier = `off-${crypto.randomUUID().slice(0, 8)}`;
    await admin("PUT", `/tiers/${tier}`, { idempotency: "off", policies: [{ policy: "month", quota: 1, period: "month" }] });
    const key = await issue(tier);
    expect((await pay(key, "a")).status).toBe(200);
    const asked = await intercept(key);
    await waits(200, (i) => pay(key, i % 2 ? `z${i}` : "x".repeat(256)));
    expect(only(asked, "check").length).toBeLessThanOrEqual(2);
  });

  test("that is none is 400, and costs a question every three seconds", async () => {
    const key = await issue();
    await admit(key, 1);
    const asked = await intercept(key);
    for (let second = 0; second < 6; second += 1) {
      for (let i = 0; i < 20; i += 1) await problem(await pay(key, "x".repeat(256)), 400);
      wait(1);
    }
    expect(only(asked, "check").length).toBeLessThanOrEqual(2);
    // Other calls are not affected.
    expect((await pay(key, "z")).status).toBe(200);
  });
});

describe("a key that is refused", () => {
  test.each(["disabled", "revoked"])("because it is %s costs a question every three seconds", async (status) => {
    const key = await issue();
    await admit(key, 1);
    await setKey(key, "status", status);
    await refresh(key);
    const asked = await intercept(key);
    for (let second = 0; second < 6; second += 1) {
      for (let i = 0; i < 20; i += 1) {
        const response = i % 2 ? await call(key) : await pay(key, `z${i}`);
        expect(response.headers.get("ratelimit")).toMatch(/^"minute";r=9;t=/);
        expect((await problem(response, 403)).detail).toContain(status);
      }
      wait(1);
    }
    expect(only(asked, "check").length).toBeLessThanOrEqual(2);
    await setKey(key, "status", "active");
    await refresh(key);
    wait(3);
    await admit(key, 1);
    // They are not denials.
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 2, denied: 0 } });
  });

  test("is admitted within 60 seconds when it is enabled by hand", async () => {
    const key = await issue();
    await admit(key, 1);
    await setKey(key, "status", "disabled");
    await refresh(key);
    await problem(await call(key), 403);
    await setKey(key, "status", "active");
    // A cached response must not be older than that either.
    for (let second = 56; second < 60; second += 1) {
      wait(second === 56 ? 56 : 1);
      await call(key);
    }
    wait(1);
    await admit(key, 1);
  });

  test("because it expired is admitted at once when it is given more time", async () => {
    const key = await issue();
    await admit(key, 1);
    await admin("PATCH", `/keys/${key.id}`, { expires_at: "2031-03-12T12:00:10Z" });
    wait(10);
    await problem(await call(key), 403);
    await admin("PATCH", `/keys/${key.id}`, { expires_at: null });
    await admit(key, 1);
  });

  test("is admitted with the very next request when it is enabled, however late an earlier answer comes", async () => {
    const key = await issue();
    await admit(key, 1);
    await admin("PATCH", `/keys/${key.id}`, { status: "disabled" });
    let arrive;
    const isLate = new Promise((resolve) => (arrive = resolve));
    let isFirst = true;
    const asked = await intercept(key, async (answer) => {
      if (!isFirst) return answer();
      isFirst = false;
      const line = await answer();
      await isLate;
      return line;
    });
    const late = call(key);
    while (only(asked, "check").length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await admin("PATCH", `/keys/${key.id}`, { status: "active" });
    arrive();
    await problem(await late, 403);
    await admit(key, 1);
  });

  test("is refused with the very next request when it is disabled", async () => {
    const key = await issue();
    await admit(key, 10);
    await denied(key);
    await admin("PATCH", `/keys/${key.id}`, { status: "disabled" });
    await problem(await call(key), 403);
  });
});

test("a change of the tier is in effect with the very next request of a key that was denied", async () => {
  const tier = await makeTier({ quota: 1, period: "month" });
  const [one, other] = [await issue(tier), await issue(tier)];
  for (const key of [one, other]) expect(await statuses(key, 2)).toEqual([200, 429]);
  await admin("PUT", `/tiers/${tier}`, { policies: [{ policy: "month", quota: 2, period: "month" }] });
  for (const key of [one, other]) expect(await statuses(key, 2)).toEqual([200, 429]);
});

test.each([
  ["settled", (path) => admin("POST", `${path}/settle`, { tokens: 0, requests: 1 }), 200],
  ["released", (path) => admin("DELETE", path), 204],
])("a denied key has what is given back when a reservation is %s", async (_how, close, status) => {
  const key = await issue(await makeTier({ quota: 2, period: "day" }));
  const made = await admin("POST", `/keys/${key.id}/reservations`, { tokens: 0, requests: 2 });
  const { id } = await made.json();
  await denied(key);
  expect((await close(`/keys/${key.id}/reservations/${id}`)).status).toBe(status);
  await admit(key, 1);
});
