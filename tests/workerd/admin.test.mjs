// The admin API: authentication, requests and responses.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { databaseText, makeTier, setKey, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, received, send, setClock, usage, wait } from "./lib/gate.mjs";
import { countObjects, objectText, runAlarm } from "./lib/object.mjs";

const ID = "abcdefghij234567";
const ENDPOINTS = [
  ["POST", "/keys"],
  ["GET", "/keys"],
  ["GET", `/keys/${ID}`],
  ["PATCH", `/keys/${ID}`],
  ["DELETE", `/keys/${ID}`],
  ["POST", `/keys/${ID}/rotate`],
  ["POST", `/keys/${ID}/revoke`],
  ["GET", `/keys/${ID}/usage`],
  ["GET", `/keys/${ID}/overrides`],
  ["PUT", `/keys/${ID}/overrides/minute`],
  ["DELETE", `/keys/${ID}/overrides/minute`],
  ["GET", `/keys/${ID}/reservations`],
  ["POST", `/keys/${ID}/reservations`],
  ["POST", `/keys/${ID}/reservations/aaaaaaaaaaaab/settle`],
  ["DELETE", `/keys/${ID}/reservations/aaaaaaaaaaaab`],
  ["GET", "/tiers"],
  ["GET", "/tiers/free"],
  ["PUT", "/tiers/free"],
  ["DELETE", "/tiers/free"],
  ["GET", "/route-costs"],
  ["PUT", "/route-costs"],
  ["DELETE", "/route-costs?pattern=/x"],
  ["GET", "/token-routes"],
  ["PUT", "/token-routes"],
  ["DELETE", "/token-routes?pattern=/x"],
  ["GET", "/tokens"],
  ["POST", "/tokens"],
  ["DELETE", `/tokens/${ID}`],
  ["GET", "/log"],
];
const BODIES = {
  PATCH: {},
  POST: { tier: "free" },
  PUT: { quota: 1, period: "minute" },
};

describe.each(ENDPOINTS)("%s /_tollgate%s is 401 with WWW-Authenticate", (method, path) => {
  // Each endpoint has the attempts of an address of its own.
  const address = `192.0.2.${1 + ENDPOINTS.findIndex((endpoint) => endpoint[0] === method && endpoint[1] === path)}`;

  test.each([
    ["without a token", {}],
    ["with a wrong token", { Authorization: "Bearer wrong" }],
    ["with an empty token", { Authorization: "Bearer " }],
    ["with the token and more", { Authorization: "Bearer admin-token-of-the-testsX" }],
    ["with part of the token", { Authorization: "Bearer admin-token-of-the-test" }],
    ["with the token under another scheme", { Authorization: "Basic admin-token-of-the-tests" }],
    ["with the token without a scheme", { Authorization: "admin-token-of-the-tests" }],
    ["with the token twice", { Authorization: "Bearer admin-token-of-the-tests, Bearer admin-token-of-the-tests" }],
    ["with the token as an API key", { "X-API-Key": "admin-token-of-the-tests" }],
  ])("%s", async (_what, headers) => {
    const body = BODIES[method] && JSON.stringify(BODIES[method]);
    const response = await send(`/_tollgate${path}`, { method, headers: { "CF-Connecting-IP": address, ...headers }, body });
    expect(response.headers.get("www-authenticate")).toMatch(/^Bearer realm=/);
    await problem(response, 401);
  });
});

test("a request without a token gets WWW-Authenticate, and an invalid token is refused", async () => {
  const told = async (headers) => {
    const response = await send("/_tollgate/keys", { headers });
    return [(await problem(response.clone(), 401)).detail, response.headers.get("www-authenticate")];
  };
  const needed = ["the admin API needs Authorization: Bearer <admin token>", 'Bearer realm="tollgate admin"'];
  for (const headers of [{}, { "X-API-Key": "x" }, { Authorization: "Basic eDp5" }]) expect(await told(headers)).toEqual(needed);
  const [detail, challenge] = await told({ Authorization: "Bearer wrong" });
  expect(detail).toMatch(/^the admin token was refused/);
  expect(challenge).toBe('Bearer realm="tollgate admin", error="invalid_token"');
  const { id } = await issue();
  expect((await told({ Authorization: `Bearer tga_${id}_${"a".repeat(32)}` }))[0]).toBe(detail);
});

test("an API key is not an admin token", async () => {
  const key = await issue();
  await problem(await send(`/_tollgate/keys/${key.id}`, { headers: { Authorization: `Bearer ${key.key}` } }), 401);
});

test("POST /_tollgate/keys answers 201 with the key, which appears only here", async () => {
  setClock("2031-03-12T12:34:56.789Z");
  const response = await admin("POST", "/keys", { tier: "free", name: "Käthes Firma" });
  expect(response.status).toBe(201);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("cache-control")).toBe("no-store");
  const key = await response.json();
  expect(key).toEqual({
    id: expect.stringMatching(/^[a-z2-7]{16}$/),
    key: expect.stringMatching(/^tg_/),
    tier: "free",
    name: "Käthes Firma",
    owner: "",
    status: "active",
    hint: key.key.slice(-4),
    metadata: {},
    created_at: "2031-03-12T12:34:56.789Z",
    expires_at: null,
  });
  await admit(key, 1);
});

test("GET /_tollgate/keys/{id} answers the same without the key", async () => {
  const { key, ...rest } = await issue("pro", "a name");
  const response = await admin("GET", `/keys/${rest.id}`);
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual(rest);
  expect(key).toBeTruthy();
});

test("the key appears only when it is issued, and is stored nowhere", async () => {
  const key = await issue();
  await admit(key, 1);
  await runAlarm(key);
  const answers = [await admin("GET", `/keys/${key.id}`), await admin("GET", `/keys/${key.id}/usage`)];
  const texts = await Promise.all(answers.map((answer) => answer.text()));
  for (const text of [...texts, await databaseText(), await objectText(key)]) {
    expect(text).not.toContain(key.key);
    expect(text).not.toContain(key.key.split("_")[2].slice(0, 32));
  }
});

test("a name is optional, and may have 200 characters", async () => {
  expect((await (await admin("POST", "/keys", { tier: "free" })).json()).name).toBe("");
  expect((await admin("POST", "/keys", { tier: "free", name: "ä".repeat(200) })).status).toBe(201);
});

describe("POST /_tollgate/keys issues no key from", () => {
  test.each([
    ["an empty body", undefined, 400],
    ["half a JSON text", '{"tier":', 400],
    ["bytes that are not UTF-8", new Uint8Array([0x7b, 0xff, 0x7d]).buffer, 400],
    ["a list", "[]", 400],
    ["a string", '"free"', 400],
    ["null", "null", 400],
    ["no tier", "{}", 422],
    ["a tier of another type", '{"tier":7}', 422],
    ["an empty tier", '{"tier":""}', 422],
    ["a tier that there is not", '{"tier":"gold"}', 422],
    ["a tier in capitals", '{"tier":"Free"}', 422],
    ["SQL", `{"tier":"free' OR 1=1 --"}`, 422],
    ["a name of another type", '{"tier":"free","name":7}', 422],
    ["a name that is null", '{"tier":"free","name":null}', 422],
    ["a name that is too long", JSON.stringify({ tier: "free", name: "x".repeat(201) }), 422],
    ["a name with control characters", '{"tier":"free","name":"a\\u0000b"}', 422],
    ["an unknown field", '{"tier":"free","nmae":"x"}', 422],
    ["a field that is a key's, but not the caller's to choose", '{"tier":"free","status":"disabled"}', 422],
    ["an owner that is too long", JSON.stringify({ tier: "free", owner: "x".repeat(201) }), 422],
    ["metadata that is a list", '{"tier":"free","metadata":[]}', 422],
    ["metadata that is too large", JSON.stringify({ tier: "free", metadata: { a: "x".repeat(4089) } }), 422],
    ["an expiry that is no time", '{"tier":"free","expires_at":"tomorrow"}', 422],
    ["an expiry without an offset", '{"tier":"free","expires_at":"2031-03-12T12:00:00"}', 422],
    ["more than 64 KiB", JSON.stringify({ tier: "free", name: "x".repeat(66_000) }), 413],
  ])("%s", async (_what, body, status) => {
    const [{ count }] = await sql("SELECT COUNT(*) AS count FROM keys");
    const headers = { Authorization: `Bearer ${env.ADMIN_TOKEN}` };
    await problem(await send("/_tollgate/keys", { method: "POST", headers, body }), status);
    expect(await sql("SELECT COUNT(*) AS count FROM keys")).toEqual([{ count }]);
  });

  test("an endless stream", async () => {
    const chunk = new TextEncoder().encode(" ".repeat(4096));
    const endless = new ReadableStream({ pull: (controller) => controller.enqueue(chunk) });
    await problem(await admin("POST", "/keys", endless), 413);
  });
});

test("a 422 names the field", async () => {
  expect(await problem(await admin("POST", "/keys", { tier: "gold" }), 422)).toMatchObject({ field: "tier" });
  expect(await problem(await admin("POST", "/keys", { tier: "free", name: 7 }), 422)).toMatchObject({ field: "name" });
  expect(await problem(await admin("POST", "/keys", {}), 422)).toMatchObject({ field: "tier" });
  expect(await problem(await admin("POST", "/keys", { tier: "free", nmae: "" }), 422)).toMatchObject({ field: "nmae" });
});

test("a key can have a tier that a user has created", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "hour" }));
  await admit(key, 1);
  await denied(key);
});

describe("GET /_tollgate/keys/{id}/usage", () => {
  const policy = (name, quota, used, reset_at) => {
    const rest = { unit: "requests", algorithm: "fixed", period: name };
    return { policy: name, quota, used, held: 0, remaining: quota - used, reset_at, ...rest };
  };

  test("has the shape of the contract, for a key that was never called too", async () => {
    setClock("2031-03-12T12:00:17.250Z");
    const key = await issue();
    const expected = (calls) => ({
      key_id: key.id,
      tier: "free",
      status: "active",
      as_of: "2031-03-12T12:00:17.250Z",
      policies: [policy("minute", 10, calls, "2031-03-12T12:01:00Z"), policy("month", 1000, calls, "2031-04-01T00:00:00Z")],
      month: "2031-03",
      calls,
      tokens: 0,
      overdraft: 0,
      tokens_estimated: 0,
      tokens_expired: 0,
    });
    expect(await usage(key)).toEqual(expected(0));
    await admit(key, 3);
    expect(await usage(key)).toEqual(expected(3));
  });

  test("spends nothing", async () => {
    const key = await issue();
    await admit(key, 9);
    for (let i = 0; i < 5; i += 1) expect((await usage(key)).calls).toBe(9);
    await admit(key, 1);
    await denied(key);
    for (let i = 0; i < 5; i += 1) await usage(key);
    wait(60);
    await admit(key, 10);
  });

  test("has the usage of sliding and bucket policies, and the time until more can be spent", async () => {
    const key = await issue(
      await makeTier({ quota: 5, period: "minute", algorithm: "sliding" }, { quota: 60, period: "hour", algorithm: "bucket", burst: 3 }),
    );
    await admit(key, 2);
    expect((await usage(key)).policies).toEqual([
      expect.objectContaining({ policy: "minute", algorithm: "sliding", quota: 5, used: 2, remaining: 3, reset_at: "2031-03-12T12:01:00Z" }),
      expect.objectContaining({ policy: "hour", algorithm: "bucket", quota: 60, used: 2, remaining: 1, reset_at: "2031-03-12T12:01:00Z" }),
    ]);
  });

  test("is read from the object, not from D1", async () => {
    const key = await issue();
    await admit(key, 2);
    await runAlarm(key);
    await admit(key, 1);
    expect((await usage(key)).calls).toBe(3);
  });

  test("shows usage above a lowered quota, and nothing remaining", async () => {
    const key = await issue();
    await admit(key, 8);
    const tier = await makeTier({ quota: 5, period: "month" });
    await setKey(key, "tier", tier);
    wait(60);
    expect((await usage(key)).policies).toEqual([expect.objectContaining({ quota: 5, used: 8, remaining: 0 })]);
  });
});

describe("404 for", () => {
  test.each([`/keys/${ID}`, `/keys/${ID}/usage`, "/keys/NOT-AN-ID", "/keys/NOT-AN-ID/usage", "/keys/", "/keys/%27%20OR%201=1", `/keys/${ID}/overrides`])(
    "a key that there is not: GET /_tollgate%s",
    async (path) => {
      const before = await countObjects();
      await problem(await admin("GET", path), 404);
      expect(await countObjects()).toBe(before);
    },
  );

  test.each(["/_tollgate/", "/_tollgate/nothing", "/_tollgate/health/", "/_tollgate//keys"])(
    "what is not there under the reserved prefix, whatever key it comes with: %s",
    async (path) => {
      const key = await issue();
      await problem(await call(key, path), 404);
      expect(await received()).toEqual([]);
      expect((await usage(key)).calls).toBe(0);
    },
  );
});

test("other methods are 405 with Allow", async () => {
  for (const [method, path, allow] of [
    ["PUT", "/keys", "GET, HEAD, POST"],
    ["POST", `/keys/${ID}`, "GET, HEAD, PATCH, DELETE"],
    ["GET", `/keys/${ID}/rotate`, "POST"],
    ["GET", `/keys/${ID}/overrides/minute`, "PUT, DELETE"],
    ["POST", "/tiers/free", "GET, HEAD, PUT, DELETE"],
    ["POST", "/route-costs", "GET, HEAD, PUT, DELETE"],
    ["POST", "/token-routes", "GET, HEAD, PUT, DELETE"],
    ["DELETE", "/log", "GET, HEAD"],
    ["PATCH", `/tokens/${ID}`, "DELETE"],
    ["POST", `/keys/${ID}/usage`, "GET, HEAD"],
    ["POST", "/health", "GET, HEAD"],
  ]) {
    const response = await admin(method, path);
    expect(response.headers.get("allow")).toBe(allow);
    await problem(response, 405);
  }
});

test("GET /_tollgate/health answers without a token, and with D1 down", async () => {
  const giveBack = await takeAway("keys");
  const response = await send("/_tollgate/health");
  await giveBack();
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(await response.json()).toEqual({ status: "ok", version: expect.stringMatching(/^\d+\.\d+\.\d+/) });
});

test("while D1 is down the admin API is 503 with Retry-After, without the cause", async () => {
  const giveBack = await takeAway("keys");
  // Reservations do not read D1.
  const readsKeys = (path) => path.startsWith("/keys") && !path.includes("/reservations");
  for (const [method, path] of ENDPOINTS.filter(([, path]) => readsKeys(path))) {
    const body = path.endsWith("/rotate") ? { grace_seconds: 0 } : BODIES[method];
    const response = await admin(method, path, body);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(JSON.stringify(await problem(response, 503))).not.toMatch(/table|SQL|D1/i);
  }
  await giveBack();
});
