import { readFile } from "node:fs/promises";
import path from "node:path";
import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { unstable_readConfig as readConfig } from "wrangler";

const ROOT = path.resolve(import.meta.dirname, "../..");
const CONFIG = path.join(ROOT, "wrangler.toml");
const migrations = await readD1Migrations(path.join(ROOT, "migrations"));
const originScript = await readFile(path.join(import.meta.dirname, "lib/origin-worker.mjs"), "utf8");

/** Tests that pass with and without the deny cache. */
const SEEN_BY_CLIENTS = [
  "algorithms", "changes", "clock", "cors", "credentials", "fields", "forwarding", "idempotency", "imports", "me", "outages", "panics", "reprice", "tokens", "windows",
].map((name) => `${name}.test.mjs`);

// An isolate reads its vars once, so each set of vars is a project: `gate` runs every other test
// file, and `with-<name>*` only the files with that prefix. Every test file has its own workerd and
// storage.
function project(name, vars, more = []) {
  const files = name === "gate" ? { include: ["*.test.mjs"], exclude: ["with-*"] } : { include: [`with-${name}*.test.mjs`, ...more] };
  const worker = cloudflareTest({
    main: path.join(ROOT, "build/index.js"),
    wrangler: { configPath: CONFIG },
    remoteBindings: false,
    verbose: false,
    miniflare: {
      // All vars are set, so that a local .dev.vars has no effect.
      bindings: {
        ...readConfig({ config: CONFIG }).vars,
        ADMIN_TOKEN: "admin-token-of-the-tests",
        KEY_SECRET: "key-secret-of-the-tests",
        KEY_SECRET_PREVIOUS: "",
        ALERT_WEBHOOK_SECRET: "",
        ORIGIN_SECRET: "",
        ORIGIN: "https://origin.test",
        ...vars,
        MIGRATIONS: migrations,
      },
      // All outgoing requests go to the test origin, none to the network.
      outboundService: "origin",
      serviceBindings: { ORIGIN_CONTROL: "origin" },
      workers: [{ name: "origin", modules: true, script: originScript, compatibilityDate: "2026-09-01" }],
    },
  });
  return {
    plugins: [worker],
    test: { name, root: import.meta.dirname, setupFiles: ["lib/setup.mjs"], testTimeout: 20_000, ...files },
  };
}

export default defineConfig({
  test: {
    root: import.meta.dirname,
    projects: [
      // No deny cache, so that the object decides every call.
      project("gate", { DENY_CACHE_SECONDS: "0" }),
      // Client-visible behaviour is the same with the deny cache. The other files examine denials
      // as the object counts and logs them.
      project("deny-cache", {}, SEEN_BY_CLIENTS),
      project("fail-open", { FAIL_MODE: "open", ORIGIN: "https://origin.test/base/", DENY_CACHE_SECONDS: "0" }),
      project("options", {
        ORIGIN: "",
        PUBLIC_PATHS: "/public, /a%20b",
        ALLOW_QUERY_KEY: "true",
        ROUTE_CASE: "insensitive",
        LEGACY_HEADERS: "false",
        CORS_ALLOW_ORIGIN: "https://app.test",
        KEY_SECRET_PREVIOUS: "an-older-secret, the-oldest-secret",
        ORIGIN_SECRET: "origin-secret-of-the-tests",
      }),
      project("draft-7", { RATELIMIT_FIELDS: "draft-7" }),
      project("no-fields", { RATELIMIT_FIELDS: "none", DENY_CACHE_SECONDS: "0" }),
      project("no-imports", { ALLOW_IMPORTED_KEYS: "false" }),
      project("preflight", { PREFLIGHT: "answer", CORS_ALLOW_ORIGIN: "https://app.test", PUBLIC_PATHS: "/public" }),
      project("unset", { ADMIN_TOKEN: "", KEY_SECRET: "" }),
      project("alerts", {
        ALERT_WEBHOOK_URL: "https://hooks.test/hook?for=tollgate",
        ALERT_WEBHOOK_SECRET: "webhook-secret-of-the-tests",
      }),
      project("clamp", { TOKEN_CLAMP: "true", TOKEN_BODY_BYTES: "300", DENY_CACHE_SECONDS: "0" }),
      project("wrong", { FAIL_MODE: "maybe" }),
    ],
  },
});
