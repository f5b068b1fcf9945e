// `make bench`: compares tollgate with other Workers, side by side in one run. See docs/benchmarks.md.
//
//   npm run bench -- --only admit           one group of measurements: admit, deny
//     --contenders tollgate,js-memory       some of the contenders
//     --connections 64                      some of the numbers of connections (1,64)
//     --rounds 5 --seconds 0.5              how often and how long (also BENCH_SECONDS)
//     --build after=some/directory          another build of tollgate beside the current one; may be repeated
//     --hold tollgate                       no comparison: load on one contender, for a profiler (with --seconds)
//     --state /tmp                          where the objects' storage is made (also BENCH_STATE; in memory where /dev/shm is)
//     --inspector 9229                      workerd's inspector on that loopback port
import { existsSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { CONSTANT, FORWARD, GROUP, MEMORY, services, tollgate, WRITE } from "../bench/lib/contenders.mjs";
import { buildLoad, load } from "../bench/lib/load.mjs";
import { compare, table, warm } from "../bench/lib/compare.mjs";
import { startWorkerd } from "../bench/lib/workerd.mjs";
import { build } from "./lib/gate.mjs";

const MEMORY_DIRECTORY = "/dev/shm";

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    contenders: { type: "string" },
    connections: { type: "string", default: "1,64" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: process.env.BENCH_SECONDS ?? "0.5" },
    build: { type: "string", multiple: true, default: [] },
    hold: { type: "string" },
    // A disk's own time per commit says little about Durable Objects, and would hide what the code costs.
    state: { type: "string", default: process.env.BENCH_STATE ?? (existsSync(MEMORY_DIRECTORY) ? MEMORY_DIRECTORY : tmpdir()) },
    inspector: { type: "string" },
    "no-build": { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});

const GROUPS = {
  admit: [CONSTANT, FORWARD, WRITE, MEMORY, GROUP],
  deny: [CONSTANT, WRITE, MEMORY],
};

const seconds = Number(options.seconds);
const others = options.build.map((given) => {
  const [name, directory] = given.split("=");
  return tollgate(`tollgate-${name}`, directory);
});
const gates = [tollgate(), ...others];

const kinds = options.only?.split(",") ?? Object.keys(GROUPS);
const known = [...new Set([...kinds.flatMap((kind) => GROUPS[kind] ?? [])]), ...gates];
const wanted = options.hold ? [options.hold] : options.contenders?.split(",");
const contenders = known.filter(({ name }) => !wanted || wanted.includes(name) || gates.slice(1).some((g) => g.name === name));
if (!(seconds > 0)) throw new Error("--seconds (or BENCH_SECONDS): a number above 0");
for (const kind of kinds) if (!GROUPS[kind]) throw new Error(`--only: one of ${Object.keys(GROUPS).join(", ")}`);
if (wanted?.some((name) => !known.some((one) => one.name === name))) throw new Error(`--contenders: some of ${known.map(({ name }) => name).join(",")}`);

if (!options["no-build"]) await build({ stdio: ["ignore", "pipe", "pipe"] });
await buildLoad();
const runtime = await startWorkerd(services(contenders), { inspectorPort: options.inspector, stateIn: options.state });
try {
  for (const contender of contenders) await contender.prepare?.(runtime);
  if (options.hold) await hold();
  else for (const kind of kinds) await group(kind);
} finally {
  await runtime.stop();
}

async function group(kind) {
  if (!options.json) console.log(`storage in ${options.state}; load of the machine ${loadavg()[0].toFixed(1)} before ${kind}`);
  const some = contenders.filter((c) => GROUPS[kind].includes(c) || gates.includes(c));
  for (const contender of some) await warm({ runtime, contender, kind });
  for (const connections of options.connections.split(",").map(Number)) {
    const results = await compare({ runtime, contenders: some, kind, connections, rounds: Number(options.rounds), seconds });
    if (options.json) console.log(JSON.stringify({ kind, connections, results }));
    else console.log(`\n${kind}, ${connections} connection${connections === 1 ? "" : "s"}\n${table(results)}`);
  }
}

/** Load on one contender until the time is up. */
async function hold() {
  const [contender] = contenders;
  const [kind] = kinds;
  const connections = Number(options.connections.split(",").at(-1));
  console.log(`${contender.name} on http://${runtime.address(contender.name)}/, workerd is process ${runtime.pid}`);
  console.log(`curl -i -H 'x-api-key: ${contender.keys[kind][0]}' http://${runtime.address(contender.name)}/`);
  const plan = { warmup_ms: 500, address: runtime.address(contender.name), values: contender.keys[kind], connections, pid: runtime.pid };
  console.log(JSON.stringify(await load({ ...plan, measure_ms: seconds * 1000 }), null, 2));
}
