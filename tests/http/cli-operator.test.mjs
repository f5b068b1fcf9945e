// What operators do, on the command line.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { startWithCli } from "./lib/cli.mjs";
import { call, issueKey } from "./lib/client.mjs";

let gate;
let cli;
let directory;
let stop;

before(async () => {
  ({ gate, cli, directory, stop } = await startWithCli({ vars: { DENY_CACHE_SECONDS: "0" } }));
});

after(() => stop?.());

async function statusOf(key) {
  return (await call(gate, key)).status;
}

/** The pages that `--json` prints, one a line. */
async function pages(...args) {
  return (await cli.ok("--json", ...args)).trim().split("\n").map((line) => JSON.parse(line));
}

test("keys are listed by page, filtered and searched", async () => {
  const ids = [];
  for (const name of ["one%", "two", "three"]) {
    ids.push((await cli.json("keys", "create", "--tier", "pro", "--owner", "lister", "--name", name)).id);
  }
  const found = await pages("keys", "list", "--owner", "lister", "--all");
  assert.deepEqual(found.flatMap(({ keys }) => keys.map(({ id }) => id)).sort(), ids.toSorted());
  const [first] = await pages("keys", "list", "--owner", "lister", "--limit", "2");
  assert.equal(first.keys.length, 2);
  const [rest] = await pages("keys", "list", "--owner", "lister", "--cursor", first.next_cursor);
  assert.equal(rest.keys.length, 1);
  const table = await cli.ok("keys", "list", "--owner", "lister", "--search", "E%", "--status", "active", "--tier", "pro");
  assert.deepEqual(table.match(/one%|two|three/g), ["one%"]);
});

test("a key is changed, disabled, enabled, revoked and deleted", async () => {
  const key = await issueKey(gate, "free");
  const changed = await cli.json(
    "keys", "update", key.id, "--tier", "pro", "--name", "new", "--owner", "o", "--metadata", '{"plan":"x"}',
    "--expires-at", "2999-01-01T00:00:00Z",
  );
  assert.deepEqual(
    [changed.tier, changed.name, changed.owner, changed.metadata, changed.status],
    ["pro", "new", "o", { plan: "x" }, "active"],
  );
  assert.match(changed.expires_at, /^2999-01-01T00:00:00/);
  assert.equal((await cli.json("keys", "update", key.id, "--no-expiry")).expires_at, null);
  await cli.ok("keys", "disable", key.id);
  assert.equal(await statusOf(key), 403);
  await cli.ok("keys", "enable", key.id);
  assert.equal(await statusOf(key), 200);
  assert.equal((await cli.json("keys", "revoke", key.id)).status, "revoked");
  assert.equal(await statusOf(key), 403);
  assert.equal((await cli("keys", "enable", key.id)).code, 1);
  assert.equal(await cli.ok("keys", "delete", key.id), "");
  assert.equal((await cli("keys", "show", key.id)).code, 1);
});

test("a rotated key has a new secret, and the old one for as long as was chosen", async () => {
  const key = await issueKey(gate, "free");
  const second = (await cli.ok("keys", "rotate", key.id, "--grace", "1h", "--quiet")).trim();
  assert.deepEqual([await statusOf(key), await statusOf({ key: second })], [200, 200]);
  const third = (await cli.ok("keys", "rotate", key.id, "--grace", "0", "--quiet")).trim();
  assert.deepEqual([await statusOf(key), await statusOf({ key: second }), await statusOf({ key: third })], [401, 401, 200]);
});

test("keys are imported, and an import is resumed", async () => {
  const keys = ["imported-by-hand-0001", "imported-by-hand-0002", "imported-by-hand-0003"];
  const line = (key, tier) => `${JSON.stringify({ key, tier, name: "imported" })}\n`;
  const input = path.join(directory, "keys.ndjson");
  const output = path.join(directory, "results.ndjson");
  await writeFile(input, line(keys[0], "pro") + line(keys[1], "nope") + line(keys[2], "pro"));
  const first = await cli("keys", "import", input, "--output", output, "--batch", "2");
  assert.equal(first.code, 1, first.stderr);
  assert.match(first.stderr, /2 imported, 1 refused, 0 skipped/);
  for (const key of [keys[0], keys[2]]) assert.equal(await statusOf({ key }), 200);

  await writeFile(input, keys.map((key) => line(key, "pro")).join(""));
  const second = await cli("keys", "import", input, "--output", output, "--resume");
  assert.equal(second.code, 0, second.stderr);
  assert.match(second.stderr, /1 imported, 0 refused, 2 skipped/);
  assert.equal(await statusOf({ key: keys[1] }), 200);
  const results = await readFile(output, "utf8");
  assert.deepEqual(results.trim().split("\n").map((text) => JSON.parse(text).line), [1, 2, 3, 2]);
  for (const key of keys) assert.ok(!results.includes(key));
});

test("overrides are set, listed and deleted", async () => {
  const key = await issueKey(gate, "free");
  await cli.ok("overrides", "set", key.id, "minute", "--quota", "1", "--period", "minute", "--algorithm", "fixed");
  assert.deepEqual([await statusOf(key), await statusOf(key)], [200, 429]);
  assert.match(await cli.ok("overrides", "list", key.id), /^POLICY.*\nminute +.* 1 +minute/m);
  await cli.ok("overrides", "delete", key.id, "minute");
  assert.equal(await statusOf(key), 200);
});

test("tiers are set from flags and from a file, shown and listed", async () => {
  await cli.ok(
    "tiers", "set", "narrow", "--description", "by flags", "--audit-days", "3", "--idempotency", "off",
    "--policy", "minute=1/minute,bucket,burst=2", "--policy", "month=9/month",
  );
  const tier = await cli.json("tiers", "show", "narrow");
  assert.deepEqual([tier.description, tier.audit_days, tier.idempotency, tier.policies.length], ["by flags", 3, "off", 2]);
  const key = await issueKey(gate, "narrow");
  assert.deepEqual([await statusOf(key), await statusOf(key), await statusOf(key)], [200, 200, 429]);
  const wide = { description: "by file", audit_days: 0, policies: [] };
  await cli.ok("tiers", "set", "narrow", "--file", "-", { input: JSON.stringify(wide) });
  assert.equal(await statusOf(key), 200);
  assert.match(await cli.ok("tiers", "list"), /^narrow +by file/m);
});

test("a tier that no key has is deleted", async () => {
  await cli.ok("tiers", "set", "gone", "--description", "d", "--audit-days", "0", "--policy", "minute=10/minute", "--policy", "month=9/month");
  assert.match(await cli.ok("tiers", "list"), /^gone +d +0 +on +minute 10\/minute fixed, month 9\/month$/m);
  const key = await issueKey(gate, "gone");
  const refused = await cli("tiers", "delete", "gone");
  assert.deepEqual([refused.code, refused.stderr], [1, "tollgate: 409 1 key has this tier: change its tier or delete the key first\n"]);
  await cli.ok("keys", "update", key.id, "--tier", "free");
  assert.equal(await cli.ok("tiers", "delete", "gone"), "");
  assert.equal((await cli("tiers", "show", "gone")).code, 1);
  assert.match(await cli.ok("log", "--target", "tiers/gone"), /^\S+Z +root +delete +tiers\/gone +was description d, audit_days 0, idempotency on, minute/m);
});

test("route costs are set, listed and deleted, and logged with the route", async () => {
  await cli.ok("route-costs", "set", "/v1/*/export", "--cost", "5", "--method", "GET");
  await cli.ok("route-costs", "set", "/v1/*/export", "--cost", "25", "--method", "GET");
  await cli.ok("route-costs", "set", "/a b?/*", "--cost", "2", "--reprice");
  const list = "METHOD  PATTERN       COST  REPRICE\n*       /a b?/*          2  true\nGET     /v1/*/export    25  false\n";
  assert.equal(await cli.ok("route-costs", "list"), list);
  // A key that was not in use before has the new prices at once.
  const key = await issueKey(gate, "pro");
  assert.equal((await call(gate, key, "/v1/x/export")).headers["x-ratelimit-remaining"], "175");
  const log = (await cli.ok("log", "--target", "route-costs")).split("\n");
  assert.ok(log.some((line) => line.endsWith("  GET /v1/*/export: cost 5 -> 25")), log.join("\n"));
  assert.ok(log.every((line) => line.length < 160), log.join("\n"));
  await cli.ok("route-costs", "delete", "/v1/*/export", "--method", "GET");
  assert.equal((await cli("route-costs", "delete", "/v1/*/export", "--method", "GET")).code, 1);
  await cli.ok("route-costs", "delete", "/a b?/*");
  assert.equal(await cli.ok("route-costs", "list"), "");
});

test("a wrong token is reported as refused, with its source", async () => {
  const { code, stdout, stderr } = await cli("keys", "list", { env: { TOLLGATE_TOKEN: "wrong" } });
  assert.deepEqual([code, stdout], [1, ""]);
  assert.match(stderr, /^tollgate: 401 the admin token was refused: .* \(the token from TOLLGATE_TOKEN\)\n$/);
});

test("usage, history, hours, report, alerts, audit and reconcile answer", async () => {
  const key = await issueKey(gate, "pro");
  for (let i = 0; i < 5; i += 1) await call(gate, key);
  assert.equal((await cli.json("usage", "show", key.id)).calls, 5);
  assert.ok(Array.isArray((await cli.json("usage", "history", key.id, "--months", "3")).months));
  assert.ok(Array.isArray((await cli.json("usage", "hours", key.id)).hours));
  assert.ok(Array.isArray((await cli.json("usage", "days", key.id)).days));
  const month = new Date().toISOString().slice(0, 7);
  assert.equal((await cli.json("report", "--month", month)).month, month);
  assert.match(await cli.ok("report", "--month", month, "--csv"), /,/);
  assert.ok(Array.isArray((await cli.json("alerts", "--threshold", "0.5")).alerts));
  assert.ok(Array.isArray((await cli.json("alerts", "deliveries", "--state", "none")).deliveries));
  assert.ok(Array.isArray((await cli.json("drift")).drift));
  const audited = (await pages("audit", key.id, "--all")).flatMap(({ entries }) => entries);
  assert.deepEqual(audited.map(({ method, status }) => [method, status]), Array(5).fill(["GET", 200]));
  assert.match((await cli.json("reconcile", key.id)).state, /^(exact|drift)$/);
  assert.match(await cli.ok("reconcile", key.id), /^state +(exact|drift)$/m);
});

test("a named token may do what its scope allows, and the log names it", async () => {
  const created = await cli.json("tokens", "create", "reader", "--scope", "read");
  const env = { TOLLGATE_TOKEN: created.token };
  await cli.ok("keys", "list", { env });
  const refused = await cli("keys", "create", "--tier", "free", "--name", "x", { env });
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^tollgate: 403 /);
  const writer = await cli.json("tokens", "create", "writer", "--scope", "write");
  const key = await cli.json("keys", "create", "--tier", "free", "--name", "x", { env: { TOLLGATE_TOKEN: writer.token } });
  const [entry] = (await cli.json("log", "--target", `keys/${key.id}`)).entries;
  assert.equal(entry.actor, "writer");
  assert.match(await cli.ok("tokens", "list"), /^\S+ +reader/m);
  await cli.ok("tokens", "delete", created.id);
  assert.equal((await cli("keys", "list", { env })).code, 1);
});

test("a key's owner sees the key", async () => {
  const key = await issueKey(gate, "free");
  await call(gate, key);
  const env = { TOLLGATE_KEY: key.key, TOLLGATE_TOKEN: "" };
  assert.match(await cli.ok("me", { env }), /^tier +free$/m);
  await cli.ok("me", "usage", { env });
  assert.equal((await cli("me", { env: { TOLLGATE_KEY: "wrong" } })).code, 1);
});
