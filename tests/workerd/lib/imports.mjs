// Keys that were issued elsewhere.
import { expect } from "vitest";
import { admin } from "./gate.mjs";

let made = 0;

/** A key as some other system might have issued it. */
export const madeUp = () => `sk_live_${(made += 1)}_${crypto.randomUUID()}`;

/** Imports lines; resolves to what is said of each. */
export async function importLines(...lines) {
  const body = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n");
  const response = await admin("POST", "/keys/import", body);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/x-ndjson");
  return (await response.text()).trim().split("\n").map((text) => JSON.parse(text));
}

/** Imports one key; resolves to `{ id, key }`. */
export async function importKey(fields = {}) {
  const line = { key: madeUp(), tier: "free", ...fields };
  const [{ id }] = await importLines(line);
  expect(id).toMatch(/^[a-z2-7]{16}$/);
  return { id, key: line.key };
}
