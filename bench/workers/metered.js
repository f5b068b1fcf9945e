// tollgate's objects, with everything counted that is billed; `GET /` returns it. Gates in other
// isolates use them. For counts and for how long objects are awake, not for times.
import { DurableObject } from "cloudflare:workers";
import { KeyObject as Inner } from "./index.js";

/**
 * Since the start, of all objects together. `timersRunOut` are timers of more than a turn that were
 * not cleared in time.
 */
const totals = { requests: 0, alarms: 0, activeMs: 0, rowsWritten: 0, rowsRead: 0, alarmsSet: 0, timersRunOut: 0 };

const { setTimeout: start } = globalThis;
globalThis.setTimeout = (callback, delay = 0, ...values) => {
  const ring = () => {
    if (delay > 0) totals.timersRunOut += 1;
    callback(...values);
  };
  return start(ring, delay);
};

export default {
  fetch() {
    return Response.json(totals);
  },
};

export class KeyObject extends DurableObject {
  #inner;
  #storage;
  #open = 0;
  #since = 0;
  #cursors = [];

  constructor(context, env) {
    super(context, env);
    this.#storage = context.storage;
    const { sql } = context.storage;
    const exec = sql.exec.bind(sql);
    const counting = (...query) => {
      const cursor = exec(...query);
      this.#cursors.push(cursor);
      return cursor;
    };
    Object.defineProperty(sql, "exec", { value: counting });
    const setAlarm = context.storage.setAlarm.bind(context.storage);
    const noting = (...time) => {
      totals.alarmsSet += 1;
      return setAlarm(...time);
    };
    Object.defineProperty(context.storage, "setAlarm", { value: noting });
    this.#inner = new Inner(context, env);
  }

  ask(question) {
    return this.#event(() => this.#inner.ask(question));
  }

  fetch(request) {
    return this.#event(() => this.#inner.fetch(request));
  }

  alarm() {
    totals.alarms += 1;
    return this.#event(() => this.#inner.alarm());
  }

  /**
   * An event lasts until its response leaves, when everything written by then is confirmed.
   */
  #event(work) {
    totals.requests += 1;
    if (this.#open === 0) this.#since = performance.now();
    this.#open += 1;
    const end = () => {
      // A cursor counts its rows when it has been read to its end.
      for (const cursor of this.#cursors.splice(0)) {
        totals.rowsWritten += cursor.rowsWritten;
        totals.rowsRead += cursor.rowsRead;
      }
      this.#open -= 1;
      if (this.#open === 0) totals.activeMs += performance.now() - this.#since;
    };
    const confirmed = () => this.#storage.sync().then(end, end);
    try {
      const result = work();
      if (result instanceof Promise) result.then(confirmed, confirmed);
      else confirmed();
      return result;
    } catch (error) {
      confirmed();
      throw error;
    }
  }
}
