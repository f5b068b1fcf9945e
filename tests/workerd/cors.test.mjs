// Browsers: preflights, and other OPTIONS requests.
import { describe, expect, test } from "vitest";
import { call, issue, problem, receivedOne, received, send, usage } from "./lib/gate.mjs";

const PREFLIGHT = { Origin: "https://app.test", "Access-Control-Request-Method": "POST" };

test("a CORS preflight needs no key and is forwarded", async () => {
  const headers = { ...PREFLIGHT, "Access-Control-Request-Headers": "x-api-key" };
  const response = await send("/thing?a=1", { method: "OPTIONS", headers });
  expect(response.status).toBe(200);
  expect(response.headers.get("x-from")).toBe("origin");
  expect(await receivedOne()).toMatchObject({
    method: "OPTIONS",
    path: "/thing?a=1",
    headers: { origin: "https://app.test", "access-control-request-method": "POST", "access-control-request-headers": "x-api-key" },
  });
});

test("a preflight is not counted, and reveals no key to the origin", async () => {
  const key = await issue();
  const headers = { ...PREFLIGHT, "X-Tollgate-Key-Id": "forged", x_tollgate_tier: "forged" };
  expect((await call(key, "/", { method: "OPTIONS", headers })).status).toBe(200);
  const arrived = (await receivedOne()).headers;
  expect(Object.keys(arrived).filter((name) => /tollgate|api.key/.test(name))).toEqual([]);
  expect((await usage(key)).calls).toBe(0);
});

test("a key in a preflight is not forwarded", async () => {
  const { key } = await issue();
  for (const credential of [{ Authorization: `Bearer ${key}` }, { "X-API-Key": key }, { x_api_key: key }]) {
    await send("/", { method: "OPTIONS", headers: { ...PREFLIGHT, ...credential } });
  }
  const requests = await received();
  expect(requests).toHaveLength(3);
  expect(JSON.stringify(requests)).not.toContain(key);
});

test("only the fields of a preflight and User-Agent are forwarded", async () => {
  const passes = {
    ...PREFLIGHT,
    "Access-Control-Request-Headers": "authorization,x-own",
    "Access-Control-Request-Private-Network": "true",
    "User-Agent": "a browser/1.0",
  };
  const dropped = {
    Accept: "*/*",
    Authorization: "Bearer another-token",
    Cookie: "session=1",
    "Content-Type": "application/json",
    Forwarded: "for=192.0.2.1",
    "Proxy-Authorization": "Basic dTpw",
    Referer: "https://app.test/?secret",
    "X-Custom": "x",
    "X-Forwarded-For": "192.0.2.1",
    "X-HTTP-Method-Override": "DELETE",
    "X-Original-URL": "/admin",
    access_control_request_method: "DELETE",
  };
  const response = await send("/thing", { method: "OPTIONS", headers: { ...passes, ...dropped }, body: "a body" });
  expect(response.status).toBe(200);
  const { headers, body } = await receivedOne();
  const { host: _, ...arrived } = headers;
  expect(arrived).toEqual({
    ...Object.fromEntries(Object.entries(passes).map(([name, value]) => [name.toLowerCase(), value])),
    // Added by the runtime.
    ...(arrived["cf-worker"] && { "cf-worker": arrived["cf-worker"] }),
    ...(arrived["content-length"] && { "content-length": "0" }),
  });
  expect(body).toBe("");
});

test.each([
  "null", "https://app.test:8443", "http://localhost:3000", "http://[2001:db8::1]:8080", "chrome-extension://abcdefghijklmnop", "capacitor://localhost",
])("%s is a valid Origin", async (origin) => {
  expect((await send("/", { method: "OPTIONS", headers: { ...PREFLIGHT, Origin: origin } })).status).toBe(200);
  expect((await receivedOne()).headers.origin).toBe(origin);
});

const LOOKALIKES = [
  ["an empty Origin", { Origin: "" }],
  ["a host as Origin", { Origin: "app.test" }],
  ["a URL with a path as Origin", { Origin: "https://app.test/" }],
  ["a URL with a query as Origin", { Origin: "https://app.test?x" }],
  ["a user in Origin", { Origin: "https://u:p@app.test" }],
  ["an Origin without a host", { Origin: "https://" }],
  ["an Origin with a wrong port", { Origin: "https://app.test:99999" }],
  ["two origins", { Origin: "https://app.test https://other.test" }],
  ["a list of origins", { Origin: "https://app.test, https://other.test" }],
  ["a text as Origin", { Origin: "Null and void" }],
  ["an empty method", { "Access-Control-Request-Method": "" }],
  ["a list of methods", { "Access-Control-Request-Method": "POST, PUT" }],
  ["two words as method", { "Access-Control-Request-Method": "POST PUT" }],
  ["a text as method", { "Access-Control-Request-Method": "{\"a\":1}" }],
  ["a path as method", { "Access-Control-Request-Method": "/etc" }],
];

test.each(LOOKALIKES)("what only resembles a preflight needs a key: %s", async (_what, headers) => {
  const lookalike = { method: "OPTIONS", headers: { ...PREFLIGHT, ...headers } };
  await problem(await send("/", lookalike), 401);
  expect(await received()).toEqual([]);
  const key = await issue();
  expect((await call(key, "/", lookalike)).status).toBe(200);
  expect((await usage(key)).calls).toBe(1);
});

test("what only resembles a preflight of tollgate's own endpoints is not answered as one", async () => {
  for (const [, headers] of LOOKALIKES) {
    const response = await send("/_tollgate/keys", { method: "OPTIONS", headers: { ...PREFLIGHT, ...headers } });
    await problem(response, 405);
  }
});

test.each([
  ["without Origin and Access-Control-Request-Method", {}],
  ["without Access-Control-Request-Method", { Origin: "https://app.test" }],
  ["without Origin", { "Access-Control-Request-Method": "POST" }],
])("an OPTIONS %s needs a key and is counted", async (_what, headers) => {
  await problem(await send("/", { method: "OPTIONS", headers }), 401);
  expect(await received()).toEqual([]);
  const key = await issue();
  expect((await call(key, "/", { method: "OPTIONS", headers })).status).toBe(200);
  expect((await usage(key)).calls).toBe(1);
});

test("a request of another method with a preflight's headers needs a key", async () => {
  for (const method of ["GET", "POST", "DELETE"]) await problem(await send("/", { method, headers: PREFLIGHT }), 401);
  expect(await received()).toEqual([]);
});

test("a preflight of tollgate's own endpoints is answered by tollgate", async () => {
  const response = await send("/_tollgate/keys", { method: "OPTIONS", headers: PREFLIGHT });
  expect(response.status).toBe(204);
  expect(response.headers.get("access-control-allow-headers").toLowerCase()).toContain("authorization");
  expect(response.headers.get("access-control-allow-methods")).toContain("POST");
  expect(await received()).toEqual([]);
});

describe("a browser can read the fields of a response that the origin allows it to read", () => {
  const FIELDS = ["ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-monthly-remaining"];

  /** The names that the response exposes when the origin responds with these headers. */
  async function exposed(headers, key) {
    const response = await call(key ?? (await issue()), `/headers?${new URLSearchParams(headers)}`);
    expect(response.status).toBe(200);
    return response.headers.get("access-control-expose-headers")?.toLowerCase().split(/, */);
  }

  test.each([
    ["that exposes nothing", {}, FIELDS],
    ["that exposes fields of its own", { "Access-Control-Expose-Headers": "X-Own,ETag" }, ["x-own", "etag", ...FIELDS]],
    [
      "that exposes some of ours already",
      { "Access-Control-Expose-Headers": "RATELIMIT, X-Own" },
      ["ratelimit", "x-own", ...FIELDS.filter((name) => name !== "ratelimit")],
    ],
    ["that exposes all", { "Access-Control-Expose-Headers": "*" }, ["*"]],
    ["that exposes all and more", { "Access-Control-Expose-Headers": "X-Own, *" }, ["x-own", "*"]],
    [
      "whose * is only a name, because of credentials",
      { "Access-Control-Expose-Headers": "*", "Access-Control-Allow-Credentials": "true" },
      ["*", ...FIELDS],
    ],
    ["whose list is empty", { "Access-Control-Expose-Headers": " , " }, FIELDS],
  ])("%s", async (_what, headers, expected) => {
    expect(await exposed({ "Access-Control-Allow-Origin": "https://app.test", ...headers })).toEqual(expected);
  });

  test("nothing is exposed if the origin allows no other origin", async () => {
    expect(await exposed({})).toBeUndefined();
    expect(await exposed({ "Access-Control-Expose-Headers": "X-Own" })).toEqual(["x-own"]);
  });

  test("a key without limits has no fields to expose", async () => {
    expect(await exposed({ "Access-Control-Allow-Origin": "*" }, await issue("unlimited"))).toBeUndefined();
  });
});
