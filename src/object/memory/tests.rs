use super::*;
use crate::object::fixtures::{NOW, SECRET, at, check, commit, memory, profile, settings};
use crate::object::judge::{judge, record_outcomes};
use crate::object::settings::Settings;
use crate::protocol::object_request::{CallOutcomes, Check};
use crate::time::{DAY, HOUR};

const SECOND: u64 = 1_000;

fn carried() -> Carried {
    serde_json::from_str(r#"{"calls":5,"cost":7,"tokens":0}"#).unwrap()
}

/// An object that has stored everything, and whose alarm is known.
fn saved() -> Memory {
    let mut memory = Memory::default();
    let key_state = KeyState::new("e".to_owned());
    memory.restore(Stored { key_state, profile: Some(profile(10, 100, "")), checked_at: NOW });
    memory.alarm.found(None);
    memory
}

fn call(memory: &mut Memory, nonce: u64, now: u64) {
    judge(memory, &settings(), &check(nonce), at(now)).unwrap();
}

fn answer(memory: &mut Memory, now: u64, answer: Option<(Profile, Carried)>) -> Option<ProfileWrite> {
    let read = memory.freshness.begin_read(now);
    memory.apply_answer(read, answer)
}

#[test]
fn a_call_waits_until_storage_and_the_alarm_are_read() {
    let mut memory = Memory::default();
    assert_eq!(memory.readiness(None, at(NOW)), Readiness::NotReady);
    let key_state = KeyState::new("e".to_owned());
    memory.restore(Stored { key_state, profile: Some(profile(10, 100, "")), checked_at: NOW });
    // Old enough to be read beside a call. None begins before the object is loaded.
    let later = at(NOW + 30 * SECOND);
    assert_eq!(memory.readiness(None, later), Readiness::NotReady);
    memory.alarm.found(None);
    assert_eq!(memory.readiness(None, at(NOW)), Readiness::Ready);
    assert_eq!(memory.readiness(None, later), Readiness::ReadyAndRead);
    memory.discard();
    memory.freshness.read_beside_ended();
    assert_eq!(memory.readiness(None, later), Readiness::NotReady);
    // The alarm was being read when memory was discarded.
    memory.alarm.found(None);
    assert_eq!(memory.readiness(None, later), Readiness::NotReady);
}

#[test]
fn a_secret_that_was_found_and_is_not_accepted_contradicts_the_profile() {
    let mut memory = saved();
    assert_eq!(memory.readiness(Some(SECRET), at(NOW)), Readiness::Ready);
    assert_eq!(memory.readiness(Some("new"), at(NOW)), Readiness::NotReady);
    assert_eq!(
        [None, Some(SECRET), Some("new")].map(|hash| memory.is_contradicted(hash, at(NOW))),
        [false, false, true]
    );
    memory.profile = None;
    assert!(memory.is_contradicted(Some(SECRET), at(NOW)));
}

#[test]
fn the_policies_are_those_that_hold_now() {
    let policy = r#"{"policy":"minute","unit":"requests","quota":3,"period":"minute","algorithm":"fixed"}"#;
    let mut memory = memory(profile(10, 100, &format!(r#","overrides":[{{"policy":{policy},"from":{}}}]"#, NOW + 1)));
    let quota = |memory: &mut Memory, now| memory.key(at(now)).unwrap().unwrap().1.policies[0].quota();
    assert_eq!((quota(&mut memory, NOW), quota(&mut memory, NOW + 1)), (10, 3));
    assert_eq!(quota(&mut memory, NOW), 10, "a clock that stepped back");
}

#[test]
fn discarded_memory_is_read_again() {
    let mut memory = memory(profile(10, 100, ""));
    call(&mut memory, 1, NOW);
    memory.discard();
    assert!(memory.key_state.is_none() && memory.alarm.is_unknown() && !memory.has_unwritten());
    // Nothing was stored yet: the profile is still D1's.
    memory.begin("f".to_owned());
    assert!(!memory.alarm.is_unknown() && !memory.is_saved);
    assert_eq!(memory.readiness(None, at(NOW)), Readiness::Ready);
    assert_eq!(memory.key_state.as_ref().unwrap().epoch(), "f");
    memory.restore(Stored { key_state: KeyState::new("e".to_owned()), profile: None, checked_at: NOW });
    assert!(memory.is_saved && memory.profile.is_none());
    assert_eq!(memory.readiness(None, at(NOW)), Readiness::NotReady);
}

#[test]
fn an_answer_is_stored_if_it_changes_a_stored_profile() {
    let mut memory = saved();
    assert_eq!(answer(&mut memory, NOW, Some((profile(10, 100, ""), carried()))), Some(ProfileWrite::None));
    assert_eq!(answer(&mut memory, NOW, Some((profile(11, 100, ""), carried()))), Some(ProfileWrite::Save));
    assert_eq!(memory.profile.as_ref().unwrap().policies[0].quota(), 11);
    assert!(!memory.has_unwritten(), "what D1 has of this month includes the object's own counts");
    assert_eq!(answer(&mut memory, NOW, None), Some(ProfileWrite::Delete));
    assert_eq!(memory.profile, None);
    assert_eq!(answer(&mut memory, NOW, Some((profile(11, 100, ""), carried()))), Some(ProfileWrite::Save));
}

#[test]
fn a_new_object_carries_over_what_earlier_epochs_used() {
    let mut memory = Memory::default();
    memory.begin("e".to_owned());
    assert_eq!(answer(&mut memory, NOW, None), Some(ProfileWrite::None));
    assert_eq!(answer(&mut memory, NOW, Some((profile(10, 100, ""), carried()))), Some(ProfileWrite::None));
    let month = memory.key_state.as_ref().unwrap().month(Month::of(at(NOW)));
    assert_eq!((month.calls, month.carried.calls, month.carried.cost), (0, 5, 7));
}

#[test]
fn a_late_answer_changes_nothing() {
    let mut memory = saved();
    let late = memory.freshness.begin_read(NOW);
    assert_eq!(answer(&mut memory, NOW, Some((profile(12, 100, ""), carried()))), Some(ProfileWrite::Save));
    assert_eq!(memory.apply_answer(late, None), None);
    assert_eq!(memory.profile.as_ref().unwrap().policies[0].quota(), 12);
}

#[test]
fn a_change_of_the_tier_is_not_undone_by_an_older_read() {
    let change = |tier: &str, version: u64| -> TierChange {
        let policies = r#"[{"policy":"minute","unit":"requests","quota":7,"period":"minute","algorithm":"fixed"}]"#;
        let text = format!(r#"{{"tier":"{tier}","version":{version},"audit_days":0,"policies":{policies}}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let mut memory = saved();
    let before = memory.freshness.begin_read(NOW);
    assert_eq!(memory.with_tier(&change("other", 3)), Ok(None));
    assert_eq!(memory.with_tier(&change("free", 0)), Ok(None));
    let profile = memory.with_tier(&change("free", 3)).unwrap().unwrap();
    assert_eq!(memory.profile.as_ref().unwrap().policies.len(), 2, "it is stored first");
    memory.apply_tier(profile);
    assert_eq!(memory.profile.as_ref().unwrap().policies.len(), 1);
    assert_eq!(memory.apply_answer(before, None), None);
    memory.profile = None;
    assert_eq!(memory.with_tier(&change("free", 4)), Ok(None));
}

#[test]
fn an_object_is_done_when_its_key_is_gone_and_everything_is_delivered() {
    let mut memory = saved();
    assert!(!memory.is_done(), "there is a profile");
    memory.profile = Some(profile(10, 1, ""));
    let settings = Settings { thresholds: vec![100], ..settings() };
    judge(&mut memory, &settings, &check(1), at(NOW)).unwrap();
    answer(&mut memory, NOW, None);
    assert!(!memory.is_done(), "a call is not flushed");
    let key_state = memory.key_state.as_mut().unwrap();
    let total = key_state.month(Month::of(at(NOW)));
    key_state.mark_flushed(&total);
    for hour in key_state.meter().unflushed_hours() {
        key_state.mark_hour_flushed(&hour);
    }
    let alerts = key_state.pending_alerts().to_vec();
    assert!(!memory.is_done(), "an alert is not delivered");
    for alert in alerts {
        memory.key_state.as_mut().unwrap().mark_alerted(&alert);
    }
    assert!(memory.is_done());
    memory.is_saved = false;
    assert!(!memory.is_done(), "nothing is stored");
    memory.is_saved = true;
    memory.discard();
    assert!(!memory.is_done(), "nothing is known");
}

#[test]
fn counts_and_notes_are_unwritten_until_a_row_holds_them() {
    let mut memory = memory(profile(1, 100, ""));
    assert_eq!(memory.counted(at(NOW)), Later::Wait);
    call(&mut memory, 1, NOW);
    assert!(memory.has_unwritten_counts() && memory.has_unwritten());
    commit(memory.key_state.as_mut().unwrap());
    assert!(!memory.has_unwritten());
    call(&mut memory, 2, NOW);
    assert!(memory.has_unwritten_counts(), "a denial");
    assert_eq!(memory.counted(at(NOW)), Later::Write);
    commit(memory.key_state.as_mut().unwrap());
    memory.profile = Some(profile(1, 100, r#","audit_days":1"#));
    record_outcomes(&mut memory, &settings(), CallOutcomes("1.200.5"), at(NOW)).unwrap();
    assert!(!memory.has_unwritten_counts() && memory.has_unwritten(), "a note");
}

#[test]
fn the_alarm_is_set_for_what_is_counted_and_deleted_when_nothing_is_left() {
    let mut memory = memory(profile(10, 100, ""));
    assert_eq!(Memory::default().arm(60, at(NOW), || 0.0), None);
    assert_eq!(memory.arm(60, at(NOW), || 0.0), None);
    call(&mut memory, 1, NOW);
    assert_eq!(memory.arm(60, at(NOW), || 0.0), Some(NOW + 30 * SECOND));
    assert_eq!(memory.begin_work(60, at(NOW + 30 * SECOND), || 1.0), NOW + 90 * SECOND);
    assert_eq!(memory.end_work(None, at(NOW + 30 * SECOND)), NextAlarm::Keep);
    let mut saved = saved();
    let expiry = at(NOW).saturating_add(1);
    assert_eq!(saved.end_work(Some(at(NOW + 5 * SECOND).saturating_add(1)), at(NOW)), NextAlarm::Set(NOW + 5_001));
    assert_eq!(saved.end_work(Some(expiry), at(NOW)), NextAlarm::Set(NOW + SECOND));
    assert_eq!(saved.end_work(None, at(NOW)), NextAlarm::Delete);
    saved.discard();
    assert_eq!(saved.end_work(None, at(NOW)), NextAlarm::Keep);
}

#[test]
fn an_alarm_that_comes_soon_after_a_leap_proves_the_clock_right() {
    for (is_soon, elapsed) in [(true, 29 * SECOND), (false, 30 * SECOND)] {
        let mut memory = saved();
        call(&mut memory, 1, NOW);
        let leapt = at(NOW).saturating_add(48 * HOUR);
        call(&mut memory, 2, leapt.as_millis());
        let lead = |memory: &Memory| memory.key_state.as_ref().unwrap().lead(leapt);
        assert!(lead(&memory) > 0);
        assert!(memory.arm(60, leapt, || 0.0).is_some_and(|at| at < leapt.as_millis()), "it comes at once");
        memory.begin_work(60, leapt.saturating_add(elapsed * SECOND), || 0.0);
        assert_eq!(lead(&memory) == 0, is_soon);
    }
}

#[test]
fn expired_idempotency_keys_and_entries_of_the_audit_log_are_dropped() {
    let mut memory = saved();
    assert_eq!(memory.expire(at(NOW)), Some(at(NOW)), "nothing is kept without audit days");
    assert_eq!(memory.next_expiry(None, at(NOW)), None);
    memory.profile = Some(profile(100_000, 100_000, r#","audit_days":2"#));
    assert_eq!(memory.expire(at(NOW)), Some(at(NOW).saturating_sub(2 * DAY)));
    // At the end of the day in which the oldest chunk is over.
    let midnight = |days: u64| UnixMicros::from_micros(at(NOW).as_micros() / DAY * DAY + days * DAY);
    assert_eq!(memory.next_expiry(Some(at(NOW)), at(NOW)), Some(midnight(3)));
    assert_eq!(memory.next_expiry(None, at(NOW)), None);
    call(&mut memory, 1, NOW);
    assert_eq!(memory.next_expiry(None, at(NOW)), Some(midnight(3)), "the tail of the log");
    let later = at(NOW).saturating_add(3 * DAY);
    assert_eq!(memory.expire(later), Some(at(NOW).saturating_add(DAY)));
    assert_eq!(memory.next_expiry(None, later), None);
    // Idempotency keys expire in chunks.
    let keys_expire = (0..10_000).find_map(|nonce| {
        let idempotency_key = Some(nonce.to_string().into());
        judge(&mut memory, &settings(), &Check { idempotency_key, ..check(nonce) }, later).unwrap();
        commit(memory.key_state.as_mut().unwrap());
        memory.key_state.as_ref().unwrap().next_expiry()
    });
    let keys_expire = keys_expire.unwrap();
    memory.profile = None;
    assert_eq!(memory.next_expiry(None, later), Some(keys_expire));
    memory.profile = Some(profile(10, 100, ""));
    assert_eq!(memory.next_expiry(Some(at(NOW)), later), Some(midnight(1)), "the sooner of both");
    memory.expire(keys_expire);
    assert_eq!(memory.key_state.as_ref().unwrap().next_expiry(), None);
    memory.profile = None;
    assert_eq!((memory.expire(later), memory.next_expiry(Some(at(NOW)), later)), (None, None));
}
