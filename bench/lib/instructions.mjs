// Instructions of the core's work, counted by valgrind. They are the same on every run, under any
// load of the machine.
import path from "node:path";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { run } from "../../scripts/lib/processes.mjs";

const HOME_BIN = path.join(process.env.CARGO_HOME ?? path.join(process.env.HOME ?? "", ".cargo"), "bin");
/**
 * Repetitions of a case's work; a second run has twice as many. A multiple of 64, because an audit
 * log is cut after each 64 admissions.
 */
const TIMES = 25_600;

const ALGORITHMS = ["fixed", "sliding", "bucket"];
/** The cases of benches/instructions.rs: one per algorithm of each of these, */
const DECISIONS = [
  ["10", "admitted, quota 10"],
  ["1000", "admitted, quota 1,000"],
  ["10000", "admitted, quota 10,000"],
  ["six", "admitted by six policies, quota 1,000"],
  ["denied", "denied, quota 1,000"],
];
/** and these. */
const OTHERS = [
  ["row", "text of a row, two fixed policies"],
  ["row-sliding", "text of a row, two sliding policies with 32 calls each"],
  ["protocol", "object request and response, each written and read"],
  ["key", "tag of a presented key verified"],
  ["key-hash", "its secret hashed"],
  ["deny-cache", "denial found in the cache"],
  ["token-request", "request of 3 KB on a token route: its hold, and the usage asked for"],
  ["answer-events", "usage of a streamed answer of 8 KB"],
  ["answer-events-filtered", "the same, with the usage taken out"],
  ["answer-text", "usage of an answer of 8 KB: a text"],
  ["answer-embeddings", "usage of an answer of 8 KB: numbers"],
];

async function hasValgrind() {
  try {
    await run("valgrind", ["--version"]);
    return true;
  } catch (error) {
    if (error.code === "ENOENT") return false;
    throw error;
  }
}

/** Compiles the cases. Returns the path of the program. */
async function compile() {
  const env = { ...process.env, PATH: `${process.env.PATH}${path.delimiter}${HOME_BIN}` };
  const args = ["bench", "--no-run", "--locked", "--quiet", "--bench", "instructions", "--message-format=json"];
  const messages = (await run("cargo", args, { cwd: ROOT, env })).trim().split("\n").map((line) => JSON.parse(line));
  return messages.find(({ target, executable }) => target?.name === "instructions" && executable).executable;
}

/** Instructions of a whole run. */
async function collected(program, name, times) {
  const report = await run("valgrind", ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1", program, name, String(times)]);
  const [, count] = report.match(/Collected : (\d+)/) ?? [];
  if (!count) throw new Error(`valgrind counted nothing of ${name}:\n${report}`);
  return Number(count);
}

/**
 * Counts all cases: `{ rows, others }`, a row for each kind of decision with a count by algorithm,
 * and the other cases by title. `undefined` where there is no valgrind.
 */
export async function instructions() {
  if (!(await hasValgrind())) return undefined;
  const program = await compile();
  const count = async (name) => ((await collected(program, name, 2 * TIMES)) - (await collected(program, name, TIMES))) / TIMES;
  const rows = [];
  for (const [name, title] of DECISIONS) {
    const counts = {};
    for (const algorithm of ALGORITHMS) counts[algorithm] = await count(`${algorithm}-${name}`);
    rows.push({ title, counts });
  }
  const others = [];
  for (const [name, title] of OTHERS) others.push({ title, count: await count(name) });
  return { rows, others };
}
