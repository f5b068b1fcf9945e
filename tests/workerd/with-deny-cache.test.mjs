// DENY_CACHE_SECONDS at its default of 10: an isolate may deny by itself, and what it says is as true as what the object says.
import { expect, test } from "vitest";
import { metered, setKey } from "./lib/database.mjs";
import { admit, call, denied, issue, problem, received, statuses, usage, wait } from "./lib/gate.mjs";
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
