//! Usage by hour and class.

use crate::metering::{metered, of_class, reread, unflushed};
use crate::support::{Decide, Report, START, fixed_policy};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::Period;
use tollgate::metering::MAX_CLASS_BYTES;
use tollgate::metering::hours::{Counts, HourTotal, MAX_CLASSES};
use tollgate::time::{DAY, HOUR, Month, rfc3339};

#[test]
fn hours_are_counted_by_class() {
    let policies = [fixed_policy("minute", 5, Period::Minute)];
    let mut state = metered();
    for class in ["GET /a", "/v1/*", "GET /a"] {
        state.judge_call(&policies, START, &of_class(class));
    }
    state.report_denials(&policies, START, 4);
    state.report_calls(&policies, START, 3, Cost { requests: 6, tokens: 1 });
    state.decide(&policies, START.saturating_add(HOUR), Cost::default());
    let row = |hour, class: &str, calls, denied, cost| (hour, class.to_owned(), calls, denied, cost);
    let expected = [
        row(0, "GET /a", 1, 1, 2),
        row(0, "/v1/*", 1, 0, 2),
        row(0, "edge", 0, 4, 0),
        row(0, "unjudged", 3, 0, 6),
        row(1, "other", 1, 0, 1),
    ];
    assert_eq!(unflushed(&state), expected);
    assert_eq!(rfc3339(state.meter().unflushed_hours()[0].start()), "2026-11-20T07:00:00Z");
    let month = state.month(Month::of(START));
    assert_eq!((month.calls, month.denied, month.cost, month.tokens), (6, 5, 11, 11));
    assert_eq!(unflushed(&reread(&mut state)), expected);
}

#[test]
fn counts_since_a_flush_remain_unflushed() {
    let mut state = metered();
    let judge = |state: &mut KeyState, hours| {
        state.judge_call(&[], START.saturating_add(hours * HOUR), &of_class("GET /a"));
    };
    judge(&mut state, 0);
    let sent = state.meter().unflushed_hours();
    judge(&mut state, 0);
    judge(&mut state, 1);
    state.committed();
    state.confirmed(state.last_commit());
    state.mark_hour_flushed(&sent[0]);
    assert!(state.is_dirty());
    let row = |hour, calls, cost| (hour, "GET /a".to_owned(), calls, 0, cost);
    assert_eq!(unflushed(&state), [row(0, 2, 4), row(1, 1, 2)]);
    let sent = state.meter().unflushed_hours();
    for total in &sent {
        state.mark_hour_flushed(total);
    }
    assert!(unflushed(&state).is_empty());
    // A late acknowledgement, and one of an unknown hour.
    state.committed();
    state.confirmed(state.last_commit());
    state.mark_hour_flushed(&HourTotal { counts: Counts { calls: 1, ..Counts::default() }, ..sent[1].clone() });
    state.mark_hour_flushed(&HourTotal { class: "GET /b".into(), ..sent[1].clone() });
    state.mark_hour_flushed(&sent[0]);
    assert!(!state.is_dirty() && !state.meter().is_flushed());
    let body = state.to_row().body;
    assert!(body.contains(r#""h":"498656|GET /a|1|0|2|1|0|2|5|0|0|5|0|0;"}"#), "{body}");
}

/// D1 keeps the larger of two totals, so a dropped hour must not be reopened.
#[test]
fn a_flushed_hour_is_kept_while_it_can_grow() {
    let mut state = metered();
    state.judge_call(&[], START, &of_class("/v1"));
    let total = state.meter().unflushed_hours()[0].clone();
    assert_eq!(state.meter().kept_hours(), std::slice::from_ref(&total));
    state.mark_hour_flushed(&total);
    assert_eq!((state.meter().kept_hours(), state.meter().unflushed_hours()), (vec![total], Vec::new()));
}

#[test]
fn a_dropped_hour_is_not_reopened() {
    let mut state = metered();
    let mut judge = |hours: u64| {
        let at = START.saturating_add(hours * HOUR);
        state.judge_call(&[], at, &of_class("GET /a"));
        let sent = state.meter().unflushed_hours();
        for total in &sent {
            state.mark_hour_flushed(total);
        }
        sent.into_iter().map(|total| (total.hour - START.as_micros() / HOUR, total.counts.calls)).collect::<Vec<_>>()
    };
    let december = Month::of(START).end().since(START).div_ceil(HOUR);
    assert_eq!(judge(0), [(0, 1)]);
    assert_eq!(judge(3), [(3, 1)]);
    assert_eq!(judge(1), [(3, 2)]);
    assert_eq!(judge(december), [(december, 1)]);
    assert_eq!(judge(0), [(3, 3)]);
    assert_eq!(judge(4), [(4, 1)]);
}

#[test]
fn classes_are_bounded_and_sums_exact() {
    let mut state = metered();
    for round in 1..=2 {
        for class in 0..100 {
            state.judge_call(&[], START, &of_class(&format!("GET /{class}")));
        }
        state.report_denials(&[], START, 1);
        let rows = unflushed(&state);
        assert_eq!(rows.len(), MAX_CLASSES + 2);
        assert_eq!(rows[MAX_CLASSES], (0, "other".into(), 68 * round, 0, 136 * round));
        assert!(rows[..MAX_CLASSES].iter().all(|row| row.2 == round));
    }
    // While D1 is unavailable for days, the row stays bounded.
    for hour in 1..1000 {
        for class in 0..40 {
            state.judge_call(&[], START.saturating_add(hour * HOUR), &of_class(&format!("GET /{hour}/{class}")));
        }
    }
    let rows = unflushed(&state);
    assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 200 + 999 * 40);
    assert!(rows.len() < 512 + 1000, "{}", rows.len());
    let long = "GET /".to_owned() + &"é".repeat(60);
    state.judge_call(&[], START.saturating_add(50 * DAY), &of_class(&long));
    let mut state = metered();
    state.judge_call(&[], START, &of_class(&long));
    let class = &unflushed(&state)[0].1;
    assert!(class.len() == MAX_CLASS_BYTES - 1 && long.starts_with(class.as_str()), "{class}");
    state.judge_call(&[], START, &of_class(&long));
    assert_eq!(unflushed(&state).len(), 1);
}

#[test]
fn of_512_entries_each_is_counted_by_its_class() {
    let mut state = metered();
    for hour in 0..16 {
        for class in 0..32 {
            state.judge_call(&[], START.saturating_add(hour * HOUR), &of_class(&format!("GET /{class}")));
        }
    }
    state.judge_call(&[], START.saturating_add(16 * HOUR), &of_class("GET /x"));
    let rows = unflushed(&state);
    assert_eq!((rows.len(), rows.iter().filter(|row| row.1 == "other").count()), (513, 1));
    assert_eq!(rows[512], (16, "other".to_owned(), 1, 0, 2));
}

#[test]
fn an_empty_report_opens_no_hour() {
    let mut state = metered();
    state.report_calls(&[], START, 0, Cost { requests: 0, tokens: 0 });
    assert!(state.meter().kept_hours().is_empty());
}

#[test]
fn hours_that_d1_does_not_have_are_not_flushed() {
    let mut state = metered();
    state.judge_call(&[], START, &of_class("/v1"));
    assert!(!state.meter().is_flushed());
    let month = state.month(Month::of(START));
    state.mark_flushed(&month);
    assert!(!state.meter().is_flushed());
    for total in state.meter().unflushed_hours() {
        state.mark_hour_flushed(&total);
    }
    assert!(state.meter().is_flushed());
}

#[test]
fn the_stored_form_of_hours_is_frozen() {
    let policies = [fixed_policy("month", 3, Period::Month)];
    for (tokens, windows, months, hours) in [
        (0, "", "[[202611,1,1,0,2,0,0,0]]", "498655|POST /v1/*|1|0|2|1|0|2;"),
        (
            5,
            ",[[[29919348,5]],[[498655,5]],[[20777,5]]]",
            "[[202611,1,1,0,2,5,0,0]]",
            "498655|POST /v1/*|1|0|2|1|0|2|5|0|0|5|0|0;",
        ),
    ] {
        let mut state = metered();
        let of_class = |class| CallToJudge { cost: Cost { requests: 2, tokens }, ..of_class(class) };
        state.judge_call(&policies, START, &of_class("POST /v1/*"));
        state.committed();
        state.confirmed(state.last_commit());
        let sent = state.meter().unflushed_hours();
        state.mark_hour_flushed(&sent[0]);
        state.judge_call(&policies, START, &of_class("GET /a"));
        let body = format!(
            concat!(
                r#"{{"v":1,"seq":2,"e":"e1","t":1795160894000000,"#,
                r#""f":[[[[29919348,2]],[[498655,2]],[[20777,2]]]{}],"m":{},"n":[7],"#,
                r#""h":"{}498655|GET /a|0|1|0|0|0|0;"}}"#
            ),
            windows, months, hours
        );
        assert_eq!(state.to_row().body, body);
        assert_eq!(unflushed(&reread(&mut state)), unflushed(&state));
    }
    // A version that did not count the tokens of an hour counted those of its month and windows.
    let body = concat!(
        r#"{"v":1,"seq":2,"e":"e1","t":1795160894000000,"#,
        r#""f":[[[[29919348,2]],[[498655,2]],[[20777,2]]],[[[29919348,5]],[[498655,5]],[[20777,5]]]],"#,
        r#""m":[[202611,1,1,0,2,5,0,0]],"n":[7],"#,
        r#""h":"498655|POST /v1/*|1|0|2|1|0|2;498655|GET /a|0|1|0|0|0|0;"}"#,
    );
    let state = KeyState::from_rows([(0, body.to_owned())]).unwrap();
    assert_eq!(state.to_row().body, body.replace(r#""seq":2"#, r#""seq":3"#));
    assert_eq!(unflushed(&state), [(0, "GET /a".to_owned(), 0, 1, 0)]);
    assert_eq!(metered().to_row().body, r#"{"v":1,"seq":1,"e":"e1","t":0,"h":""}"#);
    for wrong in ["x", "1", "1|a", "1|a|0|0|0|0|0", "2|a|0|0|0|0|0|0;1|a|0|0|0|0|0|0;"] {
        let row = format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"h":"{wrong}"}}"#);
        let error = KeyState::from_rows([(3, row)]).unwrap_err();
        assert_eq!(error.to_string(), "row in slot 3 cannot be read: not hours", "{wrong}");
    }
}

/// A row of a version that did not count hours.
#[test]
fn a_row_without_hours_is_read() {
    let body = r#"{"v":1,"seq":9,"e":"e","t":1795160894000000,"m":[[202611,9,0,0,9,0,9,0]]}"#;
    let mut state = KeyState::from_rows([(0, body.to_owned())]).unwrap();
    assert_eq!(unflushed(&state), []);
    state.judge_call(&[], START, &of_class("GET /a"));
    assert_eq!(unflushed(&state), [(0, "GET /a".into(), 1, 0, 2)]);
    assert_eq!(state.month(Month::of(START)).calls, 10);
}
