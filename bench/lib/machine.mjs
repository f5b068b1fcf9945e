// The machine and the versions of a run.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { arch, cpus, loadavg, release, totalmem, type } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { WORKERD_VERSION } from "./workerd.mjs";


/** The load of the machine in the last minute. */
export const machineLoad = () => loadavg()[0];

/** Facts about the machine and the versions, as [name, value]. */
export async function machine() {
  const manifest = JSON.parse(await readFile(path.join(ROOT, "package.json"), "utf8"));
  const toolchain = await readFile(path.join(ROOT, "rust-toolchain.toml"), "utf8");
  const npm = (name) => `${name} ${manifest.devDependencies[name]}`;
  const cargo = await readFile(path.join(ROOT, "Cargo.toml"), "utf8");
  return [
    ["machine", `${cpus()[0]?.model.trim() ?? "unknown"}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release().split("-")[0]} ${arch()}`],
    ["runtime", `workerd ${WORKERD_VERSION}, Node ${process.version}`],
    ["Rust", `${toolchain.match(/^channel = "(.*)"$/m)[1]}, worker ${cargo.match(/^worker = .*"=([\d.]+)"/m)[1]}`],
    ["compared", [npm("hono"), npm("hono-rate-limiter"), npm("@hono-rate-limiter/cloudflare")].join(", ")],
  ];
}

/** Sizes of a built Worker in bytes, and a hash of it. */
export async function sizes(directory) {
  const wasm = await readFile(path.join(directory, "index_bg.wasm"));
  const names = ["index.js", "gate.js"].filter((name) => existsSync(path.join(directory, name)));
  const script = Buffer.concat(await Promise.all(names.map((name) => readFile(path.join(directory, name)))));
  const gzipped = (bytes) => gzipSync(bytes, { level: 9 }).length;
  return {
    wasm: wasm.length,
    wasmGzipped: gzipped(wasm),
    script: script.length,
    scriptGzipped: gzipped(script),
    hash: createHash("sha256").update(script).update(wasm).digest("hex").slice(0, 12),
  };
}
