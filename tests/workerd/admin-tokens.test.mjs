// Named admin tokens: what each may do, and what guessing one leads to.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { databaseText } from "./lib/database.mjs";
import { admin, issue, problem, send, wait } from "./lib/gate.mjs";

let names = 0;

async function createToken(...scopes) {
  const response = await admin("POST", "/tokens", { name: `token ${(names += 1)}`, scopes });
  expect(response.status).toBe(201);
  return response.json();
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
  test("that may read reads everything but tokens, and changes nothing", async () => {
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

  test("that may write changes and reads everything but tokens", async () => {
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

  test("with another secret, or none, is 401 like any wrong one", async () => {
    const token = await createToken("read");
    const other = `${token.token.slice(0, -1)}${token.token.endsWith("a") ? "b" : "a"}`;
    const wrong = await problem(await as("wrong", "GET", "/log"), 401);
    for (const text of [other, `tga_${token.id}_`, `tga_${token.id}`, token.token.toUpperCase(), "tga_aaaaaaaaaaaaaaaa_" + "a".repeat(32)]) {
      expect(await problem(await as(text, "GET", "/log"), 401)).toEqual(wrong);
    }
  });
});

describe("after 10 wrong tokens in a minute from one address", () => {
  const from = (address, token) =>
    send("/_tollgate/tiers", { headers: { Authorization: `Bearer ${token}`, "CF-Connecting-IP": address } });

  test("every token from there is 429 until the minute is over, and others are not touched", async () => {
    const address = "192.0.2.7";
    for (let n = 0; n < 10; n += 1) {
      await problem(await from(address, `wrong-${n}`), 401);
      wait(1);
    }
    for (const token of ["wrong", env.ADMIN_TOKEN]) {
      const response = await from(address, token);
      expect(response.headers.get("retry-after")).toBe("50");
      await problem(response, 429);
    }
    expect((await from("192.0.2.8", env.ADMIN_TOKEN)).status).toBe(200);
    wait(50);
    expect((await from(address, env.ADMIN_TOKEN)).status).toBe(200);
  });

  test("requests without a token are no attempts", async () => {
    for (let n = 0; n < 12; n += 1) {
      await problem(await send("/_tollgate/tiers", { headers: { "CF-Connecting-IP": "192.0.2.9" } }), 401);
    }
    expect((await from("192.0.2.9", env.ADMIN_TOKEN)).status).toBe(200);
  });
});
