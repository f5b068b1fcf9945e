// Forwarding: the request to the origin, and the response to the client.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { admin, admit, call, issue, problem, received, receivedOne, releaseOrigin, send, usage } from "./lib/gate.mjs";
import { importKey } from "./lib/imports.mjs";

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** Reads until so many bytes have arrived. */
async function read(reader, length) {
  let text = "";
  while (text.length < length) {
    const { value, done } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  return text;
}

test.each(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])("%s is forwarded unchanged, and counts as one call", async (method) => {
  const key = await issue();
  expect((await call(key, "/thing", { method })).status).toBe(200);
  expect(await receivedOne()).toMatchObject({ method, path: "/thing" });
  expect((await usage(key)).calls).toBe(1);
});

test.each([
  "/",
  "/a%2Fb/c%20d;v=1/",
  "//double//slashes",
  "/%7Bid%7D/%C3%A4",
  "/search?q=%20+&&empty=&flag&q=again%2F",
  "/?",
  "/?url=https://elsewhere.test/?a=b",
  "/_tollgate",
  "/_Tollgate/health",
])("path and query arrive as sent: %s", async (path) => {
  const key = await issue();
  await call(key, path);
  expect((await receivedOne()).url.replace("https://origin.test", "")).toBe(path);
});

test("headers and body arrive as sent", async () => {
  const key = await issue();
  const headers = {
    Accept: "application/vnd.test+json; q=0.5",
    "Content-Type": "application/x-test",
    Cookie: "a=1; b=2",
    "Idempotency-Key": "i-1",
    "If-None-Match": '"tag"',
    "User-Agent": "a test/1.0",
    "X-Custom_Header": "kept",
    "X-API-Keys": "another header",
    Range: "bytes=0-1",
  };
  await call(key, "/upload", { method: "POST", headers, body: "the body\n\u0000ä" });
  const { headers: arrived, body } = await receivedOne();
  for (const [name, value] of Object.entries(headers)) expect(arrived[name.toLowerCase()]).toBe(value);
  expect(body).toBe("the body\n\u0000ä");
});

test("the origin receives the key's id and tier, and a client's own X-Tollgate headers are dropped", async () => {
  const key = await issue("basic");
  const headers = {
    "X-Tollgate-Key-Id": "forged",
    "x-tollgate-tier": "forged",
    "X-Tollgate-Fail-Open": "forged",
    "X-Tollgate-Anything": "forged",
    X_Tollgate_Key_Id: "forged",
    "X_TOLLGATE-TIER": "forged",
    "x-tollgate_tier": "forged",
  };
  await call(key, "/", { headers });
  const arrived = (await receivedOne()).headers;
  const tollgate = Object.entries(arrived).filter(([name]) => name.includes("tollgate"));
  expect(Object.fromEntries(tollgate)).toEqual({ "x-tollgate-key-id": key.id, "x-tollgate-tier": "basic" });
  expect(JSON.stringify(arrived)).not.toContain("forged");
});

// Servers that expose headers as variables (CGI, WSGI, PHP) replace every character other than
// letters and digits by "_".
const SEPARATORS = [..."!#$%&'*+-.^_`|~"];

test("fields of clients are dropped in every spelling that a server may fold to one of tollgate's", async () => {
  const key = await issue();
  const names = SEPARATORS.flatMap((c) => [`X${c}Tollgate${c}Key${c}Id`, `x${c}TOLLGATE`, `X-Tollgate${c}Tier`, `X${c}Tollgate-Fail-Open`]);
  const keys = SEPARATORS.flatMap((c) => [`X${c}API-Key`, `X-API${c}Key`]).filter((name) => name !== "X-API-Key");
  const headers = Object.fromEntries([...new Set([...names, ...keys])].map((name) => [name, "forged"]));
  expect((await call(key, "/", { headers })).status).toBe(200);
  const arrived = (await receivedOne()).headers;
  expect(Object.keys(arrived).filter((name) => /tollgate|api/.test(name))).toEqual(["x-tollgate-key-id", "x-tollgate-tier"]);
  expect(JSON.stringify(arrived)).not.toContain("forged");
});

test("fields with names that only resemble tollgate's arrive", async () => {
  const key = await issue();
  const headers = Object.fromEntries(["X-Tollgates", "XTollgate", "Tollgate-Tier", "X-API-Keys", "X-APIKey", "XX-Tollgate-Tier"].map((name) => [name, "kept"]));
  await call(key, "/", { headers });
  const arrived = (await receivedOne()).headers;
  for (const name of Object.keys(headers)) expect(arrived[name.toLowerCase()]).toBe("kept");
});

test("X-Tollgate fields of the origin never reach the client", async () => {
  const names = ["X-Tollgate-Fail-Open", "X-Tollgate-Idempotent-Replay", "X-Tollgate-Key-Id", "X-Tollgate-Anything", "X_Tollgate_Tier", "X-Tollgate"];
  const headers = new URLSearchParams([...names.map((name) => [name, "origin"]), ["X-Own", "kept"]]);
  const response = await call(await issue(), `/headers?${headers}`);
  expect(response.headers.get("x-own")).toBe("kept");
  expect([...response.headers.keys()].filter((name) => name.includes("tollgate"))).toEqual([]);
});

describe("the key is not forwarded", () => {
  test.each([
    ["from X-API-Key", (k) => ({ "X-API-Key": k })],
    ["from Authorization", (k) => ({ Authorization: `Bearer ${k}` })],
    ["from x_api_key beside X-API-Key", (k) => ({ "X-API-Key": k, x_api_key: k })],
    ["from X_API-KEY beside Authorization", (k) => ({ Authorization: `bearer ${k}`, "X_API-KEY": k, "X-API_Key": k })],
  ])("%s", async (_where, headers) => {
    const { key } = await issue();
    expect((await send("/", { headers: headers(key) })).status).toBe(200);
    const { headers: arrived } = await receivedOne();
    expect(JSON.stringify(arrived)).not.toContain(key);
    for (const name of ["x-api-key", "x_api_key", "x_api-key", "x-api_key", "authorization"]) expect(arrived).not.toHaveProperty(name);
  });

  test("from a query that repeats it, and the rest of the query stays", async () => {
    const key = await issue();
    await call(key, `/?a=%20&api_key=${key.key}&api%5Fkey=${key.key.replace("t", "%74")}&b`);
    expect((await receivedOne()).path).toBe("/?a=%20&b");
  });
});

test.each([
  "Basic dTpw",
  "Basic YWxpY2U6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==",
  "Token a-token-of-the-origins-own",
  'Digest username="u", realm="r", nonce="n", uri="/", response="0123456789abcdef0123456789abcdef"',
  "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20310312/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=fe5f80f77d5fa3beca038a248ff027d0",
  `Negotiate ${"YIIB".repeat(500)}`,
])("an Authorization without a key is forwarded: %s", async (authorization) => {
  const key = await issue();
  await call(key, "/", { headers: { Authorization: authorization } });
  expect((await receivedOne()).headers.authorization).toBe(authorization);
});

describe("no credential of tollgate is forwarded in Authorization beside X-API-Key", () => {
  const basic = (text) => `Basic ${btoa(text)}`;
  test.each([
    ["the key under another scheme", (k) => `Token ${k}`],
    ["the key under no scheme", (k) => k],
    ["the key in quotes", (k) => `Token token="${k}"`],
    ["the key as a parameter", (k) => `ApiKey key=${k}; v=1`],
    ["the key among others", (k) => `Basic dTpw, Token ${k}`],
    ["the key as a user's name", (k) => basic(`${k}:`)],
    ["the key as a password", (k) => basic(`user:${k}`)],
    ["the key after a space that is none", (k) => `Token\u00a0${k}`],
    ["another key", (_k, other) => `Token ${other}`],
    ["ADMIN_TOKEN", () => `Token ${env.ADMIN_TOKEN}`],
    ["ADMIN_TOKEN under no scheme", () => env.ADMIN_TOKEN],
    ["ADMIN_TOKEN as a password", () => basic(`admin:${env.ADMIN_TOKEN}`)],
    ["a named admin token", async () => `Token ${await token()}`],
    ["an imported key that is in use", async () => `Token ${(await used()).key}`],
  ])("%s", async (_what, make) => {
    const [key, other] = [await issue(), await issue()];
    const authorization = await make(key.key, other.key);
    expect((await call(key, "/", { headers: { Authorization: authorization } })).status).toBe(200);
    const requests = await received();
    expect(requests.at(-1).headers).not.toHaveProperty("authorization");
  });

  test("an imported key that is presented, by an isolate without it in its cache", async () => {
    const { key } = await importKey();
    expect((await call(key, "/", { headers: { Authorization: `Token ${key}` } })).status).toBe(200);
    expect(JSON.stringify(await receivedOne())).not.toContain(key);
  });

  test("a Bearer whose scheme ends with a tab is a second credential", async () => {
    const key = await issue();
    await problem(await call(key, "/", { headers: { Authorization: `Bearer\t${key.key}` } }), 400);
    expect((await send("/", { headers: { Authorization: `Bearer\t${key.key}` } })).status).toBe(200);
    expect((await receivedOne()).headers).not.toHaveProperty("authorization");
  });

  test("a value of very many parts is not searched, and not forwarded", async () => {
    const key = await issue();
    await call(key, "/", { headers: { Authorization: `Odd ${Array.from({ length: 100 }, (_, n) => `a${n}=b`).join(", ")}` } });
    expect((await receivedOne()).headers).not.toHaveProperty("authorization");
  });

  test("ADMIN_TOKEN and named tokens in the query are not forwarded", async () => {
    const key = await issue();
    await call(key, `/?a=1&token=${env.ADMIN_TOKEN}&b=${await token()}&c`);
    expect((await receivedOne()).path).toBe("/?a=1&c");
  });

  async function token() {
    const response = await admin("POST", "/tokens", { name: `ci ${crypto.randomUUID()}`, scopes: ["read"] });
    expect(response.status).toBe(201);
    return (await response.json()).token;
  }

  async function used() {
    const key = await importKey();
    await admit(key, 1);
    return key;
  }
});

test("redirects are not followed", async () => {
  const response = await call(await issue(), "/redirect");
  expect(response.status).toBe(302);
  expect(response.headers.get("location")).toBe("https://elsewhere.test/landing");
  expect(await received()).toHaveLength(1);
});

test.each([201, 204, 304, 400, 401, 403, 404, 418, 429, 500, 503])("the origin's %i passes unchanged, with the fields added", async (code) => {
  const key = await issue();
  const response = await call(key, `/status?code=${code}`);
  expect(response.status).toBe(code);
  expect(await response.text()).toBe([204, 304].includes(code) ? "" : "as the origin said");
  expect(response.headers.get("ratelimit")).toContain('"minute";r=9');
});

test("every Set-Cookie of the origin passes", async () => {
  const { headers } = await call(await issue(), "/cookies");
  expect(headers.getSetCookie()).toEqual(["a=1; Path=/", "b=2; Path=/"]);
});

test("a cacheable answer for one key is not served to another", async () => {
  for (const key of [await issue(), await issue()]) {
    for (let i = 0; i < 2; i += 1) expect(await (await call(key, "/cacheable")).text()).toBe(key.id);
  }
  expect(await received()).toHaveLength(4);
});

test("a response streams: its first part arrives before the origin has sent the second", async () => {
  const response = await call(await issue(), "/in-two-parts");
  const reader = response.body.getReader();
  expect(await read(reader, 5)).toBe("first");
  await releaseOrigin();
  expect(await read(reader, 6)).toBe("second");
  expect((await reader.read()).done).toBe(true);
});

test("a request body streams: its first part arrives before the client has sent the second", async () => {
  const key = await issue();
  const { readable, writable } = new TransformStream();
  const writer = writable.getWriter();
  const first = writer.write(encoder.encode("first"));
  const response = await call(key, "/echo", { method: "POST", body: readable });
  await first;
  const reader = response.body.getReader();
  expect(await read(reader, 5)).toBe("first");
  await Promise.all([writer.write(encoder.encode("second")), read(reader, 6).then((text) => expect(text).toBe("second"))]);
  await writer.close();
});

test("an origin may answer before the request body has ended", async () => {
  const { readable, writable } = new TransformStream();
  const writer = writable.getWriter();
  writer.write(encoder.encode("the beginning")).catch(() => {});
  const response = await call(await issue(), "/early", { method: "POST", body: readable });
  expect(await response.text()).toBe("early");
  await writer.abort().catch(() => {});
});

test("a WebSocket upgrade passes through, and counts as one call", async () => {
  const key = await issue();
  const response = await call(key, "/socket", { headers: { Upgrade: "websocket" } });
  expect(response.status).toBe(101);
  const socket = response.webSocket;
  const answer = new Promise((resolve) => socket.addEventListener("message", ({ data }) => resolve(data)));
  socket.accept();
  socket.send("hello");
  expect(await answer).toBe("echo hello");
  socket.close();
  expect((await usage(key)).calls).toBe(1);
});

test("an unreachable origin is 502, and the call stays counted", async () => {
  const key = await issue();
  const response = await call(key, "/down");
  expect(response.headers.get("ratelimit")).toContain('"minute";r=9');
  await problem(response, 502);
  expect((await usage(key)).calls).toBe(1);
});

test("a call is counted before it is forwarded", async () => {
  const key = await issue();
  const response = await call(key, "/in-two-parts");
  expect((await usage(key)).calls).toBe(1);
  await releaseOrigin();
  expect(await response.text()).toBe("firstsecond");
  await admit(key, 9);
});
