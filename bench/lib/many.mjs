// Growth with the number of keys: objects that are awake, and objects that each call wakes.
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { caseOf, compare, flood, measure, ratio, summary, warm } from "./compare.mjs";
import { services, tollgate, writeObject } from "./contenders.mjs";
import { load } from "./load.mjs";
import { keySets } from "./tiers.mjs";
import { startWorkerd } from "./workerd.mjs";

const MOST_KEYS = 10_000;
const CONNECTIONS = 64;
/** Open files of an object that is awake: its database, its write-ahead log, the log's index. */
const FILES_PER_OBJECT = 3;
const OTHER_FILES = 1000;
const WAKE_MS = 60_000;

/**
 * Objects that one process can keep awake: a third of what the limit of open files allows, because
 * each first call opens more for a while.
 */
async function mostAwake() {
  const limits = await readFile("/proc/self/limits", "utf8").catch(() => "");
  // Node has raised the soft limit to the hard one, and children inherit it.
  const files = Number(limits.match(/^Max open files +\d+ +(\d+)/m)?.[1] ?? Infinity);
  const objects = Math.min(MOST_KEYS, Math.floor((files - OTHER_FILES) / FILES_PER_OBJECT / 3));
  return objects < MOST_KEYS ? objects - (objects % 1000) || objects : objects;
}

/** Runs `body(runtimes)` on one workerd for each list of contenders. */
async function withEach(lists, options, body) {
  const runtimes = [];
  try {
    for (const contenders of lists) {
      runtimes.push(await startWorkerd(services(contenders), options));
      for (const contender of contenders) await contender.prepare?.(runtimes.at(-1));
    }
    return await body(runtimes);
  } finally {
    for (const runtime of runtimes) await runtime.stop();
  }
}

/**
 * One key, a hundred, and ten thousand or as many as may be awake in one process; each kind of load
 * in a workerd of its own, since open files are counted by process.
 */
export async function awake({ directory, rounds, seconds, floodSeconds }) {
  const counts = [1, 100, await mostAwake()];
  const options = { stateIn: directory, keepAwake: true };
  const gates = ["admit", "deny"].map((kind) => tollgate({ sets: keySets(kind, counts) }));
  const write = writeObject(keySets("admit", counts));
  const timed = await withEach([[gates[0]], [write], [gates[1]]], options, async (runtimes) => {
    const rows = [];
    for (const count of counts) {
      const [admitGate, writer, denyGate] = runtimes;
      const cases = [
        caseOf(admitGate, gates[0], `admit-keys-${count}`),
        caseOf(writer, write, `admit-keys-${count}`),
        caseOf(denyGate, gates[1], `deny-keys-${count}`),
      ];
      await warm(cases);
      const [admit, written, deny] = await compare({ cases, connections: CONNECTIONS, rounds, seconds });
      rows.push({ keys: admit.keys, admit, written, deny, ratio: ratio(admit, written, "perSecond") });
    }
    return rows;
  });
  const counted = tollgate({ sets: keySets("deny", counts), isCounted: true });
  const floods = await withEach([[counted]], options, async ([runtime]) => {
    const all = [];
    for (const count of counts) {
      const one = caseOf(runtime, counted, `deny-keys-${count}`);
      await warm([one]);
      all.push(await flood({ one, connections: CONNECTIONS, seconds: floodSeconds }));
    }
    return all;
  });
  return timed.map((row, i) => ({ ...row, flood: floods[i] }));
}

/**
 * Ten thousand keys whose objects sleep: every call wakes one, which reads its storage. Each round
 * has a share of them, in a new workerd on the storage of the first.
 */
export async function asleep({ directory, rounds }) {
  await mkdir(directory, { recursive: true });
  const scratch = await mkdtemp(path.join(directory, "tollgate-bench-asleep-"));
  try {
    const count = Math.min(MOST_KEYS, (await mostAwake()) * rounds);
    const set = keySets("admit", [1, count]);
    // Flushes would wake objects too.
    const contenders = [tollgate({ sets: set, vars: { FLUSH_SECONDS: "86400" } }), writeObject(set)];
    const [hot, cold] = set.map(({ name }) => name);
    const reports = contenders.map(() => []);
    const onFresh = async (contender, body) => {
      const options = { stateIn: scratch, state: path.join(scratch, contender.name), keepAwake: true };
      const runtime = await startWorkerd(services([contender]), options);
      try {
        return await body(runtime);
      } finally {
        await runtime.stop();
      }
    };
    const edge = (round) => Math.floor((round * count) / rounds);
    const keysOf = (contender, round) => contender.keys[cold].slice(edge(round), edge(round + 1));
    for (const contender of contenders) {
      await onFresh(contender, async (runtime) => contender.prepare?.(runtime));
      for (let round = 0; round < rounds; round += 1) {
        const values = keysOf(contender, round);
        const make = { values, connections: CONNECTIONS, warmup_ms: 0, measure_ms: WAKE_MS, most_requests: values.length };
        await onFresh(contender, (runtime) => load({ ...make, address: runtime.address(contender.name) }));
      }
    }
    for (let round = 0; round < rounds; round += 1) {
      const order = contenders.map((_, i) => (round % 2 ? contenders.length - 1 - i : i));
      for (const i of order) {
        const contender = contenders[i];
        const report = await onFresh(contender, async (runtime) => {
          await warm([caseOf(runtime, contender, hot)]);
          const values = keysOf(contender, round);
          const one = caseOf(runtime, { ...contender, rows: undefined }, cold, { values, mostRequests: values.length });
          return measure({ one, connections: CONNECTIONS, seconds: WAKE_MS / 1000 });
        });
        reports[i].push(report);
      }
    }
    const [admit, written] = contenders.map((contender, i) =>
      summary({ ...contender, values: contender.keys[cold] }, reports[i], CONNECTIONS),
    );
    return { keys: admit.keys, admit, written, ratio: ratio(admit, written, "perSecond") };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
