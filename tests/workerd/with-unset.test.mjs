// Neither ADMIN_TOKEN nor KEY_SECRET is set.
import { expect, test } from "vitest";
import { call, problem, received, send } from "./lib/gate.mjs";
import { forge } from "./lib/keys.mjs";

test.each([
  ["with a token", { Authorization: "Bearer anything" }],
  ["with an empty token", { Authorization: "Bearer " }],
  ["without a token", {}],
])("without ADMIN_TOKEN the admin API is 503 to every request: %s", async (_what, headers) => {
  for (const [method, path] of [["POST", "/keys"], ["GET", "/keys/abcdefghij234567"], ["GET", "/keys/abcdefghij234567/usage"]]) {
    const body = method === "POST" ? '{"tier":"free"}' : undefined;
    await problem(await send(`/_tollgate${path}`, { method, headers, body }), 503);
  }
});

test("without KEY_SECRET every key is 503, and nothing reaches the origin", async () => {
  for (const presented of [await forge({ secret: "x" }), "hello"]) await problem(await call(presented), 503);
  await problem(await send("/"), 401);
  expect(await received()).toEqual([]);
});

test("health is ok without either", async () => {
  expect((await send("/_tollgate/health")).status).toBe(200);
});
