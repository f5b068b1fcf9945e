// Runs tollgate on this machine: `wrangler dev` with chosen vars, state and ports. Used by the tour
// and the HTTP tests.
import { randomBytes } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort, processesInGroup, run, startGroup } from "./processes.mjs";

export { startOrigin } from "../../demo/origin.mjs";
export { freePort } from "./processes.mjs";

/** The project's root directory. */
export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const WRANGLER = path.join(ROOT, "node_modules/wrangler/bin/wrangler.js");
const HEALTH = "/_tollgate/health";
const START_MS = 60_000;

const QUIET = {
  WRANGLER_SEND_METRICS: "false",
  // The `cf` object of a request would be fetched from the network at each start.
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  NO_COLOR: "1",
};

/** A fresh secret for ADMIN_TOKEN or KEY_SECRET: 32 random bytes in hex. */
export function freshSecret() {
  return randomBytes(32).toString("hex");
}

/** Builds the Worker; returns at once when build/ is current. */
export async function build(options = {}) {
  await run("bash", ["scripts/build.sh"], { cwd: ROOT, ...options });
}

/** Runs a wrangler command to its end and returns its standard output. */
export function wrangler(args, { env, ...options } = {}) {
  const command = [WRANGLER, ...args];
  return run(process.execPath, command, { cwd: ROOT, ...options, env: { ...process.env, ...QUIET, ...env } });
}

/** `where` has the options of the database: `persistTo`, and `config` if not the project's. */
function databaseArgs({ persistTo, config }) {
  return ["--local", "--persist-to", persistTo, ...(config ? ["--config", config] : [])];
}

/** Applies the D1 migrations to a local state directory. */
export async function applyMigrations(where) {
  await wrangler(["d1", "migrations", "apply", "tollgate", ...databaseArgs(where)]);
}

/**
 * Runs SQL on the local D1 and returns the rows of its last statement. A gate may be running.
 */
export async function queryD1(sql, where) {
  const out = await wrangler(["d1", "execute", "tollgate", "--json", "--command", sql, ...databaseArgs(where)]);
  return JSON.parse(out).at(-1).results;
}

/**
 * Starts `wrangler dev` and waits until the gate answers.
 * `vars` are given as `--var`; `onOutput(text)` receives wrangler's log as it comes.
 */
export async function startWrangler({ vars = {}, persistTo, port, config, env, onOutput } = {}) {
  port ??= await freePort();
  const group = startGroup(
    process.execPath,
    [
      WRANGLER, "dev",
      "--ip", "127.0.0.1", "--port", String(port),
      "--inspector-ip", "127.0.0.1", "--inspector-port", String(await freePort()),
      "--show-interactive-dev-session", "false",
      ...(persistTo ? ["--persist-to", persistTo] : []),
      ...(config ? ["--config", config] : []),
      ...Object.entries(vars).flatMap(([name, value]) => ["--var", `${name}:${value}`]),
    ],
    { cwd: ROOT, env: { ...process.env, ...QUIET, ...env }, onOutput },
  );
  const url = `http://127.0.0.1:${port}`;

  const deadline = Date.now() + START_MS;
  while (!(await isHealthy(url))) {
    if (group.exited() || Date.now() > deadline) {
      const why = group.exited() ? "wrangler dev ended" : `no answer on ${url}${HEALTH} in ${START_MS / 1000} s`;
      await group.stop({ hard: true });
      throw new Error(`${why}; its log:\n${group.log().trimEnd()}`);
    }
    await sleep(100);
  }
  return {
    url,
    pid: group.pid,
    ended: group.ended,
    log: group.log,
    stop: group.stop,
    /**
     * The workerd that runs the Worker and its objects; wrangler starts a new one when it is
     * killed. wrangler's own proxy, the workerd that listens on our port, is not among them.
     */
    async workerdPids() {
      const workerds = (await processesInGroup(group.pid)).filter(({ args }) => args.includes("/workerd serve "));
      return workerds.filter(({ args }) => !args.includes(`=entry=127.0.0.1:${port} `)).map(({ pid }) => pid);
    },
  };
}

/** Whether a tollgate responds at this address. */
export async function isHealthy(url) {
  try {
    const response = await fetch(url + HEALTH, { signal: AbortSignal.timeout(5000) });
    return response.ok && (await response.json()).status === "ok";
  } catch {
    return false;
  }
}

/**
 * Starts a gate for a test: the current build with a state directory, secrets and ports of its own,
 * so that it is independent of other gates and of changes of the sources.
 *
 * `origin` is the upstream's URL; `vars` adds or replaces vars and secrets (a secret given as
 * `null` stays unset); `persistTo` keeps the state in that directory, for a restart on the same
 * state; `port` is any free one otherwise. Returns `url`, `adminToken`, `pid`, `workerdPids()`,
 * `log()`, `d1(sql)` (rows), and `stop({ hard })`, which removes its files.
 */
export async function startGate({ vars = {}, persistTo, origin, port } = {}) {
  await build();
  const scratch = await mkdtemp(path.join(tmpdir(), "tollgate-"));
  try {
    const where = { persistTo: persistTo ?? path.join(scratch, "state"), config: await copyWorker(scratch) };
    await mkdir(where.persistTo, { recursive: true });
    await applyMigrations(where);

    const secrets = { ADMIN_TOKEN: freshSecret(), KEY_SECRET: freshSecret() };
    const given = { ...secrets, ...(origin ? { ORIGIN: origin } : {}), ...vars };
    const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
    const env = { WRANGLER_REGISTRY_PATH: path.join(scratch, "registry") };
    const gate = await startWrangler({ ...where, port, vars: set, env });
    return {
      ...gate,
      adminToken: set.ADMIN_TOKEN,
      d1: (sql) => queryD1(sql, where),
      async stop(how) {
        await gate.stop(how);
        await rm(scratch, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
}

/**
 * Copies the built Worker to `directory` with wrangler.toml beside it, less its `[build]`, and
 * returns the new configuration's path. There is no .dev.vars there, so only `--var` sets secrets.
 */
async function copyWorker(directory) {
  for (const file of ["index.js", "gate.js", "openapi.js", "index_bg.wasm"]) {
    await copyFile(path.join(ROOT, "build", file), path.join(directory, file));
  }
  const replace = (text, pattern, replacement) => {
    if (!pattern.test(text)) throw new Error(`wrangler.toml: expected ${pattern}`);
    return text.replace(pattern, replacement);
  };
  let toml = await readFile(path.join(ROOT, "wrangler.toml"), "utf8");
  toml = replace(toml, /^main = .*$/m, 'main = "index.js"');
  toml = replace(toml, /^\[build\]\n(?:[^[\n].*\n|\n)*/m, "");
  const migrations = JSON.stringify(path.join(ROOT, "migrations"));
  toml = replace(toml, /^migrations_dir = ".*"$/m, () => `migrations_dir = ${migrations}`);
  const config = path.join(directory, "wrangler.toml");
  await writeFile(config, toml);
  return config;
}
