// The start of every test: migrated tables, noon of a day in the future (so that no real alarm
// fires), an empty origin, and a captured log.
import { applyD1Migrations } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, expect, vi } from "vitest";
import { issuedKeys, received, setClock } from "./gate.mjs";
import { secretPart } from "./keys.mjs";

export const NOON = "2031-03-12T12:00:00.000Z";

/** The log of this test. */
export const logged = [];

beforeAll(() => applyD1Migrations(env.DB, env.MIGRATIONS));

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  setClock(NOON);
  logged.length = 0;
  for (const method of ["debug", "log", "info", "warn", "error"]) {
    vi.spyOn(console, method).mockImplementation((...values) => void logged.push(values.map(String).join(" ")));
  }
  await env.ORIGIN_CONTROL.fetch("https://control.test/reset");
});

afterEach(async () => {
  const seen = logged.join("\n") + JSON.stringify(await received());
  for (const key of issuedKeys) expect(seen).not.toContain(secretPart(key));
  vi.restoreAllMocks();
  vi.useRealTimers();
});
