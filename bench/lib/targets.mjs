// The targets of the benchmarks, and whether they are reached.
import { ratio } from "./compare.mjs";
import { number } from "./tables.mjs";

const MOST_GZIPPED = 450_000;

/** tollgate, and the floor: a JavaScript gate that does only what the platform requires of any. */
const OURS = "tollgate";
const FLOOR = "js-same";
const SAME_WORK = "JavaScript, the same work";

function found(comparison, connections) {
  const table = comparison?.tables.find((one) => one.connections === connections);
  return (name) => table.results.find((one) => one.name === name);
}

const verdict = (isReached) => (isReached ? "reached" : "**not reached**");
const atLeast = (what, least, value) => ({ what, target: `≥ ${least}`, text: `${number(value, 2)} ${verdict(value >= least)}` });
const atMost = (what, most, value, digits = 2) => ({ what, target: `≤ ${most}`, text: `${number(value, digits)} ${verdict(value <= most)}` });
const toTheFloor = (what, [ours, floor]) => ({ what, target: "floor", text: number(ours, 2), floor: number(floor, 2) });

/** The targets that depend on the rows of an admitted call, by storage, with the floor's results. */
function admitTargets(comparison) {
  const many = found(comparison, 64);
  const one = found(comparison, 1);
  const rates = (name) => [OURS, FLOOR].map((gate) => ratio(many(gate), many(name), "perSecond"));
  const times = (name) => [OURS, FLOOR].map((gate) => ratio(one(gate), one(name), "p50"));
  const rows = (of) => [OURS, FLOOR].map((gate) => of(gate).rowsPerCall);
  const target = (make, what, bound, [ours, floor], digits = 2) => ({ ...make(what, bound, ours, digits), floor: number(floor, digits) });
  const [rowsAtOne, floorAtOne] = rows(one);
  return [
    target(atLeast, "admits, 64 connections ÷ JavaScript object, a row per request", 1.6, rates("js-write")),
    target(atLeast, "admits, 64 connections ÷ JavaScript object, memory only", 0.75, rates("js-memory")),
    target(atLeast, "admits, 64 connections ÷ hono-rate-limiter", 1.8, rates("hono-rate-limiter")),
    toTheFloor(`admits, 64 connections ÷ ${SAME_WORK}`, rates(FLOOR)),
    target(atMost, "p50 of an admit, 1 connection ÷ JavaScript object, a row per request", 1.2, times("js-write")),
    toTheFloor(`p50 of an admit, 1 connection ÷ ${SAME_WORK}`, times(FLOOR)),
    target(atMost, "rows written per admit, 64 connections", 0.15, rows(many), 3),
    {
      what: "rows written per admit, 1 connection",
      target: "1",
      text: `${number(rowsAtOne, 3)} ${verdict(rowsAtOne === 1)}`,
      floor: number(floorAtOne, 3),
    },
  ];
}

function otherTargets({ deny, calls, start }) {
  const many = found(deny[0], 64);
  const rate = (name) => ratio(many(OURS), many(name), "perSecond");
  const size = start.sizes.wasmGzipped;
  return [
    atLeast("denials, 64 connections ÷ constant JavaScript Worker", 0.6, rate("constant-js")),
    atLeast("denials, 64 connections ÷ hono-rate-limiter", 5, rate("hono-rate-limiter")),
    {
      what: "object requests per denied call in a flood",
      target: "< 0.001",
      text: `${number(calls.perDenied, 5)} ${verdict(calls.perDenied < 0.001)}`,
    },
    { what: "gzipped wasm, kB", target: "< 450", text: `${number(size / 1000, 1)} ${verdict(size < MOST_GZIPPED)}` },
  ];
}

/** A table of all targets: by storage, the results of tollgate and of the floor. */
export function targetsTable(results) {
  const storages = results.admit.map(({ storage }) => storage);
  const columns = results.admit.map(admitTargets);
  const rows = columns[0].map((one, i) => [one.what, one.target, ...columns.flatMap((column) => [column[i].text, column[i].floor ?? ""])]);
  // These write nothing: they are measured on the first storage only.
  rows.push(...otherTargets(results).map(({ what, target, text }) => [what, target, text, "", ...storages.slice(1).flatMap(() => ["", ""])]));
  const head = storages.flatMap((name, i) => (i ? [`storage in ${name}`, "the floor there"] : [`storage on ${name}`, "the floor there"]));
  return { head: ["", "target", ...head], rows };
}
