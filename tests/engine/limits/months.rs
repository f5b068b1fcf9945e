//! Totals by month.

use crate::limits::{admit, fixed, policy, state, usage_of, used, wait};
use crate::support::{Decide, Report, START, after};
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::months::{Carried, MonthTotal};
use tollgate::time::{Month, SECOND};

#[test]
fn calls_are_metered_whatever_they_cost() {
    let mut state = state();
    let november = Month::of(START);
    state.decide(&fixed(100), START, Cost { requests: 7, tokens: 900 });
    state.decide(&fixed(100), START, Cost { requests: 0, tokens: 0 });
    assert_eq!(state.month(november).calls, 2);
    state.report_calls(&fixed(100), START, 3, Cost { requests: 3, tokens: 10 });
    assert_eq!(state.month(november).calls, 5);
    state.report_calls(&fixed(100), START, 1, Cost { requests: 20, tokens: 0 });
    assert_eq!(state.month(november).calls, 6);
    assert_eq!(used(&mut state, &policy(100, Period::Month, Algorithm::Fixed), START), 30);
    assert!(state.is_dirty());
    state.committed();
    state.report_denials(&fixed(100), START, 0);
    assert!(!state.has_uncommitted_denials());
    state.committed();
    assert!(!state.decide(&fixed(9), START, Cost::default()).is_admitted());
    assert!(state.has_uncommitted_denials() && !state.is_dirty());
    state.report_denials(&fixed(100), START, 3);
    assert_eq!(state.month(november).denied, 4);
    assert_eq!(state.month(november.next()).denied, 0);
    state.report_denials(&fixed(100), november.end(), 1);
    assert_eq!(state.month(november.next()).denied, 1);
    // Denials do not move the judged time.
    assert_eq!(usage_of(&mut state, &fixed(9), START).reset_after, 46 * SECOND);
}

#[test]
fn carried_usage_counts_toward_the_month_only() {
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
    // Carried usage replaces what was carried before.
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

/// The totals of a month in which each call costs a request.
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
    // Counts after the totals were sent remain unflushed.
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
    state.report_denials(&[], START, 1);
    assert_eq!(unflushed(&state), [(november, 4)]);
    state.committed();
    state.mark_flushed(&flushed(november, 3, 1));
    assert!(state.is_dirty());
    for month in &months[1..] {
        admit(&mut state, &[], month.start(), 1);
        assert_eq!(state.month(november).calls, 3, "{month}");
    }
    let kept = |state: &KeyState| state.meter().kept_months().iter().map(|total| total.month).collect::<Vec<_>>();
    assert_eq!(unflushed(&state), [1, 2, 3, 4].map(|index| (months[index], 1)));
    // December is not among the three newest, but not flushed.
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

/// A key that is only denied still moves on to new months.
#[test]
fn denials_alone_move_the_months_on() {
    let mut state = state();
    for (index, month) in months(6).iter().enumerate() {
        state.report_denials(&[], month.start(), 1);
        assert_eq!(flush(&mut state), [(*month, 0, 1)]);
        assert_eq!(state.meter().kept_months().len(), 3.min(index + 1));
    }
}

/// The clock is two months ahead and steps back: the month has its counts, and D1, which keeps the
/// larger of two totals, receives all new ones.
#[test]
fn a_month_keeps_its_counts_while_the_clock_is_ahead() {
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
            // Calls counted ahead remain counted there.
            assert_eq!(used(state, &policies, there), 2);
            admit(state, &policies, there, 1);
            assert_eq!(flush(state), [(months[ahead], 2, 0)]);
        }
    }
}

/// A clock that passed four months before it stepped back made the object drop the first ones. D1
/// still has them.
#[test]
fn a_dropped_month_is_not_reopened() {
    let policies = policy(3, Period::Month, Algorithm::Fixed);
    let months = months(70);
    let mut state = state();
    // January has no calls.
    for (month, cost) in [(0, 3), (1, 1), (3, 2), (4, 1), (5, 1)] {
        admit(&mut state, &policies, months[month].start(), cost);
        flush(&mut state);
    }
    let row = state.to_row();
    assert!(row.body.contains(r#""y":[202612,3]"#), "{}", row.body);
    for state in [&mut state, &mut KeyState::from_rows([(row.slot, row.body)]).unwrap()] {
        // February is the oldest kept month. Calls of dropped months count there, against its
        // usage.
        for month in [months[0], months[1], months[3]] {
            assert_eq!(used(state, &policies, month.start()), 2, "{month}");
        }
        admit(state, &policies, months[0].start(), 1);
        assert!(!state.decide(&policies, months[1].start(), Cost::default()).is_admitted());
        assert_eq!(flush(state), [(months[3], 2, 1)]);
        // Months without counts begin at 0.
        for month in [months[0].previous(), months[2], months[6]] {
            admit(state, &policies, month.start(), 3);
            assert_eq!(flush(state), [(month, 1, 0)]);
        }
    }
    // The record of dropped months is bounded.
    for month in &months[7..] {
        admit(&mut state, &policies, month.start(), 1);
        flush(&mut state);
    }
    let row = state.to_row();
    assert!(row.body.contains(r#""y":[203205,18446744073709551615]"#), "{}", row.body);
    assert_eq!(used(&mut state, &policies, months[6].start()), 1);
    assert!(row.body.len() < 400);
}

/// Usage of earlier epochs may be carried again after the month was dropped.
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
