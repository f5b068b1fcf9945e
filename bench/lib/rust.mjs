// The Rust Workers to compare with, built by the tools and with the flags that build tollgate
// (scripts/build.sh).
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { run } from "../../scripts/lib/processes.mjs";

const CRATE = path.join(ROOT, "bench/rust-worker");
const TARGET = path.join(ROOT, "target/bench-rust");
const TOOLS = path.join(ROOT, ".tools");
const NPM_BIN = path.join(ROOT, "node_modules/.bin");
const HOME_BIN = path.join(process.env.CARGO_HOME ?? path.join(process.env.HOME ?? "", ".cargo"), "bin");

/** The directory of the built Worker: `index.js` and `index_bg.wasm`. */
export const RUST_WORKER = path.join(TARGET, "build");

const INPUTS = ["Cargo.toml", "Cargo.lock", "src/lib.rs"].map((name) => path.join(CRATE, name));
const PINS = ["package-lock.json", "scripts/versions.env"].map((name) => path.join(ROOT, name));

/** Builds it. Returns at once if nothing changed. */
export async function buildRustWorker() {
  const hash = createHash("sha256");
  for (const file of [...INPUTS, ...PINS]) hash.update(await readFile(file));
  const key = hash.digest("hex");
  const stamp = path.join(TARGET, "stamp");
  const isBuilt = existsSync(path.join(RUST_WORKER, "index_bg.wasm")) && existsSync(stamp);
  if (isBuilt && (await readFile(stamp, "utf8")) === key) return;

  const env = {
    ...process.env,
    RUSTUP_AUTO_INSTALL: "0",
    CARGO_TARGET_DIR: TARGET,
    WASM_BINDGEN_BIN: path.join(TOOLS, "bin/wasm-bindgen"),
    WASM_OPT_BIN: path.join(NPM_BIN, "wasm-opt"),
    ESBUILD_BIN: path.join(NPM_BIN, "esbuild"),
    PATH: [NPM_BIN, process.env.PATH, HOME_BIN].join(path.delimiter),
  };
  const out = path.relative(CRATE, RUST_WORKER);
  await run(path.join(TOOLS, "bin/worker-build"), ["--release", "--out-dir", out], { cwd: CRATE, env });
  await writeFile(stamp, key);
}
