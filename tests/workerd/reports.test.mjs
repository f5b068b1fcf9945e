// Reports from D1: hours, days, months, keys near their quotas, and consistency of the totals.
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, send, setClock } from "./lib/gate.mjs";
import { inObject, loseStorage, runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

async function read(path, headers) {
  const response = await admin("GET", path, undefined, headers);
  expect(response.status).toBe(200);
  return response.json();
}

/** All entries of a list, two at a time. */
async function readAll(path, list) {
  const entries = [];
  for (let cursor = ""; cursor !== null; ) {
    const page = await read(`${path}${path.includes("?") ? "&" : "?"}limit=2&cursor=${cursor}`);
    expect(page[list].length).toBeLessThanOrEqual(2);
    entries.push(...page[list]);
    cursor = page.next_cursor;
  }
  return entries;
}

function addHour(key, hour, klass, calls, { epoch = "e", denied = 0, cost = calls, tokens = 0 } = {}) {
  const insert = "INSERT INTO usage_hourly (key_id, hour, class, epoch, calls, denied, cost, tokens, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, '')";
  return sql(insert, key.id, hour, klass, epoch, calls, denied, cost, tokens);
}

function addMonth(key, month, calls, { epoch = "e", denied = 0, cost = calls, tokens = 0, overdraft = 0 } = {}) {
  const insert = "INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, cost, tokens, overdraft, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
  return sql(insert, key.id, month, epoch, calls, denied, cost, tokens, overdraft, "2031-03-01T00:00:00Z");
}

test("hours of a key, by class, summed over epochs, of the last 24 hours or of a range", async () => {
  const key = await issue();
  await addHour(key, "2031-03-11T11:00:00Z", "/a", 1);
  await addHour(key, "2031-03-11T12:00:00Z", "/a", 2, { denied: 1, tokens: 60 });
  await addHour(key, "2031-03-11T12:00:00Z", "/a", 3, { epoch: "f", cost: 30, tokens: 9 });
  await addHour(key, "2031-03-11T12:00:00Z", "/b", 4);
  await addHour(key, "2031-03-12T11:00:00Z", "/a", 5);
  await addHour(key, "2031-03-12T12:00:00Z", "/a", 6);
  const entry = (hour, klass, calls, denied = 0, cost = calls, tokens = 0) => ({ hour, class: klass, calls, denied, cost, tokens });
  const day = [
    entry("2031-03-11T12:00:00Z", "/a", 5, 1, 32, 69),
    entry("2031-03-11T12:00:00Z", "/b", 4),
    entry("2031-03-12T11:00:00Z", "/a", 5),
  ];
  expect(await read(`/keys/${key.id}/hours`)).toEqual({ hours: day, next_cursor: null });
  expect(await readAll(`/keys/${key.id}/hours`, "hours")).toEqual(day);
  const span = "from=2031-03-11T11:30:00Z&to=2031-03-11T12:00:00Z";
  expect((await read(`/keys/${key.id}/hours?${span}`)).hours).toEqual([entry("2031-03-11T11:00:00Z", "/a", 1)]);
});

test("days of a key, by class", async () => {
  const key = await issue();
  await addHour(key, "2031-03-10T23:00:00Z", "/a", 1);
  await addHour(key, "2031-03-11T00:00:00Z", "/a", 2);
  await addHour(key, "2031-03-11T23:00:00Z", "/a", 3, { denied: 2 });
  await addHour(key, "2031-03-11T23:00:00Z", "/b", 4);
  const entries = [
    { day: "2031-03-10", class: "/a", calls: 1, denied: 0, cost: 1, tokens: 0 },
    { day: "2031-03-11", class: "/a", calls: 5, denied: 2, cost: 5, tokens: 0 },
    { day: "2031-03-11", class: "/b", calls: 4, denied: 0, cost: 4, tokens: 0 },
  ];
  expect(await readAll(`/keys/${key.id}/days`, "days")).toEqual(entries);
  const span = "from=2031-03-11T05:00:00Z&to=2031-03-11T06:00:00Z";
  expect((await read(`/keys/${key.id}/days?${span}`)).days).toEqual(entries.slice(1));
});

test("the hours of a key add up to its month", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  setClock("2031-03-12T13:00:00Z");
  await admit(key, 3);
  await runAlarm(key);
  setClock("2031-03-12T14:00:00Z");
  const { hours } = await read(`/keys/${key.id}/hours`);
  const [month] = (await read(`/keys/${key.id}/history`)).months;
  for (const field of ["calls", "denied", "cost", "tokens"]) {
    expect(hours.reduce((sum, hour) => sum + hour[field], 0)).toBe(month[field]);
  }
  expect(month).toMatchObject({ month: "2031-03", calls: 13, denied: 1, cost: 13, is_complete: false });
});

test("history: the months since the key was issued, growth, average and trend", async () => {
  setClock("2030-10-05T00:00:00Z");
  const key = await issue();
  await addMonth(key, "2030-12", 100);
  await addMonth(key, "2031-01", 60, { denied: 1, cost: 70, tokens: 5, overdraft: 2 });
  await addMonth(key, "2031-01", 40, { epoch: "f" });
  await addMonth(key, "2031-02", 150);
  await addMonth(key, "2031-03", 30);
  setClock("2031-03-12T12:00:00Z");
  const month = (month, calls, growth_percent, more = {}) => ({
    month, calls, denied: 0, cost: calls, tokens: 0, overdraft: 0, is_complete: true, growth_percent, ...more,
  });
  const months = [
    month("2030-10", 0, null),
    month("2030-11", 0, null),
    month("2030-12", 100, null),
    month("2031-01", 100, 0, { denied: 1, cost: 110, tokens: 5, overdraft: 2 }),
    month("2031-02", 150, 50),
    month("2031-03", 30, -80, { is_complete: false }),
  ];
  expect(await read(`/keys/${key.id}/history`)).toEqual({ key_id: key.id, months, average: 70, trend: "up" });
  const two = await read(`/keys/${key.id}/history?months=2`);
  expect(two).toEqual({ key_id: key.id, months: months.slice(4), average: 150, trend: "flat" });
  await sql("UPDATE usage_monthly SET calls = 10 WHERE key_id = ? AND month = '2031-02'", key.id);
  expect((await read(`/keys/${key.id}/history?months=4`)).trend).toBe("down");
  const fresh = await issue();
  const only = [month("2031-03", 0, null, { is_complete: false })];
  expect(await read(`/keys/${fresh.id}/history?months=36`)).toEqual({ key_id: fresh.id, months: only, average: null, trend: "flat" });
});

test("a report of all keys of a month, as JSON in pages and as CSV", async () => {
  const names = ["plain", '=HYPERLINK("x")', "a, b\r\nc", "@x"];
  const keys = [];
  for (const name of names) {
    const key = await issue();
    await sql("UPDATE keys SET name = ?, owner = '-me' WHERE id = ?", name, key.id);
    keys.push({ ...key, name });
  }
  for (const key of keys) await addMonth(key, "2029-07", 7, { denied: 1, cost: 9, tokens: 2, overdraft: 1 });
  await addMonth(keys[0], "2029-07", 1, { epoch: "f" });
  await addMonth({ id: "deleted" }, "2029-07", 2);
  keys.sort((a, b) => (a.id < b.id ? -1 : 1));
  const { month, totals, tiers, top, calls, denied: refused } = await read("/report?month=2029-07");
  expect([calls, refused]).toEqual([31, 4]);
  const [{ in_free: inFree }] = await sql("SELECT COUNT(*) AS in_free FROM keys WHERE tier = 'free'");
  expect(tiers.filter((tier) => tier.calls > 0)).toEqual([{ tier: "free", keys: inFree, calls: 29, tokens: 8 }, { tier: null, keys: 1, calls: 2, tokens: 0 }]);
  expect(tiers.map(({ tier }) => tier)).toEqual(expect.arrayContaining(["basic", "enterprise", "pro", "unlimited"]));
  expect(top.map(({ calls }) => calls)).toEqual([8, 7, 7, 7, 2]);
  expect(top[0]).toEqual({ key_id: expect.any(String), name: "plain", tier: "free", calls: 8, tokens: 2 });
  expect([month, totals]).toEqual(["2029-07", { keys: 5, calls: 31, denied: 4, cost: 39, tokens: 8, overdraft: 4 }]);
  const rows = await readAll("/report?month=2029-07", "keys");
  expect(rows).toHaveLength(5);
  expect(rows.find(({ key_id }) => key_id === "deleted")).toMatchObject({ name: null, owner: null, tier: null, calls: 2 });
  expect(rows.find(({ name }) => name === "plain")).toMatchObject({ owner: "-me", tier: "free", calls: 8, cost: 10 });
  const csv = await admin("GET", "/report?month=2029-07", undefined, { Accept: "text/csv" });
  expect(csv.headers.get("content-type")).toBe("text/csv; charset=utf-8");
  expect(csv.headers.get("content-disposition")).toBe('attachment; filename="tollgate-2029-07.csv"');
  expect(csv.headers.get("cache-control")).toBe("no-store");
  const text = await csv.text();
  const cell = { plain: "plain", '=HYPERLINK("x")': '"\'=HYPERLINK(""x"")"', "a, b\r\nc": '"a, b\r\nc"', "@x": "'@x" };
  const line = ({ id, name }) =>
    `2029-07,${id},${cell[name]},'-me,free,${name === "plain" ? "8,1,10,2,1" : "7,1,9,2,1"}\r\n`;
  const lines = [...keys.map((key) => [key.id, line(key)]), ["deleted", "2029-07,deleted,,,,2,0,2,0,0\r\n"]].sort((a, b) => (a[0] < b[0] ? -1 : 1));
  expect(text).toBe("month,key_id,name,owner,tier,calls,denied,cost,tokens,overdraft\r\n" + lines.map((entry) => entry[1]).join(""));
});

test("a CSV report has all keys", async () => {
  const rows = JSON.stringify(Array.from({ length: 2500 }, (_, n) => `k${String(n).padStart(5, "0")}`));
  await sql("INSERT INTO usage_monthly (key_id, month, epoch, calls, updated_at) SELECT value, '2028-01', 'e', 1, '' FROM json_each(?)", rows);
  const csv = await (await admin("GET", "/report?month=2028-01", undefined, { Accept: "text/csv" })).text();
  const lines = csv.split("\r\n");
  expect(lines).toHaveLength(2502);
  expect([lines[1], lines[2500]]).toEqual(["2028-01,k00000,,,,1,0,0,0,0", "2028-01,k02499,,,,1,0,0,0,0"]);
  await sql("DELETE FROM usage_monthly WHERE month = '2028-01'");
});

test("keys near their quota: by current month policies, from D1", async () => {
  const [near, far, raised, lowered, later] = [await issue(), await issue(), await issue(), await issue(), await issue()];
  for (const key of [near, raised]) await addMonth(key, "2031-03", 900);
  await addMonth(far, "2031-03", 799);
  await addMonth(lowered, "2031-03", 50);
  await addMonth(later, "2031-03", 50);
  await addMonth(far, "2031-02", 1000);
  const own = (key, quota, from = null) =>
    sql("INSERT INTO overrides (key_id, policy, quota, period, from_at, created_at) VALUES (?, 'month', ?, 'month', ?, '')", key.id, quota, from);
  await own(raised, 5000);
  await own(lowered, 50);
  await own(later, 50, "2031-03-13T00:00:00Z");
  await sql("INSERT INTO alerts (key_id, policy, threshold, month, quota, used, at, state) VALUES (?, 'month', 0.8, '2031-03', 1000, 800, '2031-03-02T00:00:00Z', 'none')", near.id);
  const mine = (list) => list.filter(({ key_id }) => [near, far, raised, lowered, later].some(({ id }) => id === key_id));
  const alerts = mine(await readAll("/alerts", "alerts"));
  const entry = (key, quota, used, share, at) => ({
    key_id: key.id, name: "a test", owner: "", tier: "free", policy: "month", unit: "requests", quota, used, share, threshold: 0.8, month: "2031-03", at,
  });
  const expected = [entry(near, 1000, 900, 0.9, "2031-03-02T00:00:00Z"), entry(lowered, 50, 50, 1, "2031-03-01T00:00:00Z")];
  expect(alerts).toEqual(expected.sort((a, b) => (a.key_id < b.key_id ? -1 : 1)));
  expect(mine((await read("/alerts?threshold=1")).alerts).map(({ key_id }) => key_id)).toEqual([lowered.id]);
  expect(mine((await read("/alerts?threshold=0.799")).alerts)).toHaveLength(3);
});

test("the list of alerts, newest first, by state", async () => {
  await sql("DELETE FROM alerts");
  const insert = "INSERT INTO alerts (key_id, policy, threshold, month, quota, used, at, state, last_error) VALUES (?, 'month', ?, '2031-03', 1000, 800, ?, ?, ?)";
  await sql(insert, "k1", 0.8, "2031-03-01T00:00:00Z", "delivered", null);
  await sql(insert, "k1", 1, "2031-03-02T00:00:00Z", "dead", "status 500");
  await sql(insert, "k2", 0.8, "2031-03-02T00:00:00Z", "pending", null);
  const all = await readAll("/alerts/deliveries", "deliveries");
  expect(all.map(({ key_id, state }) => [key_id, state])).toEqual([["k2", "pending"], ["k1", "dead"], ["k1", "delivered"]]);
  const { deliveries } = await read("/alerts/deliveries?state=dead");
  expect(deliveries).toEqual([
    {
      key_id: "k1", policy: "month", threshold: 1, month: "2031-03", unit: "requests", quota: 1000, used: 800, at: "2031-03-02T00:00:00Z",
      state: "dead", attempts: 0, next_attempt_at: null, last_error: "status 500",
    },
  ]);
  await sql("DELETE FROM alerts");
});

test("reconciling flushes first, and lists what D1 does not have", async () => {
  const key = await issue();
  await admit(key, 10);
  await denied(key);
  const exact = await read(`/keys/${key.id}/reconcile`);
  const month = { period: "2031-03", class: null, calls: 10, denied: 1, cost: 10, tokens: 0 };
  expect(exact).toMatchObject({ key_id: key.id, state: "exact", differences: [] });
  expect(exact.object).toEqual(exact.d1);
  expect(exact.object).toMatchObject({ calls: 10, denied: 1, cost: 10, tokens: 0 });
  expect(exact.object.counts[0]).toEqual(month);
  await sql("UPDATE usage_monthly SET calls = 9 WHERE key_id = ?", key.id);
  const drift = await read(`/keys/${key.id}/reconcile`);
  expect(drift.state).toBe("drift");
  expect(drift.differences).toEqual([{ object: month, d1: { ...month, calls: 9 } }]);
  await sql("DELETE FROM usage_hourly WHERE key_id = ?", key.id);
  expect((await read(`/keys/${key.id}/reconcile`)).differences).toHaveLength(2);
  const unused = await issue();
  expect(await read(`/keys/${unused.id}/reconcile`)).toMatchObject({ state: "exact", object: { calls: 0, counts: [] }, d1: { calls: 0, counts: [] } });
});

test("a key whose storage was lost reconciles as its new epoch", async () => {
  const key = await issue();
  await admit(key, 3);
  await runAlarm(key);
  await loseStorage(key);
  await admit(key, 2);
  const { state, object } = await read(`/keys/${key.id}/reconcile`);
  expect([state, object.calls]).toEqual(["exact", 2]);
});

test("an invalid parameter is refused by name", async () => {
  const key = await issue();
  const of = `/keys/${key.id}`;
  for (const [path, word] of [
    [`${of}/hours?from=x`, "from: "],
    [`${of}/hours?from=2031-01-01T00:00:00Z&to=2031-03-01T00:00:00Z`, "31 days"],
    [`${of}/hours?to=2031-01-01T00:00:00Z&from=2031-01-01T00:00:00Z`, "before `to`"],
    [`${of}/hours?cursor=xx`, "cursor: "],
    [`${of}/hours?cursor=${hex("hours:x")}`, "cursor: "],
    [`${of}/hours?month=2031-03`, "`month`"],
    [`${of}/days?from=2030-01-01T00:00:00Z&to=2031-03-01T00:00:00Z`, "100 days"],
    [`${of}/history?months=37`, "months: "],
    ["/report?month=2031-13", "month: "],
    ["/report?limit=501", "limit: "],
    ["/alerts?threshold=0", "threshold: "],
    ["/alerts?threshold=11", "threshold: "],
    ["/alerts/deliveries?state=lost", "state: "],
    [`/alerts/deliveries?cursor=${hex("deliveries:x")}`, "cursor: "],
    [`/alerts/deliveries?cursor=${hex("deliveries:[1,2,3,4,5,[]]")}`, "cursor: "],
    [`/drift?cursor=${hex("drift:x")}`, "cursor: "],
  ]) {
    const { detail } = await problem(await admin("GET", path), 400);
    expect(detail, path).toContain(word);
  }
  const whole = await admin("GET", "/report?limit=5", undefined, { Accept: "text/csv" });
  await problem(whole, 400);
  for (const part of ["hours", "days", "history", "reconcile"]) {
    await problem(await admin("GET", `/keys/aaaaaaaaaaaaaaaa/${part}`), 404);
    await problem(await admin("POST", `${of}/${part}`), 405);
  }
});

const hex = (text) => [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

test("the scope read is enough, and needed", async () => {
  const key = await issue();
  const made = await admin("POST", "/tokens", { name: "reports", scopes: ["read"] });
  const { token } = await made.json();
  for (const path of [`/keys/${key.id}/hours`, `/keys/${key.id}/reconcile`, "/report", "/alerts", "/alerts/deliveries", "/drift"]) {
    const response = await admin("GET", path, undefined, { Authorization: `Bearer ${token}` });
    expect(response.status, path).toBe(200);
    await response.body.cancel();
    await problem(await send(`/_tollgate${path}`), 401);
  }
});

test("while D1 is down reports are 503", async () => {
  const giveBack = await takeAway("usage_monthly");
  await problem(await admin("GET", "/report"), 503);
  await problem(await admin("GET", "/report", undefined, { Accept: "text/csv" }), 503);
  await giveBack();
  expect(logged.join("\n")).toContain("no such table");
});

test("reports of a month touch no object", async () => {
  const key = await issue();
  await (await call(key)).text();
  await runAlarm(key);
  const before = await inObject(key, "SELECT * FROM state");
  await read("/report");
  await read("/alerts");
  expect(await inObject(key, "SELECT * FROM state")).toEqual(before);
  expect(env.FLUSH_SECONDS).toBe("60");
});
