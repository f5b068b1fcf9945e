// Tools accept the OpenAPI document without a warning, and their clients work against the running
// Worker.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { ROOT, startGate } from "../../scripts/lib/gate.mjs";

const DOCUMENT = path.join(ROOT, "src/admin/openapi/openapi.json");
const CLIENTS = path.join(ROOT, "tests/http/clients");
const VENV = path.join(ROOT, ".tools/venv/bin");
const SHIPPED = ["basic", "enterprise", "free", "pro", "unlimited"];

let gate;
let scratch;

before(async () => {
  gate = await startGate();
  // In the project, so that the client resolves its packages.
  await mkdir(path.join(ROOT, "target"), { recursive: true });
  scratch = await mkdtemp(path.join(ROOT, "target/clients-"));
});

after(async () => {
  await gate?.stop();
  if (scratch) await rm(scratch, { recursive: true, force: true });
});

/** Runs a program, which must succeed. Resolves to its whole output; `out` is standard output. */
async function run(program, args, env = {}) {
  const child = spawn(program, args, { cwd: scratch, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1", ...env } });
  const said = { all: "", out: "" };
  for (const [name, stream] of Object.entries({ out: child.stdout, error: child.stderr })) {
    stream.setEncoding("utf8").on("data", (text) => {
      said.all += text;
      if (name === "out") said.out += text;
    });
  }
  const [code] = await once(child, "close");
  assert.equal(code, 0, `${path.basename(program)} ${args.join(" ").replaceAll(gate.adminToken, "[token]")}\n${said.all}`);
  return said;
}

const tool = (name) => path.join(ROOT, "node_modules/.bin", name);

test("redocly reports no warning", async () => {
  const { all } = await run(tool("redocly"), ["lint", DOCUMENT], { REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" });
  assert.match(all, /Your API description is valid/);
  assert.doesNotMatch(all, /warning|error/i);
});

test("openapi-typescript generates types; a client with them compiles and works", { timeout: 120_000 }, async () => {
  const { all } = await run(tool("openapi-typescript"), [DOCUMENT, "--output", path.join(scratch, "api.d.ts")]);
  assert.doesNotMatch(all, /warn|error/i);
  await copyFile(path.join(CLIENTS, "client.ts"), path.join(scratch, "client.ts"));
  const options = {
    noEmit: true, strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noPropertyAccessFromIndexSignature: true,
    target: "es2022", lib: ["es2022", "dom"], module: "nodenext", allowImportingTsExtensions: true, types: [],
  };
  await writeFile(path.join(scratch, "package.json"), '{ "type": "module" }');
  await writeFile(path.join(scratch, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["client.ts"] }));
  await run(tool("tsc"), ["--project", scratch]);
  const { out } = await run(process.execPath, [path.join(scratch, "client.ts"), gate.url, gate.adminToken]);
  assert.deepEqual(printed(out), {
    plan: "trial", quotas: [10, 1000], tiers: SHIPPED, pushed: 0, field: "tier", after: { plan: "trial", seats: 3 },
    imported: [1], is_same: true, statuses: [422, 404],
  });
});

test("openapi-python-client generates a client without a warning, and it works", { timeout: 120_000 }, async () => {
  const PATH = `${VENV}:${process.env.PATH}`;
  const output = path.join(scratch, "python");
  const args = ["-m", "openapi_python_client", "generate", "--path", DOCUMENT, "--output-path", output, "--fail-on-warning"];
  const { all } = await run(path.join(VENV, "python"), args, { PATH });
  assert.doesNotMatch(all, /warning|error/i);
  const env = { PYTHONPATH: output, PYTHONDONTWRITEBYTECODE: "1" };
  const { out } = await run(path.join(VENV, "python"), [path.join(CLIENTS, "client.py"), gate.url, gate.adminToken], env);
  const { tiers, ...rest } = printed(out);
  assert.deepEqual(SHIPPED.filter((tier) => !tiers.includes(tier)), []);
  assert.deepEqual(rest, {
    plan: "trial", quotas: [10, 1000], pushed: 0, field: "tier", after: { plan: "trial", seats: 3 },
    imported: [1], is_same: true, statuses: [422, 404, 401], health: "ok",
  });
});

/** The output of a client, with the lines of the keys that it imported. */
function printed(out) {
  const printed = JSON.parse(out);
  const lines = printed.imported.trim().split("\n").map((line) => JSON.parse(line));
  for (const { id, error } of lines) assert.match(id ?? error, /^[a-z2-7]{16}$/);
  return { ...printed, imported: lines.map(({ line }) => line) };
}
