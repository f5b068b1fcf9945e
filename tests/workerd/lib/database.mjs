// D1: its contents, changes by hand, and failures.
import { env } from "cloudflare:workers";
import { vi } from "vitest";

/** Runs a statement; resolves to its rows. */
export async function sql(query, ...values) {
  return (await env.DB.prepare(query).bind(...values).all()).results;
}

let tiers = 0;

/** Creates a tier with these policies and resolves to its name. */
export async function makeTier(...policies) {
  const tier = `tier-${(tiers += 1)}`;
  await sql("INSERT INTO tiers (name) VALUES (?)", tier);
  await setPolicies(tier, ...policies);
  return tier;
}

/** Replaces the policies of a tier: `{ policy, quota, period, algorithm, burst }`. */
export async function setPolicies(tier, ...policies) {
  const insert = "INSERT INTO tier_limits (tier, policy, quota, period, algorithm, burst) VALUES (?, ?, ?, ?, ?, ?)";
  await env.DB.batch([
    env.DB.prepare("DELETE FROM tier_limits WHERE tier = ?").bind(tier),
    ...policies.map(({ quota, period, policy = period, algorithm = "fixed", burst = null }) =>
      env.DB.prepare(insert).bind(tier, policy, quota, period, algorithm, burst),
    ),
  ]);
}

/** Changes a key's row by hand. */
export function setKey(key, column, value) {
  return sql(`UPDATE keys SET ${column} = ? WHERE id = ?`, value, key.id);
}

/** Renames tables until the returned function is called: all operations on them fail. */
export async function takeAway(...tables) {
  for (const table of tables) await sql(`ALTER TABLE ${table} RENAME TO ${table}_away`);
  return async () => {
    for (const table of tables) await sql(`ALTER TABLE ${table}_away RENAME TO ${table}`);
  };
}

const { prototype } = env.DB.constructor;
const { prepare, batch } = prototype;

/**
 * Records the queries of the Worker and its objects, and replaces each result by `instead(answer,
 * sql)`. The returned list grows by the SQL of each transaction's first statement, and its `values`
 * by the values of that.
 */
export function listenToD1(instead = (answer) => answer()) {
  const asked = [];
  Object.defineProperty(asked, "values", { value: [] });
  const texts = new WeakMap();
  vi.spyOn(prototype, "prepare").mockImplementation(function (sql) {
    const statement = prepare.call(this, sql);
    const { bind } = statement;
    statement.bind = (...values) => {
      const bound = bind.apply(statement, values);
      texts.set(bound, { sql, values });
      return bound;
    };
    return statement;
  });
  vi.spyOn(prototype, "batch").mockImplementation(function (statements) {
    const { sql, values } = texts.get(statements[0]) ?? {};
    asked.push(sql);
    asked.values.push(values);
    return instead(() => batch.call(this, statements), sql);
  });
  return asked;
}

/** The statements with values that the Worker and its objects prepare during `work`: `{ sql, values }`. */
export async function statementsOf(work) {
  const seen = [];
  const spy = vi.spyOn(prototype, "prepare").mockImplementation(function (sql) {
    const statement = prepare.call(this, sql);
    const { bind } = statement;
    statement.bind = (...values) => {
      seen.push({ sql, values });
      return bind.apply(statement, values);
    };
    return statement;
  });
  await work();
  spy.mockRestore();
  return seen;
}

/** The key's rows of usage: `{ month, epoch, calls, denied }`, oldest month first. */
export function usageRows(key) {
  return sql("SELECT month, epoch, calls, denied FROM usage_monthly WHERE key_id = ? ORDER BY month, epoch", key.id);
}

/** The key's usage by month, summed over its epochs: `{ "2031-03": { calls, denied } }`. */
export async function metered(key) {
  const query = "SELECT month, SUM(calls) AS calls, SUM(denied) AS denied FROM usage_monthly WHERE key_id = ? GROUP BY month";
  const rows = await sql(query, key.id);
  return Object.fromEntries(rows.map(({ month, calls, denied }) => [month, { calls, denied }]));
}

/** All rows of all tables, as text. */
export async function databaseText() {
  const tables = await sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'");
  const rows = await Promise.all(tables.map(({ name }) => sql(`SELECT * FROM "${name}"`)));
  return JSON.stringify(rows);
}
