use super::*;
use crate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use crate::keys::token_route::{TokenTerms, UsageFormat};
use crate::object::fixtures::{NOW, at, check, commit, memory, profile, settings};
use crate::protocol::held_call::HeldCall;
use crate::protocol::object_request::{Call, UncheckedCalls};
use crate::time::Month;
use std::borrow::Cow;

mod repricing;

fn judged(memory: &mut Memory, check: &Check<'_>) -> Judged {
    judge(memory, &settings(), check, at(NOW)).unwrap()
}

fn verdict(judged: &Judged) -> &KeyVerdict {
    match &judged.response {
        ObjectResponse::Key(response) => &response.verdict,
        other => panic!("{other:?}"),
    }
}

fn admission(judged: &Judged) -> Admission {
    match verdict(judged) {
        KeyVerdict::Admitted(admission) => *admission,
        other => panic!("{other:?}"),
    }
}

fn extent_of(judged: &Judged) -> Extent {
    match verdict(judged) {
        KeyVerdict::Denied { extent, .. } => *extent,
        other => panic!("{other:?}"),
    }
}

/// Calls, denied, and cost of the month.
fn counts(memory: &Memory) -> (u64, u64, u64) {
    let month = memory.key_state.as_ref().unwrap().month(Month::of(at(NOW)));
    (month.calls, month.denied, month.cost)
}

fn report(nonce: u64, uncounted: u64, denied: u64) -> PendingReport<'static> {
    PendingReport { nonce, uncounted, denied, ..PendingReport::default() }
}

fn keyed(nonce: u64, key: &'static str) -> Check<'static> {
    let fingerprint = Some(Fingerprint::of("POST", "/a", None));
    Check { idempotency_key: Some(Cow::Borrowed(key)), fingerprint, ..check(nonce) }
}

/// A keyed call that was admitted and has ended.
fn ended(memory: &mut Memory, nonce: u64, key: &'static str) {
    assert!(judged(memory, &keyed(nonce, key)).needs_write);
    let outcome = format!("{nonce}.200.5");
    assert_eq!(record_outcomes(memory, &settings(), CallOutcomes(&outcome), at(NOW)), Ok(true));
}

/// The nonce of the first call of [`busy`].
const FIRST: u64 = 1_000;
/// An age, in milliseconds, at which a repeat of it is too late.
const LATE: u64 = 86_400_000;

/// An object that has counted so many calls that it has forgotten the first nonces, and how many.
fn busy() -> (Memory, u64) {
    let mut memory = memory(profile(1_000_000, 1_000_000, ""));
    let calls = (1..100_000).find(|calls| {
        judged(&mut memory, &check(FIRST + calls - 1));
        let key_state = memory.key_state.as_mut().unwrap();
        commit(key_state);
        key_state.note_confirmed(0);
        !key_state.can_deduplicate(at(NOW), 8, Some(micros(LATE)))
    });
    (memory, calls.unwrap())
}

#[test]
fn nothing_is_judged_before_storage_is_read() {
    let memory = &mut Memory::default();
    assert_eq!(judge(memory, &settings(), &check(1), at(NOW)), Err(JudgeError::NotLoaded(NotLoaded)));
    assert_eq!(record_report(memory, &settings(), report(1, 1, 0), at(NOW)), Err(NotLoaded));
    assert_eq!(record_outcomes(memory, &settings(), CallOutcomes("1.200.5"), at(NOW)), Err(NotLoaded));
}

#[test]
fn a_key_that_d1_does_not_have_and_a_wrong_secret_are_unknown() {
    let unknown = Judged { response: ObjectResponse::Unknown, needs_write: false, is_report_late: false };
    let mut gone = Memory::default();
    gone.begin("e".to_owned());
    let with_report = Check { report: Some(report(7, 3, 2)), ..check(1) };
    assert_eq!(judged(&mut gone, &with_report), unknown);
    assert_eq!(record_report(&mut gone, &settings(), report(7, 3, 2), at(NOW)), Ok(Recorded::default()));
    assert_eq!(record_outcomes(&mut gone, &settings(), CallOutcomes("1.200.5"), at(NOW)), Ok(false));
    assert!(!gone.has_unwritten());
    let mut memory = memory(profile(10, 100, ""));
    let call = Call { secret_hash: "other", ..check(1).call };
    assert_eq!(judged(&mut memory, &Check { call, ..with_report }), unknown);
    assert_eq!(counts(&memory), (0, 0, 0));
}

#[test]
fn an_admitted_call_is_counted_and_waits_for_a_row() {
    let mut memory = memory(profile(2, 100, r#","routes":[{"pattern":"/a","method":"POST","cost":2}]"#));
    let first = judged(&mut memory, &check(1));
    assert_eq!((admission(&first), first.needs_write), (Admission::default(), true));
    let ObjectResponse::Key(response) = &first.response else { panic!("{first:?}") };
    let remaining: Vec<u64> = response.usage.policies.iter().map(|policy| policy.remaining).collect();
    assert_eq!((response.usage.tier.as_str(), response.usage.now, remaining), ("free", NOW, vec![0, 98]));
    // The same call again: it is counted once, and its row may be pending.
    let repeat = Check { is_repeat: true, age: Some(5), ..check(1) };
    assert_eq!(judged(&mut memory, &repeat), first);
    let denied = judged(&mut memory, &check(2));
    assert!(matches!(verdict(&denied), KeyVerdict::Denied { cost: 2, violated, .. } if *violated == [0]));
    assert!(!denied.needs_write);
    assert_eq!(counts(&memory), (1, 1, 2));
}

#[test]
fn a_repeat_that_is_too_late_counts_nothing() {
    let (mut memory, calls) = busy();
    let late = Check { is_repeat: true, age: Some(LATE), report: Some(report(7, 3, 2)), ..check(8) };
    assert_eq!(judge(&mut memory, &settings(), &late, at(NOW)), Err(JudgeError::TooLate));
    assert_eq!(counts(&memory), (calls, 0, calls));
    // One that is known to be counted is admitted again.
    let repeat = Check { is_repeat: true, age: Some(LATE), ..check(FIRST + calls - 1) };
    admission(&judged(&mut memory, &repeat));
    assert_eq!(counts(&memory), (calls, 0, calls));
}

#[test]
fn a_report_is_recorded_once_whatever_the_verdict_is() {
    for rest in ["", r#","expires_at":1"#] {
        let mut memory = memory(profile(0, 100, rest));
        let with_report = Check { report: Some(report(7, 3, 2)), ..check(1) };
        let first = judged(&mut memory, &with_report);
        let is_refused = matches!(verdict(&first), KeyVerdict::Refused(Status::Expired));
        assert_eq!(is_refused, !rest.is_empty());
        assert!(first.needs_write, "the isolate forgets the report when it gets the response");
        assert!(judged(&mut memory, &with_report).needs_write, "the row of the first may be pending");
        assert_eq!(counts(&memory).0, 3);
    }
}

#[test]
fn a_report_of_denials_alone_does_not_wait_for_a_row() {
    let mut memory = memory(profile(10, 100, r#","routes":[{"pattern":"/a","method":"*","cost":4}]"#));
    let recorded = |memory: &mut Memory, report| record_report(memory, &settings(), report, at(NOW)).unwrap();
    assert_eq!(recorded(&mut memory, report(7, 0, 2)), Recorded::default());
    let unchecked = UncheckedCalls("1:GET:/a");
    let named = PendingReport { unchecked, ..report(8, 2, 0) };
    assert_eq!(recorded(&mut memory, named), Recorded { needs_write: true, is_late: false });
    assert_eq!(counts(&memory), (2, 2, 5));
}

#[test]
fn a_report_that_is_too_late_is_not_counted() {
    let (mut memory, calls) = busy();
    let late = PendingReport { age: Some(LATE), ..report(9, 2, 1) };
    let recorded = record_report(&mut memory, &settings(), late, at(NOW));
    assert_eq!(recorded, Ok(Recorded { needs_write: false, is_late: true }));
    let carried = judged(&mut memory, &Check { report: Some(late), has_malformed_key: true, ..check(1) });
    assert_eq!((carried.needs_write, carried.is_report_late), (false, true));
    assert_eq!(counts(&memory), (calls, 0, calls));
    // Ages are milliseconds: a minute and a half later a report of ten seconds ago is counted.
    let mut is_late = |age| {
        let report = PendingReport { age: Some(age), ..report(age, 1, 0) };
        record_report(&mut memory, &settings(), report, at(NOW + 90_000)).unwrap().is_late
    };
    assert_eq!((is_late(LATE), is_late(10_000)), (true, false));
}

#[test]
fn a_key_that_may_not_be_used_is_refused_before_its_idempotency_key_is_looked_at() {
    for (rest, status) in [(r#","expires_at":1"#, Status::Expired), ("", Status::Disabled)] {
        let mut profile = profile(10, 100, rest);
        if status == Status::Disabled {
            profile.row.status = status;
        }
        let mut memory = memory(profile);
        let refused = judged(&mut memory, &Check { has_malformed_key: true, ..check(1) });
        assert_eq!((verdict(&refused), refused.needs_write), (&KeyVerdict::Refused(status), false));
        assert_eq!(counts(&memory), (0, 0, 0));
    }
}

#[test]
fn a_malformed_idempotency_key_is_refused_where_the_field_applies() {
    let malformed = Check { has_malformed_key: true, ..check(1) };
    let refused = judged(&mut memory(profile(10, 100, "")), &malformed);
    assert_eq!((verdict(&refused), refused.needs_write), (&KeyVerdict::Malformed, false));
    let off = judged(&mut memory(profile(10, 100, r#","idempotency":"off""#)), &malformed);
    assert!(!admission(&off).ignores_key, "the isolate has no key to ignore");
    let call = Call { method: "GET", ..check(1).call };
    admission(&judged(&mut memory(profile(10, 100, "")), &Check { call, ..malformed }));
}

#[test]
fn refusals_are_in_the_audit_log() {
    let mut memory = memory(profile(10, 100, r#","audit_days":1,"expires_at":1"#));
    judged(&mut memory, &check(1));
    assert!(memory.has_unwritten() && !memory.has_unwritten_counts());
}

#[test]
fn an_outcome_that_nothing_uses_needs_no_row() {
    for (rest, is_noted) in [("", false), (r#","audit_days":1"#, true)] {
        let mut memory = memory(profile(10, 100, rest));
        judged(&mut memory, &check(1));
        commit(memory.key_state.as_mut().unwrap());
        assert_eq!(record_outcomes(&mut memory, &settings(), CallOutcomes("1.200.5"), at(NOW)), Ok(true));
        assert_eq!(memory.has_unwritten(), is_noted, "{rest}");
    }
}

#[test]
fn the_object_requests_outcomes_that_it_uses() {
    let plain = |rest: &str, check: Check<'static>| admission(&judged(&mut memory(profile(10, 100, rest)), &check));
    assert_eq!(plain("", check(1)), Admission::default());
    assert!(plain("", keyed(1, "a")).wants_outcome, "it ends the flight");
    assert!(plain(r#","audit_days":1"#, check(1)).wants_outcome, "it is in the audit log");
    let off = plain(r#","idempotency":"off""#, keyed(1, "a"));
    assert_eq!(off, Admission { ignores_key: true, ..Admission::default() });
    let mut memory = memory(profile(10, 100, ""));
    ended(&mut memory, 1, "a");
    let replay = Admission { is_replay: true, ..Admission::default() };
    assert_eq!(admission(&judged(&mut memory, &keyed(2, "a"))), replay);
    let repeat = Check { is_repeat: true, age: Some(5), ..keyed(2, "a") };
    assert_eq!(admission(&judged(&mut memory, &repeat)), replay);
}

#[test]
fn a_repeat_by_its_idempotency_key_is_refused_until_the_first_call_has_ended() {
    let mut memory = memory(profile(10, 100, ""));
    assert!(judged(&mut memory, &keyed(1, "a")).needs_write);
    let conflict = judged(&mut memory, &keyed(2, "a"));
    assert_eq!((verdict(&conflict), conflict.needs_write), (&KeyVerdict::Conflict, false));
    let fingerprint = Some(Fingerprint::of("POST", "/b", None));
    let mismatch = judged(&mut memory, &Check { fingerprint, ..keyed(3, "a") });
    assert_eq!((verdict(&mismatch), mismatch.needs_write), (&KeyVerdict::Mismatch, false));
    // The outcome comes with the next request.
    let replay = judged(&mut memory, &Check { outcomes: CallOutcomes("1.200.5"), ..keyed(4, "a") });
    assert!(admission(&replay).is_replay);
    assert_eq!(counts(&memory), (2, 0, 1));
}

#[test]
fn a_denial_has_its_extent() {
    // The minute denies replays like new calls, the month does not deny free replays.
    let denied = |minute, month, rest: &str, check: &Check<'static>| {
        let mut memory = memory(profile(minute, month, rest));
        ended(&mut memory, 1, "a");
        extent_of(&judged(&mut memory, check))
    };
    assert_eq!(denied(1, 100, "", &check(2)), Extent::Unsaid);
    assert_eq!(denied(1, 100, "", &keyed(2, "b")), Extent::All);
    assert_eq!(denied(10, 1, "", &keyed(2, "b")), Extent::New);
    assert_eq!(denied(1, 100, "", &keyed(2, "a")), Extent::Replays);
    assert_eq!(denied(10, 1, r#","idempotency":"off""#, &keyed(2, "b")), Extent::All);
    let malformed = Check { has_malformed_key: true, ..check(2) };
    assert_eq!(denied(10, 1, r#","idempotency":"off""#, &malformed), Extent::All);
    // A replay that is charged is denied like a new call.
    let mut memory = memory(profile(100, 1, ""));
    ended(&mut memory, 1, "a");
    for nonce in 2..2 + u64::from(FREE_REPEATS) {
        assert!(admission(&judged(&mut memory, &keyed(nonce, "a"))).is_replay);
    }
    assert_eq!(extent_of(&judged(&mut memory, &keyed(99, "a"))), Extent::New);
    let without = Check { fingerprint: None, ..keyed(99, "a") };
    assert_eq!(extent_of(&judged(&mut memory, &without)), Extent::Unsaid, "the isolate cannot read an extent");
}

#[test]
fn a_cost_above_a_quota_is_named() {
    let mut memory = memory(profile(2, 100, r#","routes":[{"pattern":"/a","method":"*","cost":3}]"#));
    let judged = judged(&mut memory, &check(1));
    assert_eq!(verdict(&judged), &KeyVerdict::CostExceedsQuota { policy: 0, cost: 3 });
    assert!(!judged.needs_write);
}

const TOKEN_ROUTE: &str = r#","overrides":[{"policy":{"policy":"budget","unit":"tokens","quota":1000,"period":"day","algorithm":"fixed"}}],
    "token_routes":[{"pattern":"/a","method":"POST","format":"openai","default_output":100,"max_output":400}]"#;

const TERMS: TokenTerms = TokenTerms {
    format: UsageFormat::OpenAi,
    default_output: 100,
    max_output: 400,
    bytes_per_token: 1,
    max_input: None,
};

fn held(nonce: u64, input: u64, output_per_answer: u64, answers: u64) -> Check<'static> {
    let hold = TokenHold { input, output_per_answer, answers };
    let call = HeldCall { hold, terms: TERMS, can_be_clamped: false };
    Check { held: Some(Box::new(call)), ..check(nonce) }
}

fn clampable(check: Check<'static>) -> Check<'static> {
    Check { held: check.held.map(|held| Box::new(HeldCall { can_be_clamped: true, ..*held })), ..check }
}

/// Tokens left of the budget, and those that are held, at a time.
fn budget(memory: &mut Memory, now: UnixMicros) -> (u64, u64) {
    let (key_state, profile) = memory.key(now).unwrap().unwrap();
    let usage = key_state.usage(profile.schedule(), now);
    let at = profile.policies.iter().position(|policy| policy.name() == "budget").unwrap();
    (usage.policies[at].remaining, usage.policies[at].held)
}

fn end(memory: &mut Memory, outcome: &str, now: UnixMicros) {
    assert_eq!(record_outcomes(memory, &settings(), CallOutcomes(outcome), now), Ok(true));
}

/// Tokens that the month is charged.
fn charged(memory: &Memory) -> u64 {
    memory.key_state.as_ref().unwrap().month(Month::of(at(NOW))).tokens
}

#[test]
fn a_call_that_spends_tokens_is_sent_back_for_its_hold_and_counts_nothing() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    let later = TokenTerms { max_output: 401, ..TERMS };
    let by_other_terms = held(2, 10, 10, 1).held.map(|held| Box::new(HeldCall { terms: later, ..*held }));
    for check in [check(1), Check { held: by_other_terms, ..check(2) }] {
        let sent_back = judged(&mut memory, &check);
        assert_eq!(verdict(&sent_back), &KeyVerdict::LacksHold(TERMS));
        assert!(!sent_back.needs_write);
    }
    assert_eq!((counts(&memory), budget(&mut memory, at(NOW))), ((0, 0, 0), (1000, 0)));
    // What it carried is recorded.
    let reporting = Check { report: Some(report(9, 2, 0)), ..check(3) };
    assert!(judged(&mut memory, &reporting).needs_write);
    assert_eq!(counts(&memory), (2, 0, 2));
    // A key that may not be used is refused without one.
    let mut disabled = memory_of_disabled();
    assert_eq!(verdict(&judged(&mut disabled, &check(1))), &KeyVerdict::Refused(Status::Disabled));
}

fn memory_of_disabled() -> Memory {
    let mut row = profile(10, 100, TOKEN_ROUTE).row;
    row.status = Status::Disabled;
    memory(Profile::new(row).unwrap())
}

#[test]
fn a_hold_counts_at_once_and_its_settle_gives_back_the_rest_once() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    let first = judged(&mut memory, &held(1, 200, 100, 2));
    assert_eq!(admission(&first), Admission { has_hold: true, ..Admission::default() });
    assert!(first.needs_write);
    assert_eq!((budget(&mut memory, at(NOW)), charged(&memory)), ((600, 400), 0));
    for outcome in ["1.200.9.r150", "1.200.9.r150", "1.200.9.r1", "1.200.9.h"] {
        end(&mut memory, outcome, at(NOW));
        assert_eq!((budget(&mut memory, at(NOW)), charged(&memory)), ((850, 0), 150), "{outcome}");
    }
    assert_eq!(counts(&memory), (1, 0, 1));
}

#[test]
fn what_is_charged_follows_from_the_outcome() {
    for (outcome, left) in
        [("1.502.9.r0", 1000), ("1.200.9.h", 600), ("1.200.9.e70", 930), ("1.200.9.r900", 100), ("1.200.9.r1500", 0)]
    {
        let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
        judged(&mut memory, &held(1, 200, 200, 1));
        // Travels with another call, which may spend at once what it gives back.
        let other = Check { outcomes: CallOutcomes(outcome), ..check(2) };
        let other = judged(&mut memory, &Check { call: Call { path: "/free", ..other.call }, ..other });
        assert!(other.needs_write);
        assert_eq!(budget(&mut memory, at(NOW)), (left, 0), "{outcome}");
    }
}

#[test]
fn a_denied_call_that_brings_a_settle_waits_for_its_row() {
    let mut memory = memory(profile(1, 100, TOKEN_ROUTE));
    judged(&mut memory, &held(1, 200, 200, 1));
    let denied = judged(&mut memory, &Check { outcomes: CallOutcomes("1.200.9.r1"), ..held(2, 1, 1, 1) });
    assert!(matches!(verdict(&denied), KeyVerdict::Denied { .. }) && denied.needs_write);
    let denied = judged(&mut memory, &Check { outcomes: CallOutcomes("1.200.9"), ..held(3, 1, 1, 1) });
    assert!(!denied.needs_write);
}

#[test]
fn tokens_deny_and_refuse_as_requests_do() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    judged(&mut memory, &held(1, 500, 400, 1));
    let denied = judged(&mut memory, &held(2, 1, 100, 1));
    let ObjectResponse::Key(response) = &denied.response else { panic!("{denied:?}") };
    assert_eq!(response.violated(), ["budget"]);
    assert!(response.is_violated(Unit::Tokens) && !response.is_violated(Unit::Requests));
    assert_eq!(counts(&memory), (1, 1, 1));
    let too_large = judged(&mut memory, &held(3, 801, 100, 2));
    let KeyVerdict::CostExceedsQuota { cost, .. } = verdict(&too_large) else { panic!("{too_large:?}") };
    assert_eq!(*cost, 1001);
}

#[test]
fn a_call_is_clamped_to_what_every_policy_has_left() {
    let hour = r#"{"policy":{"policy":"hour","unit":"tokens","quota":700,"period":"hour","algorithm":"fixed"}},"#;
    let rest = TOKEN_ROUTE.replace("\"overrides\":[", &format!("\"overrides\":[{hour}"));
    let mut memory = memory(profile(10, 100, &rest));
    let whole = judged(&mut memory, &clampable(held(1, 100, 100, 1)));
    assert_eq!(admission(&whole).cap, None);
    let check = clampable(held(2, 100, 300, 2));
    let expected = Admission { has_hold: true, cap: Some(200), ..Admission::default() };
    assert_eq!(admission(&judged(&mut memory, &check)), expected);
    // The first response was lost: the cap stays, though nothing is left now.
    assert_eq!(admission(&judged(&mut memory, &check)), expected);
    assert_eq!((counts(&memory), budget(&mut memory, at(NOW))), ((2, 0, 2), (300, 700)));
    for nothing_left in [clampable(held(3, 0, 100, 1)), held(4, 0, 100, 1)] {
        assert!(matches!(verdict(&judged(&mut memory, &nothing_left)), KeyVerdict::Denied { .. }));
    }
    assert_eq!(counts(&memory), (2, 2, 2));
    // More than any quota, cut to what is left.
    end(&mut memory, "2.200.1.r0", at(NOW));
    let huge = judged(&mut memory, &clampable(held(5, 100, 9_000, 4)));
    assert_eq!(admission(&huge).cap, Some(100));
}

#[test]
fn a_hold_expires_after_ten_minutes_unless_it_is_renewed() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    let after = |minutes: u64| at(NOW + minutes * 60_000);
    judged(&mut memory, &held(1, 200, 200, 1));
    assert_eq!(renew_hold(&mut memory, 1, after(9)), Ok(true));
    assert_eq!(renew_hold(&mut memory, 77, after(9)), Ok(false));
    assert_eq!((budget(&mut memory, after(18)), charged(&memory)), ((600, 400), 0));
    assert_eq!((budget(&mut memory, after(19)), charged(&memory)), ((600, 0), 400));
    assert_eq!(renew_hold(&mut memory, 1, after(19)), Ok(false));
    end(&mut memory, "1.200.9.h", after(20));
    assert_eq!(charged(&memory), 400);
    // Whoever settles late corrects it.
    end(&mut memory, "1.200.9.r30", after(20));
    assert_eq!((budget(&mut memory, after(20)), charged(&memory)), ((970, 0), 30));
}

#[test]
fn a_call_without_a_token_route_holds_nothing_whatever_it_names() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    let elsewhere = Call { path: "/b", ..check(1).call };
    let judged = judged(&mut memory, &Check { call: elsewhere, ..held(1, 200, 200, 1) });
    assert_eq!(admission(&judged), Admission::default());
    assert_eq!(budget(&mut memory, at(NOW)), (1000, 0));
}

#[test]
fn a_free_replay_holds_nothing() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    let keyed = |nonce| Check { held: held(0, 200, 200, 1).held, ..keyed(nonce, "a") };
    assert!(admission(&judged(&mut memory, &keyed(1))).has_hold);
    end(&mut memory, "1.200.9.r150", at(NOW));
    let replay = admission(&judged(&mut memory, &keyed(2)));
    assert!(replay.is_replay && !replay.has_hold);
    assert_eq!(budget(&mut memory, at(NOW)), (850, 0));
}

/// The reply to the first request was lost, and its row of `token_routes` is another now, or gone.
#[test]
fn a_repeat_is_recalled_with_its_hold_whatever_has_become_of_the_row() {
    let changed = TOKEN_ROUTE.replace(r#""max_output":400"#, r#""max_output":401"#);
    let gone = TOKEN_ROUTE.replace(r#""pattern":"/a""#, r#""pattern":"/gone""#);
    for rest in [changed, gone] {
        let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
        let (whole, cut) = (held(1, 200, 200, 1), clampable(held(2, 300, 400, 1)));
        let admissions = [&whole, &cut].map(|check| admission(&judged(&mut memory, check)));
        assert_eq!(admissions.map(|admission| (admission.has_hold, admission.cap)), [(true, None), (true, Some(300))]);
        let profile = profile(10, 100, &rest);
        assert_ne!(profile.row.token_routes, memory.profile.as_ref().unwrap().row.token_routes);
        memory.profile = Some(profile);
        for (check, admitted) in [whole, cut].into_iter().zip(admissions) {
            let repeat = Check { is_repeat: true, age: Some(5), ..check };
            assert_eq!(admission(&judged(&mut memory, &repeat)), admitted);
        }
        assert_eq!((counts(&memory).0, budget(&mut memory, at(NOW))), (2, (0, 1000)));
        end(&mut memory, "1.200.9.r150", at(NOW));
        assert_eq!((charged(&memory), budget(&mut memory, at(NOW))), (150, (250, 600)));
    }
}

#[test]
fn a_repeat_of_a_call_that_held_nothing_is_not_sent_back_for_a_hold() {
    let gone = TOKEN_ROUTE.replace(r#""pattern":"/a""#, r#""pattern":"/gone""#);
    let mut memory = memory(profile(10, 100, &gone));
    let first = judged(&mut memory, &check(1));
    memory.profile = Some(profile(10, 100, TOKEN_ROUTE));
    let repeat = Check { is_repeat: true, age: Some(5), ..check(1) };
    assert_eq!(admission(&judged(&mut memory, &repeat)), admission(&first));
    assert_eq!(verdict(&judged(&mut memory, &check(2))), &KeyVerdict::LacksHold(TERMS));
}

/// In other bodies the origin could not read it.
#[test]
fn a_cap_is_for_calls_that_can_be_clamped() {
    let mut memory = memory(profile(10, 100, TOKEN_ROUTE));
    admission(&judged(&mut memory, &held(1, 200, 100, 1)));
    // Another isolate, with other options, repeats it, or by a body that was read otherwise.
    let more = Check { is_repeat: true, age: Some(5), ..held(1, 200, 300, 1) };
    assert_eq!(admission(&judged(&mut memory, &more)).cap, None);
    assert_eq!(admission(&judged(&mut memory, &clampable(more))).cap, Some(100));
}
