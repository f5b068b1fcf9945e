//! Holds that nobody settles, and settles that come too late.

use super::{
    TTL, amounts, bucket, commit, expect, fixed, reread, reservation, reserve, settle, state, tokens, used, with_hold,
};
use crate::support::{Decide, START, after, call, fixed_policy, outcome};
use std::collections::BTreeMap;
use tollgate::key_state::closed_holds::{REMEMBERED, REMEMBERED_FOR};
use tollgate::key_state::hold::{HoldState, Reservation, ReservationAnswer, UsedAmount};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::{CallOutcome, ChargeBasis, TokenCharge, UsedTokens};
use tollgate::metering::months::TokenMarks;
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

const EXPIRY: UnixMicros = START.saturating_add(TTL);

fn november() -> Month {
    Month::of(START)
}

/// By whatever event comes first.
#[test]
fn a_hold_that_expires_is_charged_whole() {
    let policies = [fixed(100, Period::Day)];
    let events: [fn(&mut KeyState, UnixMicros); 4] = [
        |state, at| drop(state.usage(&[], at)),
        |state, at| drop(state.decide(&[], at, Cost::NONE)),
        |state, at| state.expire(at),
        |state, at| assert!(state.open_holds(at).is_empty()),
    ];
    for event in events {
        let mut state = state();
        reserve(&mut state, &policies, START, 1, Cost { requests: 2, tokens: 60 });
        assert_eq!(state.next_expiry(), Some(EXPIRY));
        let before = EXPIRY.saturating_sub(1);
        assert_eq!(state.open_holds(before).len(), 1);
        assert_eq!(state.month(november()).tokens, 0);
        event(&mut state, EXPIRY);
        let total = state.month(november());
        assert_eq!(total.tokens, 60);
        assert_eq!((total.cost, total.overdraft), (2, 0));
        assert_eq!(state.next_expiry(), None);
        assert!(!state.meter().is_flushed());
        assert_eq!(amounts(&mut state, &policies, EXPIRY), (60, 0, 40));
    }
}

/// D1 hears of nothing that a crash takes back; but a call that is only denied has nothing to wait for.
#[test]
fn what_expires_is_written_before_it_is_flushed() {
    let policies = [fixed(100, Period::Day)];
    let mut state = state();
    reserve(&mut state, &policies, START, 1, tokens(60));
    state.committed();
    state.usage(&policies, EXPIRY);
    assert!(!state.is_dirty() && state.has_uncommitted_denials());
    state.committed();
    assert!(!state.has_uncommitted_denials());
    reserve(&mut state, &policies, EXPIRY, 2, tokens(20));
    state.committed();
    state.expire(EXPIRY.saturating_add(TTL));
    assert!(state.is_dirty(), "the alarm writes it");
}

#[test]
fn a_late_settle_corrects_what_was_charged() {
    for (policy, remaining) in [(fixed(100, Period::Day), 100), (fixed(100, Period::Month), 100), (bucket(1, 100), 100)]
    {
        for (amount, returned, overdraft) in [(0, 60, 0), (25, 35, 0), (60, 0, 0), (75, 0, 15)] {
            let (mut state, policies) = (state(), [policy.clone()]);
            reserve(&mut state, &policies, START, 1, tokens(60));
            state.expire(EXPIRY);
            let mut state = reread(&mut state);
            let late = EXPIRY.saturating_add(60 * SECOND);
            // A bucket has drained by 11 since.
            let drained = if policies[0].algorithm() == Algorithm::Bucket { amount.min(11) } else { 0 };
            let outcome = settle(&mut state, &policies, late, 1, amount);
            expect(outcome, HoldState::Settled, tokens(amount), tokens(60));
            assert_eq!((outcome.at, outcome.overdraft()), (late, overdraft));
            let used = amount - drained;
            assert_eq!(amounts(&mut state, &policies, late), (used, 0, remaining - used), "{amount}");
            let total = state.month(november());
            assert_eq!((total.tokens, total.returned, total.overdraft), (amount, tokens(returned), overdraft));
            assert_eq!(total.charged, tokens(amount + returned));
            let hours = state.meter().kept_hours();
            assert_eq!((hours[0].counts.tokens, hours[0].counts.returned), (amount, tokens(returned)));
            // Once.
            for state in [&mut state.clone(), &mut reread(&mut state)] {
                assert_eq!(settle(state, &policies, late, 1, 7), outcome);
                assert_eq!(state.release_hold(&policies, late, 1), Some(outcome));
                assert_eq!(state.month(november()).tokens, amount);
                assert_eq!(amounts(state, &policies, late), (used, 0, remaining - used));
            }
        }
    }
}

/// The sums of a month say how much of what is charged nobody has reported.
#[test]
fn what_is_charged_without_a_report_is_marked() {
    let policies = [fixed(1_000, Period::Day)];
    let marks = |state: &KeyState| {
        let TokenMarks { estimated, expired } = state.meter().marks(november());
        (estimated, expired)
    };
    let mut state = state();
    for nonce in 1..6 {
        state.judge_call(&policies, START, &with_hold(nonce, Cost::NONE, 100));
    }
    reserve(&mut state, &policies, START, 9, tokens(50));
    let charge = |state: &mut KeyState, at, nonce, used| {
        state.end_call(&policies, at, &CallOutcome { used: Some(used), ..outcome(nonce) }, &[])?.tokens
    };
    let charged = |tokens, basis| Some(TokenCharge { tokens, basis });
    assert_eq!(charge(&mut state, START, 1, UsedTokens::Reported(7)), charged(7, ChargeBasis::Reported));
    assert_eq!(charge(&mut state, START, 2, UsedTokens::Held), charged(100, ChargeBasis::Held));
    assert_eq!(marks(&state), (0, 0));
    assert_eq!(charge(&mut state, START, 3, UsedTokens::Estimated(30)), charged(30, ChargeBasis::Estimated));
    assert_eq!(charge(&mut state, START, 3, UsedTokens::Estimated(30)), None, "once");
    assert_eq!(marks(&reread(&mut state)), (30, 0));
    state.expire(EXPIRY);
    let mut state = reread(&mut state);
    assert_eq!((marks(&state), state.month(november()).tokens), ((30, 250), 387));
    assert_eq!(charge(&mut state, EXPIRY, 4, UsedTokens::Held), None, "it is charged whole already");
    assert_eq!(marks(&state), (30, 250));
    assert_eq!(charge(&mut state, EXPIRY, 4, UsedTokens::Reported(20)), charged(20, ChargeBasis::Reported));
    assert_eq!(charge(&mut state, EXPIRY, 5, UsedTokens::Estimated(40)), charged(40, ChargeBasis::Estimated));
    state.release_hold(&policies, EXPIRY, 9);
    for state in [&mut state.clone(), &mut reread(&mut state)] {
        state.release_hold(&policies, EXPIRY, 9);
        charge(state, EXPIRY, 5, UsedTokens::Estimated(40));
        assert_eq!((marks(state), state.month(november()).tokens), ((70, 0), 197));
        assert_eq!(state.meter().marks(november().previous()), TokenMarks::default());
    }
}

/// A hold is marked in the month in which it was made.
#[test]
fn marks_are_of_the_month_of_the_hold() {
    let december: UnixMicros = "2026-12".parse::<Month>().unwrap().start();
    let before = december.saturating_sub(MINUTE);
    let mut state = state();
    state.judge_call(&[], before, &with_hold(1, Cost::NONE, 100));
    state.judge_call(&[], before, &with_hold(2, Cost::NONE, 100));
    state.expire(december.saturating_add(HOUR));
    let ended = CallOutcome { used: Some(UsedTokens::Estimated(5)), ..outcome(2) };
    state.end_call(&[], december.saturating_add(HOUR), &ended, &[]);
    assert_eq!(state.meter().marks(november()), TokenMarks { estimated: 5, expired: 100 });
    assert_eq!(state.meter().marks(Month::of(december)), TokenMarks::default());
}

#[test]
fn a_late_release_gives_everything_back() {
    let (mut state, policies) = (state(), [fixed(100, Period::Day)]);
    reserve(&mut state, &policies, START, 1, Cost { requests: 3, tokens: 60 });
    state.expire(EXPIRY);
    let outcome = state.release_hold(&policies, EXPIRY, 1).unwrap();
    expect(outcome, HoldState::Released, Cost::NONE, Cost { requests: 3, tokens: 60 });
    assert_eq!(amounts(&mut state, &policies, EXPIRY), (0, 0, 100));
    let total = state.month(november());
    // A call that was counted stays counted: D1 has only sums that grow.
    assert_eq!((total.calls, total.cost, total.tokens), (1, 0, 0));
}

/// The same for the hold of a call, which is not remembered once it is settled in time.
#[test]
fn a_call_whose_hold_expired_can_be_settled_late() {
    let (mut state, policies) = (state(), [fixed(100, Period::Day)]);
    state.judge_call(&policies, START, &with_hold(1, Cost::default(), 60));
    state.expire(EXPIRY);
    assert_eq!(amounts(&mut state, &policies, EXPIRY), (60, 0, 40));
    settle(&mut state, &policies, EXPIRY, 1, 20);
    let total = state.month(november());
    assert_eq!((total.calls, total.cost, total.tokens), (1, 1, 20));
    assert_eq!(settle(&mut state, &policies, EXPIRY, 1, 30).charged, tokens(20));
}

#[test]
fn closed_holds_are_remembered_for_a_day() {
    let (mut state, policies) = (state(), [fixed(100, Period::Month)]);
    reserve(&mut state, &policies, START, 1, tokens(10));
    reserve(&mut state, &policies, START, 2, tokens(10));
    settle(&mut state, &policies, after(7), 1, 5);
    let end = |state: &KeyState, at: UnixMicros, id| state.clone().settle_hold(&policies, at, id, used(3), &[]);
    let last = after(7).saturating_add(REMEMBERED_FOR);
    assert!(end(&state, last.saturating_sub(1), 1).is_some());
    assert_eq!(end(&state, last, 1), None);
    // From the expiry on, whenever that is noticed.
    let last = EXPIRY.saturating_add(REMEMBERED_FOR);
    assert_eq!(end(&state, last.saturating_sub(1), 2).map(|outcome| outcome.charged), Some(tokens(3)));
    assert_eq!(end(&state, last, 2), None);
}

#[test]
fn closed_holds_fill_rows_of_their_own_and_the_oldest_are_forgotten() {
    let (mut state, mut rows) = (state(), BTreeMap::new());
    let count = 3 * REMEMBERED as u64;
    for id in 0..count {
        let at = after(id);
        reserve(&mut state, &[], at, id, tokens(3));
        settle(&mut state, &[], at, id, 2);
        commit(&mut state, &mut rows);
        if id % 500 == 77 {
            let read = KeyState::from_rows(rows.clone()).unwrap();
            assert_eq!(read.to_row(), state.to_row());
            state = read;
        }
    }
    // One row for each 64 that are remembered, and none is large.
    assert!(rows.len() <= REMEMBERED / 64 + 3, "{}", rows.len());
    assert!(rows.values().all(|row| row.len() < 4_000), "{:?}", rows.values().map(String::len).max());
    let knows = |state: &mut KeyState, id| state.settle_hold(&[], after(count), id, used(9), &[]).is_some();
    for state in [&mut state, &mut KeyState::from_rows(rows).unwrap()] {
        assert!((count - REMEMBERED as u64..count).all(|id| knows(state, id)));
        assert!((0..count - REMEMBERED as u64 - 128).all(|id| !knows(state, id)));
    }
}

/// The hold moves with the clock, and lives no longer than it was to.
#[test]
fn a_clock_that_fell_back_gives_no_units_of_others_back() {
    for policy in [fixed(100, Period::Minute), fixed(100, Period::Hour), fixed(100, Period::Day), bucket(60, 100)] {
        let (mut state, policies) = (state(), [policy]);
        let ahead = START.saturating_add(3 * DAY);
        reserve(&mut state, &policies, ahead, 1, tokens(60));
        // Nothing of it is forgiven by the step.
        assert_eq!(amounts(&mut state, &policies, START).2, 40);
        assert_eq!(state.open_holds(START)[0].expires_at, EXPIRY);
        state.decide(&policies, START, tokens(40));
        assert_eq!(amounts(&mut state, &policies, START).2, 0);
        let mut state = reread(&mut state);
        settle(&mut state, &policies, START, 1, 10);
        let (_, _, remaining) = amounts(&mut state, &policies, START);
        // What others spent stays spent, and a bucket still holds the hold.
        let expected = if policies[0].algorithm() == Algorithm::Bucket { 50 } else { 0 };
        assert_eq!(remaining, expected, "{policies:?}");
        assert_eq!(state.month(november()).tokens, 50);
    }
}

/// A settle beyond the hold counts in the window of the hold, to which the clock comes back.
#[test]
fn a_clock_that_fell_back_finds_what_was_settled() {
    let (mut state, policies) = (state(), [fixed(100, Period::Minute)]);
    let answer = state.reserve(&policies, START, &Reservation { id: 1, cost: tokens(60), ttl: HOUR });
    assert!(matches!(answer, ReservationAnswer::Open(..)));
    let later = START.saturating_add(7 * MINUTE);
    settle(&mut state, &policies, later, 1, 75);
    assert_eq!(amounts(&mut state, &policies, later), (0, 0, 100));
    assert_eq!(amounts(&mut state, &policies, after(20)), (75, 0, 25));
}

/// The window of the hold was forgotten and counted anew by others.
#[test]
fn a_window_that_was_forgotten_gives_nothing_back() {
    let (mut state, policies) = (state(), [fixed(100, Period::Minute)]);
    let answer = state.reserve(&policies, START, &Reservation { id: 1, cost: tokens(60), ttl: HOUR });
    assert!(matches!(answer, ReservationAnswer::Open(..)));
    for minute in 1..8 {
        state.decide(&policies, START.saturating_add(minute * MINUTE), tokens(1));
    }
    // More than what the judged time absorbs, into the minute of the hold.
    let back = after(40);
    state.decide(&policies, back, tokens(50));
    let before = amounts(&mut state, &policies, back);
    settle(&mut state, &policies, back, 1, 0);
    assert_eq!(amounts(&mut state, &policies, back).2, before.2);
}

/// Lost with the memory, a hold never existed; lost with it, its settle never happened.
#[test]
fn a_crash_takes_back_what_is_in_no_row() {
    let (mut state, policies, mut rows) = (state(), [fixed(100, Period::Day)], BTreeMap::new());
    state.usage(&policies, START);
    commit(&mut state, &mut rows);
    reserve(&mut state, &policies, START, 1, tokens(60));
    let mut crashed = KeyState::from_rows(rows.clone()).unwrap();
    assert_eq!(crashed.settle_hold(&policies, START, 1, used(60), &[]), None);
    assert_eq!(amounts(&mut crashed, &policies, START), (0, 0, 100));
    commit(&mut state, &mut rows);
    settle(&mut state, &policies, START, 1, 60);
    let mut crashed = KeyState::from_rows(rows.clone()).unwrap();
    assert_eq!(amounts(&mut crashed, &policies, START), (0, 60, 40));
    settle(&mut crashed, &policies, START, 1, 20);
    assert_eq!(crashed.month(november()).tokens, 20);
    // An expiry that is in no row happens again.
    let mut crashed = KeyState::from_rows(rows).unwrap();
    crashed.expire(EXPIRY);
    assert_eq!(crashed.month(november()).tokens, 60);
}

/// The hour that a late settle corrects is kept for it, so that no hour has more returned than
/// charged.
#[test]
fn a_late_settle_is_of_the_hour_of_the_hold() {
    let policies = [fixed(100, Period::Month)];
    let mut state = state();
    reserve(&mut state, &policies, START, 1, tokens(60));
    let flush = |state: &mut KeyState| {
        for total in state.meter().unflushed_months() {
            state.mark_flushed(&total);
        }
        for total in state.meter().unflushed_hours() {
            state.mark_hour_flushed(&total);
        }
    };
    state.expire(EXPIRY);
    flush(&mut state);
    for hours in 1..23 {
        state.judge_call(&policies, START.saturating_add(hours * HOUR), &call(hours, Cost::default()));
        flush(&mut state);
        state = reread(&mut state);
    }
    settle(&mut state, &policies, START.saturating_add(23 * HOUR), 1, 20);
    let unflushed = state.meter().unflushed_hours();
    assert_eq!(unflushed.len(), 1);
    assert_eq!((unflushed[0].counts.tokens, unflushed[0].counts.returned), (20, tokens(40)));
    let months = state.meter().unflushed_months();
    assert_eq!((months.len(), months[0].tokens), (1, 20));
    flush(&mut state);
    assert!(state.meter().is_flushed() && reread(&mut state).meter().is_flushed());
}

/// A clock that went through four months makes a month go that no hold is of.
#[test]
fn a_late_settle_is_of_the_month_of_the_hold() {
    let (mut state, policies) = (state(), [fixed(100, Period::Month)]);
    reserve(&mut state, &policies, START, 1, tokens(60));
    let mut month = november();
    state.expire(EXPIRY);
    for _ in 0..5 {
        for total in state.meter().unflushed_months() {
            state.mark_flushed(&total);
        }
        month = month.next();
        state.decide(&policies, month.start(), Cost::default());
    }
    assert_eq!(state.month(november().next()).calls, 0, "December is gone");
    let mut state = reread(&mut state);
    settle(&mut state, &policies, EXPIRY, 1, 20);
    assert_eq!((state.month(november()).tokens, state.month(november()).returned), (20, tokens(40)));
}

/// The same of one that expired, and that an older row holds.
#[test]
fn what_an_older_row_holds_moves_with_the_clock() {
    let (mut state, policies, mut rows) = (state(), [fixed(100, Period::Minute)], BTreeMap::new());
    let answer = state.reserve(&policies, START, &Reservation { id: 1, cost: tokens(60), ttl: MINUTE });
    assert!(matches!(answer, ReservationAnswer::Open(..)));
    for minute in 1..70 {
        let at = START.saturating_add(MINUTE + minute * MINUTE / 8);
        reserve(&mut state, &policies, at, 100 + minute, tokens(1));
        settle(&mut state, &policies, at, 100 + minute, 1);
        commit(&mut state, &mut rows);
    }
    assert!(!state.to_row().body.contains("|2|0|60|0|60|"), "the newest row has others");
    let back = after(40);
    state.decide(&policies, back, tokens(50));
    commit(&mut state, &mut rows);
    let mut read = KeyState::from_rows(rows).unwrap();
    for state in [&mut state, &mut read] {
        let before = amounts(state, &policies, back).2;
        assert!(before <= 50);
        expect(settle(state, &policies, back, 1, 0), HoldState::Settled, Cost::NONE, tokens(60));
        assert_eq!(amounts(state, &policies, back).2, before);
    }
}

#[test]
fn a_bucket_forgets_holds_that_are_never_corrected() {
    let mut state = state();
    let policies = [Policy::new("b", Unit::Tokens, 1, Period::Day, Algorithm::Bucket, Some(9_000)).unwrap()];
    reserve(&mut state, &policies, START, 1, tokens(60));
    state.expire(EXPIRY);
    assert!(state.to_row().body.contains(r#""g":[[1,"#));
    let later = EXPIRY.saturating_add(REMEMBERED_FOR);
    reserve(&mut state, &policies, later, 2, tokens(1));
    settle(&mut state, &policies, later, 2, 1);
    assert!(!state.to_row().body.contains(r#""g":"#), "{}", state.to_row().body);
}

/// Where there were too many classes to count its own, also once there is room again.
#[test]
fn a_late_settle_is_of_the_class_that_was_charged() {
    let mut state = state();
    let mut nonce = 1;
    for (hour, class) in (0..17).flat_map(|hour| (0..32).map(move |class| (hour, class))) {
        nonce += 1;
        let (at, class) = (START.saturating_sub(17 * HOUR - hour * HOUR), format!("GET /{class}"));
        state.judge_call(&[], at, &CallToJudge { class: &class, ..call(nonce, Cost::default()) });
    }
    state.judge_call(&[], START, &CallToJudge { class: "GET /new", ..with_hold(1, Cost::NONE, 60) });
    state.expire(EXPIRY);
    let flush = |state: &mut KeyState| {
        for total in state.meter().unflushed_hours() {
            assert!(total.counts.returned.tokens <= total.counts.charged.tokens, "{total:?}");
            state.mark_hour_flushed(&total);
        }
    };
    flush(&mut state);
    state.judge_call(&[], EXPIRY.saturating_add(HOUR), &call(nonce + 1, Cost::default()));
    flush(&mut state);
    settle(&mut state, &[], EXPIRY.saturating_add(HOUR), 1, 20);
    flush(&mut state);
}

/// A log that began after the clock fell back holds nothing of a hold from before.
#[test]
fn a_log_that_began_later_gives_nothing_back() {
    let policy = |algorithm| [Policy::new("r", Unit::Requests, 100, Period::Hour, algorithm, None).unwrap()];
    let (fixed, sliding) = (policy(Algorithm::Fixed), policy(Algorithm::Sliding));
    let (mut state, cost) = (state(), |requests| Cost { requests, tokens: 0 });
    let ahead = START.saturating_add(3 * DAY);
    let answer = state.reserve(&fixed, ahead, &Reservation { id: 1, cost: cost(30), ttl: HOUR });
    assert!(matches!(answer, ReservationAnswer::Open(..)));
    state.renew_hold(ahead.saturating_add(50 * MINUTE), 1, HOUR);
    state.decide(&fixed, ahead.saturating_add(100 * MINUTE), cost(1));
    state.decide(&fixed, START, cost(40));
    let before = amounts(&mut state, &sliding, START).2;
    let mut state = reread(&mut state);
    state.settle_hold(&sliding, START, 1, UsedAmount { tokens: 0, requests: Some(0) }, &[]).unwrap();
    assert_eq!(amounts(&mut state, &sliding, START).2, before);
    assert!(before <= 60);
}

/// A settle of tokens alone changes no count of calls, and is flushed all the same.
#[test]
fn a_month_is_flushed_when_d1_has_all_its_numbers() {
    let (mut state, policies) = (state(), [fixed_policy("r", 100, Period::Month)]);
    for id in 1..4 {
        reserve(&mut state, &policies, START, id, tokens(10));
    }
    let due = |state: &mut KeyState| {
        let totals = state.meter().unflushed_months();
        assert_eq!(reread(state).meter().unflushed_months(), totals);
        for total in &totals {
            state.mark_flushed(total);
        }
        assert!(state.meter().unflushed_months().is_empty());
        assert!(reread(state).meter().unflushed_months().is_empty());
        totals.iter().map(|total| (total.charged.tokens, total.returned.tokens, total.overdraft)).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut state), []);
    settle(&mut state, &policies, START, 1, 4);
    assert_eq!(due(&mut state), [(4, 0, 0)]);
    settle(&mut state, &policies, START, 2, 14);
    assert_eq!(due(&mut state), [(18, 0, 4)]);
    state.expire(EXPIRY);
    assert_eq!(due(&mut state), [(28, 0, 4)]);
    settle(&mut state, &policies, EXPIRY, 3, 9);
    assert_eq!(due(&mut state), [(28, 1, 4)]);
}

#[test]
fn what_comes_back_late_may_be_spent_at_once() {
    let sliding = Policy::new("s", Unit::Requests, 9, Period::Hour, Algorithm::Sliding, None).unwrap();
    let (mut state, policies) = (state(), [sliding]);
    let cost = Cost { requests: 9, tokens: 0 };
    let answer = state.reserve(&policies, START, &reservation(1, cost));
    assert!(matches!(answer, ReservationAnswer::Open(..)));
    state.expire(EXPIRY);
    assert!(!state.decide(&policies, EXPIRY, Cost::default()).is_admitted());
    state.settle_hold(&policies, EXPIRY, 1, UsedAmount { tokens: 0, requests: Some(4) }, &[]);
    assert!(state.decide(&policies, EXPIRY, Cost { requests: 5, tokens: 0 }).is_admitted());
    assert!(!state.decide(&policies, EXPIRY, Cost::default()).is_admitted());
}

/// Of holds that expire at one event, each is remembered for its own 24 hours.
#[test]
fn holds_that_expire_together_are_forgotten_each_at_its_time() {
    let policies = [fixed(1_000, Period::Month)];
    let mut state = state();
    let long = Reservation { id: 1, cost: tokens(5), ttl: HOUR };
    state.reserve(&policies, START, &long);
    state.reserve(&policies, START, &Reservation { id: 2, cost: tokens(5), ttl: SECOND });
    state.expire(START.saturating_add(HOUR));
    let at = START.saturating_add(DAY + 2 * SECOND);
    state.reserve(&policies, at, &Reservation { id: 3, cost: tokens(5), ttl: SECOND });
    state.release_hold(&policies, at, 3);
    let mut state = reread(&mut state);
    let used = UsedAmount { tokens: 1, requests: None };
    assert!(state.settle_hold(&policies, at, 1, used, &[]).is_some(), "an hour is left");
    assert!(state.settle_hold(&policies, at, 2, used, &[]).is_none());
}
