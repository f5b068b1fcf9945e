// Tracks wasm instances. After a trap, ./entry.js creates the next one.

/** The number of the current instance. */
export function currentInstance() {
  return globalThis.__worker_init_state.instanceId;
}

/**
 * Throws unless `instance` is the current one. What an instance has left in JavaScript must not be
 * called in the next: wasm-bindgen 0.2.130 throws then, but moves the stack pointer.
 */
export function requireInstance(instance) {
  if (currentInstance() !== instance) throw new Error("the instance of the wasm that asked has ended");
}

/** Marks the current instance as ended: nothing of it may be called again, and the next event makes a new one. */
export function markEnded() {
  globalThis.__worker_init_state.criticalError = true;
}
