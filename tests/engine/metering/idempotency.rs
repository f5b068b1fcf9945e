//! Idempotency keys: repeats of calls.

use std::collections::BTreeMap;

use crate::metering::audit_log::{entries, tail};
use crate::metering::{CALL, end, ended, keyed, keyed_at, metered, reread, unflushed};
use crate::support::{Report, START, fixed_policy, known_nonces, knows};
use tollgate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use tollgate::key_state::idempotency::{MAX_FLIGHT, MAX_IN_FLIGHT, MAX_REPLAYS};
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Judgement;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

fn replay_policies() -> [Policy; 3] {
    [
        fixed_policy("minute", 5, Period::Minute),
        fixed_policy("month", 5, Period::Month),
        Policy::new("tokens", Unit::Tokens, 9, Period::Minute, Algorithm::Fixed, None).unwrap(),
    ]
}

/// One letter per outcome: `a` admitted, `d` denied, `r` free replay, `R` charged replay, `D` free
/// replay denied, `E` charged replay denied, `c` conflict, `x` different request.
fn judge(state: &mut KeyState, at: UnixMicros, call: &CallToJudge<'_>) -> char {
    match state.judge_call(&replay_policies(), at, call) {
        Judgement::Recalled { .. } => unreachable!("no nonce is reused"),
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
    let usage = state.usage(&replay_policies(), at).policies;
    [usage[0].used, usage[1].used, usage[2].used]
}

#[test]
fn a_repeat_is_a_conflict_then_a_replay_then_new() {
    let mut state = metered();
    assert_eq!(judge(&mut state, START, &keyed(1, "k")), 'a');
    state = reread(&mut state);
    assert_eq!(judge(&mut state, START, &keyed(2, "k")), 'c');
    assert!(!state.is_dirty() && !knows(&state, 2));
    end(&mut state, 2);
    assert!(!state.has_uncommitted_notes());
    assert_eq!(judge(&mut state, START, &keyed(2, "k")), 'c');
    end(&mut state, 1);
    assert!(state.has_uncommitted_notes() && !state.is_dirty());
    state = reread(&mut state);
    assert_eq!(judge(&mut state, START, &keyed(2, "k")), 'r');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
    assert!(state.is_dirty() && knows(&state, 2));
    // The minute has no room left for any call.
    assert_eq!(judge(&mut state, START, &keyed(3, "k")), 'D');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
    let row = |calls, denied, cost| (0, "POST /a".to_owned(), calls, denied, cost);
    assert_eq!(unflushed(&state), [row(2, 1, 2)]);
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.denied, month.cost, month.tokens), (2, 1, 2, 5));
    // A replay does not restart the 24 hours.
    let day = START.saturating_add(DAY);
    assert_eq!(judge(&mut state, day.saturating_sub(1), &keyed(4, "k")), 'r');
    assert_eq!(judge(&mut state, day, &keyed(5, "k")), 'a');
    assert_eq!(used(&mut state, day), [4, 4, 5]);
    // The month has no room left, which does not affect a replay. The first call of another key is
    // charged.
    let later = day.saturating_add(MAX_FLIGHT);
    assert_eq!(judge(&mut state, later.saturating_sub(1000), &keyed(6, "k")), 'c');
    assert_eq!(judge(&mut state, later, &keyed(6, "k")), 'r');
    assert_eq!(judge(&mut state, later, &keyed(7, "other")), 'd');
    end(&mut state, 7);
    assert_eq!(judge(&mut state, later, &keyed(7, "other")), 'd');
    assert_eq!(used(&mut state, later), [2, 4, 0]);
}

#[test]
fn a_retried_request_is_not_a_repeat() {
    let mut state = metered();
    let policies = replay_policies();
    assert_eq!(judge(&mut state, START, &keyed(1, "k")), 'a');
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
    assert_eq!(judge(&mut state, START, &keyed(2, "k")), 'r');
    assert_eq!(recall(&mut state, &keyed(2, "k")), 'r');
    assert_eq!(used(&mut state, START), [4, 2, 5]);
}

/// The idempotency key identifies a call in flight whose nonce was dropped.
#[test]
fn the_nonce_of_a_call_in_flight_is_kept() {
    let mut state = metered();
    assert_eq!(judge(&mut state, START, &keyed(1, "k")), 'a');
    for call in 0..200 {
        let now = START.saturating_add(call * SECOND);
        assert!(state.judge_call(&[], now, &CallToJudge { nonce: 100 + call, ..CALL }).is_admitted());
        state.committed();
        state.confirmed(state.last_commit());
    }
    assert!(knows(&state, 1) && !knows(&state, 100));
    end(&mut state, 1);
    assert!(!knows(&state, 1));
}

/// Marks that a step back of the clock does not change need no new row.
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

/// The key of the call expired meanwhile, and another call with it is in flight. The retried call
/// was a replay all the same.
#[test]
fn a_retry_of_a_replay_is_a_replay_whatever_its_key_is_now() {
    let policies = replay_policies();
    let mut state = metered();
    let day = START.saturating_add(DAY);
    assert_eq!(judge(&mut state, START, &keyed(1, "k")), 'a');
    end(&mut state, 1);
    assert_eq!(judge(&mut state, day.saturating_sub(SECOND), &keyed(2, "k")), 'r');
    let now = day.saturating_add(SECOND);
    assert_eq!(judge(&mut state, now, &keyed(3, "k")), 'a');
    let recalled = state.judge_once(&policies, now, &keyed(2, "k"));
    assert!(matches!(recalled, Judgement::Recalled { is_replay: true, .. }), "{recalled:?}");
    let recalled = state.judge_once(&policies, now, &keyed(3, "k"));
    assert!(matches!(recalled, Judgement::Recalled { is_replay: false, .. }), "{recalled:?}");
}

/// A retry may overtake the first request, and a third request may arrive late.
#[test]
fn a_request_is_counted_once_in_any_order_of_arrival() {
    let policies = [fixed_policy("minute", 5, Period::Minute)];
    for idempotency_key in [None, Some("k")] {
        let mut state = metered();
        let call = |nonce| CallToJudge { nonce, idempotency_key: idempotency_key.filter(|_| nonce == 1), ..CALL };
        let first = state.judge_once(&policies, START, &call(1));
        assert!(matches!(&first, Judgement::Decided(decision) if decision.is_admitted()), "{first:?}");
        assert!(state.judge_once(&policies, START, &call(2)).is_admitted());
        assert!(!state.judge_once(&policies, START, &call(3)).is_admitted());
        // Admitted although the window is full, and counted once.
        assert!(matches!(state.judge_once(&policies, START, &call(1)), Judgement::Recalled { is_replay: false, .. }));
        let total = state.month(Month::of(START));
        assert_eq!((total.calls, total.denied, total.cost), (2, 1, 4));
        // A denied call is not remembered, and is judged again.
        assert!(state.judge_once(&policies, START.saturating_add(60 * SECOND), &call(3)).is_admitted());
        let read = reread(&mut state);
        assert_eq!(known_nonces(&read, [1, 2, 3]), [1, 2, 3]);
    }
}

/// Denied calls are not remembered. Beyond the limit the oldest marks are dropped.
#[test]
fn remembered_keys_are_bounded() {
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
            written += rows.replays.len() + rows.expired_replays.len();
            chunks.extend(rows.replays.into_iter().map(|row| (row.id, row.body)));
            over.extend(rows.expired_replays);
            state.committed();
            state.confirmed(state.last_commit());
        }
    }
    // Calls without an outcome make the row no larger than this.
    let flights = state.to_row().body.split_once(r#""i":"#).unwrap().1.matches(';').count() - 1;
    assert_eq!(flights, MAX_IN_FLIGHT);
    assert!(state.to_row().body.len() < 110_000, "{}", state.to_row().body.len());
    assert!(written <= 2 * (MAX_REPLAYS + 2000) / 512, "{written}");
    let last = at(MAX_REPLAYS + 2000);
    let known = |state: &KeyState, call: usize| {
        let policies = [fixed_policy("month", 0, Period::Month)];
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
    // Everything is dropped once it has expired.
    let end = read.next_expiry().unwrap();
    read.expire(end.saturating_sub(1));
    assert!(!read.is_dirty());
    read.expire(end);
    assert!(read.is_dirty());
    assert_eq!(read.to_rows().expired_replays.len(), 1);
    read.expire(last.saturating_add(2 * DAY));
    assert_eq!(read.to_rows().expired_replays, chunks.keys().copied().collect::<Vec<_>>());
    assert_eq!(read.next_expiry(), None);
}

/// A clock that was far ahead keeps nothing for longer than a day.
#[test]
fn marks_of_the_future_are_moved_back() {
    let mut state = metered();
    let ahead = START.saturating_add(100 * DAY);
    let mut chunks = BTreeMap::new();
    for call in 0..600_u64 {
        let key = format!("key {call}");
        let call = keyed(call, &key);
        assert!(state.judge_call(&[], ahead, &call).is_admitted());
        state.complete(ahead, ended(call.nonce), None, false);
        chunks.extend(state.to_rows().replays.into_iter().map(|row| (row.id, row.until)));
        state.committed();
        state.confirmed(state.last_commit());
    }
    assert_eq!(chunks, BTreeMap::from([(0, ahead.saturating_add(DAY))]));
    // A replay, denied: the minute includes the units spent just before the step back.
    assert_eq!(judge(&mut state, START, &keyed(1000, "key 1")), 'D');
    let rows = state.to_rows();
    assert_eq!((rows.replays[0].id, rows.replays[0].until), (0, START.saturating_add(DAY)));
    for key in ["key 1", "key 599"] {
        let mut state = state.clone();
        assert_eq!(judge(&mut state, START.saturating_add(DAY - 1), &keyed(1001, key)), 'r');
        assert_eq!(judge(&mut state, START.saturating_add(DAY), &keyed(1001, key)), 'a');
    }
}

#[test]
fn the_stored_form_of_idempotency_keys_is_frozen() {
    let mut state = KeyState::new("e".into());
    let call = CallToJudge { cost: Cost { requests: 2, tokens: 0 }, ..keyed(7, "order-7") };
    assert_eq!(judge(&mut state, START.saturating_add(1), &call), 'a');
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

/// Rows of version 1 have no requests.
#[test]
fn a_repeat_of_a_version_1_mark_is_never_free() {
    let body =
        r#"{"v":1,"seq":9,"e":"e","t":1795160894000000,"i":"DAwnbvvzT6Vq__s_|1;7|868112185802575781|1795160894000;"}"#;
    let mut state = KeyState::from_rows([(0, body.to_owned())]).unwrap();
    // The marks of "key 1" and of the key 0, the smallest.
    let chunk = "AAAAAAAAAAAAAAAAZ2UVl1W5oJpq__s-".to_owned();
    state.load_replays([(0, chunk)]).unwrap();
    assert_eq!(judge(&mut state, START, &keyed(8, "order-7")), 'c');
    assert_eq!(judge(&mut state, START, &CallToJudge { fingerprint: None, ..keyed(8, "order-7") }), 'c');
    end(&mut state, 7);
    for key in ["order-7", "key 1"] {
        let mut state = state.clone();
        let at = |hours| START.saturating_add(hours * HOUR);
        // The first charged repeat with a request sets the one that later repeats must match.
        let all = [
            judge(&mut state, START, &CallToJudge { fingerprint: None, ..keyed(8, key) }),
            judge(&mut state, at(1), &keyed_at(9, key, "/b")),
            judge(&mut state, at(2), &keyed_at(10, key, "/b")),
            judge(&mut state, at(2), &keyed_at(11, key, "/a")),
        ];
        assert_eq!(all, ['R', 'R', 'r', 'x'], "{key}");
        assert_eq!(used(&mut state, at(2)), [2, 4, 0], "{key}");
    }
}

#[test]
fn a_different_request_with_the_same_key_is_refused() {
    let mut state = metered();
    let audited = |path| CallToJudge { is_audited: true, ..keyed_at(2, "k", path) };
    assert_eq!(judge(&mut state, START, &audited("/a")), 'a');
    let before = (used(&mut state, START), state.month(Month::of(START)), unflushed(&state));
    // Also while the first call is in flight.
    assert_eq!(judge(&mut state, START, &audited("/b")), 'x');
    end(&mut state, 2);
    state = reread(&mut state);
    for call in [
        audited("/b"),
        audited("/a/"),
        CallToJudge { fingerprint: Some(Fingerprint::of("PUT", "/a", None)), ..audited("/a") },
    ] {
        assert_eq!(judge(&mut state, START, &call), 'x');
    }
    assert_eq!((used(&mut state, START), state.month(Month::of(START)), unflushed(&state)), before);
    assert!(!state.is_dirty() && !state.has_uncommitted_denials());
    let statuses: Vec<u16> =
        entries(&tail(&state), START, START.saturating_add(DAY), 9).iter().map(|e| e.status).collect();
    assert_eq!(statuses, [200, 422]);
    assert_eq!(judge(&mut state, START, &audited("/a")), 'r');
}

#[test]
fn five_repeats_are_free_and_all_others_are_charged() {
    let mut state = metered();
    let policies = [fixed_policy("month", 8, Period::Month)];
    let mut nonce = 0;
    let mut judge = |state: &mut KeyState, key: &str| {
        nonce += 1;
        let call = CallToJudge { is_audited: true, ..keyed(nonce, key) };
        let judgement = state.judge_call(&policies, START, &call);
        state.complete(START, ended(nonce), None, false);
        // With or without a restart between two calls.
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

/// The newest mark has the count of free repeats, wherever the older ones are.
#[test]
fn free_repeats_are_counted_across_chunks() {
    let mut state = metered();
    let (mut chunks, mut nonce) = (BTreeMap::new(), 0);
    let mut call = |state: &mut KeyState, key: &str| {
        nonce += 1;
        let judgement = state.judge_call(&[], START, &keyed(nonce, key));
        state.complete(START, ended(nonce), None, false);
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
fn a_denial_that_also_holds_for_replays_is_recognised() {
    let policies = [fixed_policy("minute", 2, Period::Minute), fixed_policy("month", 4, Period::Month)];
    let mut state = metered();
    let mut judge = |at, key| {
        let call = keyed(1, key);
        let Judgement::Decided(decision) = state.judge_call(&policies, at, &call) else { panic!("a replay") };
        state.complete(at, ended(1), None, false);
        let alike = state.judges_replays_alike(&policies, at, call.cost, &decision.verdict);
        (decision.is_admitted(), alike)
    };
    // The minute is full, the month is not.
    assert_eq!([judge(START, "a"), judge(START, "b")], [(true, false), (false, true)]);
    let next = START.saturating_add(MINUTE);
    assert_eq!(judge(next, "c"), (true, false));
    // Both are full: a replay would have to wait for the minute only.
    assert_eq!(judge(next, "d"), (false, false));
    assert_eq!(judge(next.saturating_add(MINUTE), "d"), (false, false));
    // In the last minute of the month both end together, but for different reasons.
    let last = Month::of(START).end().saturating_sub(SECOND);
    let mut state = metered();
    state.judge_call(&policies, last, &keyed(1, "a"));
    state.report_calls(&policies, last, 1, Cost { requests: 2, tokens: 0 });
    let Judgement::Decided(decision) = state.judge_call(&policies, last, &keyed(2, "b")) else { panic!("a replay") };
    assert!(!state.judges_replays_alike(&policies, last, CALL.cost, &decision.verdict));
}

/// A free replay spends no tokens, so a denial by tokens does not apply to it.
#[test]
fn a_denial_by_tokens_does_not_hold_for_replays() {
    for quota in [4, 9] {
        let policies = [Policy::new("tokens", Unit::Tokens, quota, Period::Minute, Algorithm::Fixed, None).unwrap()];
        let mut state = metered();
        state.report_calls(&policies, START, 1, CALL.cost);
        let Judgement::Decided(decision) = state.judge_call(&policies, START, &keyed(2, "b")) else {
            panic!("a replay")
        };
        assert!(!decision.is_admitted());
        assert!(!state.judges_replays_alike(&policies, START, CALL.cost, &decision.verdict), "{quota}");
    }
}

/// A failed commit may leave chunks behind.
#[test]
fn chunks_of_a_failed_commit_are_ignored_and_deleted() {
    let mut state = metered();
    for call in 0..511_u64 {
        assert!(state.judge_call(&[], START, &keyed(call, &format!("key {call}"))).is_admitted());
        state.complete(START, ended(call), None, false);
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
    // Deletions precede writes: the number is the same here.
    let rows = read.to_rows();
    assert_eq!((rows.expired_replays, rows.replays[0].id), (vec![0], 0));
}
