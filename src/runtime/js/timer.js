// Timers, and work that outlives the response.

/**
 * Resolves after so many milliseconds. Not for objects: a timer that is left running keeps an
 * object awake, and billed.
 */
export function after(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A timer that can be cleared. */
export function startTimer(milliseconds) {
  const { promise, resolve } = Promise.withResolvers();
  return { promise, id: setTimeout(resolve, milliseconds) };
}

export function timerPromise(timer) {
  return timer.promise;
}

export function clearTimer(timer) {
  clearTimeout(timer.id);
}

/**
 * Continues work after the response, or after the client has left. The caller handles its errors.
 */
export function keepAlive(context, work) {
  const ignore = () => {};
  context.waitUntil(work.then(ignore, ignore));
}
