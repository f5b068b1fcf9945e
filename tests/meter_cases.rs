//! Metering, case by case, and what of it is stored: frozen, because rows of deployed code hold it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use tollgate::decision::Judgement;
use tollgate::limit::{Call, Cost, MAX_SKEW, Row, State};
use tollgate::meter::{Counts, HourTotal, MAX_CLASS_BYTES, MAX_CLASSES, MAX_FLIGHT, MAX_IN_FLIGHT, MAX_REPLAYS};
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
    Call { cost: Cost { requests: 2, tokens: 5 }, class, nonce: 7, idempotency_key: None }
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
    for total in &sent {
        state.mark_hour_flushed(total);
    }
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
        for total in &sent {
            state.mark_hour_flushed(total);
        }
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

fn keyed(nonce: u64, key: &str) -> Call<'_> {
    Call { cost: Cost { requests: 2, tokens: 5 }, class: "POST /a", nonce, idempotency_key: Some(key) }
}

fn replay_policies() -> [Policy; 3] {
    [
        fixed("minute", 5, Period::Minute),
        fixed("month", 5, Period::Month),
        Policy::new("tokens", Unit::Tokens, 9, Period::Minute, Algorithm::Fixed, None).unwrap(),
    ]
}

/// One letter for each answer: admitted, denied, replayed, a replay denied, conflict.
fn ask(state: &mut State, at: UnixMicros, call: &Call<'_>) -> char {
    match state.judge_call(&replay_policies(), at, call) {
        Judgement::Decided(decision) if decision.is_admitted() => 'a',
        Judgement::Decided(_) => 'd',
        Judgement::Replay(decision) if decision.is_admitted() => 'r',
        Judgement::Replay(_) => 'D',
        Judgement::Conflict { .. } => 'c',
    }
}

fn used(state: &mut State, at: UnixMicros) -> [u64; 3] {
    let standings = state.standings(&replay_policies(), at);
    [standings[0].used, standings[1].used, standings[2].used]
}

#[test]
fn a_repeat_is_a_conflict_then_a_replay_then_new() {
    let mut state = metered();
    assert_eq!(ask(&mut state, START, &keyed(1, "k")), 'a');
    state = reread(&mut state);
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'c');
    assert!(!state.is_dirty() && !state.recalls(2));
    state.complete(2);
    assert!(!state.has_uncommitted_notes());
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'c');
    state.complete(1);
    assert!(state.has_uncommitted_notes() && !state.is_dirty());
    state = reread(&mut state);
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'r');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
    assert!(state.is_dirty() && state.recalls(2));
    // The minute has no room for another, whoever asks.
    assert_eq!(ask(&mut state, START, &keyed(3, "k")), 'D');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
    let row = |calls, denied, cost| (0, "POST /a".to_owned(), calls, denied, cost);
    assert_eq!(unflushed(&state), [row(2, 1, 2)]);
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.denied, month.cost, month.tokens), (2, 1, 2, 5));
    // A replay does not start the 24 hours again.
    let day = START.saturating_add(DAY);
    assert_eq!(ask(&mut state, day.saturating_sub(1), &keyed(4, "k")), 'r');
    assert_eq!(ask(&mut state, day, &keyed(5, "k")), 'a');
    assert_eq!(used(&mut state, day), [4, 4, 5]);
    // The month has no room left, which does not matter to a replay. Another key's first call is charged.
    let later = day.saturating_add(MAX_FLIGHT);
    assert_eq!(ask(&mut state, later.saturating_sub(1000), &keyed(6, "k")), 'c');
    assert_eq!(ask(&mut state, later, &keyed(6, "k")), 'r');
    assert_eq!(ask(&mut state, later, &keyed(7, "other")), 'd');
    state.complete(7);
    assert_eq!(ask(&mut state, later, &keyed(7, "other")), 'd');
    assert_eq!(used(&mut state, later), [2, 4, 0]);
}

#[test]
fn a_retry_of_a_question_is_no_repeat() {
    let mut state = metered();
    let policies = replay_policies();
    assert_eq!(state.recall_call(&policies, START, &keyed(1, "k")), None);
    assert_eq!(ask(&mut state, START, &keyed(1, "k")), 'a');
    let recall = |state: &mut State, call: &Call<'_>| match state.recall_call(&policies, START, call) {
        Some(Judgement::Decided(decision)) if decision.is_admitted() => 'a',
        Some(Judgement::Replay(decision)) if decision.is_admitted() => 'r',
        None => '-',
        other => panic!("{other:?}"),
    };
    assert_eq!(recall(&mut state, &keyed(1, "k")), 'a');
    state = reread(&mut state);
    assert_eq!(recall(&mut state, &keyed(1, "k")), 'a');
    assert_eq!(recall(&mut state, &keyed(2, "k")), '-');
    assert!(!state.is_dirty());
    state.complete(1);
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'r');
    assert_eq!(recall(&mut state, &keyed(2, "k")), 'r');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
}

/// The first denied attempt is forgotten; so is what is older than the newest that can be remembered.
#[test]
fn what_is_remembered_is_bounded() {
    let mut state = metered();
    let (mut chunks, mut over) = (BTreeMap::new(), Vec::new());
    let key = |call: usize| format!("key {call}");
    let at = |call: usize| START.saturating_add(SECOND / 10 * u64::try_from(call).unwrap());
    let mut written = 0;
    for call in 0..MAX_REPLAYS + 2000 {
        let nonce = u64::try_from(call).unwrap();
        let call = Call { idempotency_key: Some(&key(call)), nonce, ..of_class("POST /a") };
        assert!(state.judge_call(&[], at(usize::try_from(nonce).unwrap()), &call).is_admitted());
        if nonce % 100 == 0 {
            let rows = state.to_rows();
            written += rows.replays.len() + rows.replays_over.len();
            chunks.extend(rows.replays.into_iter().map(|row| (row.id, row.body)));
            over.extend(rows.replays_over);
            state.committed();
        }
    }
    // Calls that never ended make the row no larger than this.
    let flights = state.to_row().body.split_once(r#""p":"#).unwrap().1.matches('[').count() - 1;
    assert_eq!(flights, MAX_IN_FLIGHT);
    assert!(state.to_row().body.len() < 100_000, "{}", state.to_row().body.len());
    assert!(written <= 2 * (MAX_REPLAYS + 2000) / 512, "{written}");
    let last = at(MAX_REPLAYS + 2000);
    let known = |state: &State, call: usize| {
        let policies = [fixed("month", 0, Period::Month)];
        let judgement = state.clone().judge_call(&policies, last, &keyed(0, &key(call)));
        matches!(judgement, Judgement::Replay(_))
    };
    assert!(known(&state, 2000) && !known(&state, 0));
    assert!(!over.is_empty());
    for id in &over {
        chunks.remove(id);
    }
    assert_eq!(chunks.len(), MAX_REPLAYS / 512);
    let Row { slot, body } = state.to_row();
    let mut read = State::from_rows([(slot, body)]).unwrap();
    read.load_replays(chunks.clone()).unwrap();
    assert!(known(&read, 2000) && !known(&read, 0));
    // All of it is let go of when its time is over.
    let end = read.next_expiry().unwrap();
    read.expire(end.saturating_sub(1));
    assert!(!read.is_dirty());
    read.expire(end);
    assert!(read.is_dirty());
    assert_eq!(read.to_rows().replays_over.len(), 1);
    read.expire(last.saturating_add(2 * DAY));
    assert_eq!(read.to_rows().replays_over, chunks.keys().copied().collect::<Vec<_>>());
    assert_eq!(read.next_expiry(), None);
}

/// A clock that was far ahead holds nothing for longer than a day.
#[test]
fn marks_of_the_future_are_moved_back() {
    let mut state = metered();
    let ahead = START.saturating_add(100 * DAY);
    let mut chunks = BTreeMap::new();
    for call in 0..600_u64 {
        let key = format!("key {call}");
        let call = Call { idempotency_key: Some(&key), nonce: call, ..of_class("POST /a") };
        assert!(state.judge_call(&[], ahead, &call).is_admitted());
        state.complete(call.nonce);
        chunks.extend(state.to_rows().replays.into_iter().map(|row| (row.id, row.until)));
        state.committed();
    }
    assert_eq!(chunks, BTreeMap::from([(0, ahead.saturating_add(DAY))]));
    assert_eq!(ask(&mut state, START, &keyed(1000, "key 1")), 'r');
    let rows = state.to_rows();
    assert_eq!((rows.replays[0].id, rows.replays[0].until), (0, START.saturating_add(MAX_SKEW + DAY)));
    for key in ["key 1", "key 599"] {
        let mut state = state.clone();
        assert_eq!(ask(&mut state, START.saturating_add(MAX_SKEW + DAY - 1), &keyed(1001, key)), 'r');
        assert_eq!(ask(&mut state, START.saturating_add(MAX_SKEW + DAY), &keyed(1001, key)), 'a');
    }
}

#[test]
fn the_stored_form_of_idempotency_keys_is_frozen() {
    let mut state = State::new("e".into());
    assert_eq!(ask(&mut state, START.saturating_add(1), &keyed(7, "order-7")), 'a');
    let row = state.to_row();
    let end = r#""n":[7],"i":{"t":"DAwnbvvzT6Vq__s_","x":0,"p":[[7,868112185802575781,1795160894000]]}}"#;
    assert!(row.body.ends_with(end), "{}", row.body);
    let other = |i: &str| State::from_rows([(3, format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"i":{i}}}"#))]);
    assert!(other(r#"{"t":""}"#).is_ok());
    for wrong in [r#"{"t":"x"}"#, r#"{"t":"AAAAAAAAAAAAAAAAAAAA"}"#] {
        assert_eq!(other(wrong).unwrap_err().to_string(), "row in slot 3 cannot be read: not idempotency keys");
    }
    let error = state.load_replays([(5, "AAAA".to_owned())]).unwrap_err();
    assert_eq!(error.to_string(), "row in slot 5 cannot be read: not idempotency keys");
}
