// The project's own commands: which files a suite runs, and how `make dev` ends.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { build, freePort, isHealthy, ROOT } from "../../scripts/lib/gate.mjs";
import { isPortFree, run } from "../../scripts/lib/processes.mjs";
import { until } from "../support/until.mjs";

/** An npm script of the project, as run from a shell: its exit code and output. */
async function npmRun(...args) {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const child = spawn("npm", ["run", "--silent", ...args], { cwd: ROOT, env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const [code] = await once(child, "close");
  return { code, output };
}

test("`npm run test:http -- FILE` runs the tests of that file and of no other", async () => {
  await build();
  for (const file of ["tests/http/deploy.test.mjs", "deploy"]) {
    const { code, output } = await npmRun("test:http", "--", file, "--test-name-pattern=dry-run");
    assert.equal(code, 0, output);
    assert.match(output, /✔ `wrangler deploy --dry-run` works/);
    assert.match(output, /^ℹ tests 1$/m, output);
  }
});

test("`npm run test:http -- FILE` fails if there is no such file", async () => {
  const { code, output } = await npmRun("test:http", "--", "deploy", "nothing-like-it");
  assert.equal(code, 1);
  assert.match(output, /^tollgate: no test file matches nothing-like-it; there are:\ntests\/http\//);
});

test("`npm run test:workerd -- FILE` runs that file", async () => {
  const output = await run(
    "npx", ["vitest", "list", "--filesOnly", "--config", "tests/workerd/vitest.config.mjs", "tests/workerd/panics.test.mjs"],
    { cwd: ROOT },
  );
  const files = output.trim().split("\n").map((line) => line.replace(/^\[.*\] /, ""));
  assert.deepEqual([...new Set(files)], ["tests/workerd/panics.test.mjs"]);
});

let copy;

// `make dev` keeps its state in the project's directory, where another one may be running. So this one
// runs in a copy.
before(async () => {
  await build();
  copy = await mkdtemp(path.join(tmpdir(), "tollgate-copy-"));
  const apart = ["node_modules", ".tools", "target", ".git", ".wrangler", ".dev.vars", ".bench"];
  for (const name of await readdir(ROOT)) {
    if (!apart.includes(name)) await cp(path.join(ROOT, name), path.join(copy, name), { recursive: true });
  }
  for (const name of ["node_modules", ".tools"]) await symlink(path.join(ROOT, name), path.join(copy, name));
});

after(() => copy && rm(copy, { recursive: true, force: true }));

/** `make dev` on a terminal: its output so far, `type(text)`, and its end. */
function makeDev(port) {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const child = spawn("python3", [path.join(ROOT, "tests/http/lib/terminal.py"), "make", "dev", `PORT=${port}`], {
    cwd: copy,
    // The build is current by the list of files that cargo has read.
    env: {
      ...env,
      CARGO_TARGET_DIR: process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target"),
      WRANGLER_REGISTRY_PATH: path.join(copy, "registry"),
    },
    stdio: ["pipe", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  return {
    output: () => output,
    type: (text) => child.stdin.write(text),
    ended: once(child, "close").then(([code]) => code),
    // The terminal ends with its program, and its processes get SIGHUP.
    stop: () => child.kill("SIGKILL"),
  };
}

/** Processes that have the copy's path in their command lines or environments. */
async function running() {
  const list = await run("ps", ["axeww", "-o", "pid=,args="]);
  return list.split("\n").filter((line) => line.includes(copy));
}

for (const [when, sign] of [
  ["while it is up", "up until Ctrl-C"],
  ["while it starts", "applying the D1 migrations"],
]) {
  test(`Ctrl-C ends \`make dev\` ${when} without an error, and leaves nothing running`, { timeout: 180_000 }, async () => {
    const port = await freePort();
    const dev = makeDev(port);
    try {
      await until(`"${sign}"`, () => dev.output().includes(sign), { within: 120_000 });
      if (when === "while it is up") assert.ok(await isHealthy(`http://127.0.0.1:${port}`));
      assert.notDeepEqual(await running(), []);
      const shown = dev.output().length;
      dev.type("^C\n");
      const code = await dev.ended;
      assert.ok([0, 130].includes(code), `exit code ${code}`);
      assert.doesNotMatch(dev.output().slice(shown), /make|tollgate:|Error|Interrupt/);
      assert.ok(await isPortFree(port));
      assert.deepEqual(await running(), []);
    } finally {
      dev.stop();
      await dev.ended;
    }
  });
}
