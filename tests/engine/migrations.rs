//! The migrations in `SQLite`: the shipped schema, and the errors with which it refuses invalid
//! rows.

use rusqlite::Connection;
use std::path::Path;

/// The files in their order: name and text.
fn migrations() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), std::fs::read_to_string(file).unwrap())).collect()
}

fn apply(db: &Connection, migrations: &[(String, String)]) {
    for (name, text) in migrations {
        db.execute_batch(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn empty() -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    db
}

pub(crate) fn database() -> Connection {
    let db = empty();
    apply(&db, &migrations());
    db
}

/// A database with the migrations up to the one of this name, and the rest of them.
pub(crate) fn after_migration(last: &str) -> (Connection, impl Fn(&Connection)) {
    let mut older = migrations();
    let at = older.iter().position(|(name, _)| name == last).unwrap();
    let newer = older.split_off(at + 1);
    let db = empty();
    apply(&db, &older);
    (db, move |db: &Connection| apply(db, &newer))
}

/// The whole schema, and the rows that migrations insert, as text.
fn contents(db: &Connection) -> String {
    let rows = "SELECT group_concat(value, char(10)) FROM (
        SELECT name || ' ' || sql AS value FROM sqlite_master WHERE sql IS NOT NULL
        UNION ALL SELECT 'tier ' || name || ' ' || description || ' ' || audit_days FROM tiers
        UNION ALL SELECT 'limit ' || tier || ' ' || policy || ' ' || quota || ' ' || period || ' ' || algorithm FROM tier_limits
        UNION ALL SELECT 'cost ' || pattern || ' ' || method || ' ' || cost || ' ' || reprice FROM route_costs ORDER BY value)";
    db.query_row(rows, [], |row| row.get(0)).unwrap()
}

fn refusal(db: &Connection, sql: &str) -> String {
    db.execute_batch(sql).expect_err(sql).to_string()
}

fn key(values: &str) -> String {
    let hash = "0".repeat(64);
    format!(
        "INSERT INTO keys (tier, secret_hash, created_at, id, metadata, previous_hash) VALUES ('free', '{hash}', '', {values})"
    )
}

fn token_route(values: &str) -> String {
    format!("INSERT INTO token_routes VALUES ({values})")
}

fn own(values: &str) -> String {
    format!(
        "INSERT INTO overrides (created_at, key_id, policy, quota, period, algorithm, until_at) VALUES ('', {values})"
    )
}

fn token(values: &str) -> String {
    let hash = "0".repeat(64);
    format!("INSERT INTO admin_tokens (secret_hash, created_at, id, name, scopes) VALUES ('{hash}', '', {values})")
}

/// Usage with -1 in a column.
fn usage(table_and_period: &str, period: &str, column: &str) -> String {
    format!("INSERT INTO {table_and_period}, key_id, epoch, updated_at, {column}) VALUES ({period}, 'k', 'e', '', -1)")
}

fn limit(values: &str) -> String {
    format!("INSERT INTO tier_limits (tier, policy, unit, quota, period, algorithm, burst) VALUES ({values})")
}

#[test]
fn the_shipped_tiers() {
    let db = database();
    let mut select =
        db.prepare("SELECT tier || ' ' || policy || ' ' || quota FROM tier_limits ORDER BY quota, policy").unwrap();
    let rows: Vec<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(
        rows,
        [
            "free minute 10",
            "basic minute 50",
            "pro minute 200",
            "enterprise minute 1000",
            "free month 1000",
            "basic month 10000",
            "pro month 100000",
            "enterprise month 1000000",
        ]
    );
    let tiers: i64 = db.query_row("SELECT count(*) FROM tiers WHERE description <> ''", [], |row| row.get(0)).unwrap();
    assert_eq!(tiers, 5);
}

/// docs/deploying.md reserves the numbers from 9000 on for users.
#[test]
fn numbers_are_used_once_and_end_below_those_of_users() {
    let names: Vec<String> = migrations().into_iter().map(|(name, _)| name).collect();
    let numbers: Vec<&str> = names.iter().map(|name| name.split_once('_').unwrap().0).collect();
    assert!(numbers.iter().all(|number| number.len() == 4 && number.parse::<u32>().unwrap() < 9000), "{names:?}");
    assert!(numbers.is_sorted_by(|one, next| one < next), "{names:?}");
}

/// wrangler applies all files that it has not applied yet, so a user's migration may precede newer
/// ones of tollgate.
#[test]
fn a_users_migration_may_come_before_any_later_one_of_ours() {
    let readme = include_str!("../../README.md");
    let own = readme.split("```sql\n").find(|block| block.starts_with("INSERT INTO tiers ")).unwrap();
    let own = [("9000_my_tiers.sql".to_owned(), own.split("```").next().unwrap().to_owned())];
    let ours = migrations();
    let fresh = database();
    apply(&fresh, &own);
    // Its tables exist from the fourth on.
    for at in 4..=ours.len() {
        let db = empty();
        let (older, newer) = ours.split_at(at);
        apply(&db, older);
        apply(&db, &own);
        apply(&db, newer);
        assert_eq!(contents(&db), contents(&fresh), "before {:?}", newer.first().map(|(name, _)| name));
    }
}

#[test]
fn valid_limits_are_accepted() {
    let db = database();
    for values in [
        "'free', 'a', 'requests', 10000, 'day', 'sliding', NULL",
        "'free', 'b', 'tokens', 1, 'hour', 'bucket', 1000000000",
        "'free', 'c', 'requests', 0, 'month', 'fixed', NULL",
        "'free', 'd', 'requests', 1000000000, 'minute', 'bucket', NULL",
    ] {
        db.execute_batch(&limit(values)).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
}

#[test]
fn invalid_limits_are_refused_with_a_reason() {
    let db = database();
    db.execute_batch(&key("'k', '{}', NULL")).unwrap();
    for (sql, word) in [
        (limit("'free', 's', 'requests', 10001, 'day', 'sliding', NULL"), "use algorithm bucket"),
        (limit("'free', 's', 'requests', 10, 'month', 'sliding', NULL"), "a month is fixed"),
        (limit("'free', 's', 'requests', 10, 'month', 'bucket', NULL"), "a month is fixed"),
        (limit("'free', 's', 'requests', 0, 'day', 'bucket', NULL"), "at least 1"),
        (limit("'free', 's', 'requests', 10, 'week', 'fixed', NULL"), "period is"),
        (limit("'free', 's', 'bytes', 10, 'day', 'fixed', NULL"), "unit is"),
        (limit("'free', 's', 'requests', -1, 'day', 'fixed', NULL"), "quota is"),
        (limit("'free', 's', 'requests', 1.5, 'day', 'fixed', NULL"), "INTEGER"),
        (limit("'free', 'S 1', 'requests', 1, 'day', 'fixed', NULL"), "policy's name"),
        (limit("'nobody', 's', 'requests', 1, 'day', 'fixed', NULL"), "FOREIGN KEY"),
        (limit("'free', 'minute', 'requests', 1, 'minute', 'fixed', NULL"), "UNIQUE"),
        ("INSERT INTO tiers (name) VALUES ('Gold Tier')".to_owned(), "tier's name"),
        ("INSERT INTO route_costs (pattern, cost) VALUES ('export', 2)".to_owned(), "a pattern is a path"),
        ("INSERT INTO route_costs (pattern, method, cost) VALUES ('/x', 'get', 2)".to_owned(), "method is"),
        ("INSERT INTO route_costs (pattern, cost) VALUES ('/x', 0)".to_owned(), "cost is"),
        ("INSERT INTO route_costs (pattern, cost, reprice) VALUES ('/x', 2, 2)".to_owned(), "reprice is 0 or 1"),
        ("INSERT INTO route_costs (pattern, cost, reprice) VALUES ('/x', 2, NULL)".to_owned(), "NOT NULL"),
        (token_route("'chat', 'GET', 'openai', 1, 2, 1, NULL"), "a pattern is a path"),
        (token_route("'/x', 'get', 'openai', 1, 2, 1, NULL"), "method is"),
        (token_route("'/x', 'GET', 'OpenAI', 1, 2, 1, NULL"), "format is"),
        (token_route("'/x', 'GET', 'openai', 3, 2, 1, NULL"), "default_output is"),
        (token_route("'/x', 'GET', 'openai', -1, 2, 1, NULL"), "default_output is"),
        (token_route("'/x', 'GET', 'openai', 1, 1000000001, 1, NULL"), "max_output is"),
        (token_route("'/x', 'GET', 'openai', 1, 2, 0, NULL"), "bytes_per_token is"),
        (token_route("'/x', 'GET', 'openai', 1, 2, 10001, NULL"), "bytes_per_token is"),
        (token_route("'/x', 'GET', 'openai', 1, 2, 1, 0"), "max_input is"),
        (token_route("'/x', 'GET', 'openai', 1, 2, 1, 1000000001"), "max_input is"),
        ("INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES ('k', '2026-1', 'e', 1, 0, 'now')".to_owned(), "month is"),
        (
            "INSERT INTO keys (id, tier, secret_hash, created_at) VALUES ('k', 'free', 'short', 'now')".to_owned(),
            "secret_hash is",
        ),
        (key("'k1', '[]', NULL"), "metadata is a JSON object"),
        (key("'k1', '{', NULL"), "metadata is a JSON object"),
        (key(&format!("'k1', '{{\"a\":\"{}\"}}', NULL", "x".repeat(4089))), "metadata is a JSON object"),
        (key("'k1', '{}', 'short'"), "previous_hash is"),
        ("UPDATE keys SET imported = 2".to_owned(), "imported is 0 or 1"),
        ("UPDATE tiers SET audit_days = 3651".to_owned(), "audit_days is"),
        ("UPDATE tiers SET idempotency = 'maybe'".to_owned(), "idempotency is on or off"),
        (usage("usage_monthly (month", "'2026-01'", "tokens_returned"), "CHECK constraint failed: tokens_returned >= 0"),
        (usage("usage_monthly (month", "'2026-01'", "overdraft"), "CHECK constraint failed: overdraft >= 0"),
        (usage("usage_hourly (class, hour", "'', '2026-01-01T10:00:00Z'", "tokens"), "CHECK constraint failed: tokens >= 0"),
        (
            "INSERT INTO alerts (key_id, policy, threshold, month, quota, used, at, state, unit)
               VALUES ('k', 'p', 1, '2026-01', 1, 1, '', 'none', 'bytes')".to_owned(),
            "unit is requests or tokens",
        ),
        (own("'nobody', 'p', 1, 'day', 'fixed', NULL"), "FOREIGN KEY"),
        (own("'k', 'P', 1, 'day', 'fixed', NULL"), "policy's name"),
        (own("'k', 'p', 1, 'month', 'bucket', NULL"), "a month is fixed"),
        (own("'k', 'p', 10001, 'day', 'sliding', NULL"), "use algorithm bucket"),
        (own("'k', 'p', 0, 'day', 'bucket', NULL"), "at least 1"),
        (own("'k', 'p', 1, 'day', 'fixed', 'soon'"), "until_at is"),
        (token("'t', 'root', '[\"read\"]'"), "and not root"),
        (token("'t', 't', '[\"root\"]'"), "scopes is"),
        (token("'t', 't', '[]'"), "scopes is"),
        (
            "INSERT INTO usage_hourly (key_id, hour, class, epoch, updated_at) VALUES ('k', '2026-01-01T10:30:00Z', '', 'e', '')".to_owned(),
            "hour is",
        ),
        (
            "INSERT INTO admin_log (at, actor, action, target) VALUES ('', '', NULL, '')".to_owned(),
            "NOT NULL constraint failed: admin_log.action",
        ),
    ] {
        let message = refusal(&db, &sql);
        assert!(message.contains(word), "{sql}: {message}");
    }
}

#[test]
fn the_shipped_tiers_keep_requests_for_their_time() {
    let db = database();
    let days: String = db
        .query_row("SELECT group_concat(name || ' ' || audit_days, ', ' ORDER BY name) FROM tiers", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(days, "basic 30, enterprise 365, free 7, pro 90, unlimited 0");
}

#[test]
fn the_overrides_of_a_key_go_with_it() {
    let db = database();
    db.execute_batch(&key("'k', '{}', NULL")).unwrap();
    db.execute_batch(&own("'k', 'p', 1, 'day', 'fixed', '2031-01-01T00:00:00Z'")).unwrap();
    db.execute_batch("DELETE FROM keys").unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM overrides", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn the_admin_log_is_append_only() {
    let db = database();
    db.execute_batch(
        "INSERT INTO admin_log (at, actor, action, target, after) VALUES ('', 'root', 'put', 'tiers/x', '{}')",
    )
    .unwrap();
    for sql in ["UPDATE admin_log SET actor = ''", "DELETE FROM admin_log"] {
        assert!(refusal(&db, sql).contains("append-only"), "{sql}");
    }
}
