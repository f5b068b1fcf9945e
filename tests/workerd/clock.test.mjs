// Clocks that step back, and clocks that were far ahead.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { makeTier, metered, setKey, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, setClock, statuses, usage, wait } from "./lib/gate.mjs";
import { alarmIn, crash, runAlarm } from "./lib/object.mjs";

test("a clock that steps back opens no window again", async () => {
  setClock("2031-03-12T12:00:05.000Z");
  const key = await issue();
  await admit(key, 10);
  for (const time of ["2031-03-12T12:00:00.000Z", "2031-03-12T11:59:50.000Z", "2031-03-12T11:56:00.000Z"]) {
    setClock(time);
    const seconds = await denied(key);
    expect(Date.now() + seconds * 1000).toBe(Date.UTC(2031, 2, 12, 12, 1));
  }
  setClock("2031-03-12T12:01:00.000Z");
  await admit(key, 10);
});

test("a clock that steps back opens no window again after a crash", async () => {
  setClock("2031-03-12T12:00:05.000Z");
  const key = await issue();
  await admit(key, 10);
  await crash(key);
  setClock("2031-03-12T11:59:50.000Z");
  expect(await denied(key)).toBe(70);
});

test("a client that waits for Retry-After on a clock that stepped back is admitted, and one second earlier it is not", async () => {
  const key = await issue(await makeTier({ quota: 2, period: "minute", algorithm: "sliding" }));
  await admit(key, 2);
  wait(-45);
  const seconds = await denied(key);
  wait(seconds - 1);
  await denied(key);
  wait(1);
  await admit(key, 1);
});

test("a clock that steps back over the end of a month counts nothing for the ended month", async () => {
  setClock("2031-02-01T00:00:02.000Z");
  const key = await issue();
  await admit(key, 1);
  setClock("2031-01-31T23:59:58.000Z");
  await admit(key, 1);
  setClock("2031-02-01T00:01:00.000Z");
  await runAlarm(key);
  expect(await metered(key)).toEqual({ "2031-02": { calls: 2, denied: 0 } });
});

test("a clock that was far ahead denies a key for minutes at most", async () => {
  const key = await issue();
  setClock("2033-01-01T00:00:30.000Z");
  await statuses(key, 11);
  setClock("2031-03-12T12:00:00.000Z");
  const response = await call(key);
  expect([200, 429]).toContain(response.status);
  await statuses(key, 10);
  const seconds = await denied(key);
  expect(seconds).toBeLessThanOrEqual(6 * 60);
  wait(seconds);
  await admit(key, 10);
});

test("after the clock was far ahead, usage of the current month is complete", async () => {
  const key = await issue("unlimited");
  await admit(key, 3);
  setClock("2031-08-01T00:00:00.000Z");
  await admit(key, 1);
  setClock("2031-03-12T12:10:00.000Z");
  await admit(key, 2);
  expect(await usage(key)).toMatchObject({ month: "2031-03", calls: 5 });
  await runAlarm(key);
  expect(await metered(key)).toEqual({ "2031-03": { calls: 5, denied: 0 }, "2031-08": { calls: 1, denied: 0 } });
});

/** A change in D1 takes effect 60 seconds later at the latest. */
async function disableByHandAndWait(key) {
  await setKey(key, "status", "disabled");
  wait(60);
  expect((await call(key)).status).toBe(403);
}

test("after the clock was far ahead, a change made by hand still takes effect within 60 seconds", async () => {
  const key = await issue();
  setClock("2031-03-12T18:00:00.000Z");
  await admit(key, 1);
  setClock("2031-03-12T12:00:00.000Z");
  await admit(key, 1);
  await disableByHandAndWait(key);
});

test("after the clock was far ahead during an outage of D1, a change made by hand still takes effect within 60 seconds", async () => {
  const key = await issue();
  await admit(key, 1);
  setClock("2031-03-12T18:00:00.000Z");
  const giveBack = await takeAway("keys");
  await admit(key, 1);
  await giveBack();
  setClock("2031-03-12T12:00:00.000Z");
  await admit(key, 1);
  await disableByHandAndWait(key);
});

test("after the clock was far ahead, calls are flushed within FLUSH_SECONDS again", async () => {
  const key = await issue();
  setClock("2031-03-12T18:00:00.000Z");
  await admit(key, 1);
  setClock("2031-03-12T12:00:00.000Z");
  await admit(key, 1);
  expect(await alarmIn(key)).toBeLessThanOrEqual(Number(env.FLUSH_SECONDS) * 1000);
});

test("a clock that was an hour ahead and is back opens no window again", async () => {
  const key = await issue(await makeTier({ quota: 5, period: "minute" }));
  setClock("2031-03-12T12:00:10.000Z");
  await admit(key, 5);
  setClock("2031-03-12T13:00:50.000Z");
  await admit(key, 2);
  setClock("2031-03-12T13:01:10.000Z");
  await admit(key, 1);
  await crash(key);
  setClock("2031-03-12T12:00:40.000Z");
  expect(await denied(key)).toBe(20);
  expect(await statuses(key, 2)).toEqual([429, 429]);
  setClock("2031-03-12T12:01:00.000Z");
  expect(await statuses(key, 6)).toEqual([...Array(5).fill(200), 429]);
});

test.each([
  ["a sliding minute", "sliding", 60],
  ["a bucket", "bucket", 12],
])("a clock that was an hour ahead and is back frees nothing again of %s", async (_what, algorithm, seconds) => {
  const key = await issue(await makeTier({ quota: 5, period: "minute", algorithm }));
  setClock("2031-03-12T13:00:00.000Z");
  await admit(key, 5);
  setClock("2031-03-12T12:00:00.000Z");
  expect(await denied(key)).toBe(seconds);
  wait(seconds);
  await admit(key, 1);
});

test("a clock that was two months ahead and is back opens no month again, and D1 has all new calls", async () => {
  const key = await issue(await makeTier({ quota: 3, period: "month" }));
  await admit(key, 3);
  await runAlarm(key);
  setClock("2031-05-12T12:00:00.000Z");
  await admit(key, 2);
  await runAlarm(key);
  await crash(key);
  setClock("2031-03-12T12:00:10.000Z");
  expect(await denied(key)).toBe((Date.UTC(2031, 3, 1) - Date.now()) / 1000);
  expect(await usage(key)).toMatchObject({ month: "2031-03", calls: 3, policies: [{ used: 3, remaining: 0 }] });
  await admin("PUT", `/keys/${key.id}/overrides/month`, { quota: 5, period: "month" });
  expect(await statuses(key, 3)).toEqual([200, 200, 429]);
  await runAlarm(key);
  expect(await metered(key)).toMatchObject({ "2031-03": { calls: 5 }, "2031-05": { calls: 2 } });
  const hours = await sql("SELECT SUM(calls) AS calls, SUM(denied) AS denied FROM usage_hourly WHERE key_id = ?", key.id);
  expect(hours).toEqual([{ calls: 7, denied: (await metered(key))["2031-03"].denied }]);
  // Calls counted ahead still count when their time comes.
  setClock("2031-05-12T12:00:00.000Z");
  expect(await statuses(key, 4)).toEqual([200, 200, 200, 429]);
  await runAlarm(key);
  expect(await metered(key)).toMatchObject({ "2031-05": { calls: 5 } });
});

describe("calls that were counted while the clock was ahead", () => {
  const flush = Number(env.FLUSH_SECONDS) * 1000;

  test("have their alarm set by the time before", async () => {
    const key = await issue();
    await admit(key, 1);
    await runAlarm(key);
    setClock("2031-05-12T12:00:00.000Z");
    await admit(key, 2);
    setClock("2031-03-12T12:00:00.000Z");
    expect(await alarmIn(key)).toBeLessThanOrEqual(flush);
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 1, denied: 0 }, "2031-05": { calls: 2, denied: 0 } });
  });

  test("are flushed within FLUSH_SECONDS after any read of the key", async () => {
    const key = await issue();
    setClock("2031-05-12T12:00:00.000Z");
    await admit(key, 1);
    await crash(key);
    setClock("2031-03-12T12:00:00.000Z");
    await usage(key);
    expect(await alarmIn(key)).toBeLessThanOrEqual(flush);
  });

  test("cost an idle key at most an immediate alarm", async () => {
    const key = await issue();
    await admit(key, 1);
    await runAlarm(key);
    wait(86_400);
    await admit(key, 1);
    expect(await alarmIn(key)).toBeLessThanOrEqual(0);
    await runAlarm(key);
    expect(await metered(key)).toEqual({ "2031-03": { calls: 2, denied: 0 } });
    await admit(key, 1);
    expect(await alarmIn(key)).toBeGreaterThanOrEqual(flush / 2);
  });
});
