// A gate whose origin leads back to itself.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Response } from "miniflare";
import { freePort, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { assertRefused, call, issueKey, send, usageOf } from "./lib/client.mjs";
import { startDirectGate } from "./lib/direct.mjs";
import { request } from "./lib/raw.mjs";

const MARK = "x-tollgate-loop";

/** A 508 that names the variable to set. */
function assertLoop(answer) {
  assertRefused(answer, 508);
  const { detail } = JSON.parse(answer.body);
  assert.match(detail, /ORIGIN/);
  assert.ok(detail.includes("--var ORIGIN:http://127.0.0.1:3000"), detail);
}

describe("`wrangler dev` with an empty ORIGIN", () => {
  let gate;
  let key;

  before(async () => {
    gate = await startGate({ vars: { PUBLIC_PATHS: "/public" } });
    key = await issueKey(gate, "free");
  });

  after(() => gate?.stop());

  test("a call is answered with a 508 that names the variable to set, and nothing is charged, under each name of the machine", async () => {
    const { port } = new URL(gate.url);
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`]) {
      for (let n = 0; n < 2; n += 1) assertLoop(await call(gate, key, "/a", { headers: { host } }));
    }
    assertLoop(await call(gate, key, "/a", { method: "POST", body: "x", headers: { "idempotency-key": "once" } }));
    assert.equal((await usageOf(gate, key)).calls, 0);
    await until("the log has it", () => /set ORIGIN to the URL of your API/.test(gate.log()));
  });

  test("a public path and a preflight are answered 508 too, without a loop", async () => {
    assertLoop(await send(gate, "/public"));
    const headers = { origin: "https://app.test", "access-control-request-method": "POST" };
    assertLoop(await send(gate, "/a", { method: "OPTIONS", headers }));
  });

  test("refusals and tollgate's own endpoints are answered as without a loop", async () => {
    assertRefused(await send(gate, "/a"), 401);
    assertRefused(await call(gate, { key: "invalid" }), 401);
    assert.equal((await send(gate, "/_tollgate/health")).status, 200);
    assert.equal((await call(gate, key, "/_tollgate/me")).status, 200);
  });

  test("another server on a local host is reached, and receives no mark", async () => {
    const origin = await startOrigin();
    try {
      const { host } = new URL(origin.url);
      for (let n = 0; n < 2; n += 1) assert.equal((await call(gate, key, "/a", { headers: { host } })).status, 200);
      const calls = origin.requests().filter(({ path }) => path === "/a");
      assert.deepEqual(calls.map(({ headers }) => [headers["x-tollgate-key-id"], headers[MARK]]), Array(2).fill([key.id, undefined]));
      assert.deepEqual(origin.requests().length - calls.length, 1, "it is probed once");
    } finally {
      await origin.stop();
    }
  });
});

describe("ORIGIN names the gate itself", () => {
  for (const [what, originOf] of [
    ["by its address", (port) => `http://127.0.0.1:${port}`],
    ["by another name, with a path", (port) => `http://localhost:${port}/v1`],
  ]) {
    test(`a call is answered 508 and nothing is charged: ${what}`, async () => {
      const port = await freePort();
      const gate = await startGate({ port, origin: originOf(port) });
      try {
        const key = await issueKey(gate, "free");
        for (let n = 0; n < 2; n += 1) assertLoop(await call(gate, key));
        assert.equal((await usageOf(gate, key)).calls, 0);
      } finally {
        await gate.stop();
      }
    });
  }
});

describe("a public name that leads only to the gate", () => {
  let gate;
  let key;

  before(async () => {
    gate = await startDirectGate({ vars: { ORIGIN: "", PUBLIC_PATHS: "/public" }, outbound: "tollgate" });
    key = await issueKey(gate, "free");
  });

  after(() => gate?.stop());

  const get = (host, path = "/a") =>
    request(gate, `GET http://${host}${path} HTTP/1.1`, [`Host: ${host}`, `X-API-Key: ${key.key}`]);

  test("the first call detects it, and no other is charged", async () => {
    for (let n = 0; n < 3; n += 1) assertLoop(await get("api.test"));
    assert.equal((await usageOf(gate, key)).calls, 1);
  });

  test("a *.workers.dev leads only to the gate: not even the first call is charged", async () => {
    const { calls } = await usageOf(gate, key);
    assertLoop(await get("tollgate.me.workers.dev"));
    assert.equal((await usageOf(gate, key)).calls, calls);
  });
});

describe("a public name with an origin behind it", () => {
  let gate;
  let key;
  let seen = [];
  let respond = () => new Response("ok");

  before(async () => {
    const outbound = (request) => {
      seen.push({ path: new URL(request.url).pathname, mark: request.headers.get(MARK) });
      return respond(request);
    };
    gate = await startDirectGate({ vars: { ORIGIN: "" }, outbound });
    key = await issueKey(gate, "pro");
  });

  after(() => gate?.stop());

  async function get(lines = [], host = "api.test") {
    seen = [];
    const answer = await request(gate, `GET http://${host}/a HTTP/1.1`, [`Host: ${host}`, `X-API-Key: ${key.key}`, ...lines]);
    return { answer, seen };
  }

  test("a client cannot forge a mark, and an invented one is dropped", async () => {
    const now = Date.now();
    for (const mark of ["1", `${now}.0000000000000000.${"0".repeat(32)}`, `${now}.0.`, ".."]) {
      const { answer, seen } = await get([`X-Tollgate-Loop: ${mark}`]);
      assert.equal(answer.status, 200);
      assert.equal(seen.length, 1);
      assert.match(seen[0].mark, /^\d+\.[0-9a-f]{16}\.[0-9a-f]{32}$/);
      assert.notEqual(seen[0].mark, mark);
    }
  });

  test("a client that replays a mark gets only a 508, for the host of the mark alone", async () => {
    const [{ mark }] = (await get()).seen;
    const before = (await usageOf(gate, key)).calls;
    assertLoop((await get([`X-Tollgate-Loop: ${mark}`])).answer);
    assert.equal((await usageOf(gate, key)).calls, before);
    assert.equal((await get([`X-Tollgate-Loop: ${mark}`], "other.test")).answer.status, 200);
    const { answer, seen } = await get();
    assert.equal(answer.status, 200);
    assert.deepEqual(seen.map(({ path }) => path), ["/a"]);
  });

  test("an origin that answers 508 with the received fields is only probed, once", async () => {
    respond = ({ headers }) => new Response("loop", { status: 508, headers: { [MARK]: headers.get(MARK) } });
    const [first, second, third] = [await get(), await get(), await get()];
    respond = () => new Response("ok");
    assert.deepEqual([first, second, third].map(({ answer }) => answer.status), [508, 508, 508]);
    assert.deepEqual([first, second, third].map(({ seen }) => seen.map(({ path }) => path)), [
      ["/a"], ["/_tollgate/health", "/a"], ["/a"],
    ]);
    assert.ok([first, second, third].every(({ answer }) => answer.headers[MARK] === undefined));
    const last = await get();
    assert.deepEqual([last.answer.status, last.seen.length], [200, 1]);
  });
});
