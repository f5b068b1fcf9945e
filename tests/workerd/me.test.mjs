// Self-service: GET /_tollgate/me and /_tollgate/me/usage.
import { describe, expect, test } from "vitest";
import { listenToD1, setKey, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, rateLimit, received, send, setClock, usage, wait } from "./lib/gate.mjs";
import { forge, mistype } from "./lib/keys.mjs";
import { countObjects, evict, intercept, loseStorage, refresh, runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

const PATHS = ["/_tollgate/me", "/_tollgate/me/usage"];

async function ask(key, path, init) {
  const response = await call(key, path, init);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("cache-control")).toBe("no-store");
  return response.json();
}
const me = (key) => ask(key, "/_tollgate/me");
const meUsage = (key) => ask(key, "/_tollgate/me/usage");

const addHour = (key, hour, epoch, calls, part = {}) =>
  sql(
    "INSERT INTO usage_hourly (key_id, hour, class, epoch, calls, denied, cost, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    key.id, hour, part.class ?? "GET /v1", epoch, calls, part.denied ?? 0, part.cost ?? calls, hour,
  );
const addMonth = (key, month, epoch, calls, denied, cost) =>
  sql(
    "INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, cost, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    key.id, month, epoch, calls, denied, cost, "2031-03-01T00:00:00Z",
  );

describe("GET /_tollgate/me", () => {
  test("returns the policy usage of the key", async () => {
    const key = await issue("free");
    await admin("PATCH", `/keys/${key.id}`, { expires_at: "2031-12-31T01:00:00+01:00" });
    await admit(key, 3);
    const { policies } = await usage(key);
    expect(await me(key)).toEqual({ key_id: key.id, tier: "free", status: "active", expires_at: "2031-12-31T00:00:00Z", policies });
    expect(policies[0]).toMatchObject({ policy: "minute", used: 3, remaining: 7 });
  });

  test("handles a key without limits and without an expiry", async () => {
    const key = await issue("unlimited");
    expect(await me(key)).toEqual({ key_id: key.id, tier: "unlimited", status: "active", expires_at: null, policies: [] });
  });

  test("shows the key's own policies", async () => {
    const key = await issue("free");
    await admin("PUT", `/keys/${key.id}/overrides/minute`, { quota: 77, period: "minute" });
    expect((await me(key)).policies[0]).toMatchObject({ policy: "minute", quota: 77 });
  });

  test("answers an exhausted key, and while D1 is down", async () => {
    const key = await issue("free");
    await admit(key, 10);
    await denied(key);
    const giveBack = await takeAway("keys", "tiers", "tier_limits");
    expect((await me(key)).policies[0]).toMatchObject({ used: 10, remaining: 0 });
    await giveBack();
  });
});

describe("GET /_tollgate/me/usage", () => {
  test("sums months over their epochs; the current one is from the object", async () => {
    const key = await issue("unlimited");
    for (const [month, epoch, calls] of [["2030-03", "a", 900], ["2030-04", "a", 4], ["2031-02", "a", 5], ["2031-02", "b", 6]]) {
      await addMonth(key, month, epoch, calls, 1, calls * 2);
    }
    await addMonth(key, "2031-03", "a", 100, 7, 300);
    await admit(key, 2);
    const current = (calls) => [
      { month: "2030-04", calls: 4, denied: 1, cost: 8, tokens: 0 },
      { month: "2031-02", calls: 11, denied: 2, cost: 22, tokens: 0 },
      { month: "2031-03", calls: 100 + calls, denied: 7, cost: 300 + calls, tokens: 0 },
    ];
    expect(await meUsage(key)).toEqual({ key_id: key.id, months: current(2), hours: [] });
    await runAlarm(key);
    await admit(key, 1);
    expect((await meUsage(key)).months).toEqual(current(3));
    await runAlarm(key);
    await loseStorage(key);
    await admit(key, 1);
    expect((await meUsage(key)).months.at(-1)).toMatchObject({ month: "2031-03", calls: 104 });
  });

  test("returns the current hour and the 23 before it, by class", async () => {
    setClock("2031-03-12T12:34:56Z");
    const key = await issue("unlimited");
    await addHour(key, "2031-03-11T12:00:00Z", "a", 1);
    await addHour(key, "2031-03-11T13:00:00Z", "a", 2, { denied: 1 });
    await addHour(key, "2031-03-12T12:00:00Z", "b", 3, { class: "b", cost: 9 });
    await addHour(key, "2031-03-12T12:00:00Z", "a", 4);
    await addHour(key, "2031-03-12T12:00:00Z", "b", 5);
    expect((await meUsage(key)).hours).toEqual([
      { hour: "2031-03-11T13:00:00Z", class: "GET /v1", calls: 2, denied: 1, cost: 2, tokens: 0 },
      { hour: "2031-03-12T12:00:00Z", class: "GET /v1", calls: 9, denied: 0, cost: 9, tokens: 0 },
      { hour: "2031-03-12T12:00:00Z", class: "b", calls: 3, denied: 0, cost: 9, tokens: 0 },
    ]);
  });

  test("returns the usage of one key alone", async () => {
    const [key, other] = [await issue("unlimited"), await issue("unlimited")];
    await addMonth(other, "2031-02", "a", 5, 0, 5);
    await addHour(other, "2031-03-12T12:00:00Z", "a", 1);
    await admit(other, 1);
    const months = [{ month: "2031-03", calls: 0, denied: 0, cost: 0, tokens: 0 }];
    expect(await meUsage(key)).toEqual({ key_id: key.id, months, hours: [] });
  });

  test("while D1 is down it is 503 with Retry-After, without the cause", async () => {
    const key = await issue("free");
    await admit(key, 1);
    const giveBack = await takeAway("usage_hourly");
    const response = await call(key, "/_tollgate/me/usage");
    await giveBack();
    expect(response.headers.get("retry-after")).toBe("1");
    expect(JSON.stringify(await problem(response, 503))).not.toMatch(/table|SQL|D1/i);
    expect(logged).toHaveLength(1);
  });
});

describe.each(PATHS)("GET %s", (path) => {
  test("spends nothing, reaches no origin, and has the rate-limit fields", async () => {
    const key = await issue("free");
    await admit(key, 4);
    for (let i = 0; i < 20; i += 1) {
      const response = await call(key, path);
      expect(rateLimit(response)).toMatchObject({ minute: { r: 6 }, month: { r: 996 } });
      expect(response.headers.get("x-ratelimit-remaining")).toBe("6");
      expect(response.headers.get("x-monthly-remaining")).toBe("996");
    }
    expect((await usage(key)).calls).toBe(4);
    expect(await received()).toHaveLength(4);
  });

  test("accepts the key as the gate does, and HEAD too", async () => {
    const key = await issue();
    await ask(key, path);
    expect((await send(path, { headers: { Authorization: `Bearer ${key.key}` } })).status).toBe(200);
    const head = await call(key, path, { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
    await evict(key);
    await ask(key, path);
  });

  test("401 without a key, and for keys that are malformed, forged or gone, as at the gate", async () => {
    await problem(await send(path), 401);
    const known = await issue();
    const gone = await issue();
    await admin("DELETE", `/keys/${gone.id}`);
    const before = await countObjects();
    for (const presented of ["", "hello", mistype(known.key)]) await problem(await call(presented, path), 401);
    expect(await countObjects()).toBe(before);
    for (const presented of ["", "hello", mistype(known.key), await forge(), await forge({ id: known.id }), gone]) {
      const [here, there] = [await call(presented, path), await call(presented, "/")];
      expect(here.headers.get("www-authenticate")).toBe(there.headers.get("www-authenticate"));
      expect(await problem(here, 401)).toEqual(await problem(there, 401));
    }
    await problem(await admin("GET", path.replace("/_tollgate", "")), 401);
  });

  test("a replaced secret is valid during its grace period", async () => {
    const key = await issue();
    await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 60 });
    await ask(key, path);
    wait(60);
    await problem(await call(key, path), 401);
  });

  test("400 for two credentials, and for an unknown query", async () => {
    const key = await issue();
    await problem(await call(key, path, { headers: { Authorization: `Bearer ${key.key}` } }), 400);
    expect(await problem(await call(key, `${path}?id=x`), 400)).toMatchObject({ detail: expect.stringContaining("`id`") });
  });

  test.each(["disabled", "revoked"])("403 for a key that is %s, with the fields", async (status) => {
    const key = await issue();
    await setKey(key, "status", status);
    const response = await call(key, path);
    expect(response.headers.has("ratelimit")).toBe(true);
    expect((await problem(response, 403)).detail).toContain(status);
  });

  test("405 for other methods", async () => {
    const response = await call(await issue(), path, { method: "POST" });
    expect(response.headers.get("allow")).toBe("GET, HEAD");
    await problem(response, 405);
  });
});

describe.each(PATHS)("the limits of %s", (path) => {
  const flood = (key, count) => Promise.all(Array.from({ length: count }, () => call(key, path)));

  test("30 at once and one a second, for each secret", async () => {
    const [key, other] = [await issue("free"), await issue("free")];
    await admit(key, 10);
    await denied(key);
    expect((await call(key, path)).status).toBe(200);
    const all = await flood(key, 100);
    expect(all.map(({ status }) => status).sort()).toEqual([...Array(29).fill(200), ...Array(71).fill(429)]);
    const refused = all.find(({ status }) => status === 429);
    expect(rateLimit(refused)).toMatchObject({ minute: { r: 0 }, month: { r: 990 } });
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await problem(refused, 429)).toEqual({
      type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
      title: "Quota Exceeded",
      status: 429,
      detail: "no quota left in self-service: try again in 1 s",
      "violated-policies": ["self-service"],
      retry_after: 1,
    });
    for (const elsewhere of PATHS) await problem(await call(key, elsewhere), 429);
    await ask(other, path);
    const { key: rotated } = await (await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 60 })).json();
    await ask(rotated, path);
    await problem(await call(key, path), 429);
    wait(1);
    await ask(key, path);
    await problem(await call(key, path), 429);
    wait(60);
    expect((await usage(key)).calls).toBe(10);
  });

  test("a response is reused for a second, unless the key is called or changed", async () => {
    const key = await issue("pro");
    await admit(key, 1);
    const questions = await intercept(key);
    const queries = listenToD1();
    const asked = async () => {
      const before = [questions, queries].map(({ length }) => length);
      const response = await call(key, path);
      expect(response.status).toBe(200);
      const after = [questions, queries].map(({ length }) => length);
      return { body: await response.json(), left: rateLimit(response).minute.r, isKept: after.every((count, n) => count === before[n]) };
    };
    const first = await asked();
    expect(first).toMatchObject({ left: 199, isKept: false });
    for (let n = 0; n < 5; n += 1) expect(await asked()).toEqual({ ...first, isKept: true });
    wait(0.999);
    expect(await asked()).toEqual({ ...first, isKept: true });
    wait(0.001);
    expect(await asked()).toEqual({ ...first, isKept: false });
    await admit(key, 1);
    expect(await asked()).toMatchObject({ left: 198, isKept: false });
    expect(await asked()).toMatchObject({ left: 198, isKept: true });
    await admin("PUT", `/keys/${key.id}/overrides/minute`, { quota: 300, period: "minute" });
    expect(await asked()).toMatchObject({ left: 298, isKept: false });
    await admin("POST", `/keys/${key.id}/revoke`);
    await problem(await call(key, path), 403);
    await problem(await call(key, path), 403);
  });

  test("a key that another isolate has revoked gets the earlier response for up to a second", async () => {
    const key = await issue("free");
    await ask(key, path);
    await setKey(key, "status", "revoked");
    await refresh(key);
    await ask(key, path);
    wait(1);
    await problem(await call(key, path), 403);
  });

  test("a cached response is for the same secret only", async () => {
    const [key, other] = [await issue("free"), await issue("pro")];
    const { key: rotated } = await (await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 60 })).json();
    for (let n = 0; n < 3; n += 1) {
      expect((await ask(key, path)).key_id).toBe(key.id);
      expect((await ask(rotated, path)).key_id).toBe(key.id);
      expect((await ask(other, path)).key_id).toBe(other.id);
      await problem(await call(mistype(key.key), path), 401);
      await problem(await call(await forge({ id: key.id }), path), 401);
    }
  });
});
