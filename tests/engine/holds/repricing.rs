//! Calls whose cost is lowered after they were made.

use super::{TTL, amounts, fixed, reread, reserve, state};
use crate::support::{START, after, call, outcome};
use tollgate::key_state::hold::{HOLDS_POLICY, MAX_OPEN_HOLDS};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Judgement, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::{CallCharge, CallOutcome, ChargeBasis, FinalCost, TokenCharge, UsedTokens};
use tollgate::time::{DAY, MINUTE, Month, UnixMicros};

const fn requests(requests: u64) -> Cost {
    Cost { requests, tokens: 0 }
}

fn repriced(nonce: u64, cost: u64) -> CallToJudge<'static> {
    CallToJudge { reprice: Some(TTL), ..call(nonce, requests(cost)) }
}

fn policy(quota: u64, period: Period, algorithm: Algorithm) -> Policy {
    Policy::new("r", Unit::Requests, quota, period, algorithm, None).unwrap()
}

fn admit(state: &mut KeyState, policies: &[Policy], at: UnixMicros, call: &CallToJudge<'_>) {
    assert!(state.judge_once(policies, at, call).is_admitted());
}

fn end(state: &mut KeyState, policies: &[Policy], at: UnixMicros, nonce: u64, requests: Option<u64>) -> Option<u64> {
    let cost = Some(requests.map_or(FinalCost::AsCharged, FinalCost::Requests));
    Some(state.end_call(policies, at, &CallOutcome { cost, ..outcome(nonce) }, &[])?.returned)
}

const KINDS: [(Algorithm, Period); 5] = [
    (Algorithm::Fixed, Period::Minute),
    (Algorithm::Fixed, Period::Month),
    (Algorithm::Sliding, Period::Minute),
    (Algorithm::Sliding, Period::Day),
    (Algorithm::Bucket, Period::Day),
];

#[test]
fn a_refund_makes_room_at_once_and_no_more_than_it_gave_back() {
    for (algorithm, period) in KINDS {
        let policies = [policy(10, period, algorithm)];
        let mut state = state();
        admit(&mut state, &policies, START, &repriced(1, 6));
        admit(&mut state, &policies, START, &repriced(2, 4));
        let is_full = |state: &mut KeyState, cost| {
            !state.clone().judge_call(&policies, START, &call(99, requests(cost))).is_admitted()
        };
        assert!(is_full(&mut state, 1), "{algorithm:?}: counted whole until it ends");
        assert_eq!(end(&mut state, &policies, START, 1, Some(1)), Some(5));
        assert!(is_full(&mut state, 6) && !is_full(&mut state, 5), "{algorithm:?}");
        assert_eq!(end(&mut state, &policies, START, 1, Some(0)), None, "once");
        assert_eq!(end(&mut state, &policies, START, 2, Some(7)), Some(0), "never more than was charged");
        assert_eq!(amounts(&mut state, &policies, START), (5, 0, 5), "{algorithm:?}");
        assert_eq!((state.month(Month::of(START)).calls, state.month(Month::of(START)).cost), (2, 5));
    }
}

/// Nothing is given to a window in which it was not taken.
#[test]
fn a_refund_goes_to_the_window_of_the_call() {
    let policies = [policy(10, Period::Minute, Algorithm::Fixed)];
    let mut state = state();
    let end_of_month = UnixMicros::from_millis(1_796_083_199_000);
    let next = end_of_month.saturating_add(2_000_000);
    admit(&mut state, &policies, end_of_month, &repriced(1, 6));
    admit(&mut state, &policies, next, &call(2, requests(3)));
    assert_eq!(end(&mut state, &policies, next, 1, Some(2)), Some(4));
    assert_eq!(amounts(&mut state, &policies, next), (3, 0, 7));
    let months = [end_of_month, next].map(|at| state.month(Month::of(at)));
    assert_eq!(months.map(|month| (month.calls, month.cost)), [(1, 2), (1, 3)]);
    assert_eq!((months[0].charged, months[0].returned), (requests(6), requests(4)));
    let hours = state.meter().kept_hours();
    let costs: Vec<_> = hours.iter().map(|hour| (hour.class.as_str(), hour.counts.calls, hour.counts.cost)).collect();
    assert_eq!(costs, [("other", 1, 2), ("other", 1, 3)]);
}

#[test]
fn a_call_that_never_ends_keeps_its_cost_and_a_late_end_still_counts() {
    let policies = [policy(10, Period::Month, Algorithm::Fixed)];
    for (minutes, back) in [(5, Some(6)), (11, Some(6)), (24 * 60 + 11, None)] {
        let mut state = state();
        admit(&mut state, &policies, START, &repriced(1, 6));
        let at = START.saturating_add(minutes * MINUTE);
        assert_eq!(amounts(&mut state, &policies, at), (6, 0, 4), "{minutes}");
        let mut state = reread(&mut state);
        assert_eq!(end(&mut state, &policies, at, 1, Some(0)), back, "{minutes}");
        assert_eq!(end(&mut state, &policies, at, 1, Some(0)).unwrap_or_default(), 0, "{minutes}");
        let left = back.map_or((6, 0, 4), |_| (0, 0, 10));
        assert_eq!(amounts(&mut state, &policies, at), left, "{minutes}");
    }
}

#[test]
fn a_row_has_what_a_refund_needs_and_nothing_of_it_otherwise() {
    let policies = [policy(20, Period::Hour, Algorithm::Bucket), policy(20, Period::Day, Algorithm::Sliding)];
    let mut state = state();
    admit(&mut state, &policies, START, &repriced(0xabc, 6));
    let body = state.to_row().body;
    assert!(body.contains(GOLDEN), "{body}");
    let mut read = KeyState::from_rows([(0, body)]).unwrap();
    for state in [&mut state, &mut read] {
        assert_eq!(end(state, &policies, after(1), 0xabc, Some(2)), Some(4));
    }
    state.committed();
    assert_eq!(read.to_row(), state.to_row());
    // As a call of the cost that it has in the end, but for what was returned.
    let body = state.to_row().body;
    assert!(!body.contains(r#""o""#) && body.contains(r#""r":"202611|4|0|0|0|0|0|0|0;""#), "{body}");
}

const GOLDEN: &str = r#""o":"abc|660b07766cb80|23c34600|0|0|other|0|0|79bdf|660b09b2a1180|6;""#;

/// An unchanged cost needs no row of its own: what is lost of it changes nothing.
#[test]
fn an_unchanged_cost_can_wait_for_the_next_row() {
    for (used, is_dirty) in [(None, false), (Some(6), false), (Some(5), true)] {
        let mut state = state();
        admit(&mut state, &[], START, &repriced(1, 6));
        let _ = state.to_row();
        state.committed();
        end(&mut state, &[], START, 1, used);
        assert_eq!((state.is_dirty(), state.can_be_repriced(START, 1)), (is_dirty, false), "{used:?}");
    }
}

#[test]
fn beyond_the_limit_calls_keep_their_cost_and_holds_have_room() {
    let policies = [policy(10_000, Period::Day, Algorithm::Fixed)];
    let mut state = state();
    let count = MAX_OPEN_HOLDS as u64;
    for nonce in 1..=count + 1 {
        admit(&mut state, &policies, START, &repriced(nonce, 2));
    }
    assert!(state.can_be_repriced(START, count) && !state.can_be_repriced(START, count + 1));
    assert_eq!(end(&mut state, &policies, START, count + 1, Some(0)), None);
    for id in 0..count {
        reserve(&mut state, &policies, START, 1_000_000 + id, requests(1));
    }
    let token_call = CallToJudge { hold: super::with_hold(0, Cost::NONE, 0).hold, ..repriced(7_777, 1) };
    let Judgement::Decided(decision) = state.judge_once(&policies, START, &token_call) else { panic!() };
    assert!(matches!(decision.verdict, Verdict::TooManyHolds { .. }), "{HOLDS_POLICY}");
    admit(&mut state, &policies, START, &repriced(8_888, 2));
    assert_eq!(end(&mut state, &policies, START, 1, Some(0)), Some(2));
    admit(&mut state, &policies, START, &repriced(9_999, 2));
    assert!(state.can_be_repriced(START, 9_999));
    assert_eq!(state.open_holds(START).len(), MAX_OPEN_HOLDS, "only what sets something aside is listed");
}

#[test]
fn a_refund_survives_changes_of_policies_and_of_the_clock() {
    let fixed_policy = [policy(10, Period::Day, Algorithm::Fixed)];
    let bucket = [policy(10, Period::Day, Algorithm::Bucket)];
    let mut state = state();
    admit(&mut state, &fixed_policy, START, &repriced(1, 6));
    // A bucket that begins while the call is under way.
    assert_eq!(amounts(&mut state, &bucket, START), (6, 0, 4));
    assert_eq!(end(&mut state, &bucket, START, 1, Some(0)), Some(6));
    assert_eq!(amounts(&mut state, &bucket, START), (0, 0, 10));
    // A clock that falls back to a day in which the call was not made.
    admit(&mut state, &fixed_policy, START, &repriced(2, 6));
    let before = UnixMicros::from_micros(START.as_micros() - 3 * DAY);
    admit(&mut state, &fixed_policy, before, &call(3, requests(3)));
    let (used, ..) = amounts(&mut state, &fixed_policy, before);
    end(&mut state, &fixed_policy, before, 2, Some(0));
    assert!(amounts(&mut state, &fixed_policy, before).0 >= used.min(3), "what was admitted since still counts");
    assert_eq!(state.month(Month::of(START)).cost, 3);
}

#[test]
fn tokens_and_requests_are_settled_together() {
    let policies = [fixed(100, Period::Day), policy(10, Period::Day, Algorithm::Fixed)];
    let mut state = state();
    let both = CallToJudge { reprice: Some(TTL), ..super::with_hold(1, requests(6), 50) };
    admit(&mut state, &policies, START, &both);
    let ended = CallOutcome { used: Some(UsedTokens::Reported(20)), cost: Some(FinalCost::Requests(1)), ..outcome(1) };
    let tokens = Some(TokenCharge { tokens: 20, basis: ChargeBasis::Reported });
    assert_eq!(state.end_call(&policies, START, &ended, &[]), Some(CallCharge { tokens, returned: 5 }));
    let usage = state.usage(&policies, START).policies;
    assert_eq!((usage[0].remaining, usage[1].remaining), (80, 9));
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.cost, month.tokens), (1, 1, 20));
}

/// A class that was not counted by name when the call was made may be later. What is given back
/// belongs to the class that was charged.
#[test]
fn a_refund_goes_to_the_class_that_was_charged() {
    let mut state = state();
    let hour = |hour: u64| START.saturating_add(hour * 60 * MINUTE);
    for at in 0..16 {
        for class in 0..32 {
            let class = format!("GET /{class}");
            let _ = state.judge_call(&[], hour(at), &CallToJudge { class: &class, ..call(at * 32, requests(1)) });
        }
    }
    admit(&mut state, &[], hour(16), &CallToJudge { class: "GET /late", ..repriced(0xabc, 6) });
    for total in state.meter().unflushed_hours() {
        state.mark_hour_flushed(&total);
    }
    assert_eq!(end(&mut state, &[], hour(16), 0xabc, Some(1)), Some(5));
    let hours = state.meter().unflushed_hours();
    let counts: Vec<_> = hours.iter().map(|it| (it.class.as_str(), it.counts.charged, it.counts.returned)).collect();
    assert_eq!(counts, [("other", requests(6), requests(5))]);
}

/// The minute of the call is forgotten, and begins anew after the clock fell back.
#[test]
fn a_refund_takes_nothing_from_a_window_that_never_had_the_call() {
    let policies = [policy(10, Period::Minute, Algorithm::Fixed)];
    let mut state = state();
    admit(&mut state, &policies, START, &repriced(1, 6));
    for minute in 1..8 {
        let at = START.saturating_add(minute * MINUTE);
        admit(&mut state, &policies, at, &call(1 + minute, requests(1)));
    }
    admit(&mut state, &policies, START, &call(20, requests(8)));
    let before = amounts(&mut state, &policies, START);
    assert!(before.0 >= 8);
    assert_eq!(end(&mut state, &policies, START, 1, Some(0)), Some(6));
    assert_eq!(amounts(&mut state, &policies, START), before);
}
