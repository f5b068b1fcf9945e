// A long random sequence of calls of two keys: all accounts by hour, day, month, class and call
// match what the origin received.
import { expect, test } from "vitest";
import { makeTier, sql, takeAway } from "./lib/database.mjs";
import { admin, call, issue, received, setClock } from "./lib/gate.mjs";
import { crash, evict, runAlarm } from "./lib/object.mjs";

const STEPS = 700;
const SEEDS = [1, 20_261_120];

/** mulberry32: small, seeded, good enough to pick steps. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const hourOf = (time) => `${new Date(time).toISOString().slice(0, 13)}:00:00Z`;
const add = (counts, name, more = 1) => counts.set(name, (counts.get(name) ?? 0) + more);
const sorted = (counts) => [...counts].filter(([, count]) => count > 0).sort(([a], [b]) => (a < b ? -1 : 1));

async function logged(key) {
  const entries = [];
  for (let cursor = ""; cursor !== null; ) {
    const page = await (await admin("GET", `/keys/${key.id}/audit?limit=500${cursor && `&cursor=${cursor}`}`)).json();
    entries.push(...page.entries);
    cursor = page.next_cursor;
  }
  return entries;
}

test.each(SEEDS)("all accounts agree with the origin (seed %i)", { timeout: 240_000 }, async (seed) => {
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  let now = Date.parse("2031-01-30T22:00:00Z");
  setClock(now);
  const tier = await makeTier({ quota: 30, period: "minute" }, { quota: 600, period: "month" });
  await sql("UPDATE tiers SET audit_days = 365 WHERE name = ?", tier);
  await sql("INSERT OR REPLACE INTO route_costs (pattern, method, cost) VALUES ('/v1/export', 'POST', 3)");
  const keys = [await issue(tier), await issue(tier)];
  const sent = new Map(keys.map(({ id }) => [id, { hours: new Map(), refused: 0, replays: 0 }]));
  let giveBack;

  const classOf = (method, path) => (method === "POST" && path === "/v1/export" ? "POST /v1/export" : `${method} /${path.split("/")[1]}`);
  async function one(key) {
    const method = pick(["GET", "GET", "POST"]);
    const path = pick(["/v1/users", "/v1/export", "/v2/users/7", "/"]);
    // Mostly a key of this request alone. With GET it has no effect.
    const order = `order-${Math.floor(next() * 3)}`;
    const headers = next() < 0.4 ? { "Idempotency-Key": next() < 0.7 ? `${order} of ${path}` : order } : {};
    await send(key, method, path, headers);
  }

  async function send(key, method, path, headers) {
    const response = await call(key, path, { method, headers, ...(method === "POST" ? { body: "x" } : {}) });
    const account = sent.get(key.id);
    if (response.status === 200) {
      add(account.hours, `${hourOf(now)} ${classOf(method, path)}`);
      account.replays += response.headers.has("x-tollgate-idempotent-replay") ? 1 : 0;
    } else {
      // 422: the key of a different request.
      expect([409, 422, 429]).toContain(response.status);
      account.refused += 1;
    }
    await response.arrayBuffer();
  }

  // Whether the walk below reaches a 422 of each key depends on how requests overlap.
  for (const key of keys) {
    for (const path of ["/v1/users", "/"]) await send(key, "POST", path, { "Idempotency-Key": "of two paths" });
  }
  for (let step = 0; step < STEPS; step += 1) {
    const key = pick(keys);
    const dice = next();
    if (dice < 0.6) await one(key);
    else if (dice < 0.68) await Promise.all(Array.from({ length: 12 }, () => one(key)));
    // An object that has not started or is idle cannot be evicted.
    else if (dice < 0.72) await evict(key).catch(() => {});
    else if (dice < 0.75) await crash(key);
    else if (dice < 0.83) await runAlarm(key);
    else if (dice < 0.85) {
      if (giveBack) await giveBack();
      giveBack = giveBack ? undefined : await takeAway("usage_monthly", "usage_hourly");
    } else setClock((now += Math.floor(next() ** 6 * 40_000_000)));
  }
  await giveBack?.();
  for (const key of keys) {
    for (let i = 0; i < 5; i += 1) await runAlarm(key);
  }

  const origin = await received();
  for (const key of keys) {
    const { hours, refused, replays } = sent.get(key.id);
    const calls = [...hours.values()].reduce((sum, count) => sum + count, 0);
    expect(origin.filter(({ headers }) => headers["x-tollgate-key-id"] === key.id)).toHaveLength(calls);
    expect(calls).toBeGreaterThan(STEPS / 4);
    expect(refused).toBeGreaterThan(0);
    expect(replays).toBeGreaterThan(0);

    const hourly = await sql("SELECT hour, class, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost, SUM(cost_charged) AS cost_charged FROM usage_hourly WHERE key_id = ? GROUP BY hour, class", key.id);
    expect(sorted(new Map(hourly.map((row) => [`${row.hour} ${row.class}`, row.calls])))).toEqual(sorted(hours));

    const monthly = await sql("SELECT month, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost, SUM(cost_charged) AS cost_charged FROM usage_monthly WHERE key_id = ? GROUP BY month", key.id);
    expect(monthly.length).toBeGreaterThan(1);
    for (const field of ["calls", "denied", "cost", "cost_charged"]) {
      const months = new Map();
      for (const row of hourly) add(months, row.hour.slice(0, 7), row[field]);
      expect(sorted(new Map(monthly.map((row) => [row.month, row[field]])))).toEqual(sorted(months));
    }

    const entries = await logged(key);
    const log = new Map();
    for (const { at, class: name, status } of entries) if (status === 200) add(log, `${hourOf(at)} ${name}`);
    expect(sorted(log)).toEqual(sorted(hours));
    const count = (...statuses) => entries.filter(({ status }) => statuses.includes(status)).reduce((sum, entry) => sum + entry.count, 0);
    expect(count(429)).toBe(monthly.reduce((sum, { denied }) => sum + denied, 0));
    expect(count(409, 422, 429)).toBeLessThanOrEqual(refused);
    expect(count(422)).toBeGreaterThan(0);
    expect(entries.filter(({ replay }) => replay)).toHaveLength(replays);
    // Free or not: the entry has the charged cost.
    expect(entries.filter(({ status }) => status === 200).reduce((sum, { cost }) => sum + cost, 0))
      .toBe(monthly.reduce((sum, { cost }) => sum + cost, 0));
    const reconciled = await (await admin("GET", `/keys/${key.id}/reconcile`)).json();
    expect(reconciled.state).toBe("exact");
  }
});
