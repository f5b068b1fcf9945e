// One workerd process with several Workers, each on its own loopback socket, without a proxy.
import { rmSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { startGroup } from "../../scripts/lib/processes.mjs";

const COMPATIBILITY_DATE = "2026-09-01";
const START_MS = 30_000;

const require = createRequire(import.meta.url);
/** workerd's own version, a date. */
export const WORKERD_VERSION = require("workerd").version;
const WORKERD = require("workerd").default;

const text = JSON.stringify;

/**
 * Starts workerd on a fresh state directory.
 *
 * A service is `{ name, modules, vars, bindings, objects, outbound }`: `modules` maps a module's
 * name (`.js` or `.wasm`) to a file, the first is the main one; `bindings` are capnp texts;
 * `objects` are the class names of its Durable Objects, bound under `KEYS`; `outbound` is the
 * service that its `fetch` reaches (none by default); `flags` are compatibility flags. A service
 * `{ name, external }` is an HTTP server at that address. `stateIn` is the directory in which the state
 * directory is created; `state` is an existing one, which is kept. `keepAwake` leaves idle
 * objects in memory. Returns `address(name)`, `pid`, `log()` and `stop()`.
 */
export async function startWorkerd(services, { inspectorPort, stateIn = tmpdir(), state, keepAwake = false } = {}) {
  await mkdir(stateIn, { recursive: true });
  const scratch = await mkdtemp(path.join(stateIn, "tollgate-bench-"));
  const clear = () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
  process.once("exit", clear);
  try {
    const directory = state ?? path.join(scratch, "state");
    await mkdir(directory, { recursive: true });
    const inside = services.filter(({ external }) => external === undefined);
    const definitions = [];
    for (const service of services) definitions.push(await define({ keepAwake, ...service }, scratch));
    const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "state", disk = (path = ${text(directory)}, writable = true)),
    (name = "nowhere", network = (allow = [])),
    ${definitions.join(",\n    ")}
  ],
  sockets = [${inside.map(({ name }) => `(name = ${text(name)}, address = "127.0.0.1:0", http = (), service = ${text(name)})`).join(", ")}],
);
`;
    const file = path.join(scratch, "config.capnp");
    await writeFile(file, config);
    const inspector = inspectorPort ? [`--inspector-addr=127.0.0.1:${inspectorPort}`] : [];
    const group = startGroup(WORKERD, ["serve", "--experimental", "--control-fd=1", ...inspector, file]);
    const ports = await listening(group, inside.length);
    return {
      address: (name) => `127.0.0.1:${ports.get(name)}`,
      pid: group.pid,
      log: group.log,
      async stop() {
        await group.stop({ hard: true });
        process.off("exit", clear);
        clear();
      },
    };
  } catch (error) {
    process.off("exit", clear);
    clear();
    throw error;
  }
}

/** A service's definition. Its modules are copied, so that a build during the run changes none. */
async function define(service, scratch) {
  const { name, external, modules, vars = {}, bindings = [], objects = [], flags = [], outbound = "nowhere", keepAwake } = service;
  if (external !== undefined) return `(name = ${text(name)}, external = (address = ${text(external)}, http = ()))`;
  await mkdir(path.join(scratch, name));
  const embedded = [];
  for (const [module, file] of Object.entries(modules)) {
    await copyFile(file, path.join(scratch, name, module));
    const type = module.endsWith(".wasm") ? "wasm" : "esModule";
    embedded.push(`(name = ${text(module)}, ${type} = embed ${text(`${name}/${module}`)})`);
  }
  const bound = [
    ...Object.entries(vars).map(([variable, value]) => `(name = ${text(variable)}, text = ${text(value)})`),
    ...objects.map((className) => `(name = "KEYS", durableObjectNamespace = ${text(className)})`),
    ...bindings,
  ];
  const namespaces = objects.map(
    (className) => `(className = ${text(className)}, uniqueKey = ${text(`${name}-${className}`)}, enableSql = true, preventEviction = ${keepAwake})`,
  );
  return `(name = ${text(name)}, worker = (
      compatibilityDate = ${text(COMPATIBILITY_DATE)},
      compatibilityFlags = [${flags.map((flag) => text(flag)).join(", ")}],
      modules = [${embedded.join(", ")}],
      bindings = [${bound.join(", ")}],
      durableObjectNamespaces = [${namespaces.join(", ")}],
      durableObjectStorage = (localDisk = "state"),
      globalOutbound = ${text(outbound)}))`;
}

/** Waits until every socket listens, which workerd reports on standard output. */
async function listening(group, count) {
  const ports = new Map();
  const deadline = Date.now() + START_MS;
  while (ports.size < count) {
    if (group.exited() || Date.now() > deadline) {
      const log = group.log();
      await group.stop({ hard: true });
      throw new Error(`workerd did not start; its log:\n${log}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
    for (const [, socket, port] of group.log().matchAll(/"socket":"([^"]+)","port":(\d+)/g)) ports.set(socket, port);
  }
  return ports;
}
