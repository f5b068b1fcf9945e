// The module that the runtime loads: what it calls, around the Rust crate in ./gate.js. scripts/build.sh puts both into build/.
import { DurableObject } from "cloudflare:workers";
import gate, { KeyObject as Inner } from "./gate.js";
import openapi from "./openapi.js";

// Where the crate finds it. Inside the wasm it would be a twelfth of all that has to be loaded.
globalThis.tollgateOpenApi = openapi;

// A handler and not the class that worker-build makes: of that the runtime makes an instance for each request. It is only needed
// after a trap (a panic, say), which ends the instance of the wasm: its methods put a new one in its place, as those of objects do.
const { fetch, scheduled } = gate.prototype;
const instance = globalThis.__worker_init_state;

export default {
  fetch(request, env, ctx) {
    // What the crate expects to fail it answers itself. This is a trap, or a call that was under way when another met one.
    const fail = (error) => {
      console.error(`tollgate: ${error?.stack ?? error}`);
      return new gate(ctx, env).internalError(env);
    };
    try {
      const answer = instance.criticalError ? new gate(ctx, env).fetch(request) : fetch.call({ env, ctx }, request);
      return answer instanceof Promise ? answer.catch(fail) : answer;
    } catch (error) {
      return fail(error);
    }
  },

  scheduled(event, env, ctx) {
    return instance.criticalError ? new gate(ctx, env).scheduled(event) : scheduled.call({ env, ctx }, event);
  },
};

/** One key's object. Only a class of `DurableObject`'s own kin can be asked by method calls. */
export class KeyObject extends DurableObject {
  #inner;

  constructor(context, env) {
    super(context, env);
    this.#inner = new Inner(context, env);
  }

  /** A question about a call and its answer, both lines of text: no request, response and header maps are made for them. */
  ask(question) {
    return this.#inner.ask(question);
  }

  fetch(request) {
    return this.#inner.fetch(request);
  }

  alarm() {
    return this.#inner.alarm();
  }
}
