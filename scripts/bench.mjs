// `make bench`: compares tollgate with other Workers, side by side in one run, and writes
// docs/benchmarks.md and its plot.
//
//   npm run bench -- --only admit      groups of measurements: admit, deny, calls, keys, policies,
//                                      quota, tokens, start, instructions (needs valgrind), cost
//     --contenders tollgate,js-memory  contenders of admit and deny
//     --connections 64                 numbers of connections of admit and deny (of 1,64)
//     --rounds 5 --seconds 1.2         rounds, and seconds of each (also BENCH_SECONDS)
//     --build after=some/directory     another build of tollgate, beside the current one; repeatable
//     --script idea=some/file.js       a Worker with a class Counter like that of the JavaScript
//                                      objects; repeatable
//     --hold tollgate                  load on one contender for a profiler (with --seconds), without
//                                      a comparison
//     --storage disk,memory            storage of the objects; memory is for comparison
//     --state some/directory           the same, as a directory (also BENCH_STATE)
//     --docs some/directory            output directory; a run of all groups writes into docs/
//     --inspector 9229                 workerd's inspector on that loopback port
//
// `--only tokens` measures token routes, and writes their section of docs/benchmarks.md alone.
// `--only cost` counts what mixes of calls cost, and writes docs/cost.md and the table in README.md.
// It takes ten minutes and is not part of a run of all groups. Times never decide the exit code;
// wrong statuses and wrong numbers of rows do.
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { bundleWorkers } from "../bench/lib/bundle.mjs";
import { scripted, tollgate } from "../bench/lib/contenders.mjs";
import { byKeys, byPolicies, byQuota, callsPerDenial, COMPARED, COMPARED_AGAIN, comparison, start, withRuntime } from "../bench/lib/groups.mjs";
import { instructions } from "../bench/lib/instructions.mjs";
import { buildLoad, load } from "../bench/lib/load.mjs";
import { cost } from "../bench/lib/cost.mjs";
import { costDocument, costText, withCostTable } from "../bench/lib/cost-report.mjs";
import { machine, machineLoad } from "../bench/lib/machine.mjs";
import { plot } from "../bench/lib/plot.mjs";
import { markdown } from "../bench/lib/report.mjs";
import { buildRustWorker } from "../bench/lib/rust.mjs";
import { callsText, comparisonText, instructionsText, keysText, policiesText, quotaText, startText } from "../bench/lib/tables.mjs";
import { tokens } from "../bench/lib/tokens.mjs";
import { tokensText, withTokens } from "../bench/lib/tokens-report.mjs";
import { build, ROOT } from "./lib/gate.mjs";

const MEMORY_DIRECTORY = "/dev/shm";
const DISK = { name: "disk", directory: path.join(ROOT, ".bench") };
const MEMORY = existsSync(MEMORY_DIRECTORY) ? { name: "memory", directory: MEMORY_DIRECTORY } : undefined;

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    contenders: { type: "string" },
    connections: { type: "string", default: "1,64" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: process.env.BENCH_SECONDS || "1.2" },
    build: { type: "string", multiple: true, default: [] },
    script: { type: "string", multiple: true, default: [] },
    hold: { type: "string" },
    storage: { type: "string", default: "disk,memory" },
    state: { type: "string", default: process.env.BENCH_STATE },
    docs: { type: "string" },
    inspector: { type: "string" },
    "no-build": { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});

/** Groups that load Workers, and groups that do not. */
const LOADS = ["admit", "deny", "calls", "keys", "policies", "quota", "tokens", "start"];
const GROUPS = [...LOADS, "instructions"];
/** Groups that a run of all groups leaves out. */
const ASKED_FOR = ["cost"];

const fail = (message) => {
  console.error(message);
  process.exit(2);
};
const seconds = Number(options.seconds);
const rounds = Number(options.rounds);
const connections = options.connections.split(",").map(Number);
const kinds = options.only?.split(",") ?? GROUPS;
if (!(seconds > 0)) fail("--seconds (or BENCH_SECONDS): a number above 0");
if (!(rounds >= 1)) fail("--rounds: a number of rounds");
if (!connections.every((count) => count >= 1)) fail("--connections: numbers of connections");
for (const kind of kinds) if (![...GROUPS, ...ASKED_FOR].includes(kind)) fail(`--only: some of ${[...GROUPS, ...ASKED_FOR].join(",")}`);

const storages = options.state
  ? [{ name: options.state, directory: path.resolve(options.state) }]
  : options.storage.split(",").flatMap((name) => ({ disk: [DISK], memory: MEMORY ? [MEMORY] : [] })[name] ?? fail("--storage: disk, memory"));
if (storages.length === 0) storages.push({ name: "temporary files", directory: tmpdir() });
/**
 * The storage of the comparisons, and that of the measurements of growth, which measure the code
 * and not the disk.
 */
const [headline] = storages;
const light = storages.at(-1);

const others = options.build.map((given) => {
  const [name, directory] = given.split("=");
  if (!directory) fail("--build: name=directory");
  return tollgate({ name: `tollgate-${name}`, build: path.resolve(directory) });
});
for (const given of options.script) {
  const [name, file] = given.split("=");
  if (!file) fail("--script: name=file");
  others.push(scripted(name, path.resolve(file)));
}
const gates = [tollgate(), ...others];
const known = [...new Set(Object.values(COMPARED).flat()), ...gates];
const wanted = options.hold ? [options.hold] : options.contenders?.split(",");
if (wanted?.some((name) => !known.some((one) => one.name === name))) fail(`--contenders: some of ${known.map(({ name }) => name).join(",")}`);
if (options.docs && (wanted || !GROUPS.every((name) => kinds.includes(name)))) fail("--docs: needs all groups and contenders");
const isWanted = (one) => !wanted || wanted.includes(one.name) || others.includes(one);

const begun = Date.now();
if (kinds.some((name) => LOADS.includes(name) || ASKED_FOR.includes(name)) && !options["no-build"]) {
  await build({ stdio: ["ignore", "pipe", "pipe"] });
}
if (kinds.some((name) => LOADS.includes(name))) {
  await buildLoad();
  await bundleWorkers();
}
const compared = new Set(kinds.flatMap((kind) => COMPARED[kind] ?? []));
const isRustWanted = kinds.includes("start") || [...compared].some((one) => one.name.endsWith("-rust") && isWanted(one));
if (isRustWanted) await buildRustWorker();
if (options.hold) await hold();
else await measure();

async function measure() {
  const measuredFrom = Date.now();
  const results = { date: new Date().toISOString(), seconds, rounds, storage: light.name };
  const say = (text) => options.json || console.log(text);
  const note = (name, one) => say(`\n${name}; load of the machine before: ${one.load.toFixed(1)}`);

  for (const kind of kinds.filter((name) => COMPARED[name])) {
    results[kind] = [];
    // Denials write nothing: one storage is enough.
    for (const storage of kind === "deny" ? [headline] : storages) {
      const beside = storage === headline ? COMPARED[kind] : COMPARED_AGAIN;
      const contenders = [...beside, ...gates].filter(isWanted);
      say(`\n${kind}, storage: ${storage.name}; load of the machine before: ${machineLoad().toFixed(1)}`);
      const onTable = (one) =>
        options.json ? console.log(JSON.stringify({ kind, storage: storage.name, ...one })) : console.log(`\n${comparisonText(kind, one)}`);
      results[kind].push(await comparison({ kind, contenders, storage, connections, rounds, seconds, inspectorPort: options.inspector, onTable }));
    }
  }
  const groups = {
    calls: [() => callsPerDenial({ storage: headline, seconds }), callsText],
    keys: [() => byKeys({ storage: light, seconds }), keysText],
    policies: [() => byPolicies({ storage: light, seconds }), policiesText],
    quota: [() => byQuota({ storage: light, seconds }), quotaText],
    tokens: [() => tokens({ storage: headline, light, rounds, seconds, say }), tokensText],
    start: [() => start({ storage: headline }), startText],
    cost: [() => cost({ storage: headline, onMix: ({ title }) => say(`counted: ${title}`) }), costText],
    instructions: [async () => ({ load: machineLoad(), counted: await instructions() }), ({ counted }) => instructionsText(counted)],
  };
  for (const kind of kinds.filter((name) => groups[name])) {
    const [run, text] = groups[kind];
    results[kind] = await run();
    note(kind, results[kind]);
    if (options.json) console.log(JSON.stringify({ kind, ...results[kind] }));
    else console.log(text(results[kind]));
  }

  if (results.cost) {
    const readme = path.join(ROOT, "README.md");
    await writeFile(readme, withCostTable(await readFile(readme, "utf8"), results.cost));
    await writeFile(path.join(ROOT, "docs/cost.md"), await costDocument({ date: results.date, ...results.cost }));
    say("\nwritten: docs/cost.md and the table in README.md");
  }

  if (kinds.join() === "tokens" && !options["no-build"] && !options.state && headline === DISK) {
    const document = path.join(ROOT, "docs/benchmarks.md");
    await writeFile(document, withTokens(await readFile(document, "utf8"), { date: results.date, ...results.tokens }));
    say("\nwritten: the section on token routes in docs/benchmarks.md");
  }

  const isWhole = GROUPS.every((name) => results[name]) && !wanted && others.length === 0 && !options.state && headline === DISK;
  const directory = options.docs ?? (isWhole ? path.join(ROOT, "docs") : undefined);
  if (!directory) return;
  results.minutes = (Date.now() - measuredFrom) / 60_000;
  results.machine = await machine();
  results.loadAfter = machineLoad();
  const findings = await readFile(path.join(ROOT, "bench/findings.md"), "utf8");
  await writeFile(path.join(directory, "benchmarks.md"), markdown(results, findings));
  await writeFile(path.join(directory, "benchmarks.svg"), plot(results));
  say(`\nwritten: ${path.relative(process.cwd(), directory) || "."}/benchmarks.md and benchmarks.svg, ${((Date.now() - begun) / 60_000).toFixed(1)} minutes after the start`);
}

/** Load on one contender until the time is up. */
async function hold() {
  const contender = known.find(({ name }) => name === options.hold);
  const [kind] = kinds;
  if (!COMPARED[kind]) fail("--hold: with --only admit or deny");
  const plan = { connections: connections.at(-1), warmup_ms: 500, measure_ms: Math.round(seconds * 1000) };
  await withRuntime([contender], { stateIn: headline.directory, inspectorPort: options.inspector }, async (runtime) => {
    const address = runtime.address(contender.name);
    console.log(`${contender.name} on http://${address}/, workerd is process ${runtime.pid}`);
    console.log(`curl -i -H 'x-api-key: ${contender.keys[kind][0]}' http://${address}/`);
    console.log(JSON.stringify(await load({ ...plan, address, values: contender.keys[kind], pid: runtime.pid }), null, 2));
  });
}
