// Imported keys.
import { expect } from "vitest";
import { api } from "./gate.mjs";

let made = 0;

/** A key in the style of another system. */
export const madeUp = () => `sk_live_${(made += 1)}_${crypto.randomUUID()}`;

/** Imports lines; resolves to the result of each. */
export const importLines = (...lines) => api.importLines(lines);

/** Imports one key; resolves to `{ id, key }`. */
export async function importKey(fields = {}) {
  const line = { key: madeUp(), tier: "free", ...fields };
  const [{ id }] = await importLines(line);
  expect(id).toMatch(/^[a-z2-7]{16}$/);
  return { id, key: line.key };
}
