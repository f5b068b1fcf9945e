// Tokens in D1 and in what people read: flushes in any order and of two versions, and every report.
import { env } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { sql, statementsOf } from "./lib/database.mjs";
import { admin, admit, api, call, issue, setClock, usage, wait } from "./lib/gate.mjs";
import { crash, evict, inObject, loseStorage, runAlarm } from "./lib/object.mjs";

const MARCH = "2031-03";
const HOUR = "2031-03-12T12:00:00Z";

// Without an audit log, whose expiry would set the alarm.
beforeAll(() => sql("UPDATE tiers SET audit_days = 0"));

async function read(path, headers) {
  const response = await admin("GET", path, undefined, headers);
  expect(response.status).toBe(200);
  return response.json();
}

/** A reservation that must be made. */
const reserve = (key, body) => api.json("POST", `/keys/${key.id}/reservations`, body, 201);
const settle = (key, { id }, body) => api.json("POST", `/keys/${key.id}/reservations/${id}/settle`, body);

async function meUsage(key) {
  const response = await call(key, "/_tollgate/me/usage");
  expect(response.status).toBe(200);
  return response.json();
}

/**
 * Gives the object a row that holds tokens in the current month and hour: `charged`, of which
 * `returned` were given back, `overdraft`.
 */
async function count(key, { charged, returned = 0, overdraft = 0 }) {
  const [{ slot, body }] = await inObject(key, "SELECT slot, body FROM state");
  const { m, h, ...row } = JSON.parse(body);
  const [[month, calls, denied, carried, requests, , flushedCalls, flushedDenied]] = m;
  const hour = Date.parse(HOUR) / 3_600_000;
  const hours = h.split(";").filter((record) => record !== "" && !record.includes("|reservations|"));
  hours.push([hour, "reservations", 0, 0, 0, 0, 0, 0, charged, 0, returned, 0, 0, 0].join("|"));
  const r = `${[month, 0, returned, overdraft, flushedCalls, 0, 0, 0, 0].join("|")};`;
  const changed = { ...row, m: [[month, calls, denied, carried, requests, charged, flushedCalls, flushedDenied]], h: `${hours.join(";")};`, r };
  await inObject(key, "UPDATE state SET body = ? WHERE slot = ?", JSON.stringify(changed), slot);
  await crash(key);
}

/** mulberry32: small, seeded, good enough to shuffle. */
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

describe("in D1", () => {
  // The statements of versions without the columns `*_charged`.
  const EARLIER = [
    `INSERT INTO usage_monthly (key_id, epoch, updated_at, month, calls, denied, cost, tokens)
       SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4) WHERE 1
     ON CONFLICT (key_id, month, epoch) DO UPDATE
       SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), cost = MAX(cost, excluded.cost),
         tokens = MAX(tokens, excluded.tokens), updated_at = excluded.updated_at
       WHERE excluded.calls > calls OR excluded.denied > denied OR excluded.cost > cost OR excluded.tokens > tokens`,
    `INSERT INTO usage_hourly (key_id, epoch, updated_at, hour, class, calls, denied, cost)
       SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4) WHERE 1
     ON CONFLICT (key_id, hour, class, epoch) DO UPDATE
       SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), cost = MAX(cost, excluded.cost),
         updated_at = excluded.updated_at
       WHERE excluded.calls > calls OR excluded.denied > denied OR excluded.cost > cost`,
  ];

  let statements;
  beforeAll(async () => {
    const key = await issue();
    await admit(key, 1);
    const seen = await statementsOf(() => runAlarm(key));
    statements = seen.map(({ sql }) => sql).filter((sql) => sql.includes("INSERT INTO usage_"));
    expect(statements).toHaveLength(2);
  });

  /** Absolute totals as an object has them, one after the other: counts that only grow. */
  function history(next, length) {
    const few = (most) => Math.floor(next() * (most + 1));
    const totals = { calls: 0, denied: 0, cost: 0, back: 0, tokens: 0, tokensBack: 0, overdraft: 0 };
    return Array.from({ length }, () => {
      totals.calls += few(3);
      totals.denied += few(1);
      totals.cost += few(9);
      totals.back += few(totals.cost - totals.back) * few(1);
      totals.tokens += few(900);
      totals.tokensBack += few(totals.tokens - totals.tokensBack) * few(1);
      totals.overdraft += few(20) * few(1);
      return { ...totals };
    });
  }

  const batch = (texts, id, rows) =>
    env.DB.batch(texts.map((text, n) => env.DB.prepare(text).bind(id, "e", "now", JSON.stringify(rows[n]))));
  const flush = (id, { calls, denied, cost, back, tokens, tokensBack, overdraft }) => {
    const charges = [calls, denied, cost, back, tokens, tokensBack];
    return batch(statements, id, [[[MARCH, ...charges, overdraft]], [[HOUR, "a", ...charges]]]);
  };
  const flushAsBefore = (id, { calls, denied, cost, tokens }) =>
    batch(EARLIER, id, [[[MARCH, calls, denied, cost, tokens]], [[HOUR, "a", calls, denied, cost]]]);

  const columns = "calls, denied, cost, tokens, cost_charged, cost_returned, tokens_charged, tokens_returned";
  const rowsOf = async (id) => [
    ...(await sql(`SELECT ${columns}, overdraft FROM usage_monthly WHERE key_id = ?`, id)),
    ...(await sql(`SELECT ${columns} FROM usage_hourly WHERE key_id = ?`, id)),
  ];
  const expected = ({ calls, denied, cost, back, tokens, tokensBack, overdraft }) => {
    const row = {
      calls, denied, cost: cost - back, tokens: tokens - tokensBack,
      cost_charged: cost, cost_returned: back, tokens_charged: tokens, tokens_returned: tokensBack,
    };
    return [{ ...row, overdraft }, row];
  };

  test.each([1, 2, 3, 4, 5, 6])("flushes in any order and any number, of two versions, leave the last totals (seed %i)", async (seed) => {
    const next = random(seed);
    const totals = history(next, 12);
    const id = `random-${seed}`;
    for (let n = 0; n < 30; n += 1) {
      const one = totals[Math.floor(next() * totals.length)];
      if (next() < 0.3) await flushAsBefore(id, one);
      else await flush(id, one);
    }
    const order = totals.map((one) => [next(), one]).sort(([a], [b]) => a - b);
    for (const [, one] of order) await flush(id, one);
    expect(await rowsOf(id)).toEqual(expected(totals.at(-1)));
    const results = await flush(id, totals[Math.floor(next() * totals.length)]);
    expect(results.map(({ meta }) => meta.rows_written)).toEqual([0, 0]);
  });

  test("a flush of an earlier version does not hide what was returned from the next one", async () => {
    const first = { calls: 1, denied: 0, cost: 3, back: 2, tokens: 50, tokensBack: 40, overdraft: 0 };
    const id = "between";
    await flush(id, first);
    await flushAsBefore(id, { ...first, calls: 2, cost: 5 });
    expect(await rowsOf(id)).toMatchObject([{ calls: 2, cost: 5, tokens: 50 }, { calls: 2, cost: 5, tokens: 10 }]);
    // Also if that one was sent before.
    await flush(id, first);
    expect(await rowsOf(id)).toMatchObject([{ calls: 2, cost: 3, cost_charged: 5, tokens: 10 }, { calls: 2, cost: 3, cost_charged: 5, tokens: 10 }]);
  });
});

describe("of a key", () => {
  let key;
  beforeEach(async () => {
    key = await issue("unlimited");
    await admit(key, 2);
    await runAlarm(key);
    await count(key, { charged: 500, returned: 120, overdraft: 30 });
    await admit(key, 1);
    await runAlarm(key);
  });

  test("are flushed: what was charged, returned and overdrawn, and what remains", async () => {
    const [month] = await sql("SELECT * FROM usage_monthly WHERE key_id = ?", key.id);
    expect(month).toMatchObject({
      calls: 3, cost: 3, tokens: 380, cost_charged: 3, cost_returned: 0, tokens_charged: 500, tokens_returned: 120, overdraft: 30,
    });
    const [hour] = await sql("SELECT * FROM usage_hourly WHERE key_id = ? AND class = 'reservations'", key.id);
    expect(hour).toMatchObject({ hour: HOUR, calls: 0, cost: 0, tokens: 380, tokens_charged: 500, tokens_returned: 120 });
  });

  test("that are returned later are taken off in D1", async () => {
    await count(key, { charged: 520, returned: 420, overdraft: 30 });
    await admit(key, 1);
    await runAlarm(key);
    expect(await sql("SELECT tokens FROM usage_monthly WHERE key_id = ?", key.id)).toEqual([{ tokens: 100 }]);
    expect(await sql("SELECT SUM(tokens) AS tokens FROM usage_hourly WHERE key_id = ?", key.id)).toEqual([{ tokens: 100 }]);
  });

  test("are in usage, also those that earlier storage counted", async () => {
    expect(await usage(key)).toMatchObject({ month: MARCH, calls: 3, tokens: 380, overdraft: 30 });
    await loseStorage(key);
    expect(await usage(key)).toMatchObject({ month: MARCH, calls: 3, tokens: 380, overdraft: 30 });
    await crash(key);
    await admit(key, 1);
    await crash(key);
    expect(await usage(key)).toMatchObject({ month: MARCH, calls: 4, tokens: 380, overdraft: 30 });
  });

  test("are in hours, days and history", async () => {
    setClock("2031-03-12T12:30:00.000Z");
    const part = { class: "reservations", calls: 0, denied: 0, cost: 0, tokens: 380 };
    const { hours } = await read(`/keys/${key.id}/hours`);
    expect(hours.find(({ class: name }) => name === "reservations")).toEqual({ hour: HOUR, ...part });
    const { days } = await read(`/keys/${key.id}/days`);
    expect(days.find(({ class: name }) => name === "reservations")).toEqual({ day: HOUR.slice(0, 10), ...part });
    expect((await read(`/keys/${key.id}/history`)).months.at(-1)).toMatchObject({ month: MARCH, calls: 3, tokens: 380, overdraft: 30 });
  });

  test("are in the owner's view, where the object's own month replaces that of D1", async () => {
    const months = [{ month: MARCH, calls: 3, denied: 0, cost: 3, tokens: 380 }];
    const view = await meUsage(key);
    expect(view.months).toEqual(months);
    expect(view.hours.find(({ class: name }) => name === "reservations")).toEqual({ hour: HOUR, class: "reservations", calls: 0, denied: 0, cost: 0, tokens: 380 });
    await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, cost, tokens, updated_at) VALUES (?, ?, 'earlier', 1, 2, 7, '')", key.id, MARCH);
    // Returned since.
    await sql("UPDATE usage_monthly SET tokens = 400, cost = 9 WHERE key_id = ? AND epoch <> 'earlier'", key.id);
    setClock("2031-03-12T12:00:02.000Z");
    expect((await meUsage(key)).months).toEqual([{ month: MARCH, calls: 4, denied: 0, cost: 5, tokens: 387 }]);
  });

  test("are compared with D1", async () => {
    const exact = await read(`/keys/${key.id}/reconcile`);
    expect(exact).toMatchObject({ state: "exact", object: { calls: 3, tokens: 380 }, d1: { calls: 3, tokens: 380 } });
    expect(exact.object.counts).toContainEqual({ period: HOUR, class: "reservations", calls: 0, denied: 0, cost: 0, tokens: 380 });
    await sql("UPDATE usage_hourly SET tokens = 379 WHERE key_id = ? AND class = 'reservations'", key.id);
    const { state, differences } = await read(`/keys/${key.id}/reconcile`);
    expect([state, differences.map(({ object, d1 }) => [object.class, object.tokens, d1.tokens])]).toEqual(["drift", [["reservations", 380, 379]]]);
  });
});

describe("of reservations", () => {
  const rowsOf = (key) => sql("SELECT calls, cost, tokens, tokens_charged, tokens_returned, overdraft FROM usage_monthly WHERE key_id = ?", key.id);

  test("are in no book before they are settled", async () => {
    const key = await issue("unlimited");
    const held = await reserve(key, { tokens: 900 });
    expect(await usage(key)).toMatchObject({ calls: 0, tokens: 0, overdraft: 0 });
    await read(`/keys/${key.id}/reconcile`);
    expect(await rowsOf(key)).toEqual([]);
    await settle(key, held, { tokens: 1000 });
    expect(await usage(key)).toMatchObject({ calls: 0, tokens: 1000, overdraft: 100 });
    await runAlarm(key);
    expect(await rowsOf(key)).toEqual([{ calls: 0, cost: 0, tokens: 1000, tokens_charged: 1000, tokens_returned: 0, overdraft: 100 }]);
    const { state, object } = await read(`/keys/${key.id}/reconcile`);
    expect([state, object.tokens, object.counts.length]).toEqual(["exact", 1000, 2]);
  });

  test("that expired are charged whole, and a late settle takes off in D1 what was not used", async () => {
    const key = await issue("unlimited");
    const held = await reserve(key, { tokens: 900, requests: 2, ttl_seconds: 60 });
    wait(61);
    await runAlarm(key);
    expect(await rowsOf(key)).toEqual([{ calls: 1, cost: 2, tokens: 900, tokens_charged: 900, tokens_returned: 0, overdraft: 0 }]);
    await settle(key, held, { tokens: 150 });
    expect((await meUsage(key)).months).toEqual([{ month: MARCH, calls: 1, denied: 0, cost: 2, tokens: 150 }]);
    await runAlarm(key);
    expect(await rowsOf(key)).toEqual([{ calls: 1, cost: 2, tokens: 150, tokens_charged: 900, tokens_returned: 750, overdraft: 0 }]);
    setClock("2031-03-12T12:30:00.000Z");
    expect((await read(`/keys/${key.id}/hours`)).hours).toEqual([{ hour: HOUR, class: "reservations", calls: 1, denied: 0, cost: 2, tokens: 150 }]);
    expect((await read(`/keys/${key.id}/reconcile`)).state).toBe("exact");
  });

  test("are in the month and hour in which they were made", async () => {
    const key = await issue("unlimited");
    setClock("2031-03-31T23:59:50.000Z");
    const held = await reserve(key, { tokens: 40 });
    setClock("2031-04-01T00:00:10.000Z");
    await settle(key, held, { tokens: 30 });
    await runAlarm(key);
    expect(await sql("SELECT month, tokens FROM usage_monthly WHERE key_id = ?", key.id)).toEqual([{ month: MARCH, tokens: 30 }]);
    expect(await sql("SELECT hour, tokens FROM usage_hourly WHERE key_id = ?", key.id)).toEqual([{ hour: "2031-03-31T23:00:00Z", tokens: 30 }]);
    expect(await usage(key)).toMatchObject({ month: "2031-04", tokens: 0 });
  });

  test.each([1, 20_261_125])("add up to what was charged, whatever comes between (seed %i)", { timeout: 120_000 }, async (seed) => {
    const next = random(seed);
    const few = (most) => Math.floor(next() * (most + 1));
    const pick = (list) => list[few(list.length - 1)];
    let now = Date.parse("2031-01-31T20:00:00Z");
    setClock(now);
    const key = await issue("unlimited");
    // What each reservation is charged: all of it, until an answer says otherwise.
    const charged = new Map();
    for (let step = 0; step < 160; step += 1) {
      const dice = next();
      if (dice < 0.35) {
        const held = await reserve(key, { tokens: 1 + few(99), requests: few(2), ttl_seconds: 1 + few(3599) });
        charged.set(held.id, held);
      } else if (dice < 0.6 && charged.size > 0) {
        const { id } = pick([...charged.values()]);
        const response = await admin("POST", `/keys/${key.id}/reservations/${id}/settle`, { tokens: few(150), requests: few(2) });
        // 404: closed more than a day ago.
        if (response.status === 200) charged.set(id, await response.json());
        else expect(response.status).toBe(404);
      } else if (dice < 0.66 && charged.size > 0) {
        const { id } = pick([...charged.values()]);
        const response = await admin("DELETE", `/keys/${key.id}/reservations/${id}`);
        // One that was settled or released before stays as it is.
        if (response.status === 204 && charged.get(id).state === undefined) charged.set(id, { tokens: 0, requests: 0, state: "released" });
      } else if (dice < 0.7) await crash(key);
      else if (dice < 0.74) await evict(key).catch(() => {});
      else if (dice < 0.86) await runAlarm(key);
      else setClock((now += few(1) * few(9_000_000) + few(60_000)));
    }
    setClock((now += 3_600_000));
    for (let i = 0; i < 4; i += 1) await runAlarm(key);
    const { state, object } = await read(`/keys/${key.id}/reconcile`);
    expect(state).toBe("exact");
    const sum = (list, field) => list.reduce((sum, entry) => sum + entry[field], 0);
    const expected = { tokens: sum([...charged.values()], "tokens"), cost: sum([...charged.values()], "requests") };
    expect({ tokens: object.tokens, cost: object.cost }).toEqual(expected);
    for (const table of ["usage_monthly", "usage_hourly"]) {
      expect(await sql(`SELECT SUM(tokens) AS tokens, SUM(cost) AS cost FROM ${table} WHERE key_id = ?`, key.id)).toEqual([expected]);
    }
    expect((await sql("SELECT SUM(tokens_returned) AS back FROM usage_monthly WHERE key_id = ?", key.id))[0].back).toBeGreaterThan(0);
  });
});

test("a report has tokens of tiers, of the largest keys and of all; a key without calls is among the largest by them", async () => {
  const insert = "INSERT INTO usage_monthly (key_id, month, epoch, calls, tokens, overdraft, updated_at) VALUES (?, '2027-05', 'e', ?, ?, ?, '')";
  const [called, silent] = [await issue("free"), await issue("pro")];
  await sql(insert, called.id, 2, 5, 0);
  await sql(insert, silent.id, 0, 900, 40);
  await sql(insert, "deleted", 0, 30, 0);
  const { tiers, top, tokens, totals, keys } = await read("/report?month=2027-05");
  expect(tiers.filter((tier) => tier.tokens > 0).map(({ tier, calls, tokens }) => [tier, calls, tokens])).toEqual([["free", 2, 5], ["pro", 0, 900], [null, 0, 30]]);
  expect(top.map(({ key_id, calls, tokens }) => [key_id, calls, tokens])).toEqual([[called.id, 2, 5], [silent.id, 0, 900], ["deleted", 0, 30]]);
  expect([tokens, totals]).toEqual([935, { keys: 3, calls: 2, denied: 0, cost: 0, tokens: 935, overdraft: 40 }]);
  expect(keys.find(({ key_id }) => key_id === silent.id)).toMatchObject({ calls: 0, tokens: 900, overdraft: 40 });
});

test("a key near its quota of tokens is listed by its tokens", async () => {
  const key = await issue("unlimited");
  expect((await admin("PUT", `/keys/${key.id}/overrides/tokens`, { unit: "tokens", quota: 1000, period: "month" })).status).toBe(201);
  await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, cost, tokens, updated_at) VALUES (?, ?, 'e', 5000, 5000, 850, ?)", key.id, MARCH, HOUR);
  const { alerts } = await read("/alerts?threshold=0.8");
  expect(alerts.filter(({ key_id }) => key_id === key.id)).toMatchObject([{ policy: "tokens", unit: "tokens", used: 850, quota: 1000, share: 0.85 }]);
});

test("a policy of tokens with algorithm sliding that a migration made limits by windows", async () => {
  await sql("INSERT INTO tiers (name) VALUES ('slid')");
  await sql("INSERT INTO tier_limits (tier, policy, unit, quota, period, algorithm) VALUES ('slid', 't', 'tokens', 5, 'day', 'sliding')");
  const key = await issue("slid");
  await admit(key, 1);
  expect((await usage(key)).policies).toMatchObject([{ policy: "t", unit: "tokens", algorithm: "fixed", used: 0, remaining: 5 }]);
});
