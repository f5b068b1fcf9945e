// The running Worker against its OpenAPI document: schemathesis sends requests that the document
// allows and requests that it does not, and checks each response against it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { ROOT, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { issueKey, send } from "./lib/client.mjs";
import { PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";

/** The same cases in every run. */
const SEED = "20310312";
const MAX_EXAMPLES = "30";
/**
 * Checks that do not apply. Some requests that match the schema are refused by design: an unknown
 * tier, a burst without a bucket, an invented cursor.
 */
const EXCLUDED_CHECKS = ["positive_data_acceptance"];

let origin;
let gate;
let scratch;
let document;

before(async () => {
  // Not behind the proxy of `wrangler dev`, which adds the client's address: after ten attempts
  // without a token, which are part of this test, an address is refused for a minute.
  origin = await startOrigin();
  gate = await startDirectGate({ vars: { ORIGIN: origin.url } });
  scratch = await mkdtemp(path.join(tmpdir(), "tollgate-schemathesis-"));
  const answer = await send(gate, `${PUBLIC_URL}/_tollgate/openapi.json`, { headers: { host: "api.test" } });
  document = JSON.parse(answer.body);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
  if (scratch) await rm(scratch, { recursive: true, force: true });
});

test("the document is served as it is checked in", async () => {
  assert.deepEqual(document, JSON.parse(await readFile(path.join(ROOT, "src/admin/openapi/openapi.json"), "utf8")));
});

test("the operator's endpoints", { timeout: 600_000 }, async () => {
  await fillAccounts();
  await conforms("admin", `Authorization: Bearer ${gate.adminToken}`);
});

test("the self-service endpoints", { timeout: 600_000 }, async () => {
  await conforms("holder", `X-API-Key: ${(await issueKey(gate, "free")).key}`);
});

test("the open endpoints", { timeout: 600_000 }, () => conforms("open"));

/** Fills every list of accounts but drift, by a key that is denied after it used up its month. */
async function fillAccounts() {
  const policies = [{ policy: "month", quota: 2, period: "month" }];
  await administer("PUT", "/tiers/metered", { audit_days: 7, policies });
  const { id, key } = await issueKey(gate, "metered");
  const headers = { host: "api.test", "x-api-key": key };
  const statuses = [];
  for (let n = 0; n < 3; n += 1) statuses.push((await send(gate, `${PUBLIC_URL}/metered`, { headers })).status);
  assert.deepEqual(statuses, [200, 200, 429]);
  // This flushes.
  assert.equal((await administer("GET", `/keys/${id}/reconcile`)).state, "exact");
  for (const [where, list] of [
    [`/keys/${id}/hours`, "hours"],
    [`/keys/${id}/days`, "days"],
    [`/keys/${id}/audit`, "entries"],
    ["/report", "keys"],
    ["/alerts", "alerts"],
    ["/alerts/deliveries", "deliveries"],
  ]) {
    await until(`an entry of ${where}`, async () => (await administer("GET", where))[list].length > 0);
  }
}

async function administer(method, where, body) {
  const text = body && JSON.stringify(body);
  const headers = { host: "api.test", authorization: `Bearer ${gate.adminToken}`, ...(text && { "content-length": text.length }) };
  const answer = await send(gate, `${PUBLIC_URL}/_tollgate${where}`, { method, headers, body: text });
  assert.ok(answer.status < 300, String(answer.body));
  return JSON.parse(answer.body);
}

/** Runs schemathesis over the endpoints of a tag. */
async function conforms(tag, header) {
  const operations = Object.values(document.paths).flatMap((item) => Object.values(item));
  const wanted = operations.filter(({ tags }) => tags?.includes(tag)).map(({ operationId }) => operationId);
  assert.ok(wanted.length > 0);
  const args = [
    "-m", "schemathesis.cli", "run", path.join(ROOT, "src/admin/openapi/openapi.json"),
    "--url", PUBLIC_URL, "--proxy", gate.url,
    ...wanted.flatMap((id) => ["--include-operation-id", id]),
    ...(header ? ["--header", header] : []),
    "--checks", "all", "--exclude-checks", EXCLUDED_CHECKS.join(","),
    "--max-examples", MAX_EXAMPLES, "--seed", SEED, "--generation-deterministic",
    "--continue-on-failure", "--no-shrink", "--no-color",
  ];
  const python = path.join(ROOT, ".tools/venv/bin/python");
  const hooks = path.join(ROOT, "tests/http/lib/import_bodies.py");
  const env = { ...process.env, COLUMNS: "160", SCHEMATHESIS_HOOKS: hooks, PYTHONDONTWRITEBYTECODE: "1" };
  const child = spawn(python, args, { cwd: scratch, stdio: ["ignore", "pipe", "pipe"], env });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const [code] = await once(child, "close");
  if (process.env.TOLLGATE_VERBOSE) console.log(output);
  // Its reports have the header, and so the secret.
  const secret = header?.split(" ").at(-1);
  assert.equal(code, 0, secret ? output.replaceAll(secret, "[secret]") : output);
}
