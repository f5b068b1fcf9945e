// Measurements side by side: rounds in alternating order, medians, ratios.
import { load } from "./load.mjs";

/** In a flood of denials each minute that begins lets one call through, and one measurement may touch two minutes. */
const admittedInFlood = (seconds) => 1 + Math.ceil(seconds / 60);

/** How long each contender is under load before the first round. */
const WARM_MS = 1000;

export function median(numbers) {
  const sorted = numbers.filter((number) => number !== null && number !== undefined).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Loads every contender in turn, `rounds` times, every other round in reverse. Returns medians over the rounds. */
export async function compare({ runtime, contenders, kind, connections, rounds, seconds }) {
  const reports = new Map(contenders.map((contender) => [contender, []]));
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 ? [...contenders].reverse() : contenders;
    for (const contender of order) reports.get(contender).push(await measure({ runtime, contender, kind, connections, seconds }));
  }
  return contenders.map((contender) => {
    const runs = reports.get(contender);
    const of = (pick) => median(runs.map(pick));
    return {
      name: contender.name,
      title: contender.title,
      perSecond: of((run) => run.per_second),
      p50: of((run) => run.latency.p50),
      p90: of((run) => run.latency.p90),
      p99: of((run) => run.latency.p99),
      serverCpu: of((run) => run.server_cpu),
      rowsPerCall: of((run) => run.rows_per_call),
      spread: Math.max(...runs.map((run) => run.per_second)) / Math.min(...runs.map((run) => run.per_second)),
    };
  });
}

/** The object wakes, V8 compiles what is hot, rows are made, and an exhausted key is exhausted, before anything is counted. */
export async function warm({ runtime, contender, kind }) {
  await load({ address: runtime.address(contender.name), values: contender.keys[kind], connections: 64, warmup_ms: 0, measure_ms: WARM_MS });
}

async function measure({ runtime, contender, kind, connections, seconds }) {
  const plan = {
    address: runtime.address(contender.name),
    values: contender.keys[kind],
    connections,
    pid: runtime.pid,
  };
  const expected = contender.answers[kind];
  const rowsBefore = await contender.rowsWritten?.(runtime, kind);
  const report = await load({ ...plan, warmup_ms: 100, measure_ms: seconds * 1000 });
  const answers = Object.values(report.statuses).reduce((sum, count) => sum + count, 0);
  const unexpected = answers - (report.statuses[expected] ?? 0);
  if (answers === 0 || unexpected > (kind === "deny" ? admittedInFlood(seconds) : 0) || report.failures > 0) {
    const got = JSON.stringify(report.statuses);
    throw new Error(`${contender.name}, ${kind}: expected ${expected}, got ${got} and ${report.failures} failures; workerd's log:\n${runtime.log().slice(-2000)}`);
  }
  if (rowsBefore !== undefined) report.rows_per_call = ((await contender.rowsWritten(runtime, kind)) - rowsBefore) / answers;
  return report;
}

/** A table for the terminal, with each contender's share of every other's requests per second. */
export function table(results) {
  const format = (number, digits = 0) => (number === undefined ? "" : number.toFixed(digits));
  const ours = results.find(({ name }) => name === "tollgate");
  const head = ["", "req/s", "p50 µs", "p90 µs", "p99 µs", "CPU µs/req", "rows/call", "max/min", "tollgate ÷ this", "CPU this ÷ tollgate"];
  const rows = results.map((r) => [
    r.name,
    format(r.perSecond),
    format(r.p50),
    format(r.p90),
    format(r.p99),
    format(r.serverCpu, 1),
    format(r.rowsPerCall, 3),
    format(r.spread, 2),
    ours ? format(ours.perSecond / r.perSecond, 2) : "",
    ours && r.serverCpu !== undefined ? format(r.serverCpu / ours.serverCpu, 2) : "",
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i].length)));
  const line = (row) => row.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join("  ");
  return [head, ...rows].map(line).join("\n");
}
