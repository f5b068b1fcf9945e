// The module that the runtime loads: what it calls, around the Rust crate in ./gate.js. scripts/build.sh puts both into build/.
import { DurableObject } from "cloudflare:workers";
import gate, { KeyObject as Inner } from "./gate.js";
import openapi from "./openapi.js";

// Where the crate finds it. Inside the wasm it would be a twelfth of all that has to be loaded.
globalThis.tollgateOpenApi = openapi;

// A handler and not the class that worker-build makes: of that the runtime makes an instance for each request.
const { fetch, scheduled } = gate.prototype;

export default {
  fetch(request, env, ctx) {
    return fetch.call({ env, ctx }, request);
  },

  scheduled(event, env, ctx) {
    return scheduled.call({ env, ctx }, event);
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
