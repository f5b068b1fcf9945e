// `npm run test:http [-- FILE… OPTION…]`: the tests over HTTP, all of them or those of the named
// files. A file is named by its path or by a part of it, as in `npm run test:workerd -- FILE`.
// Options are those of `node --test`, each in one word: `--test-name-pattern=TEXT`.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { constants } from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "..");
const DIRECTORY = "tests/http";

const names = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
const options = process.argv.slice(2).filter((argument) => argument.startsWith("-"));
const all = (await readdir(path.join(ROOT, DIRECTORY)))
  .filter((file) => file.endsWith(".test.mjs"))
  .sort()
  .map((file) => path.posix.join(DIRECTORY, file));

const unknown = names.filter((name) => named(name).length === 0);
if (unknown.length > 0) {
  console.error(`tollgate: no test file matches ${unknown.join(", ")}; there are:\n${all.join("\n")}`);
  process.exit(1);
}
const files = names.length === 0 ? all : all.filter((file) => names.some((name) => named(name).includes(file)));

const child = spawn(
  process.execPath,
  ["--test", "--test-concurrency=1", "--test-reporter=spec", ...options, ...files],
  { cwd: ROOT, stdio: "inherit" },
);
// A Ctrl-C reaches the tests too, which stop what they have started; this process ends after them.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
const [code, signal] = await once(child, "exit");
process.exitCode = code ?? 128 + constants.signals[signal];

/** The test files of a name. */
function named(name) {
  const asPath = path.relative(ROOT, path.resolve(process.env.INIT_CWD ?? ROOT, name)).replaceAll(path.sep, "/");
  return all.includes(asPath) ? [asPath] : all.filter((file) => file.includes(name));
}
