// Keys in the query, where ALLOW_QUERY_KEY=true.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { assertRefused, issueKey, send } from "./lib/client.mjs";

let origin;
let gate;
let key;

before(async () => {
  origin = await startOrigin();
  gate = await startGate({ origin: origin.url, vars: { ALLOW_QUERY_KEY: "true" } });
  key = await issueKey(gate);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

/**
 * Sends a GET with the key in place of `<key>` in the query. Returns the response and the paths that
 * the origin received.
 */
async function getQuery(target, headers = {}) {
  origin.reset();
  const answer = await send(gate, target.replaceAll("<key>", key.key), { headers });
  return { answer, seen: origin.requests().map(({ path }) => path) };
}

const STRIPPED = {
  "/a?api_key=<key>": "/a",
  "/a?api_key=<key>&x=1": "/a?x=1",
  "/a?x=1&api_key=<key>": "/a?x=1",
  "/a?x=%20+%2f&api_key=<key>&&y==&z": "/a?x=%20+%2f&&y==&z",
  "/a?api%5fkey=<key>&x": "/a?x",
  "/a?%61pi_key=<key>&xapi_key=1&API_KEY=2": "/a?xapi_key=1&API_KEY=2",
};

for (const [target, forwarded] of Object.entries(STRIPPED)) {
  test(`a key in the query is admitted and removed, the rest forwarded byte for byte: ${target}`, async () => {
    const { answer, seen } = await getQuery(target);
    assert.equal(answer.status, 200, String(answer.body));
    assert.deepEqual(seen, [forwarded]);
  });
}

test("a key in the query beside another credential, or twice in the query, is answered 400", async () => {
  for (const [target, headers] of [
    ["/a?api_key=<key>", { "x-api-key": key.key }],
    ["/a?api_key=<key>", { authorization: `Bearer ${key.key}` }],
    ["/a?api_key=<key>&api_key=<key>", {}],
    ["/a?api_key=<key>&api%5Fkey=x", {}],
  ]) {
    const { answer, seen } = await getQuery(target, headers);
    assertRefused(answer, 400);
    assert.deepEqual(seen, []);
  }
});

test("a forged key in the query is answered 401 and never reaches the origin", async () => {
  for (const target of ["/a?api_key=<key>x", "/a?api_key=", "/a?api_key"]) {
    const { answer, seen } = await getQuery(target);
    assertRefused(answer, 401);
    assert.deepEqual(seen, []);
  }
});

test("the log never has a key of a query", async () => {
  await until("the log has the calls", () => /GET \/a/.test(gate.log()));
  assert.ok(!gate.log().includes(key.key));
});
