// The section on token routes of docs/benchmarks.md.
import { ratio } from "./compare.mjs";
import { markdownTable, number, text } from "./tables.mjs";

/** The place of the section in docs/benchmarks.md. */
const BLOCK = /<!-- tokens -->\n[\s\S]*?<!-- \/tokens -->/;

const FORMS = { events: "each event in a chunk of its own", blocks: "32 KiB of events in a chunk" };
const few = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);
const tollgateOf = (results) => results.find(({ name }) => name === "tollgate");
/** The ratio of two results, for answers that may be of other lengths. */
const times = (one, other, field) => {
  const factor = one.answerBytes ? one.answerBytes / other.answerBytes : 1;
  return ratio(one, other, field) * (field === "perSecond" ? factor : 1 / factor);
};

/** What the token route is compared with, by the names of the rows. */
const BESIDE = { "forward-js": "bare forward", "pass-js": "chunks handed on in JavaScript", "tollgate-other": "tollgate, a route without tokens", litellm: "LiteLLM" };

/** The token route to the others: ratios of rates, of times and of CPU. */
export function ratiosTable({ short, light, long }) {
  const names = Object.keys(BESIDE).filter((name) => short.tables[0].results.some((one) => one.name === name));
  const row = (what, { results }, field) => {
    const other = (name) => results.find((one) => one.name === name);
    return [what, ...names.map((name) => (other(name) ? few(times(tollgateOf(results), other(name), field)) : ""))];
  };
  const connections = (one) => (one.connections === 1 ? "1 connection" : `${one.connections} connections`);
  return {
    head: ["token route ÷", ...names.map((name) => BESIDE[name])],
    rows: [
      ...short.tables.map((one) => row(`time to the first byte, ${connections(one)}`, one, "firstByteP50")),
      ...(light ? [row(`the same, 1 connection, storage in ${light.storage}`, light.tables[0], "firstByteP50")] : []),
      ...short.tables.map((one) => row(`short answers a second, ${connections(one)}`, one, "perSecond")),
      ...short.tables.map((one) => row(`CPU of a short answer, ${connections(one)}`, one, "serverCpu")),
      ...long.tables.map((one) => row(`bytes a second, ${FORMS[one.form]}`, one, "perSecond")),
      ...long.tables.map((one) => row(`CPU of a MB, ${FORMS[one.form]}`, one, "serverCpu")),
    ],
  };
}

export function shortTable({ results }) {
  return {
    head: ["", "answers/s", "first byte p50 µs", "first byte p99 µs", "last byte p50 µs", "CPU µs/call", "rows/call"],
    rows: results.map((one) => [
      one.title,
      number(one.perSecond),
      number(one.firstByteP50),
      number(one.firstByteP99),
      number(one.p50),
      number(one.serverCpu),
      number(one.rowsPerCall, 3),
    ]),
  };
}

export function longTable({ results }) {
  return {
    head: ["", "MB", "MB/s", "CPU ms/MB", "rows/call"],
    rows: results.map((one) => [
      one.title,
      number(one.answerBytes / 1e6, 1),
      few((one.perSecond * one.answerBytes) / 1e6),
      few(one.serverCpu / 1e3 / (one.answerBytes / 1e6)),
      number(one.rowsPerCall),
    ]),
  };
}

export function crossingsTable(rows) {
  return {
    head: ["answer", "usage asked for by", "chunks read", "read by wasm, each", "calls into wasm, each", "calls out of it, each", "bytes copied in, of each", "bytes copied back, of each"],
    rows: rows.map(({ form, asksUsage, chunks, passes, callsIn, callsOut, bytesIn, bytesOut, bytes }) => [
      FORMS[form],
      asksUsage ? "the client" : "tollgate",
      number(chunks),
      number(passes / chunks, 2),
      number(callsIn / chunks, 2),
      number(callsOut / chunks, 2),
      number(bytesIn / bytes, 2),
      number(bytesOut / bytes, 2),
    ]),
  };
}

const tables = ({ short, light, long, crossings }) => [
  ["ratios", ratiosTable({ short, light, long })],
  ...short.tables.map((one) => [`short answers, ${one.connections === 1 ? "1 connection" : `${one.connections} connections`}`, shortTable(one)]),
  ...(light ? [[`short answers, 1 connection, storage in ${light.storage}`, shortTable(light.tables[0])]] : []),
  ...long.tables.map((one) => [`long answers, ${FORMS[one.form]}`, longTable(one)]),
  ["crossings", crossingsTable(crossings)],
];

export const tokensText = (results) => tables(results).map(([title, table]) => `${title}\n${text(table)}`).join("\n\n");

/** The section, with its marks. */
export function tokensSection(results) {
  const { date, machine, sizes, minutes, load, loadAfter, rounds, seconds, longRounds, storage, litellm, short, light, long, crossings } = results;
  const facts = [
    ...machine.slice(0, 3),
    ["measured", `${date.slice(0, 16).replace("T", " ")} UTC, in ${number(minutes, 1)} minutes; load of the machine ${number(load, 1)} before and ${number(loadAfter, 1)} after`],
    ["each number", `the median of ${rounds} rounds of ${number(seconds, 1)} s, or of ${longRounds} long answers; storage on ${storage}`],
    ["tollgate", `wasm and script with SHA-256 ${sizes.hash}…`],
    ...(litellm ? [["compared", `LiteLLM ${litellm} on Python ${results.python}`]] : []),
  ];
  const heading = (words) => `**${words[0].toUpperCase()}${words.slice(1)}**`;
  const sections = [
    "## Token routes",
    "Streamed chat completions in the form of OpenAI, through a route that spends tokens: budgets of a\nday and a month, beside request policies of a minute and a month. `make bench` writes this section\nwith the others, `npm run bench -- --only tokens` alone. Its figures are of this build, day and\nmachine, which others used at the same time where the load is above the number of cores:",
    markdownTable({ head: ["", ""], rows: facts }).replaceAll("--:", "---"),
    markdownTable(ratiosTable(results)),
    `${METHOD}\n${litellm ? LITELLM : NO_LITELLM}`,
    "### Short answers",
    `${number(short.tokens)} tokens, each event in a chunk of its own. Load of the machine before: ${number(short.load, 1)}.`,
    ...short.tables.flatMap((one) => [heading(one.connections === 1 ? "1 connection" : `${one.connections} connections`), markdownTable(shortTable(one))]),
    ...(light ? [heading(`1 connection, storage in ${light.storage}`), markdownTable(shortTable(light.tables[0]))] : []),
    "### Long answers",
    `One after the other, as fast as they are read, which no model is. Load of the machine before: ${number(long.load, 1)}.`,
    ...long.tables.flatMap((one) => [heading(FORMS[one.form]), markdownTable(longTable(one))]),
    "### What crosses into the wasm",
    CROSSINGS,
    markdownTable(crossingsTable(crossings)),
  ];
  return `<!-- tokens -->\n${sections.join("\n\n")}\n<!-- /tokens -->`;
}

/** The document with the section in it. */
export function withTokens(document, results) {
  if (!BLOCK.test(document)) throw new Error("docs/benchmarks.md: there is no place for token routes");
  return document.replace(BLOCK, () => tokensSection(results));
}

const METHOD = `- The upstream (\`bench/load/src/bin/upstream.rs\`) is a native process of one thread. It sends one
  event for each token, as fast as they are taken.
- Every gate is on a loopback socket. All Workers run in one workerd process. CPU is that of the
  whole process, objects and D1's stand-in included, but not of the upstream.
- “tollgate, token route” gets requests as clients send them: it asks the upstream for the usage,
  and takes that out of every event. In the row above it the client asks, and no byte is changed.
- “Chunks handed on in JavaScript” (\`bench/workers/pass.js\`) reads and writes each chunk of the
  answer and does nothing else: what the platform charges for an answer that is looked at.
- The first byte waits for the hold, a row in the key's object that is durable before the upstream
  gets the request. The end of the answer waits for the settle, the second row. So at 1 connection
  most of the time is the disk's.
- MB are those that the upstream sends.`;

const LITELLM = `- LiteLLM's proxy has one worker process, one master key and no budget, because its key budgets need
  a database. Its long answers are shorter, so that the run ends, and its rounds are of 3 s.`;

const NO_LITELLM = "- LiteLLM's proxy is left out, because it is not installed (`make setup-bench`).";

const CROSSINGS = `Counted by a copy of tollgate in which a few lines of JavaScript wrap the readers of answers and the
wasm's functions. The run fails, and so does a test, if a chunk is read more or less than once, if
more than three calls go into the wasm for it (its memory, itself, the memory of what replaces it),
if one goes out, or if more bytes come back than have come. The runtime cuts what the upstream
sends: a chunk that is read has at most 4 KiB, and an event that comes alone is read in two.`;
