// The gate on workerd's own socket. `wrangler dev` has a proxy in front, which resolves dot segments and encodes odd
// characters before the gate sees them; what a raw target does to the gate itself shows only here. The socket takes
// targets in absolute form, and what is sent as target is `request.url` to the byte.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { convertV4MiniflareOptions, Miniflare } from "miniflare";
import { build, freshSecret, ROOT } from "../../../scripts/lib/gate.mjs";
import { send } from "./client.mjs";

/**
 * The Worker with a D1 that takes longer to answer it, by a timer of the request that asks, and that counts what it is asked: see
 * `d1Count`. Its objects have D1 as it is.
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
 * Starts the built Worker with an empty D1 of its own, in memory, on which `d1` runs SQL. `vars` adds to the secrets, which are set; `outbound` is where
 * everything goes that the Worker fetches, to its own address otherwise; D1 answers it `d1Takes` milliseconds later than it would.
 */
export async function startDirectGate({ vars = {}, outbound, d1Takes = 0 } = {}) {
  await build();
  const adminToken = freshSecret();
  const runtime = new Miniflare(
    convertV4MiniflareOptions({
      name: "tollgate",
      modulesRoot: path.join(ROOT, "build"),
      modules: [
        ...(d1Takes > 0 ? [{ type: "ESModule", path: path.join(ROOT, "build/slow.js"), contents: behindSlowD1(d1Takes) }] : []),
        { type: "ESModule", path: path.join(ROOT, "build/index.js") },
        { type: "ESModule", path: path.join(ROOT, "build/gate.js") },
        { type: "ESModule", path: path.join(ROOT, "build/openapi.js") },
        { type: "CompiledWasm", path: path.join(ROOT, "build/index_bg.wasm") },
      ],
      compatibilityDate: await compatibilityDate(),
      bindings: { ADMIN_TOKEN: adminToken, KEY_SECRET: freshSecret(), ...vars },
      d1Databases: { DB: "tollgate" },
      durableObjects: { KEYS: { className: "KeyObject", useSQLite: true } },
      unsafeDirectSockets: [{ host: "127.0.0.1", port: 0, proxy: true }],
      cf: false,
      ...(outbound && { outboundService: outbound }),
    }),
  );
  try {
    await runtime.ready;
    const db = await runtime.getD1Database("DB");
    await migrate(db);
    const url = (await runtime.unsafeGetDirectURL()).origin;
    return { url, adminToken, d1: (sql) => db.exec(sql), stop: () => runtime.dispose() };
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

async function compatibilityDate() {
  const toml = await readFile(path.join(ROOT, "wrangler.toml"), "utf8");
  return toml.match(/^compatibility_date = "(.*)"$/m)[1];
}

async function migrate(db) {
  const directory = path.join(ROOT, "migrations");
  for (const file of (await readdir(directory)).filter((name) => name.endsWith(".sql")).sort()) {
    const sql = (await readFile(path.join(directory, file), "utf8")).replace(/--.*$/gm, "");
    // The body of a trigger has semicolons of its own.
    const statements = sql.match(/\s*CREATE TRIGGER[^]*?^END;|[^]*?;\s*$/gm);
    await db.batch(statements.map((statement) => db.prepare(statement)));
  }
}

/** The public address that requests to the socket are made out to. */
export const PUBLIC_URL = "http://api.test";

/** How many transactions the Worker of a gate with `d1Takes` has asked of D1. */
export async function d1Count(gate) {
  const answer = await send(gate, "http://d1.test/", { headers: { host: "d1.test" } });
  return JSON.parse(answer.body);
}

/** Imports keys through the socket. */
export async function importDirectKeys(gate, keys, tier = "unlimited") {
  const body = keys.map((key) => JSON.stringify({ key, tier })).join("\n");
  const headers = { host: "api.test", authorization: `Bearer ${gate.adminToken}`, "content-length": body.length };
  const answer = await send(gate, `${PUBLIC_URL}/_tollgate/keys/import`, { method: "POST", headers, body });
  assert.equal(answer.status, 200, String(answer.body));
  for (const line of String(answer.body).trim().split("\n")) assert.ok(JSON.parse(line).id, line);
}

/** Issues a key through the socket. */
export async function issueDirectKey(gate, tier = "unlimited") {
  const body = JSON.stringify({ tier, name: "test" });
  const headers = { host: "api.test", authorization: `Bearer ${gate.adminToken}`, "content-length": body.length };
  const answer = await send(gate, `${PUBLIC_URL}/_tollgate/keys`, { method: "POST", headers, body });
  assert.equal(answer.status, 201, String(answer.body));
  return JSON.parse(answer.body);
}

/** What the key's object says of it. */
export async function directUsageOf(gate, { id }) {
  const headers = { host: "api.test", authorization: `Bearer ${gate.adminToken}` };
  const answer = await send(gate, `${PUBLIC_URL}/_tollgate/keys/${id}/usage`, { headers });
  assert.equal(answer.status, 200, String(answer.body));
  return JSON.parse(answer.body);
}
