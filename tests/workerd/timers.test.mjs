// Time that an object is kept awake, and rows that denials write. A pending timer of an object is
// billed as duration.
import { expect, test } from "vitest";
import { metered, sql } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, setClock, statuses } from "./lib/gate.mjs";
import { runAlarm } from "./lib/object.mjs";
import { takeTimeOver } from "./lib/timers.mjs";

const HOUR = 3_600;

/** A key with an exhausted month whose totals are flushed. */
async function usedUp() {
  await sql("INSERT OR IGNORE INTO tiers (name) VALUES ('used-up')");
  await sql("INSERT OR IGNORE INTO tier_limits (tier, policy, quota, period, algorithm) VALUES ('used-up', 'month', 3, 'month', 'fixed')");
  const key = await issue("used-up");
  await admit(key, 3);
  // Two alerts are delivered, and D1 has the three calls.
  await runAlarm(key);
  await runAlarm(key);
  return key;
}

test("an exhausted key that is called every five seconds for an hour keeps its object awake for none of it, with at most a row every five seconds", async () => {
  const key = await usedUp();
  const { seen, pass } = await takeTimeOver(key);
  const calls = HOUR / 5;
  for (let i = 0; i < calls; i += 1) {
    await denied(key);
    await pass(5);
  }
  expect(seen.awake).toBeLessThan(0.02 * HOUR * 1000);
  // One row per denial; a flush marks its totals in a row of its own and sets the next alarm before
  // it works.
  expect(seen.rows - seen.alarms).toBeLessThanOrEqual(calls);
  expect(seen.alarms).toBeLessThanOrEqual(HOUR / 30);
  expect(seen.alarmsSet).toBeLessThanOrEqual(2 * seen.alarms + 1);
  expect(seen.hibernations).toBe(0);
  await pass(60);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 3, denied: calls } });
}, 120_000);

test("denials are not lost when no call follows and the object hibernates", async () => {
  const key = await usedUp();
  const { seen, pass } = await takeTimeOver(key);
  expect(await statuses(key, 7)).toEqual(Array(7).fill(429));
  await pass(15);
  expect(seen).toMatchObject({ awake: 0, rows: 4, alarms: 1, alarmsSet: 3 });
  await pass(60);
  expect(seen.hibernations).toBeGreaterThanOrEqual(1);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 3, denied: 7 } });
});

test("denials at odd times are all counted, between admitted calls too", async () => {
  const key = await issue();
  const { seen, pass } = await takeTimeOver(key);
  let [admitted, refused, state] = [0, 0, 1];
  for (let i = 0; i < 150; i += 1) {
    state = (state * 48271) % 0x7fffffff;
    for (let burst = state % 4; burst >= 0; burst -= 1) {
      const { status } = await call(key);
      if (status === 200) admitted += 1;
      else refused += 1;
    }
    await pass((state >> 8) % (i % 10 === 0 ? 40 : 9));
  }
  await pass(75);
  expect(refused).toBeGreaterThan(50);
  expect(seen).toMatchObject({ awake: 0 });
  expect(await metered(key)).toEqual({ "2031-03": { calls: admitted, denied: refused } });
}, 120_000);

test("refusals in the audit log are written without a timer too", async () => {
  const key = await usedUp();
  await sql("UPDATE tiers SET audit_days = 7 WHERE name = 'used-up'");
  await sql("UPDATE keys SET status = 'disabled' WHERE id = ?", key.id);
  setClock(Date.now() + 60_000);
  const { seen, pass } = await takeTimeOver(key);
  for (let i = 0; i < 5; i += 1) expect((await call(key)).status).toBe(403);
  await pass(120);
  expect(seen.awake).toBe(0);
  expect(seen.hibernations).toBeGreaterThanOrEqual(1);
  const { entries } = await (await admin("GET", `/keys/${key.id}/audit`)).json();
  expect(entries.filter(({ status }) => status === 403).reduce((sum, { count }) => sum + count, 0)).toBe(5);
});
