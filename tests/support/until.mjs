// Waiting for what comes by itself.
import assert from "node:assert/strict";

/** Runs `probe` until it returns a true value, which is returned; `what` says in the failure what was awaited. */
export async function until(what, probe, { within = 20_000, every = 50 } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    const found = await probe();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${within} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}
