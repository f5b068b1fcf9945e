// Credentials and headers, line by line over raw sockets.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { assertRefused, issueKey, linesOf, usageOf } from "./lib/client.mjs";
import { exchange, head, request } from "./lib/raw.mjs";

let origin;
let gate;
let key;
let other;

before(async () => {
  origin = await startOrigin();
  gate = await startGate({ origin: origin.url, vars: { PUBLIC_PATHS: "/public" } });
  [key, other] = await Promise.all([issueKey(gate, "pro"), issueKey(gate, "pro")]);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

const HOST = "Host: api.test";

/**
 * Sends a GET with these header lines: `{ answer, seen }`, where `seen` is what the origin received.
 */
async function get(target, lines, method = "GET") {
  origin.reset();
  const answer = await request(gate, `${method} ${target} HTTP/1.1`, [HOST, ...lines]);
  return { answer, seen: origin.requests() };
}

function bearer({ key }) {
  return `Authorization: Bearer ${key}`;
}

/** The key with its last character changed. */
function mistyped({ key }) {
  return key.slice(0, -1) + (key.endsWith("a") ? "b" : "a");
}

/** The id of one key with the secret of another. */
function crossed() {
  return key.key.slice(0, 19) + other.key.slice(19);
}

const TWICE = {
  "X-API-Key twice, the same": () => [`X-API-Key: ${key.key}`, `X-API-Key: ${key.key}`],
  "X-API-Key twice, two keys": () => [`X-API-Key: ${key.key}`, `x-api-key: ${other.key}`],
  "X-API-Key twice, one forged": () => ["X-API-Key: x", `X-API-Key: ${key.key}`],
  "X-API-Key twice, one empty": () => ["X-API-Key:", `X-API-Key: ${key.key}`],
  "X-API-Key with a list": () => [`X-API-Key: ${key.key}, ${other.key}`],
  "Authorization: Bearer twice, the same": () => [bearer(key), bearer(key)],
  "Authorization: Bearer twice, two keys": () => [bearer(key), `authorization: bearer ${other.key}`],
  "Authorization: Basic and Bearer": () => ["Authorization: Basic dTpw", bearer(key)],
  "X-API-Key and Authorization: Bearer, the same": () => [`X-API-Key: ${key.key}`, bearer(key)],
  "X-API-Key and Authorization: Bearer, two keys": () => [bearer(other), `X-API-Key: ${key.key}`],
};

for (const [name, lines] of Object.entries(TWICE)) {
  test(`two credentials, or a repeated credential header, are answered 400: ${name}`, async () => {
    const { answer, seen } = await get("/a", lines());
    assertRefused(answer, 400);
    assert.deepEqual(seen, []);
  });
}

const NONE_OR_WRONG = {
  "none at all": () => [],
  "the underscore spelling alone": () => [`X_API_Key: ${key.key}`],
  "an empty key": () => ["X-API-Key:"],
  "a key with one character changed": () => [`X-API-Key: ${mistyped(key)}`],
  "a key cut short": () => [`X-API-Key: ${key.key.slice(0, -1)}`],
  "one key's id with another's secret": () => [`X-API-Key: ${crossed()}`],
  "a key in a query, which is off by default": () => [],
};

for (const [name, lines] of Object.entries(NONE_OR_WRONG)) {
  test(`a missing, malformed or forged key is answered 401 and never reaches the origin: ${name}`, async () => {
    const { answer, seen } = await get(name.includes("query") ? `/a?api_key=${key.key}` : "/a", lines());
    assertRefused(answer, 401);
    assert.ok(answer.headers["www-authenticate"]);
    assert.deepEqual(seen, []);
  });
}

test("malformed and forged keys are answered with one and the same body", async () => {
  const bodies = new Set();
  for (const value of ["", "x", key.key.slice(0, -1), mistyped(key), crossed()]) {
    bodies.add((await get("/a", [`X-API-Key: ${value}`])).answer.body);
  }
  assert.equal(bodies.size, 1);
});

test("the key is never forwarded: not in X-API-Key, in its underscore spelling, nor in Authorization", async () => {
  for (const lines of [
    [`X-API-Key: ${key.key}`, `x_api_key: ${key.key}`, `X_API_KEY: ${other.key}`, `X_Api-Key: ${key.key}`],
    [`Authorization: Bearer ${key.key}`, `X_API_Key: ${key.key}`],
  ]) {
    const { answer, seen } = await get("/a", lines);
    assert.equal(answer.status, 200, answer.body);
    const [{ raw_headers }] = seen;
    assert.deepEqual(linesOf(raw_headers, /api[-_]key|authorization/i), []);
    assert.ok(!raw_headers.join("\n").includes(key.key));
    assert.ok(!raw_headers.join("\n").includes(other.key));
  }
});

test("a key that is also in the query is not forwarded there", async () => {
  for (const line of [`X-API-Key: ${key.key}`, bearer(key)]) {
    const { answer, seen } = await get(`/a?x=1&api_key=${key.key}&api%5fkey=${key.key}&y`, [line]);
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(seen.map(({ path }) => path), ["/a?x=1&y"]);
  }
});

test("a key on a public path is not forwarded either", async () => {
  for (const line of [`X-API-Key: ${key.key}`, `Authorization: Bearer ${key.key}`]) {
    const { answer, seen } = await get("/public", [line]);
    assert.equal(answer.status, 200);
    assert.ok(!seen[0].raw_headers.join("\n").includes(key.key));
  }
});

test("a key that is also in Authorization is not forwarded there, under any scheme", async () => {
  for (const line of [`Authorization: Token ${key.key}`, `Authorization: ${other.key}`, `Authorization: ApiKey\t${key.key}`]) {
    const { answer, seen } = await get("/a", [`X-API-Key: ${key.key}`, line]);
    assert.equal(answer.status, 200, answer.body);
    assert.ok(!/authorization/i.test(seen[0].raw_headers.join("\n")));
  }
  const tabbed = await get("/a", [`X-API-Key: ${key.key}`, `Authorization: Bearer\t${key.key}`]);
  assertRefused(tabbed.answer, 400);
  assert.deepEqual(tabbed.seen, []);
});

test("ADMIN_TOKEN never reaches the origin: not on a public path, beside a key, or in a preflight", async () => {
  const token = `Authorization: Bearer ${gate.adminToken}`;
  const preflight = ["Origin: https://app.test", "Access-Control-Request-Method: GET"];
  const answers = [
    await get("/public", [token]),
    await get(`/public?token=${gate.adminToken}`, []),
    await get("/a", [`X-API-Key: ${key.key}`, token.replace("Bearer", "Token")]),
    await get("/a", [...preflight, token], "OPTIONS"),
  ];
  for (const { answer, seen } of answers) {
    assert.equal(answer.status, 200, answer.body);
    assert.ok(!JSON.stringify(seen).includes(gate.adminToken));
  }
});

test("a preflight is forwarded without body, cookies and other fields, and what only resembles one needs a key", async () => {
  const lines = [
    HOST, "Origin: https://app.test", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-a,x-b",
    "User-Agent: test/1", "Cookie: a=1", "X-HTTP-Method-Override: DELETE", "Content-Type: text/plain", "Content-Length: 5",
  ];
  const exact = (lines) => exchange(gate, head("OPTIONS /a?x=%20 HTTP/1.1", [...lines, "Connection: close"]) + "hello");
  origin.reset();
  assert.equal((await exact(lines)).status, 200);
  const [{ path, raw_headers, body_bytes }] = origin.requests();
  assert.deepEqual([path, body_bytes], ["/a?x=%20", 0]);
  // The others are added by the runtime.
  const passed = linesOf(raw_headers, /^(?!host$|connection$|content-length$|cf-worker$)/i).map((line) => line.toLowerCase()).sort();
  assert.deepEqual(passed, [
    "access-control-request-headers: x-a,x-b", "access-control-request-method: post", "origin: https://app.test", "user-agent: test/1",
  ]);
  origin.reset();
  for (const more of ["Access-Control-Request-Method: PUT", "Origin: https://other.test"]) {
    assertRefused(await exact([...lines, more]), 401);
  }
  assert.equal(origin.count(), 0);
});

test("a GET or HEAD with a body is answered 400 and not charged, however the body is announced", async () => {
  const { calls } = await usageOf(gate, key);
  for (const method of ["GET", "HEAD"]) {
    for (const [target, ...more] of [
      ["/a", "Content-Length: 5", "hello"], ["/a", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"], ["/public", "Content-Length: 5", "hello"],
    ]) {
      origin.reset();
      const text = head(`${method} ${target} HTTP/1.1`, [HOST, `X-API-Key: ${key.key}`, more[0], "Connection: close"]) + more[1];
      const answer = await exchange(gate, text);
      assert.equal(answer.status, 400);
      if (method === "GET") assert.match(JSON.parse(answer.body).detail, /body/);
      assert.equal(origin.count(), 0);
    }
    const { answer, seen } = await get("/a", [`X-API-Key: ${key.key}`, "Content-Length: 0"], method);
    assert.deepEqual([answer.status, seen.length], [200, 1]);
  }
  assert.equal((await usageOf(gate, key)).calls, calls + 2);
});

test("an Authorization of another scheme reaches the origin", async () => {
  const { answer, seen } = await get("/a", [`X-API-Key: ${key.key}`, "Authorization: Basic dTpw"]);
  assert.equal(answer.status, 200);
  assert.deepEqual(linesOf(seen[0].raw_headers, /^authorization$/i), ["Authorization: Basic dTpw"]);
});

test("X-Tollgate-Key-Id and X-Tollgate-Tier are set, and those of clients are dropped in every spelling", async () => {
  const forged = [
    "X-Tollgate-Key-Id", "X_Tollgate_Key_Id", "x-tollgate-tier", "X_TOLLGATE_TIER", "X_Tollgate-Tier",
    "X-Tollgate-Fail-Open", "X.Tollgate.Key.Id", "X~Tollgate~Tier", "X-Tollgate",
  ];
  const { answer, seen } = await get("/a", [`X-API-Key: ${key.key}`, ...forged.map((name) => `${name}: forged`)]);
  assert.equal(answer.status, 200);
  const set = linesOf(seen[0].raw_headers, /tollgate/i).sort();
  assert.deepEqual(set, [`X-Tollgate-Key-Id: ${key.id}`, "X-Tollgate-Tier: pro"]);
  const unkeyed = await get("/public", forged.map((name) => `${name}: forged`));
  assert.deepEqual(linesOf(unkeyed.seen[0].raw_headers, /tollgate/i), []);
});

for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]) {
  test(`an admitted request is forwarded with its method: ${method}`, async () => {
    const { answer, seen } = await get("/a", [`X-API-Key: ${key.key}`], method);
    assert.equal(answer.status, 200);
    assert.deepEqual(seen.map(({ method, path }) => `${method} ${path}`), [`${method} /a`]);
  });
}

test("an admitted request is forwarded with its headers", async () => {
  const lines = [
    "X-Custom: A",
    "X-Custom: B",
    "x-MiXed: Case; q=\"1, 2\"",
    "X-Empty:",
    "X-Latin: caf\u00e9",
    "User-Agent: test/1",
    "Accept: text/x;q=0.1, */*",
    "If-None-Match: \"abc\"",
    "Range: bytes=0-1",
    "Cookie: a=1; b=2",
    "Referer: http://else.test/",
    "Cache-Control: max-age=5",
  ];
  const { answer, seen } = await get("/a", [`X-API-Key: ${key.key}`, ...lines]);
  assert.equal(answer.status, 200);
  const received = linesOf(seen[0].raw_headers, /./).map((line) => line.toLowerCase().trimEnd());
  for (const line of lines) {
    assert.ok(received.includes(line.toLowerCase()), `${line} is not among ${received.join(" | ")}`);
  }
});

const ODD_HOSTS = {
  "two Host headers": [HOST, "Host: evil.test"],
  "user information in Host": ["Host: user@evil.test"],
  "a path in Host": ["Host: evil.test/public?"],
  "no Host": [],
  "an empty Host": ["Host:"],
};

for (const [name, lines] of Object.entries(ODD_HOSTS)) {
  test(`a request with an odd host never reaches the origin: ${name}`, async () => {
    for (const more of [[], [`X-API-Key: ${key.key}`]]) {
      origin.reset();
      const answer = await request(gate, "GET /a HTTP/1.1", [...lines, ...more]);
      assert.ok(answer.status >= 400, `${answer.status}`);
      assert.equal(origin.count(), 0);
    }
  });
}

test("a target in absolute form never reaches the origin without a key", async () => {
  for (const target of ["http://evil.test/a", "http://evil.test/public/../a", "//evil.test/a"]) {
    const { answer, seen } = await get(target, []);
    assert.ok(answer.status >= 400);
    assert.deepEqual(seen, []);
  }
});

test("dot segments, backslashes and NULs never slip past the check of public paths", async () => {
  const targets = [
    "/public/../a", "/public/%2e%2e/a", "/public\\..\\a", "/public/..%2fa", "/public%00", "/public/./", "/./public/",
    "/public%2f..%2fa", "/public;/../a",
  ];
  for (const target of targets) {
    const { answer, seen } = await get(target, []);
    assert.ok(answer.status === 400 || answer.status === 401, `${target}: ${answer.status}`);
    assert.deepEqual(seen, []);
  }
});

test("a body with two contradictory lengths never reaches the origin as two requests", async () => {
  const before = (await usageOf(gate, key)).calls;
  for (const lines of [
    ["Content-Length: 5", "Transfer-Encoding: chunked"],
    ["Content-Length: 5", "Content-Length: 6"],
  ]) {
    origin.reset();
    const smuggled = `0\r\n\r\nGET /smuggled HTTP/1.1\r\n${HOST}\r\n\r\n`;
    const text = head("POST /a HTTP/1.1", [HOST, `X-API-Key: ${key.key}`, ...lines]) + smuggled;
    await exchange(gate, text).catch(() => {});
    assert.ok(origin.requests().every(({ path }) => path === "/a"));
    assert.ok(origin.count() <= 1);
  }
  assert.ok((await usageOf(gate, key)).calls <= before + 2);
});
