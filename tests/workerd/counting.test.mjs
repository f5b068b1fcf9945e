// Rows written per call, and retried requests that must not count twice.
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, test } from "vitest";
import { makeTier, metered, sql } from "./lib/database.mjs";
import { admit, call, denied, issue, problem, received, statuses, usage, used, wait } from "./lib/gate.mjs";
import { breakWrites, check, crash, evict, intercept, runAlarm, stub } from "./lib/object.mjs";

/**
 * Counts the rows that the object's database writes, the alarms that it sets, and its requests for
 * confirmation, from now on.
 */
function observe(key) {
  return runInDurableObject(stub(key), (_object, { storage }) => {
    const seen = { rows: 0, statements: 0, alarms: 0, syncs: 0 };
    const { sql } = storage;
    const exec = sql.exec.bind(sql);
    Object.defineProperty(sql, "exec", {
      configurable: true,
      value: (...query) => {
        const cursor = exec(...query);
        seen.rows += cursor.rowsWritten;
        seen.statements += 1;
        return cursor;
      },
    });
    const setAlarm = storage.setAlarm.bind(storage);
    Object.defineProperty(storage, "setAlarm", {
      configurable: true,
      value: (...time) => {
        seen.alarms += 1;
        return setAlarm(...time);
      },
    });
    const sync = storage.sync.bind(storage);
    Object.defineProperty(storage, "sync", {
      configurable: true,
      value: () => {
        seen.syncs += 1;
        return sync();
      },
    });
    return seen;
  });
}

describe("in steady state", () => {
  test.each([
    ["minute and month in one", () => "free"],
    ["all four fixed periods in one", () => makeTier(...["minute", "hour", "day", "month"].map((period) => ({ quota: 90, period })))],
    ["a sliding and a bucket policy in one", () =>
      makeTier({ quota: 90, period: "minute", algorithm: "sliding" }, { quota: 90, period: "hour", algorithm: "bucket" })],
    ["a tier without limits", () => "unlimited"],
  ])("an admitted call writes one row and sets no alarm: %s", async (_what, tier) => {
    const key = await issue(await tier());
    await admit(key, 2);
    const seen = await observe(key);
    await admit(key, 5);
    expect(seen).toMatchObject({ rows: 5, statements: 5, alarms: 0 });
  });

  test("three denied calls write a row each, later ones only set an alarm", async () => {
    const key = await issue();
    await admit(key, 10);
    const seen = await observe(key);
    expect(await statuses(key, 3)).toEqual([429, 429, 429]);
    expect(seen).toMatchObject({ rows: 3, statements: 3, alarms: 0 });
    expect(await statuses(key, 20)).toEqual(Array(20).fill(429));
    expect(seen).toMatchObject({ rows: 3, statements: 3, alarms: 1 });
  });

  test("sequential calls request a confirmation at every eighth write", async () => {
    const key = await issue("basic");
    await admit(key, 1);
    const seen = await observe(key);
    await admit(key, 24);
    expect(seen).toEqual({ rows: 24, statements: 24, alarms: 0, syncs: 3 });
  });

  test("calls marked as concurrent share rows from the first on", async () => {
    for (const before of [1, 3, 7, 8, 12]) {
      const key = await issue("basic");
      for (let nonce = 1; nonce <= before; nonce += 1) await check(key, nonce);
      const seen = await observe(key);
      const [{ secret_hash }] = await sql("SELECT secret_hash FROM keys WHERE id = ?", key.id);
      const questions = Array.from({ length: 30 }, (_, i) => `https://key.object/v1/check?id=${key.id}&h=${secret_hash}&n=${100 + i}&g=1`);
      // All in one turn of the event loop.
      const answers = await runInDurableObject(stub(key), (object) => Promise.all(questions.map((question) => object.ask(question))));
      expect(answers.every((answer) => answer.startsWith("1 admitted"))).toBe(true);
      // One for all calls that waited for a confirmation, preceded by one for the first of them if
      // there was none to wait for.
      expect(seen.rows, `after ${before}`).toBeLessThanOrEqual(2);
      await crash(key);
      expect((await usage(key)).calls).toBe(before + 30);
    }
  });

  test("calls that arrive together share rows, and every one is counted", async () => {
    const key = await issue("basic");
    await admit(key, 2);
    const seen = await observe(key);
    const all = await Promise.all(Array.from({ length: 12 }, () => call(key)));
    expect(all.every(({ status }) => status === 200)).toBe(true);
    expect(seen.rows).toBeGreaterThanOrEqual(1);
    expect(seen.rows).toBeLessThanOrEqual(12);
    await crash(key);
    expect((await usage(key)).calls).toBe(14);
  });

  test("a refused call and a read of the usage write nothing", async () => {
    const key = await issue();
    await admit(key, 2);
    await sql("UPDATE keys SET status = 'disabled' WHERE id = ?", key.id);
    wait(60);
    expect((await call(key)).status).toBe(403);
    const seen = await observe(key);
    expect((await call(key)).status).toBe(403);
    await usage(key);
    expect(seen).toEqual({ rows: 0, statements: 0, alarms: 0, syncs: 0 });
  });
});

test("an admitted call is durable before it is answered", async () => {
  const key = await issue();
  for (let calls = 1; calls <= 3; calls += 1) {
    await admit(key, 1);
    await crash(key);
    expect((await usage(key)).calls).toBe(calls);
  }
});

describe("a repeated request is counted once", () => {
  test("while the object is in memory", async () => {
    const key = await issue();
    expect(await check(key, 1001)).toMatch(/^1 admitted[:e]* free /);
    expect(await check(key, 1001, "&r=1")).toMatch(/^1 admitted[:e]* free /);
    expect(await check(key, 1001, "&r=1")).toMatch(/^1 admitted[:e]* free /);
    expect(await used(key)).toEqual({ minute: 1, month: 1 });
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 1, denied: 0 } });
  });

  test.each([
    ["an eviction", evict],
    ["a crash", crash],
  ])("after %s", async (_what, end) => {
    const key = await issue();
    await check(key, 1002);
    await end(key);
    expect(await check(key, 1002, "&r=1")).toMatch(/^1 admitted[:e]* /);
    expect(await used(key)).toEqual({ minute: 1, month: 1 });
  });

  test("after a crash, for each of the unconfirmed writes, and any that follows", async () => {
    const key = await issue("basic");
    for (let nonce = 1; nonce <= 20; nonce += 1) {
      await check(key, nonce);
      // A response may be lost with the object while later calls are in flight.
      const late = Math.max(1, nonce - 6);
      if (nonce % 5 === 0) await crash(key);
      expect(await check(key, late, "&r=1")).toMatch(/^1 admitted[:e]* /);
    }
    expect((await usage(key)).calls).toBe(20);
  });

  test("after others were counted, and when both arrive together", async () => {
    const key = await issue("basic");
    await check(key, 2000);
    await Promise.all([check(key, 2001), check(key, 2001, "&r=1"), admit(key, 5), check(key, 2000, "&r=1")]);
    await crash(key);
    await check(key, 2001, "&r=1");
    expect((await usage(key)).calls).toBe(7);
  });

  test("when the repeat overtakes the first", async () => {
    const key = await issue();
    expect(await check(key, 1006, "&r=1")).toMatch(/^1 admitted[:e]* /);
    expect(await check(key, 1006)).toMatch(/^1 admitted[:e]* /);
    await crash(key);
    expect(await check(key, 1006)).toMatch(/^1 admitted[:e]* /);
    expect(await used(key)).toEqual({ minute: 1, month: 1 });
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 1, denied: 0 } });
  });

  test("when the first one is lost", async () => {
    const key = await issue();
    expect(await check(key, 1003, "&r=1")).toMatch(/^1 admitted[:e]* /);
    expect(await used(key)).toEqual({ minute: 1, month: 1 });
  });

  test("and admitted again even if the window is full", async () => {
    const key = await issue();
    await check(key, 1004);
    await admit(key, 9);
    await denied(key);
    expect(await check(key, 1004, "&r=1")).toMatch(/^1 admitted[:e]* /);
    expect(await check(key, 1005, "&r=1")).toMatch(/^1 denied/);
    expect((await usage(key)).calls).toBe(10);
  });
});

test("a repeat that is too late for deduplication is not counted", async () => {
  const key = await issue("unlimited");
  await check(key, 1);
  await admit(key, 130);
  wait(70);
  await admit(key, 1);
  wait(9);
  for (let i = 0; i < 9; i += 1) {
    await admit(key, 7);
    wait(9);
  }
  expect(await check(key, 1, "&r=1&a=160000")).toBe("1 failed");
  expect(await check(key, 3, "&r=1&a=1000")).toMatch(/^1 admitted/);
  // It is a first attempt.
  expect(await check(key, 2)).toMatch(/^1 admitted/);
  expect((await usage(key)).calls).toBe(1 + 130 + 1 + 63 + 2);
});

describe("an object that fails", () => {
  test("is 503 with Retry-After, and nothing reaches the origin", async () => {
    const key = await issue();
    await intercept(key, () => {
      throw new Error("unreachable");
    });
    const response = await call(key);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    await problem(response, 503);
    expect(await received()).toEqual([]);
  });

  test("is 503 if its response has an unknown version", async () => {
    const key = await issue();
    await intercept(key, () => "999 admitted");
    await problem(await call(key), 503);
    expect(await received()).toEqual([]);
  });

  test("by overload gets no repeated request", async () => {
    const key = await issue();
    const asked = await intercept(key, () => {
      throw Object.assign(new Error("Requests queued for too long."), { overloaded: true, retryable: true });
    });
    await problem(await call(key), 503);
    expect(asked).toHaveLength(1);
  });

  test("after counting a call gets a repeated request, and the call is forwarded and counted once", async () => {
    const key = await issue();
    await admit(key, 1);
    let isLost = false;
    const asked = await intercept(key, async (answer, state) => {
      const response = await answer();
      if (!isLost) {
        isLost = true;
        await state.storage.sync();
        throw Object.assign(new Error("Network connection lost."), { retryable: true });
      }
      return response;
    });
    expect((await call(key)).status).toBe(200);
    expect(asked).toEqual(["/v1/check", "/v1/check"]);
    expect(await received()).toHaveLength(2);
    expect(await used(key)).toEqual({ minute: 2, month: 2 });
  });
});

test("with DENY_CACHE_SECONDS=0 the object makes every denial", async () => {
  const key = await issue();
  await admit(key, 10);
  const asked = await intercept(key);
  expect(await statuses(key, 4)).toEqual([429, 429, 429, 429]);
  expect(asked).toHaveLength(4);
});

describe("a report of an isolate", () => {
  test("is counted once, however often it is sent", async () => {
    const key = await issue();
    await check(key, 1, "&o=77:4:6");
    await check(key, 2, "&o=77:4:6");
    await crash(key);
    await check(key, 3, "&o=77:4:6");
    expect(await used(key)).toEqual({ minute: 7, month: 7 });
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 7, denied: 6 } });
  });

  test("is counted for each nonce", async () => {
    const key = await issue();
    await check(key, 1, "&o=78:1:0");
    await check(key, 2, "&o=79:2:1");
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 5, denied: 1 } });
  });

  test("is acknowledged when it is written", async () => {
    const key = await issue();
    await admit(key, 10);
    const repair = await breakWrites(key);
    const answers = await Promise.all([check(key, 1, "&o=81:5:0"), check(key, 2, "&o=81:5:0")]);
    await repair();
    expect(answers).toEqual(["1 failed", "1 failed"]);
    await check(key, 3, "&o=81:5:0");
    expect((await usage(key)).calls).toBe(15);
  });

  test("is spent from the quota", async () => {
    const key = await issue();
    expect(await check(key, 1, "&o=80:10:0")).toMatch(/^1 denied/);
    await denied(key);
    await crash(key);
    expect(await used(key)).toEqual({ minute: 10, month: 10 });
  });
});

test("the object refuses calls without the key's secret, and counts nothing for them", async () => {
  const key = await issue();
  const url = `https://key.object/v1/check?id=${key.id}&h=${"0".repeat(64)}&n=5&o=6:3:3`;
  expect(await stub(key).ask(url)).toBe("1 unknown");
  expect((await usage(key)).calls).toBe(0);
});

test("the object ignores what a newer Worker may add to a request", async () => {
  const key = await issue();
  expect(await check(key, 9, "&later=1&also=x")).toMatch(/^1 admitted[:e]* /);
});
