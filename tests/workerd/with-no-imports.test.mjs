// ALLOW_IMPORTED_KEYS=false: only texts in tollgate's own form are keys.
import { expect, test } from "vitest";
import { takeAway } from "./lib/database.mjs";
import { admin, admit, call, issue, problem } from "./lib/gate.mjs";

test("an imported key is 401 without D1; issued ones are not affected", async () => {
  const key = "sk_live_0123456789abcdef";
  const response = await admin("POST", "/keys/import", JSON.stringify({ key, tier: "free" }));
  expect(JSON.parse(await response.text())).toHaveProperty("id");
  const giveBack = await takeAway("keys");
  await problem(await call(key), 401);
  await giveBack();
  await admit(await issue(), 1);
});
