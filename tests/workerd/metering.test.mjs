// Flushes of usage to D1 by the object's alarm.
import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { makeTier, metered, sql, takeAway, usageRows } from "./lib/database.mjs";
import { GATE, admin, admit, call, denied, issue, setClock, usage, wait } from "./lib/gate.mjs";
import { alarmIn, crash, inObject, runAlarm, stub } from "./lib/object.mjs";

const FLUSH_MS = Number(env.FLUSH_SECONDS) * 1000;
const MARCH = "2031-03";

// Without an audit log, whose expiry would set the alarm.
beforeAll(() => sql("UPDATE tiers SET audit_days = 0"));

/** The one row of the key's usage. */
async function row(key) {
  const rows = await usageRows(key);
  expect(rows).toHaveLength(1);
  return rows[0];
}

/** The key's rows of hours, oldest first. */
function hourRows(key) {
  return sql("SELECT hour, class, calls, denied, cost FROM usage_hourly WHERE key_id = ? ORDER BY hour, class", key.id);
}

/** Replaces D1's `batch`, which flushes use, by `instead(batch)` for the duration of `work`. */
async function withBatch(instead, work) {
  const database = Object.getPrototypeOf(env.DB);
  const { batch } = database;
  const spy = vi.spyOn(database, "batch").mockImplementation(function (statements) {
    return instead(() => batch.call(this, statements));
  });
  await work();
  expect(spy).toHaveBeenCalled();
  spy.mockRestore();
}

test("the first call that is not in D1 sets the alarm, between half of FLUSH_SECONDS and all of it later", async () => {
  const delays = [];
  for (let i = 0; i < 8; i += 1) {
    const key = await issue();
    expect(await alarmIn(key)).toBe(null);
    await admit(key, 1);
    delays.push(await alarmIn(key));
  }
  for (const delay of delays) {
    expect(delay).toBeGreaterThanOrEqual(FLUSH_MS / 2);
    expect(delay).toBeLessThanOrEqual(FLUSH_MS);
  }
  expect(new Set(delays).size).toBeGreaterThan(1);
});

test("later calls do not delay the alarm", async () => {
  const key = await issue();
  await admit(key, 1);
  const delay = await alarmIn(key);
  wait(20);
  await admit(key, 5);
  expect(await alarmIn(key)).toBe(delay - 20_000);
});

test("a flush writes id, month, calls and denied of one epoch, and the time", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  await denied(key);
  wait(45);
  await runAlarm(key);
  const rows = await sql("SELECT * FROM usage_monthly WHERE key_id = ?", key.id);
  const epoch = expect.stringMatching(/^.+$/);
  const updated_at = "2031-03-12T12:00:45Z";
  const charges = { cost: 10, cost_charged: 10, cost_returned: 0, tokens: 0, tokens_charged: 0, tokens_returned: 0, overdraft: 0 };
  expect(rows).toEqual([{ key_id: key.id, month: MARCH, epoch, calls: 10, denied: 2, ...charges, updated_at }]);
  expect((await usage(key)).calls).toBe(10);
});

test("a key with nothing left to flush has no alarm", async () => {
  const key = await issue();
  await admit(key, 1);
  expect(await runAlarm(key)).toBe(true);
  expect(await alarmIn(key)).toBe(null);
  await usage(key);
  await crash(key);
  await usage(key);
  expect(await runAlarm(key)).toBe(false);
});

test("totals are absolute: each flush replaces the row, in the same epoch", async () => {
  const key = await issue();
  await admit(key, 3);
  await runAlarm(key);
  const { epoch } = await row(key);
  await crash(key);
  await admit(key, 4);
  await runAlarm(key);
  expect(await row(key)).toEqual({ month: MARCH, epoch, calls: 7, denied: 0 });
});

test("denials alone are metered too", async () => {
  const key = await issue();
  await admit(key, 10);
  await runAlarm(key);
  for (let i = 0; i < 3; i += 1) await denied(key);
  wait(60);
  await admit(key, 1);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ [MARCH]: { calls: 11, denied: 3 } });
});

test("unwritten counts are written before they are flushed to D1", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ [MARCH]: { calls: 10, denied: 1 } });
  await crash(key);
  wait(60);
  await admit(key, 1);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ [MARCH]: { calls: 11, denied: 1 } });
});

describe("a flush", () => {
  test("that is repeated changes nothing", async () => {
    const key = await issue();
    await admit(key, 3);
    const before = await inObject(key, "SELECT * FROM state");
    await runAlarm(key);
    const flushed = await sql("SELECT * FROM usage_monthly WHERE key_id = ?", key.id);
    await crash(key);
    // The object before the acknowledgement of its totals.
    await inObject(key, "DELETE FROM state");
    for (const { slot, body, checked_at } of before) {
      await inObject(key, "INSERT INTO state (slot, body, checked_at) VALUES (?, ?, ?)", slot, body, checked_at);
    }
    wait(30);
    await admit(key, 1);
    expect(await runAlarm(key)).toBe(true);
    expect((await row(key)).calls).toBe(4);
    expect(flushed).toHaveLength(1);
  });

  test("that arrives late changes nothing", async () => {
    const key = await issue();
    await admit(key, 3);
    await runAlarm(key);
    await sql("UPDATE usage_monthly SET calls = 9, denied = 9, cost = 9, cost_charged = 9, updated_at = 'later' WHERE key_id = ?", key.id);
    await admit(key, 1);
    await runAlarm(key);
    expect(await sql("SELECT calls, denied, updated_at FROM usage_monthly WHERE key_id = ?", key.id)).toEqual([
      { calls: 9, denied: 9, updated_at: "later" },
    ]);
  });

  test("that D1 committed, but whose acknowledgement was lost, is repeated and counts nothing twice", async () => {
    const key = await issue();
    await admit(key, 3);
    const lose = async (batch) => {
      await batch();
      throw new Error("D1_ERROR: Network connection lost.");
    };
    await withBatch(lose, () => runAlarm(key));
    expect((await row(key)).calls).toBe(3);
    expect(await alarmIn(key)).not.toBe(null);
    await crash(key);
    await admit(key, 2);
    await runAlarm(key);
    expect((await row(key)).calls).toBe(5);
    expect(await alarmIn(key)).toBe(null);
  });

  test("that fails any number of times keeps the alarm set and loses nothing", async () => {
    const key = await issue();
    await admit(key, 3);
    const giveBack = await takeAway("usage_monthly");
    for (let i = 0; i < 8; i += 1) {
      expect(await runAlarm(key)).toBe(true);
      expect(await alarmIn(key)).toBeGreaterThan(0);
    }
    await crash(key);
    await admit(key, 2);
    expect(await alarmIn(key)).toBeGreaterThan(0);
    await giveBack();
    await runAlarm(key);
    expect(await metered(key)).toEqual({ [MARCH]: { calls: 5, denied: 0 } });
    expect(await alarmIn(key)).toBe(null);
  });

  test("has its alarm set again before it works", async () => {
    const key = await issue();
    await admit(key, 1);
    let during;
    const look = async (batch) => {
      during = await alarmIn(key);
      return batch();
    };
    await withBatch(look, () => runAlarm(key));
    expect(during).toBeGreaterThan(0);
    expect(during).toBeLessThanOrEqual(FLUSH_MS);
  });

  test("leaves calls that arrive during it to the next one, and loses none", async () => {
    const key = await issue();
    await admit(key, 3);
    const callMeanwhile = async (batch) => {
      const response = await exports.default.fetch(GATE, { headers: { "X-API-Key": key.key } });
      await response.text();
      const results = await batch();
      await (await exports.default.fetch(GATE, { headers: { "X-API-Key": key.key } })).text();
      return results;
    };
    await withBatch(callMeanwhile, () => runAlarm(key));
    expect((await row(key)).calls).toBe(3);
    expect(await alarmIn(key)).not.toBe(null);
    await runAlarm(key);
    expect((await row(key)).calls).toBe(5);
    expect(await alarmIn(key)).toBe(null);
  });
});

test("a counted key without an alarm gets one with its next request", async () => {
  const key = await issue();
  await admit(key, 2);
  await runInDurableObject(stub(key), (_object, state) => state.storage.deleteAlarm());
  await crash(key);
  await admit(key, 1);
  expect(await alarmIn(key)).toBeGreaterThan(0);
  await runAlarm(key);
  expect((await row(key)).calls).toBe(3);
});

test("the calls of a month are the sum over its epochs, and equal what the object counted", async () => {
  const key = await issue();
  await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?, ?, 'earlier', 70, 5, '')", key.id, MARCH);
  await admit(key, 4);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ [MARCH]: { calls: 74, denied: 5 } });
  expect((await usage(key)).calls).toBe(74);
});

test("the alarm fires at its time", async () => {
  vi.useRealTimers();
  const key = await issue();
  await admit(key, 2);
  await runInDurableObject(stub(key), (_object, state) => state.storage.setAlarm(Date.now() + 1));
  await expect.poll(() => usageRows(key), { timeout: 4000, interval: 20 }).toHaveLength(1);
  expect((await row(key)).calls).toBe(2);
  await expect.poll(() => alarmIn(key), { timeout: 4000, interval: 20 }).toBe(null);
});

test("a flush during one month includes other months that are due", async () => {
  const key = await issue();
  await admit(key, 1);
  setClock("2031-04-02T00:00:00.000Z");
  await admit(key, 2);
  await runAlarm(key);
  setClock("2031-04-03T00:00:00.000Z");
  await admit(key, 3);
  await runAlarm(key);
  expect(await metered(key)).toEqual({ [MARCH]: { calls: 1, denied: 0 }, "2031-04": { calls: 5, denied: 0 } });
});

describe("hours", () => {
  test("are flushed with the months: calls, denied and cost of each class", async () => {
    const key = await issue();
    await sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/dear', 'GET', 4)");
    await admit(key, 2);
    await (await call(key, "/dear")).text();
    setClock("2031-03-12T13:59:59.000Z");
    await admit(key, 10);
    await denied(key);
    await runAlarm(key);
    const rows = await hourRows(key);
    expect([...new Set(rows.map(({ hour }) => hour))]).toEqual(["2031-03-12T12:00:00Z", "2031-03-12T13:00:00Z"]);
    const sum = (field, hour = "") =>
      rows.filter((row) => row.hour.startsWith(hour)).reduce((total, row) => total + row[field], 0);
    expect([sum("calls", "2031-03-12T12"), sum("cost", "2031-03-12T12")]).toEqual([3, 6]);
    expect([sum("calls"), sum("denied"), sum("cost")]).toEqual([13, 1, 16]);
    const [month] = await sql("SELECT calls, denied, cost FROM usage_monthly WHERE key_id = ?", key.id);
    expect(month).toEqual({ calls: 13, denied: 1, cost: 16 });
    await sql("DELETE FROM route_costs");
  });

  test("count every spelling of a path, and HEAD, in the class of its cost", async () => {
    const key = await issue();
    await sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/v1/*/dear', 'GET', 2), ('/**', '*', 1)");
    for (const path of ["/v1/a/dear", "/v1/a/dear;x", "/v1/a/%2564ear"]) await (await call(key, path)).text();
    await call(key, "/v1/a/dear%20", { method: "HEAD" });
    await (await call(key, "/v1/a/dear", { method: "POST" })).text();
    await (await call(key, "/")).text();
    await runAlarm(key);
    const rows = (await hourRows(key)).map(({ class: name, calls, cost }) => [name, calls, cost]);
    expect(rows.sort()).toEqual([["/**", 2, 2], ["GET /v1/*/dear", 4, 8]]);
    await sql("DELETE FROM route_costs");
  });

  test("of a key that could not be flushed for days are all flushed at once", async () => {
    const key = await issue("unlimited");
    for (let hour = 0; hour < 72; hour += 1) {
      setClock(Date.UTC(2031, 2, 29, 12 + hour));
      await admit(key, 1 + (hour % 3));
    }
    await runAlarm(key);
    const rows = await hourRows(key);
    expect(rows).toHaveLength(72);
    expect(rows.map(({ calls }) => calls)).toEqual(Array.from({ length: 72 }, (_, hour) => 1 + (hour % 3)));
    expect(await metered(key)).toEqual({ [MARCH]: { calls: 120, denied: 0 }, "2031-04": { calls: 24, denied: 0 } });
  });

  test("are absolute totals: a flush that is repeated changes nothing, and a late one neither", async () => {
    const key = await issue();
    await admit(key, 2);
    const before = await inObject(key, "SELECT body FROM state");
    await runAlarm(key);
    await admit(key, 1);
    await runAlarm(key);
    await crash(key);
    await inObject(key, "UPDATE state SET body = ?", before[0].body);
    wait(5);
    await usage(key);
    await admit(key, 1);
    await runAlarm(key);
    expect((await hourRows(key)).map(({ calls }) => calls)).toEqual([3]);
  });

  test("and months are written together or not at all", async () => {
    const key = await issue();
    await admit(key, 2);
    const giveBack = await takeAway("usage_hourly");
    await runAlarm(key);
    expect(await usageRows(key)).toEqual([]);
    await giveBack();
    await runAlarm(key);
    expect((await row(key)).calls).toBe(2);
    expect(await hourRows(key)).toHaveLength(1);
  });
});

test("a flush writes one row for the month and one for each class and hour, twice the first time of a month", async () => {
  const key = await issue("unlimited");
  const costs = [];
  const flush = async () => {
    let written = 0;
    const count = async (batch) => {
      const results = await batch();
      for (const { meta } of results) written += meta.rows_written;
      return results;
    };
    await withBatch(count, () => runAlarm(key));
    costs.push(written);
  };
  await admit(key, 1);
  await flush();
  await admit(key, 500);
  await flush();
  setClock("2031-03-12T13:00:00.000Z");
  await admit(key, 1);
  await flush();
  expect(costs).toEqual([3, 2, 2]);
});

test("with nothing left to flush the alarm is set for the end of the day in which the audit log expires, and deletes it", async () => {
  const tier = await makeTier({ quota: 5, period: "minute" });
  await sql("UPDATE tiers SET audit_days = 7 WHERE name = ?", tier);
  const key = await issue(tier);
  await admit(key, 1);
  await runAlarm(key);
  const until = Date.parse("2031-03-20T00:00:00Z") - Date.now();
  expect(await alarmIn(key)).toBe(until);
  wait(until / 1000);
  expect(await runAlarm(key)).toBe(true);
  expect(await alarmIn(key)).toBe(null);
  const { entries } = await (await admin("GET", `/keys/${key.id}/audit`)).json();
  expect(entries).toEqual([]);
});
