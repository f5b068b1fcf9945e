// Bundles the bindings that wasm-bindgen wrote, and what they import, into one module beside the
// wasm.
import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const [, , bindings, bundle] = process.argv;
const SNIPPET = /^\s*"(\.\/snippets\/[^"]+)": \w+,$/;

// A plain import of a .wasm file is a compiled module in the runtime.
const source = (await readFile(bindings, "utf8")).replace("import source ", "import ");
// wasm-bindgen names a snippet in the table of imports once for each `extern` block; esbuild and
// wrangler warn of every repetition.
const named = new Set();
const lines = source.split("\n").filter((line) => {
  const name = SNIPPET.exec(line)?.[1];
  return name === undefined || (!named.has(name) && named.add(name));
});
await writeFile(bindings, lines.join("\n"));

await build({
  entryPoints: [bindings],
  outfile: bundle,
  bundle: true,
  format: "esm",
  minify: true,
  external: ["./index_bg.wasm", "cloudflare:*"],
  logLevel: "warning",
});
