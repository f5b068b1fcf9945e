// What crosses into the wasm while answers pass, counted by a copy of tollgate.
import { services, tollgate } from "./contenders.mjs";
import { startWorkerd } from "./workerd.mjs";

/**
 * Calls into the wasm for a chunk at most: for its memory, itself, and for the memory of what
 * replaces it.
 */
export const MOST_CALLS_IN = 3;
/** Calls of other work of the isolate meanwhile, at most, in either direction. */
export const OTHER_CALLS = 50;

/** What of the counts of an answer of so many bytes is not as it should be; `undefined` if nothing. */
export function excess({ chunks, passes, bytesIn, bytesOut, callsIn, callsOut }, bytes) {
  if (passes !== chunks) return `${chunks} chunks were read ${passes} times`;
  if (bytesIn !== bytes) return `${bytesIn} bytes were copied in of ${bytes}`;
  if (bytesOut > bytesIn) return `${bytesOut} bytes were copied back of ${bytesIn}`;
  if (callsIn > MOST_CALLS_IN * chunks + OTHER_CALLS) return `${callsIn} calls went into the wasm for ${chunks} chunks`;
  if (callsOut > OTHER_CALLS) return `${callsOut} calls went out of the wasm for ${chunks} chunks`;
  return undefined;
}

/**
 * Starts tollgate with its crossings counted before an upstream (`host:port`). `call(send)` resolves
 * to the counts of one call, which `send(address, key)` makes; `chunks` are those of its answer.
 */
export async function startCounted({ upstream, stateIn, ...options }) {
  const gate = tollgate({ name: "tollgate-crossings", scripts: ["crossings.js", "crossings-count.js"], ...options });
  const runtime = await startWorkerd(services([gate], upstream), { stateIn });
  try {
    await gate.prepare(runtime);
  } catch (error) {
    await runtime.stop();
    throw error;
  }
  const address = runtime.address(gate.name);
  const [[key]] = Object.values(gate.keys);
  const look = async () => (await fetch(`http://${address}/crossings`)).json();
  return {
    stop: runtime.stop,
    async call(send) {
      const before = await look();
      await send(address, key);
      const after = await look();
      return Object.fromEntries(Object.entries(after).map(([name, count]) => [name, count - before[name]]));
    },
  };
}
