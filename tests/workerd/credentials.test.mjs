// Credentials: the key that a request presents, and the refusals.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { databaseText, setKey, sql, takeAway } from "./lib/database.mjs";
import { admin, call, issue, problem, received, receivedOne, send, usage, wait } from "./lib/gate.mjs";
import { forge, mistype, secretPart } from "./lib/keys.mjs";
import { countObjects, objectText, runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

const keyIn = (name, value) => send("/", { headers: { [name]: value } });

describe("a key may be in", () => {
  test.each([
    ["X-API-Key", (key) => ["X-API-Key", key]],
    ["Authorization: Bearer", (key) => ["Authorization", `Bearer ${key}`]],
    ["a scheme in any case", (key) => ["Authorization", `bEARER ${key}`]],
    ["a value with spaces around it", (key) => ["X-API-Key", `  ${key} `]],
  ])("%s", async (_where, header) => {
    const { key, id } = await issue();
    expect((await keyIn(...header(key))).status).toBe(200);
    expect((await receivedOne()).headers["x-tollgate-key-id"]).toBe(id);
  });
});

test("no credential is 401 with WWW-Authenticate", async () => {
  const response = await send("/");
  expect(response.headers.get("www-authenticate")).toMatch(/^Bearer realm=/);
  await problem(response, 401);
});

test("a key in the query is no credential unless ALLOW_QUERY_KEY is true", async () => {
  const { key } = await issue();
  const response = await send(`/?api_key=${key}`);
  expect(response.headers.has("www-authenticate")).toBe(true);
  await problem(response, 401);
});

test.each([
  ["another scheme", "Basic dTpw"],
  ["an Authorization without a scheme", "tg_x"],
])("%s is no credential", async (_what, value) => {
  const [response, without] = [await keyIn("Authorization", value), await send("/")];
  expect(response.headers.get("www-authenticate")).toBe(without.headers.get("www-authenticate"));
  expect(await problem(response, 401)).toEqual(await without.json());
});

test("malformed, forged and unknown keys are 401 with the same body", async () => {
  const { key, id } = await issue();
  const refused = {
    empty: "",
    word: "hello",
    prefix: "tg_",
    short: key.slice(0, -1),
    long: `${key}a`,
    "in capitals": key.toUpperCase(),
    "in another alphabet": `${key.slice(0, -1)}ä`,
    "very long": "x".repeat(20_000),
    "with a NUL in its place": key.replace("_", "%00"),
    mistyped: mistype(key),
    "with another secret's tag": await forge({ secret: "not-the-secret" }),
    "with another key's id": key.replace(id, (await issue()).id),
    "never issued": await forge(),
    "of a known id with another secret": await forge({ id }),
  };
  const bodies = new Set();
  for (const presented of Object.values(refused)) {
    for (const header of [{ "X-API-Key": presented }, { Authorization: `Bearer ${presented}` }]) {
      const response = await send("/", { headers: header });
      expect(response.headers.get("www-authenticate")).toMatch(/^Bearer /);
      bodies.add(JSON.stringify([await problem(response, 401), [...response.headers]]));
    }
  }
  expect([...bodies]).toHaveLength(1);
  expect(await received()).toEqual([]);
});

test("a malformed or forged key is refused without touching an object or D1", async () => {
  const { key } = await issue();
  const presented = ["", "hello", mistype(key), await forge({ secret: "not-the-secret" })];
  const giveBack = await takeAway("keys", "tiers", "tier_limits", "usage_monthly");
  const before = await countObjects();
  try {
    for (const one of presented) expect((await call(one)).status).toBe(401);
  } finally {
    await giveBack();
  }
  expect(await countObjects()).toBe(before);
});

test("a key that is not in D1 leaves no stored data and no alarm", async () => {
  const presented = await forge();
  for (let i = 0; i < 3; i += 1) expect((await call(presented)).status).toBe(401);
  const id = presented.split("_")[1];
  expect(await objectText({ id })).toBe("");
  expect(await runAlarm({ id })).toBe(false);
});

describe("400, and nothing reaches the origin, for", () => {
  const repeat = (name, ...values) => ({ headers: values.map((value) => [name, value]) });
  test.each([
    ["two credentials", (k) => ({ headers: { "X-API-Key": k, Authorization: `Bearer ${k}` } })],
    ["a key and a Bearer of somebody else", (k) => ({ headers: { "X-API-Key": k, Authorization: "Bearer eyJhbGciOi" } })],
    ["an empty X-API-Key beside a Bearer", (k) => ({ headers: { "X-API-Key": "", Authorization: `Bearer ${k}` } })],
    ["a repeated X-API-Key", (k, other) => repeat("X-API-Key", k, other)],
    ["the same X-API-Key twice", (k) => repeat("X-API-Key", k, k)],
    ["an X-API-Key and an empty one", (k) => repeat("X-API-Key", k, "")],
    ["a repeated Authorization: Bearer", (k, other) => repeat("Authorization", `Bearer ${k}`, `Bearer ${other}`)],
    ["a Bearer beside a Basic", (k) => repeat("Authorization", "Basic dTpw", `Bearer ${k}`)],
  ])("%s", async (_what, init) => {
    const [key, other] = [await issue(), await issue()];
    await problem(await send("/", init(key.key, other.key)), 400);
    expect(await received()).toEqual([]);
    expect((await usage(key)).calls).toBe(0);
  });
});

describe("403, never forwarded and not counted, for a key that is", () => {
  test.each(["disabled", "revoked"])("%s", async (status) => {
    const key = await issue();
    await setKey(key, "status", status);
    const body = await problem(await call(key), 403);
    expect(body.detail).toContain(status);
    expect(await received()).toEqual([]);
    expect(await usage(key)).toMatchObject({ status, calls: 0 });
  });

  test("expired, from that moment on", async () => {
    const key = await issue();
    await setKey(key, "expires_at", "2031-03-12T12:00:30Z");
    wait(29.999);
    expect((await call(key)).status).toBe(200);
    wait(0.001);
    expect((await problem(await call(key), 403)).detail).toContain("expired");
    expect(await received()).toHaveLength(1);
    expect(await usage(key)).toMatchObject({ status: "expired", calls: 1 });
    expect(await (await admin("GET", `/keys/${key.id}`)).json()).toMatchObject({ status: "expired" });
  });
});

test("D1, the object's storage and the logs have nothing from which a key can be made", async () => {
  const key = await issue();
  await call(key);
  await call(mistype(key.key));
  await call(key, "/down");
  await runAlarm(key);
  for (const text of [await databaseText(), await objectText(key), logged.join("\n")]) {
    expect(text).not.toContain(key.key);
    expect(text).not.toContain(secretPart(key.key));
  }
  expect(await databaseText()).toContain(key.id);
  expect(await objectText(key)).toContain(key.id);
});

test("a failure that is logged names the key by its id, never the key itself", async () => {
  const key = await issue();
  const giveBack = await takeAway("keys");
  expect((await call(key, `/?q=${key.key.slice(0, 8)}`)).status).toBe(503);
  await giveBack();
  expect(logged.join("\n")).toContain(key.id);
  expect(logged.join("\n")).not.toContain(secretPart(key.key));
});

test("every key is different, and its object has its id as name", async () => {
  const keys = await Promise.all(Array.from({ length: 5 }, () => issue()));
  expect(new Set(keys.map(({ id }) => id)).size).toBe(5);
  for (const { key, id } of keys) expect(key).toMatch(new RegExp(`^tg_${id}_[a-z2-7]{48}$`));
  const before = await countObjects();
  await call(keys[0]);
  expect(await countObjects()).toBe(before + 1);
  expect(await objectText(keys[0])).toContain(keys[0].id);
  const [{ secret_hash }] = await sql("SELECT secret_hash FROM keys WHERE id = ?", keys[0].id);
  expect(secret_hash).toMatch(/^[0-9a-f]{64}$/);
  expect(env.KEYS.idFromName(keys[0].id).toString()).toMatch(/^[0-9a-f]{64}$/);
});
