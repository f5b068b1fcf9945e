// What is to be reached, and whether it is.
import { ratio } from "./compare.mjs";
import { number } from "./tables.mjs";

const MOST_GZIPPED = 300_000;

function found(comparison, connections) {
  const table = comparison?.tables.find((one) => one.connections === connections);
  return (name) => table.results.find((one) => one.name === name);
}

const atLeast = (what, least, value) => ({ what, target: `≥ ${least}`, value, text: number(value, 2), isReached: value >= least });
const atMost = (what, most, value, digits = 2) => ({ what, target: `≤ ${most}`, value, text: number(value, digits), isReached: value <= most });

/** The targets that depend on what an admit writes, by storage. */
function admitTargets(comparison) {
  const many = found(comparison, 64);
  const one = found(comparison, 1);
  const rate = (name) => ratio(many("tollgate"), many(name), "perSecond");
  const rowsAtOne = one("tollgate").rowsPerCall;
  return [
    atLeast("admits, 64 connections ÷ JavaScript object, a row per request", 1.6, rate("js-write")),
    atLeast("admits, 64 connections ÷ JavaScript object, memory only", 0.75, rate("js-memory")),
    atLeast("admits, 64 connections ÷ hono-rate-limiter", 1.8, rate("hono-rate-limiter")),
    atMost("p50 of an admit, 1 connection ÷ JavaScript object, a row per request", 1.2, ratio(one("tollgate"), one("js-write"), "p50")),
    atMost("rows written per admit, 64 connections", 0.15, many("tollgate").rowsPerCall, 3),
    { what: "rows written per admit, 1 connection", target: "1", value: rowsAtOne, text: number(rowsAtOne, 3), isReached: rowsAtOne === 1 },
  ];
}

function otherTargets({ deny, calls, start }) {
  const many = found(deny[0], 64);
  const rate = (name) => ratio(many("tollgate"), many(name), "perSecond");
  const size = start.sizes.wasmGzipped;
  return [
    atLeast("denials, 64 connections ÷ constant JavaScript Worker", 0.6, rate("constant-js")),
    atLeast("denials, 64 connections ÷ hono-rate-limiter", 5, rate("hono-rate-limiter")),
    { ...atMost("questions to the object per denied call in a flood", 0.001, calls.perDenied, 5), target: "< 0.001", isReached: calls.perDenied < 0.001 },
    { what: "gzipped wasm, kB", target: "< 300", value: size, text: number(size / 1000, 1), isReached: size < MOST_GZIPPED },
  ];
}

/** A table of all targets, with a column per storage. */
export function targetsTable(results) {
  const storages = results.admit.map(({ storage }) => storage);
  const verdict = (one) => `${one.text} ${one.isReached ? "reached" : "**not reached**"}`;
  const columns = results.admit.map(admitTargets);
  const rows = columns[0].map((one, i) => [one.what, one.target, ...columns.map((column) => verdict(column[i]))]);
  // These write nothing: they are measured on the first storage only.
  rows.push(...otherTargets(results).map((one) => [one.what, one.target, verdict(one), ...storages.slice(1).map(() => "")]));
  return { head: ["", "target", ...storages.map((name, i) => (i ? `storage in ${name}` : `storage on ${name}`))], rows };
}
