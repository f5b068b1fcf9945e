// D1 is out of reach at the first use of a key.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { assertRefused, call, issueKey, usageOf } from "./lib/client.mjs";

const BREAK = "ALTER TABLE keys RENAME TO keys_away";
const REPAIR = "ALTER TABLE keys_away RENAME TO keys";

for (const mode of ["closed", "open"]) {
  describe(`FAIL_MODE=${mode}`, () => {
    let origin;
    let gate;
    let used;
    let fresh;
    let isBroken = false;

    before(async () => {
      origin = await startOrigin();
      gate = await startGate({ origin: origin.url, vars: { FAIL_MODE: mode } });
      [used, fresh] = await Promise.all([issueKey(gate, "pro"), issueKey(gate, "pro")]);
      assert.equal((await call(gate, used)).status, 200);
      await gate.d1(BREAK);
      isBroken = true;
      origin.reset();
    });

    afterEach(() => origin.reset());

    after(async () => {
      await gate?.stop();
      await origin?.stop();
    });

    async function repair() {
      if (isBroken) await gate.d1(REPAIR);
      isBroken = false;
    }

    test("a key in use is judged and counted with D1 down", async () => {
      const answer = await call(gate, used);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["x-tollgate-fail-open"], undefined);
      assert.match(answer.headers.ratelimit, /"month";r=99998;/);
      assert.equal(origin.count(), 1);
    });

    test("a forged key is refused with D1 down too", async () => {
      assertRefused(await call(gate, { key: `${fresh.key.slice(0, -1)}${fresh.key.endsWith("a") ? "b" : "a"}` }), 401);
      assert.equal(origin.count(), 0);
    });

    if (mode === "closed") {
      test("a call that cannot be judged is answered 503 with Retry-After, and never reaches the origin", async () => {
        for (let n = 0; n < 3; n += 1) {
          const answer = await call(gate, fresh);
          assertRefused(answer, 503);
          assert.match(answer.headers["retry-after"], /^[1-9]\d*$/);
        }
        assert.equal(origin.count(), 0);
      });

      test("once D1 is back the key works, and the refused calls were not counted", async () => {
        await repair();
        await until("a call is admitted", async () => (await call(gate, fresh)).status === 200);
        assert.equal((await usageOf(gate, fresh)).calls, 1);
        assert.equal(origin.count(), 1);
      });
    } else {
      test("a call that cannot be judged is forwarded with X-Tollgate-Fail-Open: 1", async () => {
        for (let n = 0; n < 3; n += 1) {
          const answer = await call(gate, fresh, "/open", { headers: { "X-Tollgate-Fail-Open": "0" } });
          assert.equal(answer.status, 200);
          assert.equal(answer.headers["x-tollgate-fail-open"], "1");
        }
        assert.equal(origin.count(), 3);
        for (const { headers } of origin.requests()) {
          assert.equal(headers["x-tollgate-fail-open"], "1");
          assert.equal(headers["x-api-key"], undefined);
        }
      });

      test("once D1 is back the calls that were let through are counted", async () => {
        await repair();
        await until("a call is judged", async () => {
          const { headers } = await call(gate, fresh);
          return headers["x-tollgate-fail-open"] === undefined;
        });
        const { calls, policies } = await usageOf(gate, fresh);
        assert.equal(calls, 3 + origin.count());
        assert.equal(policies.find(({ policy }) => policy === "month").used, calls);
      });
    }
  });
}
