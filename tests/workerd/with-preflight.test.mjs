// PREFLIGHT=answer: the gate answers preflights itself.
import { expect, test } from "vitest";
import { call, issue, problem, received, send, usage } from "./lib/gate.mjs";

const PREFLIGHT = { Origin: "https://app.test", "Access-Control-Request-Method": "PATCH" };

/** The CORS fields of the response. */
function cors({ headers }) {
  return Object.fromEntries([...headers].filter(([name]) => name.startsWith("access-control-allow") || name === "access-control-max-age"));
}

test.each(["/thing?a=1", "/public"])("a preflight is granted the requested fields: %s", async (path) => {
  const headers = { ...PREFLIGHT, "Access-Control-Request-Headers": "authorization, x-own" };
  const response = await send(path, { method: "OPTIONS", headers, body: "x" });
  expect(response.status).toBe(204);
  expect(await response.text()).toBe("");
  expect(cors(response)).toEqual({
    "access-control-allow-origin": "https://app.test",
    "access-control-allow-methods": "PATCH",
    "access-control-allow-headers": "authorization, x-own",
    "access-control-max-age": "7200",
  });
  expect(response.headers.get("vary").split(/, */)).toEqual(["Access-Control-Request-Method", "Access-Control-Request-Headers"]);
  expect(await received()).toEqual([]);
});

test("only names of fields are granted", async () => {
  const headers = { ...PREFLIGHT, "Access-Control-Request-Headers": "x-one, two words,, x-three\u00e4, *, x-four" };
  const response = await send("/", { method: "OPTIONS", headers });
  expect(cors(response)["access-control-allow-headers"]).toBe("x-one, x-four");
});

test("a preflight that requests no field is granted none", async () => {
  for (const headers of [PREFLIGHT, { ...PREFLIGHT, "Access-Control-Request-Headers": "" }]) {
    expect(cors(await send("/", { method: "OPTIONS", headers }))).not.toHaveProperty("access-control-allow-headers");
  }
});

test("the granted origin is that of CORS_ALLOW_ORIGIN, for any request", async () => {
  const response = await send("/", { method: "OPTIONS", headers: { ...PREFLIGHT, Origin: "https://evil.test" } });
  expect(cors(response)["access-control-allow-origin"]).toBe("https://app.test");
});

test("a preflight spends nothing, and any other OPTIONS needs a key", async () => {
  const key = await issue();
  expect((await call(key, "/", { method: "OPTIONS", headers: PREFLIGHT })).status).toBe(204);
  expect((await usage(key)).calls).toBe(0);
  for (const headers of [{}, { ...PREFLIGHT, Origin: "app.test" }, { ...PREFLIGHT, "Access-Control-Request-Method": "A B" }]) {
    await problem(await send("/", { method: "OPTIONS", headers }), 401);
  }
  expect((await call(key, "/", { method: "OPTIONS" })).status).toBe(200);
  expect((await usage(key)).calls).toBe(1);
});
