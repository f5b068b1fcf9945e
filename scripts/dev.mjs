// `make dev` and, with --once, `make demo`: builds, prepares local state, starts an origin and
// `wrangler dev`, and shows the gate at work on real HTTP. `dev` then stays up until Ctrl-C; `demo`
// ends, with a failure if the tour (lib/tour.mjs) did not show what it should. PORT is the gate's
// port, ORIGIN_PORT that of the origin; with ORIGIN, a URL, `dev` forwards to that instead, and sends
// it no requests of its own.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { AdminClient } from "./lib/admin.mjs";
import {
  applyMigrations, build, freePort, freshSecret, isHealthy, ROOT, startOrigin, startWrangler,
} from "./lib/gate.mjs";
import { isPortFree } from "./lib/processes.mjs";
import { Failure, showBudget, showLimit } from "./lib/tour.mjs";

const ONCE = process.argv.includes("--once");
const PORT = Number(process.env.PORT || 8787);
const ORIGIN_PORT = Number(process.env.ORIGIN_PORT || 0);
const ORIGIN = ONCE ? "" : (process.env.ORIGIN ?? "");
const FLUSH_SECONDS = 2;

// `make dev` uses wrangler's own state directory, which plain wrangler commands see too. `make
// demo` has a separate one, so that it can run beside a `wrangler dev`: two on one state would write
// the same files.
const STATE = path.join(ROOT, ".wrangler", ONCE ? "demo" : "state");
const LOCK = path.join(ROOT, ".wrangler", ONCE ? "demo.pid" : "dev.pid");
const DEV_VARS = path.join(ROOT, ".dev.vars");

/** An error that the user can mend. Printed without a stack. */
class Refusal extends Error {}

const toStop = [];
let stopping;
function stopAll() {
  stopping ??= (async () => {
    for (const stop of toStop.reverse()) await stop();
  })();
  return stopping;
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, async () => {
    await stopAll();
    process.exit(signal === "SIGINT" && !ONCE ? 0 : 1);
  });
}

try {
  await main();
} catch (error) {
  // Errors while everything is being stopped result from that.
  if (!stopping) {
    console.error(error instanceof Refusal || error instanceof Failure ? `tollgate: ${error.message}` : error);
    process.exitCode = 1;
  }
} finally {
  await stopAll();
}

async function main() {
  if (ORIGIN && !/^https?:$/.test(URL.parse(ORIGIN)?.protocol)) {
    throw new Refusal(`ORIGIN must be a URL such as http://127.0.0.1:3000, not ${ORIGIN}`);
  }
  await claimState();
  console.log("building the Worker");
  await build({ stdio: "inherit" }).catch(() => {
    throw new Refusal("the build failed: see its message above");
  });
  const adminToken = await devVar("ADMIN_TOKEN");
  console.log("applying the D1 migrations to the local state");
  await applyMigrations({ persistTo: STATE });

  const origin = ORIGIN ? undefined : await startDemoOrigin();
  if (origin) toStop.push(origin.stop);
  const originUrl = ORIGIN || origin.url;
  console.log(`origin on ${originUrl}`);

  let showLog = false;
  const gate = await startWrangler({
    vars: { ORIGIN: originUrl, FLUSH_SECONDS },
    persistTo: STATE,
    port: await freePort(PORT),
    onOutput: (text) => showLog && process.stdout.write(text),
  });
  toStop.push(gate.stop);
  console.log(`tollgate on ${gate.url}\n`);

  try {
    const admin = new AdminClient({ fetch: (route, init) => fetch(gate.url + route, init), token: adminToken });
    const key = await admin.issueKey("free", "demo");
    console.log(`issued a key of tier free: id ${key.id}\n`);
    if (origin) {
      await showLimit(gate, origin, key, { persistTo: STATE });
      await showBudget(gate, origin, admin);
    }
    printCurl(gate.url, key);
  } catch (error) {
    if (stopping) return;
    if (ONCE) {
      console.error(`\nwrangler's log:\n${gate.log().trimEnd()}\n`);
      throw error;
    }
    console.error(`\nthe tour failed: ${error.message}\n`);
  }
  if (ONCE) return;

  console.log("up until Ctrl-C; wrangler's log follows\n");
  console.log(gate.log().trimEnd());
  showLog = true;
  await gate.ended;
  if (!stopping) throw new Failure("wrangler dev ended by itself: see its log above");
}

async function startDemoOrigin() {
  try {
    return await startOrigin({ port: ORIGIN_PORT });
  } catch (error) {
    if (error.code !== "EADDRINUSE") throw error;
    throw new Refusal(
      `port ${ORIGIN_PORT} is taken: to put the gate before what answers there, use ORIGIN=http://127.0.0.1:${ORIGIN_PORT}`,
    );
  }
}

/** Refuses to share a state directory with a running gate. */
async function claimState() {
  await mkdir(path.dirname(LOCK), { recursive: true });
  for (;;) {
    try {
      await writeFile(LOCK, `${process.pid}\n`, { flag: "wx" });
      toStop.push(() => rm(LOCK, { force: true }));
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const pid = Number(await readFile(LOCK, "utf8").catch(() => "")) || 0;
    if (pid && isAlive(pid)) {
      throw new Refusal(`\`make ${ONCE ? "demo" : "dev"}\` is already running here (process ${pid}): stop it first`);
    }
    await rm(LOCK, { force: true });
  }
  const url = `http://127.0.0.1:${PORT}`;
  if (!ONCE && !(await isPortFree(PORT)) && (await isHealthy(url))) {
    throw new Refusal(
      `a tollgate is already up on ${url}: stop it first, since two would count on the same local state ` +
        "(if it belongs to another directory, choose a port: `make dev PORT=8800`)",
    );
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** A secret from .dev.vars, which is created with random ones if it does not exist. */
async function devVar(name) {
  const fresh = `ADMIN_TOKEN="${freshSecret()}"\nKEY_SECRET="${freshSecret()}"\n`;
  try {
    await writeFile(DEV_VARS, fresh, { flag: "wx", mode: 0o600 });
    console.log("wrote .dev.vars with fresh random secrets");
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  const value = (await readFile(DEV_VARS, "utf8")).match(new RegExp(`^${name}\\s*=\\s*["']?([^"'\\s]+)`, "m"))?.[1];
  if (!value) throw new Refusal(`.dev.vars has no ${name}: add it, or remove the file to create it again`);
  return value;
}

function printCurl(url, { id, key }) {
  if (ONCE) {
    console.log("with `make dev` the gate stays up, and prints lines like these to paste:");
  }
  const token = `$(sed -n 's/^ADMIN_TOKEN="\\(.*\\)"$/\\1/p' .dev.vars)`;
  console.log(
    [
      `curl -i -H 'X-API-Key: ${key}' '${url}/hello'`,
      `curl -s -H "Authorization: Bearer ${token}" '${url}/_tollgate/keys/${id}/usage'`,
      `curl -s '${url}/_tollgate/health'`,
    ].join("\n"),
  );
  console.log();
}
