// The tutorial of docs/tokens.md, as printed.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { ROOT, startGate, startOrigin } from "../../scripts/lib/gate.mjs";

const BUDGET = 10_000;
const PRINTED_URL = "http://127.0.0.1:8787";
const CLIENTS = path.join(ROOT, "tests/http/clients/node_modules");

let origin;
let gate;
let directory;

before(async () => {
  origin = await startOrigin();
  gate = await startGate({ origin: origin.url });
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-tutorial-"));
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

/** The blocks of the tutorial, in order: `[kind, text]`. */
async function blocks() {
  const text = await readFile(path.join(ROOT, "docs/tokens.md"), "utf8");
  return [...text.matchAll(/<!-- tutorial: (\S+) -->\n```\w+\n([^]*?)```/g)].map(([, kind, block]) => [kind, block]);
}

test("the tutorial of token budgets runs as printed", { timeout: 120_000 }, async () => {
  await writeFile(path.join(directory, ".dev.vars"), `ADMIN_TOKEN="${gate.adminToken}"\n`);
  const script = ["set -euo pipefail"];
  for (const [kind, block] of await blocks()) {
    // The pinned client instead of the newest.
    if (kind === "install") await symlink(CLIENTS, path.join(directory, "node_modules"));
    else if (kind === "sh") script.push(block.replace(PRINTED_URL, gate.url), "echo");
    else await writeFile(path.join(directory, kind), block);
  }
  const { stdout } = await promisify(execFile)("bash", ["-c", script.join("\n")], { cwd: directory });

  assert.match(stdout, /^RateLimit-Policy: "day";q=10000;w=86400;qu="tokens"\r$/im);
  assert.match(stdout, /^RateLimit: "day";r=9709;t=\d+\r$/im);
  assert.match(stdout, /"usage":\{"prompt_tokens":5,"completion_tokens":24,"total_tokens":29\}/);
  assert.match(stdout, /"quota":10000,"used":29,"held":0,"remaining":9971,/);
  assert.match(stdout, /^every word of this answer .* is a token$/m);
  const [, answered, refused] = stdout.match(/^(\d+) answered, (\d+) refused$/m).map(Number);
  assert.equal(answered + refused, 64);
  assert.ok(answered >= 6, stdout);
  assert.match(stdout, /^400 .*this call may use 12098 tokens, more than the quota of 10000 of policy day/m);

  const [spent] = Object.values(await (await fetch(`${origin.url}/demo/tokens`)).json());
  assert.ok(spent <= BUDGET);
  const used = [...stdout.matchAll(/"used":(\d+),"held":0/g)].map(([, number]) => Number(number));
  assert.equal(used.at(-1), spent, "the gate counts what the origin counts");
});
