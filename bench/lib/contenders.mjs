// What is compared. Every contender stands in the same workerd, before the same constant origin.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { issueKey } from "./keys.mjs";

const KEY_SECRET = "bench";
export const ORIGIN = "origin";

const file = (name) => path.join(ROOT, "bench/workers", name);
const script = (...names) => Object.fromEntries(names.map((name) => [name, file(name)]));

/** The contenders without tollgate: a service each; `keys` gives the values of the key header per kind of load. */
const PLAIN_KEYS = { admit: ["open"], deny: ["exhausted"] };
export const CONSTANT = {
  name: "constant-js",
  title: "constant, JavaScript",
  service: { modules: script("constant.js") },
  keys: PLAIN_KEYS,
  // It answers 200 to everything.
  answers: { admit: 200, deny: 200 },
};
export const FORWARD = {
  name: "forward-js",
  title: "bare forward, JavaScript",
  service: { modules: script("forward.js"), outbound: ORIGIN },
  keys: PLAIN_KEYS,
  answers: { admit: 200 },
};

function javaScriptObject(name, title) {
  return {
    name: `js-${name}`,
    title,
    service: { modules: script(`${name}.js`, "gate.js"), objects: ["Counter"], outbound: ORIGIN },
    keys: PLAIN_KEYS,
    answers: { admit: 200, deny: 429 },
  };
}
export const WRITE = javaScriptObject("write", "JavaScript object, a row per request");
export const MEMORY = javaScriptObject("memory", "JavaScript object, memory only");
export const GROUP = javaScriptObject("group", "JavaScript object, group commit");

/** Tiers of the measurements: full checks, with a quota that no run reaches, or one that the first call exhausts. */
const TIERS = { admit: "bench", deny: "bench-exhausted" };
const INSERT_TIERS = `
INSERT INTO tiers (name) VALUES ('bench'), ('bench-exhausted');
INSERT INTO tier_limits (tier, policy, quota, period) VALUES
  ('bench', 'minute', 1000000000, 'minute'), ('bench', 'month', 1000000000, 'month'),
  ('bench-exhausted', 'minute', 1000000000, 'minute'), ('bench-exhausted', 'month', 1, 'month');`;

/** tollgate as built in a directory; several builds can stand beside each other. */
export function tollgate(name = "tollgate", build = path.join(ROOT, "build"), vars = {}) {
  const issued = { admit: [issueKey(KEY_SECRET)], deny: [issueKey(KEY_SECRET)] };
  const database = `${name}-d1`;
  const inspect = `${name}-inspect`;
  return {
    name,
    title: name,
    service: {
      modules: { "index.js": path.join(build, "index.js"), "index_bg.wasm": path.join(build, "index_bg.wasm") },
      vars: { KEY_SECRET, ORIGIN: "", ...vars },
      objects: ["KeyObject"],
      bindings: [
        `(name = "DB", wrapped = (moduleName = "cloudflare-internal:d1-api", innerBindings = [(name = "fetcher", service = ${JSON.stringify(database)})]))`,
      ],
      outbound: ORIGIN,
    },
    beside: [
      { name: database, modules: script("d1.js"), objects: ["Database"] },
      {
        name: inspect,
        modules: script("inspect.js"),
        bindings: [`(name = "KEYS", durableObjectNamespace = (className = "KeyObject", serviceName = ${JSON.stringify(name)}))`],
      },
    ],
    keys: { admit: issued.admit.map(({ key }) => key), deny: issued.deny.map(({ key }) => key) },
    answers: { admit: 200, deny: 429 },
    /** Fills the database. */
    async prepare(runtime) {
      const migrations = path.join(ROOT, "migrations");
      const files = (await readdir(migrations)).filter((name) => name.endsWith(".sql")).sort();
      const statements = await Promise.all(files.map((name) => readFile(path.join(migrations, name), "utf8")));
      const rows = Object.entries(issued).flatMap(([kind, keys]) =>
        keys.map(({ id, secretHash }) => `('${id}', '${TIERS[kind]}', '${secretHash}', '2026-01-01T00:00:00Z')`),
      );
      statements.push(INSERT_TIERS, `INSERT INTO keys (id, tier, secret_hash, created_at) VALUES ${rows.join(", ")}`);
      await query(runtime.address(database), statements);
    },
    /** Rows written so far for the keys of a kind of load. */
    async rowsWritten(runtime, kind) {
      let rows = 0;
      for (const { id } of issued[kind]) {
        const answer = await fetch(`http://${runtime.address(inspect)}/${id}`);
        if (!answer.ok) throw new Error(`stats of a key: ${answer.status} ${await answer.text()}`);
        rows += (await answer.json()).rows_written;
      }
      return rows;
    },
  };
}

async function query(address, statements) {
  const body = JSON.stringify(statements.map((sql) => ({ sql })));
  const answer = await fetch(`http://${address}/query`, { method: "POST", body });
  const results = await answer.json();
  const failed = [results].flat().find(({ success }) => !success);
  if (failed) throw new Error(`D1: ${failed.error}`);
}

/** All services of some contenders, with the origin. */
export function services(contenders) {
  const own = contenders.flatMap(({ name, service, beside = [] }) => [{ name, ...service }, ...beside]);
  return [{ name: ORIGIN, modules: script("constant.js") }, ...own];
}
