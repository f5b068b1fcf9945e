// Workers made of npm packages, bundled into one module each by the project's own esbuild.
import path from "node:path";
import { build } from "esbuild";
import { ROOT } from "../../scripts/lib/gate.mjs";

export const HONO_WORKER = path.join(ROOT, "target/bench/hono.js");

/** Bundles the Workers that import packages. */
export async function bundleWorkers() {
  await build({
    entryPoints: [path.join(ROOT, "bench/workers/hono.js")],
    outfile: HONO_WORKER,
    bundle: true,
    format: "esm",
    target: "esnext",
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:workers"],
    logLevel: "error",
  });
}
