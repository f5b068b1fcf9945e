// The cron trigger.
import { createExecutionContext, createScheduledController } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import worker from "../../build/index.js";
import { sql, takeAway } from "./lib/database.mjs";
import { admin, admit, issue } from "./lib/gate.mjs";
import { runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

/** Runs the trigger; fails if the run does. */
const run = () => worker.scheduled(createScheduledController(), env, createExecutionContext());

test("finds keys with different totals in D1, logs each once, and lists them", async () => {
  const keys = [];
  for (let n = 0; n < 3; n += 1) {
    const key = await issue();
    await admit(key, 2);
    await runAlarm(key);
    keys.push(key);
  }
  await sql("UPDATE usage_monthly SET calls = 1 WHERE key_id = ?", keys[1].id);
  await run();
  const lines = logged.filter((line) => line.includes("does not have"));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain(keys[1].id);
  const { drift } = await (await admin("GET", "/drift")).json();
  expect(drift).toHaveLength(1);
  expect(drift[0]).toMatchObject({ key_id: keys[1].id, found_at: "2031-03-12T12:00:00Z", detail: { state: "drift" } });
  await sql("DELETE FROM keys");
});

test("deletes all hours older than 100 days, and no others", async () => {
  const insert = "INSERT INTO usage_hourly (key_id, hour, class, epoch, updated_at) SELECT 'k' || (value % 7), ?, value, 'e', '' FROM json_each(?)";
  const many = JSON.stringify(Array.from({ length: 4500 }, (_, n) => n));
  await sql(insert, "2030-12-01T00:00:00Z", many);
  await sql(insert, "2030-12-02T11:00:00Z", "[1, 2]");
  await sql(insert, "2030-12-02T12:00:00Z", "[1, 2, 3]");
  await sql("INSERT INTO drift (key_id, found_at, detail) VALUES ('k', '2030-12-01T00:00:00Z', '{}')");
  await run();
  const left = await sql("SELECT hour, COUNT(*) AS count FROM usage_hourly WHERE length(key_id) = 2 GROUP BY hour");
  expect(left).toEqual([{ hour: "2030-12-02T12:00:00Z", count: 3 }]);
  expect(await sql("SELECT * FROM drift WHERE key_id = 'k'")).toEqual([]);
});

test("a run that cannot do its work fails with the reason", async () => {
  const giveBack = await takeAway("keys");
  await expect(run()).rejects.toThrow("no such table");
  await giveBack();
  expect(logged.join("\n")).toContain("no such table");
});
