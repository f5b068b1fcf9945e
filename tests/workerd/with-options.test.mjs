// PUBLIC_PATHS, ALLOW_QUERY_KEY, ROUTE_CASE=insensitive, no LEGACY_HEADERS, no ORIGIN, and a
// previous KEY_SECRET.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, received, receivedOne, send, usage } from "./lib/gate.mjs";
import { importKey, importLines } from "./lib/imports.mjs";
import { derive, forge, mistype } from "./lib/keys.mjs";
import { logged } from "./lib/setup.mjs";

/** The headers at the origin, without the mark of a request to the gate's own URL. */
function tollgateFields({ headers }) {
  const { "x-tollgate-loop": loop, "x-tollgate-origin-secret": secret, ...rest } = headers;
  expect(loop).toMatch(/^\d+\.[0-9a-f]{16}\.[0-9a-f]{32}$/);
  expect(secret).toBe(env.ORIGIN_SECRET);
  return Object.fromEntries(Object.entries(rest).filter(([name]) => name.includes("tollgate")));
}

describe("ORIGIN_SECRET", () => {
  const FORGED = { "X-Tollgate-Origin-Secret": "forged", X_Tollgate_Origin_Secret: "forged", "X.Tollgate.Origin.Secret": "forged" };

  test("is in every forwarded request, and a client's value is dropped", async () => {
    const key = await issue();
    await call(key, "/", { headers: FORGED });
    await call(key, "/", { headers: { ...FORGED, "Idempotency-Key": "i-1" }, method: "POST" });
    await send("/public", { headers: FORGED });
    await send("/", { method: "OPTIONS", headers: { Origin: "https://app.test", "Access-Control-Request-Method": "POST", ...FORGED } });
    const requests = await received();
    expect(requests.map(({ headers }) => headers["x-tollgate-origin-secret"])).toEqual(Array(4).fill(env.ORIGIN_SECRET));
    expect(JSON.stringify(requests)).not.toContain("forged");
  });

  test("is in no response and in no log", async () => {
    const key = await issue();
    const echoed = `/headers?x-tollgate-origin-secret=${env.ORIGIN_SECRET}`;
    for (const response of [await call(key, echoed), await call(key, "/down"), await send("/down"), await admin("GET", "/tiers")]) {
      expect(JSON.stringify([...response.headers]) + (await response.text())).not.toContain(env.ORIGIN_SECRET);
    }
    expect(logged.join("\n")).not.toContain(env.ORIGIN_SECRET);
  });
});

test("with an empty ORIGIN a request is forwarded to its own URL", async () => {
  const key = await issue();
  await call(key, "/a%2Fb?x=%20");
  expect((await receivedOne()).url).toBe("https://gate.test/a%2Fb?x=%20");
});

test("without LEGACY_HEADERS there are RateLimit and RateLimit-Policy, and no X- fields", async () => {
  const key = await issue();
  await admit(key, 9);
  for (const response of [await call(key), await call(key)]) {
    expect(response.headers.has("ratelimit")).toBe(true);
    expect(response.headers.has("ratelimit-policy")).toBe(true);
    expect([...response.headers.keys()].filter((name) => /^x-(ratelimit|monthly)/.test(name))).toEqual([]);
  }
});

describe("refusals carry the Access-Control-Allow-Origin of CORS_ALLOW_ORIGIN", () => {
  test.each([
    ["no credential", 401, () => send("/")],
    ["two credentials", 400, () => send("/", { headers: { "X-API-Key": "a", Authorization: "Bearer b" } })],
    ["a path that is refused", 400, () => send("/x/..%2fpublic")],
    ["nothing there", 404, () => send("/_tollgate/nothing")],
    ["an origin that is down", 502, async () => call(await issue(), "/down")],
  ])("%s", async (_what, status, request) => {
    expect(env.CORS_ALLOW_ORIGIN).toBe("https://app.test");
    await problem(await request(), status);
  });
});

describe("a public path needs no key", () => {
  test.each(["/public", "/public?any=query", "/a%20b"])("%s", async (path) => {
    expect((await send(path)).status).toBe(200);
    const request = await receivedOne();
    expect(request.path).toBe(path);
    expect(tollgateFields(request)).toEqual({});
  });

  test("for any method, and the response has no fields", async () => {
    const response = await send("/public", { method: "POST", body: "x" });
    expect(response.headers.has("ratelimit")).toBe(false);
    expect(await receivedOne()).toMatchObject({ method: "POST", body: "x" });
  });

  test("with a key it is not counted, and the key is not forwarded", async () => {
    const key = await issue();
    await call(key, "/public");
    await send("/public", { headers: { Authorization: `Bearer ${key.key}` } });
    await send(`/public?api_key=${key.key}&a=1`, { headers: { "X-Tollgate-Key-Id": "forged" } });
    const requests = await received();
    expect(requests).toHaveLength(3);
    expect(JSON.stringify(requests)).not.toMatch(new RegExp(`${key.key}|forged`));
    expect(requests[2].path).toBe("/public?a=1");
    expect((await usage(key)).calls).toBe(0);
  });

  test("a cached imported key is not forwarded", async () => {
    const key = await importKey();
    await admit(key, 1);
    await send("/public?a=1", { headers: { Authorization: `Bearer ${key.key}` } });
    expect(JSON.stringify(await received())).not.toContain(key.key);
    expect((await usage(key)).calls).toBe(1);
  });

  test.each([
    "Bearer another-token",
    `Bearer ${"eyJhbGciOiJIUzI1NiJ9.".repeat(20)}`,
    "Basic YWxpY2U6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==",
    'Digest username="u", realm="r", nonce="n", uri="/", response="0123456789abcdef0123456789abcdef"',
  ])("and an Authorization that can be no key passes: %s", async (authorization) => {
    await send("/public", { headers: { Authorization: authorization } });
    expect((await receivedOne()).headers.authorization).toBe(authorization);
  });

  test("nor is any text that could be a credential of tollgate", async () => {
    const [key, imported] = [(await issue()).key, (await importKey()).key];
    const { token } = await (await admin("POST", "/tokens", { name: `ci ${crypto.randomUUID()}`, scopes: ["read"] })).json();
    const values = [key, mistype(key), imported, env.ADMIN_TOKEN, token].flatMap((text) => [
      `Bearer ${text}`, `bearer\t${text}`, `Bearer  ${text}`, `Token ${text}`, text, `Basic dTpw, Bearer ${text}`,
    ]);
    for (const text of [key, env.ADMIN_TOKEN, token]) values.push(`Basic ${btoa(`user:${text}`)}`, `Token token="${text}"`);
    for (const authorization of values) await send("/public", { headers: { Authorization: authorization } });
    const requests = await received();
    expect(requests).toHaveLength(values.length);
    expect(requests.flatMap(({ headers }, n) => ("authorization" in headers ? values[n] : []))).toEqual([]);
  });

  test("nor is one in the query", async () => {
    const [key, imported] = [(await issue()).key, (await importKey()).key];
    await send(`/public?a=1&api_key=${imported}&x=${key}&y=${env.ADMIN_TOKEN}&b`);
    expect((await receivedOne()).path).toBe("/public?a=1&b");
  });

  test("nor is a Referer with a key in it", async () => {
    const key = await issue();
    const path = `/?api_key=${key.key}`;
    await send("/public", { headers: { Referer: `https://gate.test${path}` } });
    await call(key, "/", { headers: { Referer: `https://gate.test/docs?a=1&api%5Fkey=${key.key}` } });
    await call(key, "/", { headers: { Referer: "https://gate.test/docs?a=1" } });
    expect((await received()).map(({ headers }) => headers.referer)).toEqual([undefined, undefined, "https://gate.test/docs?a=1"]);
  });

  test("an unreachable origin is 502", async () => {
    await problem(await send("/down", { method: "OPTIONS", headers: { Origin: "https://a.test", "Access-Control-Request-Method": "GET" } }), 502);
  });
});

describe("no other path passes as a public one", () => {
  test.each([
    "/public/",
    "/public/x",
    "/publicx",
    "/Public",
    "/PUBLIC",
    "/%70ublic",
    "/publi%63",
    "/public%20",
    "/public%3Fx",
    "/public;x=1",
    "//public",
    "/x//public",
    "/x?/public",
    "/?path=/public",
    "/a+b",
    "/a%2520b",
  ])("%s", async (path) => {
    await problem(await send(path), 401);
    expect(await received()).toEqual([]);
  });

  test.each([
    "/x/..%2fpublic",
    "/x%2f..%2fpublic",
    "/x/..%2Fpublic",
    "/..%2fpublic",
    "/public/..%2fprivate",
    "/public%2f..%2fprivate",
    "/x/..;/public",
    "/public/..;/private",
    "/public/.;/private",
    "/x%5c..%5cpublic",
    "/public%5c..%5cprivate",
    "/public%00",
    "/public%00%2f..%2fprivate",
  ])("what an origin might resolve to another path is 400, with a key too: %s", async (path) => {
    const key = await issue();
    for (const response of [await send(path), await call(key, path)]) {
      expect(response.status).toBe(400);
      expect(response.headers.get("content-type")).toBe("application/problem+json");
    }
    expect(await received()).toEqual([]);
    expect((await usage(key)).calls).toBe(0);
  });
});

describe("with ALLOW_QUERY_KEY=true", () => {
  test.each([
    ["?api_key=<key>", (k) => `?api_key=${k}`, "/"],
    ["among other parameters", (k) => `?a=%20&api_key=${k}&b&c=+`, "/?a=%20&b&c=+"],
    ["with an encoded name", (k) => `?api%5Fkey=${k}&a=1`, "/?a=1"],
    ["with an encoded value", (k) => `?a=1&api_key=${k.replace("tg", "%74%67")}`, "/?a=1"],
  ])("a key may stand in the query, %s, and is not forwarded", async (_what, query, forwarded) => {
    const key = await issue();
    expect((await send(`/${query(key.key)}`)).status).toBe(200);
    const request = await receivedOne();
    expect(request.path).toBe(forwarded);
    expect(request.headers["x-tollgate-key-id"]).toBe(key.id);
    expect((await usage(key)).calls).toBe(1);
  });

  test.each([
    ["in the query and in X-API-Key", (k) => [`/?api_key=${k}`, { "X-API-Key": k }]],
    ["in the query and in Authorization", (k) => [`/?api_key=${k}`, { Authorization: `Bearer ${k}` }]],
    ["in the query twice", (k) => [`/?api_key=${k}&api_key=${k}`, {}]],
    ["in the query under two spellings of the name", (k) => [`/?api_key=${k}&api%5fkey=${k}`, {}]],
    ["in the query and an empty one", (k) => [`/?api_key=${k}&api_key=`, {}]],
  ])("two credentials are 400: %s", async (_what, request) => {
    const { key } = await issue();
    const [path, headers] = request(key);
    await problem(await send(path, { headers }), 400);
    expect(await received()).toEqual([]);
  });

  test("a malformed or forged key in the query is 401 with the same body, and an empty one too", async () => {
    const { key } = await issue();
    const bodies = new Set();
    for (const presented of ["", "hello", mistype(key), await forge()]) {
      bodies.add(JSON.stringify(await problem(await send(`/?api_key=${presented}`), 401)));
    }
    expect([...bodies]).toHaveLength(1);
  });

  test("a parameter of another name is no credential", async () => {
    const { key } = await issue();
    for (const query of [`API_KEY=${key}`, `xapi_key=${key}`, `api-key=${key}`]) {
      await problem(await send(`/?${query}`), 401);
    }
  });

  test("a preflight that carries the key in its query is forwarded without it", async () => {
    const { key } = await issue();
    const headers = { Origin: "https://app.test", "Access-Control-Request-Method": "POST" };
    await send(`/x?api_key=${key}&a=1`, { method: "OPTIONS", headers });
    expect((await receivedOne()).path).toBe("/x?a=1");
  });
});

test("a key of an older KEY_SECRET is valid while KEY_SECRET_PREVIOUS has it, and new keys use the new one", async () => {
  const key = await issue();
  const part = key.key.split("_")[2].slice(0, 32);
  for (const secret of [env.KEY_SECRET, "an-older-secret", "the-oldest-secret"]) {
    expect((await call(await forge({ secret, id: key.id, part }))).status).toBe(200);
  }
  expect((await call(await forge({ secret: "another-secret", id: key.id, part }))).status).toBe(401);
  expect(key.key).toBe(await forge({ id: key.id, part }));
  expect(await sql("SELECT COUNT(*) AS count FROM keys WHERE id = ?", key.id)).toEqual([{ count: 1 }]);
});

test("an imported key in the query never reaches the origin", async () => {
  const { key, id } = await importKey();
  expect((await send(`/?a=1&api_key=${encodeURIComponent(key)}&b=${key}`)).status).toBe(200);
  expect(await receivedOne()).toMatchObject({ path: "/?a=1", headers: { "x-tollgate-key-id": id } });
});

test("a key imported under an older KEY_SECRET is valid, with its id, until it is rotated", async () => {
  const key = "sk_live_of_an_older_secret";
  const { id, hash } = await derive("the-oldest-secret", key);
  await sql("INSERT INTO keys (id, tier, secret_hash, created_at, imported) VALUES (?, 'free', ?, 'once', 1)", id, hash);
  await admit({ key }, 2);
  expect(await importLines({ key, tier: "free" })).toEqual([{ line: 1, id }]);
  expect((await usage({ id })).calls).toBe(2);
  const rotated = await (await admin("POST", `/keys/${id}/rotate`, { grace_seconds: 0 })).json();
  await admit(rotated, 1);
  await problem(await call(key), 401);
});

test("with ROUTE_CASE=insensitive a route has its cost, and its denials, in capital letters too", async () => {
  await sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/v1/*/Export', 'GET', 4)");
  const key = await issue();
  for (const path of ["/v1/a/export", "/V1/a/%45XPORT;x"]) expect((await call(key, path)).status).toBe(200);
  const { policies } = await usage(key);
  expect(policies.map(({ used }) => used)).toEqual([8, 8]);
  // A cached denial of one spelling must not apply to another that costs less, and may apply to one
  // that does not.
  expect((await call(key, "/v1/a/EXPORT")).status).toBe(429);
  expect((await call(key, "/v1/a/export")).status).toBe(429);
  await admit(key, 2);
  await denied(key);
  await sql("DELETE FROM route_costs");
});

test("the quota is that of the key, wherever it is presented", async () => {
  const key = await issue();
  await admit(key, 8);
  expect((await send(`/?api_key=${key.key}`)).status).toBe(200);
  expect((await send("/", { headers: { Authorization: `Bearer ${key.key}` } })).status).toBe(200);
  await denied(key);
});

test("without ORIGIN, calls that spend tokens go to the request's own URL, with and without a body", async () => {
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/llm', '*', 'openai', 100, 400)");
  const key = await issue();
  const body = '{"messages":[]}';
  for (const init of [{ method: "POST", body }, { method: "GET" }, { method: "HEAD" }, { method: "DELETE" }]) {
    for (let i = 0; i < 2; i += 1) expect((await call(key, "/LLM?x=%2F1", init)).status).toBe(200);
  }
  const all = await received();
  expect(all.map(({ method }) => method)).toEqual(["POST", "POST", "GET", "GET", "HEAD", "HEAD", "DELETE", "DELETE"]);
  expect(new Set(all.map(({ url }) => url))).toEqual(new Set(["https://gate.test/LLM?x=%2F1"]));
  expect(all.map(({ body }) => body)).toEqual([body, body, ...Array(6).fill("")]);
  await sql("DELETE FROM token_routes");
});
