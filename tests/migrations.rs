//! The migrations as `SQLite` runs them: what ships, and what the schema refuses, in words that say what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use rusqlite::Connection;
use std::path::Path;

fn database() -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        db.execute_batch(&std::fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    db
}

fn refusal(db: &Connection, sql: &str) -> String {
    db.execute_batch(sql).expect_err(sql).to_string()
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

#[test]
fn limits_that_the_engine_can_keep_are_taken() {
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
fn what_it_cannot_keep_is_refused_and_told_why() {
    let db = database();
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
        ("INSERT INTO usage_monthly VALUES ('k', '2026-1', 'e', 1, 0, 'now')".to_owned(), "month is"),
        (
            "INSERT INTO keys (id, tier, secret_hash, created_at) VALUES ('k', 'free', 'short', 'now')".to_owned(),
            "secret_hash is",
        ),
    ] {
        let message = refusal(&db, &sql);
        assert!(message.contains(word), "{sql}: {message}");
    }
}
