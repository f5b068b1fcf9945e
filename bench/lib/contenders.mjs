// What is compared. Every contender runs in the same workerd, before the same constant origin.
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { HONO_WORKER } from "./bundle.mjs";
import { idOf, issueKey } from "./keys.mjs";
import { RUST_WORKER } from "./rust.mjs";
import { BASIC_SETS, insertTiers } from "./tiers.mjs";

const KEY_SECRET = "bench";
export const ORIGIN = "origin";
/** Rows of one INSERT into D1. */
const ROWS_AT_ONCE = 500;

/** The compatibility flags of a deployed tollgate. */
const FLAGS = JSON.parse(readFileSync(path.join(ROOT, "wrangler.toml"), "utf8").match(/^compatibility_flags = (.*)$/m)[1]);

const file = (name) => path.join(ROOT, "bench/workers", name);
const script = (...names) => Object.fromEntries(names.map((name) => [name, file(name)]));
/** The modules of a build: its first is the one that the runtime loads. */
const wasmWorker = (directory) =>
  Object.fromEntries(
    ["index.js", "gate.js", "openapi.js", "index_bg.wasm"]
      .filter((name) => existsSync(path.join(directory, name)))
      .map((name) => [name, path.join(directory, name)]),
  );

/**
 * The values of the key header that a contender without tollgate gets for a set of keys. The name
 * of a key determines its quota.
 */
const plainKeys = (sets) =>
  Object.fromEntries(
    sets.map(({ name, keys }) => {
      const word = name.startsWith("deny") ? "exhausted" : "open";
      return [name, Array.from({ length: keys }, (_, i) => `${word}-${name}-${i}`)];
    }),
  );

const constant = (name, title, service) => ({
  name,
  title,
  service,
  keys: plainKeys(BASIC_SETS),
  // It answers 200 to everything.
  isConstant: true,
});
export const CONSTANT = constant("constant-js", "constant, JavaScript", { modules: script("constant.js") });
export const CONSTANT_RUST = constant("constant-rust", "constant, Rust", { modules: wasmWorker(RUST_WORKER) });
export const FORWARD = constant("forward-js", "bare forward, JavaScript", { modules: script("forward.js"), outbound: ORIGIN });
export const FORWARD_RUST = constant("forward-rust", "bare forward, Rust", {
  modules: wasmWorker(RUST_WORKER),
  vars: { FORWARD: "1" },
  outbound: ORIGIN,
});

/** Forwards whose responses' bodies pass through JavaScript. */
export const PASS = constant("pass-js", "forward, chunks handed on in JavaScript", { modules: script("pass.js"), outbound: ORIGIN });

export const HONO = {
  name: "hono-rate-limiter",
  title: "hono-rate-limiter, Durable Object store",
  service: { modules: { "hono.js": HONO_WORKER }, objects: ["DurableObjectRateLimiter"], outbound: ORIGIN },
  keys: plainKeys(BASIC_SETS),
};

/**
 * A Worker before objects of a class `Counter`, which report how many rows they have written.
 * `nameOf` returns the name of a key's object.
 */
function counting({ name, title = name, modules, keys, nameOf = (key) => key }) {
  const inspect = inspector(name, "Counter");
  return {
    name,
    title,
    service: { modules, objects: ["Counter"], outbound: ORIGIN },
    beside: [inspect],
    keys,
    rows: (runtime, set, indexes) => rowsWritten(runtime.address(inspect.name), indexes.map((i) => nameOf(keys[set][i]))),
  };
}

/** A JavaScript object that counts in one of three ways. */
const javaScriptObject = (kind, title, sets = BASIC_SETS) =>
  counting({ name: `js-${kind}`, title, modules: script(`${kind}.js`, "gate.js"), keys: plainKeys(sets) });
export const writeObject = (sets) => javaScriptObject("write", "JavaScript object, a row per request", sets);
export const WRITE = writeObject();
export const MEMORY = javaScriptObject("memory", "JavaScript object, memory only");
export const GROUP = javaScriptObject("group", "JavaScript object, group commit");

/**
 * What the platform allows: see bench/workers/same.js. It is called with keys of tollgate's form,
 * and denies nothing.
 */
export const SAME = {
  ...counting({
    name: "js-same",
    title: "JavaScript, the same work",
    modules: script("same.js"),
    keys: Object.fromEntries(BASIC_SETS.map(({ name, keys }) => [name, Array.from({ length: keys }, () => issueKey(KEY_SECRET).key)])),
    nameOf: idOf,
  }),
  isOneRowEach: true,
};

/** A Worker of one file, to try an idea. Its objects need not report their rows. */
export const scripted = (name, file) => ({ ...counting({ name, modules: { "idea.js": file }, keys: plainKeys(BASIC_SETS) }), rows: undefined });

/**
 * tollgate as built in a directory. Several builds can be compared in one run. With `isCounted` its
 * objects count their requests, which takes time. `scripts` are modules before those of the build,
 * `sql` statements that D1 runs last.
 */
export function tollgate({
  name = "tollgate",
  build = path.join(ROOT, "build"),
  sets = BASIC_SETS,
  isCounted = false,
  scripts = isCounted ? ["counted.js"] : [],
  sql = [],
  vars = {},
} = {}) {
  const issued = new Map(sets.map((set) => [set.name, Array.from({ length: set.keys }, () => issueKey(KEY_SECRET))]));
  const ids = (set) => issued.get(set).map(({ id }) => id);
  const database = `${name}-d1`;
  const inspect = inspector(name, "KeyObject");
  return {
    name,
    title: name,
    // One call at a time shares its row with no other.
    isOneRowEach: true,
    service: {
      modules: { ...script(...scripts), ...wasmWorker(build) },
      flags: FLAGS,
      vars: { KEY_SECRET, ORIGIN: "", ...vars },
      objects: ["KeyObject"],
      bindings: [
        `(name = "DB", wrapped = (moduleName = "cloudflare-internal:d1-api", innerBindings = [(name = "fetcher", service = ${JSON.stringify(database)})]))`,
      ],
      outbound: ORIGIN,
    },
    beside: [{ name: database, modules: script("d1.js"), objects: ["Database"] }, inspect],
    keys: Object.fromEntries([...issued].map(([set, keys]) => [set, keys.map(({ key }) => key)])),
    /** Fills the database. */
    async prepare(runtime) {
      const migrations = path.join(ROOT, "migrations");
      const files = (await readdir(migrations)).filter((name) => name.endsWith(".sql")).sort();
      const statements = await Promise.all(files.map((name) => readFile(path.join(migrations, name), "utf8")));
      statements.push(...insertTiers(sets));
      const rows = sets.flatMap((set) =>
        issued.get(set.name).map(({ id, secretHash }) => `('${id}', '${set.tier}', '${secretHash}', '2026-01-01T00:00:00Z')`),
      );
      for (let at = 0; at < rows.length; at += ROWS_AT_ONCE) {
        const some = rows.slice(at, at + ROWS_AT_ONCE).join(", ");
        statements.push(`INSERT INTO keys (id, tier, secret_hash, created_at) VALUES ${some}`);
      }
      await query(runtime.address(database), [...statements, ...sql]);
    },
    /** Rows written so far by the objects of some keys of a set, given by index. */
    rows: isCounted ? undefined : (runtime, set, indexes) => rowsWritten(runtime.address(inspect.name), indexes.map((i) => ids(set)[i])),
    /** Requests to all objects so far. */
    asked: isCounted ? async (runtime, set) => (await ask(runtime.address(inspect.name), ids(set).slice(0, 1))).asked : undefined,
  };
}

/** tollgate as several isolates before the same objects, which count everything that is billed. */
export function metered({ sets, isolates }) {
  const objects = tollgate({ name: "objects", sets });
  const { service, beside } = objects;
  const keys = `(name = "KEYS", durableObjectNamespace = (className = "KeyObject", serviceName = "objects"))`;
  const gates = Array.from({ length: isolates }, (_, i) => ({
    name: `gate-${i}`,
    ...service,
    objects: [],
    bindings: [...service.bindings, keys],
  }));
  const [{ name: database }] = beside;
  const json = async (url) => (await fetch(url)).json();
  return {
    ...objects,
    service: { ...service, modules: { ...script("metered.js"), ...service.modules } },
    beside: [...beside, ...gates],
    gates: gates.map(({ name }) => name),
    /** What is billed so far, of objects and of D1. */
    totals: async (runtime) => ({
      objects: await json(`http://${runtime.address("objects")}/`),
      d1: await json(`http://${runtime.address(database)}/totals`),
    }),
  };
}

/** A Worker beside `service` that sends requests to its objects. */
function inspector(service, className) {
  const binding = `(name = "KEYS", durableObjectNamespace = (className = ${JSON.stringify(className)}, serviceName = ${JSON.stringify(service)}))`;
  return { name: `${service}-inspect`, modules: script("inspect.js"), bindings: [binding] };
}

async function ask(address, names) {
  const answer = await fetch(`http://${address}/`, { method: "POST", body: JSON.stringify(names) });
  if (!answer.ok) throw new Error(`stats of objects: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

const rowsWritten = async (address, names) => (await ask(address, names)).rows_written;

async function query(address, statements) {
  const body = JSON.stringify(statements.map((sql) => ({ sql })));
  const answer = await fetch(`http://${address}/query`, { method: "POST", body });
  const results = await answer.json();
  const failed = [results].flat().find(({ success }) => !success);
  if (failed) throw new Error(`D1: ${failed.error}`);
}

/** All services of some contenders, with an origin: a constant Worker, or the server at an address. */
export function services(contenders, external) {
  const own = contenders.flatMap(({ name, service, beside = [] }) => [{ name, ...service }, ...beside]);
  return [external === undefined ? { name: ORIGIN, modules: script("constant.js") } : { name: ORIGIN, external }, ...own];
}
