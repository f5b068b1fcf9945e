// `make test`: every check and every suite in turn, ending at the first stage that fails. The last
// line is the total of the suites; a check that fails counts as one failure. With
// TEST_SUMMARY=<file>, that line goes to the file instead.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";

const WASM = ["--target", "wasm32-unknown-unknown"];
const DENY_DOC_WARNINGS = { RUSTDOCFLAGS: "-D warnings" };
const scratch = await mkdtemp(path.join(tmpdir(), "tollgate-test-"));
const vitestReport = path.join(scratch, "vitest.json");

// A suite has `count(output)`, which reads { passed, failed, skipped } from what it reported.
const STAGES = [
  { name: "format", command: ["cargo", "fmt", "--check"] },
  { name: "clippy", command: ["cargo", "clippy", "--locked", "--all-targets", "--", "-D", "warnings"] },
  { name: "clippy, wasm", command: ["cargo", "clippy", "--locked", ...WASM, "--", "-D", "warnings"] },
  { name: "circles of imports", command: [process.execPath, "scripts/cycles.mjs"] },
  { name: "cargo test", command: ["cargo", "test", "--locked", "--no-fail-fast"], count: countCargo },
  { name: "docs", command: ["cargo", "doc", "--locked", "--no-deps"], env: DENY_DOC_WARNINGS },
  { name: "docs, wasm", command: ["cargo", "doc", "--locked", "--no-deps", ...WASM], env: DENY_DOC_WARNINGS },
  { name: "build", command: ["bash", "scripts/build.sh"] },
  { name: "size", command: [process.execPath, "scripts/size.mjs"] },
  {
    name: "workerd suite",
    command: [
      "npm", "run", "--silent", "test:workerd", "--",
      "--reporter=default", "--reporter=json", `--outputFile.json=${vitestReport}`,
    ],
    count: countVitest,
  },
  { name: "http suite", command: ["npm", "run", "--silent", "test:http"], count: countNode },
  { name: "demo", command: [process.execPath, "scripts/dev.mjs", "--once"], count: countDemo },
];

let passed = 0;
let failed = 0;
try {
  for (const stage of STAGES) {
    const totals = await runStage(stage);
    passed += totals.passed;
    failed += totals.failed;
    if (totals.failed > 0) {
      console.error(`\ntollgate: stage "${stage.name}" failed; later stages were not run`);
      break;
    }
  }
} finally {
  await rm(scratch, { recursive: true, force: true });
}

const summary = `${passed} passed, ${failed} failed`;
if (process.env.TEST_SUMMARY) await writeFile(process.env.TEST_SUMMARY, `${summary}\n`);
else console.log(`\n${summary}`);
process.exitCode = failed > 0 ? 1 : 0;

/** Runs one stage with its output shown; a stage that fails has at least one failure. */
async function runStage({ name, command: [program, ...args], env, count }) {
  console.log(`\n== ${name}`);
  const child = spawn(program, args, {
    stdio: ["ignore", count ? "pipe" : "inherit", "inherit"],
    env: { ...process.env, ...env },
  });
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    output += text;
    process.stdout.write(text);
  });
  const ok = await Promise.race([
    once(child, "close").then(([code]) => code === 0),
    once(child, "error").then(([error]) => {
      console.error(`tollgate: ${program} does not start: ${error.message}`);
      return false;
    }),
  ]);
  if (!count) return { passed: 0, failed: ok ? 0 : 1 };

  const totals = await count(stripVTControlCharacters(output), ok);
  if (totals.skipped > 0) {
    console.error(`tollgate: ${totals.skipped} tests of "${name}" were skipped, which counts as failure`);
    totals.failed += totals.skipped;
  }
  if (ok && totals.passed + totals.failed === 0) {
    console.error(`tollgate: "${name}" ran no tests, which counts as failure`);
    totals.failed = 1;
  }
  if (!ok && totals.failed === 0) totals.failed = 1;
  return totals;
}

/** Sums `pattern`'s first group over the whole output. */
function sum(output, pattern) {
  return [...output.matchAll(pattern)].reduce((total, found) => total + Number(found[1]), 0);
}

function countCargo(output) {
  return {
    passed: sum(output, /^test result: .*?(\d+) passed;/gm),
    failed: sum(output, /^test result: .*?(\d+) failed;/gm),
    skipped: sum(output, /^test result: .*?(\d+) ignored;/gm),
  };
}

async function countVitest() {
  const report = await readFile(vitestReport, "utf8").then(JSON.parse, () => undefined);
  return {
    passed: report?.numPassedTests ?? 0,
    failed: report?.numFailedTests ?? 0,
    skipped: (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0),
  };
}

function countNode(output) {
  return {
    passed: sum(output, /^ℹ pass (\d+)$/gm),
    failed: sum(output, /^ℹ (?:fail|cancelled) (\d+)$/gm),
    skipped: sum(output, /^ℹ (?:skipped|todo) (\d+)$/gm),
  };
}

function countDemo(_output, ok) {
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
}
