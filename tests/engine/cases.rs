//! Single cases of the engine: changes of policies, metering, clocks that go wrong.

use crate::support::Decide;
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{ReportOutcome, ReportedUsage};
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, MAX_QUOTA, Period, Policy, Unit};
use tollgate::metering::months::{Carried, MonthTotal};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-20T07:48:14Z: 46 s before the end of the minute.
const START: UnixMicros = UnixMicros::from_micros(1_795_160_894 * SECOND);

fn policy(quota: u64, period: Period, algorithm: Algorithm) -> [Policy; 1] {
    [Policy::new("p", Unit::Requests, quota, period, algorithm, None).unwrap()]
}

fn fixed(quota: u64) -> [Policy; 1] {
    policy(quota, Period::Minute, Algorithm::Fixed)
}

fn sliding(quota: u64) -> [Policy; 1] {
    policy(quota, Period::Minute, Algorithm::Sliding)
}

fn bucket(quota: u64, period: Period, burst: u64) -> [Policy; 1] {
    [Policy::new("p", Unit::Requests, quota, period, Algorithm::Bucket, Some(burst)).unwrap()]
}

fn state() -> KeyState {
    KeyState::new("e".into())
}

fn after(seconds: u64) -> UnixMicros {
    START.saturating_add(seconds * SECOND)
}

fn admit(state: &mut KeyState, policies: &[Policy], at: UnixMicros, requests: u64) {
    let decision = state.decide(policies, at, Cost { requests, tokens: 0 });
    assert!(decision.is_admitted(), "{decision:?}");
}

fn wait(state: &mut KeyState, policies: &[Policy], at: UnixMicros, requests: u64) -> u64 {
    match state.decide(policies, at, Cost { requests, tokens: 0 }).verdict {
        Verdict::Denied { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    }
}

fn standing(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> PolicyUsage {
    state.usage(policies, at).policies[0]
}

fn used(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> u64 {
    standing(state, policies, at).used
}

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
        assert_eq!(standing(&mut state, &policies, START), unused);
    }
}

#[test]
fn a_log_frees_what_left_the_rolling_period() {
    let mut state = state();
    let policies = sliding(5);
    admit(&mut state, &policies, START, 2);
    admit(&mut state, &policies, after(10), 3);
    assert_eq!(
        standing(&mut state, &policies, after(20)),
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
        standing(&mut state, &policies, START),
        PolicyUsage { remaining: 0, used: 3, held: 0, reset_after: 10 * SECOND }
    );
    assert_eq!(wait(&mut state, &policies, START, 1), 10 * SECOND);
    assert_eq!(wait(&mut state, &policies, after(5), 2), 15 * SECOND);
    assert_eq!(
        standing(&mut state, &policies, after(9)),
        PolicyUsage { remaining: 0, used: 3, held: 0, reset_after: SECOND }
    );
    assert_eq!(
        standing(&mut state, &policies, after(10)),
        PolicyUsage { remaining: 1, used: 2, held: 0, reset_after: 10 * SECOND }
    );
    assert_eq!(
        standing(&mut state, &policies, after(30)),
        PolicyUsage { remaining: 3, used: 0, held: 0, reset_after: 0 }
    );
}

/// A unit takes no whole number of microseconds, and still nothing is lost over an hour.
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
fn what_can_never_be_admitted_says_so() {
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
fn a_policy_does_not_judge_what_costs_it_nothing() {
    let tokens = |algorithm| Policy::new("t", Unit::Tokens, 10, Period::Hour, algorithm, None).unwrap();
    for algorithm in [Algorithm::Fixed, Algorithm::Bucket] {
        let mut state = state();
        let policies = [tokens(algorithm)];
        assert!(state.decide(&policies, START, Cost { requests: 1, tokens: 10 }).is_admitted());
        assert!(!state.decide(&policies, START, Cost { requests: 1, tokens: 1 }).is_admitted());
        state.charge_calls(START, 1, Cost { requests: 1, tokens: 5 });
        assert_eq!(used(&mut state, &policies, START), 15);
        assert_eq!(standing(&mut state, &policies, START).remaining, 0);
        assert!(state.decide(&policies, START, Cost::default()).is_admitted());
    }
}

#[test]
fn a_lower_quota_denies_at_once_and_a_higher_one_admits_at_once() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let mut state = state();
        let policies = |quota| policy(quota, Period::Minute, algorithm);
        admit(&mut state, &policies(10), START, 8);
        assert!(!state.decide(&policies(5), START, Cost::default()).is_admitted());
        assert_eq!(standing(&mut state, &policies(5), START).remaining, 0);
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
                assert_eq!(standing(&mut state, &policy(10, period, to), START).remaining, 3);
                admit(&mut state, &policy(10, period, to), START, 3);
                assert_eq!(used(&mut state, &policy(10, period, from), START), 10, "{from} to {to} and back");
            }
        }
    }
}

/// What was spent in the window before may have been spent in its last moment.
#[test]
fn a_log_starts_from_the_windows_at_their_latest() {
    let mut state = state();
    admit(&mut state, &fixed(100), START, 30);
    admit(&mut state, &fixed(100), after(50), 4);
    admit(&mut state, &fixed(100), after(51), 1);
    let policies = sliding(40);
    assert_eq!(used(&mut state, &policies, after(52)), 35);
    // The minute ended at 46 s, and its 30 count until a minute later.
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
        standing(&mut state, &hourly, at),
        PolicyUsage { remaining: 0, used: 10, held: 0, reset_after: 30 * SECOND }
    );
    assert_eq!(wait(&mut state, &hourly, at, 1), 30 * SECOND);
    assert_eq!(wait(&mut state, &bucket(60, Period::Minute, 10), at, 1), SECOND / 2);
}

#[test]
fn a_scaled_level_is_rounded_up() {
    let mut state = state();
    admit(&mut state, &bucket(1, Period::Day, 10), START, 1);
    // One span-th of a day's unit has drained: a 1440th of what a minute's bucket can tell.
    let at = START.saturating_add(1);
    let minutely = bucket(1, Period::Minute, 10);
    assert_eq!(
        standing(&mut state, &minutely, at),
        PolicyUsage { remaining: 9, used: 1, held: 0, reset_after: MINUTE }
    );
}

#[test]
fn what_no_policy_uses_is_let_go_once_it_has_run_out() {
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
fn a_change_of_policies_asks_for_a_row() {
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
        // Let go, and taken up again.
        assert!(peek(&mut state, &[]));
        assert!(!peek(&mut state, &[]));
        assert!(peek(&mut state, &policies));
    }
    assert!(peek(&mut state, &bucket(7, Period::Minute, 6)));
    assert!(peek(&mut state, &bucket(7, Period::Hour, 6)));
    assert!(!peek(&mut state, &bucket(7, Period::Hour, 9)));
}

#[test]
fn a_renamed_bucket_and_one_of_another_unit_are_let_go() {
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

/// An entry holds about a million units; more in one millisecond take several entries.
#[test]
fn a_log_takes_more_units_in_a_millisecond_than_an_entry_holds() {
    let mut state = state();
    let policies = sliding(5);
    state.usage(&policies, START);
    for requests in [1_000_000, 48_575, 100_000, 2_100_000, 7] {
        state.charge_calls(START, requests, Cost { requests, tokens: 0 });
    }
    assert_eq!(used(&mut state, &policies, START), 3_248_582);
    let row = state.to_row();
    let mut read = KeyState::from_rows([(row.slot, row.body)]).unwrap();
    for state in [&mut state, &mut read] {
        assert_eq!(used(state, &policies, after(59)), 3_248_582);
        assert_eq!(used(state, &policies, after(60)), 0);
    }
}

/// Two tiers may use one name for different units, and one unit for different names.
#[test]
fn states_of_other_units_names_and_periods_are_others() {
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

#[test]
fn a_clock_that_steps_back_opens_nothing() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let mut state = state();
        let policies = policy(5, Period::Minute, algorithm);
        admit(&mut state, &policies, START, 5);
        let now = wait(&mut state, &policies, START, 1);
        for back in [1, SECOND, MINUTE, MAX_SKEW] {
            let clock = START.saturating_sub(back);
            // Waits count from the clock as it was read.
            assert_eq!(wait(&mut state, &policies, clock, 1), now + back, "{algorithm} {back}");
        }
        state.committed();
        wait(&mut state, &policies, START, 1);
        assert!(!state.is_dirty());
    }
}

/// A step back is waited for if it is of five minutes or less.
#[test]
fn a_clock_that_steps_back_is_waited_for_five_minutes() {
    let mut state = state();
    admit(&mut state, &fixed(5), START, 5);
    let back = START.saturating_sub(300 * SECOND);
    assert_eq!(wait(&mut state, &fixed(5), back, 1), 346 * SECOND);
    assert!(wait(&mut state, &fixed(5), back.saturating_sub(1), 1) <= MINUTE);
}

/// They are of no window and no bucket, and a row may be lost with them.
#[test]
fn denials_from_elsewhere_do_not_move_the_judged_time() {
    let mut state = state();
    let owed = ReportedUsage { nonce: 1, denied: 3, ..ReportedUsage::default() };
    assert_eq!(state.apply_report(&fixed(5), after(240), &owed), ReportOutcome::Counted);
    assert_eq!(standing(&mut state, &fixed(5), START).reset_after, 46 * SECOND);
    let total = state.month(Month::of(START));
    assert_eq!((total.calls, total.denied), (0, 3));
    assert_eq!(
        state.apply_report(&fixed(5), after(240), &ReportedUsage { nonce: 2, calls: 1, ..owed }),
        ReportOutcome::Counted
    );
    assert_eq!(standing(&mut state, &fixed(5), START).reset_after, 286 * SECOND);
}

#[test]
fn a_clock_of_the_far_future_holds_a_key_for_a_period() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let mut state = state();
        let policies = policy(5, Period::Minute, algorithm);
        admit(&mut state, &policies, START.saturating_add(9000 * DAY), 5);
        state.committed();
        let until = match algorithm {
            Algorithm::Fixed => 46 * SECOND,
            Algorithm::Sliding => MINUTE,
            Algorithm::Bucket => MINUTE / 5,
        };
        assert_eq!(wait(&mut state, &policies, START, 1), until, "{algorithm}");
        assert!(state.is_dirty());
        assert_eq!(used(&mut state, &policies, START), 5);
        assert_eq!(wait(&mut state, &policies, after(1), 1), until - SECOND);
        admit(&mut state, &policies, START.saturating_add(until), 1);
    }
    let never = UnixMicros::from_micros(u64::MAX);
    for policies in [fixed(5), sliding(5), bucket(5, Period::Minute, 5)] {
        let mut state = state();
        admit(&mut state, &policies, never, 5);
        assert_eq!(used(&mut state, &policies, never), 5);
        assert!(!state.decide(&policies, never, Cost::default()).is_admitted());
        assert!(wait(&mut state, &policies, START, 1) <= MINUTE);
    }
}

/// An hour ahead and back: the minute that it comes back to has what was spent of it before, and
/// what was spent meanwhile.
#[test]
fn a_clock_that_falls_back_finds_its_window_as_it_was() {
    for period in [Period::Minute, Period::Hour, Period::Day] {
        let policies = policy(5, period, Algorithm::Fixed);
        let span = period.micros().unwrap();
        let start = period.window(START).start;
        // Also if the clock went over the end of a window while it was ahead.
        for ahead in [60 * span, 61 * span - SECOND / 100] {
            for (before, meanwhile) in [(5, 0), (5, 3), (2, 2), (0, 5), (1, 5)] {
                let mut state = state();
                let at = |micros| start.saturating_add(micros);
                (0..before).for_each(|_| admit(&mut state, &policies, at(SECOND), 1));
                for call in 0..meanwhile {
                    admit(&mut state, &policies, at(ahead + call * SECOND / 100), 1);
                }
                let row = state.to_row();
                let mut read = KeyState::from_rows([(row.slot, row.body)]).unwrap();
                for state in [&mut state, &mut read] {
                    assert_eq!(used(state, &policies, at(2 * SECOND)), before + meanwhile, "{period}");
                    let left = 5_u64.saturating_sub(before + meanwhile);
                    (0..left).for_each(|_| admit(state, &policies, at(2 * SECOND), 1));
                    assert_eq!(wait(state, &policies, at(2 * SECOND), 1), span - 2 * SECOND);
                    admit(state, &policies, at(span), 5);
                    // What was spent ahead is still spent when its time comes.
                    let spent = if ahead == 60 * span { meanwhile } else { meanwhile.min(1) };
                    assert_eq!(used(state, &policies, at(60 * span)), spent);
                }
            }
        }
    }
}

#[test]
fn a_clock_that_leapt_ahead_says_by_how_much() {
    let mut state = state();
    let look = |state: &mut KeyState, at| drop(state.usage(&[], at).policies);
    look(&mut state, START);
    look(&mut state, after(3600));
    assert_eq!(state.lead(after(3600)), 0);
    let ahead = after(7201);
    look(&mut state, ahead);
    assert_eq!(state.lead(ahead), HOUR + SECOND);
    look(&mut state, ahead.saturating_add(2 * DAY));
    let lead = 2 * DAY + HOUR + SECOND;
    assert_eq!(state.lead(ahead.saturating_add(3 * DAY)), lead);
    let waited_for = ahead.saturating_add(2 * DAY - 300 * SECOND);
    assert_eq!([waited_for, waited_for.saturating_sub(1)].map(|clock| state.lead(clock)), [lead, 0]);
    // Once it is back it does not.
    assert_eq!(state.lead(ahead.saturating_add(DAY)), 0);
    admit(&mut state, &[], ahead.saturating_add(2 * DAY), 1);
    look(&mut state, after(3700));
    assert_eq!(state.lead(after(3700)), 0);
    look(&mut state, ahead.saturating_add(DAY));
    assert!(state.lead(ahead.saturating_add(DAY)) > DAY);
    state.trust_clock();
    assert_eq!(state.lead(ahead.saturating_add(DAY)), 0);
}

/// Nothing that was counted is forgotten by a step back and a change of policies at once, and
/// nothing counts twice.
#[test]
fn windows_of_a_clock_that_stepped_back_seed_logs_and_buckets() {
    for policies in [sliding(5), bucket(5, Period::Minute, 5)] {
        let mut state = state();
        admit(&mut state, &fixed(5), START, 2);
        admit(&mut state, &fixed(5), after(3600), 3);
        assert_eq!(used(&mut state, &policies, START), 5);
        let back = START.saturating_sub(MAX_SKEW);
        assert_eq!(used(&mut state, &policies, back), 5);
    }
}

/// A window that was spent from before the clock stepped back is still spent when its time comes.
#[test]
fn waiting_helps_once_all_policies_agree() {
    let minute = fixed(5);
    let boundary = after(46);
    let mut state = state();
    admit(&mut state, &minute, boundary.saturating_add(2 * HOUR), 5);
    admit(&mut state, &minute, boundary.saturating_add(2 * HOUR + MINUTE), 4);
    // Nine were spent less than a minute before the step, as far as is known.
    assert_eq!(wait(&mut state, &minute, boundary, 1), MINUTE);
    let clock = boundary.saturating_add(2 * HOUR - MINUTE);
    admit(&mut state, &minute, clock, 5);
    assert_eq!(wait(&mut state, &minute, clock, 1), 2 * MINUTE);
    assert_eq!(wait(&mut state, &minute, clock, 2), 3 * MINUTE);
}

/// A bucket that drains a unit in 59.5 s has room less than a second before the minute ends, which clients cannot hit.
#[test]
fn a_wait_that_ends_just_before_a_full_minute_goes_on() {
    let minute = |unit| Policy::new("m", unit, 10, Period::Minute, Algorithm::Fixed, None).unwrap();
    let boundary = after(46);
    let clock = boundary.saturating_add(2 * HOUR - MINUTE);
    // The wait for a bucket alone, and when the minute after this one is spent, which a clock that was ahead has done.
    for (a_day, drained, spent) in [(1452, 59_504_133, 2 * MINUTE), (2880, 30 * SECOND, 30 * SECOND)] {
        let bucket = Policy::new("b", Unit::Requests, a_day, Period::Day, Algorithm::Bucket, Some(5)).unwrap();
        let waits = |unit, ahead: Cost| {
            let policies = [minute(unit), bucket.clone()];
            let mut state = state();
            state.charge_calls(clock.saturating_add(MINUTE), 1, ahead);
            // The clock falls back, and goes on.
            standing(&mut state, &policies, boundary);
            admit(&mut state, &policies, clock, 5);
            wait(&mut state, &policies, clock, 1)
        };
        assert_eq!(waits(Unit::Requests, Cost { requests: 10, tokens: 0 }), spent);
        assert_eq!(waits(Unit::Requests, Cost { requests: 9, tokens: 0 }), drained, "there is room for one");
        assert_eq!(waits(Unit::Tokens, Cost { requests: 0, tokens: 15 }), drained, "it costs no tokens");
    }
}

/// What was spent a period before the clock stepped back, or earlier, does not count where it came back to.
#[test]
fn a_step_back_takes_along_what_was_spent_in_the_last_period() {
    let there = after(46).saturating_add(HOUR);
    for (later, counted) in [(2 * MINUTE, 1), (2 * MINUTE - 1, 3)] {
        let mut state = state();
        admit(&mut state, &fixed(5), there, 2);
        admit(&mut state, &fixed(5), there.saturating_add(later), 1);
        assert_eq!(used(&mut state, &fixed(5), START), counted);
    }
}

#[test]
fn calls_are_metered_whatever_they_cost() {
    let mut state = state();
    let november = Month::of(START);
    state.decide(&fixed(100), START, Cost { requests: 7, tokens: 900 });
    state.decide(&fixed(100), START, Cost { requests: 0, tokens: 0 });
    assert_eq!(state.month(november).calls, 2);
    state.charge_calls(START, 3, Cost { requests: 3, tokens: 10 });
    assert_eq!(state.month(november).calls, 5);
    state.charge_calls(START, 1, Cost { requests: 20, tokens: 0 });
    assert_eq!(state.month(november).calls, 6);
    assert_eq!(used(&mut state, &policy(100, Period::Month, Algorithm::Fixed), START), 30);
    assert!(state.is_dirty());
    state.committed();
    state.deny_elsewhere(START, 0);
    assert!(!state.has_uncommitted_denials());
    state.deny_elsewhere(START, 4);
    assert!(state.has_uncommitted_denials() && !state.is_dirty());
    assert_eq!(state.month(november).denied, 4);
    assert_eq!(state.month(november.next()).denied, 0);
    state.deny_elsewhere(november.end(), 1);
    assert_eq!(state.month(november.next()).denied, 1);
    // Denials do not move the judged time.
    assert_eq!(standing(&mut state, &fixed(9), START).reset_after, 46 * SECOND);
}

#[test]
fn what_is_carried_counts_toward_the_month_and_nothing_else() {
    let mut state = state();
    let month = policy(1000, Period::Month, Algorithm::Fixed);
    let tokens = [Policy::new("t", Unit::Tokens, 1000, Period::Month, Algorithm::Fixed, None).unwrap()];
    let november = Month::of(START);
    state.carry_over(november, Carried::default());
    assert!(!state.is_dirty());
    let carried = |cost| Carried { calls: 91, cost, tokens: 70 };
    state.carry_over(november, carried(990));
    assert!(state.is_dirty());
    state.committed();
    state.carry_over(november, carried(990));
    assert!(!state.is_dirty());
    // What is noted replaces what was noted before.
    state.carry_over(november, carried(995));
    assert!(state.is_dirty());
    let row = state.to_row();
    for state in [&mut state, &mut KeyState::from_rows([(row.slot, row.body)]).unwrap()] {
        assert_eq!(used(state, &month, START), 995);
        assert_eq!(used(state, &tokens, START), 70);
        assert_eq!(used(state, &fixed(10), START), 0);
        assert!(state.meter().unflushed_months().is_empty());
        admit(state, &month, START, 5);
        assert_eq!(wait(state, &month, START, 1), november.end().since(START));
        let total = state.month(november);
        assert_eq!((total.month, total.calls, total.denied, total.cost), (november, 1, 1, 5));
        assert_eq!(total.carried, carried(995));
        assert_eq!(used(state, &month, november.end()), 0);
    }
}

/// Totals of a month in which each call costs a request.
const fn flushed(month: Month, calls: u64, denied: u64) -> MonthTotal {
    let charged = Cost { requests: calls, tokens: 0 };
    let carried = Carried { calls: 0, cost: 0, tokens: 0 };
    MonthTotal { month, calls, denied, carried, cost: calls, tokens: 0, charged, returned: Cost::NONE, overdraft: 0 }
}

fn flush(state: &mut KeyState) -> Vec<(Month, u64, u64)> {
    let totals = state.meter().unflushed_months();
    for total in &totals {
        state.mark_flushed(total);
    }
    for total in state.meter().unflushed_hours() {
        state.mark_hour_flushed(&total);
    }
    totals.into_iter().map(|total| (total.month, total.calls, total.denied)).collect()
}

fn months(count: usize) -> Vec<Month> {
    std::iter::successors(Some(Month::of(START)), |month| Some(month.next())).take(count).collect()
}

#[test]
fn months_stay_until_they_are_over_and_flushed() {
    let mut state = state();
    let november = Month::of(START);
    let months = months(5);
    let unflushed = |state: &KeyState| -> Vec<(Month, u64)> {
        state.meter().unflushed_months().iter().map(|total| (total.month, total.calls + total.denied)).collect()
    };
    admit(&mut state, &[], START, 1);
    admit(&mut state, &[], START, 1);
    // What is counted after the totals were sent stays unflushed.
    state.mark_flushed(&flushed(november, 1, 0));
    assert_eq!(unflushed(&state), [(november, 2)]);
    state.mark_flushed(&flushed(november, 2, 0));
    assert_eq!(unflushed(&state), []);
    state.committed();
    state.mark_flushed(&flushed(november, 1, 0));
    state.mark_flushed(&flushed(november, 2, 0));
    assert!(unflushed(&state).is_empty() && !state.is_dirty());
    admit(&mut state, &[], START, 1);
    state.committed();
    state.mark_flushed(&flushed(november, 3, 0));
    assert!(state.is_dirty(), "what D1 has is part of the row");
    state.committed();
    state.deny_elsewhere(START, 1);
    assert_eq!(unflushed(&state), [(november, 4)]);
    state.mark_flushed(&flushed(november, 3, 1));
    assert!(state.is_dirty());
    for month in &months[1..] {
        admit(&mut state, &[], month.start(), 1);
        assert_eq!(state.month(november).calls, 3, "{month}");
    }
    let kept = |state: &KeyState| state.meter().kept_months().iter().map(|total| total.month).collect::<Vec<_>>();
    assert_eq!(unflushed(&state), [1, 2, 3, 4].map(|index| (months[index], 1)));
    // December is not one of the three newest, but not flushed.
    state.mark_flushed(&flushed(months[4], 1, 0));
    assert_eq!(kept(&state), &months[1..]);
    state.mark_flushed(&flushed(months[3], 1, 0));
    assert_eq!(kept(&state), &months[1..]);
    state.committed();
    state.mark_flushed(&flushed(months[1], 1, 0));
    assert_eq!(kept(&state), &months[2..]);
    assert!(state.is_dirty());
    state.mark_flushed(&flushed(months[1], 1, 0));
    assert_eq!(unflushed(&state), [(months[2], 1)]);
    state.mark_flushed(&flushed(months[2], 1, 0));
    assert_eq!((kept(&state).as_slice(), unflushed(&state)), (&months[2..], Vec::new()));
}

/// Months go by for a key that is only ever denied.
#[test]
fn denials_alone_move_the_months_on() {
    let mut state = state();
    for (index, month) in months(6).iter().enumerate() {
        state.deny_elsewhere(month.start(), 1);
        assert_eq!(flush(&mut state), [(*month, 0, 1)]);
        assert_eq!(state.meter().kept_months().len(), 3.min(index + 1));
    }
}

/// Two months ahead and back: the month is as it was, and D1, which keeps the larger of two totals,
/// hears of all that is new.
#[test]
fn a_month_that_was_left_is_still_there() {
    let policies = policy(3, Period::Month, Algorithm::Fixed);
    let months = months(9);
    for ahead in [1, 2, 8] {
        let mut state = state();
        admit(&mut state, &policies, START, 3);
        assert_eq!(flush(&mut state), [(months[0], 1, 0)]);
        let there = months[ahead].start();
        admit(&mut state, &policies, there, 2);
        assert_eq!(flush(&mut state), [(months[ahead], 1, 0)]);
        let row = state.to_row();
        for state in [&mut state, &mut KeyState::from_rows([(row.slot, row.body)]).unwrap()] {
            assert_eq!(wait(state, &policies, after(9), 1), months[1].start().since(after(9)));
            let raised = policy(5, Period::Month, Algorithm::Fixed);
            admit(state, &raised, after(9), 1);
            assert_eq!(flush(state), [(months[0], 2, 1)]);
            assert_eq!(used(state, &raised, after(9)), 4);
            // What was counted ahead is still counted there.
            assert_eq!(used(state, &policies, there), 2);
            admit(state, &policies, there, 1);
            assert_eq!(flush(state), [(months[ahead], 2, 0)]);
        }
    }
}

/// A clock that went through four months before it came back has made the object forget the first
/// ones, not D1.
#[test]
fn a_month_that_was_dropped_is_not_opened_again() {
    let policies = policy(3, Period::Month, Algorithm::Fixed);
    let months = months(70);
    let mut state = state();
    // January is left out.
    for (month, cost) in [(0, 3), (1, 1), (3, 2), (4, 1), (5, 1)] {
        admit(&mut state, &policies, months[month].start(), cost);
        flush(&mut state);
    }
    let row = state.to_row();
    assert!(row.body.contains(r#""y":[202612,3]"#), "{}", row.body);
    for state in [&mut state, &mut KeyState::from_rows([(row.slot, row.body)]).unwrap()] {
        // February is the oldest that is kept. What was dropped is counted there, and what was
        // spent there is spent.
        for month in [months[0], months[1], months[3]] {
            assert_eq!(used(state, &policies, month.start()), 2, "{month}");
        }
        admit(state, &policies, months[0].start(), 1);
        assert!(!state.decide(&policies, months[1].start(), Cost::default()).is_admitted());
        assert_eq!(flush(state), [(months[3], 2, 1)]);
        // Months that were never counted begin at nothing.
        for month in [months[0].previous(), months[2], months[6]] {
            admit(state, &policies, month.start(), 3);
            assert_eq!(flush(state), [(month, 1, 0)]);
        }
    }
    // What is remembered of dropped months is bounded.
    for month in &months[7..] {
        admit(&mut state, &policies, month.start(), 1);
        flush(&mut state);
    }
    let row = state.to_row();
    assert!(row.body.contains(r#""y":[203205,18446744073709551615]"#), "{}", row.body);
    assert_eq!(used(&mut state, &policies, months[6].start()), 1);
    assert!(row.body.len() < 400);
}

/// What earlier epochs recorded of a month may come again after it was dropped.
#[test]
fn a_dropped_month_that_is_carried_again_is_dropped_again() {
    let months = months(5);
    let mut state = state();
    for month in &months {
        admit(&mut state, &[], month.start(), 1);
        flush(&mut state);
    }
    for month in &months[..2] {
        state.carry_over(*month, Carried { calls: 1, cost: 1, tokens: 0 });
        state.mark_flushed(&flushed(*month, 0, 0));
        assert!(state.meter().kept_months().iter().map(|total| total.month).eq(months[2..].iter().copied()));
        let row = state.to_row();
        assert!(row.body.contains(r#""y":[202612,3]"#), "{}", row.body);
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
        state.charge_calls(START, u64::MAX, Cost { requests: u64::MAX, tokens: u64::MAX });
    }
    let standings = state.usage(&policies, START).policies;
    assert!(standings.iter().all(|standing| standing.remaining == 0 && standing.used >= MAX_QUOTA));
    assert_eq!(standings[2].reset_after, u64::MAX - START.as_micros());
    assert_eq!(standings[1].used, 3 * MAX_QUOTA);
    assert_eq!(standings[1].reset_after, DAY);
    assert!(!state.decide(&policies, START, Cost::default()).is_admitted());
}
