// What is deployed: `wrangler deploy` takes it. Its size is checked by scripts/size.mjs.
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { wrangler } from "../../scripts/lib/gate.mjs";

const VARS = [
  "ORIGIN", "PUBLIC_PATHS", "FAIL_MODE", "FLUSH_SECONDS", "DENY_CACHE_SECONDS", "ALLOW_QUERY_KEY", "LEGACY_HEADERS",
];

test("`wrangler deploy --dry-run` works, with the bindings of the contract", async () => {
  const directory = await mkdtemp(path.join(tmpdir(), "tollgate-deploy-"));
  try {
    const output = await wrangler(["deploy", "--dry-run", "--outdir", directory]);
    assert.match(output, /env\.KEYS \(KeyObject/);
    assert.match(output, /env\.DB \(tollgate\)/);
    for (const name of VARS) {
      assert.ok(output.includes(`env.${name} `), name);
    }
    assert.doesNotMatch(output, /env\.(ADMIN_TOKEN|KEY_SECRET)/);
    const files = await readdir(directory);
    assert.ok(files.some((file) => file.endsWith(".wasm")) && files.includes("index.js"), files.join(" "));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
