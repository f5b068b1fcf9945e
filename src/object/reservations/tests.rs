use super::*;
use crate::key_state::hold::MAX_OPEN_HOLDS;
use crate::keys::token_route::TokenTerms;
use crate::limiter::cost::Cost;
use crate::object::fixtures::{NOW, at, check, commit, memory, settings};
use crate::object::judge::{judge, record_outcomes};
use crate::object::memory::ProfileWrite;
use crate::protocol::held_call::HeldCall;
use crate::protocol::object_request::{CallOutcomes, Check};
use crate::protocol::object_response::Extent;
use crate::time::{Month, SECOND};
use crate::tokens::request::TokenHold;
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;

/// A profile with 1,000 tokens a day and 2 requests a minute.
fn profile(rest: &str) -> Profile {
    let row = format!(
        r#"{{"id":"k","tier":"free","status":"active","secret_hash":"hash","policies":[
        {{"policy":"minute","unit":"requests","quota":2,"period":"minute","algorithm":"fixed"}},
        {{"policy":"day","unit":"tokens","quota":1000,"period":"day","algorithm":"fixed"}},
        {{"policy":"month","unit":"tokens","quota":100000,"period":"month","algorithm":"fixed"}}]{rest}}}"#
    );
    Profile::new(serde_json::from_str(&row).unwrap()).unwrap()
}

fn reservation(id: u64, tokens: u64, requests: u64) -> HoldRequest {
    HoldRequest::Reserve(Reservation { id, cost: Cost { requests, tokens }, ttl: 600 * SECOND })
}

/// The answer, as a line and JSON.
fn asked(memory: &mut Memory, request: &HoldRequest, now: u64) -> (String, Value, bool) {
    let HoldAnswer { text, needs_write } = answer(memory, &settings(), request, at(now)).unwrap();
    let (line, json) = text.split_once('\n').unwrap();
    (line.to_owned(), serde_json::from_str(json).unwrap_or_default(), needs_write)
}

fn reserved(memory: &mut Memory, request: &HoldRequest, now: u64) -> (KeyVerdict, Value, bool) {
    let (line, json, needs_write) = asked(memory, request, now);
    match ObjectResponse::parse(&line) {
        Some(ObjectResponse::Key(known)) => (known.verdict, json, needs_write),
        other => panic!("{other:?}"),
    }
}

fn settle(id: u64, tokens: u64) -> HoldRequest {
    HoldRequest::Settle(id, UsedAmount { tokens, requests: None })
}

const ADMITTED: KeyVerdict = KeyVerdict::Admitted(Admission {
    is_replay: false,
    wants_outcome: false,
    ignores_key: false,
    has_hold: false,
    is_repriced: false,
    cap: None,
});

#[test]
fn a_reservation_waits_for_a_row_and_so_does_its_repeat() {
    let mut memory = memory(profile(""));
    let view = json!({"id": "aaaaaaaaaaaab", "tokens": 600, "requests": 1, "expires_at": "2031-03-06T12:10:00Z"});
    for now in [NOW, NOW + MINUTE] {
        assert_eq!(reserved(&mut memory, &reservation(1, 600, 1), now), (ADMITTED, view.clone(), true));
    }
    let (line, list, needs_write) = asked(&mut memory, &HoldRequest::List, NOW + MINUTE);
    assert_eq!((line.as_str(), list, needs_write), ("1 found", json!({"reservations": [view]}), false));
    let (verdict, json, needs_write) = reserved(&mut memory, &reservation(2, 401, 0), NOW + MINUTE);
    let retry_after = 12 * 3_600_000 - MINUTE;
    let denied = KeyVerdict::Denied {
        violated: vec![1],
        retry_after,
        cost: 0,
        extent: Extent::Unsaid,
        lacks_hold: false,
        may_end_early: false,
    };
    assert_eq!((verdict, json, needs_write), (denied, Value::Null, false));
    assert_eq!(reserved(&mut memory, &reservation(2, 400, 0), NOW + MINUTE).0, ADMITTED);
}

#[test]
fn what_no_policy_can_ever_fit_is_said_in_its_unit() {
    let mut memory = memory(profile(""));
    for (tokens, requests, policy, cost) in [(1_001, 1, 1, 1_001), (1, 3, 0, 3)] {
        let verdict = reserved(&mut memory, &reservation(1, tokens, requests), NOW).0;
        assert_eq!(verdict, KeyVerdict::CostExceedsQuota { policy, cost });
    }
}

#[test]
fn the_maximum_of_open_reservations_is_a_policy() {
    let mut memory = memory(profile(""));
    for id in 0..MAX_OPEN_HOLDS as u64 {
        assert_eq!(reserved(&mut memory, &reservation(id, 1, 0), NOW + id).0, ADMITTED);
    }
    asked(&mut memory, &HoldRequest::Release(7), NOW + MINUTE);
    assert_eq!(reserved(&mut memory, &reservation(2_000, 1, 0), NOW + MINUTE).0, ADMITTED);
    let (line, ..) = asked(&mut memory, &reservation(2_001, 1, 0), NOW + MINUTE);
    let Some(ObjectResponse::Key(known)) = ObjectResponse::parse(&line) else { panic!("{line}") };
    assert_eq!(known.violated(), ["day", "reservations"]);
}

#[test]
fn only_an_active_key_reserves_but_what_is_open_is_settled() {
    let mut memory = memory(profile(""));
    reserved(&mut memory, &reservation(1, 600, 0), NOW);
    reserved(&mut memory, &reservation(2, 100, 0), NOW);
    memory.profile = Some(profile(&format!(r#","expires_at":{}"#, NOW + 1)));
    let refused = (KeyVerdict::Refused(Status::Expired), Value::Null, false);
    assert_eq!(reserved(&mut memory, &reservation(3, 1, 0), NOW + 1), refused);
    let (verdict, view, needs_write) = reserved(&mut memory, &reservation(1, 600, 0), NOW + 1);
    assert_eq!((verdict, &view["tokens"], needs_write), (ADMITTED, &json!(600), true), "a repeat");
    assert_eq!(asked(&mut memory, &settle(1, 70), NOW + 2).1["tokens"], 70);
    assert_eq!(asked(&mut memory, &HoldRequest::Release(2), NOW + 2).1["state"], "released");
}

#[test]
fn closing_twice_says_the_same_and_waits_for_a_row() {
    let mut memory = memory(profile(""));
    reserved(&mut memory, &reservation(1, 600, 1), NOW);
    reserved(&mut memory, &reservation(2, 100, 0), NOW);
    let settled = json!({"id": "aaaaaaaaaaaab", "state": "settled", "tokens": 700, "requests": 1,
        "reserved": {"tokens": 600, "requests": 1}, "overdraft": 100});
    for request in [settle(1, 700), settle(1, 5), HoldRequest::Release(1)] {
        assert_eq!(asked(&mut memory, &request, NOW), ("1 found".to_owned(), settled.clone(), true));
    }
    let released = asked(&mut memory, &HoldRequest::Release(2), NOW);
    assert_eq!((&released.1["state"], &released.1["tokens"], released.2), (&json!("released"), &json!(0), true));
    assert_eq!(asked(&mut memory, &settle(2, 9), NOW), released);
    assert_eq!(asked(&mut memory, &settle(3, 9), NOW), ("1 none".to_owned(), Value::Null, false));
}

#[test]
fn an_id_that_was_used_is_not_used_for_anything_else() {
    let mut memory = memory(profile(""));
    reserved(&mut memory, &reservation(1, 600, 1), NOW);
    assert_eq!(reserved(&mut memory, &reservation(1, 601, 1), NOW).0, KeyVerdict::Mismatch);
    asked(&mut memory, &settle(1, 10), NOW);
    assert_eq!(reserved(&mut memory, &reservation(1, 600, 1), NOW).0, KeyVerdict::Conflict);
    assert_eq!(reserved(&mut memory, &reservation(1, 600, 0), NOW).0, KeyVerdict::Mismatch);
    // One that lapsed can still be settled.
    reserved(&mut memory, &reservation(2, 600, 0), NOW);
    let (verdict, view, _) = reserved(&mut memory, &reservation(2, 600, 0), NOW + 11 * MINUTE);
    assert_eq!((verdict, &view["expires_at"]), (ADMITTED, &json!("2031-03-06T12:10:00Z")));
}

#[test]
fn a_key_that_d1_does_not_have_is_unknown() {
    let mut memory = Memory::default();
    assert_eq!(answer(&mut memory, &settings(), &HoldRequest::List, at(NOW)), Err(NotLoaded));
    memory.begin("e".to_owned());
    for request in [reservation(1, 1, 0), settle(1, 1), HoldRequest::Release(1), HoldRequest::List] {
        assert_eq!(asked(&mut memory, &request, NOW), ("1 unknown".to_owned(), Value::Null, false));
    }
}

/// An object that has stored a reservation of 900 tokens, and has been told by D1 of its key.
fn stored() -> Memory {
    let mut memory = memory(profile(""));
    reserved(&mut memory, &reservation(1, 900, 1), NOW);
    commit(memory.key_state.as_mut().unwrap());
    memory.is_saved = true;
    memory
}

#[test]
fn the_alarm_is_set_for_the_expiry_and_charges_it() {
    let mut memory = stored();
    assert!(!memory.has_unwritten(), "nothing is metered");
    assert_eq!(memory.arm(60, at(NOW), || 0.5), Some(NOW + 10 * MINUTE));
    let thresholds = [80];
    memory.expire_holds(&thresholds, at(NOW + 10 * MINUTE - 1));
    assert!(!memory.has_unwritten());
    memory.expire_holds(&thresholds, at(NOW + 10 * MINUTE));
    assert!(memory.has_unwritten_counts());
    let key_state = memory.key_state.as_ref().unwrap();
    let [total] = key_state.meter().unflushed_months().try_into().unwrap();
    assert_eq!((total.calls, total.tokens, total.cost), (1, 900, 1));
    assert!(key_state.pending_alerts().is_empty());
    // 80 % of the month, by reservations that nobody settles.
    let mut memory = stored();
    memory.profile = Some(profile(
        r#","overrides":[{"policy":{"policy":"month","unit":"tokens","quota":1000,"period":"month","algorithm":"fixed"}}]"#,
    ));
    memory.expire_holds(&thresholds, at(NOW + 10 * MINUTE));
    let [alert] = memory.key_state.as_ref().unwrap().pending_alerts() else { panic!("one alert") };
    assert_eq!((alert.policy.as_str(), alert.threshold, alert.used), ("month", 80, 900));
}

#[test]
fn the_object_of_a_key_that_is_gone_stays_until_its_reservations_are_charged() {
    let mut memory = stored();
    let read = memory.freshness.begin_read(NOW);
    assert_eq!(memory.apply_answer(read, None), Some(ProfileWrite::Delete));
    assert!(!memory.is_done());
    memory.expire_holds(&[], at(NOW + 10 * MINUTE));
    assert!(!memory.is_done(), "D1 does not have what was charged");
    let key_state = memory.key_state.as_mut().unwrap();
    commit(key_state);
    for total in key_state.meter().unflushed_months() {
        key_state.mark_flushed(&total);
    }
    for total in key_state.meter().unflushed_hours() {
        key_state.mark_hour_flushed(&total);
    }
    assert!(memory.is_done());
}

#[test]
fn calls_and_reservations_share_the_policies() {
    let mut memory = memory(profile(""));
    reserved(&mut memory, &reservation(1, 0, 2), NOW);
    let judged = judge(&mut memory, &settings(), &check(101), at(NOW)).unwrap();
    let ObjectResponse::Key(known) = judged.response else { panic!("{judged:?}") };
    assert_eq!(known.violated(), ["minute"]);
    asked(&mut memory, &HoldRequest::Release(1), NOW);
    assert!(judge(&mut memory, &settings(), &check(102), at(NOW)).unwrap().needs_write);
}

const TOKEN_ROUTE: &str =
    r#","token_routes":[{"pattern":"/a","format":"openai","default_output":100,"max_output":400}]"#;

/// A call that holds 300 tokens, admitted under this nonce.
fn call(memory: &mut Memory, nonce: u64) {
    let terms = memory.profile.as_ref().unwrap().row.token_routes[0].clone();
    let hold = TokenHold { input: 200, output_per_answer: 100, answers: 1 };
    let requested = HeldCall { hold, terms: TokenTerms::from(&terms), can_be_clamped: false };
    let judged =
        judge(memory, &settings(), &Check { held: Some(Box::new(requested)), ..check(nonce) }, at(NOW)).unwrap();
    let ObjectResponse::Key(KeyResponse { verdict: KeyVerdict::Admitted(admission), .. }) = judged.response else {
        panic!("{judged:?}")
    };
    assert!(admission.has_hold);
}

/// Tokens that are charged to the month.
fn charged(memory: &Memory) -> u64 {
    memory.key_state.as_ref().unwrap().month(Month::of(at(NOW))).tokens
}

#[test]
fn the_hold_of_a_running_call_is_no_reservation() {
    let none = ("1 none".to_owned(), Value::Null, false);
    for request in [HoldRequest::Release(7), settle(7, 0)] {
        let mut memory = memory(profile(TOKEN_ROUTE));
        call(&mut memory, 7);
        reserved(&mut memory, &reservation(1, 5, 0), NOW);
        let (_, list, _) = asked(&mut memory, &HoldRequest::List, NOW);
        assert_eq!(list["reservations"].as_array().map(Vec::len), Some(1));
        assert_eq!(list["reservations"][0]["tokens"], 5);
        assert_eq!(asked(&mut memory, &request, NOW), none);
        // The call's own outcome still charges it.
        record_outcomes(&mut memory, &settings(), CallOutcomes("7.200.5.r250"), at(NOW)).unwrap();
        assert_eq!(charged(&memory), 250);
        assert_eq!(asked(&mut memory, &request, NOW), none);
        // So does its expiry, and a correction of that.
        call(&mut memory, 8);
        let late = NOW + 10 * MINUTE;
        let expired = match request {
            HoldRequest::Release(_) => HoldRequest::Release(8),
            _ => settle(8, 0),
        };
        assert_eq!(asked(&mut memory, &expired, late), none);
        assert_eq!(charged(&memory), 250 + 300 + 5);
        record_outcomes(&mut memory, &settings(), CallOutcomes("8.200.5.r100"), at(late)).unwrap();
        assert_eq!((asked(&mut memory, &expired, late), charged(&memory)), (none.clone(), 250 + 100 + 5));
    }
}

#[test]
fn an_outcome_does_not_close_a_reservation_of_its_number() {
    let mut memory = memory(profile(""));
    reserved(&mut memory, &reservation(1, 600, 0), NOW);
    for outcome in ["1.200.5.r0", "1.200.5.h"] {
        record_outcomes(&mut memory, &settings(), CallOutcomes(outcome), at(NOW)).unwrap();
    }
    let (_, list, _) = asked(&mut memory, &HoldRequest::List, NOW);
    assert_eq!(list["reservations"][0]["tokens"], 600);
    // Nor does it correct one that lapsed.
    let late = NOW + 10 * MINUTE;
    memory.expire_holds(&[], at(late));
    record_outcomes(&mut memory, &settings(), CallOutcomes("1.200.5.r0"), at(late)).unwrap();
    assert_eq!(charged(&memory), 600);
    assert_eq!(asked(&mut memory, &settle(1, 70), late).1["tokens"], 70);
}
