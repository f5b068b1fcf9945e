// A key's Durable Object, its storage and its alarm.
import { evictDurableObject, listDurableObjectIds, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { sql } from "./database.mjs";

/** A fresh stub each time: one that has seen its object abort is of no more use. */
export const stub = (key) => env.KEYS.getByName(key.id);

/** How many objects have stored anything. */
export async function countObjects() {
  return (await listDurableObjectIds(env.KEYS)).length;
}

/** Runs the alarm now, as the runtime would at its time; false if none is set. */
export const runAlarm = (key) => runDurableObjectAlarm(stub(key));

/** Milliseconds until the alarm; null if none is set. */
export function alarmIn(key) {
  return runInDurableObject(stub(key), async (_object, state) => {
    const at = await state.storage.getAlarm();
    return at === null ? null : at - Date.now();
  });
}

/** Takes the object out of memory, as the runtime does when it is idle; the storage stays. */
export const evict = (key) => evictDurableObject(stub(key));

/** Ends the object as a crash does: whatever it only had in memory is gone. */
export function crash(key) {
  return abort(key, () => {});
}

/** Deletes all that the object has stored, and ends it. */
export function loseStorage(key) {
  return abort(key, (state) => state.storage.deleteAll());
}

async function abort(key, work) {
  const ended = runInDurableObject(stub(key), async (_object, state) => {
    await work(state);
    await state.storage.sync();
    // This reason is one that the test runner does not report.
    state.abort("Instance dispose");
  });
  await ended.catch(() => {});
}

/** Runs SQL in the object's database; resolves to the rows. */
export function inObject(key, query, ...values) {
  return runInDurableObject(stub(key), (_object, state) => state.storage.sql.exec(query, ...values).toArray());
}

/** All rows of all tables of the object, as text. */
export function objectText(key) {
  return runInDurableObject(stub(key), (_object, state) => {
    const tables = state.storage.sql.exec("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'");
    return tables.toArray().map(({ name }) => JSON.stringify(state.storage.sql.exec(`SELECT * FROM "${name}"`).toArray())).join("\n");
  });
}

/** Makes every write of counts fail, as a full disk does, until the function that it resolves to is called. */
export async function breakWrites(key) {
  const fail = (event) =>
    inObject(key, `CREATE TRIGGER broken_${event} BEFORE ${event} ON state BEGIN SELECT RAISE(ABORT, 'disk full'); END`);
  await fail("INSERT");
  await fail("UPDATE");
  return async () => {
    await inObject(key, "DROP TRIGGER broken_INSERT");
    await inObject(key, "DROP TRIGGER broken_UPDATE");
  };
}

/** Asks the object whether a call may pass, as the Worker does; resolves to its answer. */
export async function check(key, nonce, parameters = "") {
  const [{ secret_hash }] = await sql("SELECT secret_hash FROM keys WHERE id = ?", key.id);
  return stub(key).ask(`https://key.object/v1/check?id=${key.id}&h=${secret_hash}&n=${nonce}${parameters}`);
}

/** Tells the object that its key's row in D1 has changed, as the Worker does after a change through the admin API. */
export async function refresh(key) {
  await stub(key).fetch(`https://key.object/v1/refresh?id=${key.id}`);
}

/**
 * Lets `instead(answer, state)` take the place of the object's answer to each question; `answer()`
 * is what it would have said. Resolves to the questions asked since, by name.
 */
export function intercept(key, instead = (answer) => answer()) {
  return runInDurableObject(stub(key), (object, state) => {
    const asked = [];
    // In its class: RPC does not call what an instance has of its own.
    const { prototype } = object.constructor;
    for (const method of ["ask", "fetch"]) {
      const original = prototype[method];
      prototype[method] = function (question) {
        if (this !== object) return original.call(this, question);
        asked.push(new URL(question.url ?? question).pathname);
        return instead(() => original.call(this, question), state);
      };
    }
    return asked;
  });
}
