// The audit log of a key.
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, test, vi } from "vitest";
import { makeTier, sql } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, received, send, setClock, statuses, wait } from "./lib/gate.mjs";
import { breakWrites, crash, evict, inObject, stub } from "./lib/object.mjs";

/** A tier without limits and with an audit log of two days. */
async function audited() {
  const tier = await makeTier();
  await sql("UPDATE tiers SET audit_days = 2 WHERE name = ?", tier);
  return tier;
}

/** The entries of a key's log, read page by page. */
async function log(key, { limit = 50, ...query } = {}) {
  const entries = [];
  let cursor;
  do {
    const parameters = new URLSearchParams({ limit, ...query, ...(cursor ? { cursor } : {}) });
    const response = await admin("GET", `/keys/${key.id}/audit?${parameters}`);
    expect(response.status).toBe(200);
    const page = await response.json();
    expect(page.entries.length).toBeLessThanOrEqual(limit);
    entries.push(...page.entries);
    cursor = page.next_cursor;
  } while (cursor);
  return entries;
}

const rows = async (key) => (await (await stub(key).fetch(`https://key.object/v1/stats?id=${key.id}`)).json()).rows_written;

const chunks = async (key) => {
  const [{ tables }] = await inObject(key, "SELECT COUNT(*) AS tables FROM sqlite_master WHERE name = 'audit'");
  return tables === 0 ? 0 : (await inObject(key, "SELECT COUNT(*) AS chunks FROM audit"))[0].chunks;
};

test("it has every call: time, target, verdict and outcome", async () => {
  setClock("2031-03-10T12:00:00Z");
  const key = await issue();
  await call(key, "/v1/users?page=2");
  wait(1);
  await call(key, "/status?code=404", { method: "POST", headers: { "Idempotency-Key": "order-7" } });
  await call(key, "/down");
  await statuses(key, 7);
  await denied(key);
  await denied(key);
  await vi.waitFor(async () => expect((await log(key)).every(({ status, origin_status }) => status !== 200 || origin_status)).toBe(true), { timeout: 8000 });
  const entries = await log(key);
  const entry = { cost: 1, idempotency_key: null, replay: false, count: 1, duration_ms: expect.any(Number), tokens_held: null, tokens: null, tokens_basis: null };
  expect(entries.slice(0, 3)).toEqual([
    { ...entry, at: "2031-03-10T12:00:00Z", method: "GET", class: "GET /v1", status: 200, origin_status: 200 },
    { ...entry, at: "2031-03-10T12:00:01Z", method: "POST", class: "POST /status", status: 404, origin_status: 404, idempotency_key: "order-7" },
    { ...entry, at: "2031-03-10T12:00:01Z", method: "GET", class: "GET /down", status: 502, origin_status: null },
  ]);
  expect(entries).toHaveLength(11);
  expect(entries.at(-1)).toMatchObject({ status: 429, origin_status: null, duration_ms: null, count: 2 });
});

test("it has the calls of a refused key too", async () => {
  const key = await issue();
  await admit(key, 1);
  await admin("PATCH", `/keys/${key.id}`, { status: "disabled" });
  expect((await call(key)).status).toBe(403);
  expect((await log(key)).map(({ status }) => status)).toEqual([200, 403]);
});

test("it survives evictions and crashes, and is read by time, in pages of one order", async () => {
  setClock("2031-03-10T12:00:00Z");
  const key = await issue(await audited());
  const count = 300;
  for (let i = 0; i < count; i += 1) {
    await call(key, `/n${i}`);
    wait(1);
    if (i === 100) await evict(key);
    if (i === 200) await crash(key);
  }
  const entries = await log(key, { limit: 37 });
  expect(entries.map((entry) => entry.class)).toEqual(Array.from({ length: count }, (_, i) => `GET /n${i}`));
  const [from, to] = ["2031-03-10T12:01:00Z", "2031-03-10T12:02:00Z"];
  const minute = await log(key, { from, to, limit: 7 });
  expect(minute.map(({ class: name }) => name)).toEqual(Array.from({ length: 60 }, (_, i) => `GET /n${60 + i}`));
  expect(await log(key, { from: "2031-03-11T00:00:00Z" })).toEqual([]);
});

test("it costs at most a tenth of a row per call", async () => {
  const key = await issue(await audited());
  await call(key);
  const before = await rows(key);
  for (let i = 0; i < 400; i += 1) await call(key, "/v1/things");
  expect((await rows(key)) - before).toBeLessThanOrEqual(440);
  expect(await log(key, { limit: 500 })).toHaveLength(401);
});

// Lines of different lengths, so that chunks end with a call as well as with an outcome.
test.each([0, 9, 18])("a failed write at the end of a chunk leaves nothing: it has every call once (%i)", async (length) => {
  const key = await issue(await audited());
  const text = () => crypto.randomUUID() + "x".repeat(length);
  const one = () => call(key, "/v1/things", { method: "POST", headers: { "Idempotency-Key": text() } });
  let admitted = 0;
  for (; (await chunks(key)) === 0; admitted += 1) expect((await one()).status).toBe(200);
  // The next chunk ends about as many calls later. Every second write fails from shortly before.
  for (const last = admitted + admitted; admitted < last - 8; admitted += 1) expect((await one()).status).toBe(200);
  expect(await chunks(key)).toBe(1);
  while ((await chunks(key)) === 1) {
    const mend = await breakWrites(key);
    expect((await one()).status).toBe(503);
    await mend();
    expect(await log(key, { limit: 500 })).toHaveLength(admitted);
    expect((await one()).status).toBe(200);
    admitted += 1;
  }
  expect(await log(key, { limit: 500 })).toHaveLength(admitted);
  await evict(key);
  expect(await log(key, { limit: 500 })).toHaveLength(admitted);
});

test("it omits chunks that an earlier version left", async () => {
  const key = await issue(await audited());
  let admitted = 0;
  for (; (await chunks(key)) === 0; admitted += 1) await call(key, "/v1/things");
  await inObject(key, "INSERT INTO audit SELECT seq + 1, from_ms, to_ms, body FROM audit");
  expect(await log(key, { limit: 500 })).toHaveLength(admitted);
  await evict(key);
  expect(await log(key, { limit: 33 })).toHaveLength(admitted);
});

test("in a database of more than 1 GiB new chunks replace the oldest", async () => {
  const key = await issue(await audited());
  const seqs = async () => (await inObject(key, "SELECT seq FROM audit ORDER BY seq")).map(({ seq }) => seq);
  let calls = 0;
  const until = async (last) => {
    for (; (await chunks(key)) === 0 || (await seqs()).at(-1) < last; calls += 1) await call(key, `/n${calls}`);
  };
  await until(3);
  expect(await seqs()).toEqual([0, 1, 2, 3]);
  let size = 2 ** 30;
  const sql = await runInDurableObject(stub(key), (_object, state) => Object.getPrototypeOf(state.storage.sql));
  vi.spyOn(sql, "databaseSize", "get").mockImplementation(() => size);
  await until(4);
  expect(await seqs()).toEqual([0, 1, 2, 3, 4]);
  size += 1;
  const before = await rows(key);
  const first = calls;
  await until(5);
  // A chunk of slightly more than 4 KiB replaces three.
  expect(await seqs()).toEqual([3, 4, 5]);
  expect((await rows(key)) - before).toBeLessThanOrEqual(calls - first + 5);
  await until(6);
  expect(await seqs()).toEqual([6]);
  const left = (await log(key, { limit: 500 })).map((entry) => entry.class);
  expect(left.length).toBeGreaterThan(30);
  expect(left).toEqual(Array.from({ length: left.length }, (_, i) => `GET /n${calls - left.length + i}`));
});

test("an idempotency key of 255 vertical bars costs 64 bytes of it", async () => {
  const key = await issue(await audited());
  const keyed = (text) => call(key, "/v1", { method: "POST", headers: { "Idempotency-Key": text } });
  await keyed("|".repeat(255));
  await keyed("order-7");
  const entries = await log(key);
  expect(entries.map((entry) => entry.idempotency_key)).toEqual([`${"|".repeat(15)}…443d717569113ba1`, "order-7"]);
  const [{ body }] = await inObject(key, "SELECT body FROM state");
  expect(JSON.parse(body).a.length).toBeLessThan(300);
});

test("a tier without audit_days keeps none", async () => {
  const key = await issue("unlimited");
  await admit(key, 3);
  expect(await log(key)).toEqual([]);
});

describe("bad requests", () => {
  test.each([
    ["limit=0", "limit"],
    ["limit=501", "limit"],
    ["from=yesterday", "from"],
    ["to=2031-13-01T00:00:00Z", "to"],
    ["cursor=6161", "cursor"],
    ["cursor=656e74726965733a782d79", "cursor"],
    ["since=1", "since"],
  ])("%s", async (query, word) => {
    const key = await issue();
    expect((await problem(await admin("GET", `/keys/${key.id}/audit?${query}`), 400)).detail).toContain(word);
  });

  test("an unknown key is 404, no token 401, another method 405", async () => {
    await problem(await admin("GET", "/keys/aaaaaaaaaaaaaaaa/audit"), 404);
    await problem(await send("/_tollgate/keys/aaaaaaaaaaaaaaaa/audit"), 401);
    await problem(await admin("POST", "/keys/aaaaaaaaaaaaaaaa/audit"), 405);
  });
});
