// The first request of a new isolate: a new workerd each time, on a state directory that is kept.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { median } from "./compare.mjs";
import { services } from "./contenders.mjs";
import { load } from "./load.mjs";
import { startWorkerd } from "./workerd.mjs";

/**
 * Starts each contender `times` times, in alternating order, in a workerd with the same services
 * beside it, and sends it one request and then another. `gate` is the one with a database.
 */
export async function firstRequests({ gate, others, times, stateIn }) {
  await mkdir(stateIn, { recursive: true });
  const scratch = await mkdtemp(path.join(stateIn, "tollgate-bench-start-"));
  try {
    const contenders = [...others, gate];
    const rows = new Map(contenders.map((contender) => [contender, []]));
    const first = await startWorkerd(services(contenders), { stateIn: scratch, state: path.join(scratch, "state") });
    try {
      await gate.prepare(first);
    } finally {
      await first.stop();
    }
    const order = Array.from({ length: times }, (_, round) => (round % 2 ? [...contenders].reverse() : contenders));
    for (const contender of order.flat()) {
      rows.get(contender).push(await startOnce({ contender, gate, scratch }));
    }
    return contenders.map(({ name, title }, i) => {
      const of = (field) => median(rows.get(contenders[i]).map((row) => row[field]));
      return { name, title, listening: of("listening"), first: of("first"), second: of("second"), total: of("total"), times };
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Milliseconds from the start of the process until it listens, and of the first two answers. */
async function startOnce({ contender, gate, scratch }) {
  const begun = performance.now();
  // The gate's database runs beside every contender, so that the processes differ in the contender
  // only.
  const all = services([{ ...contender, beside: [gate.beside[0]] }]);
  const runtime = await startWorkerd(all, { stateIn: scratch, state: path.join(scratch, "state") });
  const listening = performance.now() - begun;
  try {
    const plan = { address: runtime.address(contender.name), values: contender.keys.admit, connections: 1, warmup_ms: 0, measure_ms: 10_000 };
    const once = async () => {
      const { statuses, latency } = await load({ ...plan, most_requests: 1 });
      if (statuses[200] !== 1) throw new Error(`${contender.name}, first request: ${JSON.stringify(statuses)}; workerd's log:\n${runtime.log()}`);
      return latency.max / 1000;
    };
    const first = await once();
    const second = await once();
    return { listening, first, second, total: listening + first };
  } finally {
    await runtime.stop();
  }
}
