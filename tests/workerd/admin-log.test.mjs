// The admin log: every change, its actor, the state before and after, and nothing else. It is
// append-only.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { admin, issue, problem, setClock } from "./lib/gate.mjs";

async function log(query = "") {
  const response = await admin("GET", `/log${query}`);
  expect(response.status).toBe(200);
  return response.json();
}

const entriesOf = async (target) => (await log(`?target=${target}`)).entries;

test("every change of a key is listed, newest first, with the state before and after", async () => {
  const { key: _, ...key } = await issue("free", "first");
  setClock("2031-03-12T12:00:01.000Z");
  await admin("PATCH", `/keys/${key.id}`, { name: "second" });
  const rotated = await (await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 0 })).json();
  await admin("POST", `/keys/${key.id}/revoke`);
  await admin("DELETE", `/keys/${key.id}`);
  const second = { ...key, name: "second" };
  const third = { ...second, hint: rotated.hint };
  const fourth = { ...third, status: "revoked" };
  const entry = (action, before, after) => ({
    id: expect.any(Number), at: "2031-03-12T12:00:01Z", actor: "root", action, target: `keys/${key.id}`, before, after,
  });
  expect(await entriesOf(`keys/${key.id}`)).toEqual([
    entry("delete", fourth, null),
    entry("revoke", third, fourth),
    entry("rotate", second, third),
    entry("change", key, second),
    { ...entry("create", null, key), at: "2031-03-12T12:00:00Z" },
  ]);
});

test("overrides, tiers and tokens are listed under their own paths", async () => {
  const key = await issue();
  const path = `keys/${key.id}/overrides/minute`;
  await admin("PUT", `/${path}`, { quota: 1, period: "minute" });
  await admin("DELETE", `/${path}`);
  expect(await entriesOf(path)).toMatchObject([
    { action: "delete", before: { quota: 1 }, after: null },
    { action: "put", before: null, after: { quota: 1, period: "minute" } },
  ]);
  await admin("PUT", "/tiers/logged", { policies: [] });
  await admin("PUT", "/tiers/logged", { policies: [], audit_days: 3 });
  expect(await entriesOf("tiers/logged")).toMatchObject([
    { before: { audit_days: 0, policies: [] }, after: { audit_days: 3 } },
    { before: null, after: { name: "logged", audit_days: 0 } },
  ]);
  const token = await (await admin("POST", "/tokens", { name: "logged", scopes: ["read"] })).json();
  await admin("DELETE", `/tokens/${token.id}`);
  const entries = await entriesOf(`tokens/${token.id}`);
  expect(entries).toMatchObject([{ action: "delete", after: null }, { action: "create", before: null, after: { name: "logged" } }]);
  expect(JSON.stringify(entries)).not.toContain(token.token);
});

test("the actor is the name of the token", async () => {
  const token = await (await admin("POST", "/tokens", { name: "a writer", scopes: ["write"] })).json();
  const headers = { Authorization: `Bearer ${token.token}` };
  const { id } = await (await admin("POST", "/keys", { tier: "free" }, headers)).json();
  expect((await log("?actor=a+writer")).entries).toMatchObject([{ actor: "a writer", target: `keys/${id}` }]);
  expect((await log(`?actor=root&target=keys/${id}`)).entries).toEqual([]);
});

test("refused requests, and those that change nothing, are not listed", async () => {
  const key = await issue();
  const target = `keys/${key.id}`;
  await admin("PATCH", `/${target}`, { tier: "gold" });
  await admin("PATCH", `/${target}`, { name: 7 });
  await admin("PATCH", `/${target}`, {});
  await admin("PATCH", `/${target}`, { name: key.name });
  expect(await entriesOf(target)).toHaveLength(1);
});

test("a change that cannot be logged is not made", async () => {
  const key = await issue();
  await sql("CREATE TRIGGER full BEFORE INSERT ON admin_log BEGIN SELECT RAISE(ABORT, 'disk full'); END");
  try {
    await problem(await admin("PATCH", `/keys/${key.id}`, { name: "unlogged" }), 503);
    await problem(await admin("PUT", "/tiers/free", { policies: [] }), 503);
  } finally {
    await sql("DROP TRIGGER full");
  }
  expect(await (await admin("GET", `/keys/${key.id}`)).json()).toMatchObject({ name: "a test" });
  expect((await (await admin("GET", "/tiers/free")).json()).policies).toHaveLength(2);
});

describe("the log is append-only:", () => {
  test.each(["UPDATE admin_log SET actor = 'other'", "DELETE FROM admin_log"])("%s fails", async (statement) => {
    await issue();
    await expect(env.DB.prepare(statement).run()).rejects.toThrow("append-only");
  });
});

test("it is paged", async () => {
  const { entries: all } = await log("?limit=500");
  const ids = [];
  let page = await log("?limit=3");
  for (ids.push(...page.entries); page.next_cursor !== null; ids.push(...page.entries)) {
    page = await log(`?limit=3&cursor=${page.next_cursor}`);
  }
  expect(ids).toEqual(all);
  expect(all.map(({ id }) => id)).toEqual(all.map(({ id }) => id).toSorted((a, b) => b - a));
});

test.each(["limit=501", "cursor=x", "action=create"])("400 for %s", async (query) => {
  await problem(await admin("GET", `/log?${query}`), 400);
});
