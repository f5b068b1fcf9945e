// RATELIMIT_FIELDS=none.
import { parseRateLimit } from "ratelimit-header-parser";
import { expect, test } from "vitest";
import { admit, call, issue, send, setClock } from "./lib/gate.mjs";

test("only the older fields are on admitted and denied calls and self-service, and a parser reads them", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const key = await issue();
  await admit(key, 9);
  const admitted = await call(key);
  const denied = await call(key);
  const asked = await send("/_tollgate/me", { headers: { "X-API-Key": key.key } });
  expect([admitted, denied, asked].map(({ status }) => status)).toEqual([200, 429, 200]);
  expect(denied.headers.get("retry-after")).toBe("43");
  for (const response of [admitted, denied, asked]) {
    expect([...response.headers.keys()].filter((name) => /^ratelimit/.test(name))).toEqual([]);
    expect(parseRateLimit(response)).toEqual({ limit: 10, used: 10, remaining: 0, reset: new Date("2031-03-12T12:01:00Z") });
    expect(response.headers.get("x-monthly-remaining")).toBe("990");
  }
});
