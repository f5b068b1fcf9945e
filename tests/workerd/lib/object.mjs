// A key's Durable Object, its storage and its alarm.
import { evictDurableObject, listDurableObjectIds, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { sql } from "./database.mjs";

/** A fresh stub for each use: one whose object has aborted is unusable. */
export const stub = (key) => env.KEYS.getByName(key.id);

/** Number of objects with stored data. */
export async function countObjects() {
  return (await listDurableObjectIds(env.KEYS)).length;
}

/** Runs the alarm now; false if none is set. */
export const runAlarm = (key) => runDurableObjectAlarm(stub(key));

/** Milliseconds until the alarm; null if none is set. */
export function alarmIn(key) {
  return runInDurableObject(stub(key), async (_object, state) => {
    const at = await state.storage.getAlarm();
    return at === null ? null : at - Date.now();
  });
}

/** Evicts the object, as the runtime does when it is idle; its storage remains. */
export const evict = (key) => evictDurableObject(stub(key));

/** Ends the object as a crash does: its memory is lost. */
export function crash(key) {
  return abort(key, () => {});
}

/** Deletes the object's storage and ends it. */
export function loseStorage(key) {
  return abort(key, (state) => state.storage.deleteAll());
}

async function abort(key, work) {
  const ended = runInDurableObject(stub(key), async (_object, state) => {
    await work(state);
    await state.storage.sync();
    // The test runner does not report this reason.
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

/** Makes every write of counts fail, as a full disk does, until the returned function is called. */
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

/** Sends a call to the object as the Worker does; resolves to its response. */
export async function check(key, nonce, parameters = "") {
  const [{ secret_hash }] = await sql("SELECT secret_hash FROM keys WHERE id = ?", key.id);
  return stub(key).ask(`https://key.object/v1/check?id=${key.id}&h=${secret_hash}&n=${nonce}${parameters}`);
}

/**
 * Notifies the object of a change of its key's row in D1, as the Worker does after a change through
 * the admin API.
 */
export async function refresh(key) {
  await stub(key).fetch(`https://key.object/v1/refresh?id=${key.id}`);
}

/**
 * Replaces each response of the object by `instead(answer, state)`; `answer()` is its real
 * response. Resolves to the requests received since, by name.
 */
export function intercept(key, instead = (answer) => answer()) {
  return runInDurableObject(stub(key), (object, state) => {
    const asked = [];
    // Set on the class: RPC ignores an instance's own properties.
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
