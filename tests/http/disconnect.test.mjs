// Clients that leave while their call waits for a write that it shares with others.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { call, issueKey, send, usageOf } from "./lib/client.mjs";
import { PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";
import { connect, head, readAnswer } from "./lib/raw.mjs";

const CALLS = 40;
const ABORTED = 5;
/**
 * Turns of the event loop between sending and leaving: from before the gate has read a byte until
 * it has answered.
 */
const TURNS = [0, 1, 4, 16];

const GATES = {
  "through wrangler dev": {
    start: (origin) => startGate({ origin: origin.url }),
    target: "/shared",
    call: (gate, key) => call(gate, key, "/after"),
  },
  "at workerd's own socket": {
    start: (origin) => startDirectGate({ vars: { ORIGIN: origin.url } }),
    target: `${PUBLIC_URL}/shared`,
    call: (gate, { key }) => send(gate, `${PUBLIC_URL}/after`, { headers: { host: "api.test", "x-api-key": key } }),
  },
};

async function turns(count) {
  for (let n = 0; n < count; n += 1) await new Promise((resolve) => setImmediate(resolve));
}

for (const [where, { start, target, call }] of Object.entries(GATES)) {
  describe(where, () => {
    let origin;
    let gate;

    before(async () => {
      origin = await startOrigin();
      gate = await start(origin);
    });

    after(async () => {
      await gate?.stop();
      await origin?.stop();
    });

    for (const wait of TURNS) {
      const what = "clients that leave in the middle of a shared write cost only their own calls";
      test(`${what} (after ${wait} turns)`, async () => {
        const key = await issueKey(gate);
        assert.equal((await call(gate, key)).status, 200);
        origin.reset();

        const sockets = await Promise.all(Array.from({ length: CALLS }, () => connect(gate)));
        const lines = ["Host: api.test", `X-API-Key: ${key.key}`, "Content-Length: 0", "Connection: close"];
        const bytes = head(`POST ${target} HTTP/1.1`, lines);
        for (const socket of sockets) socket.write(bytes);
        await turns(wait);
        for (const socket of sockets.slice(0, ABORTED)) socket.resetAndDestroy();
        const answers = await Promise.all(sockets.slice(ABORTED).map((socket) => readAnswer(socket)));
        for (const socket of sockets) socket.destroy();

        assert.deepEqual(answers.map(({ status }) => status), Array(CALLS - ABORTED).fill(200));
        const calls = (await usageOf(gate, key)).calls - 1;
        assert.ok(calls >= CALLS - ABORTED && calls <= CALLS, `${calls} counted`);
        assert.ok(origin.count() >= CALLS - ABORTED, `${origin.count()} at the origin`);
        assert.ok(origin.count() <= calls, `${origin.count()} at the origin, ${calls} counted`);

        assert.equal((await call(gate, key)).status, 200);
        assert.equal((await usageOf(gate, key)).calls, calls + 2);
      });
    }
  });
}
