// The life cycle of a key: issued, listed, changed, rotated, revoked, deleted. Each change takes
// effect with the next request.
import { describe, expect, test } from "vitest";
import { setKey, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, issuedKeys, problem, rateLimitPolicy, usage, wait } from "./lib/gate.mjs";
import { evict, intercept, objectText, runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

const ID = "abcdefghij234567";

async function create(body) {
  const response = await admin("POST", "/keys", { tier: "free", ...body });
  expect(response.status).toBe(201);
  const key = await response.json();
  issuedKeys.push(key.key);
  return key;
}

async function ok(response, status = 200) {
  expect(response.status).toBe(status);
  return response.json();
}

const read = async (key) => ok(await admin("GET", `/keys/${key.id}`));
const patch = async (key, body) => ok(await admin("PATCH", `/keys/${key.id}`, body));

async function rotate(key, grace_seconds = 0) {
  const rotated = await ok(await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds }));
  issuedKeys.push(rotated.key);
  return rotated;
}

/** Prevents notifications of the object, as a network failure does. */
async function deafen(key) {
  const asked = await intercept(key, (answer) => (asked.at(-1) === "/v1/refresh" ? new Response(null, { status: 500 }) : answer()));
}

describe("a new key", () => {
  test("has the given fields, and its expiry in UTC", async () => {
    const metadata = { plan: { seats: 3, of: ["a", null, 1.5] }, "ä": "ö" };
    const key = await create({ name: "n", owner: "o", metadata, expires_at: "2031-03-12T14:00:00.5+01:00" });
    expect(key).toMatchObject({ name: "n", owner: "o", metadata, expires_at: "2031-03-12T13:00:00.500Z", status: "active" });
    const { key: text, ...rest } = key;
    expect(rest.hint).toBe(text.slice(-4));
    expect(await read(key)).toEqual(rest);
  });

  test("may have 4096 bytes of metadata", async () => {
    const key = await create({ metadata: { a: "x".repeat(4088) } });
    expect((await read(key)).metadata.a).toHaveLength(4088);
  });

  test("expires at its expires_at", async () => {
    const key = await create({ expires_at: "2031-03-12T12:00:30Z" });
    await admit(key, 1);
    wait(29);
    await admit(key, 1);
    wait(1);
    await problem(await call(key), 403);
    expect((await read(key)).status).toBe("expired");
    expect((await usage(key)).status).toBe("expired");
  });
});

test("a row written by hand with the first columns alone is a valid key", async () => {
  const hash = "0".repeat(64);
  await sql("INSERT INTO keys (id, tier, secret_hash, created_at, expires_at) VALUES (?, 'free', ?, 'once', '2031-03-12 13:00:00')", ID, hash);
  expect(await read({ id: ID })).toEqual({
    id: ID, tier: "free", name: "", owner: "", status: "active", hint: "", metadata: {}, created_at: "once", expires_at: "2031-03-12T13:00:00Z",
  });
  expect(await patch({ id: ID }, { name: "named" })).toMatchObject({ name: "named", expires_at: "2031-03-12T13:00:00Z" });
  await sql("DELETE FROM keys WHERE id = ?", ID);
});

describe("GET /_tollgate/keys", () => {
  async function list(query = "") {
    const { keys, next_cursor } = await ok(await admin("GET", `/keys${query}`));
    return { names: keys.map(({ name }) => name), next_cursor, keys };
  }

  test("returns pages in the order of issue, each key once, also while keys are added", async () => {
    const owner = "pages";
    for (let n = 0; n < 5; n += 1) {
      await create({ name: `p${n}`, owner });
      if (n !== 2) wait(1);
    }
    const all = await list("?owner=pages");
    expect(all.names.toSorted()).toEqual(["p0", "p1", "p2", "p3", "p4"]);
    expect(all.next_cursor).toBeNull();
    expect(all.keys[0]).not.toHaveProperty("key");
    expect(Object.keys(all.keys[0])).toEqual(Object.keys(await read(all.keys[0])));
    const names = [];
    let page = await list("?owner=pages&limit=2");
    for (names.push(...page.names); page.next_cursor !== null; names.push(...page.names)) {
      expect(page.names).toHaveLength(2);
      page = await list(`?owner=pages&limit=2&cursor=${page.next_cursor}`);
    }
    expect(names).toEqual(all.names);
  });

  test("filters by tier, status, owner and part of the name", async () => {
    const owner = "filter & co";
    await create({ name: "Alpha 100%_", owner });
    await create({ name: "beta", owner, tier: "pro" });
    const off = await create({ name: "gamma", owner });
    await patch(off, { status: "disabled" });
    const gone = await create({ name: "delta", owner });
    await ok(await admin("POST", `/keys/${gone.id}/revoke`));
    await create({ name: "epsilon", owner, expires_at: "2031-03-12T12:00:00Z" });
    const of = async (query) => (await list(`?owner=${encodeURIComponent(owner)}${query}`)).names.toSorted();
    expect(await of("&tier=pro")).toEqual(["beta"]);
    expect(await of("&status=active")).toEqual(["Alpha 100%_", "beta"]);
    expect(await of("&status=disabled")).toEqual(["gamma"]);
    expect(await of("&status=revoked")).toEqual(["delta"]);
    expect(await of("&status=expired")).toEqual(["epsilon"]);
    expect(await of("&q=ALPHA+100%25_")).toEqual(["Alpha 100%_"]);
    expect(await of("&q=%25")).toEqual(["Alpha 100%_"]);
    expect(await of("&q=_")).toEqual(["Alpha 100%_"]);
    expect(await of("&q=TA&status=&tier=")).toEqual(["beta", "delta"]);
    expect(await of("&q=nothing")).toEqual([]);
    expect((await list("?owner=filter")).names).toEqual([]);
  });

  test.each(["limit=0", "limit=501", "limit=x", "limit=1.5", "cursor=abc", "cursor=!", "status=gone", "page=2", "tier=a&tier=b"])(
    "is 400 for %s",
    async (query) => void (await problem(await admin("GET", `/keys?${query}`), 400)),
  );

  test("is 400 for the cursor of another list", async () => {
    const { next_cursor } = await ok(await admin("GET", "/tiers?limit=1"));
    await problem(await admin("GET", `/keys?cursor=${next_cursor}`), 400);
  });
});

describe("PATCH /_tollgate/keys/{id}", () => {
  test("changes the given fields and no others", async () => {
    const { key: _, ...key } = await create({ name: "n", owner: "o", metadata: { a: 1 }, expires_at: "2040-01-01T00:00:00Z" });
    expect(await patch(key, { name: "m" })).toEqual({ ...key, name: "m" });
    expect(await patch(key, { owner: "p", metadata: { b: 2 } })).toEqual({ ...key, name: "m", owner: "p", metadata: { b: 2 } });
    expect(await patch(key, { expires_at: null })).toMatchObject({ expires_at: null, owner: "p" });
    expect(await patch(key, {})).toEqual(await read(key));
  });

  test("of the tier, the status and the expiry is in effect with the next request", async () => {
    const key = await create();
    await admit(key, 10);
    await denied(key);
    await patch(key, { tier: "pro" });
    const response = await call(key);
    expect(response.status).toBe(200);
    expect(rateLimitPolicy(response)).toMatchObject({ minute: { q: 200 } });
    await patch(key, { status: "disabled" });
    await problem(await call(key), 403);
    await patch(key, { status: "active" });
    await admit(key, 1);
    await patch(key, { expires_at: "2031-03-12T11:00:00Z" });
    await problem(await call(key), 403);
    await patch(key, { expires_at: null });
    await admit(key, 1);
    expect((await usage(key)).calls).toBe(13);
  });

  test("is stored when the object is unreachable, and takes effect within 60 seconds", async () => {
    const key = await create();
    await admit(key, 1);
    await deafen(key);
    expect(await patch(key, { status: "disabled" })).toMatchObject({ status: "disabled" });
    expect(logged.join()).toContain("its object was not refreshed");
    await admit(key, 1);
    wait(60);
    await problem(await call(key), 403);
  });

  test.each([
    ["no JSON", "{", 400, undefined],
    ["a list", [], 400, undefined],
    ["an unknown field", { id: "x" }, 422, "id"],
    ["a name that is null", { name: null }, 422, "name"],
    ["an owner that is no text", { owner: 7 }, 422, "owner"],
    ["metadata that is null", { metadata: null }, 422, "metadata"],
    ["a tier that there is not", { tier: "gold" }, 422, "tier"],
    ["the status revoked", { status: "revoked" }, 422, "status"],
    ["the status expired", { status: "expired" }, 422, "status"],
    ["an expiry that is no time", { expires_at: 7 }, 422, "expires_at"],
    ["more than 64 KiB", { name: "x".repeat(66_000) }, 413, undefined],
  ])("changes nothing for %s", async (_what, body, status, field) => {
    const key = await create();
    const before = await read(key);
    expect((await problem(await admin("PATCH", `/keys/${key.id}`, body), status)).field).toBe(field);
    expect(await read(key)).toEqual(before);
  });

  test("takes no query", async () => {
    const key = await create();
    await problem(await admin("PATCH", `/keys/${key.id}?name=x`, {}), 400);
  });

  test("loses no concurrent change", async () => {
    const key = await create();
    const changes = [{ name: "n" }, { owner: "o" }];
    const responses = await Promise.all(changes.map((body) => admin("PATCH", `/keys/${key.id}`, body)));
    expect(responses.map(({ status }) => status)).toEqual([200, 200]);
    expect(await read(key)).toMatchObject({ name: "n", owner: "o" });
  });
});

describe("POST /_tollgate/keys/{id}/rotate", () => {
  test("returns a new secret; the old one ends at once without a grace period", async () => {
    const key = await create({ name: "kept" });
    await admit(key, 2);
    const rotated = await rotate(key);
    expect(rotated).toMatchObject({ id: key.id, name: "kept", hint: rotated.key.slice(-4) });
    expect(rotated.key).not.toBe(key.key);
    await problem(await call(key), 401);
    await admit(rotated, 8);
    await denied(rotated);
    expect(await read(key)).toMatchObject({ hint: rotated.hint });
  });

  test("with a grace period both use the same counters until it ends, with D1 down and after an eviction too", async () => {
    const key = await create();
    await admit(key, 1);
    const rotated = await rotate(key, 90);
    await admit(rotated, 4);
    await admit(key, 5);
    await denied(key);
    await denied(rotated);
    const giveBack = await takeAway("keys");
    await evict(key);
    wait(89);
    await admit(key, 1);
    wait(1);
    await problem(await call(key), 401);
    await admit(rotated, 1);
    await giveBack();
  });

  test("a second time ends the older one", async () => {
    const key = await create();
    const second = await rotate(key, 3600);
    const third = await rotate(key, 3600);
    await problem(await call(key), 401);
    await admit(second, 1);
    await admit(third, 1);
  });

  test("leaves nothing of a key in D1 or in the object", async () => {
    const key = await create();
    await admit(key, 1);
    const rotated = await rotate(key, 3600);
    await admit(rotated, 1);
    expect(JSON.stringify(await sql("SELECT * FROM keys")) + (await objectText(key))).not.toContain(rotated.key.split("_")[2].slice(0, 32));
    expect(JSON.stringify(await sql("SELECT * FROM admin_log"))).not.toContain(rotated.key.split("_")[2].slice(0, 32));
  });

  test.each([
    [{}, 422], [{ grace_seconds: -1 }, 422], [{ grace_seconds: 2_592_001 }, 422], [{ grace_seconds: "1" }, 422],
    [{ grace_seconds: 0.5 }, 422], [{ grace_seconds: 0, x: 1 }, 422], [undefined, 400],
  ])("changes nothing for %j", async (body, status) => {
    const key = await create();
    await problem(await admin("POST", `/keys/${key.id}/rotate`, body), status);
    await admit(key, 1);
  });

  test("takes 30 days, and is 409 for a revoked key", async () => {
    const key = await create();
    await rotate(key, 2_592_000);
    await admin("POST", `/keys/${key.id}/revoke`);
    await problem(await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 0 }), 409);
  });
});

describe("POST /_tollgate/keys/{id}/revoke", () => {
  test("is permanent, and takes effect at once", async () => {
    const key = await create();
    await admit(key, 1);
    expect(await ok(await admin("POST", `/keys/${key.id}/revoke`))).toMatchObject({ id: key.id, status: "revoked" });
    await problem(await call(key), 403);
    for (const status of ["active", "disabled"]) await problem(await admin("PATCH", `/keys/${key.id}`, { status }), 409);
    expect(await ok(await admin("POST", `/keys/${key.id}/revoke`))).toMatchObject({ status: "revoked" });
    expect(await patch(key, { name: "still here" })).toMatchObject({ status: "revoked", name: "still here" });
  });
});

describe("DELETE /_tollgate/keys/{id}", () => {
  test("is 204 and takes effect at once; usage stays, and the object deletes everything", async () => {
    const key = await create();
    await admit(key, 2);
    await ok(await admin("PUT", `/keys/${key.id}/overrides/minute`, { quota: 3, period: "minute" }), 201);
    const response = await admin("DELETE", `/keys/${key.id}`);
    expect([response.status, await response.text()]).toEqual([204, ""]);
    await problem(await call(key), 401);
    await problem(await admin("GET", `/keys/${key.id}`), 404);
    await problem(await admin("DELETE", `/keys/${key.id}`), 404);
    expect(await sql("SELECT * FROM overrides WHERE key_id = ?", key.id)).toEqual([]);
    await runAlarm(key);
    expect(await sql("SELECT calls FROM usage_monthly WHERE key_id = ?", key.id)).toEqual([{ calls: 2 }]);
    expect(await objectText(key)).toBe("");
  });

  test("of a key that was never called leaves nothing stored", async () => {
    const key = await create();
    expect((await admin("DELETE", `/keys/${key.id}`)).status).toBe(204);
    expect(await objectText(key)).toBe("");
    expect(await runAlarm(key)).toBe(false);
  });
});

test.each([
  ["PATCH", "", {}],
  ["DELETE", "", undefined],
  ["POST", "/rotate", { grace_seconds: 0 }],
  ["POST", "/revoke", undefined],
])("%s /_tollgate/keys/{id}%s is 404 for an unknown key", async (method, path, body) => {
  for (const id of [ID, "NOT-AN-ID", "%27"]) await problem(await admin(method, `/keys/${id}${path}`, body), 404);
});

test("a concurrent change by hand is not overwritten", async () => {
  const key = await issue();
  await setKey(key, "status", "disabled");
  expect(await patch(key, { name: "n" })).toMatchObject({ status: "disabled" });
});
