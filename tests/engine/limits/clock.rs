//! Clocks that step back or leap ahead.

use crate::limits::{admit, bucket, fixed, policy, sliding, state, usage_of, used, wait};
use crate::support::{Decide, Report, START, after};
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{ReportOutcome, ReportedUsage};
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

#[test]
fn a_clock_that_steps_back_reopens_no_window() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let mut state = state();
        let policies = policy(5, Period::Minute, algorithm);
        admit(&mut state, &policies, START, 5);
        let now = wait(&mut state, &policies, START, 1);
        for back in [1, SECOND, MINUTE, MAX_SKEW] {
            let clock = START.saturating_sub(back);
            // Waits are relative to the clock's reading.
            assert_eq!(wait(&mut state, &policies, clock, 1), now + back, "{algorithm} {back}");
        }
        state.committed();
        wait(&mut state, &policies, START, 1);
        assert!(!state.is_dirty());
    }
}

/// The judged time does not change until the clock has caught up.
#[test]
fn a_step_back_of_up_to_five_minutes_is_absorbed() {
    let mut state = state();
    admit(&mut state, &fixed(5), START, 5);
    let back = START.saturating_sub(300 * SECOND);
    assert_eq!(wait(&mut state, &fixed(5), back, 1), 346 * SECOND);
    assert!(wait(&mut state, &fixed(5), back.saturating_sub(1), 1) <= MINUTE);
}

/// Denials count in no window or bucket, and the row may be lost with them.
#[test]
fn reported_denials_do_not_move_the_judged_time() {
    let mut state = state();
    let report = ReportedUsage { nonce: 1, denied: 3, ..ReportedUsage::default() };
    assert_eq!(state.apply_report(&fixed(5), after(240), &report), ReportOutcome::Counted);
    assert_eq!(usage_of(&mut state, &fixed(5), START).reset_after, 46 * SECOND);
    let total = state.month(Month::of(START));
    assert_eq!((total.calls, total.denied), (0, 3));
    assert_eq!(
        state.apply_report(&fixed(5), after(240), &ReportedUsage { nonce: 2, calls: 1, ..report }),
        ReportOutcome::Counted
    );
    assert_eq!(usage_of(&mut state, &fixed(5), START).reset_after, 286 * SECOND);
}

#[test]
fn a_reading_of_the_far_future_blocks_a_key_for_a_period() {
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

/// The clock is an hour ahead and steps back. The minute that it returns to has its earlier count
/// and what was counted meanwhile.
#[test]
fn a_window_keeps_its_count_while_the_clock_is_ahead() {
    for period in [Period::Minute, Period::Hour, Period::Day] {
        let policies = policy(5, period, Algorithm::Fixed);
        let span = period.micros().unwrap();
        let start = period.window(START).start;
        // Also if the clock passed the end of a window while it was ahead.
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
                    // Units counted ahead still count when their time comes.
                    let spent = if ahead == 60 * span { meanwhile } else { meanwhile.min(1) };
                    assert_eq!(used(state, &policies, at(60 * span)), spent);
                }
            }
        }
    }
}

#[test]
fn the_lead_of_a_clock_that_leapt_ahead_is_known() {
    let mut state = state();
    let read = |state: &mut KeyState, at| drop(state.usage(&[], at).policies);
    read(&mut state, START);
    read(&mut state, after(3600));
    assert_eq!(state.lead(after(3600)), 0);
    let ahead = after(7201);
    read(&mut state, ahead);
    assert_eq!(state.lead(ahead), HOUR + SECOND);
    read(&mut state, ahead.saturating_add(2 * DAY));
    let lead = 2 * DAY + HOUR + SECOND;
    assert_eq!(state.lead(ahead.saturating_add(3 * DAY)), lead);
    let waited_for = ahead.saturating_add(2 * DAY - 300 * SECOND);
    assert_eq!([waited_for, waited_for.saturating_sub(1)].map(|clock| state.lead(clock)), [lead, 0]);
    // Once the clock has stepped back, there is no lead.
    assert_eq!(state.lead(ahead.saturating_add(DAY)), 0);
    admit(&mut state, &[], ahead.saturating_add(2 * DAY), 1);
    read(&mut state, after(3700));
    assert_eq!(state.lead(after(3700)), 0);
    read(&mut state, ahead.saturating_add(DAY));
    assert!(state.lead(ahead.saturating_add(DAY)) > DAY);
    state.trust_clock();
    assert_eq!(state.lead(ahead.saturating_add(DAY)), 0);
}

/// A step back together with a change of policies loses no count and counts nothing twice.
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

/// A window that was counted before the clock stepped back still counts when its time comes.
#[test]
fn a_wait_ends_once_all_policies_agree() {
    let minute = fixed(5);
    let boundary = after(46);
    let mut state = state();
    admit(&mut state, &minute, boundary.saturating_add(2 * HOUR), 5);
    admit(&mut state, &minute, boundary.saturating_add(2 * HOUR + MINUTE), 4);
    // Nine may have been spent less than a minute before the step.
    assert_eq!(wait(&mut state, &minute, boundary, 1), MINUTE);
    let clock = boundary.saturating_add(2 * HOUR - MINUTE);
    admit(&mut state, &minute, clock, 5);
    assert_eq!(wait(&mut state, &minute, clock, 1), 2 * MINUTE);
    assert_eq!(wait(&mut state, &minute, clock, 2), 3 * MINUTE);
}

/// A bucket that drains a unit in 59.5 s has room less than a second before the minute ends.
/// Clients wait for whole seconds and would miss it.
#[test]
fn a_wait_that_ends_just_before_a_full_minute_goes_on() {
    let minute = |unit| Policy::new("m", unit, 10, Period::Minute, Algorithm::Fixed, None).unwrap();
    let boundary = after(46);
    let clock = boundary.saturating_add(2 * HOUR - MINUTE);
    // The wait for the bucket alone, and the wait if the next minute is already full, counted while
    // the clock was ahead.
    for (a_day, drained, spent) in [(1452, 59_504_133, 2 * MINUTE), (2880, 30 * SECOND, 30 * SECOND)] {
        let bucket = Policy::new("b", Unit::Requests, a_day, Period::Day, Algorithm::Bucket, Some(5)).unwrap();
        let waits = |unit, ahead: Cost| {
            let policies = [minute(unit), bucket.clone()];
            let mut state = state();
            state.report_calls(&[], clock.saturating_add(MINUTE), 1, ahead);
            // The clock steps back, then goes on.
            usage_of(&mut state, &policies, boundary);
            admit(&mut state, &policies, clock, 5);
            wait(&mut state, &policies, clock, 1)
        };
        assert_eq!(waits(Unit::Requests, Cost { requests: 10, tokens: 0 }), spent);
        assert_eq!(waits(Unit::Requests, Cost { requests: 9, tokens: 0 }), drained, "there is room for one");
        assert_eq!(waits(Unit::Tokens, Cost { requests: 0, tokens: 15 }), drained, "it costs no tokens");
    }
}

/// Units spent a period before the step or earlier do not count in the window that the clock
/// stepped back to.
#[test]
fn usage_of_the_last_period_survives_a_step_back() {
    let there = after(46).saturating_add(HOUR);
    for (later, counted) in [(2 * MINUTE, 1), (2 * MINUTE - 1, 3)] {
        let mut state = state();
        admit(&mut state, &fixed(5), there, 2);
        admit(&mut state, &fixed(5), there.saturating_add(later), 1);
        assert_eq!(used(&mut state, &fixed(5), START), counted);
    }
}
