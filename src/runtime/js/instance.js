// Tracks wasm instances. After a trap, ./entry.js creates the next one.

/** The number of the current instance. */
export function currentInstance() {
  return globalThis.__worker_init_state.instanceId;
}

/**
 * Throws unless `instance` is the current one. Objects that an instance has left in JavaScript must
 * not be called in the next one: wasm-bindgen 0.2.130 throws then, but moves the stack pointer.
 */
export function requireInstance(instance) {
  if (currentInstance() !== instance) throw new Error("the instance of the wasm that sent the request has ended");
}

/** Marks the current instance as ended. It is not called again; the next event creates a new one. */
export function markEnded() {
  globalThis.__worker_init_state.criticalError = true;
}
