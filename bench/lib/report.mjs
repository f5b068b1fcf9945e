// docs/benchmarks.md.
import {
  callsSentence,
  comparisonTable,
  decisionsTable,
  keysTable,
  markdownTable,
  NO_VALGRIND,
  number,
  otherWorkTable,
  policiesTable,
  quotaTable,
  sizeTable,
  startTable,
} from "./tables.mjs";
import { targetsTable } from "./targets.mjs";
import { tokensSection } from "./tokens-report.mjs";

const STORED = {
  disk: "files on this machine's disk, in `.bench/`",
  memory: "files in memory, in `/dev/shm`",
};

const load = ({ load: before }) => `Load of the machine before: ${number(before, 1)}.`;

function tablesOf(comparison) {
  return comparison.tables.map((one) => {
    const title = one.connections === 1 ? "1 connection" : `${one.connections} connections`;
    return `**${title}**\n\n${markdownTable(comparisonTable(one, { isForPeople: true }))}`;
  });
}

function instructionsOf({ counted }) {
  if (!counted) return [NO_VALGRIND];
  return [
    "Of the core, compiled natively and counted by `valgrind --tool=callgrind`: a run with twice the work\nless a run with it, so that start and preparation cancel out. They can be compared between machines\nof the same architecture and compiler. A decision includes what follows its commit, but not the\nrow's text.",
    markdownTable(decisionsTable(counted)),
    markdownTable(otherWorkTable(counted)),
  ];
}

/** The whole document; `findings` is put in as it is. */
export function markdown(results, findings) {
  const { admit, deny, calls, keys, policies, quota, start, machine, seconds, rounds } = results;
  const [disk] = admit;
  const facts = [
    ...machine,
    ["measured", `${results.date.slice(0, 16).replace("T", " ")} UTC, by \`make bench\` in one run of ${number(results.minutes, 1)} minutes; load of the machine ${number(disk.load, 1)} before and ${number(results.loadAfter, 1)} after`],
    ["each number", `the median of ${rounds} rounds of ${seconds} s (growth: 3 rounds of ${number(seconds / 2, 2)} s)`],
    ["tollgate", `wasm and script with SHA-256 ${start.sizes.hash}…`],
  ];
  const sections = [
    "# Measurements",
    "Written by `make bench`; only [what was found](#what-was-found) is written by hand. All figures are\nof the build and the day in this table, not of the present source. `BENCH_SECONDS=0.2 make bench` is\na quick run.",
    markdownTable({ head: ["", ""], rows: facts }).replaceAll("--:", "---"),
    "![Requests per second](benchmarks.svg)",
    "## Targets",
    "Ratios of requests per second or of times in one run, full checks and fields included. The floor is\nwhat “JavaScript, the same work” reaches in tollgate's place: a gate in JavaScript that asks,\nstores, forwards and responds as tollgate does, and computes nothing. Where the floor misses a\ntarget too, the platform's part of the work is the reason. The size limit is in\n`scripts/versions.env`.",
    markdownTable(targetsTable(results)),
    "## How it is measured",
    METHOD,
    "## Admitting",
    "One hot key, whose tier has a minute and a month. A count is durable before its response, so the\nstorage of the objects matters.",
    ...admit.flatMap((one) => [`### Storage: ${STORED[one.storage] ?? one.storage}`, load(one), ...tablesOf(one)]),
    "## Denying",
    "One exhausted key. The constant Workers answer 200 to it.",
    ...deny.flatMap((one) => [load(one), ...tablesOf(one)]),
    `A flood on one exhausted key from 64 connections: ${callsSentence(calls)}. ${load(calls)}`,
    "## Growth",
    `64 connections. Storage: ${STORED[results.storage] ?? results.storage}. Idle objects stay awake, so that these\ntables show the cost of the code, not of the disk or of waking.`,
    "### Number of keys",
    `Keys take turns. An object that is awake has three files open, so the limit of open files can keep\nthe third row below 10,000. In the last row every call wakes an object, which reads its storage and,\nif its profile is old, D1. An isolate keeps a denial for at most 10 seconds, so each of many keys\nasks its object at least that often. ${load(keys)}`,
    markdownTable(keysTable(keys)),
    "### Number of policies",
    `A month, a minute, an hour, a day, and two buckets; all others are fixed.\n${load(policies)}`,
    markdownTable(policiesTable(policies)),
    "### Quota",
    `One policy of a day. The smaller the quota, the more keys take turns, so that every cell has equally\nmany admitted calls; read along a row to compare algorithms. Two calls share a row only if they have\nthe same key. ${load(quota)}`,
    markdownTable(quotaTable(quota)),
    tokensSection({ date: results.date, ...results.tokens }),
    "## Size and start",
    `workerd started anew ${start.first[0].times} times for each, medians. tollgate's first request is\nadmitted: it wakes the object and reads its storage. ${load(start)}`,
    markdownTable(startTable(start)),
    markdownTable(sizeTable(start)),
    "## Instructions",
    ...instructionsOf(results.instructions),
    findings.trim(),
  ];
  return `${sections.join("\n\n")}\n`;
}

const METHOD = `- One workerd process runs every contender, each on a loopback socket of its own, and one constant
  origin Worker to which each forwards what it admits. workerd does all of it on one thread, so the
  work for one request, the origin's share included, bounds requests per second.
- The load generator (\`bench/load\`) is native, has one thread, and keeps its connections alive. Each
  connection sends its next request when it has read the last response. Latency is what it sees.
- Rounds alternate in order. A ratio is the median over the rounds of the ratio in each round.
  \`max ÷ min\` is the fastest round over the slowest.
- CPU is that of the whole workerd process per request. It moves less than requests per second when
  others use the machine. The load (runnable processes, one-minute average) is printed with every
  table; above the number of cores it means that others did.
- Rows written are counted by the objects' own SQL cursors. hono-rate-limiter puts one value per
  call, also for a denied one, and is not counted here.
- Object requests are counted by a second copy of tollgate, in which a few lines of JavaScript wrap
  the object class. No time is taken from it.
- The JavaScript objects do not check the key and add no fields. hono-rate-limiter is used as its
  README shows.
- “JavaScript, the same work” (\`bench/workers/same.js\`) asks the key's object by a method call with
  a request and a response as long as tollgate's, shares writes as tollgate does with rows as long,
  copies the request's headers, takes the key out, puts the identity in, and adds the six fields. It
  verifies no key, judges no policy and denies nothing.`;
