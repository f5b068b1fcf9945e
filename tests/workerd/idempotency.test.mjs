// Repeated calls by Idempotency-Key.
import { describe, expect, test, vi } from "vitest";
import { makeTier, sql } from "./lib/database.mjs";
import { admin, call, issue, problem, rateLimit, received, releaseOrigin, usage, used, wait } from "./lib/gate.mjs";
import { breakWrites, check, crash, evict, inObject, objectText, stub } from "./lib/object.mjs";

const REPLAY = "x-tollgate-idempotent-replay";
const pay = (key, idempotencyKey, path = "/", headers = {}) =>
  call(key, path, { method: "POST", body: "x", headers: { "Idempotency-Key": idempotencyKey, ...headers } });

const DAY = 86_400;
/** Statuses of consecutive calls, with an asterisk for a replay. */
async function marked(calls) {
  const all = [];
  for (const one of calls) {
    const response = await one();
    all.push(`${response.status}${response.headers.has(REPLAY) ? "*" : ""}`);
  }
  return all;
}
const times = (count, one) => Array.from({ length: count }, () => one);
/**
 * Starts a call that the origin holds; resolves to `{ answer }` once the origin has `count`
 * requests.
 */
async function held(key, idempotencyKey, count = 1) {
  const answer = pay(key, idempotencyKey, "/held");
  await vi.waitFor(async () => expect(await received()).toHaveLength(count), { timeout: 5000 });
  return { answer };
}

describe("a month of 3 and 150 calls with one key", () => {
  const month = () => makeTier({ quota: 3, period: "month" });

  test("the same request: the first is charged, five repeats are free, all others are charged", async () => {
    const key = await issue(await month());
    const all = await marked(times(150, () => pay(key, "z", "/orders?a=1")));
    expect(all).toEqual(["200", ...Array(7).fill("200*"), ...Array(142).fill("429")]);
    expect(await used(key)).toEqual({ month: 3 });
    expect((await usage(key)).calls).toBe(8);
    expect(await received()).toHaveLength(8);
  });

  test("other requests: 422, spend nothing, not denied, not forwarded", async () => {
    const key = await issue(await month());
    expect((await pay(key, "z", "/orders?a=1")).status).toBe(200);
    const others = [
      ["POST", "/orders?a=2"], ["POST", "/orders"], ["POST", "/orders?a=1&b"], ["POST", "/orders/?a=1"], ["PUT", "/orders?a=1"],
      ["POST", "/Orders?a=1"], ["DELETE", "/orders?a=1"], ["PATCH", "/"],
    ];
    for (const [method, path] of others) {
      const response = await call(key, path, { method, body: "x", headers: { "Idempotency-Key": "z" } });
      const { detail } = await problem(response, 422);
      expect(detail).toContain("Idempotency-Key");
      expect(response.headers.get("retry-after")).toBeNull();
      expect(rateLimit(response).month.r).toBe(2);
    }
    expect(await used(key)).toEqual({ month: 1 });
    expect(await received()).toHaveLength(1);
    await stub(key).ask(`https://key.object/v1/end?id=${key.id}&w=1#1.200.1`);
    expect((await usage(key)).calls).toBe(1);
    const { entries } = await (await admin("GET", `/keys/${key.id}/audit`)).json();
    expect(entries.every(({ status }) => [200, 422].includes(status))).toBe(true);
    // The same request is still a repeat.
    expect(await marked([() => pay(key, "z", "/orders?a=1")])).toEqual(["200*"]);
  });

  test("the API key in the query is not part of the fingerprint, all else is", async () => {
    const key = await issue(await month());
    expect((await pay(key, "z", `/orders?k=${key.key}&a=1`)).status).toBe(200);
    expect(await marked([() => pay(key, "z", "/orders?a=1"), () => pay(key, "z", "/orders?k=1&a=1")])).toEqual(["200*", "422"]);
  });

  test("the same number at once as one after the other", async () => {
    const key = await issue(await makeTier({ quota: 3, period: "month" }));
    await pay(key, "z");
    const all = await Promise.all(times(60, () => pay(key, "z")).map((one) => one()));
    expect(all.filter(({ status }) => status === 200)).toHaveLength(7);
    expect(await used(key)).toEqual({ month: 3 });
    expect(await received()).toHaveLength(8);
  });

  test.each([["evicted", evict], ["crashed", crash]])("the count of free repeats is kept when the object has %s", async (_, end) => {
    const key = await issue(await month());
    const all = [];
    for (let i = 0; i < 9; i += 1) {
      all.push(...(await marked([() => pay(key, "z")])));
      await end(key);
    }
    expect(all).toEqual(["200", ...Array(7).fill("200*"), "429"]);
    expect(await used(key)).toEqual({ month: 3 });
  });
});

describe.each(["GET", "HEAD", "OPTIONS"])("%s", (method) => {
  test("is never a repeat, with any Idempotency-Key", async () => {
    const key = await issue(await makeTier({ quota: 3, period: "month" }));
    const safe = (text) => () => call(key, "/", { method, headers: { "Idempotency-Key": text } });
    const malformed = "x".repeat(256);
    expect(await marked([safe("z"), safe(malformed), safe("z"), safe("z"), safe(malformed)])).toEqual(["200", "200", "200", "429", "429"]);
    expect((await received()).map(({ headers }) => headers["idempotency-key"])).toEqual(["z", malformed, "z"]);
    expect(await used(key)).toEqual({ month: 3 });
  });
});

describe("a tier whose idempotency is off", () => {
  test("judges and forwards calls with a key like others", async () => {
    const name = `off-${crypto.randomUUID().slice(0, 8)}`;
    const body = { idempotency: "off", audit_days: 3, policies: [{ policy: "month", quota: 3, period: "month" }] };
    expect((await admin("PUT", `/tiers/${name}`, body)).status).toBe(201);
    const key = await issue(name);
    const texts = ["z", "z", "x".repeat(256), "z"];
    expect(await marked(texts.map((text) => () => pay(key, text)))).toEqual(["200", "200", "200", "429"]);
    expect((await received()).map(({ headers }) => headers["idempotency-key"])).toEqual(texts.slice(0, 3));
    const { entries } = await (await admin("GET", `/keys/${key.id}/audit`)).json();
    expect(entries.map(({ idempotency_key }) => idempotency_key)).toEqual([null, null, null, null]);
  });

  test("delays no call while another with its key is in flight", async () => {
    const tier = await makeTier();
    await sql("UPDATE tiers SET idempotency = 'off' WHERE name = ?", tier);
    const key = await issue(tier);
    const { answer } = await held(key, "slow");
    expect(await marked([() => pay(key, "slow"), () => pay(key, "slow")])).toEqual(["200", "200"]);
    await releaseOrigin();
    expect((await answer).status).toBe(200);
  });

  test("takes effect with the next request after a change, in both directions", async () => {
    const tier = await makeTier({ quota: 90, period: "month" });
    const policies = [{ policy: "month", quota: 90, period: "month" }];
    const key = await issue(tier);
    expect(await marked(times(2, () => pay(key, "z")))).toEqual(["200", "200*"]);
    await admin("PUT", `/tiers/${tier}`, { idempotency: "off", policies });
    expect(await marked(times(2, () => pay(key, "z", "/elsewhere")))).toEqual(["200", "200"]);
    await admin("PUT", `/tiers/${tier}`, { policies });
    expect(await marked([() => pay(key, "z"), () => pay(key, "z", "/elsewhere")])).toEqual(["200*", "422"]);
  });
});

describe("other versions, during a deployment", () => {
  // The request of an isolate that sent no fingerprint, and a key with every method.
  const old = async (key, nonce, method, path) => (await check(key, nonce, `&i=z&m=${method}&p=${path}`)).split(" ")[1];
  const end = (key, nonce) => stub(key).ask(`https://key.object/v1/end?id=${key.id}&w=1#${nonce}.200.1`);

  test("a request without a fingerprint is never a free repeat, and allows none", async () => {
    const key = await issue(await makeTier({ quota: 9, period: "month" }));
    expect(await old(key, 1, "POST", "/a")).toBe("admitted:e");
    expect(await old(key, 2, "POST", "/a")).toBe("conflict");
    await end(key, 1);
    expect(await old(key, 3, "POST", "/b")).toMatch(/^admitted:r/);
    expect(await used(key)).toEqual({ month: 2 });
    // The first repeat with a fingerprint is charged too; its repeats are free.
    expect(await marked(times(7, () => pay(key, "z", "/c")))).toEqual(Array(7).fill("200*"));
    expect(await used(key)).toEqual({ month: 4 });
    expect(await old(key, 4, "POST", "/c")).toMatch(/^admitted:r/);
    expect(await used(key)).toEqual({ month: 5 });
  });

  test("a request about a GET with a key is treated as one without", async () => {
    const key = await issue(await makeTier({ quota: 2, period: "month" }));
    expect([await old(key, 1, "GET", "/"), await old(key, 2, "GET", "/"), await old(key, 3, "GET", "/")])
      .toEqual(["admitted", "admitted", expect.stringMatching(/^denied:\d+:1:0$/)]);
  });
});

describe("a write that fails", () => {
  test("at the end of a chunk leaves no mark of a call that was not admitted", async () => {
    const key = await issue(await makeTier({ quota: 10_000, period: "month" }));
    for (let i = 0; i < 511; i += 73) await Promise.all(Array.from({ length: 73 }, (_, j) => pay(key, `k${i + j}`)));
    const mend = await breakWrites(key);
    expect((await pay(key, "k511")).status).toBe(503);
    await mend();
    expect(await marked(times(2, () => pay(key, "k511")))).toEqual(["200", "200*"]);
    expect(await used(key)).toEqual({ month: 512 });
    await evict(key);
    expect(await marked([() => pay(key, "k511"), () => pay(key, "k0")])).toEqual(["200*", "200*"]);
    expect(await chunks(key)).toBe(1);
  });

  test("chunks that an earlier version left have no effect", async () => {
    const key = await issue(await makeTier({ quota: 10_000, period: "month" }));
    for (let i = 0; i < 512; i += 64) await Promise.all(Array.from({ length: 64 }, (_, j) => pay(key, `k${i + j}`)));
    // As if the commit of the chunk had failed.
    const other = await issue(await makeTier({ quota: 10_000, period: "month" }));
    await pay(other, "first");
    const [{ until_ms, body }] = await inObject(key, "SELECT until_ms, body FROM replays");
    await inObject(other, "CREATE TABLE replays (id INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL, body TEXT NOT NULL)");
    await inObject(other, "INSERT INTO replays VALUES (0, ?, ?)", until_ms, body);
    await evict(other);
    expect(await marked([() => pay(other, "k7")])).toEqual(["200"]);
    expect(await chunks(other)).toBe(0);
  });
});

test("a repeat is forwarded and marked, and charged to the minute but not to the month", async () => {
  const key = await issue();
  const first = await pay(key, "order-1");
  expect([first.status, first.headers.get(REPLAY), rateLimit(first).month.r]).toEqual([200, null, 999]);
  const second = await pay(key, "order-1");
  expect([second.status, second.headers.get(REPLAY)]).toEqual([200, "1"]);
  expect(rateLimit(second)).toMatchObject({ minute: { r: 8 }, month: { r: 999 } });
  expect(await used(key)).toEqual({ minute: 2, month: 1 });
  // Every call that reached the origin is counted.
  expect((await usage(key)).calls).toBe(2);
  const sent = await received();
  expect(sent.map(({ headers }) => headers[REPLAY])).toEqual([undefined, "1"]);
  expect(sent.map(({ headers }) => headers["idempotency-key"])).toEqual(["order-1", "order-1"]);
});

test("a client cannot set the mark of a replay", async () => {
  const key = await issue();
  const response = await pay(key, "mine", "/", { [REPLAY]: "1", x_tollgate_idempotent_replay: "1" });
  expect(response.headers.get(REPLAY)).toBeNull();
  const [{ headers }] = await received();
  expect(Object.keys(headers).filter((name) => name.includes("replay"))).toEqual([]);
});

test("a repeat passes an exhausted month, but not an exhausted minute", async () => {
  const key = await issue(await makeTier({ quota: 3, period: "minute" }, { quota: 1, period: "month" }));
  expect((await pay(key, "a")).status).toBe(200);
  expect((await pay(key, "b")).status).toBe(429);
  expect((await call(key)).status).toBe(429);
  const repeated = [await pay(key, "a"), await pay(key, "a"), await pay(key, "a")];
  expect(repeated.map(({ status }) => status)).toEqual([200, 200, 429]);
  expect((await problem(repeated[2], 429))["violated-policies"]).toEqual(["minute"]);
});

test("a denied first attempt leaves no trace: the next one is charged", async () => {
  const key = await issue(await makeTier({ quota: 1, period: "minute" }, { quota: 10, period: "month" }));
  expect((await call(key)).status).toBe(200);
  expect((await pay(key, "late")).status).toBe(429);
  wait(60);
  const first = await pay(key, "late");
  expect([first.status, first.headers.get(REPLAY)]).toEqual([200, null]);
  expect((await used(key)).month).toBe(2);
});

describe("a repeat while the first is in flight", () => {
  test("is 409, not counted and not forwarded, until the origin has answered", async () => {
    const key = await issue();
    const { answer: first } = await held(key, "slow");
    const repeat = await pay(key, "slow", "/held");
    expect(repeat.headers.get("retry-after")).toBe("1");
    await problem(repeat, 409);
    expect(await used(key)).toEqual({ minute: 1, month: 1 });
    // Other calls do not wait.
    expect((await pay(key, "other")).status).toBe(200);
    await releaseOrigin();
    expect((await first).status).toBe(200);
    const { answer: again } = await held(key, "slow", 3);
    await releaseOrigin();
    expect((await again).headers.get(REPLAY)).toBe("1");
    expect(await used(key)).toEqual({ minute: 3, month: 2 });
  });

  test("is recognised after an eviction of the object, and for five minutes at most", async () => {
    const key = await issue();
    const { answer: first } = await held(key, "slow");
    await evict(key);
    expect((await pay(key, "slow", "/held")).status).toBe(409);
    wait(5 * 60);
    const { answer: again } = await held(key, "slow", 2);
    await releaseOrigin();
    expect((await again).headers.get(REPLAY)).toBe("1");
    await first;
  });

  test("is 422 at once if it is a different request", async () => {
    const key = await issue();
    const { answer: first } = await held(key, "slow");
    await problem(await pay(key, "slow", "/other"), 422);
    await releaseOrigin();
    await first;
  });
});

test("the end of a call is durable before its response", async () => {
  const key = await issue();
  expect((await pay(key, "order")).status).toBe(200);
  await crash(key);
  expect((await pay(key, "order")).headers.get(REPLAY)).toBe("1");
});

test("a call whose origin is unreachable has ended too", async () => {
  const key = await issue();
  expect(await marked(times(2, () => pay(key, "order", "/down")))).toEqual(["502", "502*"]);
});

test("after 24 hours a key is new, however often it was repeated", async () => {
  const key = await issue();
  await pay(key, "order");
  wait(DAY - 60);
  expect((await pay(key, "order")).headers.get(REPLAY)).toBe("1");
  wait(60);
  expect((await pay(key, "order")).headers.get(REPLAY)).toBeNull();
});

test("idempotency keys belong to an API key", async () => {
  const [one, other] = [await issue(), await issue()];
  await pay(one, "order");
  expect((await pay(other, "order")).headers.get(REPLAY)).toBeNull();
});

test.each([["x".repeat(256)], ["\u00fc"], ["a\tb"]])("%j is not a valid idempotency key: 400, and not counted", async (text) => {
  const key = await issue();
  const { detail } = await problem(await pay(key, text), 400);
  expect(detail).toContain("Idempotency-Key");
  expect(await used(key)).toEqual({ minute: 0, month: 0 });
});

test("they are stored in chunks, and deleted when they expire", async () => {
  const key = await issue("unlimited");
  const count = 1100;
  const before = await writes(key);
  for (let i = 0; i < count; i += 50) {
    const all = await Promise.all(Array.from({ length: 50 }, (_, j) => pay(key, `k${i + j}`)));
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([200]));
  }
  expect(await chunks(key)).toBe(2);
  expect(await writes(key) - before).toBeLessThan(2.1 * count);
  await evict(key);
  expect((await pay(key, "k0")).headers.get(REPLAY)).toBe("1");
  wait(DAY + 60);
  expect((await pay(key, "k0")).headers.get(REPLAY)).toBeNull();
  await vi.waitFor(async () => expect(await chunks(key)).toBe(0));
});

async function chunks(key) {
  const text = await objectText(key);
  return text.split("\n").filter((table) => table.includes("until_ms")).flatMap((table) => JSON.parse(table)).length;
}

async function writes(key) {
  const { env } = await import("cloudflare:workers");
  return (await (await env.KEYS.getByName(key.id).fetch(`https://key.object/v1/stats?id=${key.id}`)).json()).rows_written;
}
