//! Calls whose cost the origin may lower.

use super::*;
use crate::key_state::audit_log::reader::{AuditQuery, AuditReader};

const REPRICED: &str =
    r#","routes":[{"pattern":"/a","method":"POST","cost":5,"reprice":1},{"pattern":"/b","method":"*","cost":5}]"#;

/// Requests left of the policies, and what the month is charged.
fn left(memory: &mut Memory, now: UnixMicros) -> (Vec<u64>, u64) {
    let (key_state, profile) = memory.key(now).unwrap().unwrap();
    let usage = key_state.usage(profile.schedule(), now).policies;
    (usage.iter().map(|usage| usage.remaining).collect(), counts(memory).2)
}

#[test]
fn the_outcome_of_a_repriced_call_gives_back_what_it_did_not_cost_once() {
    for (outcome, cost) in [
        ("1.200.9.c0", 0),
        ("1.200.9.c3", 3),
        ("1.502.9.c1", 1),
        ("1.200.9.c5", 5),
        ("1.200.9.c9", 5),
        ("1.200.9.c", 5),
    ] {
        let mut memory = memory(profile(20, 100, REPRICED));
        let first = judged(&mut memory, &check(1));
        assert_eq!(admission(&first), Admission { is_repriced: true, ..Admission::default() });
        assert_eq!(left(&mut memory, at(NOW)), (vec![15, 95], 5), "it is charged at once");
        for again in [outcome, outcome, "1.200.9.c2", "1.200.9.c"] {
            end(&mut memory, again, at(NOW));
            assert_eq!(left(&mut memory, at(NOW)), (vec![20 - cost, 100 - cost], cost), "{outcome} {again}");
        }
        assert_eq!(counts(&memory), (1, 0, cost), "it remains a call");
    }
}

#[test]
fn a_cost_is_lowered_only_where_the_row_says_so() {
    for (rest, path) in [(REPRICED, "/b"), (REPRICED, "/c"), (REPRICED, "/a;x"), ("", "/a")] {
        let mut memory = memory(profile(20, 100, rest));
        let other = Check { call: Call { path, ..check(1).call }, ..check(1) };
        assert_eq!(admission(&judged(&mut memory, &other)), Admission::default(), "{path}");
        let before = left(&mut memory, at(NOW));
        end(&mut memory, "1.200.9.c0", at(NOW));
        assert_eq!(left(&mut memory, at(NOW)), before, "{path}");
    }
}

#[test]
fn a_refund_waits_for_a_row_and_an_unchanged_cost_does_not() {
    for (outcome, needs_write) in [("1.200.9.c0", true), ("1.200.9.c", false)] {
        let mut memory = memory(profile(5, 100, REPRICED));
        judged(&mut memory, &check(1));
        commit(memory.key_state.as_mut().unwrap());
        let other = judged(&mut memory, &Check { call: Call { path: "/d", ..check(2).call }, ..check(2) });
        assert!(matches!(verdict(&other), KeyVerdict::Denied { may_end_early: true, .. }));
        let carrying = Check { outcomes: CallOutcomes(outcome), has_malformed_key: true, ..check(3) };
        assert_eq!(judged(&mut memory, &carrying).needs_write, needs_write, "{outcome}");
    }
}

#[test]
fn a_denial_may_end_early_while_a_call_may_become_cheaper() {
    let mut memory = memory(profile(5, 100, REPRICED));
    let may_end_early = |memory: &mut Memory, nonce| match verdict(&judged(memory, &check(nonce))) {
        KeyVerdict::Denied { may_end_early, .. } => *may_end_early,
        other => panic!("{other:?}"),
    };
    judged(&mut memory, &check(1));
    assert!(may_end_early(&mut memory, 2));
    end(&mut memory, "1.200.9.c4", at(NOW));
    assert!(!may_end_early(&mut memory, 3), "nothing is given back any more");
}

#[test]
fn a_repeated_request_learns_that_its_call_is_repriced_until_it_has_ended() {
    let mut memory = memory(profile(20, 100, REPRICED));
    let repeat = Check { is_repeat: true, age: Some(5), ..check(1) };
    for check in [&check(1), &repeat] {
        assert!(admission(&judged(&mut memory, check)).is_repriced);
    }
    assert_eq!(left(&mut memory, at(NOW)), (vec![15, 95], 5));
    end(&mut memory, "1.200.9.c0", at(NOW));
    assert!(!admission(&judged(&mut memory, &repeat)).is_repriced);
    assert_eq!(left(&mut memory, at(NOW)), (vec![20, 100], 0));
}

#[test]
fn a_repriced_call_settles_its_tokens_too() {
    let rest = [TOKEN_ROUTE, REPRICED].concat();
    for (outcome, tokens, requests) in
        [("1.200.9.r150.c2", 850, 2), ("1.200.9.h.c0", 600, 0), ("1.502.9.r0.c", 1000, 5), ("1.200.9.r150", 850, 5)]
    {
        let mut memory = memory(profile(20, 100, &rest));
        let first = admission(&judged(&mut memory, &held(1, 200, 200, 1)));
        assert!(first.has_hold && first.is_repriced);
        for again in [outcome, "1.200.9.r1.c0"] {
            end(&mut memory, again, at(NOW));
            assert_eq!(budget(&mut memory, at(NOW)), (tokens, 0), "{outcome} {again}");
            assert_eq!(counts(&memory), (1, 0, requests), "{outcome} {again}");
        }
    }
}

#[test]
fn free_replays_keep_their_cost_and_charged_ones_are_repriced() {
    let mut memory = memory(profile(100, 100, REPRICED));
    assert!(admission(&judged(&mut memory, &keyed(1, "a"))).is_repriced);
    end(&mut memory, "1.200.9.c0", at(NOW));
    for nonce in 2..2 + u64::from(FREE_REPEATS) {
        let replay = admission(&judged(&mut memory, &keyed(nonce, "a")));
        assert!(replay.is_replay && !replay.is_repriced);
        end(&mut memory, &format!("{nonce}.200.9.c0"), at(NOW));
    }
    assert_eq!(left(&mut memory, at(NOW)), (vec![75, 100], 0));
    assert!(admission(&judged(&mut memory, &keyed(99, "a"))).is_repriced);
    end(&mut memory, "99.200.9.c0", at(NOW));
    assert_eq!(left(&mut memory, at(NOW)), (vec![75, 100], 0));
}

#[test]
fn a_call_whose_outcome_never_comes_keeps_its_cost_and_a_late_one_corrects_it() {
    let mut memory = memory(profile(20, 100, REPRICED));
    let after = |minutes: u64| at(NOW + minutes * 60_000);
    judged(&mut memory, &check(1));
    for minutes in [9, 11, 60] {
        assert_eq!(left(&mut memory, after(minutes)), (vec![20, 95], 5));
    }
    assert_eq!(counts(&memory), (1, 0, 5));
    for outcome in ["1.200.9.c", "1.200.9.c2", "1.200.9.c0"] {
        end(&mut memory, outcome, after(61));
        let cost = if outcome == "1.200.9.c" { 5 } else { 2 };
        assert_eq!(left(&mut memory, after(61)), (vec![20, 100 - cost], cost), "{outcome}");
    }
}

#[test]
fn the_audit_log_has_the_final_cost() {
    let rest = [REPRICED, r#","audit_days":1"#].concat();
    let mut memory = memory(profile(20, 100, &rest));
    for nonce in 1..4 {
        judged(&mut memory, &check(nonce));
    }
    for outcome in ["1.200.9.c2", "1.200.9.c0", "2.200.9.c"] {
        end(&mut memory, outcome, at(NOW));
    }
    let query = AuditQuery { from: at(0), to: at(NOW + 1), cursor: None, limit: 9 };
    let mut reader = AuditReader::new(query);
    for (seq, body) in memory.key_state.as_ref().unwrap().audit_tail() {
        reader.feed(seq, &body).unwrap();
    }
    let costs: Vec<_> = reader.finish().0.iter().map(|entry| (entry.cost, entry.end.is_some())).collect();
    assert_eq!(costs, [(2, true), (5, true), (5, false)]);
}
