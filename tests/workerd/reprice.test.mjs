// Costs that the origin's answer lowers, on routes with `reprice`.
import { beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { makeTier, sql } from "./lib/database.mjs";
import { admin, call, issue, rateLimit, received, receivedOne, releaseOrigin, setClock, usage, wait } from "./lib/gate.mjs";
import { crash, evict, inObject, intercept, runAlarm } from "./lib/object.mjs";

const [MINUTE, MONTH, COST] = [20, 100, 5];
let tier;
let key;

beforeAll(() =>
  sql(
    `INSERT INTO route_costs (pattern, method, cost, reprice) VALUES ('/headers', 'POST', ${COST}, 1), ('/headers', 'GET', ${COST}, 0),
       ('/answer', '*', ${COST}, 1), ('/held', '*', ${COST}, 1), ('/down', '*', ${COST}, 1), ('/socket', '*', ${COST}, 1)`,
  ),
);

beforeEach(async () => {
  tier = await makeTier({ quota: MINUTE, period: "minute" }, { quota: MONTH, period: "month" });
  await sql("UPDATE tiers SET audit_days = 0 WHERE name = ?", tier);
  key = await issue(tier);
});

/** A call to which the origin's answer says that it costs so much. */
const costing = (cost, init = {}, path = "/headers") => call(key, `${path}?${new URLSearchParams({ "x-tollgate-cost": cost })}`, { method: "POST", body: "x", ...init });

/** What is left of minute and month, as a call that costs 1 says. */
async function left() {
  const { minute, month } = rateLimit(await call(key, "/other"));
  return [minute.r + 1, month.r + 1];
}

/** Number of rows that the object has written. */
const written = async () => (await inObject(key, "SELECT body FROM state")).reduce((most, { body }) => Math.max(most, JSON.parse(body).seq), 0);

/** Calls that the origin holds until it is released; resolves to their promise once it has them. */
async function hold(count, cost) {
  const before = (await received()).length;
  const answers = Promise.all(Array.from({ length: count }, () => costing(cost, {}, "/held")));
  await vi.waitFor(async () => expect(await received()).toHaveLength(before + count), { timeout: 15_000 });
  return { answers };
}

describe("the call costs", () => {
  test.each([
    ["0, a refund", "0", 0],
    ["less than it was charged", "2", 2],
    ["what it was charged", "5", 5],
    ["no more than it was charged", "6", 5],
    ["no more than it was charged, whatever the number", "9".repeat(60), 5],
    ["what it was charged if the field is empty", "", 5],
    ["what it was charged if the field is below 0", "-1", 5],
    ["what it was charged if the field is a fraction", "0.0", 5],
    ["what it was charged if the field is a word", "free", 5],
    ["what it was charged if there are two", "0, 0", 5],
  ])("%s", async (_what, field, cost) => {
    const response = await costing(field);
    expect(response.status).toBe(200);
    expect(response.headers.has("x-tollgate-cost")).toBe(false);
    expect(rateLimit(response)).toMatchObject({ minute: { r: MINUTE - COST }, month: { r: MONTH - COST } });
    expect(await left()).toEqual([MINUTE - cost, MONTH - cost]);
  });

  test.each([
    ["a failure of the origin that says so", { status: 500, headers: '{"x-tollgate-cost":"0"}' }, 0],
    ["a failure of the origin that does not", { status: 503 }, COST],
    ["a refusal by the origin that says so", { status: 404, headers: '{"x-tollgate-cost":"1"}' }, 1],
    ["a redirect that says so", { status: 302, headers: '{"x-tollgate-cost":"0","location":"/"}' }, 0],
    ["an answer that does not", {}, COST],
  ])("as %s", async (_what, answer, cost) => {
    expect((await call(key, `/answer?${new URLSearchParams(answer)}`)).status).toBe(answer.status ?? 200);
    expect(await left()).toEqual([MINUTE - cost, MONTH - cost]);
  });

  test("what it was charged if the origin does not answer", async () => {
    expect((await costing("0", {}, "/down")).status).toBe(502);
    expect(await left()).toEqual([MINUTE - COST, MONTH - COST]);
  });

  test("what it was charged on a route without reprice, whose answer is rid of the field too", async () => {
    const response = await costing("0", { method: "GET", body: undefined });
    expect([response.status, response.headers.has("x-tollgate-cost")]).toEqual([200, false]);
    expect(await left()).toEqual([MINUTE - COST, MONTH - COST]);
  });

  test("nothing that the client says", async () => {
    await call(key, "/answer", { headers: { "X-Tollgate-Cost": "0", X_Tollgate_Cost: "0" } });
    expect(Object.keys((await receivedOne()).headers).filter((name) => name.includes("cost"))).toEqual([]);
    expect(await left()).toEqual([MINUTE - COST, MONTH - COST]);
  });
});

test("calls in flight count whole, and a denial lasts no longer than it must", async () => {
  const { answers } = await hold(4, "0");
  expect([(await call(key)).status, (await call(key)).status]).toEqual([429, 429]);
  expect(await received()).toHaveLength(4);
  await releaseOrigin();
  expect((await answers).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  expect(await left()).toEqual([MINUTE, MONTH]);
});

test("however many calls race, none is admitted beyond a quota, and the sum is exact", async () => {
  const costs = Array.from({ length: 30 }, (_, n) => n % 7);
  const answers = await Promise.all(costs.map((cost) => costing(String(cost))));
  const charged = answers.reduce((sum, { status }, n) => sum + (status === 200 ? Math.min(costs[n], COST) : 0), 0);
  const { policies, calls } = await usage(key);
  expect(policies.map(({ used }) => used)).toEqual([charged, charged]);
  expect(charged).toBeLessThanOrEqual(MINUTE);
  expect(calls).toBe(answers.filter(({ status }) => status === 200).length);
});

test("what is given back goes to the minute and the month of the call, and D1 gets what remains", async () => {
  setClock("2031-03-31T23:59:30Z");
  const { answers } = await hold(2, "1");
  wait(60);
  await releaseOrigin();
  await answers;
  expect(await left()).toEqual([MINUTE, MONTH]);
  await runAlarm(key);
  const columns = "calls, cost, cost_charged, cost_returned";
  expect(await sql(`SELECT month, ${columns} FROM usage_monthly WHERE key_id = ? ORDER BY month`, key.id)).toEqual([
    { month: "2031-03", calls: 2, cost: 2, cost_charged: 10, cost_returned: 8 },
    { month: "2031-04", calls: 1, cost: 1, cost_charged: 1, cost_returned: 0 },
  ]);
  expect(await sql(`SELECT hour, class, ${columns} FROM usage_hourly WHERE key_id = ? ORDER BY hour`, key.id)).toEqual([
    { hour: "2031-03-31T23:00:00Z", class: "/held", calls: 2, cost: 2, cost_charged: 10, cost_returned: 8 },
    { hour: "2031-04-01T00:00:00Z", class: "GET /other", calls: 1, cost: 1, cost_charged: 1, cost_returned: 0 },
  ]);
  expect(await (await admin("GET", `/keys/${key.id}/reconcile`)).json()).toMatchObject({ state: "exact" });
});

test("D1 that has the full cost already gets the lower one", async () => {
  const { answers } = await hold(1, "2");
  await runAlarm(key);
  const cost = async () => (await sql("SELECT cost FROM usage_monthly WHERE key_id = ?", key.id)).map((row) => row.cost);
  expect(await cost()).toEqual([COST]);
  await releaseOrigin();
  await answers;
  await runAlarm(key);
  expect(await cost()).toEqual([2]);
});

describe("once, whatever", () => {
  test("the object crashes before the answer", async () => {
    const { answers } = await hold(1, "0");
    await crash(key);
    await releaseOrigin();
    await answers;
    expect(await left()).toEqual([MINUTE, MONTH]);
  });

  test("the object crashes after it", async () => {
    await costing("2");
    await crash(key);
    expect(await left()).toEqual([MINUTE - 2, MONTH - 2]);
  });

  test("the outcome is lost until the next call", async () => {
    let isAway = true;
    const { answers } = await hold(1, "1");
    const asked = await intercept(key, (answer) => (isAway ? Promise.reject(new Error("the object is away")) : answer()));
    await releaseOrigin();
    expect((await answers)[0].status).toBe(200);
    expect(asked).toContain("/v1/end");
    isAway = false;
    expect(await left()).toEqual([MINUTE - 1, MONTH - 1]);
    expect(await left()).toEqual([MINUTE - 2, MONTH - 2]);
  });

  test("the answer comes after ten minutes", async () => {
    const { answers } = await hold(1, "1");
    wait(11 * 60);
    await evict(key);
    await runAlarm(key);
    const [, month] = await left();
    expect(month).toBe(MONTH - COST);
    await releaseOrigin();
    await answers;
    expect((await left())[1]).toBe(MONTH - 1 - 1);
  });
});

test("a call whose outcome never comes keeps its cost", async () => {
  const { answers } = await hold(1, "0");
  wait(11 * 60);
  await runAlarm(key);
  wait(25 * 3600);
  await releaseOrigin();
  await answers;
  expect((await left())[1]).toBe(MONTH - COST);
});

test("a client that leaves before the answer does not keep it from lowering the cost", async () => {
  const leave = new AbortController();
  const gone = costing("3", { signal: leave.signal }, "/held").catch(() => "gone");
  await vi.waitFor(async () => expect(await received()).toHaveLength(1));
  leave.abort();
  expect(await gone).toBe("gone");
  await releaseOrigin();
  await vi.waitFor(async () => expect((await usage(key)).policies.map(({ used }) => used)).toEqual([3, 3]), { timeout: 5_000 });
});

test("a first call with an idempotency key is refunded, free replays keep their cost, later ones are re-priced", async () => {
  const init = { headers: { "Idempotency-Key": "a" } };
  await costing("0", init);
  expect(await left()).toEqual([MINUTE, MONTH]);
  for (let replay = 1; replay <= 5; replay += 1) {
    wait(60);
    const response = await costing("0", init);
    expect(response.headers.get("x-tollgate-idempotent-replay")).toBe("1");
    expect((await left())[0]).toBe(MINUTE - COST);
  }
  expect((await left())[1]).toBe(MONTH - 6);
  wait(60);
  expect(rateLimit(await costing("0", init)).month.r).toBe(MONTH - 7 - COST);
  expect(await left()).toEqual([MINUTE, MONTH - 7]);
});

test("the audit log and the usage by hour have the final cost", async () => {
  await sql("UPDATE tiers SET audit_days = 7 WHERE name = ?", tier);
  for (const cost of ["0", "3", "x"]) await costing(cost);
  await call(key, "/other");
  const { entries } = await (await admin("GET", `/keys/${key.id}/audit`)).json();
  expect(entries.map(({ cost, origin_status }) => [cost, origin_status])).toEqual([[0, 200], [3, 200], [5, 200], [1, null]]);
  await runAlarm(key);
  const { hours } = await (await admin("GET", `/keys/${key.id}/hours?from=2031-03-12T12:00:00Z&to=2031-03-12T13:00:00Z`)).json();
  expect(hours).toEqual([expect.objectContaining({ class: "GET /other", calls: 1, cost: 1 }), expect.objectContaining({ class: "POST /headers", calls: 3, cost: 8 })]);
});

test("a route that spends tokens settles both", async () => {
  await sql("INSERT OR REPLACE INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/answer', 'POST', 'header', 100, 400)");
  await sql("INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES (?, 'budget', 'tokens', 1000, 'day')", tier);
  key = await issue(tier);
  for (const [headers, tokens, cost] of [[{ "x-tollgate-cost": "0", "x-tollgate-tokens": "30" }, 30, 0], [{ "x-tollgate-tokens": "4" }, 34, COST], [{ "x-tollgate-cost": "1" }, 136, COST + 1]]) {
    const response = await call(key, `/answer?${new URLSearchParams({ parts: '["x"]', headers: JSON.stringify(headers) })}`, { method: "POST", body: "{}" });
    expect(await response.text()).toBe("x");
    const { policies } = await usage(key);
    expect(Object.fromEntries(policies.map(({ policy, used, held }) => [policy, [used, held]]))).toEqual({ minute: [cost, 0], budget: [tokens, 0], month: [cost, 0] });
  }
  await sql("DELETE FROM token_routes");
});

test("a WebSocket upgrade is re-priced by the answer to it", async () => {
  const response = await call(key, "/socket", { headers: { Upgrade: "websocket" } });
  expect(response.status).toBe(101);
  response.webSocket.accept();
  response.webSocket.close();
  expect(await left()).toEqual([MINUTE - COST, MONTH - COST]);
});

test("a call is one request and one row; a lowered cost one more of each, and nothing of it is kept", async () => {
  await call(key, "/other");
  const asked = await intercept(key);
  const taken = async (work) => {
    const [requests, rows] = [asked.length, await written()];
    await work();
    return [asked.slice(requests), (await written()) - rows];
  };
  expect(await taken(() => costing("0", { method: "GET", body: undefined }))).toEqual([["/v1/check"], 1]);
  expect(await taken(() => costing("0"))).toEqual([["/v1/check", "/v1/end"], 2]);
  expect(await taken(() => call(key, "/answer"))).toEqual([["/v1/check"], 1]);
  // The outcome of the last one comes with the next call.
  expect(await taken(() => call(key, "/other"))).toEqual([["/v1/check"], 1]);
  const rows = (await inObject(key, "SELECT body FROM state")).map(({ body }) => JSON.parse(body));
  expect(rows.every((row) => !("o" in row) && !("d" in row))).toBe(true);
});

test("a row is taken up and dropped within 60 seconds", async () => {
  const put = (reprice) => admin("PUT", "/route-costs", { pattern: "/headers", method: "PUT", cost: COST, reprice });
  const month = async () => {
    wait(60);
    await costing("0", { method: "PUT" });
    return (await left())[1];
  };
  await put(false);
  expect(await month()).toBe(MONTH - COST);
  await put(true);
  expect(await month()).toBe(MONTH - COST - 1);
  await put(false);
  expect(await month()).toBe(MONTH - COST - 2 - COST);
});
