// A trap in the wasm, as after a panic: the instance loses its memory and only storage remains.
import { runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as wasm from "../../build/gate.js";
import { makeTier, sql } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, received, releaseOrigin, usage } from "./lib/gate.mjs";
import { intercept, stub } from "./lib/object.mjs";

/** Ends the wasm instance as a bug could: by an access beyond its memory. */
function trap() {
  // Or it has ended already, and no event has started another.
  expect(() => wasm.OutboxDelivery.prototype.next.call({ __wbg_ptr: 0xffff_fff0 })).toThrow(/out of bounds|terminated/);
}

let logged;
beforeEach(() => {
  logged = vi.spyOn(console, "error").mockImplementation(() => {});
});
afterEach(() => vi.restoreAllMocks());

test("the next call gets a new instance, and counted calls stay counted", async () => {
  const key = await issue();
  await admit(key, 4);
  trap();
  await admit(key, 6);
  trap();
  await denied(key);
  expect((await usage(key)).calls).toBe(10);
});

test("nothing of an instance that has ended is called again", async () => {
  const key = await issue();
  trap();
  // Neither a function nor a finalised object may pass its pointer to a new instance.
  expect(() => wasm.internalError({})).toThrow("terminated");
  expect(() => wasm.OutboxDelivery.prototype.next.call({ __wbg_ptr: 8 })).toThrow("terminated");
  await admit(key, 1);
});

test("the admin API continues too", async () => {
  const key = await issue();
  trap();
  expect((await admin("GET", `/keys/${key.id}`)).status).toBe(200);
});

describe.each([0, 1, 3, 10])("calls that are in flight at a trap, %i turns after their arrival", (turns) => {
  test("all end, none passes uncounted, and each refused one gets a response", async () => {
    const key = await issue("basic");
    await admit(key, 1);
    const responses = [];
    for (let wave = 0; wave < 4; wave += 1) {
      responses.push(...Array.from({ length: 8 }, () => call(key)));
      for (let turn = 0; turn < turns; turn += 1) await scheduler.wait(0);
      trap();
    }
    const answers = await Promise.all(responses);
    const failed = answers.filter(({ status }) => status !== 200);
    for (const answer of failed) await problem(answer, answer.status === 503 ? 503 : 500);
    // Each failure is logged with its cause.
    expect(logged.mock.calls.length).toBeGreaterThanOrEqual(failed.length);
    const passed = answers.length - failed.length;
    expect(await received()).toHaveLength(1 + passed);
    const { calls } = await usage(key);
    expect(calls).toBeGreaterThanOrEqual(1 + passed);
    expect(calls).toBeLessThanOrEqual(1 + answers.length);
    await admit(key, 3);
    expect((await usage(key)).calls).toBe(calls + 3);
  });
});

test("calls that wait for a shared write get a response, also from a busy object", async () => {
  const key = await issue("basic");
  await admit(key, 1);
  // While an object has work, the runtime does not detect calls that will never be answered.
  let isBusy = true;
  const work = runInDurableObject(stub(key), async () => {
    while (isBusy) await scheduler.wait(10);
  });
  let waiting = 0;
  await intercept(key, (answer) => {
    const line = answer();
    if (line instanceof Promise && (waiting += 1) === 3) trap();
    return line;
  });
  const calls = Promise.all(Array.from({ length: 8 }, () => call(key)));
  const answers = await Promise.race([calls, scheduler.wait(8_000)]);
  isBusy = false;
  await work;
  expect(waiting).toBeGreaterThanOrEqual(3);
  expect(answers, "the calls end").toBeDefined();
  const failed = answers.filter(({ status }) => status !== 200);
  expect(failed.length).toBeGreaterThanOrEqual(3);
  for (const answer of failed) await problem(answer, answer.status === 503 ? 503 : 500);
  expect(await received()).toHaveLength(1 + answers.length - failed.length);
  await admit(key, 3);
});

test("a call that is at the origin at a trap gets the origin's response", async () => {
  const tier = await makeTier();
  await sql("UPDATE tiers SET audit_days = 7 WHERE name = ?", tier);
  const key = await issue(tier);
  const pay = { method: "POST", headers: { "Idempotency-Key": "order" } };
  const answers = [call(key, "/held"), call(key, "/held", pay)];
  await vi.waitFor(async () => expect(await received()).toHaveLength(2));
  trap();
  await releaseOrigin();
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  // Only the lost instance had their outcome.
  expect(logged.mock.calls.filter(([line]) => line.includes("the outcome of a call was not recorded"))).toHaveLength(2);
  await admit(key, 1);
});
