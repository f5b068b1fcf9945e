// The rate-limit fields, and the form of a denial.
import { env } from "cloudflare:workers";
import { parseRateLimit } from "ratelimit-header-parser";
import { parseList } from "structured-headers";
import { expect, test } from "vitest";
import { makeTier, setKey } from "./lib/database.mjs";
import { admit, call, issue, problem, rateLimit, received, send, setClock, usage, wait } from "./lib/gate.mjs";

test("an admitted call carries RateLimit-Policy and RateLimit in the syntax of the draft", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const { headers } = await call(await issue());
  expect(headers.get("ratelimit-policy")).toBe('"minute";q=10;w=60, "month";q=1000;w=2678400');
  expect(headers.get("ratelimit")).toBe('"minute";r=9;t=43, "month";r=999;t=1684783');
});

test("a parser of structured fields reads them", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const tier = await makeTier({ quota: 10, period: "minute" }, { policy: "a-long_name2", quota: 7, period: "day", algorithm: "sliding" });
  const { headers } = await call(await issue(tier));
  const read = (name) => parseList(headers.get(name)).map(([value, parameters]) => [value, Object.fromEntries(parameters)]);
  expect(read("ratelimit-policy")).toEqual([["minute", { q: 10, w: 60 }], ["a-long_name2", { q: 7, w: 86_400 }]]);
  expect(read("ratelimit")).toEqual([["minute", { r: 9, t: 43 }], ["a-long_name2", { r: 6, t: 86_400 }]]);
});

test("RateLimit counts down with the calls, and t to the reset", async () => {
  const key = await issue();
  for (let left = 9; left >= 0; left -= 1) {
    const { minute, month } = rateLimit(await call(key));
    expect([minute.r, month.r, minute.t]).toEqual([left, 990 + left, 60 - 2 * (9 - left)]);
    wait(2);
  }
});

test("the older X- fields have the same values for the minute and the month", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const { headers } = await call(await issue());
  expect(headers.get("x-ratelimit-limit")).toBe("10");
  expect(headers.get("x-ratelimit-remaining")).toBe("9");
  expect(headers.get("x-ratelimit-reset")).toBe(String(Date.UTC(2031, 2, 12, 12, 1) / 1000));
  expect(headers.get("x-monthly-remaining")).toBe("999");
});

test("a parser of rate-limit fields reads the older ones", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const headers = new Headers((await call(await issue())).headers);
  headers.delete("ratelimit");
  expect(parseRateLimit(headers)).toEqual({ limit: 10, used: 1, remaining: 9, reset: new Date("2031-03-12T12:01:00Z") });
});

test("a tier without a minute or a month has no X- fields", async () => {
  const { headers } = await call(await issue(await makeTier({ quota: 5, period: "hour" })));
  expect(headers.get("ratelimit")).toBe('"hour";r=4;t=3600');
  expect([...headers.keys()].filter((name) => /^x-(ratelimit|monthly)/.test(name))).toEqual([]);
});

test("a denial is 429 with Retry-After, the fields, and the problem of the draft", async () => {
  setClock("2031-03-12T12:00:17.400Z");
  const key = await issue();
  await admit(key, 10);
  const response = await call(key);
  expect(response.headers.get("retry-after")).toBe("43");
  expect(response.headers.get("ratelimit")).toBe('"minute";r=0;t=43, "month";r=990;t=1684783');
  expect(response.headers.get("x-ratelimit-remaining")).toBe("0");
  expect(await problem(response, 429)).toEqual({
    type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    title: "Quota Exceeded",
    status: 429,
    detail: expect.any(String),
    "violated-policies": ["minute"],
    retry_after: 43,
  });
});

test("a denied call never reaches the origin and is never counted as a call", async () => {
  const key = await issue();
  await admit(key, 10);
  for (let i = 0; i < 5; i += 1) expect((await call(key, "/denied")).status).toBe(429);
  expect((await received()).map(({ path }) => path)).toEqual(Array(10).fill("/"));
  expect((await usage(key)).calls).toBe(10);
});

test("the fields are on refusals of a known key and on failures of the origin too", async () => {
  const key = await issue();
  expect(rateLimit(await call(key, "/down"))).toMatchObject({ minute: { r: 9 } });
  await setKey(key, "status", "disabled");
  wait(61);
  const response = await call(key);
  expect(response.status).toBe(403);
  expect(rateLimit(response)).toMatchObject({ minute: { r: 10 }, month: { r: 999 } });
});

test("the origin's rate-limit fields are replaced by tollgate's", async () => {
  const { headers } = await call(await issue(), "/own-fields");
  expect(headers.get("ratelimit")).toContain('"minute";r=9');
  expect(headers.get("x-ratelimit-limit")).toBe("10");
  expect(headers.get("x-own")).toBe("kept");
});

test("without a known key there are no rate-limit fields", async () => {
  const { headers } = await send("/", { headers: { "X-API-Key": "tg_nobody" } });
  for (const name of ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-monthly-remaining", "retry-after"]) {
    expect(headers.has(name)).toBe(false);
  }
});

test("browsers may read every field of a refusal", async () => {
  const key = await issue();
  await admit(key, 10);
  const { headers } = await call(key);
  expect(headers.get("access-control-allow-origin")).toBe(env.CORS_ALLOW_ORIGIN);
  const exposed = headers.get("access-control-expose-headers").toLowerCase().split(", ");
  const fields = [...headers.keys()].filter((name) => /ratelimit|monthly|retry/.test(name));
  expect(fields).toHaveLength(7);
  expect(exposed).toEqual(expect.arrayContaining(fields));
});
