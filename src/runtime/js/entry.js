// The main module: the handlers that the runtime calls, around the bindings of the Rust crate.
// scripts/build.sh bundles the bindings into ./gate.js, and puts this file, ./openapi.js and the
// wasm beside them.
import { DurableObject } from "cloudflare:workers";
import * as wasm from "./gate.js";
import openapi from "./openapi.js";

// Read by the crate. Within the wasm it would be a twelfth of its size.
globalThis.tollgateOpenApi = openapi;

// The crate's abort hook sets `criticalError` when a trap, such as a panic, has ended the wasm
// instance. The next event creates a new instance. `instanceId` counts them.
const state = wasm.__worker_init_state();

function renew() {
  if (!state.criticalError) return;
  console.log("tollgate: starting a new instance of the wasm");
  wasm.__wbg_reset_state();
  state.criticalError = false;
  state.instanceId += 1;
}

/** Notes a trap that did not reach the crate's abort hook. */
function noteTrap(error) {
  if (error instanceof WebAssembly.RuntimeError) state.criticalError = true;
}

addEventListener("error", ({ error }) => noteTrap(error));

/** The response to a request that a trap has interrupted. The crate answers all other failures. */
function fail(error, env) {
  console.error(`tollgate: ${error?.stack ?? error}`);
  noteTrap(error);
  renew();
  return wasm.internalError(env);
}

// A plain object: the runtime would create an instance of a class for each request.
export default {
  fetch(request, env, context) {
    try {
      renew();
      const answer = wasm.fetch(request, env, context);
      return answer instanceof Promise ? answer.catch((error) => fail(error, env)) : answer;
    } catch (error) {
      return fail(error, env);
    }
  },

  scheduled(event, env, context) {
    renew();
    return wasm.scheduled(event, env, context);
  },
};

/** One key's object. The runtime lets methods be called only on subclasses of `DurableObject`. */
export class KeyObject extends DurableObject {
  #inner;
  #instanceId;

  constructor(context, env) {
    super(context, env);
    this.#current();
  }

  /** The crate's object. A new instance of the wasm gets a new one, which reads its storage. */
  #current() {
    renew();
    if (this.#instanceId !== state.instanceId) {
      this.#inner = new wasm.KeyObject(this.ctx, this.env);
      this.#instanceId = state.instanceId;
    }
    return this.#inner;
  }

  #call(method, argument) {
    try {
      return this.#current()[method](argument);
    } catch (error) {
      noteTrap(error);
      throw error;
    }
  }

  /**
   * Handles a request about a call. Request and response are lines of text, because `fetch` would
   * build a request, a response and two header maps.
   */
  ask(line) {
    return this.#call("ask", line);
  }

  fetch(request) {
    return this.#call("fetch", request);
  }

  alarm() {
    return this.#call("alarm");
  }
}
