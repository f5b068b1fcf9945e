// timers.test.mjs with the deny cache, which is the default.
import { expect, test } from "vitest";
import { metered, sql } from "./lib/database.mjs";
import { admit, denied, issue, statuses } from "./lib/gate.mjs";
import { runAlarm } from "./lib/object.mjs";
import { takeTimeOver } from "./lib/timers.mjs";

const HOUR = 3_600;

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
  expect(seen.rows - seen.alarms).toBeLessThanOrEqual(calls);
  expect(seen.alarmsSet).toBeLessThanOrEqual(2 * seen.alarms + 1);
  await pass(75);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 3, denied: calls } });
}, 120_000);

test("a flood of a minute writes about a row every five seconds, and none of its denials is lost when it ends", async () => {
  const key = await usedUp();
  const { seen, pass } = await takeTimeOver(key);
  for (let i = 0; i < 60; i += 1) {
    expect(await statuses(key, 20)).toEqual(Array(20).fill(429));
    await pass(1);
  }
  await pass(90);
  expect(seen.awake).toBe(0);
  expect(seen.rows - seen.alarms).toBeLessThanOrEqual(3 + 60 / 5 + 1);
  expect(seen.hibernations).toBeGreaterThanOrEqual(1);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 3, denied: 1200 } });
});
