import { readFile } from "node:fs/promises";
import path from "node:path";
import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { unstable_readConfig as readConfig } from "wrangler";

const ROOT = path.resolve(import.meta.dirname, "../..");
const CONFIG = path.join(ROOT, "wrangler.toml");
const migrations = await readD1Migrations(path.join(ROOT, "migrations"));
const originScript = await readFile(path.join(import.meta.dirname, "lib/origin-worker.mjs"), "utf8");

/** Tests that hold whether the Worker denies by itself or asks the object. */
const SEEN_BY_CLIENTS = [
  "algorithms", "changes", "clock", "cors", "credentials", "fields", "forwarding", "idempotency", "imports", "me", "outages", "panics", "windows",
].map((name) => `${name}.test.mjs`);

// An isolate reads its vars once, so each set of them is a project: `gate` takes every test file, and `with-<name>*` only the
// files that begin so. Every test file gets a workerd and storage of its own.
function project(name, vars, more = []) {
  const files = name === "gate" ? { include: ["*.test.mjs"], exclude: ["with-*"] } : { include: [`with-${name}*.test.mjs`, ...more] };
  const worker = cloudflareTest({
    main: path.join(ROOT, "build/index.js"),
    wrangler: { configPath: CONFIG },
    remoteBindings: false,
    verbose: false,
    miniflare: {
      // All of them, so that a .dev.vars of this machine changes nothing.
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
      // Whatever leaves the isolate goes to the test origin; nothing goes to the network.
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
      // Denials are never cached here, so that every call is the object's decision.
      project("gate", { DENY_CACHE_SECONDS: "0" }),
      // What clients see is the same with it. The other files look at denials as the object itself counts and logs them.
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
      project("wrong", { FAIL_MODE: "maybe" }),
    ],
  },
});
