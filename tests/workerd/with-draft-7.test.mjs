// RATELIMIT_FIELDS=draft-7, read by third-party parsers.
import { parseRateLimit } from "ratelimit-header-parser";
import { parseDictionary, parseList } from "structured-headers";
import { expect, test } from "vitest";
import { makeTier } from "./lib/database.mjs";
import { admit, call, issue, send, setClock, wait } from "./lib/gate.mjs";

/** The result of ratelimit-header-parser; `reset` in seconds. */
function parsed(response) {
  const { reset, ...rest } = parseRateLimit(response);
  return { ...rest, reset: (reset - Date.now()) / 1000 };
}

test("RateLimit is one policy, RateLimit-Policy all of them, in the syntax of draft 07", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const response = await call(await issue());
  expect(response.headers.get("ratelimit")).toBe("limit=10, remaining=9, reset=43");
  expect(response.headers.get("ratelimit-policy")).toBe("10;w=60, 1000;w=2678400");
  expect(parsed(response)).toEqual({ limit: 10, used: 1, remaining: 9, reset: 43 });
  const members = Object.fromEntries([...parseDictionary(response.headers.get("ratelimit"))].map(([name, [value]]) => [name, value]));
  expect(members).toEqual({ limit: 10, remaining: 9, reset: 43 });
  const policies = parseList(response.headers.get("ratelimit-policy")).map(([quota, parameters]) => [quota, parameters.get("w")]);
  expect(policies).toEqual([[10, 60], [1000, 2_678_400]]);
});

test("it is the policy with the smallest remaining share", async () => {
  setClock("2031-03-12T12:00:00.000Z");
  const key = await issue(await makeTier({ quota: 10, period: "minute" }, { quota: 15, period: "day" }));
  await admit(key, 8);
  expect(parsed(await call(key))).toEqual({ limit: 10, used: 9, remaining: 1, reset: 60 });
  wait(60);
  expect(parsed(await call(key))).toEqual({ limit: 15, used: 10, remaining: 5, reset: 12 * 3600 - 60 });
});

test("a denial is of the policy that refused, from the object and from the isolate, counted down", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const key = await issue();
  await admit(key, 10);
  for (const [left, pause] of [[43, 0], [43, 2], [41, 0]]) {
    const response = await call(key);
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe(String(left));
    expect(response.headers.get("ratelimit-policy")).toBe("10;w=60, 1000;w=2678400");
    expect(parsed(response)).toEqual({ limit: 10, used: 10, remaining: 0, reset: left });
    wait(pause);
  }
});

test("the older fields, self-service and exposed fields are unchanged", async () => {
  const key = await issue();
  const response = await call(key);
  expect(response.headers.get("x-ratelimit-remaining")).toBe("9");
  expect(response.headers.get("x-monthly-remaining")).toBe("999");
  const me = await send("/_tollgate/me", { headers: { "X-API-Key": key.key } });
  expect(parsed(me)).toMatchObject({ limit: 10, remaining: 9 });
  const exposed = me.headers.get("access-control-expose-headers").toLowerCase().split(", ");
  expect(exposed).toEqual(expect.arrayContaining([...me.headers.keys()].filter((name) => name.includes("ratelimit"))));
});
