// What is judged is what is forwarded: raw request targets and hosts, at the gate's own socket.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startOrigin } from "../../scripts/lib/gate.mjs";
import { assertRefused, issueKey, usageOf } from "./lib/client.mjs";
import { PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";
import { exchange, head, request } from "./lib/raw.mjs";

let origin;
let gate;
let key;

before(async () => {
  origin = await startOrigin();
  gate = await startDirectGate({ vars: { ORIGIN: origin.url, PUBLIC_PATHS: "/public,/v1/health" } });
  key = await issueKey(gate);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

async function get(url, { withKey = true, method = "GET", key: presented = key } = {}) {
  origin.reset();
  const headers = ["Host: api.test", ...(withKey ? [`X-API-Key: ${presented.key}`] : [])];
  const answer = await request(gate, `${method} ${url} HTTP/1.1`, headers);
  return { answer, seen: forwarded() };
}

/** The paths that were forwarded, without the probe of a host that may be the gate's own. */
function forwarded() {
  return origin.requests().map(({ path }) => path).filter((path) => path !== "/_tollgate/health");
}

const AS_SENT = [
  "/",
  "/a",
  "/a?",
  "/?",
  "/a/b/?x=1&y=2&x=3",
  "//a",
  "//a//b///",
  "//evil.test/a",
  "/a%2Fb",
  "/a%2fb%2F",
  "/%7euser/%41",
  "/a%20b+c",
  "/a..b/.hidden/...",
  "/a;v=1,2/b:c@d/!$&()*+=~'",
  "/a?next=/../b/%2e%2e/c",
  "/a?url=http://evil.test/%00",
  "/a?&&=&a==b&c",
  "/a?x=%zz%",
  "/a?x=a+b%20c",
  "/_tollgate",
  "/_Tollgate/health",
  "/%5ftollgate/health",
  "/x/_tollgate/keys",
];

for (const target of AS_SENT) {
  test(`an admitted request is forwarded with its path and query as sent: ${target}`, async () => {
    const { answer, seen } = await get(PUBLIC_URL + target);
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(seen, [target]);
  });
}

// The runtime encodes these in the URL of a `fetch` (https://url.spec.whatwg.org/#url-parsing), and
// the gate cannot pass the upstream otherwise. They are equivalent (docs/gateway.md).
test("what the URL standard percent-encodes arrives percent-encoded, everything else byte for byte", async () => {
  const { answer, seen } = await get(`${PUBLIC_URL}/a{b}|c?name=O'Brien&x={|}`);
  assert.equal(answer.status, 200);
  assert.deepEqual(seen, ["/a%7Bb%7D|c?name=O%27Brien&x={|}"]);
});

const AMBIGUOUS = [
  "/..",
  "/.",
  "/a/../b",
  "/a/./b",
  "/a/..",
  "/%2e%2e/b",
  "/a/%2E%2e/b",
  "/a/.%2e/b",
  "/a/%2e/b",
  "/a/..%2fb",
  "/a%2f..%2Fb",
  "/a\\b",
  "\\a",
  "/a\\..\\b",
  "/a%5cb",
  "/a%5C..%5Cb",
  "/a%00",
  "/%00/b",
  "/..;/b",
  "/a/..;x=1/b",
  "/a#b",
  "/a?x#b",
  "/public/../a",
  "/a/../public",
  "/_tollgate/../a",
  "/_tollgate/health/../../a",
  "/a/%252e%252e/b",
  "/a/%25252e./b",
  "/a/..%20/b",
  "/a/..%3fx/b",
  "/a/%u002e%u002e/b",
  "/a/%c0%ae%c0%ae/b",
  "/a%255cb",
  "/a%2500",
];

for (const target of AMBIGUOUS) {
  test(`a path with two readings is refused, with a key or without: ${target}`, async () => {
    for (const withKey of [true, false]) {
      const { answer, seen } = await get(PUBLIC_URL + target, { withKey });
      assertRefused(answer, 400);
      assert.deepEqual(seen, []);
    }
  });
}

// Some origin reads each of these as GET /v1/a/export, which has a price.
const SPELLINGS = [
  "/v1/a/export",
  "//v1/a//export/",
  "/v1/a/%65xport",
  "/v1%2fa%2Fexport",
  "/v1/a/export;x=1",
  "/v1;x/a/;y/export",
  "/v1/a/export;x=%2fy",
  "/v1/a/export%20",
  "/v1/a/+export+",
  "/v1/a/export%0a",
  "/v1/a/export.",
  "/v1/a/%2565xport",
  "/v1/a/%25252565xport",
  "/v1/a%252fexport",
  "/v1/a/%u0065xport",
  "/v1/a/%c1%a5xport",
  "/v1/a/export%3fx",
  "/(S(x))/v1/a/export",
  "/v1/a%2fb/export",
];

describe("a route's price", () => {
  before(() => gate.d1("INSERT INTO route_costs (pattern, method, cost) VALUES ('/v1/*/export', 'GET', 25)"));

  for (const target of SPELLINGS) {
    test(`is charged for every spelling, which is forwarded as sent: ${target}`, async () => {
      for (const method of ["GET", "HEAD"]) {
        const priced = await issueKey(gate, "pro");
        const { answer, seen } = await get(PUBLIC_URL + target, { method, key: priced });
        assert.equal(answer.status, 200, answer.body);
        assert.deepEqual(seen, [target]);
        const { policies, calls } = await usageOf(gate, priced);
        assert.deepEqual([...policies.map(({ used }) => used), calls], [25, 25, 1]);
      }
    });
  }

  test("is not charged for another path or method", async () => {
    const priced = await issueKey(gate, "pro");
    await get(`${PUBLIC_URL}/v1/a/Export`, { key: priced });
    await get(`${PUBLIC_URL}/v1/a/exports`, { key: priced });
    await get(`${PUBLIC_URL}/v1/a/export`, { method: "POST", key: priced });
    assert.deepEqual((await usageOf(gate, priced)).policies.map(({ used }) => used), [3, 3]);
  });
});

test("a public path needs no key, with any query", async () => {
  for (const target of ["/public", "/public?x=/../a", "/v1/health"]) {
    const { answer, seen } = await get(PUBLIC_URL + target, { withKey: false });
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(seen, [target]);
  }
});

const NOT_PUBLIC = [
  "/public/",
  "//public",
  "/Public",
  "/%70ublic",
  "/public%20",
  "/public%2F",
  "/public;x",
  "/public%3Fx",
  "/publicx",
  "/v1%2Fhealth",
  "/v1//health",
  "/a?/public",
  "/?public",
];

for (const target of NOT_PUBLIC) {
  test(`a path that is not exactly a public one needs a key: ${target}`, async () => {
    const { answer, seen } = await get(PUBLIC_URL + target, { withKey: false });
    assertRefused(answer, 401);
    assert.match(answer.headers["www-authenticate"], /^Bearer /);
    assert.deepEqual(seen, []);
  });
}

const NO_URL = [
  "http://user@evil.test/a",
  "http://u:p@evil.test/a",
  "http://api.test, evil.test/a",
  "http:///a",
  "ftp://api.test/a",
  "/a",
  "*",
  "a",
];

for (const url of NO_URL) {
  test(`a target that names no host, or more than one, is refused: ${url}`, async () => {
    for (const withKey of [true, false]) {
      const { answer, seen } = await get(url, { withKey });
      assertRefused(answer, 400);
      assert.deepEqual(seen, []);
    }
  });
}

test("a host that the client chooses changes neither the origin nor whether a key is needed", async () => {
  for (const url of ["http://evil.test/a", "http://evil.test:81/a", `${origin.url}/a`, "http://127.0.0.1:1/a"]) {
    assertRefused((await get(url, { withKey: false })).answer, 401);
    const { answer, seen } = await get(url);
    assert.equal(answer.status, 200);
    assert.deepEqual(seen, ["/a"]);
  }
});

test("a GET with a body or a WebSocket of another method is refused, and one with Content-Length: 0 is not", async () => {
  const before = (await usageOf(gate, key)).calls;
  const exact = (method, lines, body = "") =>
    exchange(gate, head(`${method} ${PUBLIC_URL}/a HTTP/1.1`, ["Host: api.test", `X-API-Key: ${key.key}`, ...lines, "Connection: close"]) + body);
  origin.reset();
  for (const method of ["GET", "HEAD"]) {
    assert.equal((await exact(method, ["Content-Length: 5"], "hello")).status, 400);
    assert.equal((await exact(method, ["Transfer-Encoding: chunked"], "0\r\n\r\n")).status, 400);
    assert.equal((await exact(method, ["Content-Length: 0"])).status, 200);
  }
  for (const method of ["POST", "HEAD", "OPTIONS"]) {
    assert.equal((await exact(method, ["Upgrade: websocket", "Content-Length: 0"])).status, 400);
  }
  assert.deepEqual(origin.requests().map(({ method }) => method), ["GET", "HEAD"]);
  assert.equal((await usageOf(gate, key)).calls, before + 2);
});

test("a call that is refused before it is judged counts nothing", async () => {
  const before = (await usageOf(gate, key)).calls;
  for (const target of ["/a/../b", "/a%00", "/a#b"]) assertRefused((await get(PUBLIC_URL + target)).answer, 400);
  assert.equal((await usageOf(gate, key)).calls, before);
  await get(`${PUBLIC_URL}/a`);
  assert.equal((await usageOf(gate, key)).calls, before + 1);
});

describe("ORIGIN empty", () => {
  let route;
  let routeKey;

  before(async () => {
    route = await startDirectGate({ vars: { ORIGIN: "" } });
    routeKey = await issueKey(route);
  });

  after(() => route?.stop());

  test("an admitted request goes to its own URL, byte for byte", async () => {
    for (const target of [...AS_SENT, "/a?name=O'Brien", "/{a}|b^?q=\"<>`{}'"]) {
      origin.reset();
      const lines = [`Host: ${new URL(origin.url).host}`, `X-API-Key: ${routeKey.key}`];
      const answer = await request(route, `GET ${origin.url}${target} HTTP/1.1`, lines);
      assert.equal(answer.status, 200, answer.body);
      assert.deepEqual(forwarded(), [target]);
    }
  });
});
