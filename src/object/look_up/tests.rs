use super::*;
use crate::key_state::hold::{HoldTerms, Reservation, UsedAmount};
use crate::key_state::state::judging::{CallToJudge, ReportedUsage};
use crate::keys::profile::Status;
use crate::limiter::cost::Cost;
use crate::metering::call_outcome::{CallOutcome, UsedTokens};
use crate::object::fixtures::{NOW, SECRET, at, check, commit, memory, profile, settings};
use crate::object::judge::{judge, record_report};
use crate::protocol::object_request::PendingReport;

fn called(rest: &str) -> Memory {
    let mut memory = memory(profile(10, 1_000, rest));
    judge(&mut memory, &settings(), &check(1), at(NOW)).unwrap();
    commit(memory.key_state.as_mut().unwrap());
    memory
}

#[test]
fn usage_counts_what_earlier_epochs_counted_in_this_month() {
    let mut memory = called("");
    let carried = serde_json::from_str(r#"{"calls":5,"cost":7,"tokens":30,"overdraft":4}"#).unwrap();
    memory.key_state.as_mut().unwrap().carry_over(Month::of(at(NOW)), carried);
    let usage = usage(&mut memory, "k", at(NOW)).unwrap().unwrap();
    assert_eq!((usage.key_id.as_str(), usage.tier.as_str(), usage.status), ("k", "free", Status::Active));
    assert_eq!((usage.month.as_str(), usage.calls, usage.as_of), ("2031-03", 6, rfc3339(at(NOW))));
    assert_eq!((usage.tokens, usage.overdraft), (30, 4));
    let used: Vec<_> = usage.policies.iter().map(|policy| (policy.policy.as_str(), policy.used)).collect();
    assert_eq!(used, [("minute", 1), ("month", 8)]);
}

#[test]
fn status_is_for_the_own_secret() {
    let mut memory = called("");
    assert_eq!(key_status(&mut memory, "k", "other", at(NOW)).unwrap(), "1 unknown");
    let text = key_status(&mut memory, "k", SECRET, at(NOW)).unwrap();
    let Some(KeyStatusResponse::Known(KeyStatus { key, me, month })) = KeyStatusResponse::parse(&text) else {
        panic!("{text}");
    };
    let remaining: Vec<u64> = key.usage.policies.iter().map(|policy| policy.remaining).collect();
    assert_eq!((key.status, remaining), (Status::Active, vec![9, 999]));
    let me: Value = serde_json::from_str(me).unwrap();
    assert_eq!((&me["key_id"], &me["status"], &me["policies"][0]["used"]), (&json!("k"), &json!("active"), &json!(1)));
    let month: Value = serde_json::from_str(month).unwrap();
    assert_eq!(month, json!({"month":"2031-03","epoch":"e","calls":1,"denied":0,"cost":1,"tokens":0}));
    assert!(text.starts_with("1 admitted free "));
}

#[test]
fn a_key_that_may_not_be_used_has_its_status() {
    let text = key_status(&mut called(r#","expires_at":1930564800000"#), "k", SECRET, at(NOW)).unwrap();
    assert!(text.starts_with("1 refused:expired free "), "{text}");
    assert!(text.contains(&format!(r#""expires_at":"{}""#, rfc3339(at(NOW)))), "{text}");
}

#[test]
fn a_key_that_d1_does_not_have_is_unknown() {
    assert_eq!(usage(&mut Memory::default(), "k", at(NOW)), Err(NotLoaded));
    assert_eq!(key_status(&mut Memory::default(), "k", SECRET, at(NOW)), Err(NotLoaded));
    let mut memory = Memory::default();
    memory.begin("e".to_owned());
    assert_eq!(usage(&mut memory, "k", at(NOW)), Ok(None));
    assert_eq!(key_status(&mut memory, "k", SECRET, at(NOW)).unwrap(), "1 unknown");
}

#[test]
fn looking_up_writes_nothing() {
    let mut memory = called("");
    usage(&mut memory, "k", at(NOW + 1)).unwrap();
    key_status(&mut memory, "k", SECRET, at(NOW + 1)).unwrap();
    assert!(!memory.has_unwritten());
}

/// Usage without a call.
#[test]
fn settled_tokens_are_in_usage_and_counts() {
    let mut memory = memory(profile(10, 1_000, ""));
    let key_state = memory.key_state.as_mut().unwrap();
    key_state.reserve(&[], at(NOW), &Reservation { id: 1, cost: Cost { requests: 0, tokens: 50 }, ttl: 1_000_000 });
    assert_eq!(counts(key_state)["counts"], json!([]), "held, not used");
    key_state.settle_hold(&[], at(NOW), 1, UsedAmount { tokens: 70, requests: None }, &[]);
    let hour = rfc3339(at(NOW));
    let expected = json!([["2031-03", "", 0, 0, 0, 70], [hour, "reservations", 0, 0, 0, 70]]);
    assert_eq!(counts(key_state)["counts"], expected);
    let text = key_status(&mut memory, "k", SECRET, at(NOW)).unwrap();
    assert!(text.contains(r#""tokens":70"#), "{text}");
    let usage = usage(&mut memory, "k", at(NOW)).unwrap().unwrap();
    assert_eq!((usage.calls, usage.tokens, usage.overdraft), (0, 70, 20));
}

#[test]
fn usage_says_what_was_charged_without_a_report() {
    let mut memory = memory(profile(10, 1_000, ""));
    let key_state = memory.key_state.as_mut().unwrap();
    let call = CallToJudge {
        cost: Cost::default(),
        method: "POST",
        class: "POST",
        nonce: 1,
        idempotency_key: None,
        fingerprint: None,
        is_audited: false,
        thresholds: &[],
        hold: Some(HoldTerms { tokens: 50, ttl: 1_000_000 }),
        reprice: None,
    };
    assert!(key_state.judge_call(&[], at(NOW), &call).is_admitted());
    for id in [2, 3] {
        key_state.reserve(&[], at(NOW), &Reservation { id, cost: Cost { requests: 0, tokens: 50 }, ttl: 1_000_000 });
    }
    let used = Some(UsedTokens::Estimated(20));
    key_state.end_call(&[], at(NOW), &CallOutcome { nonce: 1, status: 200, duration_ms: 1, used, cost: None }, &[]);
    let marks = |memory: &mut Memory, now| {
        let usage = usage(memory, "k", at(now)).unwrap().unwrap();
        (usage.tokens, usage.tokens_estimated, usage.tokens_expired)
    };
    assert_eq!(marks(&mut memory, NOW), (20, 20, 0));
    assert_eq!(marks(&mut memory, NOW + 1_000), (120, 20, 100));
    memory.key_state.as_mut().unwrap().release_hold(&[], at(NOW + 1_000), 2);
    assert_eq!(marks(&mut memory, NOW + 1_000), (70, 20, 50));
}

#[test]
fn counts_are_those_of_months_and_hours() {
    let mut memory = called("");
    let key_state = memory.key_state.as_mut().unwrap();
    let hour = rfc3339(at(NOW));
    let expected = json!({"epoch":"e","counts":[["2031-03","",1,0,1,0],[hour,"POST",1,0,1,0]]});
    let mut found = counts(key_state);
    found["counts"][1][1] = json!("POST");
    assert_eq!(found, expected);
    let mut other = KeyState::new("f".to_owned());
    assert_eq!(counts(&other), json!({"epoch":"f","counts":[]}));
    // A month without calls and denials in this epoch has no row in D1. One with denials alone has.
    other.carry_over(Month::of(at(NOW)), serde_json::from_str(r#"{"calls":5,"cost":7,"tokens":0}"#).unwrap());
    assert_eq!(counts(&other)["counts"], json!([]));
    let denials = ReportedUsage { denied: 2, ..ReportedUsage::default() };
    other.apply_report(&[], at(NOW), &denials);
    assert_eq!(counts(&other)["counts"][0], json!(["2031-03", "", 0, 2, 0, 0]));
}

#[test]
fn a_month_counts_if_this_epoch_has_called_or_denied() {
    let mut memory = memory(profile(10, 1_000, ""));
    let carried = serde_json::from_str(r#"{"calls":5,"cost":7,"tokens":0}"#).unwrap();
    memory.key_state.as_mut().unwrap().carry_over(Month::of(at(NOW)), carried);
    assert_eq!(counts(memory.key_state.as_ref().unwrap())["counts"], json!([]));
    let report = PendingReport { nonce: 1, denied: 1, ..PendingReport::default() };
    record_report(&mut memory, &settings(), report, at(NOW)).unwrap();
    assert_eq!(counts(memory.key_state.as_ref().unwrap())["counts"][0], json!(["2031-03", "", 0, 1, 0, 0]));
}
