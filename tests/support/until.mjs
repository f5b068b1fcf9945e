// Polling.
import assert from "node:assert/strict";

/**
 * Runs `probe` until it returns a truthy value, and returns that; `what` names it in the failure.
 */
export async function until(what, probe, { within = 20_000, every = 50 } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    const found = await probe();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${within} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}
