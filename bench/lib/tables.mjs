// Results as tables, for the terminal and for the document.
import { ratio } from "./compare.mjs";

export const number = (value, digits = 0) =>
  value === undefined || Number.isNaN(value)
    ? "–"
    : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const micros = (value) => number(value, value < 100 ? 1 : 0);
const kilobytes = (bytes) => number(bytes / 1000, 1);
const connectionsText = (count) => `${count} connection${count === 1 ? "" : "s"}`;

/** tollgate against the others. */
export function comparisonTable({ results }, { isForPeople = false } = {}) {
  const ours = results.find(({ name }) => name === "tollgate");
  const head = ["", "req/s", "p50 µs", "p90 µs", "p99 µs", "CPU µs/req", "rows/call", "max ÷ min", "tollgate ÷ this", "CPU this ÷ tollgate"];
  const rows = results.map((one) => [
    isForPeople ? one.title : one.name,
    number(one.perSecond),
    micros(one.p50),
    micros(one.p90),
    micros(one.p99),
    number(one.serverCpu, 1),
    number(one.rowsPerCall, 3),
    number(one.spread, 2),
    ours && one !== ours ? number(ratio(ours, one, "perSecond"), 2) : "",
    ours && one !== ours ? number(ratio(one, ours, "serverCpu"), 2) : "",
  ]);
  return { head, rows };
}

export function keysTable({ rows, asleep }) {
  return {
    head: ["keys", "objects", "admitted/s", "CPU µs/req", "rows/call", "÷ JavaScript object, a row per request", "denied/s", "object requests per denied call"],
    rows: [...rows, asleep].map(({ keys, admit, ratio: versus, deny, flood }) => [
      number(keys),
      deny ? "awake" : "asleep",
      number(admit.perSecond),
      number(admit.serverCpu, 1),
      number(admit.rowsPerCall, 3),
      number(versus, 2),
      number(deny?.perSecond),
      number(flood?.perDenied, 5),
    ]),
  };
}

export function policiesTable({ rows }) {
  return {
    head: ["policies", "admitted/s", "CPU µs/req", "p50 µs", "rows/call", "denied/s", "CPU µs/denial"],
    rows: rows.map(({ policies, admit, deny }) => [
      number(policies),
      number(admit.perSecond),
      number(admit.serverCpu, 1),
      micros(admit.p50),
      number(admit.rowsPerCall, 3),
      number(deny.perSecond),
      number(deny.serverCpu, 1),
    ]),
  };
}

export function quotaTable({ rows }) {
  const names = Object.keys(rows[0].algorithms);
  const columns = (title, pick) => names.map((name) => [`${name}, ${title}`, (row) => pick(row.algorithms[name])]);
  const all = [
    ...columns("admitted/s", (one) => number(one.perSecond)),
    ...columns("CPU µs/req", (one) => number(one.serverCpu, 1)),
    ...columns("rows/call", (one) => number(one.rowsPerCall, 3)),
  ];
  return {
    head: ["quota", "keys", ...all.map(([title]) => title)],
    rows: rows.map((row) => [number(row.quota), number(row.keys), ...all.map(([, cell]) => cell(row))]),
  };
}

export function startTable({ first }) {
  const head = ["", "workerd listens after ms", "first request ms", "together ms", "second request ms"];
  const rows = first.map((one) => [one.title, number(one.listening, 1), number(one.first, 2), number(one.total, 1), number(one.second, 2)]);
  return { head, rows };
}

export function sizeTable({ sizes, constantSizes }) {
  const row = (title, one) => [title, kilobytes(one.wasm), kilobytes(one.wasmGzipped), kilobytes(one.script), kilobytes(one.scriptGzipped)];
  return {
    head: ["", "wasm kB", "gzipped kB", "JavaScript kB", "gzipped kB"],
    rows: [row("tollgate", sizes), row("constant and forward, Rust", constantSizes)],
  };
}

export const NO_VALGRIND = "Instructions were not counted: valgrind is not installed.";

export function decisionsTable({ rows }) {
  const algorithms = Object.keys(rows[0].counts);
  return {
    head: ["one decision", ...algorithms],
    rows: rows.map(({ title, counts }) => [title, ...algorithms.map((name) => number(counts[name]))]),
  };
}

export function otherWorkTable({ others }) {
  return { head: ["other work", "instructions"], rows: others.map(({ title, count }) => [title, number(count)]) };
}

export const callsSentence = ({ asked, denied, seconds, perDenied }) =>
  `${number(asked)} object requests for ${number(denied)}\ndenied calls in ${number(seconds)} s: ${number(perDenied, 5)} per denied call`;

export function text({ head, rows }) {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i].length)));
  const line = (row) => row.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join("  ").trimEnd();
  return [head, ...rows].map(line).join("\n");
}

export function markdownTable({ head, rows }) {
  const line = (row) => `| ${row.join(" | ")} |`;
  return [line(head), `|${head.map((_, i) => (i ? "--:" : "---")).join("|")}|`, ...rows.map(line)].join("\n");
}

export const comparisonText = (kind, one) => `${kind}, ${connectionsText(one.connections)}\n${text(comparisonTable(one))}`;
export const callsText = callsSentence;
export const keysText = (result) => text(keysTable(result));
export const policiesText = (result) => text(policiesTable(result));
export const quotaText = (result) => text(quotaTable(result));
export const startText = (result) => `${text(startTable(result))}\n\n${text(sizeTable(result))}`;
export const instructionsText = (result) => (result ? `${text(decisionsTable(result))}\n\n${text(otherWorkTable(result))}` : NO_VALGRIND);
