// The gate on the Worker's size: what is uploaded is the gzipped wasm, and its size is start-up
// time.
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const limit = Number((await readFile("scripts/versions.env", "utf8")).match(/^WASM_GZIP_LIMIT_KIB=(\d+)$/m)[1]);
const wasm = await readFile("build/index_bg.wasm");
const kib = gzipSync(wasm, { level: 9 }).length / 1024;
console.log(`wasm: ${(wasm.length / 1024).toFixed(1)} KiB, gzipped ${kib.toFixed(1)} KiB of at most ${limit}`);
if (kib > limit) {
  console.error("tollgate: the wasm is too large: find what grew it, or raise the limit in scripts/versions.env");
  process.exitCode = 1;
}
