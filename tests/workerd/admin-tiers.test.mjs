// Tiers through the admin API. A change is pushed to every key of the tier, without a read of D1 by
// any object.
import { describe, expect, test } from "vitest";
import { makeTier, setKey, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, rateLimit, rateLimitPolicy, statuses, usage, wait } from "./lib/gate.mjs";
import { crash, evict, intercept, stub } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

let made = 0;
const newTier = () => `made-${(made += 1)}`;
const day = (quota) => ({ policies: [{ policy: "day", quota, period: "day" }] });

async function put(tier, body, status = 200) {
  const response = await admin("PUT", `/tiers/${tier}`, body);
  expect(response.status).toBe(status);
  return response.json();
}

async function read(path) {
  const response = await admin("GET", path);
  expect(response.status).toBe(200);
  return response.json();
}

/** Number of reads of D1 by a key's object. */
const d1Reads = async (key) => (await (await stub(key).fetch(`https://key.object/v1/stats?id=${key.id}`)).json()).d1_reads;

describe("GET", () => {
  test("lists the shipped tiers by name, in pages", async () => {
    const { tiers } = await read("/tiers?limit=500");
    expect(tiers.find(({ name }) => name === "free")).toEqual(await read("/tiers/free"));
    expect(tiers.filter(({ name }) => !/-/.test(name)).map(({ name, audit_days }) => [name, audit_days])).toEqual([
      ["basic", 30], ["enterprise", 365], ["free", 7], ["pro", 90], ["unlimited", 0],
    ]);
    const first = await read("/tiers?limit=1");
    expect(first.tiers.map(({ name }) => name)).toEqual(["basic"]);
    expect((await read(`/tiers?limit=1&cursor=${first.next_cursor}`)).tiers.map(({ name }) => name)).toEqual(["enterprise"]);
    await problem(await admin("GET", "/tiers?limit=0"), 400);
    await problem(await admin("GET", "/tiers?name=x"), 400);
  });

  test("reads one, with its policies in the order of their periods", async () => {
    const policy = (name, quota) => ({ policy: name, unit: "requests", quota, period: name, algorithm: "fixed", burst: null });
    expect(await read("/tiers/free")).toEqual({
      name: "free", description: "10 requests a minute, 1,000 a month", audit_days: 7, idempotency: "on",
      policies: [policy("minute", 10), policy("month", 1000)],
    });
    for (const name of ["gold", "Free", "%27"]) await problem(await admin("GET", `/tiers/${name}`), 404);
  });
});

describe("PUT", () => {
  test("creates a tier with 201, and replaces all of it with 200", async () => {
    const name = newTier();
    const bucket = { policy: "burst", unit: "tokens", quota: 60, period: "hour", algorithm: "bucket", burst: 5 };
    const fixed = { policy: "month", unit: "requests", quota: 9, period: "month", algorithm: "fixed", burst: null };
    const first = { description: "gold", audit_days: 14, idempotency: "off", policies: [bucket, fixed] };
    expect(await put(name, { ...first, policies: [fixed, bucket] }, 201)).toEqual({ name, ...first, pushed: 0, pending: 0 });
    expect(await read(`/tiers/${name}`)).toEqual({ name, ...first });
    const key = await issue(name);
    expect(rateLimitPolicy(await call(key))).toMatchObject({ month: { q: 9 } });
    const second = { description: "", audit_days: 0, idempotency: "on", policies: [] };
    expect(await put(name, { policies: [] })).toEqual({ name, ...second, pushed: 1, pending: 0 });
    expect(await read(`/tiers/${name}`)).toEqual({ name, ...second });
  });

  test.each([
    ["no JSON", "gold", "{", 400, undefined],
    ["no policies", "gold", {}, 422, "policies"],
    ["policies that are no list", "gold", { policies: {} }, 422, "policies"],
    ["an unknown field", "gold", { policies: [], name: "gold" }, 422, "name"],
    ["a description that is too long", "gold", { policies: [], description: "x".repeat(201) }, 422, "description"],
    ["audit_days beyond 10 years", "gold", { policies: [], audit_days: 3651 }, 422, "audit_days"],
    ["idempotency that is neither on nor off", "gold", { policies: [], idempotency: "maybe" }, 422, "idempotency"],
    ["a policy without a quota", "gold", { policies: [{ policy: "a", period: "day" }] }, 422, "policies[0].quota"],
    ["a policy with an unknown field", "gold", { policies: [{ policy: "a", quota: 1, period: "day", x: 1 }] }, 422, "policies[0].x"],
    ["a policy of another period", "gold", { policies: [{ policy: "a", quota: 1, period: "year" }] }, 422, "policies[0].period"],
    ["a policy that cannot be kept", "gold", { policies: [{ policy: "a", quota: 0, period: "day", algorithm: "sliding" }] }, 422, "policies[0].quota"],
    ["tokens that slide", "gold", { policies: [{ policy: "a", unit: "tokens", quota: 1, period: "day", algorithm: "sliding" }] }, 422, "policies[0].algorithm"],
    ["two policies of one name", "gold", { policies: [...day(1).policies, ...day(2).policies] }, 422, "policies[1].policy"],
    ["17 policies", "gold", { policies: Array.from({ length: 17 }, (_, n) => ({ policy: `p${n}`, quota: 1, period: "day" })) }, 422, "policies"],
    ["a name in capitals", "Gold", { policies: [] }, 422, "name"],
    ["a name that is too long", "x".repeat(33), { policies: [] }, 422, "name"],
    ["more than 64 KiB", "gold", { policies: [], description: "x".repeat(66_000) }, 413, undefined],
  ])("makes no tier from %s", async (_what, name, body, status, field) => {
    expect((await problem(await admin("PUT", `/tiers/${name}`, body), status)).field).toBe(field);
    expect(await sql("SELECT name FROM tiers WHERE name IN ('gold', 'Gold')")).toEqual([]);
  });

  test("takes 16 policies", async () => {
    const policies = Array.from({ length: 16 }, (_, n) => ({ policy: `p${n}`, quota: 1, period: "day" }));
    expect((await put(newTier(), { policies }, 201)).policies).toHaveLength(16);
  });
});

describe("DELETE", () => {
  const logOf = async (name) => (await read(`/log?target=tiers/${name}`)).entries;

  test("removes a tier that no key has, with its policies, and is logged", async () => {
    const name = newTier();
    const { pushed: _, pending: __, ...tier } = await put(name, day(5), 201);
    const response = await admin("DELETE", `/tiers/${name}`);
    expect(response.status).toBe(204);
    expect(await response.text()).toBe("");
    await problem(await admin("GET", `/tiers/${name}`), 404);
    expect(await sql("SELECT * FROM tier_limits WHERE tier = ?", name)).toEqual([]);
    expect((await logOf(name))[0]).toMatchObject({ actor: "root", action: "delete", before: tier, after: null });
    expect((await problem(await admin("POST", "/keys", { tier: name }), 422)).field).toBe("tier");
    await problem(await admin("DELETE", `/tiers/${name}`), 404);
  });

  test.each(["active", "disabled", "revoked"])("is 409 while a key of it is %s, and changes nothing", async (status) => {
    const name = newTier();
    await put(name, day(5), 201);
    const keys = [await issue(name), await issue(name)];
    await setKey(keys[0], "status", status);
    expect((await problem(await admin("DELETE", `/tiers/${name}`), 409)).detail).toMatch(/^2 keys have this tier/);
    await admin("PATCH", `/keys/${keys[1].id}`, { tier: "free" });
    expect((await problem(await admin("DELETE", `/tiers/${name}`), 409)).detail).toMatch(/^1 key has this tier/);
    expect(await read(`/tiers/${name}`)).toMatchObject(day(5));
    expect(await logOf(name)).toHaveLength(1);
    await admin("DELETE", `/keys/${keys[0].id}`);
    expect((await admin("DELETE", `/tiers/${name}`)).status).toBe(204);
  });

  test("and a concurrent issue of a key: one of both is refused", async () => {
    const outcomes = new Set();
    for (let n = 0; n < 20; n += 1) {
      const name = newTier();
      await put(name, day(5), 201);
      const requests = [admin("POST", "/keys", { tier: name }), admin("DELETE", `/tiers/${name}`)];
      const [issued, deleted] = await Promise.all(n % 2 ? requests : requests.toReversed()).then((answers) => (n % 2 ? answers : answers.toReversed()));
      outcomes.add(`${issued.status} ${deleted.status}`);
      const [{ count }] = await sql("SELECT COUNT(*) AS count FROM keys k LEFT JOIN tiers t ON t.name = k.tier WHERE t.name IS NULL");
      expect(count).toBe(0);
    }
    for (const outcome of outcomes) expect(["201 409", "422 204"]).toContain(outcome);
  });

  test("and its pushed changes never apply to a later tier of its name", async () => {
    const name = newTier();
    await put(name, day(1), 201);
    await put(name, day(1));
    const key = await issue();
    expect((await admin("DELETE", `/tiers/${name}`)).status).toBe(204);
    await put(name, day(3), 201);
    await admin("PATCH", `/keys/${key.id}`, { tier: name });
    await admit(key, 2);
    const late = { tier: name, version: 2, audit_days: 0, policies: [{ policy: "day", unit: "requests", quota: 1, period: "day", algorithm: "fixed" }] };
    const response = await stub(key).fetch(`https://key.object/v1/adopt?id=${key.id}`, { method: "POST", body: JSON.stringify(late) });
    expect(response.ok).toBe(true);
    await response.text();
    expect(await statuses(key, 2)).toEqual([200, 429]);
  });

  test.each([["of a name that cannot be", "Free"], ["that was never there", "gold"], ["with an id in its place", "%27"]])(
    "is 404 for a tier %s", async (_what, name) => {
      await problem(await admin("DELETE", `/tiers/${name}`), 404);
    },
  );
});

describe("a change", () => {
  test("applies to the next request of keys whose objects are warm, evicted, crashed and new; usage carries over", async () => {
    const tier = await makeTier({ quota: 3, period: "day" });
    const keys = [];
    for (let n = 0; n < 4; n += 1) keys.push(await issue(tier));
    const [warm, evicted, crashed, fresh] = keys;
    for (const key of [warm, evicted, crashed]) expect(await statuses(key, 4)).toEqual([200, 200, 200, 429]);
    await evict(evicted);
    await crash(crashed);
    expect(await put(tier, day(5))).toMatchObject({ pushed: 4, pending: 0 });
    for (const key of [warm, evicted, crashed]) expect(await statuses(key, 3)).toEqual([200, 200, 429]);
    expect(await statuses(fresh, 6)).toEqual([200, 200, 200, 200, 200, 429]);
    await put(tier, day(2));
    for (const key of keys) {
      expect(rateLimit(await call(key))).toMatchObject({ day: { r: 0 } });
      expect((await usage(key)).policies).toMatchObject([{ quota: 2, used: 5 }]);
    }
  });

  test("is kept by the object when it is evicted after the push", async () => {
    const tier = await makeTier({ quota: 1, period: "day" });
    const key = await issue(tier);
    await admit(key, 1);
    await put(tier, day(2));
    await evict(key);
    const giveBack = await takeAway("keys");
    expect(await statuses(key, 2)).toEqual([200, 429]);
    await giveBack();
  });

  test("applies with D1 down too, in an object that was idle for long", async () => {
    const tier = await makeTier({ quota: 1, period: "day" });
    const key = await issue(tier);
    await admit(key, 1);
    await evict(key);
    wait(3600);
    await put(tier, day(2));
    await evict(key);
    const giveBack = await takeAway("keys");
    expect(await statuses(key, 2)).toEqual([200, 429]);
    await giveBack();
  });

  test("leaves the keys of other tiers and the overrides alone", async () => {
    const tier = await makeTier({ quota: 1, period: "day" });
    const [other, own] = [await issue(), await issue(tier)];
    await admin("PUT", `/keys/${own.id}/overrides/day`, { quota: 3, period: "day" });
    await admit(other, 1);
    await admit(own, 1);
    const moved = await issue(tier);
    await admit(moved, 1);
    await setKey(moved, "tier", "free");
    await put(tier, day(2));
    expect(await statuses(own, 3)).toEqual([200, 200, 429]);
    await admit(other, 9);
    await denied(other);
  });

  test("that arrives late does not undo a newer one", async () => {
    const tier = await makeTier({ quota: 9, period: "day" });
    const key = await issue(tier);
    await admit(key, 1);
    await put(tier, day(1));
    await denied(key);
    await put(tier, day(3));
    const old = { tier, version: 1, audit_days: 0, policies: [{ policy: "day", unit: "requests", quota: 1, period: "day", algorithm: "fixed" }] };
    const response = await stub(key).fetch(`https://key.object/v1/adopt?id=${key.id}`, { method: "POST", body: JSON.stringify(old) });
    expect(response.ok).toBe(true);
    await response.text();
    expect(await statuses(key, 3)).toEqual([200, 200, 429]);
  });

  test("that does not reach an object is reported as pending, and takes effect within 60 seconds", async () => {
    const tier = await makeTier({ quota: 1, period: "day" });
    const keys = [await issue(tier), await issue(tier), await issue(tier)];
    for (const key of keys) await admit(key, 1);
    const [deaf] = keys;
    await intercept(deaf, () => new Response(null, { status: 500 }));
    expect(await put(tier, day(2))).toMatchObject({ pushed: 2, pending: 1 });
    expect(logged.join()).toMatch(/did not (reach every object|fan out a change)/);
    for (const key of keys.slice(1)) expect(await statuses(key, 2)).toEqual([200, 429]);
    await crash(deaf);
    await denied(deaf);
    wait(60);
    expect(await statuses(deaf, 2)).toEqual([200, 429]);
  });

  test("reaches 600 keys, of which 200 are in use, without a read of D1 by any object", { timeout: 120_000 }, async () => {
    const tier = await makeTier({ quota: 1, period: "day" });
    const keys = [];
    while (keys.length < 200) keys.push(...(await Promise.all(Array.from({ length: 20 }, () => issue(tier)))));
    await Promise.all(keys.map((key) => admit(key, 1)));
    const idle = Array.from({ length: 400 }, (_, n) => n.toString(4).padStart(16, "0").replace(/\d/g, (digit) => "abcd"[digit]));
    const insert = "INSERT INTO keys (id, tier, secret_hash, created_at) SELECT value, ?, ?, '' FROM json_each(?)";
    await sql(insert, tier, "0".repeat(64), JSON.stringify(idle));
    const before = await Promise.all(keys.map(d1Reads));
    expect(await put(tier, day(2))).toMatchObject({ pushed: 600, pending: 0 });
    const giveBack = await takeAway("keys", "tier_limits");
    const second = await Promise.all(keys.map((key) => statuses(key, 2)));
    await giveBack();
    expect(second).toEqual(keys.map(() => [200, 429]));
    // An evicted object counts from 0 again.
    const after = await Promise.all(keys.map(d1Reads));
    expect(after.filter((reads, n) => reads > 0 && reads !== before[n])).toEqual([]);
    expect(logged).toEqual([]);
  });
});
