// Outcomes of calls, which an isolate keeps until a request carries them. The rules are tested
// natively (src/gateway/outbox).
import { expect, test, vi } from "vitest";
import { makeTier, sql } from "./lib/database.mjs";
import { admin, call, issue, received, releaseOrigin } from "./lib/gate.mjs";
import { breakWrites, crash, intercept } from "./lib/object.mjs";
import { takeTimeOver } from "./lib/timers.mjs";

/** Maximum number of outcomes of one key that an isolate keeps. */
const OUTCOMES_OF_KEY = 256;

async function auditedKey() {
  const tier = await makeTier();
  await sql("UPDATE tiers SET audit_days = 7 WHERE name = ?", tier);
  return issue(tier);
}

/**
 * Sends calls that the origin holds until those of this method are released. Resolves to a promise
 * of their responses.
 */
async function hold(key, method, count) {
  const before = (await received()).length;
  const answers = Promise.all(Array.from({ length: count }, () => call(key, `/held?${method}`, { method })));
  await vi.waitFor(async () => expect(await received()).toHaveLength(before + count), { timeout: 15_000 });
  return { answers };
}

async function letGo(method, { answers }) {
  await releaseOrigin(`?${method}`);
  for (const answer of await answers) expect(answer.status).toBe(200);
}

/** Number of calls with a known outcome, by method. */
async function endings(key) {
  const { entries } = await (await admin("GET", `/keys/${key.id}/audit?limit=500`)).json();
  const count = (method) => entries.filter((entry) => entry.method === method && entry.origin_status === 200).length;
  return { GET: count("GET"), POST: count("POST") };
}

test("of the outcomes of one key between two requests, the last 256 are delivered", async () => {
  const key = await auditedKey();
  const [first, last] = [await hold(key, "GET", 44), await hold(key, "POST", OUTCOMES_OF_KEY)];
  let isAway = true;
  await intercept(key, (answer) => (isAway ? Promise.reject(new Error("the object is away")) : answer()));
  await letGo("GET", first);
  await letGo("POST", last);
  isAway = false;
  await call(key, "/", { method: "HEAD" });
  expect(await endings(key)).toEqual({ GET: 0, POST: OUTCOMES_OF_KEY });
});

test("a lost request that carried some does not exceed that", async () => {
  const key = await auditedKey();
  const [first, last] = [await hold(key, "GET", 44), await hold(key, "POST", OUTCOMES_OF_KEY)];
  let lose;
  const lost = new Promise((_resolve, reject) => (lose = reject));
  let isAway = true;
  const asked = await intercept(key, (answer) => (isAway ? lost : answer()));
  await letGo("GET", first);
  const taker = call(key, "/", { method: "HEAD" });
  await vi.waitFor(() => expect(asked).toContain("/v1/check"));
  await letGo("POST", last);
  lose(new Error("the object is away"));
  expect((await taker).status).toBe(503);
  isAway = false;
  await call(key, "/", { method: "HEAD" });
  expect(await endings(key)).toEqual({ GET: 0, POST: OUTCOMES_OF_KEY });
});

test("an outcome that no request carries is delivered alone after a second, and again with the next one", async () => {
  const key = await auditedKey();
  const { pass } = await takeTimeOver(key);
  const asked = await intercept(key);
  expect((await call(key)).status).toBe(200);
  await pass(0.9);
  expect(asked).toEqual(["/v1/check"]);
  await pass(0.2);
  expect(asked).toEqual(["/v1/check", "/v1/end"]);
  // The object has not written a row for it.
  await crash(key);
  await call(key, "/", { method: "HEAD" });
  expect(await endings(key)).toEqual({ GET: 1, POST: 0 });
});

test("a request whose write fails returns the outcomes that it carried", async () => {
  const key = await auditedKey();
  expect((await call(key)).status).toBe(200);
  const mend = await breakWrites(key);
  expect((await call(key, "/", { method: "HEAD" })).status).toBe(503);
  await mend();
  expect((await call(key, "/", { method: "HEAD" })).status).toBe(200);
  expect(await endings(key)).toEqual({ GET: 1, POST: 0 });
});

test("a call is answered although its outcome cannot be delivered, and the next request carries it", async () => {
  const key = await issue();
  const pay = () => call(key, "/order", { method: "POST", headers: { "Idempotency-Key": "order" } });
  let isAway = true;
  const asked = await intercept(key, (answer) => (isAway && asked.at(-1) === "/v1/end" ? Promise.reject(new Error("away")) : answer()));
  expect((await pay()).status).toBe(200);
  expect(asked).toEqual(["/v1/check", "/v1/end"]);
  isAway = false;
  const repeat = await pay();
  expect([repeat.status, repeat.headers.get("x-tollgate-idempotent-replay")]).toEqual([200, "1"]);
});
