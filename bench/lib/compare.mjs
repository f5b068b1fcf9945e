// Measurements side by side: rounds in alternating order, medians, ratios.
import { load } from "./load.mjs";

/** A key's totals go to D1 every 30 to 60 seconds. */
const mostFlushes = (seconds) => 1 + Math.ceil(seconds / 30);

/** How long each case is under load before the first round. */
const WARM_MS = 1000;
/** The longest time to call each key once. */
const WARM_ALL_MS = 60_000;
const WARM_CONNECTIONS = 64;
/** Load before each measurement. */
const LEAD_MS = 100;
/**
 * Maximum number of objects whose written rows are counted. Of more objects so many are picked
 * evenly.
 */
const MOST_ASKED = 100;

export function median(numbers) {
  const sorted = numbers.filter((number) => number !== null && number !== undefined).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * A contender in a runtime under the load of one set of keys. Calls of a set whose name begins with
 * `deny` are denied. `more` may have `request`, the `path`, `body` and `header` of the load's plan,
 * `rowsEach`, the rows of a call that shares none, and `leadMs` and `seconds` of its own.
 */
export function caseOf(runtime, contender, set, more = {}) {
  const { name, title, isConstant, keys } = contender;
  const isDenied = set.startsWith("deny") && !isConstant;
  const address = runtime.address(name);
  return { name, title, runtime, contender, set, address, values: keys[set], expected: isDenied ? 429 : 200, isDenied, ...more };
}

/**
 * In a flood of denials each new minute admits one call, and one measurement may touch two minutes.
 */
const admittedInFlood = (seconds) => 1 + Math.ceil(seconds / 60);

/**
 * The objects wake, V8 compiles what is hot, rows are made, and exhausted keys are exhausted,
 * before anything is counted. Each key is called once at least; those that were not reached in time
 * are left out of the case.
 */
export async function warm(cases) {
  for (const one of cases) {
    const { address, values, request } = one;
    const plan = { address, values, connections: WARM_CONNECTIONS, warmup_ms: 0, ...request };
    const { statuses, failures, last_failure } = await load({ ...plan, measure_ms: WARM_ALL_MS, most_requests: values.length });
    const isExpected = Object.keys(statuses).every((status) => status === "200" || Number(status) === one.expected);
    if (failures > 0 || !isExpected) {
      const got = `${JSON.stringify(statuses)} and ${failures} failures, the last: ${last_failure}`;
      throw new Error(`${one.name}, ${one.set}, first calls: got ${got}; workerd's log:\n${one.runtime.log().slice(-2000)}`);
    }
    one.values = values.slice(0, sum(Object.values(statuses)));
    // Sets that admit few calls spend none on this.
    if (!one.mostRequests) await load({ ...plan, values: one.values, measure_ms: WARM_MS });
  }
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/**
 * Loads every case in turn, `rounds` times, every other round in reverse. Returns medians over the
 * rounds.
 */
export async function compare({ cases, connections, rounds, seconds }) {
  const reports = new Map(cases.map((one) => [one, []]));
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 ? [...cases].reverse() : cases;
    for (const one of order) reports.get(one).push(await measure({ one, connections, seconds }));
  }
  return cases.map((one) => summary(one, reports.get(one), connections));
}

/** Medians over the rounds of one case. */
export function summary({ name, title, values }, runs, connections) {
  const of = (pick) => median(runs.map(pick));
  const rates = runs.map((run) => run.per_second);
  return {
    name,
    title,
    connections,
    keys: values.length,
    perSecond: of((run) => run.per_second),
    firstByteP50: of((run) => run.first_byte.p50),
    firstByteP99: of((run) => run.first_byte.p99),
    bytesPerCall: of((run) => run.bytes / run.requests),
    p50: of((run) => run.latency.p50),
    p90: of((run) => run.latency.p90),
    p99: of((run) => run.latency.p99),
    serverCpu: of((run) => run.server_cpu),
    rowsPerCall: of((run) => run.rows_per_call),
    spread: Math.max(...rates) / Math.min(...rates),
    runs: runs.map((run) => ({ perSecond: run.per_second, p50: run.latency.p50, firstByteP50: run.first_byte.p50, serverCpu: run.server_cpu })),
  };
}

/** The ratio of two results: the median over the rounds of the ratio in each round. */
export function ratio(ours, other, field) {
  const ratios = ours.runs.map((run, i) => (run[field] && other.runs[i]?.[field] ? run[field] / other.runs[i][field] : undefined));
  return median(ratios);
}

/** One round of one case. */
export async function measure({ one, connections, seconds: each }) {
  const { runtime, contender, set, address, values, expected, mostRequests, leadMs = LEAD_MS, seconds = each } = one;
  const step = Math.ceil(values.length / MOST_ASKED);
  const asked = values.map((_, i) => i).filter((i) => i % step === 0);
  const isCounted = contender.rows !== undefined && !one.isDenied;
  const rowsBefore = isCounted ? await contender.rows(runtime, set, asked) : undefined;
  const first = one.nextValue ?? 0;
  const report = await load({
    address,
    values,
    first_value: first,
    connections,
    pid: runtime.pid,
    warmup_ms: mostRequests ? 0 : leadMs,
    measure_ms: Math.round(seconds * 1000),
    ...one.request,
    ...(mostRequests ? { most_requests: mostRequests } : {}),
  });
  const answers = sum(Object.values(report.statuses));
  one.nextValue = (first + answers) % values.length;
  const unexpected = answers - (report.statuses[expected] ?? 0);
  const fail = (what) => {
    throw new Error(`${one.name}, ${set}, ${connections} connections: ${what}; workerd's log:\n${runtime.log().slice(-2000)}`);
  };
  if (answers === 0 || report.failures > 0 || unexpected > (one.isDenied ? admittedInFlood(seconds) : 0)) {
    fail(`expected ${expected}, got ${JSON.stringify(report.statuses)} and ${report.failures} failures ${report.last_failure}`);
  }
  if (isCounted) {
    // The keys took turns from the first on.
    const place = (i) => (i - first + values.length) % values.length;
    const calls = sum(asked.map((i) => Math.floor((answers - place(i) + values.length - 1) / values.length)));
    const rows = (await contender.rows(runtime, set, asked)) - rowsBefore;
    report.rows_per_call = calls > 0 ? rows / calls : undefined;
    const expectedRows = calls * (one.rowsEach ?? 1);
    // A flush may write one more.
    if (contender.isOneRowEach && connections === 1 && (rows < expectedRows || rows > expectedRows + mostFlushes(seconds))) {
      fail(`expected ${expectedRows} rows for ${calls} calls, got ${rows}`);
    }
  }
  return report;
}

/** A flood of denials on a contender whose objects count: object requests and denied calls. */
export async function flood({ one, connections, seconds }) {
  const { runtime, contender, set, address, values } = one;
  const before = await contender.asked(runtime, set);
  const report = await load({ address, values, connections, warmup_ms: 0, measure_ms: Math.round(seconds * 1000) });
  const asked = (await contender.asked(runtime, set)) - before;
  const denied = report.statuses[one.expected] ?? 0;
  const answers = sum(Object.values(report.statuses));
  if (denied === 0 || answers - denied > admittedInFlood(seconds)) {
    throw new Error(`${one.name}, flood of ${one.set}: expected ${one.expected}, got ${JSON.stringify(report.statuses)}`);
  }
  return { keys: one.values.length, seconds, denied, asked, perDenied: asked / denied, perSecond: report.per_second };
}
