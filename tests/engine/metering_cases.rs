//! Metering, case by case, and what of it is stored: frozen, because rows of deployed code hold it.

use std::collections::BTreeMap;

use crate::support::Decide;
use tollgate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use tollgate::key_state::audit_log::{
    AUDIT_BYTES, AuditCursor, AuditCursorError, AuditEntry, AuditQuery, AuditReader, audit_next, audit_over,
    audit_surplus,
};
use tollgate::key_state::idempotency::{MAX_FLIGHT, MAX_IN_FLIGHT, MAX_REPLAYS};
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Judgement;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::MAX_CLASS_BYTES;
use tollgate::metering::alerts::Alert;
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::metering::hours::{Counts, HourTotal, MAX_CLASSES};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros, rfc3339};

/// 2026-11-20T07:48:14Z.
const START: UnixMicros = UnixMicros::from_micros(1_795_160_894 * SECOND);

fn fixed(name: &str, quota: u64, period: Period) -> Policy {
    Policy::new(name, Unit::Requests, quota, period, Algorithm::Fixed, None).unwrap()
}

const CALL: CallToJudge<'_> = CallToJudge {
    cost: Cost { requests: 2, tokens: 5 },
    method: "POST",
    class: "POST /a",
    nonce: 7,
    idempotency_key: None,
    fingerprint: None,
    is_audited: false,
    thresholds: &[],
    hold: None,
};

fn ended(nonce: u64) -> CallOutcome {
    CallOutcome { nonce, status: 201, duration_ms: 190 }
}

fn end(state: &mut KeyState, nonce: u64) {
    state.complete(START, ended(nonce), false);
}

fn metered() -> KeyState {
    KeyState::new("e1".into())
}

fn reread(state: &mut KeyState) -> KeyState {
    let row = state.to_row();
    state.committed();
    state.confirmed(state.last_commit());
    KeyState::from_rows([(row.slot, row.body)]).unwrap()
}

fn of_class(class: &str) -> CallToJudge<'_> {
    CallToJudge { class, ..CALL }
}

/// (hour since that of START, class, calls, denied, cost)
fn unflushed(state: &KeyState) -> Vec<(u64, String, u64, u64, u64)> {
    let first = START.as_micros() / HOUR;
    let row = |total: HourTotal| {
        let Counts { calls, denied, cost, .. } = total.counts;
        (total.hour - first, total.class, calls, denied, cost)
    };
    state.meter().unflushed_hours().into_iter().map(row).collect()
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
    assert_eq!(rfc3339(state.meter().unflushed_hours()[0].start()), "2026-11-20T07:00:00Z");
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.denied, month.cost, month.tokens), (6, 5, 11, 11));
    assert_eq!(unflushed(&reread(&mut state)), expected);
}

#[test]
fn what_was_counted_since_a_flush_stays_due() {
    let mut state = metered();
    let judge = |state: &mut KeyState, hours| {
        state.judge_call(&[], START.saturating_add(hours * HOUR), &of_class("GET /a"));
    };
    judge(&mut state, 0);
    let sent = state.meter().unflushed_hours();
    judge(&mut state, 0);
    judge(&mut state, 1);
    state.committed();
    state.confirmed(state.last_commit());
    state.mark_hour_flushed(&sent[0]);
    assert!(state.is_dirty());
    let row = |hour, calls, cost| (hour, "GET /a".to_owned(), calls, 0, cost);
    assert_eq!(unflushed(&state), [row(0, 2, 4), row(1, 1, 2)]);
    let sent = state.meter().unflushed_hours();
    for total in &sent {
        state.mark_hour_flushed(total);
    }
    assert!(unflushed(&state).is_empty());
    // An acknowledgement that comes late, and one of what is not there.
    state.committed();
    state.confirmed(state.last_commit());
    state.mark_hour_flushed(&HourTotal { counts: Counts { calls: 1, ..Counts::default() }, ..sent[1].clone() });
    state.mark_hour_flushed(&HourTotal { class: "GET /b".into(), ..sent[1].clone() });
    state.mark_hour_flushed(&sent[0]);
    assert!(!state.is_dirty() && !state.meter().is_flushed());
    let body = state.to_row().body;
    assert!(body.contains(r#""h":"498656|GET /a|1|0|2|1|0|2|5|0|0|5|0|0;"}"#), "{body}");
}

/// D1 keeps the larger of two totals, so an hour that is gone must not begin again.
#[test]
fn what_was_flushed_is_kept_for_as_long_as_its_hour_may_grow() {
    let mut state = metered();
    state.judge_call(&[], START, &of_class("/v1"));
    let total = state.meter().unflushed_hours()[0].clone();
    assert_eq!(state.meter().kept_hours(), std::slice::from_ref(&total));
    state.mark_hour_flushed(&total);
    assert_eq!((state.meter().kept_hours(), state.meter().unflushed_hours()), (vec![total], Vec::new()));
}

#[test]
fn an_hour_that_was_dropped_is_not_opened_again() {
    let mut state = metered();
    let mut judge = |hours: u64| {
        let at = START.saturating_add(hours * HOUR);
        state.judge_call(&[], at, &of_class("GET /a"));
        let sent = state.meter().unflushed_hours();
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
fn of_512_entries_each_is_counted_by_its_class() {
    let mut state = metered();
    for hour in 0..16 {
        for class in 0..32 {
            state.judge_call(&[], START.saturating_add(hour * HOUR), &of_class(&format!("GET /{class}")));
        }
    }
    state.judge_call(&[], START.saturating_add(16 * HOUR), &of_class("GET /x"));
    let rows = unflushed(&state);
    assert_eq!((rows.len(), rows.iter().filter(|row| row.1 == "other").count()), (513, 1));
    assert_eq!(rows[512], (16, "other".to_owned(), 1, 0, 2));
}

#[test]
fn nothing_is_no_entry_of_an_hour() {
    let mut state = metered();
    state.charge_calls(START, 0, Cost { requests: 0, tokens: 0 });
    assert!(state.meter().kept_hours().is_empty());
}

#[test]
fn hours_that_d1_does_not_have_are_not_flushed() {
    let mut state = metered();
    state.judge_call(&[], START, &of_class("/v1"));
    assert!(!state.meter().is_flushed());
    let month = state.month(Month::of(START));
    state.mark_flushed(&month);
    assert!(!state.meter().is_flushed());
    for total in state.meter().unflushed_hours() {
        state.mark_hour_flushed(&total);
    }
    assert!(state.meter().is_flushed());
}

#[test]
fn the_stored_form_of_hours_is_frozen() {
    let policies = [fixed("month", 3, Period::Month)];
    for (tokens, windows, months, hours) in [
        (0, "", "[[202611,1,1,0,2,0,0,0]]", "498655|POST /v1/*|1|0|2|1|0|2;"),
        (
            5,
            ",[[[29919348,5]],[[498655,5]],[[20777,5]]]",
            "[[202611,1,1,0,2,5,0,0]]",
            "498655|POST /v1/*|1|0|2|1|0|2|5|0|0|5|0|0;",
        ),
    ] {
        let mut state = metered();
        let of_class = |class| CallToJudge { cost: Cost { requests: 2, tokens }, ..of_class(class) };
        state.judge_call(&policies, START, &of_class("POST /v1/*"));
        state.committed();
        state.confirmed(state.last_commit());
        let sent = state.meter().unflushed_hours();
        state.mark_hour_flushed(&sent[0]);
        state.judge_call(&policies, START, &of_class("GET /a"));
        let body = format!(
            concat!(
                r#"{{"v":1,"seq":2,"e":"e1","t":1795160894000000,"#,
                r#""f":[[[[29919348,2]],[[498655,2]],[[20777,2]]]{}],"m":{},"n":[7],"#,
                r#""h":"{}498655|GET /a|0|1|0|0|0|0;"}}"#
            ),
            windows, months, hours
        );
        assert_eq!(state.to_row().body, body);
        assert_eq!(unflushed(&reread(&mut state)), unflushed(&state));
    }
    // Code that did not count the tokens of an hour wrote those of its month and windows.
    let body = concat!(
        r#"{"v":1,"seq":2,"e":"e1","t":1795160894000000,"#,
        r#""f":[[[[29919348,2]],[[498655,2]],[[20777,2]]],[[[29919348,5]],[[498655,5]],[[20777,5]]]],"#,
        r#""m":[[202611,1,1,0,2,5,0,0]],"n":[7],"#,
        r#""h":"498655|POST /v1/*|1|0|2|1|0|2;498655|GET /a|0|1|0|0|0|0;"}"#,
    );
    let state = KeyState::from_rows([(0, body.to_owned())]).unwrap();
    assert_eq!(state.to_row().body, body.replace(r#""seq":2"#, r#""seq":3"#));
    assert_eq!(unflushed(&state), [(0, "GET /a".to_owned(), 0, 1, 0)]);
    assert_eq!(metered().to_row().body, r#"{"v":1,"seq":1,"e":"e1","t":0,"h":""}"#);
    for wrong in ["x", "1", "1|a", "1|a|0|0|0|0|0", "2|a|0|0|0|0|0|0;1|a|0|0|0|0|0|0;"] {
        let row = format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"h":"{wrong}"}}"#);
        let error = KeyState::from_rows([(3, row)]).unwrap_err();
        assert_eq!(error.to_string(), "row in slot 3 cannot be read: not hours", "{wrong}");
    }
}

/// Rows from before hours were counted.
#[test]
fn a_row_without_hours_is_read() {
    let body = r#"{"v":1,"seq":9,"e":"e","t":1795160894000000,"m":[[202611,9,0,0,9,0,9,0]]}"#;
    let mut state = KeyState::from_rows([(0, body.to_owned())]).unwrap();
    assert_eq!(unflushed(&state), []);
    state.judge_call(&[], START, &of_class("GET /a"));
    assert_eq!(unflushed(&state), [(0, "GET /a".into(), 1, 0, 2)]);
    assert_eq!(state.month(Month::of(START)).calls, 10);
}

fn keyed(nonce: u64, key: &str) -> CallToJudge<'_> {
    asking(nonce, key, "/a")
}

fn asking<'a>(nonce: u64, key: &'a str, path: &str) -> CallToJudge<'a> {
    let fingerprint = Some(Fingerprint::of("POST", path, None));
    CallToJudge { nonce, idempotency_key: Some(key), fingerprint, ..CALL }
}

fn replay_policies() -> [Policy; 3] {
    [
        fixed("minute", 5, Period::Minute),
        fixed("month", 5, Period::Month),
        Policy::new("tokens", Unit::Tokens, 9, Period::Minute, Algorithm::Fixed, None).unwrap(),
    ]
}

/// One letter for each answer: admitted, denied, replayed for free, replayed and charged, a free
/// replay denied, one denied that would be charged, conflict, another request.
fn ask(state: &mut KeyState, at: UnixMicros, call: &CallToJudge<'_>) -> char {
    match state.judge_call(&replay_policies(), at, call) {
        Judgement::Recalled { .. } => unreachable!("not asked about twice"),
        Judgement::Decided(decision) if decision.is_admitted() => 'a',
        Judgement::Decided(_) => 'd',
        Judgement::Replay { decision, is_free } if decision.is_admitted() => {
            if is_free {
                'r'
            } else {
                'R'
            }
        }
        Judgement::Replay { is_free, .. } => {
            if is_free {
                'D'
            } else {
                'E'
            }
        }
        Judgement::Conflict { .. } => 'c',
        Judgement::Mismatch { .. } => 'x',
    }
}

fn used(state: &mut KeyState, at: UnixMicros) -> [u64; 3] {
    let standings = state.usage(&replay_policies(), at).policies;
    [standings[0].used, standings[1].used, standings[2].used]
}

#[test]
fn a_repeat_is_a_conflict_then_a_replay_then_new() {
    let mut state = metered();
    assert_eq!(ask(&mut state, START, &keyed(1, "k")), 'a');
    state = reread(&mut state);
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'c');
    assert!(!state.is_dirty() && !state.recalls(2));
    end(&mut state, 2);
    assert!(!state.has_uncommitted_notes());
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'c');
    end(&mut state, 1);
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
    // The month has no room left, which does not matter to a replay. Another key's first call is
    // charged.
    let later = day.saturating_add(MAX_FLIGHT);
    assert_eq!(ask(&mut state, later.saturating_sub(1000), &keyed(6, "k")), 'c');
    assert_eq!(ask(&mut state, later, &keyed(6, "k")), 'r');
    assert_eq!(ask(&mut state, later, &keyed(7, "other")), 'd');
    end(&mut state, 7);
    assert_eq!(ask(&mut state, later, &keyed(7, "other")), 'd');
    assert_eq!(used(&mut state, later), [2, 4, 0]);
}

#[test]
fn a_retry_of_a_question_is_no_repeat() {
    let mut state = metered();
    let policies = replay_policies();
    assert_eq!(ask(&mut state, START, &keyed(1, "k")), 'a');
    let recall = |state: &mut KeyState, call: &CallToJudge<'_>| match state.clone().judge_once(&policies, START, call) {
        Judgement::Recalled { is_replay: false, .. } => 'a',
        Judgement::Recalled { is_replay: true, .. } => 'r',
        _ => '-',
    };
    assert_eq!(recall(&mut metered(), &keyed(1, "k")), '-');
    assert_eq!(recall(&mut state, &keyed(1, "k")), 'a');
    state = reread(&mut state);
    assert_eq!(recall(&mut state, &keyed(1, "k")), 'a');
    assert_eq!(recall(&mut state, &keyed(2, "k")), '-');
    assert!(!state.is_dirty());
    end(&mut state, 1);
    assert_eq!(ask(&mut state, START, &keyed(2, "k")), 'r');
    assert_eq!(recall(&mut state, &keyed(2, "k")), 'r');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
}

/// A call that takes longer than its nonce is known is recognised by its idempotency key.
#[test]
fn a_call_in_flight_is_recalled_for_as_long_as_it_lasts() {
    let mut state = metered();
    assert_eq!(ask(&mut state, START, &keyed(1, "k")), 'a');
    for call in 0..200 {
        let now = START.saturating_add(call * SECOND);
        assert!(state.judge_call(&[], now, &CallToJudge { nonce: 100 + call, ..CALL }).is_admitted());
        state.committed();
        state.confirmed(state.last_commit());
    }
    assert!(state.recalls(1) && !state.recalls(100));
    end(&mut state, 1);
    assert!(!state.recalls(1));
}

/// Marks that a clock that fell back leaves as they are need no new row.
#[test]
fn a_clock_that_falls_back_to_a_mark_writes_no_chunk_again() {
    let mut state = metered();
    for call in 0..512 {
        state.judge_call(&[], START, &keyed(call, &format!("key {call}")));
    }
    assert_eq!(state.to_rows().replays.len(), 1);
    state.judge_call(&[], START.saturating_add(10 * MINUTE), &CallToJudge { nonce: 1000, ..CALL });
    state.committed();
    state.usage(&[], START);
    assert!(state.to_rows().replays.is_empty());
    state.usage(&[], START.saturating_sub(10 * MINUTE));
    assert_eq!(state.to_rows().replays.len(), 1);
}

/// A call whose key was forgotten meanwhile, and taken by another call that is in flight, was a replay all the same.
#[test]
fn a_retry_of_a_replay_is_a_replay_whatever_its_key_is_now() {
    let policies = replay_policies();
    let mut state = metered();
    let day = START.saturating_add(DAY);
    assert_eq!(ask(&mut state, START, &keyed(1, "k")), 'a');
    end(&mut state, 1);
    assert_eq!(ask(&mut state, day.saturating_sub(SECOND), &keyed(2, "k")), 'r');
    let now = day.saturating_add(SECOND);
    assert_eq!(ask(&mut state, now, &keyed(3, "k")), 'a');
    let recalled = state.judge_once(&policies, now, &keyed(2, "k"));
    assert!(matches!(recalled, Judgement::Recalled { is_replay: true, .. }), "{recalled:?}");
    let recalled = state.judge_once(&policies, now, &keyed(3, "k"));
    assert!(matches!(recalled, Judgement::Recalled { is_replay: false, .. }), "{recalled:?}");
}

/// A question that is asked again may overtake the first, and a third may come late.
#[test]
fn a_question_is_counted_once_in_whatever_order_it_arrives() {
    let policies = [fixed("minute", 5, Period::Minute)];
    for idempotency_key in [None, Some("k")] {
        let mut state = metered();
        let call = |nonce| CallToJudge { nonce, idempotency_key: idempotency_key.filter(|_| nonce == 1), ..CALL };
        let first = state.judge_once(&policies, START, &call(1));
        assert!(matches!(&first, Judgement::Decided(decision) if decision.is_admitted()), "{first:?}");
        assert!(state.judge_once(&policies, START, &call(2)).is_admitted());
        assert!(!state.judge_once(&policies, START, &call(3)).is_admitted());
        // Admitted again although the window is full, and spent once.
        assert!(matches!(state.judge_once(&policies, START, &call(1)), Judgement::Recalled { is_replay: false, .. }));
        let total = state.month(Month::of(START));
        assert_eq!((total.calls, total.denied, total.cost), (2, 1, 4));
        // What was denied is not known, and is judged again.
        assert!(state.judge_once(&policies, START.saturating_add(60 * SECOND), &call(3)).is_admitted());
        let read = reread(&mut state);
        assert!([1, 2, 3].iter().all(|nonce| read.recalls(*nonce)));
    }
}

/// The first denied attempt is forgotten; so is what is older than the newest that can be
/// remembered.
#[test]
fn what_is_remembered_is_bounded() {
    let mut state = metered();
    let (mut chunks, mut over) = (BTreeMap::new(), Vec::new());
    let key = |call: usize| format!("key {call}");
    let at = |call: usize| START.saturating_add(SECOND / 10 * u64::try_from(call).unwrap());
    let mut written = 0;
    for call in 0..MAX_REPLAYS + 2000 {
        let nonce = u64::try_from(call).unwrap();
        let key = key(call);
        let call = keyed(nonce, &key);
        assert!(state.judge_call(&[], at(usize::try_from(nonce).unwrap()), &call).is_admitted());
        if nonce % 100 == 0 {
            let rows = state.to_rows();
            written += rows.replays.len() + rows.replays_over.len();
            chunks.extend(rows.replays.into_iter().map(|row| (row.id, row.body)));
            over.extend(rows.replays_over);
            state.committed();
            state.confirmed(state.last_commit());
        }
    }
    // Calls that never ended make the row no larger than this.
    let flights = state.to_row().body.split_once(r#""i":"#).unwrap().1.matches(';').count() - 1;
    assert_eq!(flights, MAX_IN_FLIGHT);
    assert!(state.to_row().body.len() < 110_000, "{}", state.to_row().body.len());
    assert!(written <= 2 * (MAX_REPLAYS + 2000) / 512, "{written}");
    let last = at(MAX_REPLAYS + 2000);
    let known = |state: &KeyState, call: usize| {
        let policies = [fixed("month", 0, Period::Month)];
        let judgement = state.clone().judge_call(&policies, last, &keyed(0, &key(call)));
        matches!(judgement, Judgement::Replay { is_free: true, .. })
    };
    assert!(known(&state, 2000) && !known(&state, 0));
    assert!(!over.is_empty());
    for id in &over {
        chunks.remove(id);
    }
    assert_eq!(chunks.len(), MAX_REPLAYS / 512);
    let StateRow { slot, body } = state.to_row();
    let mut read = KeyState::from_rows([(slot, body)]).unwrap();
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
        let call = keyed(call, &key);
        assert!(state.judge_call(&[], ahead, &call).is_admitted());
        state.complete(ahead, ended(call.nonce), false);
        chunks.extend(state.to_rows().replays.into_iter().map(|row| (row.id, row.until)));
        state.committed();
        state.confirmed(state.last_commit());
    }
    assert_eq!(chunks, BTreeMap::from([(0, ahead.saturating_add(DAY))]));
    // A replay, denied: the minute has what was spent just before the clock came back.
    assert_eq!(ask(&mut state, START, &keyed(1000, "key 1")), 'D');
    let rows = state.to_rows();
    assert_eq!((rows.replays[0].id, rows.replays[0].until), (0, START.saturating_add(DAY)));
    for key in ["key 1", "key 599"] {
        let mut state = state.clone();
        assert_eq!(ask(&mut state, START.saturating_add(DAY - 1), &keyed(1001, key)), 'r');
        assert_eq!(ask(&mut state, START.saturating_add(DAY), &keyed(1001, key)), 'a');
    }
}

#[test]
fn the_stored_form_of_idempotency_keys_is_frozen() {
    let mut state = KeyState::new("e".into());
    let call = CallToJudge { cost: Cost { requests: 2, tokens: 0 }, ..keyed(7, "order-7") };
    assert_eq!(ask(&mut state, START.saturating_add(1), &call), 'a');
    let row = state.to_row();
    let end = r#""n":[7],"h":"498655|POST /a|1|0|2|0|0|0;","i":"DAwnbvvzT6Vq__s_LykELYA_RcMAAAAA|0|2;7|868112185802575781|1795160894000;"}"#;
    assert!(row.body.ends_with(end), "{}", row.body);
    let other = |i: &str| KeyState::from_rows([(3, format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"i":"{i}"}}"#))]);
    assert!(other("|7;").is_ok());
    for wrong in ["", "x|0", "AAAAAAAAAAAAAAAAAAAA|0", "|0;1|2", "|0|1;", "|0|3;", "|0|;", "AAAAAAAAAAAAAAAA|0|2;"] {
        assert_eq!(other(wrong).unwrap_err().to_string(), "row in slot 3 cannot be read: not idempotency keys");
    }
    let mut state = other("|7|2;").unwrap();
    for wrong in ["AAAA", "AAAAAAAAAAAAAAACAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAACx"] {
        let error = state.load_replays([(5, wrong.to_owned())]).unwrap_err();
        assert_eq!(error.to_string(), "row in slot 5 cannot be read: not idempotency keys");
    }
}

/// Rows of the first version, which did not say what a call had asked for.
#[test]
fn a_mark_of_the_first_form_is_never_free() {
    let body =
        r#"{"v":1,"seq":9,"e":"e","t":1795160894000000,"i":"DAwnbvvzT6Vq__s_|1;7|868112185802575781|1795160894000;"}"#;
    let mut state = KeyState::from_rows([(0, body.to_owned())]).unwrap();
    // The marks of "key 1" and of the key 0, which is before all others.
    let chunk = "AAAAAAAAAAAAAAAAZ2UVl1W5oJpq__s-".to_owned();
    state.load_replays([(0, chunk)]).unwrap();
    assert_eq!(ask(&mut state, START, &keyed(8, "order-7")), 'c');
    assert_eq!(ask(&mut state, START, &CallToJudge { fingerprint: None, ..keyed(8, "order-7") }), 'c');
    end(&mut state, 7);
    for key in ["order-7", "key 1"] {
        let mut state = state.clone();
        let at = |hours| START.saturating_add(hours * HOUR);
        // The first that says what it asks for is what further ones must ask for too.
        let all = [
            ask(&mut state, START, &CallToJudge { fingerprint: None, ..keyed(8, key) }),
            ask(&mut state, at(1), &asking(9, key, "/b")),
            ask(&mut state, at(2), &asking(10, key, "/b")),
            ask(&mut state, at(2), &asking(11, key, "/a")),
        ];
        assert_eq!(all, ['R', 'R', 'r', 'x'], "{key}");
        assert_eq!(used(&mut state, at(2)), [2, 4, 0], "{key}");
    }
}

#[test]
fn another_request_with_the_same_key_is_refused() {
    let mut state = metered();
    let audited = |path| CallToJudge { is_audited: true, ..asking(2, "k", path) };
    assert_eq!(ask(&mut state, START, &audited("/a")), 'a');
    let before = (used(&mut state, START), state.month(Month::of(START)), unflushed(&state));
    // Also while the first is in flight.
    assert_eq!(ask(&mut state, START, &audited("/b")), 'x');
    end(&mut state, 2);
    state = reread(&mut state);
    for call in [
        audited("/b"),
        audited("/a/"),
        CallToJudge { fingerprint: Some(Fingerprint::of("PUT", "/a", None)), ..audited("/a") },
    ] {
        assert_eq!(ask(&mut state, START, &call), 'x');
    }
    assert_eq!((used(&mut state, START), state.month(Month::of(START)), unflushed(&state)), before);
    assert!(!state.is_dirty() && !state.has_uncommitted_denials());
    let statuses: Vec<u16> =
        entries(&tail(&state), START, START.saturating_add(DAY), 9).iter().map(|e| e.status).collect();
    assert_eq!(statuses, [200, 422]);
    assert_eq!(ask(&mut state, START, &audited("/a")), 'r');
}

#[test]
fn five_repeats_are_free_and_all_others_are_charged() {
    let mut state = metered();
    let policies = [fixed("month", 8, Period::Month)];
    let mut nonce = 0;
    let mut judge = |state: &mut KeyState, key: &str| {
        nonce += 1;
        let call = CallToJudge { is_audited: true, ..keyed(nonce, key) };
        let judgement = state.judge_call(&policies, START, &call);
        state.complete(START, ended(nonce), false);
        // Whatever is lost between two calls.
        let chunks = state.to_rows().replays;
        assert!(chunks.is_empty());
        *state = reread(state);
        match judgement {
            Judgement::Decided(decision) => {
                if decision.is_admitted() {
                    'a'
                } else {
                    'd'
                }
            }
            Judgement::Replay { decision, is_free } => match (decision.is_admitted(), is_free) {
                (true, true) => 'r',
                (true, false) => 'R',
                (false, _) => 'E',
            },
            _ => '?',
        }
    };
    // Each costs 2.
    let all: String = (0..20).map(|_| judge(&mut state, "k")).collect();
    assert_eq!(all, format!("a{}RRR{}", "r".repeat(5), "E".repeat(11)));
    assert_eq!(FREE_REPEATS, 5);
    assert_eq!(judge(&mut state, "other"), 'd');
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.cost, month.tokens, month.denied), (9, 8, 20, 12));
    let costs: Vec<u64> = entries(&tail(&state), START, START.saturating_add(DAY), 50)
        .iter()
        .filter(|e| e.status == 200)
        .map(|e| e.cost)
        .collect();
    assert_eq!(costs, [2, 0, 0, 0, 0, 0, 2, 2, 2]);
}

/// The count of free repeats is with the newest mark, wherever the others are.
#[test]
fn free_repeats_are_counted_across_chunks() {
    let mut state = metered();
    let (mut chunks, mut nonce) = (BTreeMap::new(), 0);
    let mut call = |state: &mut KeyState, key: &str| {
        nonce += 1;
        let judgement = state.judge_call(&[], START, &keyed(nonce, key));
        state.complete(START, ended(nonce), false);
        let rows = state.to_rows();
        chunks.extend(rows.replays.into_iter().map(|row| (row.id, row.body)));
        state.committed();
        if key == "k" {
            *state = KeyState::from_rows([(0, state.to_row().body)]).unwrap();
            state.load_replays(chunks.clone()).unwrap();
        }
        matches!(judgement, Judgement::Replay { is_free: true, .. })
    };
    assert!(!call(&mut state, "k"));
    for round in 0..7 {
        for other in 0..520 {
            assert!(!call(&mut state, &format!("{round}/{other}")));
        }
        assert_eq!(call(&mut state, "k"), round < 5, "{round}");
    }
    assert_eq!(chunks.len(), 7);
}

#[test]
fn a_denial_that_replays_would_get_too_is_known_as_such() {
    let policies = [fixed("minute", 2, Period::Minute), fixed("month", 4, Period::Month)];
    let mut state = metered();
    let mut judge = |at, key| {
        let call = keyed(1, key);
        let Judgement::Decided(decision) = state.judge_call(&policies, at, &call) else { panic!("a replay") };
        state.complete(at, ended(1), false);
        let alike = state.judges_replays_alike(&policies, at, call.cost, &decision.verdict);
        (decision.is_admitted(), alike)
    };
    // The minute is used up, the month not.
    assert_eq!([judge(START, "a"), judge(START, "b")], [(true, false), (false, true)]);
    let next = START.saturating_add(MINUTE);
    assert_eq!(judge(next, "c"), (true, false));
    // Both are: a replay would have to wait for the minute alone.
    assert_eq!(judge(next, "d"), (false, false));
    assert_eq!(judge(next.saturating_add(MINUTE), "d"), (false, false));
    // In the last minute of the month both end together, but not for the same reason.
    let last = Month::of(START).end().saturating_sub(SECOND);
    let mut state = metered();
    state.judge_call(&policies, last, &keyed(1, "a"));
    state.charge_calls(last, 1, Cost { requests: 2, tokens: 0 });
    let Judgement::Decided(decision) = state.judge_call(&policies, last, &keyed(2, "b")) else { panic!("a replay") };
    assert!(!state.judges_replays_alike(&policies, last, CALL.cost, &decision.verdict));
}

/// A free replay spends no tokens, so a denial by tokens alone is none for it.
#[test]
fn a_denial_by_tokens_is_not_one_that_replays_would_get() {
    for quota in [4, 9] {
        let policies = [Policy::new("tokens", Unit::Tokens, quota, Period::Minute, Algorithm::Fixed, None).unwrap()];
        let mut state = metered();
        state.charge_calls(START, 1, CALL.cost);
        let Judgement::Decided(decision) = state.judge_call(&policies, START, &keyed(2, "b")) else {
            panic!("a replay")
        };
        assert!(!decision.is_admitted());
        assert!(!state.judges_replays_alike(&policies, START, CALL.cost, &decision.verdict), "{quota}");
    }
}

/// A row that was not written may have left chunks behind.
#[test]
fn chunks_that_the_row_does_not_know_are_ignored_and_deleted() {
    let mut state = metered();
    for call in 0..511_u64 {
        assert!(state.judge_call(&[], START, &keyed(call, &format!("key {call}"))).is_admitted());
        state.complete(START, ended(call), false);
    }
    let row = state.to_row().body;
    assert!(state.judge_call(&[], START, &keyed(511, "key 511")).is_admitted());
    let lost = state.to_rows().replays;
    assert_eq!(lost.len(), 1);
    let mut read = KeyState::from_rows([(0, row)]).unwrap();
    read.load_replays(lost.iter().map(|row| (row.id, row.body.clone()))).unwrap();
    assert!(matches!(
        read.clone().judge_call(&[], START, &keyed(600, "key 510")),
        Judgement::Replay { is_free: true, .. }
    ));
    assert!(matches!(read.judge_call(&[], START, &keyed(512, "key 511")), Judgement::Decided(_)));
    // What is deleted comes before what is written: it has the same number here.
    let rows = read.to_rows();
    assert_eq!((rows.replays_over, rows.replays[0].id), (vec![0], 0));
}

fn audited(nonce: u64, class: &str) -> CallToJudge<'_> {
    CallToJudge { method: "GET", class, nonce, is_audited: true, ..CALL }
}

/// All entries between two times, read page by page.
fn entries(chunks: &[(u64, String)], from: UnixMicros, to: UnixMicros, limit: usize) -> Vec<AuditEntry> {
    let (mut all, mut cursor) = (Vec::new(), None);
    for _ in 0..2_000 {
        let mut reader = AuditReader::new(AuditQuery { from, to, cursor, limit });
        for (seq, body) in chunks {
            if cursor.is_none_or(|cursor: AuditCursor| *seq >= cursor.seq) && !reader.feed(*seq, body).unwrap() {
                break;
            }
        }
        let (page, next) = reader.finish();
        assert!(page.len() == limit || (next.is_none() && page.len() < limit));
        all.extend(page);
        let Some(next) = next else { return all };
        assert_eq!(next.to_string().parse(), Ok(next));
        cursor = Some(next);
    }
    panic!("the pages do not end");
}

fn tail(state: &KeyState) -> Vec<(u64, String)> {
    state.audit_tail().into_iter().map(|(seq, text)| (seq, text.into_owned())).collect()
}

fn log(state: &KeyState) -> Vec<String> {
    let show = |entry: AuditEntry| {
        let at = entry.at.since(START) / 1000;
        let AuditEntry { method, class, status, is_replay, cost, idempotency_key, count, end, .. } = entry;
        let replay = if is_replay { "replay " } else { "" };
        format!("{at} {method} [{class}] {status} {replay}{cost} {idempotency_key:?} x{count} {end:?}")
    };
    entries(&tail(state), START, START.saturating_add(DAY), 2).into_iter().map(show).collect()
}

#[test]
fn calls_are_in_the_audit_log() {
    let policies = [fixed("minute", 3, Period::Minute), fixed("month", 10, Period::Month)];
    let mut state = metered();
    let at = |millis: u64| START.saturating_add(millis * 1000);
    let judge = |state: &mut KeyState, millis: u64, call: &CallToJudge<'_>| {
        state.judge_call(&policies, at(millis), call);
    };
    let fingerprint = Some(Fingerprint::of("POST", "/v1", None));
    judge(&mut state, 0, &CallToJudge { idempotency_key: Some("a;b|c\n~\"ö"), fingerprint, ..audited(1, "GET /v1") });
    judge(&mut state, 0, &CallToJudge { is_audited: false, ..audited(2, "GET /v1") });
    judge(&mut state, 10, &audited(3, "/v1/*"));
    judge(&mut state, 20, &audited(4, "/v1/*"));
    judge(&mut state, 30, &CallToJudge { idempotency_key: Some("a;b|c\n~\"ö"), ..audited(5, "GET /v1") });
    judge(&mut state, 40, &CallToJudge { cost: Cost { requests: 99, tokens: 0 }, ..audited(6, "GET /x\t|") });
    state.refuse_call(at(50), &audited(7, "GET ~/é"), 403);
    state.refuse_call(at(60), &CallToJudge { is_audited: false, ..audited(8, "GET /v1") }, 403);
    assert!(state.has_uncommitted_notes());
    state = reread(&mut state);
    assert!(!state.has_uncommitted_notes());
    state.complete(at(90), CallOutcome { nonce: 1, status: 502, duration_ms: 90 }, true);
    assert!(state.has_uncommitted_notes() && !state.is_dirty());
    state.complete(at(95), CallOutcome { nonce: 1, status: 200, duration_ms: 95 }, true);
    state.complete(at(95), CallOutcome { nonce: 77, status: 200, duration_ms: 95 }, true);
    // The next window.
    judge(
        &mut state,
        60_000,
        &CallToJudge { idempotency_key: Some("a;b|c\n~\"ö"), fingerprint, ..audited(9, "GET /v1") },
    );
    let expected = [
        r#"0 GET [GET /v1] 200 2 Some("a;b|c\n~\"ö") x1 Some((502, 90))"#,
        r"10 GET [/v1/*] 429 2 None x2 None",
        r#"30 GET [GET /v1] 409 2 Some("a;b|c\n~\"ö") x1 None"#,
        r"40 GET [GET /x\u{9}|] 400 99 None x1 None",
        r"50 GET [GET ~/é] 403 2 None x1 None",
        r#"60000 GET [GET /v1] 200 replay 0 Some("a;b|c\n~\"ö") x1 None"#,
    ]
    .map(|line| line.replace(r"\u{9}", "\t"));
    assert_eq!(log(&state), expected);
    assert_eq!(log(&reread(&mut state)), expected);
}

#[test]
fn refusals_of_a_second_are_one_entry() {
    let policies = [fixed("minute", 0, Period::Minute)];
    let mut state = metered();
    let refuse = |state: &mut KeyState, millis: u64, class: &str, key| {
        let call = CallToJudge { idempotency_key: key, ..audited(millis, class) };
        assert!(!state.judge_call(&policies, START.saturating_add(millis * 1000), &call).is_admitted());
        state.refuse_call(START.saturating_add(millis * 1000), &call, 403);
    };
    for step in 0..10 {
        refuse(&mut state, step * 150, ["GET /a", "GET /b"][usize::try_from(step % 2).unwrap()], Some("k"));
    }
    refuse(&mut state, 1499, "GET /a", Some("other"));
    let line = |at, class, status, key: &str, count| format!("{at} GET [GET /{class}] {status} 2 {key} x{count} None");
    let expected = [
        (0, "a", "Some(\"k\")", 4),
        (150, "b", "Some(\"k\")", 3),
        (1050, "b", "Some(\"k\")", 2),
        (1200, "a", "None", 2),
    ];
    let expected = expected.map(|(at, class, key, count)| [400, 403].map(|status| line(at, class, status, key, count)));
    assert_eq!(log(&state), expected.concat());
    state = reread(&mut state);
    // However long it goes on and whatever is asked for: bounded.
    for step in 0..20_000_u64 {
        refuse(&mut state, 2000 + step * 90, &format!("GET /{}", step % 300), None);
        if step % 1000 == 0 {
            state = reread(&mut state);
        }
    }
    assert!(state.to_rows().audit.is_empty());
    assert!(state.to_row().body.len() < 5000, "{}", state.to_row().body.len());
    let entries = entries(&tail(&state), START, START.saturating_add(DAY), 500);
    assert_eq!(entries.iter().map(|entry| entry.count).sum::<u64>(), 22 + 40_000);
}

/// Refusals of a 65th class are of class "other", apart by their status.
#[test]
fn refusals_of_too_many_classes_are_of_class_other() {
    let mut state = metered();
    let refuse = |state: &mut KeyState, method, class: &str, status| {
        state.refuse_call(START, &CallToJudge { method, ..audited(1, class) }, status);
    };
    for class in 0..64 {
        refuse(&mut state, "GET", &format!("GET /{class}"), [403, 429][class % 2]);
    }
    refuse(&mut state, "GET", "GET /64", 403);
    refuse(&mut state, "POST", "POST /65", 403);
    refuse(&mut state, "PUT", "PUT /66", 429);
    refuse(&mut state, "GET", "GET /67", 429);
    refuse(&mut state, "GET", "GET /0", 403);
    refuse(&mut state, "POST", "GET /2", 403);
    for state in [&mut state.clone(), &mut reread(&mut state)] {
        let entries = entries(&tail(state), START, START.saturating_add(1), 500);
        assert_eq!(entries.len(), 66);
        let of = |entry: &AuditEntry| (entry.method.clone(), entry.class.clone(), entry.status, entry.count);
        assert_eq!(of(&entries[0]), ("GET".to_owned(), "GET /0".to_owned(), 403, 2));
        assert!(entries[1..64].iter().all(|entry| entry.method == "GET" && entry.count == 1));
        assert_eq!(of(&entries[64]), (String::new(), "other".to_owned(), 403, 3));
        assert_eq!(of(&entries[65]), (String::new(), "other".to_owned(), 429, 2));
    }
}

/// The end of a call is looked for in the quarter of an hour after it.
#[test]
fn a_call_that_took_longer_than_15_minutes_has_no_known_end() {
    let mut state = metered();
    for nonce in [1, 2] {
        state.judge_call(&[], START, &audited(nonce, "/v1"));
        state.complete(START.saturating_add((899_999 + nonce) * 1000), ended(nonce), true);
    }
    let ends: Vec<_> = entries(&tail(&state), START, START.saturating_add(1), 9).into_iter().map(|e| e.end).collect();
    assert_eq!(ends, [Some((201, 190)), None]);
}

#[test]
fn a_full_tail_becomes_a_chunk() {
    let mut state = metered();
    let mut chunks = Vec::new();
    let mut kept = 0;
    for call in 0..1000_u64 {
        let at = START.saturating_add(call * SECOND);
        let key = format!("{call:0255}{call}");
        let idempotency_key = (call >= 500).then_some(key.as_str());
        state.judge_call(&[], at, &CallToJudge { idempotency_key, ..audited(call, "GET /v1") });
        state.complete(at, CallOutcome { nonce: call.saturating_sub(30), ..ended(0) }, true);
        if call % 7 == 0 {
            let rows = state.to_rows();
            for row in rows.audit {
                assert_eq!(row.seq, u64::try_from(chunks.len()).unwrap());
                assert!((4096..4400).contains(&row.body.len()), "{}", row.body.len());
                assert!(row.from <= row.to && row.to <= at);
                chunks.push((row.seq, row.body));
            }
            kept = kept.max(rows.row.body.len());
            state.committed();
            state.confirmed(state.last_commit());
        }
    }
    assert!(kept < 30_000, "{kept}");
    assert!((15..25).contains(&chunks.len()), "{}", chunks.len());
    chunks.extend(state.to_rows().audit.into_iter().map(|row| (row.seq, row.body)));
    state.committed();
    state.confirmed(state.last_commit());
    let read = reread(&mut state);
    assert_eq!(read.audit_tail(), state.audit_tail());
    chunks.extend(tail(&state));
    let from = START.saturating_add(10 * SECOND);
    let found = entries(&chunks, from, START.saturating_add(990 * SECOND), 37);
    let times: Vec<u64> = found.iter().map(|entry| entry.at.since(START) / SECOND).collect();
    assert_eq!(times, (10..990).collect::<Vec<_>>());
    assert!(found[..960].iter().all(|entry| entry.end == Some((201, 190))));
    assert_eq!(found[979].idempotency_key.as_deref().unwrap().chars().count(), 64);
    // A reader asks for no more than it needs.
    let query = AuditQuery { from, to: START.saturating_add(DAY), cursor: None, limit: 20 };
    let mut reader = AuditReader::new(query);
    let fed = chunks.iter().take_while(|(seq, body)| reader.feed(*seq, body).unwrap()).count();
    assert!(fed <= 1, "{fed}");
    // Nobody knows how the last ones ended.
    let mut reader = AuditReader::new(AuditQuery { from: START.saturating_add(980 * SECOND), ..query });
    assert!(chunks.iter().all(|(seq, body)| reader.feed(*seq, body).unwrap()));
    let (page, next) = reader.finish();
    assert_eq!((page.len(), next), (20, None));
    assert_eq!(page[19].end, None);
}

#[test]
fn an_idempotency_key_takes_at_most_64_bytes_of_the_log() {
    let judge = |key: &str| {
        let mut state = KeyState::new("e".into());
        state.judge_call(&[], START, &CallToJudge { idempotency_key: Some(key), ..audited(1, "GET /v1") });
        let body = state.to_row().body;
        let taken = body.split_once("~/v1|2|").unwrap().1.split_once("|1;").unwrap().0.to_owned();
        assert!(taken.len() <= 64, "{taken}");
        let fixed = [fixed("minute", 0, Period::Minute)];
        // The same of one that was refused, and of one that was read.
        for _ in 0..2 {
            state.judge_call(&fixed, START, &CallToJudge { idempotency_key: Some(key), ..audited(2, "GET /v2") });
        }
        let entries = entries(&tail(&reread(&mut state)), START, START.saturating_add(DAY), 9);
        assert_eq!((entries.len(), &entries[0].idempotency_key), (2, &entries[1].idempotency_key));
        (taken, entries[0].idempotency_key.clone().unwrap())
    };
    for key in ["order-7", "a;b|c~", &"x".repeat(64), &"|".repeat(21)] {
        assert_eq!(judge(key).1, key);
    }
    // The digits are of SHA-256, as `sha256sum` prints them.
    let (taken, shown) = judge(&"x".repeat(65));
    assert_eq!(taken, format!("{}~9537c5fdf120482f", "x".repeat(47)));
    assert_eq!(shown, format!("{}…9537c5fdf120482f", "x".repeat(47)));
    let (taken, shown) = judge(&"|".repeat(255));
    assert_eq!((taken.len(), shown.as_str()), (62, format!("{}…443d717569113ba1", "|".repeat(15)).as_str()));
    // An escape is shown whole or not at all.
    for (before, beginning) in
        [(45, "x".repeat(45)), (44, "x".repeat(44) + "|"), (20, "x".repeat(20) + "|" + &"y".repeat(24))]
    {
        let (_, shown) = judge(&format!("{}|{}", "x".repeat(before), "y".repeat(200)));
        assert!(shown.starts_with(&format!("{beginning}…")), "{shown}");
    }
    // Rows of the first version hold them whole.
    let key = "%7C".repeat(255);
    let text = format!("1795160894000;a|0|POST|~/v1|2|{key}|1;d|0|POST|/v2|2|{key}|429|1|1|0;");
    let body = format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"a":"0;{text}"}}"#);
    let mut state = KeyState::from_rows([(0, body)]).unwrap();
    let whole = Some("|".repeat(255));
    assert!(
        entries(&tail(&reread(&mut state)), START, START.saturating_add(DAY), 9)
            .iter()
            .all(|e| e.idempotency_key == whole)
    );
}

/// With every chunk that is written at the cap, more bytes are deleted than are added.
#[test]
fn the_audit_log_makes_room_for_itself() {
    assert_eq!([0, 999, 1_000].map(|size| audit_surplus(size, 1_000, 90_000)), [0; 3]);
    let cap = 100_000_000;
    let mut chunks = std::collections::VecDeque::new();
    let (mut size, mut seed) = (0_u64, 7_u64);
    for written in 0..20_000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Long ones come after short ones, and the other way round.
        let added = if written / 1_000 % 2 == 0 { 4096 + seed % 100 } else { 60_000 + seed % 30_000 };
        let surplus = audit_surplus(size, cap, usize::try_from(added).unwrap());
        assert!(surplus <= 23, "{surplus}");
        for _ in 0..surplus {
            size -= chunks.pop_front().unwrap_or_default();
        }
        chunks.push_back(added);
        size += added;
        assert!(size <= cap + 90_000, "{size}");
        assert!(written < 4_000 || size > cap - 23 * 90_000, "{size}");
    }
    assert_eq!(AUDIT_BYTES, 1 << 30);
}

#[test]
fn the_audit_log_expires() {
    let mut state = metered();
    state.judge_call(&[], START, &audited(1, "GET /v1"));
    state.committed();
    state.confirmed(state.last_commit());
    let over = audit_over(START.saturating_add(7 * DAY), 7);
    assert_eq!((over, audit_over(START, 0)), (START, START));
    state.forget_audit(over.saturating_sub(1));
    assert!(!state.is_dirty() && log(&state).len() == 1);
    state.forget_audit(over);
    assert!(state.is_dirty() && log(&state).is_empty());
    assert_eq!(state.audit_tail(), [(1, "".into())]);
    assert_eq!(reread(&mut state).audit_tail(), [(1, "".into())]);
    // What was read says of which time it is.
    for second in [0, 10] {
        state.judge_call(&[], START.saturating_add(second * SECOND), &audited(second, "GET /v1"));
    }
    let mut state = reread(&mut state);
    state.forget_audit(START.saturating_add(10 * SECOND - 1));
    assert!(!state.is_dirty() && log(&state).len() == 2);
    state.forget_audit(START.saturating_add(10 * SECOND));
    assert!(state.is_dirty() && log(&state).is_empty());
    assert_eq!(rfc3339(audit_next(START, 7)), "2026-11-28T00:00:00Z");
}

#[test]
fn the_stored_form_of_the_audit_log_is_frozen() {
    let mut state = KeyState::new("e".into());
    let policies = [fixed("minute", 2, Period::Minute)];
    state.judge_call(&policies, START, &CallToJudge { idempotency_key: Some("order 7;"), ..audited(2547, "GET /v1") });
    state.judge_call(&policies, START.saturating_add(500_000), &audited(2548, "/v1/*"));
    state.judge_call(&policies, START.saturating_add(590_000), &audited(2549, "/v1/*"));
    state.complete(START.saturating_add(610_000), ended(2547), true);
    let text = "1795160894000;a|0|GET|~/v1|2|order 7%3B|9f3;c|610|9f3|201|190;d|500|GET|/v1/*|2||429|2|1|590;";
    let body = state.to_row().body;
    assert!(body.ends_with(&format!(r#","a":"0;{text}"}}"#)), "{body}");
    let feed = |text: &str| AuditReader::new(ALL).feed(3, text).map_err(|error| error.to_string());
    assert_eq!([feed(text), feed(""), feed("1795160894000;")], [Ok(true), Ok(true), Ok(true)]);
    let other = |text: &str| KeyState::from_rows([(3, format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"a":"1;{text}"}}"#))]);
    for wrong in ["x", "1;b|0;", "1;;", "1;a|0|GET", "1;c|0|9f3|201", "1;a|-2|GET|/|1||2;", "1;a|0|GET|/|1||x;"] {
        assert_eq!(feed(wrong), Err("chunk 3 of the audit log cannot be read".to_owned()), "{wrong}");
        assert_eq!(other(wrong).unwrap_err().to_string(), "row in slot 3 cannot be read: not an audit log");
    }
    for wrong in ["", "1", "1-", "-1", "+1-1", "1-+1", "1-1-1", "99999999999999999999-1"] {
        assert_eq!(wrong.parse::<AuditCursor>(), Err(AuditCursorError), "{wrong}");
    }
    assert_eq!(AuditCursorError.to_string(), "not a cursor of this list");
}

const ALL: AuditQuery =
    AuditQuery { from: UnixMicros::from_micros(0), to: UnixMicros::from_micros(u64::MAX), cursor: None, limit: 500 };

/// The thresholds at which there is an alert after a call, and lets go of them.
fn alerts(state: &mut KeyState, quota: u64, at: UnixMicros, cost: u64) -> Vec<u16> {
    let policies = [fixed("minute", 1000, Period::Minute), fixed("month", quota, Period::Month)];
    let cost = Cost { requests: cost, tokens: 0 };
    state.judge_call(&policies, at, &CallToJudge { cost, thresholds: &[80, 100], ..CALL });
    let month = Month::of(at);
    let told = state.pending_alerts().to_vec();
    for alert in &told {
        assert_eq!((alert.policy.as_str(), alert.month, alert.quota, alert.at), ("month", month, quota, at));
        state.mark_alerted(alert);
    }
    assert!(state.pending_alerts().is_empty() && (told.is_empty() || state.is_dirty()));
    told.iter().map(|alert| alert.threshold).collect()
}

#[test]
fn an_alert_comes_once_and_again_after_a_raise() {
    let mut state = metered();
    let none: [u16; 0] = [];
    assert_eq!(alerts(&mut state, 10, START, 7), none);
    assert_eq!(alerts(&mut state, 10, START, 1), [80]);
    assert_eq!(alerts(&mut state, 10, START, 1), none);
    state = reread(&mut state);
    assert_eq!(alerts(&mut state, 10, START, 1), [100]);
    // Over quota and denied: it stands where it stood.
    for _ in 0..3 {
        assert_eq!(alerts(&mut state, 10, START, 1), none);
    }
    // Raised a little: still above 80 %, no longer at 100 %.
    assert_eq!(alerts(&mut state, 12, START, 1), none);
    assert_eq!(alerts(&mut state, 12, START, 1), [100]);
    // Raised well above, and crossed again.
    assert_eq!(alerts(&mut state, 20, START, 3), none);
    assert_eq!(alerts(&mut state, 20, START, 1), [80]);
    // Lowered under what is used: told by a call that is denied.
    assert_eq!(alerts(&mut state, 100, START, 1), none);
    assert_eq!(alerts(&mut state, 5, START, 1), [80, 100]);
    assert_eq!(alerts(&mut state, 5, START, 1), none);
    // The next month begins anew, and a clock between two months does not count twice.
    let december = Month::of(START).end();
    assert_eq!(alerts(&mut state, 5, december, 5), [80, 100]);
    assert_eq!(alerts(&mut state, 5, december.saturating_sub(HOUR), 1), none);
    assert_eq!(alerts(&mut state, 5, december, 1), none);
    // Marks go with their months: a clock may come back to one.
    for month in 2..6 {
        assert_eq!(alerts(&mut state, 5, december.saturating_add(month * 31 * DAY), 1), none);
        for total in state.meter().unflushed_months() {
            state.mark_flushed(&total);
        }
        assert_eq!(state.to_row().body.contains(r#","w":"#), month < 5);
    }
}

#[test]
fn an_alert_stays_until_it_is_told() {
    let mut state = metered();
    let policies = [
        fixed("month", 10, Period::Month),
        fixed("day", 1, Period::Day),
        Policy::new("tokens", Unit::Tokens, 1000, Period::Month, Algorithm::Fixed, None).unwrap(),
    ];
    let call = CallToJudge { cost: Cost { requests: 1, tokens: 800 }, thresholds: &[80], ..CALL };
    state.judge_call(&policies, START, &call);
    state = reread(&mut state);
    state.charge_calls(START, 8, Cost { requests: 8, tokens: 0 });
    assert_eq!(state.pending_alerts().len(), 1);
    state.judge_call(&policies, START, &call);
    let alert = |policy: &str, quota, used| {
        let (threshold, month, policy) = (80, Month::of(START), policy.to_owned());
        Alert { policy, threshold, month, quota, used, at: START }
    };
    assert_eq!(state.pending_alerts(), [alert("tokens", 1000, 800), alert("month", 10, 9)]);
    assert!(reread(&mut state).to_row().body.ends_with(concat!(
        r#""w":"tokens|80|202611;month|80|202611;"#,
        r#"tokens|80|202611|1000|800|1795160894000000;month|80|202611|10|9|1795160894000000;"}"#,
    )));
    // Raised and crossed again before it was told: the news takes its place, and telling the old
    // one changes nothing.
    let raised = [fixed("month", 20, Period::Month)];
    let call = CallToJudge { cost: Cost { requests: 7, tokens: 0 }, ..call };
    state.judge_call(&raised, START, &CallToJudge { cost: Cost { requests: 1, tokens: 0 }, ..call });
    state.judge_call(&raised, START, &call);
    assert_eq!(state.pending_alerts(), [alert("tokens", 1000, 800), alert("month", 20, 17)]);
    state.committed();
    state.confirmed(state.last_commit());
    state.mark_alerted(&alert("month", 10, 9));
    assert!(!state.is_dirty());
    state.mark_alerted(&alert("month", 20, 17));
    assert!(state.is_dirty());
    assert_eq!(reread(&mut state).pending_alerts(), [alert("tokens", 1000, 800)]);
    let wrong = r#"{"v":1,"seq":1,"e":"e","t":0,"w":"month|80|202613;"}"#.to_owned();
    let error = KeyState::from_rows([(3, wrong)]).unwrap_err();
    assert_eq!(error.to_string(), "row in slot 3 cannot be read: not alerts");
}

/// What is used up from the beginning is no news.
#[test]
fn a_month_without_a_quota_has_no_alert_until_something_is_used() {
    let mut state = metered();
    let none = [fixed("month", 0, Period::Month)];
    let call = CallToJudge { thresholds: &[80], ..CALL };
    state.judge_call(&none, START, &call);
    assert!(state.pending_alerts().is_empty() && !state.is_dirty());
    state.charge_calls(START, 1, Cost { requests: 1, tokens: 0 });
    state.judge_call(&none, START, &call);
    assert_eq!(state.pending_alerts().len(), 1);
}

/// That a threshold may be reached again outlives the memory, also if a call that was denied has shown it.
#[test]
fn calls_that_are_denied_ask_for_a_row_only_if_they_change_alerts() {
    let policies = |minute, month| [fixed("minute", minute, Period::Minute), fixed("month", month, Period::Month)];
    let call = CallToJudge { thresholds: &[80], ..CALL };
    let mut state = metered();
    // What is admitted is dirty, with an alert or without.
    state.judge_call(&policies(3, 100), START, &call);
    assert!(state.is_dirty() && state.pending_alerts().is_empty());
    state = reread(&mut state);
    let mut judge = |minute, month| {
        assert!(!state.judge_call(&policies(minute, month), START, &call).is_admitted());
        let is_dirty = state.is_dirty();
        state = reread(&mut state);
        (is_dirty, state.pending_alerts().len())
    };
    assert_eq!(judge(3, 100), (false, 0));
    assert_eq!(judge(3, 2), (true, 1));
    assert_eq!(judge(3, 2), (false, 1));
    // The quota is raised.
    assert_eq!(judge(3, 100), (true, 1));
    assert_eq!(judge(3, 100), (false, 1));
}
