// Outages of D1, failed writes and lost storage, with FAIL_MODE=closed.
import { describe, expect, test } from "vitest";
import { makeTier, metered, sql, takeAway, usageRows } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, rateLimit, received, setClock, statuses, usage, used, wait } from "./lib/gate.mjs";
import { importKey, madeUp } from "./lib/imports.mjs";
import { forge } from "./lib/keys.mjs";
import { breakWrites, crash, evict, loseStorage, objectText, runAlarm } from "./lib/object.mjs";

test("the first use of a key while D1 is down is 503 with Retry-After, and nothing reaches the origin", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  const response = await call(key);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  await problem(response, 503);
  expect(await received()).toEqual([]);
  await giveBack();
  wait(5);
  await admit(key, 1);
  expect((await usage(key)).calls).toBe(1);
});

test("a key that was never issued is 503 too while D1 is down, and 401 again afterwards", async () => {
  const presented = await forge();
  const giveBack = await takeAway("keys");
  await problem(await call(presented), 503);
  await giveBack();
  wait(5);
  await problem(await call(presented), 401);
});

test("an object with a profile judges while D1 is down, for any time and after a crash too", async () => {
  const key = await issue();
  await admit(key, 2);
  const giveBack = await takeAway("keys", "tier_limits", "usage_monthly");
  try {
    wait(60);
    expect(await statuses(key, 11)).toEqual([...Array(10).fill(200), 429]);
    await crash(key);
    await denied(key);
    setClock("2031-03-13T00:00:00.000Z");
    await admit(key, 10);
  } finally {
    await giveBack();
  }
  expect(await used(key)).toEqual({ minute: 10, month: 22 });
});

test("after an outage of D1 a change made by hand takes effect within 60 seconds", async () => {
  const key = await issue();
  await admit(key, 1);
  const giveBack = await takeAway("keys");
  wait(60);
  await admit(key, 1);
  await giveBack();
  await sql("UPDATE keys SET status = 'disabled' WHERE id = ?", key.id);
  wait(60);
  await problem(await call(key), 403);
});

describe("a write that fails", () => {
  test("is 503 with Retry-After, never forwarded, and counts nothing", async () => {
    const key = await issue();
    await admit(key, 2);
    const repair = await breakWrites(key);
    for (let i = 0; i < 3; i += 1) {
      const response = await call(key, "/lost");
      expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
      await problem(response, 503);
    }
    await repair();
    expect((await received()).map(({ path }) => path)).toEqual(["/", "/"]);
    expect((await usage(key)).calls).toBe(2);
    expect(await statuses(key, 9)).toEqual([...Array(8).fill(200), 429]);
    await runAlarm(key);
    expect(await metered(key)).toMatchObject({ "2031-03": { calls: 10 } });
  });

  test("fails all the calls that shared it, and none of them is counted", async () => {
    const key = await issue();
    await admit(key, 1);
    const repair = await breakWrites(key);
    const all = await Promise.all(Array.from({ length: 5 }, () => call(key)));
    expect(all.map(({ status }) => status)).toEqual(Array(5).fill(503));
    await repair();
    expect((await usage(key)).calls).toBe(1);
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 1, denied: 0 } });
  });

  test("of counts does not prevent denials", async () => {
    const key = await issue();
    await admit(key, 10);
    const repair = await breakWrites(key);
    await denied(key);
    await repair();
  });
});

describe("an object whose storage was lost", () => {
  test("continues the month from the totals in D1, in a new epoch", async () => {
    const key = await issue();
    await admit(key, 6);
    await runAlarm(key);
    await loseStorage(key);
    expect(rateLimit(await call(key))).toMatchObject({ month: { r: 993 } });
    await admit(key, 1);
    await runAlarm(key);
    const rows = await usageRows(key);
    expect(rows.map(({ calls }) => calls).sort()).toEqual([2, 6]);
    expect(new Set(rows.map(({ epoch }) => epoch)).size).toBe(2);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 8, denied: 0 } });
    expect(await usage(key)).toMatchObject({ month: "2031-03", calls: 8 });
    await crash(key);
    expect(await used(key)).toMatchObject({ month: 8 });
  });

  test("continues from the cost of its calls, not from their number", async () => {
    const tier = await makeTier({ quota: 100, period: "month" });
    await sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/dear', 'GET', 10)");
    const key = await issue(tier);
    for (let i = 0; i < 9; i += 1) expect((await call(key, "/dear")).status).toBe(200);
    await runAlarm(key);
    await loseStorage(key);
    expect(await used(key)).toEqual({ month: 90 });
    expect((await usage(key)).calls).toBe(9);
    expect((await call(key, "/dear")).status).toBe(200);
    await problem(await call(key, "/dear"), 429);
    await crash(key);
    expect(await used(key)).toEqual({ month: 100 });
    expect((await usage(key)).calls).toBe(10);
    await runAlarm(key);
    await loseStorage(key);
    await problem(await call(key, "/"), 429);
    await sql("DELETE FROM route_costs");
  });

  test("does not charge free repeats by an idempotency key", async () => {
    const key = await issue(await makeTier({ quota: 10, period: "month" }));
    const repeat = () => call(key, "/", { method: "POST", headers: { "Idempotency-Key": "order-7" } });
    for (let i = 0; i < 5; i += 1) expect((await repeat()).status).toBe(200);
    await runAlarm(key);
    await loseStorage(key);
    expect(await used(key)).toEqual({ month: 1 });
    expect((await usage(key)).calls).toBe(5);
    await admit(key, 9);
    await problem(await call(key), 429);
  });

  test("includes tokens, and a cost of 0; a row of a version without costs counts 1 per call", async () => {
    const key = await issue(await makeTier({ quota: 1000, period: "month" }, { policy: "tokens", quota: 1000, period: "month" }));
    await sql("UPDATE tier_limits SET unit = 'tokens' WHERE policy = 'tokens'");
    const row = (epoch, calls, cost, tokens) =>
      sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, cost, tokens, updated_at) VALUES (?, '2031-03', ?, ?, 0, ?, ?, '')", key.id, epoch, calls, cost, tokens);
    await row("old", 30, 0, 0);
    await row("new", 40, 200, 9);
    await row("repeats", 50, 0, 0);
    const hour = "INSERT INTO usage_hourly (key_id, hour, class, epoch, calls, denied, cost, updated_at) VALUES (?, ?, 'GET /', ?, 50, 0, 0, '')";
    await sql(hour, key.id, "2031-03-31T23:00:00Z", "repeats");
    await sql(hour, key.id, "2031-02-28T23:00:00Z", "old");
    expect(await used(key)).toEqual({ month: 230, tokens: 9 });
    expect((await usage(key)).calls).toBe(120);
    await admit(key, 1);
    await crash(key);
    expect(await used(key)).toEqual({ month: 231, tokens: 9 });
    expect((await usage(key)).calls).toBe(121);
  });

  test("denies when the month in D1 is exhausted", async () => {
    const key = await issue();
    await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?, '2031-03', 'earlier', 600, 0, ''), (?, '2031-03', 'early', 398, 0, '')", key.id, key.id);
    await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?, '2031-02', 'earlier', 900, 0, '')", key.id);
    expect(await statuses(key, 3)).toEqual([200, 200, 429]);
    expect((await problem(await call(key), 429))["violated-policies"]).toEqual(["month"]);
    setClock("2031-04-01T00:00:00.000Z");
    expect(rateLimit(await call(key))).toMatchObject({ month: { r: 999 } });
  });

  test("adds the totals in D1 once, with any number of look-ups before the first call", async () => {
    const key = await issue();
    await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?, '2031-03', 'earlier', 400, 0, '')", key.id);
    for (let i = 0; i < 3; i += 1) {
      expect(await used(key)).toMatchObject({ month: 400 });
      wait(61);
    }
    expect(rateLimit(await call(key))).toMatchObject({ month: { r: 599 } });
  });

  test("adds the totals in D1 once, with any number of refusals before the first call", async () => {
    const key = await issue();
    await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?, '2031-03', 'earlier', 1000, 0, '')", key.id);
    for (let i = 0; i < 3; i += 1) {
      await denied(key);
      wait(61);
    }
    expect(await used(key)).toMatchObject({ month: 1000 });
  });
});

test("a key that is deleted and imported again keeps the usage of its month", async () => {
  await sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/dearer', 'GET', 10)");
  const line = { key: madeUp(), tier: await makeTier({ quota: 100, period: "month" }) };
  const key = await importKey(line);
  for (let i = 0; i < 9; i += 1) expect((await call(key, "/dearer")).status).toBe(200);
  await runAlarm(key);
  expect((await admin("DELETE", `/keys/${key.id}`)).status).toBe(204);
  expect(await objectText(key)).toBe("");
  wait(61);
  expect((await importKey(line)).id).toBe(key.id);
  expect(await used(key)).toEqual({ month: 90 });
  expect((await call(key, "/dearer")).status).toBe(200);
  await problem(await call(key, "/dearer"), 429);
  await sql("DELETE FROM route_costs");
});

test("finished work keeps no idle object in memory", async () => {
  const key = await issue();
  await admit(key, 1);
  await runAlarm(key);
  const late = new Promise((resolve) => setTimeout(resolve, 2000, "still in memory"));
  expect(await Promise.race([evict(key).then(() => "evicted"), late])).toBe("evicted");
});

test("look-ups of a key leave no stored data and no alarm", async () => {
  const key = await issue();
  await usage(key);
  expect(await objectText(key)).toBe("");
  expect(await runAlarm(key)).toBe(false);
});
