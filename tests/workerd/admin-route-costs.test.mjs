// Route costs through the admin API.
import { beforeEach, describe, expect, test } from "vitest";
import { makeTier, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, issue, problem, rateLimit, wait } from "./lib/gate.mjs";
import { evict } from "./lib/object.mjs";

beforeEach(() => sql("DELETE FROM route_costs"));

const put = (pattern, method, cost, more) => admin("PUT", "/route-costs", { pattern, ...(method && { method }), cost, ...more });
const remove = (pattern, method) =>
  admin("DELETE", `/route-costs?${new URLSearchParams({ pattern, ...(method && { method }) })}`);

async function list(query = "") {
  const response = await admin("GET", `/route-costs${query}`);
  expect(response.status).toBe(200);
  return response.json();
}

const logged = async () => (await (await admin("GET", "/log?target=route-costs")).json()).entries;

describe("PUT", () => {
  test("adds a row with 201 and replaces it with 200, by pattern and method", async () => {
    const row = (method, cost) => ({ pattern: "/v1/*/export", method, cost, reprice: false });
    const answers = [await put("/v1/*/export", "GET", 25), await put("/v1/*/export", undefined, 5), await put("/v1/*/export", "GET", 30)];
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 200]);
    expect(await Promise.all(answers.map((answer) => answer.json()))).toEqual([row("GET", 25), row("*", 5), row("GET", 30)]);
    expect(await list()).toEqual({ route_costs: [row("*", 5), row("GET", 30)], next_cursor: null });
  });

  test.each([
    ["no JSON", "{", 400, undefined],
    ["no pattern", { cost: 2 }, 422, "pattern"],
    ["no cost", { pattern: "/x" }, 422, "cost"],
    ["an empty pattern", { pattern: "", cost: 2 }, 422, "pattern"],
    ["a pattern that is no path", { pattern: "x", cost: 2 }, 422, "pattern"],
    ["a pattern that is too long", { pattern: `/${"x".repeat(512)}`, cost: 2 }, 422, "pattern"],
    ["a pattern with a line end", { pattern: "/a\nb", cost: 2 }, 422, "pattern"],
    ["a pattern of another type", { pattern: 7, cost: 2 }, 422, "pattern"],
    ["an empty method", { pattern: "/x", method: "", cost: 2 }, 422, "method"],
    ["a method in small letters", { pattern: "/x", method: "get", cost: 2 }, 422, "method"],
    ["a method that is null", { pattern: "/x", method: null, cost: 2 }, 422, "method"],
    ["a cost of 0", { pattern: "/x", cost: 0 }, 422, "cost"],
    ["a cost of 10,001", { pattern: "/x", cost: 10_001 }, 422, "cost"],
    ["a cost that is no whole number", { pattern: "/x", cost: 1.5 }, 422, "cost"],
    ["a flag that is a number", { pattern: "/x", cost: 2, reprice: 1 }, 422, "reprice"],
    ["a flag that is null", { pattern: "/x", cost: 2, reprice: null }, 422, "reprice"],
    ["an unknown field", { pattern: "/x", cost: 2, price: 2 }, 422, "price"],
  ])("makes no row from %s", async (_what, body, status, field) => {
    const before = await logged();
    expect((await problem(await admin("PUT", "/route-costs", body), status)).field).toBe(field);
    expect(await list()).toMatchObject({ route_costs: [] });
    expect(await logged()).toEqual(before);
  });

  test("accepts what the schema accepts", async () => {
    for (const [pattern, method, cost] of [["/", "*", 1], [`/${"x".repeat(511)}`, "PROPFIND", 10_000], ["/ä/%2f?", "GET", 2]]) {
      expect((await put(pattern, method, cost)).status).toBe(201);
    }
  });

  test("sets reprice, which a later PUT without it takes back", async () => {
    for (const [more, reprice] of [[{ reprice: true }, true], [{ reprice: true }, true], [{}, false], [{ reprice: false }, false]]) {
      expect(await (await put("/x", "*", 2, more)).json()).toEqual({ pattern: "/x", method: "*", cost: 2, reprice });
      expect(await list()).toMatchObject({ route_costs: [{ reprice }] });
      expect(await sql("SELECT reprice FROM route_costs")).toEqual([{ reprice: Number(reprice) }]);
    }
    const entry = (before, after) => expect.objectContaining({ before: expect.objectContaining({ reprice: before }), after: expect.objectContaining({ reprice: after }) });
    expect((await logged()).slice(0, 2)).toEqual([entry(false, false), entry(true, false)]);
  });

  test("adds no 501st row, and still replaces the others", async () => {
    const rows = Array.from({ length: 500 }, (_, n) => ({ pattern: `/row-${n}`, cost: 2 }));
    await sql("INSERT INTO route_costs (pattern, cost) SELECT value ->> 'pattern', value ->> 'cost' FROM json_each(?)", JSON.stringify(rows));
    expect((await problem(await put("/one-more", "*", 2), 409)).detail).toMatch(/at most 500/);
    expect((await put("/row-7", "*", 3)).status).toBe(200);
    expect((await remove("/row-8")).status).toBe(204);
    expect((await put("/one-more", "*", 2)).status).toBe(201);
  });
});

describe("GET", () => {
  test("lists all rows, also those added by hand, by pattern and method, in pages", async () => {
    await sql("INSERT INTO route_costs (pattern, method, cost) VALUES ('/b', 'POST', 2), ('/b', 'GET', 3), ('/a', '*', 4), ('/c', '*', 5)");
    const all = [];
    let cursor = "";
    do {
      const page = await list(`?limit=1&cursor=${cursor}`);
      all.push(...page.route_costs.map(({ pattern, method, cost }) => `${method} ${pattern} ${cost}`));
      cursor = page.next_cursor;
    } while (cursor !== null);
    expect(all).toEqual(["* /a 4", "GET /b 3", "POST /b 2", "* /c 5"]);
    await problem(await admin("GET", "/route-costs?cursor=abc"), 400);
    await problem(await admin("GET", "/route-costs?pattern=/a"), 400);
  });
});

describe("DELETE", () => {
  test("removes one row with 204, and is 404 for an unknown one", async () => {
    for (const method of ["*", "GET"]) await put("/x y/*", method, 2);
    expect((await remove("/x y/*", "GET")).status).toBe(204);
    expect(await list()).toMatchObject({ route_costs: [{ method: "*" }] });
    await problem(await remove("/x y/*", "GET"), 404);
    await problem(await remove("/x y"), 404);
    expect((await remove("/x y/*")).status).toBe(204);
    expect(await list()).toMatchObject({ route_costs: [] });
  });

  test("needs a pattern", async () => {
    await problem(await admin("DELETE", "/route-costs"), 400);
    await problem(await admin("DELETE", "/route-costs?pattern=&method=GET"), 400);
  });
});

test("every change is logged, with the state before and after", async () => {
  await put("/logged", "GET", 2);
  await put("/logged", "GET", 3);
  await remove("/logged", "GET");
  const row = (cost) => ({ pattern: "/logged", method: "GET", cost, reprice: false });
  const entry = (action, before, after) => expect.objectContaining({ actor: "root", action, target: "route-costs", before, after });
  expect((await logged()).slice(0, 3)).toEqual([entry("delete", row(3), null), entry("put", row(2), row(3)), entry("put", null, row(2))]);
});

test("a token with the scope read lists them, and changes none", async () => {
  const { token } = await (await admin("POST", "/tokens", { name: "prices", scopes: ["read"] })).json();
  const headers = { Authorization: `Bearer ${token}` };
  expect((await admin("GET", "/route-costs", undefined, headers)).status).toBe(200);
  await problem(await admin("PUT", "/route-costs", { pattern: "/x", cost: 2 }, headers), 403);
  await problem(await admin("DELETE", "/route-costs?pattern=/x", undefined, headers), 403);
});

describe("a change", () => {
  test("applies to a key's first call, and within 60 seconds to every key in use", async () => {
    const tier = await makeTier({ quota: 100, period: "day" });
    const [used, fresh] = [await issue(tier), await issue(tier)];
    await admit(used, 1);
    await put("/export", "GET", 25);
    expect(rateLimit(await call(fresh, "/export"))).toMatchObject({ day: { r: 75 } });
    wait(60);
    expect(rateLimit(await call(used, "/export"))).toMatchObject({ day: { r: 74 } });
    await put("/export", "GET", 30);
    wait(60);
    for (const [key, left] of [[used, 44], [fresh, 45]]) expect(rateLimit(await call(key, "/export"))).toMatchObject({ day: { r: left } });
    await remove("/export", "GET");
    wait(60);
    for (const [key, left] of [[used, 43], [fresh, 44]]) expect(rateLimit(await call(key, "/export"))).toMatchObject({ day: { r: left } });
  });

  test("is in the object's storage: it applies while D1 is down", async () => {
    const key = await issue(await makeTier({ quota: 100, period: "day" }));
    await admit(key, 1);
    await put("/export", "GET", 25);
    wait(60);
    expect(rateLimit(await call(key, "/export"))).toMatchObject({ day: { r: 74 } });
    await evict(key);
    const giveBack = await takeAway("keys", "route_costs");
    expect(rateLimit(await call(key, "/export"))).toMatchObject({ day: { r: 49 } });
    await giveBack();
  });
});

test("a row is shown with all of its columns", async () => {
  const columns = await sql("SELECT name FROM pragma_table_info('route_costs')");
  await put("/x", "*", 2);
  const [row] = (await list()).route_costs;
  expect(Object.keys(row).sort()).toEqual(columns.map(({ name }) => name).sort());
});
