//! The stored layout, which is frozen, and the ring of rows.
//!
//! If a golden body changes, rows written by deployed code are read differently: increase the
//! version, and go on reading the old one.

use std::collections::BTreeMap;

use crate::support::{Decide, Report, known_nonces, knows_all};
use proptest::prelude::*;
use tollgate::key_state::row::{DecodeError, StateRow};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{ReportOutcome, ReportedUsage};
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Verdict;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::months::{Carried, MonthTotal};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-20T07:48:14Z.
const START: UnixMicros = UnixMicros::from_micros(1_795_160_894 * SECOND);

fn policy(name: &str, unit: Unit, quota: u64, period: Period, algorithm: Algorithm, burst: Option<u64>) -> Policy {
    Policy::new(name, unit, quota, period, algorithm, burst).unwrap()
}

fn sliding(quota: u64, period: Period) -> Policy {
    policy("s", Unit::Requests, quota, period, Algorithm::Sliding, None)
}

fn commit(state: &mut KeyState, rows: &mut BTreeMap<u32, String>) -> u32 {
    let StateRow { slot, body } = state.to_row();
    rows.insert(slot, body);
    state.committed();
    slot
}

fn after(seconds: u64) -> UnixMicros {
    START.saturating_add(seconds * SECOND)
}

#[test]
fn golden_fixed() {
    let policies = [
        policy("minute", Unit::Requests, 10, Period::Minute, Algorithm::Fixed, None),
        policy("month", Unit::Requests, 1000, Period::Month, Algorithm::Fixed, None),
    ];
    let mut state = KeyState::new("e1".into());
    state.decide_as(18_446_744_073_709_551_615, &policies, START, Cost::default());
    let row = state.to_row();
    assert_eq!(row.slot, 0);
    assert_eq!(
        row.body,
        r#"{"v":1,"seq":1,"e":"e1","t":1795160894000000,"f":[[[[29919348,1]],[[498655,1]],[[20777,1]]]],"m":[[202611,1,0,0,1,0,0,0]],"n":[18446744073709551615],"h":"498655|other|1|0|1|0|0|0;"}"#
    );
}

/// From the eighth nonce on, a row states since when all are kept, and the time of the oldest that
/// no other row holds.
#[test]
fn golden_nonces() {
    let mut state = KeyState::new("e1".into());
    for nonce in 0..70 {
        state.decide_as(nonce, &[], after(nonce), Cost::default());
        if nonce == 63 {
            assert!(state.to_row().body.contains(r#","n":[0,1,2,3,"#));
            state.committed();
            state.confirmed(state.last_commit());
        }
    }
    let row = state.to_row();
    assert_eq!(row.slot, 1);
    // 64 of the previous commit, which its own row holds, and 6.
    assert!(row.body.contains(r#""n":[0,1,2,"#), "{}", row.body);
    assert!(row.body.contains(r#",68,69],"z":[0,1795160958000000],"h":"#), "{}", row.body);
    state.committed();
    let read = KeyState::from_rows([(row.slot, row.body)]).unwrap();
    assert!(knows_all(&read, 0..70));
}

#[test]
fn golden_all() {
    let policies = [
        sliding(5, Period::Minute),
        policy("t", Unit::Tokens, 50, Period::Hour, Algorithm::Fixed, None),
        policy("b", Unit::Requests, 7, Period::Day, Algorithm::Bucket, Some(9)),
        policy("c", Unit::Tokens, 3, Period::Minute, Algorithm::Bucket, Some(70)),
    ];
    let mut state = KeyState::new("e1".into());
    state.carry_over(Month::of(START), Carried { calls: 40, cost: 40, tokens: 0 });
    assert!(state.decide(&policies, START, Cost { requests: 3, tokens: 0 }).is_admitted());
    state.committed();
    assert!(state.decide(&policies, START.saturating_add(1_500), Cost { requests: 2, tokens: 30 }).is_admitted());
    assert!(!state.decide(&policies, after(7), Cost::default()).is_admitted());
    state.mark_flushed(&MonthTotal { denied: 0, ..state.month(Month::of(START)) });
    let report =
        ReportedUsage { nonce: 7, calls: 1, cost: Cost { requests: 1, tokens: 2 }, ..ReportedUsage::default() };
    assert_eq!(state.apply_report(&policies, after(61), &report), ReportOutcome::Counted);
    // The last two policies are removed. Their counters are kept until their usage has expired.
    state.usage(&policies[..2], after(61));
    let row = state.to_row();
    assert_eq!(
        row.body,
        concat!(
            r#"{"v":1,"seq":2,"e":"e1","t":1795160955000000,"#,
            r#""f":[[[[29919348,5],[29919349,1]],[[498655,6]],[[20777,6]]],"#,
            r#"[[[29919348,30],[29919349,2]],[[498655,32]],[[20777,32]]]],"#,
            r#""m":[[202611,3,1,40,6,32,2,0]],"#,
            r#""b":[{"n":"b","k":[0,2],"q":7,"l":[5,85973000000,1795160955000000],"x":1795234951142858},"#,
            r#"{"n":"c","k":[1,0],"q":3,"l":[28,57004500,1795160955000000],"x":1795161534001500}],"#,
            r#""l":[{"k":[0,0],"s":1,"e":[1795160955000,1]}],"n":[9223372036854775808,7],"#,
            r#""h":"498655|other|2|1|5|0|0|0|30|0|0|0|0|0;498655|unjudged|1|0|1|0|0|0|2|0|0|0|0|0;"}"#,
        )
    );
    state.committed();
    assert_eq!(KeyState::from_rows([(row.slot, row.body)]).unwrap().to_row(), state.to_row());
}

/// Carried usage other than one request per call has a field of its own, so that older code still
/// reads the month.
#[test]
fn golden_carried() {
    let carried = |calls, cost, tokens| Carried { calls, cost, tokens };
    let november = Month::of(START);
    for (carried, body) in [
        (carried(40, 40, 0), r#"{"v":1,"seq":1,"e":"e1","t":0,"m":[[202611,0,0,40,0,0,0,0]],"h":""}"#),
        (
            carried(91, 1, 0),
            r#"{"v":1,"seq":1,"e":"e1","t":0,"m":[[202611,0,0,91,0,0,0,0]],"c":[[202611,1,0]],"h":""}"#,
        ),
        (carried(9, 9, 5), r#"{"v":1,"seq":1,"e":"e1","t":0,"m":[[202611,0,0,9,0,0,0,0]],"c":[[202611,9,5]],"h":""}"#),
    ] {
        let mut state = KeyState::new("e1".into());
        state.carry_over(november, carried);
        let row = state.to_row();
        assert_eq!(row.body, body);
        assert_eq!(KeyState::from_rows([(row.slot, row.body)]).unwrap().month(november).carried, carried);
    }
}

/// Rows of deployed code are read, and unknown fields are ignored.
#[test]
fn a_golden_body_is_read() {
    let body = concat!(
        r#"{"v":1,"seq":41,"e":"e1","t":1795160894000000,"new":{"x":[1]},"#,
        r#""f":[[[[29919347,3],[29919348,4]],[[498655,9]],[[20777,10]]],[[[29919348,30]],[[498655,31]],[[20777,32]]]],"#,
        r#""m":[[202610,90,5,0,90,0,90,5],[202611,17,2,40,20,32,16,2]],"#,
        r#""b":[{"n":"b","k":[0,0],"q":2,"l":[4,30000000,1795160894000000],"new":1}],"#,
        r#""l":[{"k":[0,1],"s":7,"e":[1795160890000,2,4000,1],"new":1}],"n":[1,2]}"#,
    );
    let other = |seq: u64, entries: &str| {
        let head = format!(r#"{{"v":1,"seq":{seq},"e":"e0","t":1,"l":[{{"k":[0,1],"s":1,"e":{entries}}}]"#);
        format!(r#"{head},"f":[[[[29919348,400]],[],[]]],"n":[3]}}"#)
    };
    let policies = [
        policy("minute", Unit::Requests, 100, Period::Minute, Algorithm::Fixed, None),
        policy("hour", Unit::Tokens, 100, Period::Hour, Algorithm::Fixed, None),
        policy("month", Unit::Requests, 100, Period::Month, Algorithm::Fixed, None),
        policy("b", Unit::Requests, 2, Period::Minute, Algorithm::Bucket, Some(10)),
        sliding(100, Period::Hour),
    ];
    let rows = [
        // Older than the log.
        (0, other(6, "[1795160860000,50]")),
        // The first entry has just expired, the second not yet.
        (1, other(7, "[1795157294000,60,1,5]")),
        (2, body.to_owned()),
        (3, other(8, "[1795160870000,10]")),
    ];
    let mut state = KeyState::from_rows(rows).unwrap();
    let used: Vec<u64> = state.usage(&policies, START).policies.iter().map(|standing| standing.used).collect();
    assert_eq!(used, [4, 31, 60, 5, 18]);
    assert_eq!(state.epoch(), "e1");
    assert_eq!(known_nonces(&state, [1, 2, 3, 4]), [1, 2, 3]);
    let unflushed = state.meter().unflushed_months();
    assert_eq!(unflushed.len(), 1);
    assert_eq!((unflushed[0].calls, unflushed[0].denied), (17, 2));
    assert_eq!(unflushed[0].carried, Carried { calls: 40, cost: 40, tokens: 0 });
    let october: Month = "2026-10".parse().unwrap();
    assert_eq!((state.month(october).calls, state.month(october).denied), (90, 5));
    assert!(!state.is_dirty() && !state.has_uncommitted_denials());
    let row = state.to_row();
    assert_eq!(row.slot, 2);
    assert!(row.body.starts_with(r#"{"v":1,"seq":42,"#), "{}", row.body);
}

#[test]
fn rows_that_cannot_be_read_are_refused() {
    let text = |rows: &[(u32, &str)]| {
        let rows = rows.iter().map(|(slot, body)| (*slot, (*body).to_owned()));
        KeyState::from_rows(rows).unwrap_err().to_string()
    };
    assert_eq!(text(&[]), "there is no row to read a state from");
    assert!(matches!(KeyState::from_rows([]), Err(DecodeError::NoRows)));
    let good = r#"{"v":1,"seq":9,"e":"e","t":0}"#;
    assert_eq!(text(&[(0, good), (3, r#"{"v":2}"#)]), "row in slot 3 has version 2, not 1");
    assert!(text(&[(5, ""), (0, good)]).starts_with("row in slot 5 cannot be read: EOF"));
    assert!(text(&[(0, r#"{"v":1,"seq":1}"#)]).starts_with("row in slot 0 cannot be read: missing field `e`"));
    let with = |field: &str| format!(r#"{{"v":1,"seq":1,"e":"e","t":0,{field}}}"#);
    for (field, reason) in [
        (r#""m":[[202613,0,0,0,0,0,0,0]]"#, "not a month"),
        (r#""m":[[202600,0,0,0,0,0,0,0]]"#, "not a month"),
        (r#""b":[{"n":"b","k":[2,0],"q":1,"l":[0,0,0]}]"#, "not a bucket"),
        (r#""b":[{"n":"b","k":[0,3],"q":1,"l":[0,0,0]}]"#, "not a bucket"),
        (r#""l":[{"k":[0,9],"s":1,"e":[]}]"#, "not a log"),
    ] {
        assert_eq!(text(&[(4, &with(field))]), format!("row in slot 4 cannot be read: {reason}"));
    }
}

#[test]
fn without_sliding_policies_there_is_one_row() {
    let policies = [
        policy("minute", Unit::Requests, 1000, Period::Minute, Algorithm::Fixed, None),
        policy("b", Unit::Requests, 1000, Period::Minute, Algorithm::Bucket, None),
    ];
    let (mut state, mut rows) = (KeyState::new("e".into()), BTreeMap::new());
    for second in 0..500 {
        state.decide(&policies, after(second), Cost::default());
        assert_eq!(commit(&mut state, &mut rows), 0);
    }
    assert!(rows[&0].len() < 300, "{}", rows[&0]);
}

#[test]
fn a_full_chunk_stays_in_its_row_until_it_has_expired() {
    let policies = [sliding(1000, Period::Minute)];
    let (mut state, mut rows) = (KeyState::new("e".into()), BTreeMap::new());
    let mut slots = Vec::new();
    for second in 0..200 {
        for half in 0..2 {
            state.decide(&policies, after(second).saturating_add(half * SECOND / 2), Cost::default());
            slots.push(commit(&mut state, &mut rows));
        }
    }
    // A minute is 120 entries: at each end of a chunk, the chunk before the previous one has
    // expired but for a few entries. Slot 0 also holds the single nonce of all these calls.
    let changes: Vec<(usize, u32)> =
        (1..slots.len()).filter(|i| slots[*i] != slots[i - 1]).map(|i| (i, slots[i])).collect();
    assert_eq!(changes, [(64, 1), (128, 2), (192, 3), (256, 1), (320, 2), (384, 3)]);
    assert!(rows.values().all(|row| row.len() < 900), "{rows:?}");
    assert_eq!(
        KeyState::from_rows(rows).unwrap().usage(&policies, after(199)).policies,
        state.usage(&policies, after(199)).policies
    );
}

/// An old entry of one log occupies its slot, and no other. That log is of tokens, as an earlier
/// version wrote it. It is kept until its usage has expired.
#[test]
fn a_log_holds_only_the_slots_that_its_entries_are_in() {
    let policies = [sliding(1000, Period::Minute)];
    let body = r#"{"v":1,"seq":1,"e":"e","t":1795160894000000,"l":[{"k":[1,1],"s":1,"e":[1795160894000,1]}]}"#;
    let (mut state, mut rows) = (KeyState::from_rows([(0, body.to_owned())]).unwrap(), BTreeMap::new());
    let mut slots = Vec::new();
    for half in 0..400 {
        state.decide(&policies, START.saturating_add(half * SECOND / 2), Cost::default());
        slots.push(commit(&mut state, &mut rows));
    }
    slots.dedup();
    assert_eq!(slots, [0, 1, 2, 3, 1, 2, 3]);
    assert!(rows[&0].contains(r#"{"k":[1,1],"s":1,"e":[1795160894000,1],"x":1795164494000000}"#), "{}", rows[&0]);
}

/// A chunk from before the policy was removed must not return with the policy.
#[test]
fn a_log_that_is_added_again_does_not_read_old_chunks() {
    let policies = [sliding(1000, Period::Minute)];
    let fixed = [policy("f", Unit::Requests, 1000, Period::Minute, Algorithm::Fixed, None)];
    let (mut state, mut rows) = (KeyState::new("e".into()), BTreeMap::new());
    let used = |state: &mut KeyState, second| state.usage(&policies, after(second)).policies[0].used;
    used(&mut state, 0);
    for tenth in 0..80 {
        state.decide(&policies, START.saturating_add(tenth * SECOND / 10), Cost::default());
        commit(&mut state, &mut rows);
    }
    assert_eq!(rows.len(), 2);
    state.decide(&fixed, after(8), Cost::default());
    // Once its usage has expired, the log is dropped.
    state.decide(&fixed, after(68), Cost::default());
    state.decide(&fixed, after(69), Cost::default());
    commit(&mut state, &mut rows);
    assert!(!rows[&1].contains(r#""l":"#), "{}", rows[&1]);
    let seeded = used(&mut state, 69);
    commit(&mut state, &mut rows);
    assert_eq!(used(&mut KeyState::from_rows(rows).unwrap(), 69), seeded);
}

#[test]
fn entries_on_both_sides_of_a_chunk_may_share_their_millisecond() {
    let policies = [sliding(1000, Period::Minute)];
    let (mut state, mut rows) = (KeyState::new("e".into()), BTreeMap::new());
    for milli in 0..64 {
        state.decide(&policies, START.saturating_add(milli * 1000), Cost::default());
    }
    commit(&mut state, &mut rows);
    for _ in 0..2 {
        state.decide(&policies, START.saturating_add(63_000), Cost::default());
        assert_eq!(commit(&mut state, &mut rows), 1);
    }
    assert!(rows[&1].contains(r#""e":[1795160894063,2]"#), "{}", rows[&1]);
    assert_eq!(KeyState::from_rows(rows).unwrap().usage(&policies, after(1)).policies[0].used, 66);
}

/// The responses of unconfirmed commits and of the last confirmed one may still be in flight: code
/// that reads nonces from the newest row alone finds them there.
#[test]
fn a_row_alone_holds_the_nonces_since_the_last_confirmed_commit() {
    let (mut state, mut rows) = (KeyState::new("e".into()), BTreeMap::new());
    let mut next = 0_u64;
    let mut remember = |state: &mut KeyState, until: u64| {
        for nonce in next..until {
            state.decide_as(nonce, &[], START, Cost::default());
        }
        next = until;
    };
    let mut commit = |state: &mut KeyState, until: u64| {
        let slot = commit(state, &mut rows);
        let row: serde_json::Value = serde_json::from_str(&rows[&slot]).unwrap();
        let nonces: Vec<u64> = serde_json::from_value(row["n"].clone()).unwrap();
        assert!(nonces.iter().copied().eq(nonces[0]..until));
        (slot, nonces[0])
    };
    // 100 fill a row, so the next commit uses another slot. It has at least eight.
    for (until, oldest) in
        [(100, (0, 0)), (110, (1, 0)), (112, (1, 100)), (113, (1, 100)), (170, (1, 100)), (171, (2, 113))]
    {
        remember(&mut state, until);
        assert!(state.is_dirty());
        assert_eq!(commit(&mut state, until), oldest);
        state.confirmed(state.last_commit());
        assert_eq!(state.unconfirmed(), 0);
    }
    assert_eq!(commit(&mut state, 171), (2, 163));
    // While no confirmation arrives, rows repeat the nonces of all waiting commits.
    let first = state.last_commit();
    for (until, oldest) in [(180, 170), (260, 170), (261, 170)] {
        remember(&mut state, until);
        assert_eq!(commit(&mut state, until).1, oldest);
    }
    assert_eq!(state.unconfirmed(), 4);
    state.confirmed(first + 2);
    remember(&mut state, 262);
    assert_eq!(commit(&mut state, 262).1, 180);
    // A late confirmation has no effect.
    state.confirmed(first);
    assert_eq!(state.unconfirmed(), 2);
    // Rows that were read count as confirmed, and do not grow however often they are read.
    let mut state = KeyState::from_rows(rows.clone()).unwrap();
    assert_eq!(state.unconfirmed(), 0);
    assert!(knows_all(&state, 0..262));
    state.decide_as(262, &[], START, Cost::default());
    assert_eq!(self::commit(&mut state, &mut rows), 3);
    assert!(rows[&3].contains(r#""n":[255,"#), "{}", rows[&3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The property of small keys, for logs of many chunks.
    #[test]
    fn chunks_hold_the_whole_log(
        quotas in (100..400_u64, 200..900_u64),
        steps in prop::collection::vec((0..1500_u64, 0..5_u64, 0..40_u8), 200..900),
    ) {
        let policies = [
            sliding(quotas.0, Period::Minute),
            policy("h", Unit::Requests, quotas.1, Period::Hour, Algorithm::Sliding, None),
            policy("d", Unit::Requests, quotas.1, Period::Day, Algorithm::Sliding, None),
        ];
        let (mut state, mut rows, mut clock) = (KeyState::new("e".into()), BTreeMap::new(), START);
        for (millis, tokens, action) in steps {
            clock = match action {
                0 if tokens < 2 => clock.saturating_sub(20 * MINUTE),
                1 if tokens < 3 => clock.saturating_add(HOUR),
                _ => clock.saturating_add(millis * 1000),
            };
            state.decide(&policies, clock, Cost { requests: 1, tokens });
            if action > 2 {
                continue;
            }
            commit(&mut state, &mut rows);
            let mut read = KeyState::from_rows(rows.clone()).unwrap();
            prop_assert_eq!(read.to_row(), state.to_row());
            for wait in [0, 10 * SECOND, MINUTE, HOUR] {
                let at = clock.saturating_add(wait);
                let cost = Cost { requests: 90, tokens: 50 };
                prop_assert_eq!(read.clone().decide(&policies, at, cost), state.clone().decide(&policies, at, cost));
            }
            read.report_calls(&policies, clock, 1, Cost::default());
            prop_assert!(read.is_dirty());
        }
        prop_assert!(rows.len() <= 40);
    }
}

/// The oldest entries of a log that is far over every quota change no decision.
#[test]
fn a_log_far_over_its_quota_stays_small() {
    let policies = [sliding(10_000, Period::Day)];
    let mut state = KeyState::new("e".into());
    state.usage(&policies, START);
    for step in 0..12_000 {
        state.report_calls(&policies, START.saturating_add(step * SECOND), 1, Cost::default());
    }
    let standing = state.usage(&policies, after(12_000)).policies[0];
    assert_eq!((standing.used, standing.remaining), (10_000, 0));
    let denied = state.decide(&policies, after(12_000), Cost::default());
    // Of 12,000 admissions the 2,001st must have expired.
    let Verdict::Denied { retry_after, .. } = denied.verdict else { panic!("{denied:?}") };
    assert_eq!(retry_after.div_ceil(SECOND), DAY / SECOND - 12_000 + 2_000);
}
