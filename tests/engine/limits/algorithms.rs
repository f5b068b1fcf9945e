//! The algorithms: fixed windows, sliding logs and buckets.

use crate::limits::{admit, bucket, fixed, sliding, state, usage_of, used, wait};
use crate::support::{Decide, Report, START, after};
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, MAX_QUOTA, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND};

#[test]
fn a_fixed_window_ends_with_the_utc_minute() {
    let mut state = state();
    let policies = fixed(2);
    admit(&mut state, &policies, START, 1);
    admit(&mut state, &policies, after(1), 1);
    let denied = state.decide(&policies, after(2), Cost::default());
    assert_eq!(denied.verdict, Verdict::Denied { violated: vec![0], retry_after: 44 * SECOND });
    assert_eq!(denied.usage.policies, [PolicyUsage { remaining: 0, used: 2, held: 0, reset_after: 44 * SECOND }]);
    assert_eq!(denied.usage.now, after(2));
    admit(&mut state, &policies, after(46), 2);
}

#[test]
fn only_fixed_windows_reset_unused() {
    let mut state = state();
    for (policies, reset_after) in [(fixed(5), 46 * SECOND), (sliding(5), 0), (bucket(5, Period::Minute, 5), 0)] {
        let unused = PolicyUsage { remaining: 5, used: 0, held: 0, reset_after };
        assert_eq!(usage_of(&mut state, &policies, START), unused);
    }
}

#[test]
fn a_log_frees_what_left_the_rolling_period() {
    let mut state = state();
    let policies = sliding(5);
    admit(&mut state, &policies, START, 2);
    admit(&mut state, &policies, after(10), 3);
    assert_eq!(
        usage_of(&mut state, &policies, after(20)),
        PolicyUsage { remaining: 0, used: 5, held: 0, reset_after: 40 * SECOND }
    );
    assert_eq!(wait(&mut state, &policies, after(20), 1), 40 * SECOND);
    assert_eq!(wait(&mut state, &policies, after(20), 2), 40 * SECOND);
    assert_eq!(wait(&mut state, &policies, after(20), 3), 50 * SECOND);
    assert_eq!(wait(&mut state, &policies, after(20), 1), 40 * SECOND);
    assert_eq!(used(&mut state, &policies, after(60)), 3);
    admit(&mut state, &policies, after(60), 2);
}

#[test]
fn log_times_round_up_to_a_millisecond() {
    let mut state = state();
    let policies = sliding(1);
    let at = START.saturating_add(1);
    admit(&mut state, &policies, at, 1);
    assert_eq!(wait(&mut state, &policies, at, 1), MINUTE + 999);
}

#[test]
fn a_bucket_drains_evenly() {
    let mut state = state();
    let policies = bucket(6, Period::Minute, 3);
    admit(&mut state, &policies, START, 3);
    assert_eq!(
        usage_of(&mut state, &policies, START),
        PolicyUsage { remaining: 0, used: 3, held: 0, reset_after: 10 * SECOND }
    );
    assert_eq!(wait(&mut state, &policies, START, 1), 10 * SECOND);
    assert_eq!(wait(&mut state, &policies, after(5), 2), 15 * SECOND);
    assert_eq!(
        usage_of(&mut state, &policies, after(9)),
        PolicyUsage { remaining: 0, used: 3, held: 0, reset_after: SECOND }
    );
    assert_eq!(
        usage_of(&mut state, &policies, after(10)),
        PolicyUsage { remaining: 1, used: 2, held: 0, reset_after: 10 * SECOND }
    );
    assert_eq!(
        usage_of(&mut state, &policies, after(30)),
        PolicyUsage { remaining: 3, used: 0, held: 0, reset_after: 0 }
    );
}

/// A unit does not take a whole number of microseconds. Still, nothing is lost over an hour.
#[test]
fn a_bucket_has_no_rounding_drift() {
    let mut state = state();
    let policies = bucket(7, Period::Minute, 2);
    admit(&mut state, &policies, START, 1);
    let mut clock = START;
    for _ in 0..7 * 60 {
        admit(&mut state, &policies, clock, 1);
        clock = clock.saturating_add(wait(&mut state, &policies, clock, 1));
    }
    assert_eq!(clock, START.saturating_add(HOUR));
}

#[test]
fn a_cost_above_the_quota_is_reported_as_such() {
    let mut state = state();
    let tokens = Policy::new("t", Unit::Tokens, 10, Period::Day, Algorithm::Bucket, Some(4)).unwrap();
    let [requests] = fixed(2);
    let policies = [requests, tokens];
    let cost = |requests, tokens| Cost { requests, tokens };
    assert_eq!(state.decide(&policies, START, cost(3, 5)).verdict, Verdict::CostExceedsQuota { policy: 0 });
    assert_eq!(state.decide(&policies, START, cost(2, 5)).verdict, Verdict::CostExceedsQuota { policy: 1 });
    assert!(state.decide(&policies, START, cost(2, 4)).is_admitted());
    assert_eq!(state.decide(&fixed(0), START, cost(1, 0)).verdict, Verdict::CostExceedsQuota { policy: 0 });
    let total = state.month(Month::of(START));
    assert_eq!((total.calls, total.denied), (1, 0));
}

#[test]
fn a_policy_admits_calls_without_cost_in_its_unit() {
    let tokens = |algorithm| Policy::new("t", Unit::Tokens, 10, Period::Hour, algorithm, None).unwrap();
    for algorithm in [Algorithm::Fixed, Algorithm::Bucket] {
        let mut state = state();
        let policies = [tokens(algorithm)];
        assert!(state.decide(&policies, START, Cost { requests: 1, tokens: 10 }).is_admitted());
        assert!(!state.decide(&policies, START, Cost { requests: 1, tokens: 1 }).is_admitted());
        state.report_calls(&policies, START, 1, Cost { requests: 1, tokens: 5 });
        assert_eq!(used(&mut state, &policies, START), 15);
        assert_eq!(usage_of(&mut state, &policies, START).remaining, 0);
        assert!(state.decide(&policies, START, Cost::default()).is_admitted());
    }
}

/// An entry holds about a million units. More units in one millisecond take several entries.
#[test]
fn a_log_takes_more_units_in_a_millisecond_than_an_entry_holds() {
    let mut state = state();
    let policies = sliding(5);
    state.usage(&policies, START);
    for requests in [1_000_000, 48_575, 100_000, 2_100_000, 7] {
        state.report_calls(&policies, START, requests, Cost { requests, tokens: 0 });
    }
    assert_eq!(used(&mut state, &policies, START), 3_248_582);
    let row = state.to_row();
    let mut read = KeyState::from_rows([(row.slot, row.body)]).unwrap();
    for state in [&mut state, &mut read] {
        assert_eq!(used(state, &policies, after(59)), 3_248_582);
        assert_eq!(used(state, &policies, after(60)), 0);
    }
}

#[test]
fn no_policies_admit_everything_and_still_count() {
    let mut state = state();
    let decision = state.decide(&[], START, Cost::default());
    assert_eq!((decision.verdict, decision.usage.policies), (Verdict::Admitted, Vec::new()));
    assert_eq!(state.month(Month::of(START)).calls, 1);
    assert_eq!(used(&mut state, &fixed(10), START), 1);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut state = state();
    let policies: Vec<Policy> = [
        (MAX_QUOTA, Algorithm::Fixed, None),
        (10_000, Algorithm::Sliding, None),
        (1, Algorithm::Bucket, Some(MAX_QUOTA)),
    ]
    .into_iter()
    .map(|(quota, algorithm, burst)| Policy::new("p", Unit::Requests, quota, Period::Day, algorithm, burst).unwrap())
    .collect();
    state.usage(&policies, START);
    for _ in 0..3 {
        state.report_calls(&policies, START, u64::MAX, Cost { requests: u64::MAX, tokens: u64::MAX });
    }
    let usage = state.usage(&policies, START).policies;
    assert!(usage.iter().all(|policy| policy.remaining == 0 && policy.used >= MAX_QUOTA));
    assert_eq!(usage[2].reset_after, u64::MAX - START.as_micros());
    assert_eq!(usage[1].used, 3 * MAX_QUOTA);
    assert_eq!(usage[1].reset_after, DAY);
    assert!(!state.decide(&policies, START, Cost::default()).is_admitted());
}
