// The native load generator: built once, run per measurement; and the upstream built with it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { run, startGroup } from "../../scripts/lib/processes.mjs";

const TARGET = path.join(ROOT, "target/bench-load");
const HOME_BIN = path.join(process.env.CARGO_HOME ?? path.join(process.env.HOME ?? "", ".cargo"), "bin");

/** Compiles the load generator. Returns at once if nothing changed. */
export async function buildLoad() {
  const env = { ...process.env, CARGO_TARGET_DIR: TARGET, PATH: `${process.env.PATH}${path.delimiter}${HOME_BIN}` };
  await run("cargo", ["build", "--release", "--locked", "--quiet"], { cwd: path.join(ROOT, "bench/load"), env });
}

/** The streaming upstream: see bench/load/src/bin/upstream.rs. */
export async function startUpstream() {
  const group = startGroup(path.join(TARGET, "release/upstream"), []);
  const deadline = Date.now() + 10_000;
  while (!group.log().includes("\n")) {
    if (group.exited() || Date.now() > deadline) throw new Error(`the upstream did not start: ${group.log()}`);
    await sleep(5);
  }
  return { address: `127.0.0.1:${group.log().trim()}`, pid: group.pid, log: group.log, stop: () => group.stop({ hard: true }) };
}

/** Runs one measurement: see `Plan` and `Report` in bench/load/src/main.rs. */
export async function load(plan) {
  const child = spawn(path.join(TARGET, "release/load"), { stdio: ["pipe", "pipe", "pipe"] });
  let out = "";
  let error = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (error += text));
  child.stdin.end(JSON.stringify({ path: "/", header: "x-api-key", ...plan }));
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const [code] = await once(child, "close");
  process.off("exit", kill);
  if (code !== 0) throw new Error(`the load generator failed: ${error.trim()}`);
  return JSON.parse(out);
}
