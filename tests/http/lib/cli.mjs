// The `tollgate` command line: a process with flags, environment and standard input.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ROOT, startGate, startOrigin } from "../../../scripts/lib/gate.mjs";
import { run } from "../../../scripts/lib/processes.mjs";

/** Builds the client and returns its path; cargo does nothing when it is current. */
async function buildCli() {
  const messages = await run("cargo", ["build", "--locked", "--quiet", "--bin", "tollgate", "--message-format=json"], {
    cwd: ROOT,
  });
  const built = messages.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const { executable } = built.find(({ executable }) => executable) ?? {};
  assert.ok(executable, "cargo names no executable");
  return executable;
}

/**
 * The client for one gate: `cli("keys", "list")` resolves to `{ code, stdout, stderr }`. `cli.ok`
 * must succeed and resolves to stdout, `cli.json` to the parsed output of `--json`. A last argument
 * may be `{ input, env }`.
 */
function cliFor(program, gate) {
  async function cli(...args) {
    const { input = "", env } = typeof args.at(-1) === "object" ? args.pop() : {};
    const child = spawn(program, args, {
      env: { ...process.env, TOLLGATE_URL: gate.url, TOLLGATE_TOKEN: gate.adminToken, TOLLGATE_KEY: "", ...env },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
    // A command that ends without reading its input closes the pipe.
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    const [code] = await once(child, "close");
    return { code, stdout, stderr };
  }
  cli.ok = async (...args) => {
    const { code, stdout, stderr } = await cli(...args);
    assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
    return stdout;
  };
  cli.json = async (...args) => JSON.parse(await cli.ok("--json", ...args));
  return cli;
}

/**
 * A gate with an origin, its client, and a directory for files; `stop` ends and deletes all of
 * them.
 */
export async function startWithCli(options = {}) {
  const begun = [];
  const stop = async () => {
    for (const end of begun.splice(0).reverse()) await end();
  };
  try {
    const program = await buildCli();
    const origin = await startOrigin();
    begun.push(() => origin.stop());
    const gate = await startGate({ origin: origin.url, ...options });
    begun.push(() => gate.stop());
    const directory = await mkdtemp(path.join(tmpdir(), "tollgate-cli-"));
    begun.push(() => rm(directory, { recursive: true, force: true }));
    return { gate, cli: cliFor(program, gate), directory, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
