// The command line against a running gate.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { freePort } from "../../scripts/lib/gate.mjs";
import { startWithCli } from "./lib/cli.mjs";
import { call, issueKey } from "./lib/client.mjs";

let gate;
let cli;
let directory;
let stop;

before(async () => {
  ({ gate, cli, directory, stop } = await startWithCli());
});

after(() => stop?.());

test("health needs no token", async () => {
  const { status, version } = await cli.json("health", { env: { TOLLGATE_TOKEN: "" } });
  assert.equal(status, "ok");
  assert.equal(await cli.ok("health"), `status   ok\nversion  ${version}\n`);
});

test("a key that was created with --quiet is alone on stdout, and is admitted", async () => {
  const { code, stdout, stderr } = await cli("keys", "create", "--tier", "free", "--name", "first", "--quiet");
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  assert.match(stdout, /^\S+\n$/);
  assert.equal((await call(gate, { key: stdout.trim() })).status, 200);
});

test("a created key is shown by its id, and its secret never again", async () => {
  const created = await cli.json("keys", "create", "--tier", "pro", "--name", "se\u202econd");
  const shown = await cli.ok("keys", "show", created.id);
  for (const [field, value] of [["id", created.id], ["tier", "pro"], ["status", "active"], ["name", "se\\u{202e}cond"]]) {
    assert.ok(shown.split("\n").some((line) => line.startsWith(`${field} `) && line.endsWith(` ${value}`)), shown);
  }
  assert.ok(!shown.includes(created.key));
  const { key, ...rest } = created;
  assert.ok(key);
  assert.deepEqual(await cli.json("keys", "show", created.id), rest);
});

test("usage is printed as a table, and as the server's JSON", async () => {
  const key = await issueKey(gate, "free");
  for (let i = 0; i < 3; i += 1) assert.equal((await call(gate, key)).status, 200);
  const usage = await cli.json("usage", "show", key.id);
  assert.equal(usage.calls, 3);
  const lines = (await cli.ok("usage", "show", key.id)).split("\n");
  const heading = lines.find((line) => line.startsWith("POLICY"));
  assert.match(heading, /^POLICY +UNIT +QUOTA +USED +HELD +REMAINING +PERIOD +ALGORITHM +RESET AT$/);
  assert.ok(lines.some((line) => /^month +requests +1000 +3 +0 +997 +month +fixed +\S+Z$/.test(line)), lines.join("\n"));
});

test("the token may be in a file", async () => {
  const { id } = await issueKey(gate);
  const file = path.join(directory, "token");
  await writeFile(file, `${gate.adminToken}\n`);
  const env = { TOLLGATE_TOKEN: "wrong" };
  await cli.ok("keys", "show", id, "--token-file", file, { env });
  await cli.ok("keys", "show", id, "--token", gate.adminToken, { env });
});

test("a refusal is one line on stderr and exit code 1", async () => {
  const refused = await cli("keys", "create", "--tier", "nope", "--name", "x");
  assert.deepEqual(refused, { code: 1, stdout: "", stderr: "tollgate: 422 tier: there is no tier `nope`\n" });
  const unknown = await cli("keys", "show", "aaaaaaaaaaaaaaaa");
  assert.deepEqual([unknown.code, unknown.stderr], [1, "tollgate: 404 there is no key with this id\n"]);
  const wrong = await cli("keys", "show", "x", { env: { TOLLGATE_TOKEN: "wrong" } });
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /^tollgate: 401 .*\n$/);
  assert.equal((await cli("keys", "show", "../health")).code, 1);
});

test("a wrong command line is exit code 2, a gate out of reach 3", async () => {
  assert.equal((await cli("keys", "show")).code, 2);
  assert.equal((await cli("keys", "show", "x", { env: { TOLLGATE_TOKEN: "" } })).code, 2);
  const away = await cli("health", "--url", `http://127.0.0.1:${await freePort()}`);
  assert.equal(away.code, 3);
  assert.match(away.stderr, /^tollgate: no response from .*: check that the gate runs and --url is right\n$/);
});
