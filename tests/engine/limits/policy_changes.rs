//! Changes of policies.

use crate::limits::{admit, bucket, fixed, policy, sliding, state, usage_of, used, wait};
use crate::support::{Decide, START, after};
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::PolicyUsage;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{MINUTE, SECOND, UnixMicros};

#[test]
fn a_lower_quota_denies_at_once_and_a_higher_one_admits_at_once() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let mut state = state();
        let policies = |quota| policy(quota, Period::Minute, algorithm);
        admit(&mut state, &policies(10), START, 8);
        assert!(!state.decide(&policies(5), START, Cost::default()).is_admitted());
        assert_eq!(usage_of(&mut state, &policies(5), START).remaining, 0);
        admit(&mut state, &policies(9), START, 1);
        assert!(!state.decide(&policies(9), START, Cost::default()).is_admitted());
        admit(&mut state, &policies(20), START, 11);
        assert!(!state.decide(&policies(20), START, Cost::default()).is_admitted());
    }
}

#[test]
fn a_change_of_algorithm_carries_the_usage() {
    let all = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket];
    for from in all {
        for to in all {
            for period in [Period::Minute, Period::Hour, Period::Day] {
                let mut state = state();
                admit(&mut state, &policy(10, period, from), START, 7);
                assert_eq!(used(&mut state, &policy(10, period, to), START), 7, "{from} to {to}");
                assert_eq!(usage_of(&mut state, &policy(10, period, to), START).remaining, 3);
                admit(&mut state, &policy(10, period, to), START, 3);
                assert_eq!(used(&mut state, &policy(10, period, from), START), 10, "{from} to {to} and back");
            }
        }
    }
}

/// Units of the previous window may have been spent at its end.
#[test]
fn a_log_starts_from_the_windows_at_their_latest() {
    let mut state = state();
    admit(&mut state, &fixed(100), START, 30);
    admit(&mut state, &fixed(100), after(50), 4);
    admit(&mut state, &fixed(100), after(51), 1);
    let policies = sliding(40);
    assert_eq!(used(&mut state, &policies, after(52)), 35);
    // The minute ended at 46 s. Its 30 units count until a minute later.
    assert_eq!(used(&mut state, &policies, UnixMicros::from_micros(after(106).as_micros() - 1)), 35);
    assert_eq!(used(&mut state, &policies, after(106)), 5);
    assert_eq!(used(&mut state, &policies, after(111)), 0);
}

#[test]
fn a_bucket_starts_from_the_window_of_the_last_admission() {
    let mut state = state();
    admit(&mut state, &fixed(100), START, 30);
    admit(&mut state, &fixed(100), after(50), 4);
    admit(&mut state, &fixed(100), after(60), 2);
    let policies = bucket(6, Period::Minute, 10);
    assert_eq!(used(&mut state, &policies, after(60)), 6);
    assert_eq!(used(&mut state, &policies, after(85)), 4);
}

#[test]
fn a_bucket_keeps_its_level_when_the_period_changes() {
    let mut state = state();
    admit(&mut state, &bucket(60, Period::Minute, 10), START, 10);
    let hourly = bucket(60, Period::Hour, 10);
    // Half a unit has drained.
    let at = START.saturating_add(SECOND / 2);
    assert_eq!(
        usage_of(&mut state, &hourly, at),
        PolicyUsage { remaining: 0, used: 10, held: 0, reset_after: 30 * SECOND }
    );
    assert_eq!(wait(&mut state, &hourly, at, 1), 30 * SECOND);
    assert_eq!(wait(&mut state, &bucket(60, Period::Minute, 10), at, 1), SECOND / 2);
}

#[test]
fn a_scaled_level_is_rounded_up() {
    let mut state = state();
    admit(&mut state, &bucket(1, Period::Day, 10), START, 1);
    // The smallest fraction of a day's unit has drained, a 1440th of a minute's.
    let at = START.saturating_add(1);
    let minutely = bucket(1, Period::Minute, 10);
    assert_eq!(
        usage_of(&mut state, &minutely, at),
        PolicyUsage { remaining: 9, used: 1, held: 0, reset_after: MINUTE }
    );
}

#[test]
fn unused_counters_are_dropped_once_they_have_expired() {
    for policies in [sliding(6), bucket(6, Period::Minute, 6)] {
        let key = if policies[0].algorithm() == Algorithm::Sliding { r#""l":"# } else { r#""b":"# };
        let mut state = state();
        let stored = |state: &KeyState| state.to_row().body.contains(key);
        admit(&mut state, &policies, START, 6);
        state.committed();
        admit(&mut state, &[], after(59), 1);
        assert!(stored(&state));
        admit(&mut state, &[], after(60), 1);
        state.committed();
        assert_eq!(state.usage(&[], after(60)).policies, []);
        assert!(!stored(&state) && state.is_dirty());
    }
}

#[test]
fn a_change_of_policies_needs_a_row() {
    let mut state = state();
    let peek = |state: &mut KeyState, policies: &[Policy]| {
        state.usage(policies, START);
        let dirty = state.is_dirty();
        state.committed();
        dirty
    };
    assert!(!peek(&mut state, &fixed(1)));
    for policies in [sliding(5), bucket(6, Period::Minute, 6)] {
        admit(&mut state, &policies, START, 1);
        state.committed();
        assert!(!peek(&mut state, &policies));
        // Dropped, then added again.
        assert!(peek(&mut state, &[]));
        assert!(!peek(&mut state, &[]));
        assert!(peek(&mut state, &policies));
    }
    assert!(peek(&mut state, &bucket(7, Period::Minute, 6)));
    assert!(peek(&mut state, &bucket(7, Period::Hour, 6)));
    assert!(!peek(&mut state, &bucket(7, Period::Hour, 9)));
}

#[test]
fn a_renamed_bucket_and_one_of_another_unit_are_dropped() {
    let named = |name: &str, unit| [Policy::new(name, unit, 6, Period::Minute, Algorithm::Bucket, None).unwrap()];
    let old = named("old", Unit::Requests);
    for new in [named("new", Unit::Requests), named("old", Unit::Tokens)] {
        let mut state = state();
        let buckets = |state: &KeyState| state.to_row().body.matches(r#""k":["#).count();
        admit(&mut state, &old, START, 6);
        admit(&mut state, &new, after(11), 1);
        admit(&mut state, &new, after(61), 1);
        assert_eq!(buckets(&state), 2);
        state.usage(&new, after(61));
        assert_eq!(buckets(&state), 1);
    }
}

/// Two tiers may use one name for different units, and different names for one unit.
#[test]
fn counters_are_separate_by_unit_name_and_period() {
    let mut state = state();
    let named = |name: &str, unit, period, algorithm| [Policy::new(name, unit, 9, period, algorithm, None).unwrap()];
    let first = named("a", Unit::Requests, Period::Minute, Algorithm::Bucket);
    admit(&mut state, &first, START, 4);
    admit(&mut state, &named("a", Unit::Requests, Period::Minute, Algorithm::Sliding), START, 2);
    for (name, unit, expected) in
        [("a", Unit::Requests, 6), ("b", Unit::Requests, 6), ("a", Unit::Tokens, 0), ("c", Unit::Tokens, 0)]
    {
        for algorithm in [Algorithm::Bucket, Algorithm::Sliding] {
            if (unit, algorithm) == (Unit::Tokens, Algorithm::Sliding) {
                continue;
            }
            for period in [Period::Minute, Period::Hour] {
                assert_eq!(used(&mut state, &named(name, unit, period, algorithm), START), expected);
            }
        }
    }
}
