//! Flushes into the shipped schema: whatever their order and version, D1 ends with what was counted.

use crate::metering::CALL;
use crate::migrations::{after_migration, database};
use crate::support::{START, config, fixed_policy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rusqlite::{Connection, params};
use tollgate::key_state::hold::{Reservation, UsedAmount};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Period, Policy};
use tollgate::metering::flush::{FlushTotals, UPSERT_HOURS, UPSERT_MONTHS};
use tollgate::metering::hours::{HourTotal, RESERVATIONS};
use tollgate::metering::months::MonthTotal;
use tollgate::time::{HOUR, MINUTE, SECOND, UnixMicros, rfc3339};

/// The statements of versions without `*_charged`, which had only what was charged.
const EARLIER_MONTHS: &str = "
INSERT INTO usage_monthly (key_id, epoch, updated_at, month, calls, denied, cost, tokens)
  SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4) WHERE 1
ON CONFLICT (key_id, month, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), cost = MAX(cost, excluded.cost),
    tokens = MAX(tokens, excluded.tokens), updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied OR excluded.cost > cost OR excluded.tokens > tokens";
const EARLIER_HOURS: &str = "
INSERT INTO usage_hourly (key_id, epoch, updated_at, hour, class, calls, denied, cost)
  SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4) WHERE 1
ON CONFLICT (key_id, hour, class, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), cost = MAX(cost, excluded.cost),
    updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied OR excluded.cost > cost";

fn unflushed(state: &KeyState) -> FlushTotals {
    let (months, hours) = (state.meter().unflushed_months(), state.meter().unflushed_hours());
    FlushTotals { epoch: state.epoch().to_owned(), months, hours }
}

fn kept(state: &KeyState) -> FlushTotals {
    let (months, hours) = (state.meter().kept_months(), state.meter().kept_hours());
    FlushTotals { epoch: state.epoch().to_owned(), months, hours }
}

fn flush(db: &Connection, totals: &FlushTotals) {
    db.execute(UPSERT_MONTHS, params!["k", totals.epoch, "now", totals.months_json()]).unwrap();
    db.execute(UPSERT_HOURS, params!["k", totals.epoch, "now", totals.hours_json()]).unwrap();
}

fn flush_as_before(db: &Connection, totals: &FlushTotals) {
    let month = |total: &MonthTotal| {
        serde_json::json!([total.month, total.calls, total.denied, total.charged.requests, total.charged.tokens])
    };
    let hour = |total: &HourTotal| {
        let counts = total.counts;
        serde_json::json!([rfc3339(total.start()), total.class, counts.calls, counts.denied, counts.charged.requests])
    };
    let months: serde_json::Value = totals.months.iter().map(month).collect();
    let hours: serde_json::Value = totals.hours.iter().map(hour).collect();
    db.execute(EARLIER_MONTHS, params!["k", totals.epoch, "now", months.to_string()]).unwrap();
    db.execute(EARLIER_HOURS, params!["k", totals.epoch, "now", hours.to_string()]).unwrap();
}

const COLUMNS: &str = "calls, denied, cost, tokens, cost_charged, cost_returned, tokens_charged, tokens_returned";

/// The rows as text, sorted: period, class, and then the columns; of a month also the overdraft.
fn rows(db: &Connection) -> Vec<String> {
    let text = |first: &str| format!("{first} || ' ' || {}", COLUMNS.replace(", ", " || ' ' || "));
    let select = format!(
        "SELECT {} || ' ' || overdraft FROM usage_monthly UNION ALL SELECT {} FROM usage_hourly ORDER BY 1",
        text("month"),
        text("hour || ' ' || class")
    );
    let mut select = db.prepare(&select).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The rows that D1 should have of these totals.
fn expected(totals: &FlushTotals) -> Vec<String> {
    let text = |first: String, calls: u64, denied: u64, charged: Cost, returned: Cost| {
        let net = charged.saturating_sub(returned);
        let numbers = [calls, denied, net.requests, net.tokens, charged.requests, returned.requests];
        let numbers = numbers.into_iter().chain([charged.tokens, returned.tokens]);
        numbers.fold(first, |text, number| format!("{text} {number}"))
    };
    let months = totals.months.iter().filter(|total| total.has_counts()).map(|total| {
        let MonthTotal { month, calls, denied, charged, returned, overdraft, .. } = *total;
        format!("{} {overdraft}", text(month.to_string(), calls, denied, charged, returned))
    });
    let hours = totals.hours.iter().map(|total| {
        let counts = total.counts;
        let first = format!("{} {}", rfc3339(total.start()), total.class);
        text(first, counts.calls, counts.denied, counts.charged, counts.returned)
    });
    let mut rows: Vec<String> = months.chain(hours).collect();
    rows.sort();
    rows
}

fn reserve(state: &mut KeyState, policies: &[Policy], now: UnixMicros, id: u64, cost: Cost, ttl: u64) {
    state.reserve(policies, now, &Reservation { id, cost, ttl });
}

fn settle(state: &mut KeyState, policies: &[Policy], now: UnixMicros, id: u64, tokens: u64, requests: Option<u64>) {
    state.settle_hold(policies, now, id, UsedAmount { tokens, requests }, &[]);
}

/// A state in which an expired hold of 3 requests and 50 tokens was charged, and the totals of then.
/// Settling it late returns 2 requests and 40 tokens.
fn expired() -> (KeyState, FlushTotals) {
    let mut state = KeyState::new("e".into());
    reserve(&mut state, &[], START, 1, Cost { requests: 3, tokens: 50 }, MINUTE);
    state.expire(START.saturating_add(2 * MINUTE));
    let totals = unflushed(&state);
    (state, totals)
}

#[test]
fn what_is_returned_is_taken_off_and_a_late_flush_does_not_bring_it_back() {
    let db = database();
    let (mut state, before) = expired();
    flush(&db, &before);
    assert_eq!(rows(&db), ["2026-11 1 0 3 50 3 0 50 0 0", "2026-11-20T07:00:00Z reservations 1 0 3 50 3 0 50 0"]);
    settle(&mut state, &[], START.saturating_add(3 * MINUTE), 1, 10, Some(1));
    let after = ["2026-11 1 0 1 10 3 2 50 40 0", "2026-11-20T07:00:00Z reservations 1 0 1 10 3 2 50 40"];
    flush(&db, &kept(&state));
    assert_eq!(rows(&db), after);
    flush(&db, &before);
    assert_eq!(rows(&db), after);
}

#[test]
fn a_flush_that_changes_nothing_writes_nothing() {
    let db = database();
    let (_, totals) = expired();
    for (statement, json) in [(UPSERT_MONTHS, totals.months_json()), (UPSERT_HOURS, totals.hours_json())] {
        for written in [1, 0] {
            assert_eq!(db.execute(statement, params!["k", "e", "now", json]).unwrap(), written);
        }
    }
}

/// During a deployment an object may change between the versions.
#[test]
fn flushes_of_an_earlier_version_in_between_break_nothing() {
    let db = database();
    let policies = [fixed_policy("minute", 100, Period::Minute)];
    let (mut state, before) = expired();
    flush_as_before(&db, &before);
    assert_eq!(rows(&db)[0], "2026-11 1 0 3 50 0 0 0 0 0");
    settle(&mut state, &[], START.saturating_add(3 * MINUTE), 1, 10, Some(1));
    let settled = kept(&state);
    flush(&db, &settled);
    assert_eq!(rows(&db), expected(&settled));
    // An earlier version counts on, and what it sends includes what was returned.
    state.judge_call(&policies, START.saturating_add(4 * MINUTE), &CALL);
    let counted = kept(&state);
    flush_as_before(&db, &counted);
    assert_eq!(rows(&db)[0], "2026-11 2 0 5 55 3 2 50 40 0");
    // A flush that is late takes off what was returned, and keeps what was counted since.
    flush(&db, &settled);
    assert_eq!(rows(&db)[0], "2026-11 2 0 3 15 5 2 55 40 0");
    flush_as_before(&db, &counted);
    flush(&db, &counted);
    assert_eq!(rows(&db), expected(&counted));
}

#[test]
fn rows_from_before_the_migration_have_charged_what_they_cost() {
    let (db, migrate) = after_migration("0014_tier_idempotency.sql");
    let (_, totals) = expired();
    flush_as_before(&db, &totals);
    migrate(&db);
    assert_eq!(rows(&db), ["2026-11 1 0 3 50 3 0 50 0 0", "2026-11-20T07:00:00Z reservations 1 0 3 0 3 0 0 0"]);
    flush(&db, &totals);
    assert_eq!(rows(&db), expected(&totals));
}

#[derive(Debug, Clone)]
enum Action {
    Reserve(Cost, u64),
    Settle(Index, u64, Option<u64>),
    Release(Index),
    Call(u64),
    /// Sends what D1 does not have; whether that is acknowledged.
    Flush(bool),
}

fn action() -> impl Strategy<Value = Action> {
    let cost = (0..3_u64, 0..40_u64).prop_map(|(requests, tokens)| Cost { requests, tokens });
    prop_oneof![
        6 => (cost, SECOND..HOUR).prop_map(|(cost, ttl)| Action::Reserve(cost, ttl)),
        6 => (any::<Index>(), 0..60_u64, proptest::option::of(0..4_u64))
            .prop_map(|(which, tokens, requests)| Action::Settle(which, tokens, requests)),
        2 => any::<Index>().prop_map(Action::Release),
        2 => (1..4_u64).prop_map(Action::Call),
        4 => any::<bool>().prop_map(Action::Flush),
    ]
}

/// What the object sent in a run, and all of its totals at the end, as far as it keeps them.
fn run(steps: &[(u64, Action)]) -> (Vec<FlushTotals>, FlushTotals) {
    let policies = [fixed_policy("minute", 4, Period::Minute)];
    let mut state = KeyState::new("e".into());
    let (mut now, mut made, mut sent) = (START, 0_u64, Vec::new());
    for (step, action) in steps {
        now = now.saturating_add(*step);
        match action {
            Action::Reserve(cost, ttl) => {
                made += 1;
                reserve(&mut state, &policies, now, made, *cost, *ttl);
            }
            Action::Settle(which, tokens, requests) => {
                settle(&mut state, &policies, now, which.index(20) as u64, *tokens, *requests);
            }
            Action::Release(which) => {
                state.release_hold(&policies, now, which.index(20) as u64);
            }
            Action::Call(requests) => {
                let cost = Cost { requests: *requests, tokens: 0 };
                state.judge_call(&policies, now, &CallToJudge { cost, nonce: now.as_micros(), ..CALL });
            }
            Action::Flush(is_acknowledged) => {
                let totals = unflushed(&state);
                if *is_acknowledged {
                    totals.months.iter().for_each(|total| state.mark_flushed(total));
                    totals.hours.iter().for_each(|total| state.mark_hour_flushed(total));
                }
                sent.push(totals);
            }
        }
    }
    sent.push(unflushed(&state));
    (sent, kept(&state))
}

proptest! {
    #![proptest_config(config())]

    /// Each flush arrives at least once, in any order and more than once; versions are mixed.
    #[test]
    fn d1_has_what_the_object_has(
        steps in vec((0..40 * MINUTE, action()), 1..60),
        order in vec((any::<Index>(), any::<bool>()), 0..60),
    ) {
        let (sent, totals) = run(&steps);
        let db = database();
        for (which, is_earlier) in &order {
            let flush = if *is_earlier { flush_as_before } else { flush };
            flush(&db, which.get(&sent));
        }
        let mut rest: Vec<&FlushTotals> = sent.iter().collect();
        for (which, _) in &order {
            let (one, other) = (which.index(rest.len()), rest.len() - 1);
            rest.swap(one, other);
        }
        for totals in rest {
            flush(&db, totals);
        }
        let found = rows(&db);
        for row in expected(&totals) {
            prop_assert!(found.contains(&row), "{row} is not among {found:#?}");
        }
        // All that was charged to reservations is in their class of an hour.
        let sums = "SELECT (SELECT SUM(tokens) FROM usage_monthly), (SELECT SUM(tokens) FROM usage_hourly WHERE class = ?1)";
        let sums: (Option<i64>, Option<i64>) =
            db.query_row(sums, [RESERVATIONS], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        prop_assert_eq!(sums.0.unwrap_or_default(), sums.1.unwrap_or_default());
        // Any of them once more changes nothing.
        for (which, _) in &order {
            flush(&db, which.get(&sent));
        }
        prop_assert_eq!(rows(&db), found);
    }
}
