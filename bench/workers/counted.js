// tollgate with objects that count their requests, all of them together. For counts, not for times.
import { DurableObject } from "cloudflare:workers";
import tollgate, { KeyObject as Inner } from "./index.js";

export default tollgate;

let asked = 0;

export class KeyObject extends DurableObject {
  constructor(state, env) {
    super(state, env);
    this.inner = new Inner(state, env);
  }

  ask(question) {
    asked += 1;
    return this.inner.ask(question);
  }

  fetch(request) {
    return request.url.includes("/v1/stats?") ? Response.json({ asked }) : this.inner.fetch(request);
  }

  alarm() {
    return this.inner.alarm();
  }
}
