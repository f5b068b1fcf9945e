// FAIL_MODE=maybe: an invalid value.
import { expect, test } from "vitest";
import { admin, call, problem, received, send } from "./lib/gate.mjs";
import { forge } from "./lib/keys.mjs";
import { logged } from "./lib/setup.mjs";

test("an invalid value of a var is 503 to everything but health, and the log names it", async () => {
  for (const response of [await send("/"), await call(await forge()), await admin("POST", "/keys", { tier: "free" })]) {
    await problem(response, 503);
  }
  expect(await received()).toEqual([]);
  expect(logged.join("\n")).toContain("FAIL_MODE");
  expect((await send("/_tollgate/health")).status).toBe(200);
});
