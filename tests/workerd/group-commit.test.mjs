// Group commit in the runtime: one write for many calls, and no call waits for an event that does
// not come. The rules are tested natively (src/object/group_commit).
import { runInDurableObject } from "cloudflare:test";
import { expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { issue, usage } from "./lib/gate.mjs";
import { check, crash, stub } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

/** Runs turns of the event loop until all pending work is done. */
async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setTimeout(resolve, 0));
}

/**
 * Runs `work` in the object of a key. `ask()` sends a concurrent call and returns its pending
 * response. `confirm()` delivers the oldest confirmation, `lose()` fails it.
 */
async function inObjectOf(key, work) {
  const [{ secret_hash }] = await sql("SELECT secret_hash FROM keys WHERE id = ?", key.id);
  return runInDurableObject(stub(key), async (object, { storage }) => {
    const held = [];
    const sync = storage.sync.bind(storage);
    Object.defineProperty(storage, "sync", {
      configurable: true,
      value: () => new Promise((resolve, reject) => held.push({ resolve: () => sync().then(resolve), reject })),
    });
    let nonce = 100;
    const ask = () => {
      const asked = { answer: undefined };
      const url = `https://key.object/v1/check?id=${key.id}&h=${secret_hash}&n=${(nonce += 1)}&g=1`;
      Promise.resolve(object.ask(url)).then((answer) => (asked.answer = answer));
      return asked;
    };
    const confirm = async () => {
      held.shift()?.resolve();
      await settle();
    };
    const lose = async () => {
      held.shift()?.reject(new Error("the disk is gone"));
      await settle();
    };
    const trigger = (event) => `CREATE TRIGGER broken_${event} BEFORE ${event} ON state BEGIN SELECT RAISE(ABORT, 'disk full'); END`;
    const breakWrites = () => ["INSERT", "UPDATE"].forEach((event) => storage.sql.exec(trigger(event)));
    const repair = () => ["INSERT", "UPDATE"].forEach((event) => storage.sql.exec(`DROP TRIGGER broken_${event}`));
    try {
      return await work({ ask, confirm, lose, breakWrites, repair });
    } finally {
      Object.defineProperty(storage, "sync", { configurable: true, value: sync });
      while (held.length > 0) await confirm();
    }
  });
}

const answers = (asked) => asked.map(({ answer }) => answer?.split(" ").slice(0, 2).join(" "));

test("a write that fails in a busy turn leaves no call waiting for a confirmation that was never requested", async () => {
  const key = await issue("basic");
  await check(key, 1);
  await inObjectOf(key, async ({ ask, confirm, breakWrites, repair }) => {
    const first = [ask(), ask(), ask()];
    breakWrites();
    await confirm();
    expect(answers(first), "their turn failed").toEqual(["1 failed", "1 failed", "1 failed"]);
    repair();
    // The next row is written once per turn, confirmed or not.
    const busy = [];
    for (let turn = 0; turn < 8; turn += 1) {
      busy.push(ask(), ask());
      await settle();
    }
    const last = [ask(), ask()];
    // All confirmations requested so far, then those that they cause.
    for (let confirmations = 0; confirmations < 4; confirmations += 1) await confirm();
    expect(answers([...busy, ...last])).toEqual(Array(18).fill("1 admitted:e"));
  });
  await crash(key);
  expect((await usage(key)).calls).toBe(19);
});

test("calls that wait for the next write fail when the one before is lost, and the next call is judged by storage", async () => {
  const key = await issue("basic");
  await check(key, 1);
  await inObjectOf(key, async ({ ask, confirm, lose }) => {
    const lost = [ask(), ask()];
    await lose();
    expect(answers(lost)).toEqual(["1 failed", "1 failed"]);
    const next = [ask()];
    await confirm();
    expect(answers(next)).toEqual(["1 admitted:e"]);
  });
  await crash(key);
  expect((await usage(key)).calls).toBe(2);
  expect(logged.join()).toContain("a write was not confirmed: the disk is gone");
});
