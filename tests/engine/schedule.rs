//! Scheduled changes of policies: waits and resets follow the policies that hold at each time.

use std::collections::BTreeMap;

use crate::support::Decide;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::http::idempotency_key::Idempotency;
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{ReportOutcome, ReportedUsage};
use tollgate::keys::profile::{OverrideRow, PolicyRow, Profile, ProfileRow, Status};
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::limiter::schedule::{Schedule, Stage, Timetable};
use tollgate::time::{HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-20T07:48:00Z.
const START: u64 = 1_795_160_880 * SECOND;

fn at(micros: u64) -> UnixMicros {
    UnixMicros::from_micros(micros)
}

fn policy(name: &str, quota: u64, period: Period, algorithm: Algorithm) -> PolicyRow {
    PolicyRow { policy: name.to_owned(), unit: Unit::Requests, quota, period, algorithm, burst: None }
}

fn fixed(quota: u64) -> PolicyRow {
    policy("minute", quota, Period::Minute, Algorithm::Fixed)
}

/// From and until are seconds after [`START`].
fn own(policy: PolicyRow, from: Option<u64>, until: Option<u64>) -> OverrideRow {
    let millis = |seconds: u64| (START + seconds * SECOND) / 1000;
    OverrideRow { policy, from: from.map(millis), until: until.map(millis) }
}

fn profile(policies: Vec<PolicyRow>, overrides: Vec<OverrideRow>) -> Profile {
    let row = ProfileRow {
        id: "k".to_owned(),
        tier: "t".to_owned(),
        status: Status::Active,
        secret_hash: "h".to_owned(),
        expires_at: None,
        policies,
        overrides,
        previous_hash: None,
        previous_until: None,
        tier_version: 0,
        audit_days: 0,
        idempotency: Idempotency::default(),
        routes: Vec::new(),
        token_routes: Vec::new(),
    };
    Profile::new(row).unwrap()
}

/// A key's object.
#[derive(Clone)]
struct Key {
    profile: Profile,
    state: KeyState,
}

impl Key {
    fn new(policies: Vec<PolicyRow>, overrides: Vec<OverrideRow>) -> Self {
        Self { profile: profile(policies, overrides), state: KeyState::new("e".into()) }
    }

    fn decide(&mut self, clock: u64, requests: u64) -> Decision {
        self.profile.turn_to(self.state.effective_time(at(clock)));
        self.state.decide(self.profile.schedule(), at(clock), Cost { requests, tokens: 0 })
    }

    /// Reads the usage. Returns the resets.
    fn read_usage(&mut self, clock: u64) -> Vec<u64> {
        self.profile.turn_to(self.state.effective_time(at(clock)));
        let standings = self.state.usage(self.profile.schedule(), at(clock)).policies;
        standings.iter().map(|standing| standing.reset_after).collect()
    }

    fn admit(&mut self, second: u64, count: u64) {
        for _ in 0..count {
            assert!(self.decide(START + second * SECOND, 1).is_admitted());
        }
    }

    /// The wait in seconds of a denied call.
    fn wait(&mut self, second: u64, requests: u64) -> u64 {
        let decision = self.decide(START + second * SECOND, requests);
        let Verdict::Denied { retry_after, .. } = decision.verdict else { panic!("{decision:?}") };
        retry_after.div_ceil(SECOND)
    }

    /// The state after a crash right after a commit.
    fn restart(&mut self) {
        let mut rows = BTreeMap::new();
        let StateRow { slot, body } = self.state.to_row();
        rows.insert(slot, body);
        self.state = KeyState::from_rows(rows).unwrap();
    }
}

#[test]
fn an_override_that_ends_within_the_wait_ends_its_room() {
    // 30 per hour for an hour and a half, then 10 per hour again.
    let hour = |quota| policy("hour", quota, Period::Hour, Algorithm::Sliding);
    let mut key = Key::new(vec![hour(10)], vec![own(hour(30), None, Some(3000))]);
    key.admit(0, 15);
    key.admit(1200, 15);
    // The first 15 expire at 3600 s, but the other 15 still exceed 10.
    assert_eq!(key.wait(1300, 1), 1200 + 3600 - 1300);
    assert!(!key.clone().decide(START + 3600 * SECOND, 1).is_admitted());
    assert!(key.decide(START + 4800 * SECOND, 1).is_admitted());
}

#[test]
fn an_override_that_begins_within_the_wait_makes_it_longer_or_shorter() {
    for (quota, wait) in [(20, 10), (3, 40 + 60)] {
        // The wait until the next minute would be 40 s.
        let begins = if quota == 20 { 30 } else { 59 };
        let mut key = Key::new(vec![fixed(10)], vec![own(fixed(quota), Some(begins), None)]);
        key.admit(20, 10);
        if quota == 20 {
            assert_eq!(key.wait(20, 1), wait);
        } else {
            assert_eq!(key.wait(20, 3), 40);
            key.admit(60, 1);
            assert_eq!(key.wait(60, 3), 60);
        }
    }
}

#[test]
fn room_for_less_than_a_second_does_not_end_a_wait() {
    // A new minute begins at 60 s. At 60.5 s an override forbids all calls for an hour.
    let none = own(fixed(0), Some(60), Some(3600));
    let mut none_later = none.clone();
    none_later.from = none.from.map(|from| from + 500);
    let mut key = Key::new(vec![fixed(10)], vec![none_later]);
    key.admit(20, 10);
    assert_eq!(key.wait(20, 1), 3580);
    assert!(key.clone().decide(START + 60 * SECOND, 1).is_admitted());
    assert!(!key.clone().decide(START + 61 * SECOND, 1).is_admitted());
}

#[test]
fn room_for_only_a_second_does_not_end_a_wait() {
    // A new minute begins at 60 s. At 61 s it goes on, or an override forbids all calls for an
    // hour.
    for (quota, wait) in [(11, 40), (0, 3580)] {
        let mut key = Key::new(vec![fixed(10)], vec![own(fixed(quota), Some(61), Some(3600))]);
        key.admit(20, 10);
        assert_eq!(key.wait(20, 1), wait, "{quota}");
    }
    // The same within an override, which has room from 10 s on.
    for (until, wait) in [(200, 10), (12, 10), (11, 400)] {
        let overrides = vec![own(fixed(5), Some(10), Some(until)), own(fixed(0), Some(until), Some(400))];
        let mut key = Key::new(vec![fixed(1)], overrides);
        key.admit(0, 1);
        assert_eq!(key.wait(0, 1), wait, "{until}");
    }
}

/// Spent units still count under later policies.
#[test]
fn a_wait_beyond_a_change_counts_what_was_spent_before_it() {
    let another = |begins| own(policy("own", 100, Period::Hour, Algorithm::Fixed), Some(begins), None);
    let month = policy("month", 5, Period::Month, Algorithm::Fixed);
    let mut key = Key::new(vec![fixed(5), month], vec![own(fixed(10), Some(10), None)]);
    key.admit(0, 5);
    assert_eq!(key.wait(5, 1) * SECOND, Month::of(at(START)).end().as_micros() - START - 5 * SECOND);
    let mut key = Key::new(vec![policy("s", 5, Period::Minute, Algorithm::Sliding)], vec![another(30)]);
    key.admit(0, 2);
    key.admit(20, 3);
    assert_eq!(key.wait(20, 1), 40);
    let mut key = Key::new(vec![policy("b", 6, Period::Minute, Algorithm::Bucket)], vec![another(25)]);
    key.admit(0, 6);
    key.admit(20, 2);
    assert_eq!(key.wait(20, 1), 10);
    // A log that starts then begins with the count of the minute.
    let sliding = own(policy("minute", 5, Period::Minute, Algorithm::Sliding), Some(30), None);
    let mut key = Key::new(vec![fixed(5)], vec![sliding]);
    key.admit(10, 5);
    assert_eq!(key.wait(10, 1), 60);
}

/// A timetable that always announces the same change.
struct Stuck(Vec<Policy>, UnixMicros);

impl Timetable for Stuck {
    fn at(&self, _: UnixMicros) -> Stage {
        Stage { policies: self.0.clone(), until: Some(self.1) }
    }
}

#[test]
fn a_timetable_that_does_not_advance_ends() {
    let policies = vec![Policy::new("p", Unit::Requests, 0, Period::Minute, Algorithm::Fixed, None).unwrap()];
    let (now, change) = (at(START), at(START + 10 * SECOND));
    let stuck = Stuck(policies.clone(), change);
    let schedule = Schedule::new(&policies, now, Some(change), &stuck);
    assert_eq!(schedule.until(), Some(change));
    let decision = KeyState::new("e".into()).decide(schedule, now, Cost::default());
    assert_eq!(decision.verdict, Verdict::CostExceedsQuota { policy: 0 });
}

#[test]
fn a_temporary_quota_of_0_is_a_wait_and_not_an_error() {
    let mut key = Key::new(vec![fixed(10)], vec![own(fixed(0), None, Some(500))]);
    let decision = key.decide(START, 1);
    assert_eq!(decision.verdict, Verdict::Denied { violated: vec![0], retry_after: 500 * SECOND });
    assert_eq!(decision.usage.policies[0].reset_after, 60 * SECOND);
    assert_eq!(key.decide(START, 11).verdict, Verdict::CostExceedsQuota { policy: 0 });
    key.admit(500, 10);
    // Without an end the cost is an error.
    let mut key = Key::new(vec![fixed(10)], vec![own(fixed(0), None, None)]);
    assert_eq!(key.decide(START, 1).verdict, Verdict::CostExceedsQuota { policy: 0 });
}

/// A call that will never fit is denied until then. From then on its cost is an error.
#[test]
fn a_call_that_fits_only_under_an_override_is_denied_until_it_ends() {
    let mut key = Key::new(vec![fixed(5)], vec![own(fixed(10), None, Some(45))]);
    key.admit(0, 5);
    assert_eq!(key.wait(20, 8), 25);
    assert_eq!(key.decide(START + 45 * SECOND, 8).verdict, Verdict::CostExceedsQuota { policy: 0 });
    assert_eq!(key.state.month(tollgate::time::Month::of(at(START))).denied, 1);
}

#[test]
fn a_policy_resets_at_its_end() {
    let hour = policy("hour", 100, Period::Hour, Algorithm::Sliding);
    let other = own(policy("own", 5, Period::Minute, Algorithm::Fixed), Some(30), Some(50));
    let mut key = Key::new(vec![fixed(10), hour], vec![own(fixed(20), None, Some(40)), other]);
    key.admit(10, 3);
    let resets = |key: &mut Key, second: u64| -> Vec<u64> {
        key.read_usage(START + second * SECOND).into_iter().map(|reset| reset / SECOND).collect()
    };
    // The hour is the same after each change. Another minute begins at 40 s.
    assert_eq!(resets(&mut key, 10), [30, 3600]);
    // By period and name: minute, own, hour.
    assert_eq!(resets(&mut key, 35), [5, 15, 3575]);
    assert_eq!(resets(&mut key, 45), [15, 5, 3565]);
    assert_eq!(resets(&mut key, 55), [5, 3555]);
}

/// A bucket drains at the current rate, whenever it is read.
#[test]
fn a_bucket_changes_its_rate_when_the_override_does() {
    let bucket = |quota| PolicyRow { burst: Some(100), ..policy("b", quota, Period::Minute, Algorithm::Bucket) };
    for (slow, fast) in [(6, 60), (60, 6)] {
        let mut key = Key::new(vec![bucket(slow)], vec![own(bucket(fast), Some(30), Some(60))]);
        key.admit(0, 100);
        // The level after 100 s.
        let drained = (70 * slow + 30 * fast) / 60;
        for reads in [&[][..], &[31], &[59, 61], &[10, 45, 80], &[99]] {
            for restarts in [false, true] {
                let mut key = key.clone();
                for second in reads {
                    key.read_usage(START + second * SECOND);
                    assert!(!key.decide(START + second * SECOND, 100).is_admitted());
                    if restarts {
                        key.restart();
                    }
                }
                assert!(!key.clone().decide(START + 100 * SECOND, drained + 1).is_admitted(), "{reads:?} {restarts}");
                assert!(key.decide(START + 100 * SECOND, drained).is_admitted(), "{reads:?} {restarts}");
            }
        }
    }
}

/// A report is added to a bucket that has drained correctly by then.
#[test]
fn a_report_finds_a_bucket_as_its_overrides_left_it() {
    let bucket = |quota| policy("b", quota, Period::Minute, Algorithm::Bucket);
    let mut key = Key::new(vec![bucket(6)], vec![own(bucket(60), Some(10), None)]);
    key.admit(0, 6);
    let report = ReportedUsage { nonce: 1, calls: 1, cost: Cost::default(), ..ReportedUsage::default() };
    let later = START + 13 * SECOND;
    key.profile.turn_to(at(later));
    assert_eq!(key.state.apply_report(key.profile.schedule(), at(later), &report), ReportOutcome::Counted);
    // One unit has drained after 10 s, three more since.
    key.profile.turn_to(at(later));
    let standings = key.state.usage(key.profile.schedule(), at(later)).policies;
    assert_eq!(standings[0].used, 6 - 1 - 3 + 1);
}

#[test]
fn a_timetable_follows_the_overrides() {
    let profile = profile(vec![fixed(1)], vec![own(fixed(2), Some(10), Some(20)), own(fixed(3), Some(20), None)]);
    let stage = |second: u64| {
        let stage = profile.at(at(START + second * SECOND));
        (stage.policies[0].quota(), stage.until.map(|until| (until.as_micros() - START) / SECOND))
    };
    assert_eq!(
        [0, 9, 10, 19, 20, 99].map(stage),
        [(1, Some(10)), (1, Some(10)), (2, Some(20)), (2, Some(20)), (3, None), (3, None)]
    );
}

fn any_policy() -> impl Strategy<Value = PolicyRow> {
    let algorithm = select(&[Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket][..]);
    let period = select(&[Period::Minute, Period::Minute, Period::Minute, Period::Hour][..]);
    (select(&["a", "b", "c"][..]), algorithm, period, 1..12_u64, proptest::option::of(1..12_u64), any::<bool>())
        .prop_map(|(name, algorithm, period, quota, burst, is_none)| PolicyRow {
            policy: name.to_owned(),
            unit: Unit::Requests,
            quota: if algorithm == Algorithm::Fixed && is_none { 0 } else { quota },
            period,
            algorithm,
            burst: burst.filter(|_| algorithm == Algorithm::Bucket),
        })
}

fn tier() -> impl Strategy<Value = Vec<PolicyRow>> {
    vec(any_policy(), 1..3).prop_map(|policies| {
        let by_name: BTreeMap<String, PolicyRow> = policies
            .into_iter()
            .map(|policy| (policy.policy.clone(), PolicyRow { quota: policy.quota.max(1), ..policy }))
            .collect();
        by_name.into_values().collect()
    })
}

/// Overrides that begin and end within minutes, to the millisecond.
fn overrides() -> impl Strategy<Value = Vec<OverrideRow>> {
    let moment = || proptest::option::weighted(0.8, prop_oneof![0..30_000_u64, 0..400_000_u64]);
    vec((any_policy(), moment(), moment()), 0..4).prop_map(|overrides| {
        let by_name: BTreeMap<String, OverrideRow> = overrides
            .into_iter()
            .map(|(policy, from, until)| {
                let moment = |millis: u64| START / 1000 + millis;
                (policy.policy.clone(), OverrideRow { policy, from: from.map(moment), until: until.map(moment) })
            })
            .collect();
        by_name.into_values().collect()
    })
}

/// `PROPTEST_CASES` sets how many cases; without it, as many as a debug build runs in some seconds.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 256, ..config } }
}

proptest! {
    #![proptest_config(config())]

    /// A client that waits exactly as long as `Retry-After` is admitted if no other call is,
    /// whatever overrides begin and end meanwhile and however often the usage is read. Or its cost
    /// is then an error.
    #[test]
    fn a_client_that_honours_retry_after_is_admitted(
        tier in tier(), overrides in overrides(),
        steps in vec((0..40_000_u64, 1..6_u64), 1..40),
        reads in vec(0..1000_u64, 0..4), restarts in any::<bool>(),
    ) {
        let mut key = Key::new(tier, overrides);
        let mut clock = START;
        for (wait, requests) in steps {
            clock += wait * 1000;
            let decision = key.decide(clock, requests);
            let Verdict::Denied { retry_after, .. } = decision.verdict else { continue };
            let seconds = retry_after.div_ceil(SECOND);
            prop_assert!(retry_after > 0 && seconds * SECOND >= retry_after);
            let asked_again = |after: u64| key.clone().decide(clock + after, requests);
            let mut patient = key.clone();
            let mut reads: Vec<u64> = reads.iter().map(|share| seconds * SECOND * share / 1000).collect();
            reads.sort_unstable();
            for read in reads {
                patient.read_usage(clock + read);
                if restarts {
                    patient.restart();
                }
            }
            let verdict = patient.decide(clock + seconds * SECOND, requests).verdict;
            match verdict {
                Verdict::Admitted => {}
                Verdict::TooManyHolds { .. } => prop_assert!(false, "there are no holds"),
                // It exceeds the quota of all later policies.
                Verdict::CostExceedsQuota { .. } => {
                    prop_assert_eq!(key.profile.at(at(clock + retry_after)).until, None);
                }
                Verdict::Denied { .. } => prop_assert!(false, "Retry-After of {seconds} s, and then denied"),
            }
            if verdict == Verdict::Admitted {
                // Also a little later, for clients that count seconds from the arrival of the
                // response.
                prop_assert!(asked_again(retry_after).verdict.is_admitted());
                prop_assert!(asked_again(retry_after + SECOND - 1).verdict.is_admitted());
            }
            // Not sooner, except within room that lasts less than a second.
            for share in [1, 5, 9] {
                let sooner = (retry_after * share / 10).min(retry_after - 1);
                let is_admitted = |after: u64| asked_again(after).is_admitted();
                prop_assert!(!(is_admitted(sooner) && is_admitted(sooner + SECOND / 2) && is_admitted(sooner + SECOND)));
            }
        }
    }

    /// Reading the usage never changes later decisions.
    #[test]
    fn reading_the_usage_changes_nothing(
        tier in tier(), overrides in overrides(),
        steps in vec((0..40_000_u64, 1..4_u64, 0..3_u64), 1..40), restarts in any::<bool>(),
    ) {
        let mut key = Key::new(tier, overrides);
        let mut watched = key.clone();
        let mut clock = START;
        for (wait, requests, reads) in steps {
            for read in 1..=reads {
                watched.read_usage(clock + wait * 1000 * read / (reads + 1));
                if restarts {
                    watched.restart();
                }
            }
            clock += wait * 1000;
            prop_assert_eq!(watched.decide(clock, requests), key.decide(clock, requests));
        }
        prop_assert_eq!(watched.read_usage(clock + HOUR), key.read_usage(clock + HOUR));
        prop_assert_eq!(watched.read_usage(clock + HOUR + MINUTE), key.read_usage(clock + HOUR + MINUTE));
    }
}
