// Browsers: preflights, and which OPTIONS is none.
import { expect, test } from "vitest";
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

test("a preflight is not counted, and tells the origin of no key", async () => {
  const key = await issue();
  const headers = { ...PREFLIGHT, "X-Tollgate-Key-Id": "forged", x_tollgate_tier: "forged" };
  expect((await call(key, "/", { method: "OPTIONS", headers })).status).toBe(200);
  const arrived = (await receivedOne()).headers;
  expect(Object.keys(arrived).filter((name) => /tollgate|api.key/.test(name))).toEqual([]);
  expect((await usage(key)).calls).toBe(0);
});

test("a key that comes with a preflight is not forwarded", async () => {
  const { key } = await issue();
  for (const credential of [{ Authorization: `Bearer ${key}` }, { "X-API-Key": key }, { x_api_key: key }]) {
    await send("/", { method: "OPTIONS", headers: { ...PREFLIGHT, ...credential } });
  }
  const requests = await received();
  expect(requests).toHaveLength(3);
  expect(JSON.stringify(requests)).not.toContain(key);
});

test("an Authorization of somebody else's passes with a preflight", async () => {
  await send("/", { method: "OPTIONS", headers: { ...PREFLIGHT, Authorization: "Bearer another-token" } });
  expect((await receivedOne()).headers.authorization).toBe("Bearer another-token");
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
