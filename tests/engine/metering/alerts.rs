//! Alerts.

use crate::metering::{CALL, metered, reread};
use crate::support::{Report, START, fixed_policy};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::alerts::Alert;
use tollgate::time::{DAY, HOUR, Month, UnixMicros};

/// Makes a call and returns the thresholds of the alerts that it raised, marked as delivered.
fn alerts(state: &mut KeyState, quota: u64, at: UnixMicros, cost: u64) -> Vec<u16> {
    let policies = [fixed_policy("minute", 1000, Period::Minute), fixed_policy("month", quota, Period::Month)];
    let cost = Cost { requests: cost, tokens: 0 };
    state.judge_call(&policies, at, &CallToJudge { cost, thresholds: &[80, 100], ..CALL });
    let month = Month::of(at);
    let delivered = state.pending_alerts().to_vec();
    for alert in &delivered {
        assert_eq!((alert.policy.as_str(), alert.month, alert.quota, alert.at), ("month", month, quota, at));
        state.mark_alerted(alert);
    }
    assert!(state.pending_alerts().is_empty() && (delivered.is_empty() || state.is_dirty()));
    delivered.iter().map(|alert| alert.threshold).collect()
}

#[test]
fn an_alert_comes_once_and_again_after_a_raise() {
    let mut state = metered();
    let none: [u16; 0] = [];
    assert_eq!(alerts(&mut state, 10, START, 7), none);
    assert_eq!(alerts(&mut state, 10, START, 1), [80]);
    assert_eq!(alerts(&mut state, 10, START, 1), none);
    state = reread(&mut state);
    assert_eq!(alerts(&mut state, 10, START, 1), [100]);
    // Denied: the usage does not change.
    for _ in 0..3 {
        assert_eq!(alerts(&mut state, 10, START, 1), none);
    }
    // Raised a little: the usage is still above 80 % but below 100 %.
    assert_eq!(alerts(&mut state, 12, START, 1), none);
    assert_eq!(alerts(&mut state, 12, START, 1), [100]);
    // Raised well above, and reached again.
    assert_eq!(alerts(&mut state, 20, START, 3), none);
    assert_eq!(alerts(&mut state, 20, START, 1), [80]);
    // Lowered below the usage: a denied call raises the alert.
    assert_eq!(alerts(&mut state, 100, START, 1), none);
    assert_eq!(alerts(&mut state, 5, START, 1), [80, 100]);
    assert_eq!(alerts(&mut state, 5, START, 1), none);
    // The next month starts at 0, and a clock that alternates between two months raises nothing
    // twice.
    let december = Month::of(START).end();
    assert_eq!(alerts(&mut state, 5, december, 5), [80, 100]);
    assert_eq!(alerts(&mut state, 5, december.saturating_sub(HOUR), 1), none);
    assert_eq!(alerts(&mut state, 5, december, 1), none);
    // Marks are kept with their months, because the clock may step back to one.
    for month in 2..6 {
        assert_eq!(alerts(&mut state, 5, december.saturating_add(month * 31 * DAY), 1), none);
        for total in state.meter().unflushed_months() {
            state.mark_flushed(&total);
        }
        assert_eq!(state.to_row().body.contains(r#","w":"#), month < 5);
    }
}

#[test]
fn an_alert_is_pending_until_it_is_delivered() {
    let mut state = metered();
    let policies = [
        fixed_policy("month", 10, Period::Month),
        fixed_policy("day", 1, Period::Day),
        Policy::new("tokens", Unit::Tokens, 1000, Period::Month, Algorithm::Fixed, None).unwrap(),
    ];
    let call = CallToJudge { cost: Cost { requests: 1, tokens: 800 }, thresholds: &[80], ..CALL };
    state.judge_call(&policies, START, &call);
    state = reread(&mut state);
    state.report_calls(&policies, START, 8, Cost { requests: 8, tokens: 0 });
    assert_eq!(state.pending_alerts().len(), 1);
    state.judge_call(&policies, START, &call);
    let alert = |policy: &str, quota, used| {
        let (threshold, month, policy) = (80, Month::of(START), policy.to_owned());
        Alert { policy, threshold, month, quota, used, at: START }
    };
    assert_eq!(state.pending_alerts(), [alert("tokens", 1000, 800), alert("month", 10, 9)]);
    assert!(reread(&mut state).to_row().body.ends_with(concat!(
        r#""w":"tokens|80|202611;month|80|202611;"#,
        r#"tokens|80|202611|1000|800|1795160894000000;month|80|202611|10|9|1795160894000000;"}"#,
    )));
    // Raised and reached again before delivery: the new alert replaces the old one, whose delivery
    // changes nothing.
    let raised = [fixed_policy("month", 20, Period::Month)];
    let call = CallToJudge { cost: Cost { requests: 7, tokens: 0 }, ..call };
    state.judge_call(&raised, START, &CallToJudge { cost: Cost { requests: 1, tokens: 0 }, ..call });
    state.judge_call(&raised, START, &call);
    assert_eq!(state.pending_alerts(), [alert("tokens", 1000, 800), alert("month", 20, 17)]);
    state.committed();
    state.confirmed(state.last_commit());
    state.mark_alerted(&alert("month", 10, 9));
    assert!(!state.is_dirty());
    state.mark_alerted(&alert("month", 20, 17));
    assert!(state.is_dirty());
    assert_eq!(reread(&mut state).pending_alerts(), [alert("tokens", 1000, 800)]);
    let wrong = r#"{"v":1,"seq":1,"e":"e","t":0,"w":"month|80|202613;"}"#.to_owned();
    let error = KeyState::from_rows([(3, wrong)]).unwrap_err();
    assert_eq!(error.to_string(), "row in slot 3 cannot be read: not alerts");
}

/// A quota of 0 raises no alert without usage.
#[test]
fn a_month_without_a_quota_has_no_alert_until_something_is_used() {
    let mut state = metered();
    let none = [fixed_policy("month", 0, Period::Month)];
    let call = CallToJudge { thresholds: &[80], ..CALL };
    state.judge_call(&none, START, &call);
    assert!(state.pending_alerts().is_empty() && !state.is_dirty());
    state.report_calls(&none, START, 1, Cost { requests: 1, tokens: 0 });
    state.judge_call(&none, START, &call);
    assert_eq!(state.pending_alerts().len(), 1);
}

/// A row stores that a threshold can be reached again, even if only a denied call showed it.
#[test]
fn denied_calls_need_a_row_only_if_they_change_alerts() {
    let policies =
        |minute, month| [fixed_policy("minute", minute, Period::Minute), fixed_policy("month", month, Period::Month)];
    let call = CallToJudge { thresholds: &[80], ..CALL };
    let mut state = metered();
    // Admitted calls need a row anyway.
    state.judge_call(&policies(3, 100), START, &call);
    assert!(state.is_dirty() && state.pending_alerts().is_empty());
    state = reread(&mut state);
    let mut judge = |minute, month| {
        assert!(!state.judge_call(&policies(minute, month), START, &call).is_admitted());
        let is_dirty = state.is_dirty();
        state = reread(&mut state);
        (is_dirty, state.pending_alerts().len())
    };
    assert_eq!(judge(3, 100), (false, 0));
    assert_eq!(judge(3, 2), (true, 1));
    assert_eq!(judge(3, 2), (false, 1));
    // The quota is raised.
    assert_eq!(judge(3, 100), (true, 1));
    assert_eq!(judge(3, 100), (false, 1));
}
