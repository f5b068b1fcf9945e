use super::*;
use crate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use crate::object::fixtures::{NOW, at, check, commit, memory, profile, settings};
use crate::protocol::object_request::{Call, UncheckedCalls};
use crate::time::Month;
use std::borrow::Cow;

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
    assert_eq!(record_outcomes(memory, CallOutcomes(&outcome), at(NOW)), Ok(true));
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
    assert_eq!(record_outcomes(memory, CallOutcomes("1.200.5"), at(NOW)), Err(NotLoaded));
}

#[test]
fn a_key_that_d1_does_not_have_and_a_wrong_secret_are_unknown() {
    let unknown = Judged { response: ObjectResponse::Unknown, needs_write: false, is_report_late: false };
    let mut gone = Memory::default();
    gone.begin("e".to_owned());
    let with_report = Check { report: Some(report(7, 3, 2)), ..check(1) };
    assert_eq!(judged(&mut gone, &with_report), unknown);
    assert_eq!(record_report(&mut gone, &settings(), report(7, 3, 2), at(NOW)), Ok(Recorded::default()));
    assert_eq!(record_outcomes(&mut gone, CallOutcomes("1.200.5"), at(NOW)), Ok(false));
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
        assert_eq!(record_outcomes(&mut memory, CallOutcomes("1.200.5"), at(NOW)), Ok(true));
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
