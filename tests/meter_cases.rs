//! Metering, case by case, and what of it is stored: frozen, because rows of deployed code hold it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tollgate::limit::{Call, Cost, State};
use tollgate::meter::{Counts, HourTotal, MAX_CLASS_BYTES, MAX_CLASSES};
use tollgate::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, Month, SECOND, UnixMicros, rfc3339};

/// 2026-11-20T07:48:14Z.
const START: UnixMicros = UnixMicros::from_micros(1_795_160_894 * SECOND);

fn fixed(name: &str, quota: u64, period: Period) -> Policy {
    Policy::new(name, Unit::Requests, quota, period, Algorithm::Fixed, None).unwrap()
}

fn metered() -> State {
    let mut state = State::new("e1".into());
    state.count_hours();
    state
}

fn reread(state: &mut State) -> State {
    let row = state.to_row();
    state.committed();
    State::from_rows([(row.slot, row.body)]).unwrap()
}

fn of_class(class: &str) -> Call<'_> {
    Call { cost: Cost { requests: 2, tokens: 5 }, class, nonce: 7 }
}

/// (hour since that of START, class, calls, denied, cost)
fn unflushed(state: &State) -> Vec<(u64, String, u64, u64, u64)> {
    let first = START.as_micros() / HOUR;
    let row = |total: HourTotal| {
        let Counts { calls, denied, cost } = total.counts;
        (total.hour - first, total.class, calls, denied, cost)
    };
    state.unflushed_hours().into_iter().map(row).collect()
}

#[test]
fn hours_are_counted_by_class() {
    let policies = [fixed("minute", 5, Period::Minute)];
    let mut state = metered();
    for class in ["GET /a", "/v1/*", "GET /a"] {
        state.judge_call(&policies, START, &of_class(class));
    }
    state.deny_elsewhere(START, 4);
    state.charge_calls(START, 3, Cost { requests: 6, tokens: 1 });
    state.decide(&policies, START.saturating_add(HOUR), Cost::default());
    let row = |hour, class: &str, calls, denied, cost| (hour, class.to_owned(), calls, denied, cost);
    let expected = [
        row(0, "GET /a", 1, 1, 2),
        row(0, "/v1/*", 1, 0, 2),
        row(0, "edge", 0, 4, 0),
        row(0, "unjudged", 3, 0, 6),
        row(1, "other", 1, 0, 1),
    ];
    assert_eq!(unflushed(&state), expected);
    assert_eq!(rfc3339(state.unflushed_hours()[0].start()), "2026-11-20T07:00:00Z");
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.denied, month.cost, month.tokens), (6, 5, 11, 11));
    assert_eq!(unflushed(&reread(&mut state)), expected);
}

#[test]
fn what_was_counted_since_a_flush_stays_due() {
    let mut state = metered();
    let judge = |state: &mut State, hours| {
        state.judge_call(&[], START.saturating_add(hours * HOUR), &of_class("GET /a"));
    };
    judge(&mut state, 0);
    let sent = state.unflushed_hours();
    judge(&mut state, 0);
    judge(&mut state, 1);
    state.committed();
    state.mark_hour_flushed(&sent[0]);
    assert!(state.is_dirty());
    let row = |hour, calls, cost| (hour, "GET /a".to_owned(), calls, 0, cost);
    assert_eq!(unflushed(&state), [row(0, 2, 4), row(1, 1, 2)]);
    let sent = state.unflushed_hours();
    sent.iter().for_each(|total| state.mark_hour_flushed(total));
    assert!(unflushed(&state).is_empty());
    // An acknowledgement that comes late, and one of what is not there.
    state.committed();
    state.mark_hour_flushed(&HourTotal { counts: Counts { calls: 1, ..Counts::default() }, ..sent[1].clone() });
    state.mark_hour_flushed(&HourTotal { class: "GET /b".into(), ..sent[1].clone() });
    state.mark_hour_flushed(&sent[0]);
    assert!(!state.is_dirty() && !state.is_flushed());
    let body = state.to_row().body;
    assert!(body.contains(r#""h":[{"h":498656,"c":[{"c":"GET /a","n":[1,0,2],"f":[1,0,2]}]}]"#), "{body}");
}

/// D1 keeps the larger of two totals, so an hour that is gone must not begin again.
#[test]
fn an_hour_that_was_dropped_is_not_opened_again() {
    let mut state = metered();
    let mut judge = |hours: u64| {
        let at = START.saturating_add(hours * HOUR);
        state.judge_call(&[], at, &of_class("GET /a"));
        let sent = state.unflushed_hours();
        sent.iter().for_each(|total| state.mark_hour_flushed(total));
        sent.into_iter().map(|total| (total.hour - START.as_micros() / HOUR, total.counts.calls)).collect::<Vec<_>>()
    };
    let december = Month::of(START).end().since(START).div_ceil(HOUR);
    assert_eq!(judge(0), [(0, 1)]);
    assert_eq!(judge(3), [(3, 1)]);
    assert_eq!(judge(1), [(3, 2)]);
    assert_eq!(judge(december), [(december, 1)]);
    assert_eq!(judge(0), [(3, 3)]);
    assert_eq!(judge(4), [(4, 1)]);
}

#[test]
fn classes_are_bounded_and_sums_exact() {
    let mut state = metered();
    for round in 1..=2 {
        for class in 0..100 {
            state.judge_call(&[], START, &of_class(&format!("GET /{class}")));
        }
        state.deny_elsewhere(START, 1);
        let rows = unflushed(&state);
        assert_eq!(rows.len(), MAX_CLASSES + 2);
        assert_eq!(rows[MAX_CLASSES], (0, "other".into(), 68 * round, 0, 136 * round));
        assert!(rows[..MAX_CLASSES].iter().all(|row| row.2 == round));
    }
    // With D1 out of reach for days, the row does not grow without end.
    for hour in 1..1000 {
        for class in 0..40 {
            state.judge_call(&[], START.saturating_add(hour * HOUR), &of_class(&format!("GET /{hour}/{class}")));
        }
    }
    let rows = unflushed(&state);
    assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 200 + 999 * 40);
    assert!(rows.len() < 512 + 1000, "{}", rows.len());
    let long = "GET /".to_owned() + &"é".repeat(60);
    state.judge_call(&[], START.saturating_add(50 * DAY), &of_class(&long));
    let mut state = metered();
    state.judge_call(&[], START, &of_class(&long));
    let class = &unflushed(&state)[0].1;
    assert!(class.len() == MAX_CLASS_BYTES - 1 && long.starts_with(class.as_str()), "{class}");
    state.judge_call(&[], START, &of_class(&long));
    assert_eq!(unflushed(&state).len(), 1);
}

#[test]
fn the_stored_form_of_hours_is_frozen() {
    let policies = [fixed("month", 3, Period::Month)];
    let mut state = metered();
    state.judge_call(&policies, START, &of_class("POST /v1/*"));
    state.committed();
    let sent = state.unflushed_hours();
    state.mark_hour_flushed(&sent[0]);
    state.judge_call(&policies, START, &of_class("GET /a"));
    let body = concat!(
        r#"{"v":1,"seq":2,"e":"e1","t":1795160894000000,"#,
        r#""f":[[[[29919348,2]],[[498655,2]],[[20777,2]]],[[[29919348,5]],[[498655,5]],[[20777,5]]]],"#,
        r#""m":[[202611,1,1,0,2,5,0,0]],"n":[7],"#,
        r#""h":[{"h":498655,"c":[{"c":"POST /v1/*","n":[1,0,2],"f":[1,0,2]},{"c":"GET /a","n":[0,1,0]}]}]}"#,
    );
    assert_eq!(state.to_row().body, body);
    assert_eq!(unflushed(&reread(&mut state)), unflushed(&state));
    assert_eq!(metered().to_row().body, r#"{"v":1,"seq":1,"e":"e1","t":0,"h":[]}"#);
}

/// Rows from before hours were counted.
#[test]
fn a_row_without_hours_is_read() {
    let body = r#"{"v":1,"seq":9,"e":"e","t":1795160894000000,"m":[[202611,9,0,0,9,0,9,0]]}"#;
    let mut state = State::from_rows([(0, body.to_owned())]).unwrap();
    assert!(!state.to_row().body.contains(r#""h":"#));
    state.count_hours();
    state.judge_call(&[], START, &of_class("GET /a"));
    assert_eq!(unflushed(&state), [(0, "GET /a".into(), 1, 0, 2)]);
    assert_eq!(state.month(Month::of(START)).calls, 10);
}
