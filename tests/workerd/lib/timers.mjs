// Fake time for the Worker and a key's object: timers, the alarm, and hibernation.
import { runInDurableObject } from "cloudflare:test";
import { vi } from "vitest";
import { setClock } from "./gate.mjs";
import { alarmIn, evict, runAlarm, stub } from "./object.mjs";

/** Timers below this many milliseconds are left to the runtime: turns of the event loop. */
const SHORT = 100;
/** An object without work loses its memory after so many milliseconds without an event. */
const HIBERNATION = 10_000;

/** Interval at which a timer of the Worker checks whether it is due, in milliseconds. */
const LOOK = 5;

/**
 * Takes over the clock, the timers of the Worker and of a key's object, and that object's alarm:
 * they advance with `pass(seconds)` alone. Only for tests with sequential requests, since a timer
 * belongs to the object if it is set while the object handles an event.
 */
export async function takeTimeOver(key) {
  const seen = { rows: 0, alarms: 0, alarmsSet: 0, events: 0, awake: 0, hibernations: 0 };
  /** Timers of the object, and of the Worker. */
  const [waiting, others] = [new Set(), new Set()];
  let [handling, isAlarmRunning] = [0, false];
  let lastEvent = Date.now();
  /** The time up to which the object's awake time is accounted. */
  let counted = Date.now();

  const { setTimeout: start, clearTimeout: clear } = globalThis;
  vi.spyOn(globalThis, "setTimeout").mockImplementation((callback, delay = 0, ...values) => {
    if (delay < SHORT) return start(callback, delay, ...values);
    if (handling === 0) {
      // It must fire in the context of its request, so it checks the time itself.
      const other = { due: Date.now() + delay };
      others.add(other);
      const look = () => {
        if (Date.now() < other.due) return start(look, LOOK);
        others.delete(other);
        return callback(...values);
      };
      return start(look, LOOK);
    }
    const timer = { since: Date.now(), due: Date.now() + delay, ring: () => callback(...values) };
    waiting.add(timer);
    return timer;
  });
  vi.spyOn(globalThis, "clearTimeout").mockImplementation((timer) => (waiting.delete(timer) ? undefined : clear(timer)));

  /** Instruments an instance of the object. Repeat for each new instance. */
  const watch = () =>
    runInDurableObject(stub(key), (object, { storage }) => {
      const { prototype } = object.constructor;
      for (const method of ["ask", "fetch", "alarm"]) {
        if (vi.isMockFunction(prototype[method])) continue;
        const original = prototype[method];
        vi.spyOn(prototype, method).mockImplementation(async function (...values) {
          handling += 1;
          seen.events += 1;
          lastEvent = Date.now();
          isAlarmRunning ||= method === "alarm";
          try {
            return await original.apply(this, values);
          } finally {
            handling -= 1;
            if (method === "alarm") isAlarmRunning = false;
          }
        });
      }
      const exec = storage.sql.exec.bind(storage.sql);
      const counting = (...query) => {
        const cursor = exec(...query);
        seen.rows += cursor.rowsWritten;
        return cursor;
      };
      Object.defineProperty(storage.sql, "exec", { configurable: true, value: counting });
      const setAlarm = storage.setAlarm.bind(storage);
      const counted = (...time) => {
        seen.alarmsSet += 1;
        return setAlarm(...time);
      };
      Object.defineProperty(storage, "setAlarm", { configurable: true, value: counted });
    });
  await watch();

  /** Fires every timer that is due, and completes what it starts. */
  const ring = async () => {
    const isDue = ({ due }) => due <= Date.now();
    if (![...waiting, ...others].some(isDue)) return;
    for (const timer of [...waiting].filter(isDue)) {
      if (waiting.delete(timer)) await runInDurableObject(stub(key), timer.ring);
    }
    const turn = () => new Promise((resolve) => start(resolve, 1));
    const { events } = seen;
    while ([...others].some(isDue)) await turn();
    // A Worker with a pending delivery sends it soon. One without shows no sign.
    for (let turns = 0; turns < 100 && seen.events === events; turns += 1) await turn();
    while (handling > 0 && !isAlarmRunning) await turn();
  };

  /** Advances to `end`, or to an earlier event. */
  const moveOn = async (end) => {
    const alarm = await alarmIn(key);
    // The next alarm waits for the previous one.
    const alarmAt = alarm === null || isAlarmRunning ? Infinity : Date.now() + Math.max(0, alarm);
    const idleUntil = waiting.size > 0 ? Infinity : lastEvent + HIBERNATION;
    const now = Math.min(end, alarmAt, idleUntil, ...[...waiting, ...others].map(({ due }) => due));
    const from = Math.max(counted, Math.min(...[...waiting].map(({ since }) => since)));
    const until = Math.min(now, Math.max(...[...waiting].map(({ due }) => due)));
    seen.awake += Math.max(0, until - from);
    counted = now;
    setClock(now);
    await ring();
    if (alarmAt <= now) {
      seen.alarms += 1;
      await runAlarm(key);
    }
    if (waiting.size > 0 || now - lastEvent < HIBERNATION) return;
    seen.hibernations += 1;
    lastEvent = Infinity;
    await evict(key);
    await watch();
  };

  return {
    seen,
    pass: async (seconds) => {
      const end = Date.now() + seconds * 1000;
      while (Date.now() < end) await moveOn(end);
    },
  };
}
