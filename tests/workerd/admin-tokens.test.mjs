// Named admin tokens: their scopes, and protection against guessing.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { databaseText, listenToD1, sql, takeAway } from "./lib/database.mjs";
import { admin, issue, problem, send, wait } from "./lib/gate.mjs";
import { NOON } from "./lib/setup.mjs";

let names = 0;

const randomText = (length) => [...crypto.getRandomValues(new Uint8Array(length))].map((n) => "abcdefghijklmnopqrstuvwxyz234567"[n % 32]).join("");

async function createToken(...scopes) {
  const response = await admin("POST", "/tokens", { name: `token ${(names += 1)}`, scopes });
  expect(response.status).toBe(201);
  return response.json();
}

/** Creates a token as another isolate does. */
async function createElsewhere() {
  const id = randomText(16);
  const token = `tga_${id}_${randomText(32)}`;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`tollgate admin token v1\0${token}`));
  const hash = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  await sql("INSERT INTO admin_tokens (id, name, scopes, secret_hash, created_at) VALUES (?, ?, ?, ?, ?)", id, id, '["read"]', hash, NOON);
  return { id, token };
}

const as = (token, method, path, body) => admin(method, path, body, { Authorization: `Bearer ${token.token ?? token}` });

describe("POST /_tollgate/tokens", () => {
  test("answers 201 with the token, which appears only here and is stored nowhere", async () => {
    const response = await admin("POST", "/tokens", { name: "ci", scopes: ["write", "read", "read"] });
    expect(response.status).toBe(201);
    const token = await response.json();
    expect(token).toEqual({
      id: expect.stringMatching(/^[a-z2-7]{16}$/),
      token: expect.stringMatching(/^tga_[a-z2-7]{16}_[a-z2-7]{32}$/),
      name: "ci",
      scopes: ["read", "write"],
      hint: token.token.slice(-4),
      created_at: "2031-03-12T12:00:00Z",
    });
    const { tokens } = await (await admin("GET", "/tokens")).json();
    const { token: text, ...rest } = token;
    expect(tokens).toContainEqual(rest);
    expect(await databaseText()).not.toContain(text.split("_")[2]);
    await problem(await admin("POST", "/tokens", { name: "ci", scopes: ["read"] }), 409);
  });

  test.each([
    ["no JSON", "x", 400, undefined],
    ["no name", { scopes: ["read"] }, 422, "name"],
    ["an empty name", { name: "", scopes: ["read"] }, 422, "name"],
    ["the name of the root", { name: "root", scopes: ["read"] }, 422, "name"],
    ["a name that is too long", { name: "x".repeat(101), scopes: ["read"] }, 422, "name"],
    ["no scopes", { name: "n" }, 422, "scopes"],
    ["an empty list of scopes", { name: "n", scopes: [] }, 422, "scopes"],
    ["a scope that there is not", { name: "n", scopes: ["read", "admin"] }, 422, "scopes[1]"],
    ["an unknown field", { name: "n", scopes: ["read"], until: 1 }, 422, "until"],
  ])("makes none from %s", async (_what, body, status, field) => {
    expect((await problem(await admin("POST", "/tokens", body), status)).field).toBe(field);
  });
});

test("lists are pages by name", async () => {
  for (const name of ["zz b", "zz a", "zz c"]) await admin("POST", "/tokens", { name, scopes: ["read"] });
  const all = [];
  let cursor = "";
  do {
    const { tokens, next_cursor } = await (await admin("GET", `/tokens?limit=2&cursor=${cursor}`)).json();
    all.push(...tokens.map(({ name }) => name));
    cursor = next_cursor;
  } while (cursor !== null);
  expect(all.filter((name) => name.startsWith("zz"))).toEqual(["zz a", "zz b", "zz c"]);
  await problem(await admin("GET", "/tokens?cursor=x"), 400);
});

describe("a token", () => {
  test("with the scope read reads everything but tokens, and changes nothing", async () => {
    const token = await createToken("read");
    const key = await issue();
    for (const path of ["/keys", `/keys/${key.id}`, `/keys/${key.id}/usage`, `/keys/${key.id}/overrides`, "/tiers", "/tiers/free", "/log"]) {
      expect((await as(token, "GET", path)).status).toBe(200);
    }
    for (const [method, path, body] of [
      ["POST", "/keys", { tier: "free" }],
      ["PATCH", `/keys/${key.id}`, { name: "x" }],
      ["DELETE", `/keys/${key.id}`],
      ["POST", `/keys/${key.id}/rotate`, { grace_seconds: 0 }],
      ["POST", `/keys/${key.id}/revoke`],
      ["PUT", `/keys/${key.id}/overrides/minute`, { quota: 1, period: "minute" }],
      ["DELETE", `/keys/${key.id}/overrides/minute`],
      ["PUT", "/tiers/free", { policies: [] }],
      ["DELETE", "/tiers/unlimited"],
      ["GET", "/tokens"],
      ["POST", "/tokens", { name: "more", scopes: ["write"] }],
      ["DELETE", `/tokens/${token.id}`],
    ]) {
      await problem(await as(token, method, path, body), 403);
    }
    expect(await (await admin("GET", `/keys/${key.id}`)).json()).toMatchObject({ name: "a test", status: "active" });
  });

  test("with the scope write changes and reads everything but tokens", async () => {
    const token = await createToken("write");
    const created = await as(token, "POST", "/keys", { tier: "free" });
    expect(created.status).toBe(201);
    const { id } = await created.json();
    expect((await as(token, "GET", `/keys/${id}`)).status).toBe(200);
    expect((await as(token, "PATCH", `/keys/${id}`, { name: "x" })).status).toBe(200);
    for (const [method, path] of [["GET", "/tokens"], ["DELETE", `/tokens/${token.id}`]]) {
      await problem(await as(token, method, path), 403);
    }
  });

  test("that is deleted is 401 at once", async () => {
    const token = await createToken("read");
    expect((await as(token, "GET", "/log")).status).toBe(200);
    expect((await admin("DELETE", `/tokens/${token.id}`)).status).toBe(204);
    await problem(await as(token, "GET", "/log"), 401);
    await problem(await admin("DELETE", `/tokens/${token.id}`), 404);
    await problem(await admin("DELETE", "/tokens/NOT-AN-ID"), 404);
  });

  test("with another secret, or none, is 401", async () => {
    const token = await createToken("read");
    const other = `${token.token.slice(0, -1)}${token.token.endsWith("a") ? "b" : "a"}`;
    const wrong = await problem(await as("wrong", "GET", "/log"), 401);
    for (const text of [other, `tga_${token.id}_`, `tga_${token.id}`, token.token.toUpperCase(), "tga_aaaaaaaaaaaaaaaa_" + "a".repeat(32)]) {
      expect(await problem(await as(text, "GET", "/log"), 401)).toEqual(wrong);
    }
  });
});

describe("attempts with tokens that may be invalid", () => {
  const from = (address, token) =>
    send("/_tollgate/tiers", { headers: { Authorization: `Bearer ${token}`, "CF-Connecting-IP": address } });
  const guess = () => `tga_${randomText(16)}_${randomText(32)}`;
  const statuses = async (requests) => (await Promise.all(requests)).map(({ status }) => status);
  const counts = (all) => Object.fromEntries([...new Set(all)].sort().map((one) => [one, all.filter((other) => other === one).length]));
  const shut = async (address) => {
    for (let n = 0; n < 10; n += 1) await problem(await from(address, `wrong-${n}`), 401);
    await problem(await from(address, "wrong"), 429);
  };

  test("are 10 a minute from one address, in any form, and other addresses are not affected", async () => {
    const address = "192.0.2.7";
    for (let n = 0; n < 10; n += 1) {
      await problem(await from(address, n % 2 === 0 ? `wrong-${n}` : guess()), 401);
      wait(1);
    }
    for (const token of ["wrong", guess()]) {
      const response = await from(address, token);
      expect(response.headers.get("retry-after")).toBe("50");
      await problem(response, 429);
    }
    await problem(await from("192.0.2.8", "wrong"), 401);
    wait(50);
    await problem(await from(address, "wrong"), 401);
  });

  test("never refuse ADMIN_TOKEN, which needs no lookup", async () => {
    await shut("192.0.2.10");
    const asked = listenToD1();
    expect((await from("192.0.2.10", env.ADMIN_TOKEN)).status).toBe(200);
    expect(asked.filter((sql) => sql.includes("admin_tokens"))).toEqual([]);
  });

  test("are counted before D1 is read: of 60 at once 10 are judged", async () => {
    const asked = listenToD1();
    const all = await statuses(Array.from({ length: 60 }, () => from("192.0.2.11", guess())));
    expect(counts(all)).toEqual({ 401: 10, 429: 50 });
    // One more query, for the list of tokens.
    expect(asked.length).toBeLessThanOrEqual(11);
    const later = await statuses(Array.from({ length: 60 }, () => from("192.0.2.11", guess())));
    expect(counts(later)).toEqual({ 429: 60 });
    expect(asked.length).toBeLessThanOrEqual(11);
  });

  test("are 50 a minute from one /48, 10 from one /64", async () => {
    const addresses = Array.from({ length: 50 }, (_, n) => `2001:db8:7:${n}::${n}`);
    expect(counts(await statuses(addresses.map((address) => from(address, "wrong"))))).toEqual({ 401: 50 });
    await problem(await from("2001:db8:7:ff::1", "wrong"), 429);
    await problem(await from("2001:db8:8::1", "wrong"), 401);
    for (let n = 0; n < 9; n += 1) await problem(await from(`2001:db8:8::${n}:1`, "wrong"), 401);
    await problem(await from("2001:db8:8::ffff:1", "wrong"), 429);
    await problem(await from("2001:db8:8:1::1", "wrong"), 401);
  });

  test("from an IPv4-mapped IPv6 address count as those of the IPv4 address", async () => {
    await shut("::ffff:192.0.2.12");
    await problem(await from("192.0.2.12", "wrong"), 429);
    await problem(await from("::ffff:192.0.2.13", "wrong"), 401);
  });

  test("without an address share one budget of 100", async () => {
    wait(60);
    const all = await statuses(Array.from({ length: 120 }, () => send("/_tollgate/tiers", { headers: { Authorization: "Bearer wrong" } })));
    expect(counts(all)).toEqual({ 401: 100, 429: 20 });
    wait(60);
  });

  test("are not counted when the token is valid", async () => {
    const token = await createToken("read");
    for (let n = 0; n < 9; n += 1) await problem(await from("192.0.2.14", guess()), 401);
    const all = [...Array(5).fill(token.token), guess(), ...Array(3).fill(token.token)];
    for (const one of all) expect((await from("192.0.2.14", one)).status).toBe(one === token.token ? 200 : 401);
    await problem(await from("192.0.2.14", guess()), 429);
  });

  test("are not counted when D1 is down", async () => {
    const giveBack = await takeAway("admin_tokens");
    for (let n = 0; n < 15; n += 1) await problem(await from("192.0.2.15", guess()), 503);
    await giveBack();
    await problem(await from("192.0.2.15", guess()), 401);
  });

  test("by another client do not block a valid named token, created by any isolate", async () => {
    // Allows the tokens to be read again.
    wait(120);
    await shut("192.0.2.16");
    const [own, other] = [await createToken("read"), await createElsewhere()];
    for (const token of [own, other, own, other]) expect((await from("192.0.2.16", token.token)).status).toBe(200);
    await problem(await from("192.0.2.16", guess()), 429);
    // Tokens are checked against D1, so a deletion takes effect at once.
    for (const token of [own, other]) {
      expect((await admin("DELETE", `/tokens/${token.id}`)).status).toBe(204);
      const asked = listenToD1();
      await problem(await from("192.0.2.16", token.token), 401);
      await problem(await from("192.0.2.16", token.token), 429);
      expect(asked).toHaveLength(1);
    }
    // A token that another isolate creates after that is unknown until the tokens are read again.
    const late = await createElsewhere();
    await problem(await from("192.0.2.16", late.token), 429);
    wait(59);
    await shut("192.0.2.17");
    await problem(await from("192.0.2.17", late.token), 429);
    wait(1);
    expect((await from("192.0.2.17", late.token)).status).toBe(200);
  });

  test("with one valid token at once are all admitted, in an isolate without it in its cache", async () => {
    wait(300);
    const token = await createElsewhere();
    expect(counts(await statuses(Array.from({ length: 60 }, () => from("192.0.2.18", token.token))))).toEqual({ 200: 60 });
  });

  test("need a token", async () => {
    for (let n = 0; n < 12; n += 1) {
      await problem(await send("/_tollgate/tiers", { headers: { "CF-Connecting-IP": "192.0.2.9" } }), 401);
    }
    await problem(await from("192.0.2.9", "wrong"), 401);
  });
});
