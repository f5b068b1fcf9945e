// Reservations by the admin API: tokens and requests of services that do not stand behind the gate.
import { describe, expect, test } from "vitest";
import { listenToD1, setKey, sql } from "./lib/database.mjs";
import { admin, admit, api, call, denied, issue, problem, rateLimit, rateLimitPolicy, releaseOrigin, setClock, usage, used, wait } from "./lib/gate.mjs";
import { alarmIn, breakWrites, crash, evict, inObject, intercept, objectText, runAlarm, stub } from "./lib/object.mjs";
import { NOON } from "./lib/setup.mjs";

let tiers = 0;
const tokens = (quota, period, more) => ({ policy: `${period}-tokens`, unit: "tokens", quota, period, ...more });
const requests = (quota, period) => ({ policy: period, quota, period });

async function makeTier(...policies) {
  const name = `reserving-${(tiers += 1)}`;
  await api.json("PUT", `/tiers/${name}`, { policies }, 201);
  return name;
}

const issueWith = async (...policies) => issue(await makeTier(...policies));

const path = (key, ...parts) => ["/keys", key.id ?? key, "reservations", ...parts].join("/");
const post = (key, body, headers) => admin("POST", path(key), body, headers);
/** A reservation that must be made. */
const reserve = (key, body) => api.json("POST", path(key), body, 201);
const settle = (key, { id }, body) => api.json("POST", path(key, id, "settle"), body);
const release = (key, { id }) => admin("DELETE", path(key, id));
const open = async (key) => (await api.json("GET", path(key))).reservations;

/** A reservation that must be denied; resolves to its Retry-After. */
async function deniedBy(key, body, policies) {
  const response = await post(key, body);
  const refusal = await problem(response, 429);
  expect(refusal["violated-policies"]).toEqual(policies);
  return Number(response.headers.get("retry-after"));
}

/** `{ policy: [used, held, remaining] }` */
async function standing(key) {
  const { policies } = await usage(key);
  return Object.fromEntries(policies.map(({ policy, used, held, remaining }) => [policy, [used, held, remaining]]));
}

/** Rows that the object has written since it was started. */
async function rowsWritten(key) {
  const response = await stub(key).fetch(`https://key.object/v1/stats?id=${key.id}`);
  return (await response.json()).rows_written;
}

/** What D1 has of the key's months: `{ calls, denied }`, summed. */
async function inD1(key) {
  const [sums] = await sql("SELECT COALESCE(SUM(calls), 0) AS calls, COALESCE(SUM(denied), 0) AS denied FROM usage_monthly WHERE key_id = ?", key.id);
  return sums;
}

/** Ids of the open holds in the object's rows, of calls too, written as those of reservations are. */
async function openHolds(key) {
  const records = [...(await objectText(key)).matchAll(/\\"o\\":\\"([^"\\]*)/g)].flatMap(([, text]) => text.split(";").filter(Boolean));
  const digit = (number, at) => "abcdefghijklmnopqrstuvwxyz234567"[Number((number >> BigInt(5 * at)) & 31n)];
  const id = (number) => Array.from({ length: 13 }, (_, at) => digit(number, 12 - at)).join("");
  return [...new Set(records.map((record) => id(BigInt(`0x${record.split("|")[0]}`))))];
}

test("the hold of a running call is no reservation: it is in no list, and cannot be closed as one", async () => {
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/answer', 'POST', 'openai', 100, 400)");
  const key = await issueWith(tokens(1000, "day"));
  const made = await reserve(key, { tokens: 5 });
  const answer = JSON.stringify({ usage: { prompt_tokens: 10, completion_tokens: 60, total_tokens: 70 } });
  const query = new URLSearchParams({ parts: JSON.stringify([null, answer]), status: 200, headers: "{}" });
  const response = await call(key, `/answer?${query}`, { method: "POST", body: JSON.stringify({ max_tokens: 200 }), headers: { "Content-Type": "application/json" } });
  expect((await standing(key))["day-tokens"]).toEqual([0, 223, 777]);
  expect(await open(key)).toEqual([made]);
  const ids = (await openHolds(key)).filter((id) => id !== made.id);
  expect(ids).toHaveLength(1);
  for (const id of ids) {
    await problem(await admin("POST", path(key, id, "settle"), { tokens: 0 }), 404);
    await problem(await admin("DELETE", path(key, id)), 404);
  }
  expect((await standing(key))["day-tokens"]).toEqual([0, 223, 777]);
  await releaseOrigin();
  await response.text();
  expect((await standing(key))["day-tokens"]).toEqual([70, 5, 925]);
  await sql("DELETE FROM token_routes");
});

describe("a reservation", () => {
  test("is 201 with id, amounts and expiry, and the rate-limit fields", async () => {
    const key = await issueWith(tokens(1000, "day"), requests(5, "minute"));
    const response = await post(key, { tokens: 300, requests: 2, ttl_seconds: 90 });
    expect(response.status).toBe(201);
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(await response.clone().json()).toEqual({
      id: expect.stringMatching(/^[a-p][a-z2-7]{12}$/),
      tokens: 300,
      requests: 2,
      expires_at: "2031-03-12T12:01:30Z",
    });
    expect(rateLimit(response)).toEqual({ "day-tokens": { r: 700, t: 43_200 }, minute: { r: 3, t: 60 } });
    expect(response.headers.get("ratelimit-policy")).toContain('qu="tokens"');
  });

  test("has defaults: no requests, ten minutes", async () => {
    const key = await issueWith(tokens(1000, "day"));
    expect(await reserve(key, { tokens: 1 })).toMatchObject({ requests: 0, expires_at: "2031-03-12T12:10:00Z" });
  });

  test("of requests alone is possible, and calls at the gate cannot spend them", async () => {
    const key = await issueWith(requests(3, "minute"));
    const reservation = await reserve(key, { tokens: 0, requests: 2 });
    await admit(key, 1);
    await denied(key);
    expect((await release(key, reservation)).status).toBe(204);
    await admit(key, 2);
    await denied(key);
  });

  test("is in the list until it is closed", async () => {
    const key = await issueWith(tokens(1000, "day"));
    expect(await open(key)).toEqual([]);
    const made = [await reserve(key, { tokens: 1 }), await reserve(key, { tokens: 2 }), await reserve(key, { tokens: 3, ttl_seconds: 5 })];
    expect(await open(key)).toEqual(made);
    await settle(key, made[0], { tokens: 1 });
    wait(5);
    expect(await open(key)).toEqual([made[1]]);
    await release(key, made[1]);
    expect(await open(key)).toEqual([]);
  });

  test("that does not fit is 429 like a call, and counted as denied", async () => {
    const key = await issueWith(tokens(1000, "hour"), tokens(5000, "day"), requests(9, "minute"));
    await reserve(key, { tokens: 700 });
    setClock("2031-03-12T12:00:10.500Z");
    const response = await post(key, { tokens: 301 });
    expect(response.headers.get("retry-after")).toBe("3590");
    expect(rateLimit(response)).toMatchObject({ "hour-tokens": { r: 300 }, "day-tokens": { r: 4300 }, minute: { r: 9 } });
    expect(await problem(response, 429)).toEqual({
      type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
      title: "Quota Exceeded",
      status: 429,
      detail: "no quota left in hour-tokens: try again in 3590 s",
      "violated-policies": ["hour-tokens"],
      retry_after: 3590,
    });
    await reserve(key, { tokens: 300 });
    await runAlarm(key);
    expect((await inD1(key)).denied).toBe(1);
  });

  test.each([
    [{ tokens: 1001 }, "tokens: 1001 is more than the quota of 1000 of policy day-tokens: it can never be reserved"],
    [{ tokens: 1, requests: 6 }, "requests: 6 is more than the quota of 5 of policy minute: it can never be reserved"],
  ])("that no policy can ever fit is 400: %o", async (body, detail) => {
    const key = await issueWith(tokens(1000, "day"), requests(5, "minute"));
    expect((await problem(await post(key, body), 400)).detail).toBe(detail);
    expect(await standing(key)).toEqual({ "day-tokens": [0, 0, 1000], minute: [0, 0, 5] });
  });

  test("of a tier without token policies is always possible, and metered", async () => {
    const key = await issue("unlimited");
    const reservation = await reserve(key, { tokens: 1_000_000_000, requests: 1 });
    await settle(key, reservation, { tokens: 1_000_000_000 });
    expect((await usage(key)).calls).toBe(1);
  });
});

describe("settle and release", () => {
  test("what was not used is given back at once", async () => {
    const key = await issueWith(tokens(1000, "day"), tokens(9000, "month"));
    const reservation = await reserve(key, { tokens: 900, requests: 1 });
    expect(await standing(key)).toEqual({ "day-tokens": [0, 900, 100], "month-tokens": [0, 900, 8100] });
    await deniedBy(key, { tokens: 101 }, ["day-tokens"]);
    expect(await settle(key, reservation, { tokens: 250 })).toEqual({
      id: reservation.id,
      state: "settled",
      tokens: 250,
      requests: 1,
      reserved: { tokens: 900, requests: 1 },
      overdraft: 0,
    });
    expect(await standing(key)).toEqual({ "day-tokens": [250, 0, 750], "month-tokens": [250, 0, 8750] });
    await reserve(key, { tokens: 750 });
    await deniedBy(key, { tokens: 1 }, ["day-tokens"]);
    expect((await usage(key)).calls).toBe(1);
  });

  test("what was used beyond it is charged, and said", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 900 });
    expect(await settle(key, reservation, { tokens: 1200 })).toMatchObject({ tokens: 1200, overdraft: 300 });
    expect(await standing(key)).toEqual({ "day-tokens": [1200, 0, 0] });
    expect(await deniedBy(key, { tokens: 1 }, ["day-tokens"])).toBe(43_200);
  });

  test("settling twice changes nothing and says the same, also of another amount and after a release", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 900 });
    const settled = await settle(key, reservation, { tokens: 250 });
    expect(await settle(key, reservation, { tokens: 250 })).toEqual(settled);
    expect(await settle(key, reservation, { tokens: 999, requests: 7 })).toEqual(settled);
    expect((await release(key, reservation)).status).toBe(204);
    await crash(key);
    expect(await settle(key, reservation, { tokens: 1 })).toEqual(settled);
    expect(await standing(key)).toEqual({ "day-tokens": [250, 0, 750] });
  });

  test("releasing twice changes nothing, and a settle after it says so", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 900, requests: 1 });
    for (let i = 0; i < 2; i += 1) {
      const response = await release(key, reservation);
      expect([response.status, await response.text()]).toEqual([204, ""]);
    }
    expect(await settle(key, reservation, { tokens: 500 })).toMatchObject({ state: "released", tokens: 0, requests: 0, overdraft: 0 });
    expect(await standing(key)).toEqual({ "day-tokens": [0, 0, 1000] });
    expect((await usage(key)).calls).toBe(0);
  });

  test("a bucket gets back what it still has of it", async () => {
    const key = await issueWith(tokens(60, "minute", { algorithm: "bucket", burst: 600 }));
    const reservation = await reserve(key, { tokens: 600 });
    await deniedBy(key, { tokens: 1 }, ["minute-tokens"]);
    wait(60);
    // 60 have drained, so 540 are in the bucket.
    await settle(key, reservation, { tokens: 0 });
    await reserve(key, { tokens: 600 });
    await deniedBy(key, { tokens: 1 }, ["minute-tokens"]);
  });

  test("requests can be settled at another number", async () => {
    const key = await issueWith(requests(10, "minute"));
    const reservation = await reserve(key, { tokens: 0, requests: 8 });
    expect(await settle(key, reservation, { tokens: 0, requests: 3 })).toMatchObject({ requests: 3, reserved: { requests: 8 } });
    expect(await standing(key)).toEqual({ minute: [3, 0, 7] });
  });

  test("of an id that the key has not is 404, whatever it looks like", async () => {
    const [key, other] = [await issueWith(tokens(1000, "day")), await issueWith(tokens(1000, "day"))];
    const { id } = await reserve(other, { tokens: 1 });
    for (const wrong of [id, "aaaaaaaaaaaab", "x", "q777777777777", "%41aaaaaaaaaaab"]) {
      expect((await problem(await admin("POST", path(key, wrong, "settle"), { tokens: 1 }), 404)).detail).toBe("the key has no reservation with this id");
      await problem(await admin("DELETE", path(key, wrong)), 404);
    }
    expect(await open(other)).toHaveLength(1);
  });
});

describe("a reservation that nobody settles", () => {
  test("is charged whole when it lapses, by the alarm of a sleeping object, and flushed by it", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await reserve(key, { tokens: 400, requests: 1, ttl_seconds: 120 });
    expect(await alarmIn(key)).toBe(120_000);
    await evict(key);
    wait(119);
    expect((await usage(key)).calls).toBe(0);
    await evict(key);
    wait(1);
    await runAlarm(key);
    expect((await inD1(key)).calls).toBe(1);
    expect(await standing(key)).toEqual({ "day-tokens": [400, 0, 600] });
    // No more work: the object sleeps for ever.
    await runAlarm(key);
    expect(await alarmIn(key)).toBeNull();
  });

  test("sets the alarm for the first that lapses, and then for the next", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await reserve(key, { tokens: 400, ttl_seconds: 120 });
    await reserve(key, { tokens: 100, ttl_seconds: 30 });
    expect(await alarmIn(key)).toBe(30_000);
    wait(30);
    await runAlarm(key);
    // The flush of what has lapsed, and then the other one.
    await runAlarm(key);
    expect(await alarmIn(key)).toBe(90_000);
  });

  test("can be settled within 24 hours, which corrects everything", async () => {
    const key = await issueWith(tokens(1000, "day"), tokens(5000, "month"));
    const reservation = await reserve(key, { tokens: 900, requests: 1, ttl_seconds: 60 });
    const released = await reserve(key, { tokens: 50, requests: 1, ttl_seconds: 60 });
    wait(60);
    await runAlarm(key);
    expect((await usage(key)).calls).toBe(2);
    wait(3600);
    expect(await settle(key, reservation, { tokens: 200 })).toMatchObject({ state: "settled", tokens: 200, overdraft: 0 });
    expect((await release(key, released)).status).toBe(204);
    expect(await standing(key)).toEqual({ "day-tokens": [200, 0, 800], "month-tokens": [200, 0, 4800] });
    expect(await settle(key, reservation, { tokens: 999 })).toMatchObject({ tokens: 200 });
  });

  test("is forgotten a day after it was closed", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 900, ttl_seconds: 60 });
    wait(60 + 24 * 3600 - 1);
    expect(await settle(key, reservation, { tokens: 0 })).toMatchObject({ state: "settled" });
    wait(24 * 3600 + 1);
    await problem(await admin("POST", path(key, reservation.id, "settle"), { tokens: 0 }), 404);
  });
});

describe("the windows of a reservation are those in which it was made", () => {
  test("a settle after the end of the minute changes the month alone", async () => {
    setClock("2031-03-12T12:00:50.000Z");
    const key = await issueWith(tokens(1000, "minute"), tokens(5000, "month"));
    const reservation = await reserve(key, { tokens: 1000 });
    setClock("2031-03-12T12:01:00.000Z");
    await reserve(key, { tokens: 900 });
    await settle(key, reservation, { tokens: 100 });
    expect(await standing(key)).toEqual({ "minute-tokens": [0, 900, 100], "month-tokens": [100, 900, 4000] });
  });

  test("a settle in the next month is charged to the month before", async () => {
    setClock("2031-03-31T23:59:50.000Z");
    const key = await issueWith(tokens(1000, "month"));
    const reservation = await reserve(key, { tokens: 800, requests: 1 });
    setClock("2031-04-01T00:00:10.000Z");
    expect(await standing(key)).toEqual({ "month-tokens": [0, 0, 1000] });
    await settle(key, reservation, { tokens: 300 });
    await runAlarm(key);
    const rows = await sql("SELECT month, calls FROM usage_monthly WHERE key_id = ? AND calls > 0", key.id);
    expect(rows).toEqual([{ month: "2031-03", calls: 1 }]);
    expect(await usage(key)).toMatchObject({ month: "2031-04", calls: 0 });
    await reserve(key, { tokens: 1000 });
  });

  test("with another tier, usage and what is held carry over", async () => {
    const [small, large] = [await makeTier(tokens(1000, "day")), await makeTier(tokens(5000, "day"), requests(100, "hour"))];
    const key = await issue(small);
    const reservation = await reserve(key, { tokens: 900, requests: 2 });
    await api.json("PATCH", `/keys/${key.id}`, { tier: large });
    expect(await standing(key)).toEqual({ "day-tokens": [0, 900, 4100], hour: [0, 2, 98] });
    await api.json("PATCH", `/keys/${key.id}`, { tier: small });
    await deniedBy(key, { tokens: 101 }, ["day-tokens"]);
    await settle(key, reservation, { tokens: 100, requests: 1 });
    await api.json("PATCH", `/keys/${key.id}`, { tier: large });
    expect(await standing(key)).toEqual({ "day-tokens": [100, 0, 4900], hour: [1, 0, 99] });
  });
});

describe("what the object has in storage", () => {
  test.each([["evicted", evict], ["crashed", crash]])("an object that was %s has lost nothing", async (_how, end) => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 600 });
    await end(key);
    expect(await open(key)).toEqual([reservation]);
    await deniedBy(key, { tokens: 401 }, ["day-tokens"]);
    await settle(key, reservation, { tokens: 100 });
    await end(key);
    expect(await standing(key)).toEqual({ "day-tokens": [100, 0, 900] });
  });

  test("is written before a reservation is answered: 503 if it cannot be", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 100 });
    const mend = await breakWrites(key);
    await problem(await post(key, { tokens: 100 }), 503);
    await problem(await admin("POST", path(key, reservation.id, "settle"), { tokens: 1 }), 503);
    await problem(await release(key, reservation), 503);
    await mend();
    expect(await open(key)).toEqual([reservation]);
  });

  test("a reservation and its settle take one row each", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await settle(key, await reserve(key, { tokens: 1 }), { tokens: 1 });
    const before = await rowsWritten(key);
    await settle(key, await reserve(key, { tokens: 1 }), { tokens: 1 });
    expect((await rowsWritten(key)) - before).toBe(2);
    expect(await inObject(key, "SELECT COUNT(*) AS count FROM state")).toEqual([{ count: 1 }]);
  });

  test("concurrent reservations share rows", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await reserve(key, { tokens: 1 });
    const before = await rowsWritten(key);
    const all = await Promise.all(Array.from({ length: 40 }, () => post(key, { tokens: 50 })));
    const made = all.filter(({ status }) => status === 201);
    expect([made.length, all.filter(({ status }) => status === 429).length]).toEqual([19, 21]);
    expect((await rowsWritten(key)) - before).toBeLessThan(19);
  });
});

describe("a request that is lost", () => {
  /** Makes the object carry out the next request, and loses its response. */
  async function loseNext(key) {
    let lost = 0;
    const asked = await intercept(key, async (answer) => {
      const response = await answer();
      if ((lost += 1) > 1) return response;
      throw Object.assign(new Error("Network connection lost."), { retryable: true });
    });
    return asked;
  }

  test("is repeated under the same id, and reserves once", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await usage(key);
    const asked = await loseNext(key);
    const reservation = await reserve(key, { tokens: 600 });
    expect(asked).toEqual(["/v1/reserve", "/v1/reserve"]);
    expect(await open(key)).toEqual([reservation]);
    expect(await standing(key)).toEqual({ "day-tokens": [0, 600, 400] });
  });
});

describe("Idempotency-Key", () => {
  const named = (key, name, body) => post(key, body, { "Idempotency-Key": name });

  test("a repeat is the same reservation", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const [first, again] = [await named(key, "a b", { tokens: 600 }), await named(key, "a b", { tokens: 600, ttl_seconds: 5 })];
    expect([first.status, again.status]).toEqual([201, 201]);
    expect(await again.json()).toEqual(await first.json());
    expect((await named(key, "another", { tokens: 400 })).status).toBe(201);
    expect(await open(key)).toHaveLength(2);
  });

  test("with another amount it is 422, and after a settle or release 409", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await (await named(key, "a", { tokens: 600 })).json();
    expect(await problem(await named(key, "a", { tokens: 601 }), 422)).toMatchObject({ field: "Idempotency-Key" });
    await settle(key, reservation, { tokens: 1 });
    await problem(await named(key, "a", { tokens: 600 }), 409);
    expect(await open(key)).toEqual([]);
  });

  test("after it has lapsed the repeat says so, and can be settled", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const first = await (await named(key, "a", { tokens: 600, ttl_seconds: 5 })).json();
    wait(10);
    const response = await named(key, "a", { tokens: 600 });
    expect([response.status, await response.json()]).toEqual([201, first]);
    await settle(key, first, { tokens: 10 });
    expect(await standing(key)).toEqual({ "day-tokens": [10, 0, 990] });
  });

  test("names of different keys and of different admin tokens are independent", async () => {
    const [key, other] = [await issueWith(tokens(1000, "day")), await issueWith(tokens(1000, "day"))];
    const { token } = await api.json("POST", "/tokens", { name: "meter", scopes: ["write"] }, 201);
    const made = [await named(key, "a", { tokens: 6 }), await named(other, "a", { tokens: 6 }), await post(key, { tokens: 6 }, { "Idempotency-Key": "a", Authorization: `Bearer ${token}` })];
    expect(made.map(({ status }) => status)).toEqual([201, 201, 201]);
    const ids = await Promise.all(made.map(async (response) => (await response.json()).id));
    expect(new Set(ids).size).toBe(3);
  });

  test.each([[""], ["x".repeat(256)], ["ä"]])("%o is 400", async (name) => {
    const key = await issueWith(tokens(1000, "day"));
    await problem(await named(key, name, { tokens: 1 }), 400);
    expect(await open(key)).toEqual([]);
  });
});

describe("refusals", () => {
  test("1,000 open reservations are the most, whatever the policies say", async () => {
    const key = await issue("unlimited");
    for (let i = 0; i < 1000; i += 50) {
      const all = await Promise.all(Array.from({ length: 50 }, () => post(key, { tokens: 1, ttl_seconds: 600 })));
      expect(all.every(({ status }) => status === 201)).toBe(true);
      wait(0.1);
    }
    expect(await deniedBy(key, { tokens: 1 }, ["reservations"])).toBe(598);
    const [first] = await open(key);
    await release(key, first);
    await reserve(key, { tokens: 1 });
    await deniedBy(key, { tokens: 1 }, ["reservations"]);
    await admit(key, 3);
    wait(598);
    await reserve(key, { tokens: 1 });
  });

  test.each([
    ["disabled", { status: "disabled" }, "the API key is disabled"],
    ["expired", { expires_at: NOON }, "the API key is expired"],
  ])("a %s key reserves nothing, and what is open can be settled and released", async (_status, change, detail) => {
    const key = await issueWith(tokens(1000, "day"));
    const [one, other] = [await reserve(key, { tokens: 100 }), await reserve(key, { tokens: 100 })];
    await api.json("PATCH", `/keys/${key.id}`, change);
    const response = await post(key, { tokens: 1 });
    expect(rateLimitPolicy(response)).toHaveProperty("day-tokens");
    expect((await problem(response, 403)).detail).toBe(detail);
    expect(await open(key)).toHaveLength(2);
    expect(await settle(key, one, { tokens: 30 })).toMatchObject({ state: "settled" });
    expect((await release(key, other)).status).toBe(204);
  });

  test("a key that does not exist is 404, and nothing is stored", async () => {
    for (const id of ["abcdefghij234567", "import", "ABCDEFGHIJ234567", "x"]) {
      for (const [method, rest, body] of [["POST", [], { tokens: 1 }], ["GET", []], ["POST", ["aaaaaaaaaaaab", "settle"], { tokens: 1 }], ["DELETE", ["aaaaaaaaaaaab"]]]) {
        expect((await problem(await admin(method, path(id, ...rest), body), 404)).detail).toBe("there is no key with this id");
      }
    }
    const unknown = { id: "abcdefghij234567" };
    expect([await objectText(unknown), await alarmIn(unknown)]).toEqual(["", null]);
  });

  test("a key that appears in D1 after its object was asked is found at once", async () => {
    const tier = await makeTier(tokens(1000, "day"));
    const key = await issue(tier);
    const [row] = await sql("SELECT * FROM keys WHERE id = ?", key.id);
    await sql("DELETE FROM keys WHERE id = ?", key.id);
    await problem(await post(key, { tokens: 1 }), 404);
    const names = Object.keys(row);
    await sql(`INSERT INTO keys (${names.join()}) VALUES (${names.map(() => "?").join()})`, ...Object.values(row));
    await reserve(key, { tokens: 1 });
  });

  test.each([
    ["not JSON", "tokens", 400],
    ["a list", "[1]", 400],
    ["no tokens", {}, 422, "tokens"],
    ["nothing at all", { tokens: 0, requests: 0 }, 422, "tokens"],
    ["a negative number", { tokens: -1 }, 422, "tokens"],
    ["a fraction", { tokens: 1.5 }, 422, "tokens"],
    ["more than can be meant", { tokens: 1_000_000_001 }, 422, "tokens"],
    ["text", { tokens: 1, requests: "1" }, 422, "requests"],
    ["no time", { tokens: 1, ttl_seconds: 0 }, 422, "ttl_seconds"],
    ["more than an hour", { tokens: 1, ttl_seconds: 3601 }, 422, "ttl_seconds"],
    ["an unknown field", { tokens: 1, ttl: 5 }, 422, "ttl"],
  ])("a body with %s", async (_what, body, status, field) => {
    const key = await issueWith(tokens(1000, "day"));
    const refusal = await problem(await post(key, body), status);
    expect(refusal.field).toBe(field);
    expect(await open(key)).toEqual([]);
  });

  test("a body that settles nothing, or is too large", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 1 });
    for (const [body, field] of [[{}, "tokens"], [{ tokens: 1, requests: -1 }, "requests"], [{ tokens: 1, state: "x" }, "state"]]) {
      expect((await problem(await admin("POST", path(key, reservation.id, "settle"), body), 422)).field).toBe(field);
    }
    await problem(await post(key, " ".repeat(65 * 1024)), 413);
    await problem(await admin("POST", path(key, reservation.id, "settle"), " ".repeat(65 * 1024)), 413);
    expect(await open(key)).toEqual([reservation]);
  });

  test("the scope `read` lists, and changes nothing", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 1 });
    const { token } = await api.json("POST", "/tokens", { name: "reader", scopes: ["read"] }, 201);
    const as = { Authorization: `Bearer ${token}` };
    expect((await admin("GET", path(key), undefined, as)).status).toBe(200);
    await problem(await post(key, { tokens: 1 }, as), 403);
    await problem(await admin("POST", path(key, reservation.id, "settle"), { tokens: 1 }, as), 403);
    await problem(await admin("DELETE", path(key, reservation.id), undefined, as), 403);
  });

  test("without an admin token, or with the API key itself, everything is 401", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 1 });
    const own = { Authorization: `Bearer ${key.key}` };
    for (const as of [{ Authorization: "" }, own]) {
      for (const [method, parts, body] of [["GET", []], ["POST", [], { tokens: 1 }], ["POST", [reservation.id, "settle"], { tokens: 1 }], ["DELETE", [reservation.id]]]) {
        await problem(await admin(method, path(key, ...parts), body, as), 401);
      }
    }
    expect(await open(key)).toEqual([reservation]);
  });

  test("unknown query parameters and other methods", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await problem(await admin("GET", `${path(key)}?limit=5`), 400);
    const response = await admin("PUT", path(key), { tokens: 1 });
    expect(response.headers.get("allow")).toBe("GET, HEAD, POST");
    await problem(response, 405);
  });
});

describe("D1", () => {
  test("is not read for the root token, and may be down", async () => {
    const key = await issueWith(tokens(1000, "day"));
    await reserve(key, { tokens: 1 });
    const asked = listenToD1(() => Promise.reject(new Error("D1 is down")));
    const reservation = await reserve(key, { tokens: 100 });
    expect(await open(key)).toHaveLength(2);
    await settle(key, reservation, { tokens: 10 });
    expect((await release(key, reservation)).status).toBe(204);
    await deniedBy(key, { tokens: 990 }, ["day-tokens"]);
    expect(asked).toEqual([]);
    // The profile is too old, and cannot be read again.
    wait(120);
    await reserve(key, { tokens: 100 });
    expect(asked.length).toBeGreaterThan(0);
  });

  test("there is no entry of the admin log", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const count = async () => (await sql("SELECT COUNT(*) AS count FROM admin_log"))[0].count;
    const before = await count();
    await settle(key, await reserve(key, { tokens: 1 }), { tokens: 1 });
    await release(key, await reserve(key, { tokens: 1 }));
    expect(await count()).toBe(before);
  });

  test("a key that is deleted meanwhile is charged what was open, and then its object is gone", async () => {
    const key = await issueWith(tokens(1000, "day"));
    const reservation = await reserve(key, { tokens: 100, requests: 1, ttl_seconds: 300 });
    expect((await admin("DELETE", `/keys/${key.id}`)).status).toBe(204);
    await problem(await admin("POST", path(key, reservation.id, "settle"), { tokens: 1 }), 404);
    expect(await objectText(key)).not.toBe("");
    expect(await alarmIn(key)).toBe(300_000);
    wait(300);
    await runAlarm(key);
    expect((await inD1(key)).calls).toBe(1);
    expect([await objectText(key), await alarmIn(key)]).toEqual(["", null]);
  });
});

test("/usage and /me show what is held beside what is used", async () => {
  const key = await issueWith(tokens(1000, "day"), requests(10, "hour"));
  await settle(key, await reserve(key, { tokens: 200 }), { tokens: 150 });
  await reserve(key, { tokens: 300, requests: 2 });
  await admit(key, 1);
  const shown = [
    expect.objectContaining({ policy: "hour", used: 1, held: 2, remaining: 7 }),
    expect.objectContaining({ policy: "day-tokens", quota: 1000, used: 150, held: 300, remaining: 550 }),
  ];
  expect((await usage(key)).policies).toEqual(shown);
  expect(await used(key)).toEqual({ "day-tokens": 150, hour: 1 });
  const me = await call(key, "/_tollgate/me");
  expect((await me.json()).policies).toEqual(shown);
  // A response that this isolate has kept is dropped by a reservation.
  await reserve(key, { tokens: 50 });
  expect((await (await call(key, "/_tollgate/me")).json()).policies[1]).toMatchObject({ held: 350 });
});

test("a key that was disabled by hand is refused once its object has read it", async () => {
  const key = await issueWith(tokens(1000, "day"));
  await reserve(key, { tokens: 1 });
  await setKey(key, "status", "disabled");
  wait(60);
  await problem(await post(key, { tokens: 1 }), 403);
});
