// The gate on workerd's own socket. `wrangler dev` has a proxy in front that resolves dot segments
// and encodes characters, so only this shows how the gate handles raw targets. The socket accepts
// targets in absolute form, and the sent target is `request.url` byte for byte. workerd can be
// killed and is back on the same state and port in a quarter of a second; nothing retries a
// request.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { build, freshSecret, ROOT } from "../../../scripts/lib/gate.mjs";
import { childrenOf } from "../../../scripts/lib/processes.mjs";
import { until } from "../../support/until.mjs";
import { send } from "./client.mjs";

/**
 * The Worker with a slow D1, delayed by a timer of the request, that counts its queries: see
 * `d1Count`. Its objects use D1 directly.
 */
const behindSlowD1 = (milliseconds) => `
  import worker from "./index.js";
  export { KeyObject } from "./index.js";
  let slow;
  let count = 0;
  const batch = async (db, statements) => {
    count += 1;
    await new Promise((resolve) => setTimeout(resolve, ${milliseconds}));
    return db.batch(statements);
  };
  export default {
    fetch(request, env, context) {
      if (new URL(request.url).hostname === "d1.test") return Response.json(count);
      slow ??= { ...env, DB: { prepare: (sql) => env.DB.prepare(sql), batch: (statements) => batch(env.DB, statements) } };
      return worker.fetch(request, slow, context);
    },
  };`;

/**
 * Starts the built Worker with an empty D1 and its own state. `d1` runs SQL on it until workerd is
 * killed. `vars` adds to the secrets, which are set. `outbound` receives all requests of the
 * Worker; by default they go to their own address. D1 answers the Worker `d1Takes` milliseconds
 * late. With a `clock` of `makeClock`, the Worker and its objects use that clock, alarms included.
 * `onLog` receives the output of the Worker and the runtime, which is printed otherwise.
 */
export async function startDirectGate({ vars = {}, outbound, d1Takes = 0, clock, onLog } = {}) {
  await build();
  const adminToken = freshSecret();
  const others = new Set((await workerds()).map(({ pid }) => pid));
  const runtime = new Miniflare(
    convertV4MiniflareOptions({
      name: "tollgate",
      modulesRoot: path.join(ROOT, "build"),
      modules: [
        ...(d1Takes > 0 ? [ownModule("slow.js", behindSlowD1(d1Takes))] : []),
        ...(clock ? [ownModule("clock.js", clock.module)] : []),
        await builtModule("ESModule", "index.js", "utf8"),
        await builtModule("ESModule", "gate.js", "utf8"),
        await builtModule("ESModule", "openapi.js", "utf8"),
        await builtModule("CompiledWasm", "index_bg.wasm"),
      ],
      ...(await compatibility()),
      bindings: { ADMIN_TOKEN: adminToken, KEY_SECRET: freshSecret(), ...vars },
      d1Databases: { DB: "tollgate" },
      durableObjects: { KEYS: { className: "KeyObject", useSQLite: true } },
      unsafeDirectSockets: [{ host: "127.0.0.1", port: 0, proxy: true }],
      cf: false,
      ...(outbound && { outboundService: outbound }),
      ...(onLog && { log: new Log(LogLevel.NONE), handleStructuredLogs: ({ message }) => onLog(message) }),
    }),
  );
  try {
    await runtime.ready;
    const database = await runtime.getD1Database("DB");
    await migrate(database);
    const url = (await runtime.unsafeGetDirectURL()).origin;
    return {
      url,
      adminToken,
      fetch: (path, init) => fetchDirect(url, path, init),
      d1: (sql) => database.exec(sql),
      /** The current workerd process. */
      async pid() {
        const [one, ...more] = (await workerds()).filter(({ pid }) => !others.has(pid));
        assert.ok(one && more.length === 0, "one workerd");
        return one.pid;
      },
      /** Waits until a killed workerd has been replaced. */
      restarted: () => until("a new workerd answers", () => isHealthy({ url }), { within: 60_000, every: 10 }),
      stop: () => runtime.dispose(),
    };
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

/** A module that wraps those of the build. */
const ownModule = (file, contents) => ({ type: "ESModule", path: path.join(ROOT, "build", file), contents });

/** A module of the build, read once, so that a later build changes nothing. */
async function builtModule(type, file, encoding) {
  return { ...ownModule(file, await readFile(path.join(ROOT, "build", file), encoding)), type };
}

async function isHealthy(gate) {
  const asked = fetchDirect(gate.url, "/_tollgate/health");
  return (await asked.catch(() => ({ status: 0 }))).status === 200;
}

/** Sends a request through the socket like `fetch`; resolves to a `Response`. */
async function fetchDirect(url, path, { method, headers, body } = {}) {
  const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
  const answer = await send({ url }, PUBLIC_URL + path, { method, headers: { host: "api.test", ...headers, ...length }, body });
  const isEmpty = [204, 304].includes(answer.status);
  return new Response(isEmpty ? null : answer.body, { status: answer.status, headers: answer.headers });
}

async function workerds() {
  return (await childrenOf(process.pid)).filter(({ args }) => args.includes("/workerd serve "));
}

/**
 * A clock that shows `from` now and runs `speed` times as fast as the machine's: `now()` for the
 * test, `module` for the Worker. It continues through restarts.
 */
export function makeClock({ from, speed = 1 }) {
  const first = Date.parse(from);
  const begun = Date.now();
  const module = `
    import worker, { KeyObject as Inner } from "./index.js";
    const machine = Date.now;
    Date.now = () => ${first} + (machine() - ${begun}) * ${speed};
    const toMachine = (time) => ${begun} + (time - ${first}) / ${speed};
    const fromMachine = (time) => ${first} + (time - ${begun}) * ${speed};
    let isSet = false;
    export class KeyObject extends Inner {
      constructor(context, env) {
        if (!isSet) {
          isSet = true;
          const storage = Object.getPrototypeOf(context.storage);
          const { setAlarm, getAlarm } = storage;
          storage.setAlarm = function (time, ...more) {
            return setAlarm.call(this, toMachine(Number(time)), ...more);
          };
          storage.getAlarm = async function (...more) {
            const time = await getAlarm.apply(this, more);
            return time === null ? null : fromMachine(time);
          };
        }
        super(context, env);
      }
    }
    export default worker;
  `;
  return { now: () => first + (Date.now() - begun) * speed, speed, module };
}

async function compatibility() {
  const toml = await readFile(path.join(ROOT, "wrangler.toml"), "utf8");
  const value = (name) => JSON.parse(toml.match(new RegExp(`^${name} = (.*)$`, "m"))[1]);
  return { compatibilityDate: value("compatibility_date"), compatibilityFlags: value("compatibility_flags") };
}

async function migrate(db) {
  const directory = path.join(ROOT, "migrations");
  for (const file of (await readdir(directory)).filter((name) => name.endsWith(".sql")).sort()) {
    const sql = (await readFile(path.join(directory, file), "utf8")).replace(/--.*$/gm, "");
    // The body of a trigger contains semicolons.
    const statements = sql.match(/\s*CREATE TRIGGER[^]*?^END;|[^]*?;\s*$/gm);
    await db.batch(statements.map((statement) => db.prepare(statement)));
  }
}

/** The public host name of requests to the socket. */
export const PUBLIC_URL = "http://api.test";

/** Number of D1 transactions of a Worker with `d1Takes`. */
export async function d1Count(gate) {
  const answer = await send(gate, "http://d1.test/", { headers: { host: "d1.test" } });
  return JSON.parse(answer.body);
}
