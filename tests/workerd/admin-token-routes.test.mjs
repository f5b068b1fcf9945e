// Token routes through the admin API.
import { beforeEach, describe, expect, test } from "vitest";
import { sql } from "./lib/database.mjs";
import { admin, problem } from "./lib/gate.mjs";

beforeEach(() => sql("DELETE FROM token_routes"));

const ROW = { pattern: "/v1/chat/*", method: "*", format: "openai", default_output: 100, max_output: 4096, bytes_per_token: 1, max_input: null };

const put = (fields) => admin("PUT", "/token-routes", { ...ROW, ...fields });
const remove = (pattern, method) =>
  admin("DELETE", `/token-routes?${new URLSearchParams({ pattern, ...(method && { method }) })}`);

async function list(query = "") {
  const response = await admin("GET", `/token-routes${query}`);
  expect(response.status).toBe(200);
  return response.json();
}

const logged = async () => (await (await admin("GET", "/log?target=token-routes")).json()).entries;

describe("PUT", () => {
  test("adds a row with 201 and replaces all of it with 200; pattern and method say which", async () => {
    const short = { pattern: "/v1/chat/*", format: "openai", default_output: 100, max_output: 4096 };
    const whole = { ...ROW, method: "POST", format: "gemini", default_output: 0, max_output: 0, bytes_per_token: 3, max_input: 9 };
    const answers = [await admin("PUT", "/token-routes", short), await put(whole), await put({ method: "POST" })];
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 200]);
    expect(await Promise.all(answers.map((answer) => answer.json()))).toEqual([ROW, whole, { ...ROW, method: "POST" }]);
    expect(await list()).toEqual({ token_routes: [ROW, { ...ROW, method: "POST" }], next_cursor: null });
  });

  test.each([
    ["no JSON", "{", 400, undefined],
    ["no pattern", { format: "openai", default_output: 1, max_output: 1 }, 422, "pattern"],
    ["a pattern that is no path", { ...ROW, pattern: "x" }, 422, "pattern"],
    ["a method in small letters", { ...ROW, method: "get" }, 422, "method"],
    ["an unknown format", { ...ROW, format: "grpc" }, 422, "format"],
    ["no format", { ...ROW, format: undefined }, 422, "format"],
    ["no default_output", { ...ROW, default_output: undefined }, 422, "default_output"],
    ["a default_output above max_output", { ...ROW, default_output: 4097 }, 422, "default_output"],
    ["a max_output that no quota has", { ...ROW, max_output: 1_000_000_001 }, 422, "max_output"],
    ["a bytes_per_token of 0", { ...ROW, bytes_per_token: 0 }, 422, "bytes_per_token"],
    ["a bytes_per_token of 0.5", { ...ROW, bytes_per_token: 0.5 }, 422, "bytes_per_token"],
    ["a max_input of 0", { ...ROW, max_input: 0 }, 422, "max_input"],
    ["an unknown field", { ...ROW, price: 2 }, 422, "price"],
  ])("makes no row from %s", async (_what, body, status, field) => {
    const before = await logged();
    expect((await problem(await admin("PUT", "/token-routes", body), status)).field).toBe(field);
    expect(await list()).toMatchObject({ token_routes: [] });
    expect(await logged()).toEqual(before);
  });

  test("takes what the schema takes", async () => {
    for (const fields of [
      { pattern: "/", default_output: 0, max_output: 0 },
      { pattern: `/${"x".repeat(511)}`, method: "PROPFIND", default_output: 1_000_000_000, max_output: 1_000_000_000 },
      { pattern: "/ä/%2f?", format: "header", bytes_per_token: 10_000, max_input: 1_000_000_000 },
      { pattern: "/b", format: "anthropic", max_input: 1 },
    ]) {
      expect((await put(fields)).status).toBe(201);
    }
  });

  test("adds no 501st row, and still replaces the others", async () => {
    const rows = Array.from({ length: 500 }, (_, n) => `/row-${n}`);
    await sql("INSERT INTO token_routes (pattern, format, default_output, max_output) SELECT value, 'openai', 1, 2 FROM json_each(?)", JSON.stringify(rows));
    expect((await problem(await put({}), 409)).detail).toMatch(/at most 500/);
    expect((await put({ pattern: "/row-7" })).status).toBe(200);
    expect((await remove("/row-8")).status).toBe(204);
    expect((await put({})).status).toBe(201);
  });
});

test("GET lists all rows, those made by hand too, by pattern and method, in pages", async () => {
  await sql("INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('/b', 'POST', 'openai', 1, 2), ('/b', 'GET', 'gemini', 1, 2), ('/a', '*', 'header', 1, 2)");
  const all = [];
  let cursor = "";
  do {
    const page = await list(`?limit=1&cursor=${cursor}`);
    all.push(...page.token_routes.map(({ pattern, method, format }) => `${method} ${pattern} ${format}`));
    cursor = page.next_cursor;
  } while (cursor !== null);
  expect(all).toEqual(["* /a header", "GET /b gemini", "POST /b openai"]);
  await problem(await admin("GET", "/token-routes?cursor=abc"), 400);
  const costs = await (await admin("GET", "/route-costs?limit=1")).json();
  expect(costs).toMatchObject({ route_costs: [] });
});

test("DELETE removes one row with 204, is 404 for one that there is not, and needs a pattern", async () => {
  for (const method of ["*", "GET"]) await put({ method });
  expect((await remove(ROW.pattern, "GET")).status).toBe(204);
  expect(await list()).toMatchObject({ token_routes: [{ method: "*" }] });
  await problem(await remove(ROW.pattern, "GET"), 404);
  expect((await remove(ROW.pattern)).status).toBe(204);
  expect(await list()).toMatchObject({ token_routes: [] });
  await problem(await admin("DELETE", "/token-routes"), 400);
});

test("every change is logged, with what was before and after", async () => {
  await put({ pattern: "/logged" });
  await put({ pattern: "/logged", max_output: 9_000 });
  await remove("/logged");
  const row = { ...ROW, pattern: "/logged" };
  const more = { ...row, max_output: 9_000 };
  const entry = (action, before, after) => expect.objectContaining({ actor: "root", action, target: "token-routes", before, after });
  expect((await logged()).slice(0, 3)).toEqual([entry("delete", more, null), entry("put", row, more), entry("put", null, row)]);
});

test("a token that may read lists them, and changes none", async () => {
  const { token } = await (await admin("POST", "/tokens", { name: "budgets", scopes: ["read"] })).json();
  const headers = { Authorization: `Bearer ${token}` };
  expect((await admin("GET", "/token-routes", undefined, headers)).status).toBe(200);
  await problem(await admin("PUT", "/token-routes", ROW, headers), 403);
  await problem(await admin("DELETE", "/token-routes?pattern=/x", undefined, headers), 403);
});

test("a row is shown with all of its columns", async () => {
  const columns = await sql("SELECT name FROM pragma_table_info('token_routes')");
  await put({});
  const [row] = (await list()).token_routes;
  expect(Object.keys(row).sort()).toEqual(columns.map(({ name }) => name).sort());
});
