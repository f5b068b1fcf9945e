// Migrations as wrangler applies them, with some that a user has added.
import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { applyMigrations, queryD1, ROOT, wrangler } from "../../scripts/lib/gate.mjs";

/** The last migration of an earlier version: one without imports, alerts and hours. */
const EARLIER = "0009";
/** A migration of a later version. */
const LATER = ["8999_a_later_version.sql", "ALTER TABLE tiers ADD COLUMN later TEXT NOT NULL DEFAULT 'new';\n"];

let directory;
let ours;
let own;

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-migrations-"));
  ours = (await readdir(path.join(ROOT, "migrations"))).sort();
  // An example of a user's migration.
  const readme = await readFile(path.join(ROOT, "README.md"), "utf8");
  own = readme.match(/```sql\n(INSERT INTO tiers [\s\S]*?)```/)[1];
});

after(() => directory && rm(directory, { recursive: true, force: true }));

/** A directory with its own database and no migrations yet. */
async function project(name) {
  const at = path.join(directory, name);
  await mkdir(path.join(at, "migrations"), { recursive: true });
  const config = path.join(at, "wrangler.toml");
  await writeFile(
    config,
    'name = "tollgate"\ncompatibility_date = "2026-09-01"\n[[d1_databases]]\nbinding = "DB"\ndatabase_name = "tollgate"\n' +
      'database_id = "00000000-0000-0000-0000-000000000000"\nmigrations_dir = "migrations"\n',
  );
  const where = { persistTo: path.join(at, "state"), config };
  return {
    add: async (...files) => {
      for (const file of files) {
        const to = path.join(at, "migrations", Array.isArray(file) ? file[0] : file);
        await (Array.isArray(file) ? writeFile(to, file[1]) : copyFile(path.join(ROOT, "migrations", file), to));
      }
    },
    rename: (from, to) => rename(path.join(at, "migrations", from), path.join(at, "migrations", to)),
    files: () => readdir(path.join(at, "migrations")),
    apply: () => applyMigrations(where),
    create: (name) => wrangler(["d1", "migrations", "create", "tollgate", name, "--config", config]),
    applied: async () => (await queryD1("SELECT name FROM d1_migrations ORDER BY id", where)).map(({ name }) => name),
    /** The whole schema, and the rows that migrations insert. */
    contents: async () => {
      const rows = (table) => `(SELECT json_group_array(json_object(${columns[table]})) FROM (SELECT * FROM ${table} ORDER BY 1, 2))`;
      const columns = {
        tiers: "'name', name, 'description', description, 'audit_days', audit_days, 'later', later",
        tier_limits: "'tier', tier, 'policy', policy, 'quota', quota, 'period', period, 'algorithm', algorithm, 'burst', burst",
        route_costs: "'pattern', pattern, 'method', method, 'cost', cost",
      };
      const [row] = await queryD1(
        `SELECT (SELECT json_group_array(name || ': ' || sql) FROM (SELECT name, sql FROM sqlite_master
                   WHERE sql IS NOT NULL AND name NOT LIKE '\\_cf%' ESCAPE '\\' ORDER BY name)) AS schema,
           ${Object.keys(columns).map((table) => `${rows(table)} AS ${table}`).join(", ")}`,
        where,
      );
      return Object.fromEntries(Object.entries(row).map(([name, list]) => [name, JSON.parse(list)]));
    },
  };
}

test("newer migrations of tollgate are applied after the user's from 9000 on, with the result of a new database", async () => {
  const old = ours.filter((file) => file.slice(0, 4) <= EARLIER);
  const newer = ours.filter((file) => file.slice(0, 4) > EARLIER);
  assert.ok(old.length >= 9 && newer.length >= 4);

  const upgraded = await project("upgraded");
  await upgraded.add(...old, ["9000_my_tiers.sql", own]);
  await upgraded.apply();
  assert.deepEqual(await upgraded.applied(), [...old, "9000_my_tiers.sql"]);
  await upgraded.add(...newer);
  await upgraded.apply();
  await upgraded.add(LATER);
  await upgraded.apply();
  assert.deepEqual(await upgraded.applied(), [...old, "9000_my_tiers.sql", ...newer, LATER[0]]);

  const fresh = await project("fresh");
  await fresh.add(...ours, LATER, ["9000_my_tiers.sql", own]);
  await fresh.apply();
  assert.deepEqual(await fresh.applied(), [...ours, LATER[0], "9000_my_tiers.sql"]);

  const contents = await upgraded.contents();
  assert.deepEqual(contents, await fresh.contents());
  const { tiers, tier_limits: limits, route_costs: costs } = contents;
  assert.ok(contents.schema.length > 20);
  assert.deepEqual(tiers.find(({ name }) => name === "burst").later, "new");
  assert.deepEqual(limits.filter(({ tier }) => tier === "burst").map(({ policy }) => policy), ["day", "minute"]);
  assert.deepEqual(costs.map(({ pattern, cost }) => [pattern, cost]), [["/v1/*/export", 25]]);

  await upgraded.apply();
  assert.deepEqual(await upgraded.contents(), contents);
});

test("`wrangler d1 migrations create` continues from 9000 once there is one", async () => {
  const mine = await project("created");
  await mine.add(...ours);
  await mine.create("my_tiers");
  const [first] = (await mine.files()).filter((file) => file.endsWith("_my_tiers.sql"));
  assert.equal(Number(first.slice(0, 4)), Number(ours.at(-1).slice(0, 4)) + 1);
  await mine.rename(first, "9000_my_tiers.sql");
  await mine.create("more_tiers");
  assert.ok((await mine.files()).includes("9001_more_tiers.sql"));
});

test("a migration that was renamed after it was applied is applied again", async () => {
  const mine = await project("renamed");
  await mine.add(...ours, ["9000_my_tiers.sql", own]);
  await mine.apply();
  await mine.rename("9000_my_tiers.sql", "9001_my_tiers.sql");
  await assert.rejects(mine.apply(), /UNIQUE constraint failed: tiers\.name/);
});
