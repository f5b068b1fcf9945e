//! What is set aside, charged and given back, one rule at a time.

use super::{
    TTL, amounts, bucket, expect, fixed, refuse, reread, reservation, reserve, settle, state, tokens, usage, used,
    with_hold,
};
use crate::support::{Decide, START, after, call};
use tollgate::http::idempotency_key::Fingerprint;
use tollgate::key_state::hold::{
    HoldState, HoldTerms, MAX_OPEN_HOLDS, MAX_TTL, Reservation, ReservationAnswer, UsedAmount,
};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{CallToJudge, ReportedUsage};
use tollgate::limiter::cost::{CALL_TOKENS_LIMIT, Cost};
use tollgate::limiter::decision::{Judgement, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::{CallOutcome, UsedTokens};
use tollgate::metering::hours::{HourTotal, RESERVATIONS};
use tollgate::time::{HOUR, MINUTE, Month, SECOND, UnixMicros};

/// Used and held, of all policies.
fn all(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> Vec<(u64, u64)> {
    state.usage(policies, at).policies.iter().map(|usage| (usage.used, usage.held)).collect()
}

fn november() -> Month {
    Month::of(START)
}

#[test]
fn a_hold_counts_whole_from_the_moment_at_which_it_is_made() {
    let mut state = state();
    let policies = [fixed(100, Period::Minute)];
    let open = reserve(&mut state, &policies, START, 1, tokens(60));
    assert_eq!((open.id, open.cost, open.at, open.expires_at), (1, tokens(60), START, START.saturating_add(TTL)));
    assert!(state.is_dirty());
    assert_eq!(amounts(&mut state, &policies, START), (0, 60, 40));
    let denied = refuse(&mut state, &policies, after(1), 2, tokens(41));
    assert_eq!(denied.verdict, Verdict::Denied { violated: vec![0], retry_after: 45 * SECOND });
    assert_eq!(
        refuse(&mut state, &policies, after(1), 3, tokens(101)).verdict,
        Verdict::CostExceedsQuota { policy: 0 }
    );
    reserve(&mut state, &policies, after(1), 4, tokens(40));
    assert_eq!(amounts(&mut state, &policies, after(1)), (0, 100, 0));
    // Nothing is metered yet, but for the denial.
    let total = state.month(november());
    assert_eq!((total.calls, total.denied, total.cost, total.tokens), (0, 1, 0, 0));
    let hours = state.meter().kept_hours();
    assert_eq!((hours.len(), hours[0].class.as_str(), hours[0].counts.denied), (1, RESERVATIONS, 1));
    assert_eq!(state.open_holds(after(1)).iter().map(|open| open.id).collect::<Vec<_>>(), [1, 4]);
}

#[test]
fn all_policies_of_both_units_judge_a_hold_together() {
    let mut state = state();
    let requests = Policy::new("r", Unit::Requests, 2, Period::Minute, Algorithm::Sliding, None).unwrap();
    let policies = [fixed(100, Period::Minute), fixed(150, Period::Day), requests, bucket(60, 80)];
    let cost = |requests, tokens| Cost { requests, tokens };
    reserve(&mut state, &policies, START, 1, cost(2, 50));
    let violated = |state: &mut KeyState, cost| match refuse(state, &policies, START, 9, cost).verdict {
        Verdict::Denied { violated, .. } => violated,
        other => panic!("{other:?}"),
    };
    assert_eq!(violated(&mut state, cost(1, 1)), [2]);
    assert_eq!(violated(&mut state, cost(1, 51)), [0, 2, 3]);
    // What one refuses is spent from none.
    let held: Vec<u64> = state.usage(&policies, START).policies.iter().map(|usage| usage.held).collect();
    assert_eq!(held, [50, 50, 2, 50]);
}

#[test]
fn a_settle_gives_back_what_was_not_used() {
    for policy in [fixed(100, Period::Minute), fixed(100, Period::Month), bucket(60, 100)] {
        let (mut state, policies) = (state(), [policy]);
        reserve(&mut state, &policies, START, 1, tokens(100));
        state.committed();
        let outcome = settle(&mut state, &policies, START, 1, 30);
        expect(outcome, HoldState::Settled, tokens(30), tokens(100));
        assert_eq!((outcome.id, outcome.at, outcome.overdraft()), (1, START, 0));
        assert!(state.is_dirty());
        assert_eq!(amounts(&mut state, &policies, START), (30, 0, 70));
        reserve(&mut state, &policies, START, 2, tokens(70));
        let total = state.month(november());
        assert_eq!((total.calls, total.tokens, total.charged, total.returned), (0, 30, tokens(30), Cost::NONE));
        let hours = state.meter().kept_hours();
        assert_eq!((hours.len(), hours[0].class.as_str(), hours[0].counts.tokens), (1, RESERVATIONS, 30));
    }
}

#[test]
fn a_release_gives_back_everything() {
    for policy in [fixed(100, Period::Minute), fixed(100, Period::Month), bucket(60, 100)] {
        let (mut state, policies) = (state(), [policy]);
        reserve(&mut state, &policies, START, 1, tokens(100));
        let outcome = state.release_hold(&policies, START, 1).unwrap();
        expect(outcome, HoldState::Released, Cost::NONE, tokens(100));
        assert_eq!(amounts(&mut state, &policies, START), (0, 0, 100));
        let total = state.month(november());
        assert_eq!((total.calls, total.tokens), (0, 0));
        assert!(state.meter().is_flushed());
    }
}

#[test]
fn what_was_used_beyond_the_hold_is_charged_whole() {
    for policy in [fixed(100, Period::Minute), fixed(100, Period::Month), bucket(60, 100)] {
        let (mut state, policies) = (state(), [policy]);
        reserve(&mut state, &policies, START, 1, tokens(80));
        let outcome = settle(&mut state, &policies, START, 1, 170);
        assert_eq!((outcome.charged, outcome.overdraft()), (tokens(170), 90));
        assert_eq!(amounts(&mut state, &policies, START), (170, 0, 0));
        assert!(!state.decide(&policies, START, tokens(1)).is_admitted());
        let total = state.month(november());
        assert_eq!((total.tokens, total.overdraft), (170, 90));
        assert_eq!(state.meter().unflushed_months()[0].overdraft, 90);
    }
}

#[test]
fn repeats_change_nothing_and_say_the_same() {
    let (mut state, policies) = (state(), [fixed(100, Period::Minute)]);
    let first = reserve(&mut state, &policies, START, 1, tokens(60));
    state.committed();
    // Whatever is asked for.
    assert_eq!(reserve(&mut state, &policies, after(1), 1, tokens(99)), first);
    assert!(!state.is_dirty());
    assert_eq!(amounts(&mut state, &policies, after(1)), (0, 60, 40));
    reserve(&mut state, &policies, START, 2, tokens(30));
    let settled = settle(&mut state, &policies, after(2), 1, 10);
    let released = state.release_hold(&policies, after(2), 2).unwrap();
    state.committed();
    for mut state in [state.clone(), reread(&mut state)] {
        for (id, outcome) in [(1, settled), (2, released)] {
            assert_eq!(settle(&mut state, &policies, after(3), id, 55), outcome);
            assert_eq!(state.release_hold(&policies, after(3), id), Some(outcome));
            match state.reserve(&policies, after(3), &reservation(id, tokens(60))) {
                ReservationAnswer::Closed(closed, usage) => {
                    assert_eq!((closed, usage.policies[0].used), (outcome, 10));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(!state.is_dirty());
        assert_eq!(amounts(&mut state, &policies, after(3)), (10, 0, 90));
        assert_eq!(state.month(november()).tokens, 10);
        assert_eq!(state.settle_hold(&policies, after(3), 3, used(1), &[]), None);
        assert_eq!(state.release_hold(&policies, after(3), 3), None);
    }
}

/// A reservation of requests stands for a call that is made elsewhere.
#[test]
fn a_settle_of_requests_counts_as_a_call() {
    let (mut state, policies) = (state(), [crate::support::fixed_policy("r", 10, Period::Minute)]);
    let cost = Cost { requests: 4, tokens: 5 };
    let settle = |state: &mut KeyState, id, requests| {
        reserve(state, &policies, START, id, cost);
        state.settle_hold(&policies, START, id, UsedAmount { tokens: 1, requests }, &[]).unwrap().charged.requests
    };
    let counts = |state: &KeyState| (state.month(november()).calls, state.month(november()).cost);
    assert_eq!((settle(&mut state, 1, None), counts(&state)), (4, (1, 4)));
    assert_eq!((settle(&mut state, 2, Some(1)), counts(&state)), (1, (2, 5)));
    assert_eq!((settle(&mut state, 3, Some(0)), counts(&state)), (0, (2, 5)));
    assert_eq!((settle(&mut state, 4, Some(9)), counts(&state)), (9, (3, 14)));
    assert_eq!(usage(&mut state, &policies, START).used, 14);
    assert_eq!(state.month(november()).overdraft, 0, "of tokens alone");
}

#[test]
fn requests_go_back_into_a_log() {
    let policies = [Policy::new("s", Unit::Requests, 5, Period::Minute, Algorithm::Sliding, None).unwrap()];
    let (mut state, cost) = (state(), |requests| Cost { requests, tokens: 0 });
    state.decide(&policies, START, cost(1));
    reserve(&mut state, &policies, after(10), 1, cost(4));
    // Later admissions close the chunk that has the hold.
    let mut rows = std::collections::BTreeMap::new();
    super::commit(&mut state, &mut rows);
    assert_eq!(amounts(&mut state, &policies, after(20)), (1, 4, 0));
    let outcome = state.settle_hold(&policies, after(20), 1, UsedAmount { tokens: 0, requests: Some(1) }, &[]).unwrap();
    assert_eq!(outcome.charged, cost(1));
    assert_eq!(amounts(&mut state, &policies, after(20)), (2, 0, 3));
    state.decide(&policies, after(20), cost(3));
    assert_eq!(amounts(&mut state, &policies, after(60)), (4, 0, 1));
    assert_eq!(amounts(&mut state, &policies, after(70)), (3, 0, 2));
}

/// As a call without a hold in every other respect.
#[test]
fn a_call_holds_tokens_in_the_decision_that_counts_it() {
    let (mut state, policies) =
        (state(), [fixed(100, Period::Minute), crate::support::fixed_policy("r", 2, Period::Minute)]);
    let one = Cost::default();
    assert!(state.judge_call(&policies, START, &with_hold(1, one, 60)).is_admitted());
    let total = state.month(november());
    assert_eq!((total.calls, total.cost, total.tokens), (1, 1, 0));
    assert_eq!(state.open_hold(START, 1).map(|open| open.cost), Some(tokens(60)));
    // The tokens do not fit, so that the request is not counted either.
    match state.judge_call(&policies, START, &with_hold(2, one, 41)) {
        Judgement::Decided(decision) => {
            assert!(matches!(decision.verdict, Verdict::Denied { ref violated, .. } if violated == &[0]));
            assert_eq!(decision.usage.policies[1].used, 1);
        }
        other => panic!("{other:?}"),
    }
    // The same call again has its hold.
    assert!(matches!(state.judge_once(&policies, START, &with_hold(1, one, 60)), Judgement::Recalled { .. }));
    assert_eq!(all(&mut state, &policies, START), [(0, 60), (1, 0)]);
    let outcome = settle(&mut state, &policies, after(5), 1, 25);
    expect(outcome, HoldState::Settled, tokens(25), tokens(60));
    let total = state.month(november());
    assert_eq!((total.calls, total.cost, total.tokens), (1, 1, 25));
    let hours = state.meter().kept_hours();
    assert_eq!((hours.len(), hours[0].class.as_str(), hours[0].counts.tokens), (1, "other", 25));
    // A call is never asked about again once it has ended: it is not remembered.
    assert_eq!(state.settle_hold(&policies, after(5), 1, used(25), &[]), None);
    assert!(!state.to_row().body.contains(r#""d":"#));
}

#[test]
fn a_free_replay_holds_nothing() {
    let (mut state, policies) = (state(), [fixed(100, Period::Minute)]);
    let keyed = |nonce| CallToJudge {
        idempotency_key: Some("k"),
        fingerprint: Some(Fingerprint::of("POST", "/", None)),
        method: "POST",
        ..with_hold(nonce, Cost::default(), 60)
    };
    assert!(state.judge_call(&policies, START, &keyed(1)).is_admitted());
    state.complete(START, CallOutcome { nonce: 1, status: 200, duration_ms: 1, used: None, cost: None }, None, false);
    settle(&mut state, &policies, START, 1, 60);
    for nonce in 2..7 {
        let judgement = state.judge_call(&policies, START, &keyed(nonce));
        assert!(matches!(judgement, Judgement::Replay { is_free: true, .. }) && judgement.is_admitted());
        assert_eq!(state.open_hold(START, nonce), None);
    }
    assert_eq!(amounts(&mut state, &policies, START), (60, 0, 40));
    // After that they are charged like new calls.
    assert!(!state.judge_call(&policies, START, &keyed(7)).is_admitted());
}

#[test]
fn at_most_a_thousand_holds_are_open() {
    let (mut state, policies) = (state(), [fixed(2_000, Period::Minute), fixed(1_500, Period::Day)]);
    let ttl = |id| if id == 7 { 20 * SECOND } else { TTL };
    for id in 0..MAX_OPEN_HOLDS as u64 {
        let answer = state.reserve(&policies, START, &Reservation { id, cost: tokens(1), ttl: ttl(id) });
        assert!(matches!(answer, ReservationAnswer::Open(..)));
    }
    let verdict = |state: &mut KeyState, at, amount| refuse(state, &policies, at, 5_000, tokens(amount)).verdict;
    let denied = |violated, retry_after| Verdict::TooManyHolds { violated, retry_after };
    assert_eq!(verdict(&mut state, START, 1), denied(vec![], 20 * SECOND));
    // What policies say, too.
    assert_eq!(verdict(&mut state, START, 1_001), denied(vec![0, 1], 58_306 * SECOND));
    assert_eq!(verdict(&mut state, START, 1_501), Verdict::CostExceedsQuota { policy: 1 });
    assert_eq!(state.month(november()).denied, 2);
    // A call that holds nothing needs no room.
    assert!(state.decide(&policies, START, Cost::default()).is_admitted());
    let judgement = state.judge_call(&policies, START, &with_hold(6_000, Cost::default(), 1));
    assert!(matches!(judgement, Judgement::Decided(ref decision) if decision.verdict == denied(vec![], 20 * SECOND)));
    // There is room when one is closed, or has expired.
    let mut other = state.clone();
    other.release_hold(&policies, START, 3);
    reserve(&mut other, &policies, START, 5_000, tokens(1));
    assert!(matches!(
        verdict(&mut state, after(20).saturating_sub(1), 1),
        Verdict::TooManyHolds { retry_after: 1, .. }
    ));
    reserve(&mut state, &policies, after(20), 5_000, tokens(1));
}

#[test]
fn times_to_live_are_of_an_hour_at_most() {
    let (mut state, policies) = (state(), [fixed(2_000, Period::Minute)]);
    for (id, ttl, lives) in [(1, 0, 1), (2, MAX_TTL, MAX_TTL), (3, u64::MAX, MAX_TTL), (4, 7, 7)] {
        let answer = state.reserve(&policies, START, &Reservation { id, cost: tokens(1), ttl });
        let ReservationAnswer::Open(open, _) = answer else { panic!("{answer:?}") };
        assert_eq!(open.expires_at, START.saturating_add(lives));
    }
    // A stream that lives longer keeps its hold alive.
    assert_eq!(state.renew_hold(after(60), 2, TTL).unwrap().expires_at, START.saturating_add(HOUR), "never shorter");
    assert_eq!(state.renew_hold(after(3_599), 2, TTL).unwrap().expires_at, after(3_599).saturating_add(TTL));
    assert!(state.is_dirty());
    assert_eq!(state.renew_hold(after(3_600), 9, TTL), None);
    let mut state = reread(&mut state);
    assert_eq!(state.open_holds(after(3_600)).iter().map(|open| open.id).collect::<Vec<_>>(), [2]);
    assert_eq!(state.renew_hold(after(3_599).saturating_add(TTL), 2, TTL), None, "it has expired");
}

/// Into the windows in which it was made, also when these are over.
#[test]
fn a_settle_is_of_the_windows_of_the_hold() {
    let policies = [fixed(100, Period::Minute)];
    for amount in [20, 60, 90] {
        let mut state = state();
        reserve(&mut state, &policies, START, 1, tokens(60));
        reserve(&mut state, &policies, after(46), 2, tokens(10));
        assert_eq!(amounts(&mut state, &policies, after(46)), (0, 10, 90));
        settle(&mut state, &policies, after(50), 1, amount);
        assert_eq!(amounts(&mut state, &policies, after(50)), (0, 10, 90), "{amount}");
        // The day is not over.
        let day = [fixed(100, Period::Day)];
        assert_eq!(amounts(&mut state, &day, after(50)), (amount, 10, 90 - amount));
    }
    // The clock absorbs small steps back, which do not open the window of the hold again.
    let december = Month::of(START).next().start();
    let (mut state, policies) = (state(), [fixed(100, Period::Month)]);
    reserve(&mut state, &policies, december.saturating_sub(SECOND), 1, tokens(60));
    assert_eq!(amounts(&mut state, &policies, december), (0, 0, 100));
    settle(&mut state, &policies, december, 1, 80);
    assert_eq!(amounts(&mut state, &policies, december), (0, 0, 100));
    assert_eq!((state.month(november()).tokens, state.month(november()).overdraft), (80, 20));
    assert_eq!(state.month(november().next()).tokens, 0);
    let hours: Vec<UnixMicros> = state.meter().kept_hours().iter().map(HourTotal::start).collect();
    assert_eq!(hours, [december.saturating_sub(HOUR)]);
}

/// The hour of a hold is kept for it while others come and go.
#[test]
fn a_settle_is_of_the_hour_of_the_hold() {
    let policies = [fixed(1_000, Period::Day)];
    let mut state = state();
    let answer = state.reserve(&policies, START, &Reservation { id: 1, cost: tokens(60), ttl: MAX_TTL });
    assert!(matches!(answer, ReservationAnswer::Open(..)));
    for minutes in [13, 20, 59] {
        state.judge_call(&policies, START.saturating_add(minutes * MINUTE), &call(minutes, Cost::default()));
        for total in state.meter().unflushed_hours() {
            state.mark_hour_flushed(&total);
        }
        state = reread(&mut state);
    }
    settle(&mut state, &policies, START.saturating_add(59 * MINUTE), 1, 50);
    let unflushed = state.meter().unflushed_hours();
    assert_eq!(
        (unflushed.len(), unflushed[0].start(), unflushed[0].counts.tokens),
        (1, after(0).saturating_sub(48 * MINUTE + 14 * SECOND), 50)
    );
}

#[test]
fn a_hold_that_policies_change_under_is_given_back_where_it_counts() {
    let minute = [fixed(100, Period::Minute)];
    let (mut state, both) = (state(), [fixed(100, Period::Minute), bucket(60, 100)]);
    reserve(&mut state, &minute, START, 1, tokens(50));
    reserve(&mut state, &minute, START, 2, tokens(30));
    // A bucket that is new is filled from the window, which holds the holds.
    let all = |state: &mut KeyState, at| all(state, &both, at);
    assert_eq!(all(&mut state, START), [(0, 80), (0, 80)]);
    settle(&mut state, &both, START, 2, 0);
    assert_eq!(all(&mut state, START), [(0, 50), (0, 50)]);
    // 20 of them have drained.
    settle(&mut state, &both, after(20), 1, 0);
    assert_eq!(all(&mut state, after(20)), [(0, 0), (0, 0)]);
    state.decide(&both, after(20), tokens(7));
    assert_eq!(all(&mut state, after(20)), [(7, 0), (7, 0)]);
    // A bucket that is gone goes on counting, and gets it back, too.
    reserve(&mut state, &both, after(20), 3, tokens(40));
    state.usage(&minute, after(21));
    settle(&mut state, &minute, after(21), 3, 10);
    assert_eq!(all(&mut state, after(21)), [(17, 0), (16, 0)]);
}

/// Another period counts in other fractions of a unit.
#[test]
fn a_bucket_of_another_period_gives_back_what_the_old_one_got() {
    let (mut state, minute) = (state(), [bucket(60, 100)]);
    let hour = [Policy::new("b", Unit::Tokens, 3_600, Period::Hour, Algorithm::Bucket, Some(100)).unwrap()];
    reserve(&mut state, &minute, START, 1, tokens(50));
    reserve(&mut state, &minute, START, 2, tokens(20));
    assert_eq!(amounts(&mut state, &hour, after(10)), (0, 60, 40));
    settle(&mut state, &hour, after(10), 1, 0);
    assert_eq!(amounts(&mut state, &hour, after(10)), (0, 10, 90));
    settle(&mut state, &minute, after(12), 2, 0);
    assert_eq!(amounts(&mut state, &minute, after(12)), (0, 0, 100));
}

#[test]
fn a_bucket_gives_back_no_more_than_is_left_of_the_hold() {
    let (mut state, policies) = (state(), [bucket(60, 100)]);
    reserve(&mut state, &policies, START, 1, tokens(50));
    // 30 have drained; 60 others come.
    state.decide(&policies, after(30), tokens(60));
    assert_eq!(amounts(&mut state, &policies, after(30)), (60, 20, 20));
    settle(&mut state, &policies, after(30), 1, 0);
    assert_eq!(amounts(&mut state, &policies, after(30)), (60, 0, 40));
}

#[test]
fn alerts_are_about_what_is_charged() {
    let (mut state, policies) = (state(), [fixed(100, Period::Month)]);
    let thresholds = &[80_u16];
    let pending = |state: &KeyState| state.pending_alerts().iter().map(|alert| alert.used).collect::<Vec<_>>();
    let call = CallToJudge { thresholds, hold: Some(HoldTerms { tokens: 90, ttl: TTL }), ..call(1, Cost::default()) };
    assert!(state.judge_call(&policies, START, &call).is_admitted());
    assert_eq!(pending(&state), [0; 0]);
    let mut settled = state.clone();
    settled.settle_hold(&policies, START, 1, used(79), thresholds);
    assert_eq!(pending(&settled), [0; 0]);
    state.clone().settle_hold(&policies, START, 1, used(80), thresholds);
    let mut expired = state.clone();
    state.settle_hold(&policies, START, 1, used(80), thresholds);
    assert_eq!(pending(&state), [80]);
    expired.expire(START.saturating_add(TTL));
    expired.check_alerts(&policies, START.saturating_add(TTL), thresholds);
    assert_eq!(pending(&expired), [90]);
}

/// A body or an origin may name any number.
#[test]
fn a_call_holds_and_is_charged_a_million_million_tokens_at_most() {
    let limit = CALL_TOKENS_LIMIT;
    let used = [UsedTokens::Held, UsedTokens::Reported(u64::MAX), UsedTokens::Estimated(u64::MAX)];
    for (held, used) in [1, u64::MAX].into_iter().flat_map(|held| used.map(|used| (held, used))) {
        let mut state = state();
        state.judge_call(&[], START, &with_hold(1, Cost::default(), held));
        assert_eq!(state.open_hold(START, 1).map(|open| open.cost.tokens), Some(held.min(limit)));
        let outcome = CallOutcome { nonce: 1, status: 200, duration_ms: 1, used: Some(used), cost: None };
        state.end_call(&[], START, &outcome, &[]);
        let charged = if used == UsedTokens::Held { held.min(limit) } else { limit };
        assert_eq!(state.month(november()).tokens, charged, "{held} {used:?}");
    }
    let mut state = state();
    state.judge_call(&[], START, &with_hold(1, Cost::default(), u64::MAX));
    state.expire(START.saturating_add(TTL));
    assert_eq!(state.month(november()).tokens, limit);
    let most = [fixed(1_000_000_000, Period::Day)];
    let refused = state.judge_call(&most, START, &with_hold(2, Cost::default(), u64::MAX));
    let Judgement::Decided(decision) = refused else { panic!("{refused:?}") };
    assert_eq!(decision.verdict, Verdict::CostExceedsQuota { policy: 0 });
}

/// Of which D1 still takes the sums.
#[test]
fn the_sums_of_a_meter_end_at_the_largest_integer_of_json() {
    let most = (1 << 53) - 1;
    let mut state = state();
    for nonce in 1..4 {
        let cost = Cost { requests: u64::MAX, tokens: u64::MAX / 2 };
        state.apply_report(
            &[],
            START,
            &ReportedUsage { nonce, age: None, calls: u64::MAX / 2, cost, denied: u64::MAX },
        );
    }
    for nonce in 10..12 {
        state.judge_call(&[], START, &with_hold(nonce, Cost::default(), 1));
        let used = Some(UsedTokens::Reported(u64::MAX));
        state.end_call(&[], START, &CallOutcome { nonce, status: 200, duration_ms: 1, used, cost: None }, &[]);
    }
    let month = state.month(november());
    assert_eq!((month.calls, month.denied, month.cost, month.tokens), (most, most, most, most));
    assert_eq!(month.charged, Cost { requests: most, tokens: most });
    let hours = state.meter().unflushed_hours();
    assert!(hours.iter().all(|HourTotal { counts, .. }| counts.calls.max(counts.denied) <= most));
    assert!(hours.iter().all(|HourTotal { counts, .. }| counts.charged.requests.max(counts.charged.tokens) <= most));
    assert!(hours.iter().any(|HourTotal { counts, .. }| counts.charged == month.charged));
}
