// The groups of measurements: which contenders, which keys, which storage.
import path from "node:path";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { caseOf, compare, flood, warm } from "./compare.mjs";
import { CONSTANT, CONSTANT_RUST, FORWARD, FORWARD_RUST, GROUP, HONO, MEMORY, SAME, services, tollgate, WRITE } from "./contenders.mjs";
import { machineLoad, sizes } from "./machine.mjs";
import { asleep, awake } from "./many.mjs";
import { RUST_WORKER } from "./rust.mjs";
import { firstRequests } from "./start.mjs";
import { ALGORITHMS, POLICY_COUNTS, POLICY_SETS, QUOTA_SETS, QUOTAS } from "./tiers.mjs";
import { startWorkerd } from "./workerd.mjs";

const MANY = 64;
/**
 * A denial is kept for at most ten seconds, so a flood must last longer to show the cost of one:
 * multiples of a measurement.
 */
const FLOOD = 15;
const FLOOD_OF_KEYS = 10;
/** The measurements of growth are shorter and have fewer rounds. */
const GROWTH = { share: 0.5, rounds: 3 };
const STARTS = 7;

/**
 * Contenders of the two comparisons, without tollgate; and those of admitting again on a second
 * storage.
 */
export const COMPARED = {
  admit: [CONSTANT, CONSTANT_RUST, FORWARD, FORWARD_RUST, WRITE, MEMORY, GROUP, HONO, SAME],
  deny: [CONSTANT, CONSTANT_RUST, WRITE, MEMORY, HONO],
};
export const COMPARED_AGAIN = [CONSTANT, WRITE, MEMORY, GROUP, HONO, SAME];

/** Runs `body(runtime)` on a workerd with some contenders. */
export async function withRuntime(contenders, options, body) {
  const runtime = await startWorkerd(services(contenders), options);
  try {
    for (const contender of contenders) await contender.prepare?.(runtime);
    return await body(runtime);
  } finally {
    await runtime.stop();
  }
}

/**
 * tollgate beside everything else, on one kind of load. `onTable({ connections, results })` is
 * called as results come. Returns them, with the load of the machine before.
 */
export async function comparison({ kind, contenders, storage, connections, rounds, seconds, inspectorPort, onTable }) {
  const load = machineLoad();
  return withRuntime(contenders, { stateIn: storage.directory, inspectorPort }, async (runtime) => {
    const cases = contenders.map((contender) => caseOf(runtime, contender, kind));
    await warm(cases);
    const tables = [];
    for (const count of connections) {
      const results = await compare({ cases, connections: count, rounds, seconds });
      tables.push({ connections: count, results });
      onTable?.(tables.at(-1));
    }
    return { kind, storage: storage.name, load, tables };
  });
}

/** Object requests per denied call, on a copy of tollgate that counts them. */
export async function callsPerDenial({ storage, seconds }) {
  const load = machineLoad();
  const counted = tollgate({ isCounted: true });
  return withRuntime([counted], { stateIn: storage.directory }, async (runtime) => {
    const one = caseOf(runtime, counted, "deny");
    await warm([one]);
    return { load, ...(await flood({ one, connections: MANY, seconds: seconds * FLOOD })) };
  });
}

/** By number of keys. */
export async function byKeys({ storage, seconds }) {
  const load = machineLoad();
  const { directory } = storage;
  const { rounds } = GROWTH;
  const rows = await awake({ directory, rounds, seconds, floodSeconds: seconds * FLOOD_OF_KEYS });
  return { load, rows, asleep: await asleep({ directory, rounds }) };
}

const held = (storage) => ({ stateIn: storage.directory, keepAwake: true });

/** One policy to six. */
export async function byPolicies({ storage, seconds }) {
  const load = machineLoad();
  const gate = tollgate({ sets: POLICY_SETS });
  return withRuntime([gate], held(storage), async (runtime) => {
    const cases = ["admit", "deny"].flatMap((kind) => POLICY_COUNTS.map((count) => caseOf(runtime, gate, `${kind}-policies-${count}`)));
    await warm(cases);
    const results = await grow(cases, seconds * GROWTH.share);
    const rows = POLICY_COUNTS.map((count, i) => ({ policies: count, admit: results[i], deny: results[POLICY_COUNTS.length + i] }));
    return { load, rows };
  });
}

/**
 * Quotas of ten to ten thousand calls a day, by algorithm; every set of keys admits equally many
 * calls, shared among the rounds.
 */
export async function byQuota({ storage, seconds }) {
  const load = machineLoad();
  const gate = tollgate({ sets: QUOTA_SETS });
  return withRuntime([gate], held(storage), async (runtime) => {
    const rows = [];
    for (const quota of QUOTAS) {
      const cases = ALGORITHMS.map((algorithm) => {
        const one = caseOf(runtime, gate, `admit-${algorithm}-${quota}`);
        // One call of each key wakes its object.
        return { ...one, mostRequests: Math.floor((quota - 1) / GROWTH.rounds) * one.values.length };
      });
      await warm(cases);
      // The number of calls ends these measurements as a rule, not the time.
      const results = await grow(cases, seconds * 3);
      rows.push({ quota, keys: results[0].keys, algorithms: Object.fromEntries(ALGORITHMS.map((name, i) => [name, results[i]])) });
    }
    return { load, rows };
  });
}

const grow = (cases, seconds) => compare({ cases, connections: MANY, rounds: GROWTH.rounds, seconds });

/** Size and the first request of a fresh isolate. */
export async function start({ storage }) {
  const load = machineLoad();
  const first = await firstRequests({ gate: tollgate(), others: [CONSTANT, CONSTANT_RUST], times: STARTS, stateIn: storage.directory });
  return { load, first, sizes: await sizes(path.join(ROOT, "build")), constantSizes: await sizes(RUST_WORKER) };
}
