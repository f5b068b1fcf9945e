//! Promises that hold for every mix of policies, every cost and every clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Decide;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::gateway::ratelimit_headers::{self, Forms, RateLimitFields};
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, MAX_QUOTA, Period, Policy, Unit};
use tollgate::metering::months::Carried;
use tollgate::protocol::object_response::{KeyResponse, KeyVerdict};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-20T07:48:14Z.
const START: u64 = 1_795_160_894 * SECOND;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket];
const PERIODS: [Period; 4] = [Period::Minute, Period::Hour, Period::Day, Period::Month];

fn policy(name: String) -> impl Strategy<Value = Policy> {
    let shape = (
        select(&ALGORITHMS[..]),
        select(&PERIODS[..]),
        prop_oneof![3 => Just(Unit::Requests), 1 => Just(Unit::Tokens)],
    );
    (shape, 1..30_u64, proptest::option::of(1..30_u64)).prop_map(move |((algorithm, period, unit), quota, burst)| {
        let period = if algorithm == Algorithm::Fixed || period != Period::Month { period } else { Period::Minute };
        let unit = if algorithm == Algorithm::Sliding { Unit::Requests } else { unit };
        let burst = burst.filter(|_| algorithm == Algorithm::Bucket);
        Policy::new(name.clone(), unit, quota, period, algorithm, burst).unwrap()
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    (1..=6_usize).prop_flat_map(|count| (0..count).map(|i| policy(format!("p{i}"))).collect::<Vec<_>>())
}

fn cost() -> impl Strategy<Value = Cost> {
    prop_oneof![
        4 => Just(Cost::default()),
        2 => (0..6_u64, 0..12_u64).prop_map(|(requests, tokens)| Cost { requests, tokens }),
        1 => (1..40_u64, 0..40_u64).prop_map(|(requests, tokens)| Cost { requests, tokens }),
    ]
}

/// A step of the clock in microseconds, forward or back by no more than the judged time absorbs.
fn step() -> impl Strategy<Value = i64> {
    let skew = i64::try_from(MAX_SKEW).unwrap();
    prop_oneof![
        6 => 0..50_000_i64,
        6 => 0..5_000_000_i64,
        3 => 0..120_000_000_i64,
        1 => 0..7_200_000_000_i64,
        1 => 0..2 * 86_400_000_000_i64,
        3 => (0..90_i64).prop_map(|seconds| seconds * 1_000_000),
        2 => -skew..0,
    ]
}

/// Also far further back than the judged time absorbs.
fn any_step() -> impl Strategy<Value = i64> {
    prop_oneof![20 => step(), 1 => -7_200_000_000..0_i64, 1 => -3 * 86_400_000_000_i64..0]
}

fn steps() -> impl Strategy<Value = Vec<(i64, Cost)>> {
    vec((step(), cost()), 1..80)
}

fn any_steps() -> impl Strategy<Value = Vec<(i64, Cost)>> {
    vec((any_step(), cost()), 1..80)
}

/// A key, its clock and its stored rows.
struct Key {
    state: KeyState,
    clock: u64,
    rows: BTreeMap<u32, String>,
    /// The judged time of the last admission.
    last: u64,
}

impl Key {
    fn new() -> Self {
        Self { state: KeyState::new("epoch".into()), clock: START, rows: BTreeMap::new(), last: 0 }
    }

    fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    fn judged(&self) -> u64 {
        if self.clock + MAX_SKEW < self.last { self.clock } else { self.clock.max(self.last) }
    }

    /// Where the judged time is after this step of the clock, and whether it went back.
    fn step(&mut self, step: i64) -> (u64, bool) {
        self.clock = self.clock.saturating_add_signed(step);
        let judged = self.judged();
        let back = judged < self.last;
        self.last = self.last.min(judged);
        (judged, back)
    }

    /// A step that leaves the clock no further behind the last admission than the judged time
    /// absorbs.
    fn step_within(&mut self, step: i64) -> u64 {
        let clock = self.clock.saturating_add_signed(step);
        self.clock = clock.max(self.last.saturating_sub(MAX_SKEW));
        self.clock.max(self.last)
    }

    fn decide(&mut self, policies: &[Policy], cost: Cost) -> Decision {
        let judged = self.judged();
        let decision = self.state.decide(policies, self.now(), cost);
        if decision.is_admitted() {
            self.last = judged;
        }
        decision
    }

    fn commit(&mut self) {
        let StateRow { slot, body } = self.state.to_row();
        self.rows.insert(slot, body);
        self.state.committed();
    }

    fn reload(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
    }
}

fn micros(policy: &Policy) -> u64 {
    policy.period().micros().unwrap()
}

fn window(policy: &Policy, t: u64) -> u64 {
    policy.period().window(UnixMicros::from_micros(t)).start.as_micros()
}

/// A row without what counts denials, and without its sequence number.
fn row_without_denials(state: &KeyState) -> (u32, serde_json::Value) {
    let row = state.to_row();
    let mut body: serde_json::Value = serde_json::from_str(&row.body).unwrap();
    let months = body.as_object_mut().unwrap().remove("m").unwrap_or_default();
    let mut months = months.as_array().cloned().unwrap_or_default();
    for month in &mut months {
        month[2] = 0.into();
    }
    months.retain(|month| month.as_array().unwrap()[1..].iter().any(|count| *count != 0));
    body["m"] = months.into();
    // Hour, class, calls, denied and cost; then what D1 has of these.
    let hours = body["h"].as_str().unwrap().split_terminator(';').map(|hour| {
        let mut fields: Vec<&str> = hour.split('|').collect();
        fields[3] = "0";
        fields
    });
    let hours = hours.filter(|fields| fields[2..].iter().any(|count| *count != "0"));
    body["h"] = hours.map(|fields| fields.join("|")).collect::<Vec<_>>().into();
    (row.slot, body)
}

/// A row without its nonces: a state that was read may go on writing more old ones than the state
/// that wrote them.
fn row_without_nonces(state: &KeyState) -> (u32, serde_json::Value) {
    let StateRow { slot, body } = state.to_row();
    let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body.as_object_mut().unwrap().remove("n");
    (slot, body)
}

fn most(policy: &Policy) -> u64 {
    if policy.algorithm() == Algorithm::Bucket { policy.burst() } else { policy.quota() }
}

/// `PROPTEST_CASES` sets how many cases; without it, as many as a debug build runs in some seconds.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 96, ..config } }
}

/// A window is forgotten once three others of its period were counted in between it and the clock; of
/// those that are ahead of the clock, two.
fn forget(windows: &mut BTreeMap<(usize, u64), u64>, index: usize, start: u64) {
    let known: Vec<u64> = windows.range((index, 0)..(index + 1, 0)).map(|((_, s), _)| *s).collect();
    let before = known.iter().rev().filter(|s| **s <= start).skip(3);
    let after = known.iter().filter(|s| **s > start).skip(2);
    before.chain(after).for_each(|s| {
        windows.remove(&(index, *s));
    });
}

proptest! {
    #![proptest_config(config())]

    /// Fixed: at most quota in each window of the UTC clock, on whatever clock.
    #[test]
    fn no_aligned_window_holds_more_than_the_quota(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        let mut windows = BTreeMap::<(usize, u64), u64>::new();
        for (step, cost) in steps {
            let (judged, is_back) = key.step(step);
            if is_back {
                // What was spent lately counts in the window that the clock fell back into, too, so
                // that one is kept from then on.
                for (index, policy) in policies.iter().enumerate().filter(|(_, p)| p.algorithm() == Algorithm::Fixed) {
                    let start = window(policy, judged);
                    if policy.period() != Period::Month && windows.range((index, start + 1)..(index + 1, 0)).next().is_some() {
                        windows.entry((index, start)).or_default();
                        forget(&mut windows, index, start);
                    }
                }
            }
            if !key.decide(&policies, cost).is_admitted() {
                continue;
            }
            for (index, policy) in policies.iter().enumerate().filter(|(_, p)| p.algorithm() == Algorithm::Fixed) {
                let spent = cost.of(policy.unit());
                if spent == 0 {
                    continue;
                }
                let start = window(policy, judged);
                let total = windows.entry((index, start)).or_default();
                *total += spent;
                prop_assert!(*total <= policy.quota(), "{policy:?}: {total}");
                if policy.period() != Period::Month {
                    forget(&mut windows, index, start);
                }
            }
        }
    }

    /// A clock that falls back gives nothing again: the window that it comes to has left what is
    /// left of one quota after that window and the one that it leaves.
    #[test]
    fn the_windows_on_either_side_of_a_step_share_a_quota(
        policies in policies(), steps in steps(), back in MAX_SKEW + 1..3 * DAY, more in steps(),
    ) {
        let mut key = Key::new();
        let mut admitted: Vec<(u64, Cost)> = Vec::new();
        let admit = |admitted: &mut Vec<(u64, Cost)>, key: &mut Key, step: i64, cost: Cost| {
            let (judged, _) = key.step(step);
            if key.decide(&policies, cost).is_admitted() {
                admitted.push((judged, cost));
            }
        };
        for (step, cost) in steps {
            admit(&mut admitted, &mut key, step, cost);
        }
        let (last, before) = (key.last, admitted.len());
        key.clock = last;
        admit(&mut admitted, &mut key, -i64::try_from(back).unwrap(), Cost { requests: 0, tokens: 0 });
        let now = key.clock;
        for (step, cost) in more {
            // Within the window that the clock has come to.
            let step = step.unsigned_abs() % SECOND;
            admit(&mut admitted, &mut key, i64::try_from(step).unwrap(), cost);
        }
        for policy in policies.iter().filter(|p| p.algorithm() == Algorithm::Fixed && p.period() != Period::Month) {
            let of = |t: u64| window(policy, t);
            let units = |cost: &Cost| cost.of(policy.unit());
            // A window after which three others were counted is not known any more.
            let counted = admitted[..before].iter().filter(|(at, cost)| units(cost) > 0 && of(*at) > of(now));
            let is_forgotten = counted.map(|(at, _)| of(*at)).collect::<BTreeSet<_>>().len() >= 3;
            let sides = admitted.iter().enumerate().filter(|(index, (at, _))| {
                of(*at) == of(last) || of(*at) == of(now) && (*index >= before || !is_forgotten)
            });
            let spent: u64 = sides.map(|(_, (_, cost))| units(cost)).sum();
            let is_spent_after = admitted[before..].iter().any(|(_, cost)| units(cost) > 0);
            prop_assert!(!is_spent_after || spent <= policy.quota(), "{policy:?}: {spent}");
        }
    }

    /// Sliding: at most quota in any rolling period. Bucket: at most burst + rate * length in any
    /// interval.
    #[test]
    fn no_interval_holds_more_than_it_may(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        let mut admitted: Vec<(u64, Cost)> = Vec::new();
        for (step, cost) in steps {
            let (mut judged, back) = key.step(step);
            if back {
                // Times are no longer those of one clock; what was spent is checked against the
                // model elsewhere.
                admitted.clear();
            }
            let mut decision = key.decide(&policies, cost);
            if let (Verdict::Denied { retry_after, .. }, true) = (&decision.verdict, step % 2 == 0) {
                // Come back at the very moment, so that what is admitted lies as dense as it may.
                (judged, _) = key.step(i64::try_from(*retry_after).unwrap());
                decision = key.decide(&policies, cost);
            }
            if !decision.is_admitted() {
                continue;
            }
            admitted.push((judged, cost));
            for policy in &policies {
                let spent_since = |from: u64| -> u64 {
                    admitted.iter().filter(|(at, _)| *at >= from).map(|(_, cost)| cost.of(policy.unit())).sum()
                };
                match policy.algorithm() {
                    Algorithm::Fixed => {}
                    Algorithm::Sliding => {
                        let spent = spent_since((judged + 1).saturating_sub(micros(policy)));
                        prop_assert!(spent <= policy.quota(), "{policy:?}: {spent}");
                    }
                    Algorithm::Bucket => {
                        for (from, _) in &admitted {
                            let span = u128::from(micros(policy));
                            let drained = u128::from(policy.quota()) * u128::from(judged - from);
                            let spent = u128::from(spent_since(*from));
                            prop_assert!(spent * span <= u128::from(policy.burst()) * span + drained, "{policy:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn remaining_is_never_more_than_the_limit(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        let mut stepped_back = false;
        for (step, cost) in steps {
            stepped_back |= key.step(step).1;
            let decision = key.decide(&policies, cost);
            for (policy, standing) in policies.iter().zip(&decision.usage.policies) {
                prop_assert!(standing.remaining <= most(policy));
                // More is used than there is only where a clock that stepped back moved it.
                let rest = policy.quota().saturating_sub(standing.used);
                prop_assert!(policy.algorithm() == Algorithm::Bucket || standing.remaining == rest);
                prop_assert!(stepped_back || standing.used <= most(policy));
                // Between two whole units a bucket's remainder is not usable and its level is
                // rounded up.
                prop_assert!(policy.algorithm() != Algorithm::Bucket || standing.remaining + standing.used == policy.burst());
            }
        }
    }

    /// What clients are told to be left is never more than the quota that they are told, and that
    /// quota is granted at the policy's rate.
    #[test]
    fn clients_are_never_told_more_than_the_limit(
        policies in policies(), steps in any_steps(), large in (1..=MAX_QUOTA, 1..=MAX_QUOTA),
    ) {
        let bucket = Policy::new("large", Unit::Requests, large.0, Period::Hour, Algorithm::Bucket, Some(large.1)).unwrap();
        let mut policies = policies;
        policies.push(bucket);
        let mut key = Key::new();
        for (step, cost) in steps {
            key.step(step);
            let decision = key.decide(&policies, cost);
            let known = KeyResponse::new(KeyVerdict::new(&decision.verdict, cost.requests), "t", &policies, &decision.usage);
            for (policy, standing) in policies.iter().zip(&known.standings) {
                prop_assert!(standing.remaining <= standing.quota, "{policy:?}: {standing:?}");
                let period = policy.window_seconds(key.now());
                if policy.burst() <= policy.quota() {
                    prop_assert_eq!((standing.quota, standing.window), (policy.quota(), period));
                } else {
                    prop_assert_eq!(standing.quota, policy.burst());
                    let granted = |window: u64| u128::from(window) * u128::from(policy.quota());
                    let burst = u128::from(period) * u128::from(policy.burst());
                    prop_assert!(granted(standing.window) >= burst && granted(standing.window - 1) < burst);
                }
            }
            let forms = Forms { standard: RateLimitFields::Draft7, legacy: true };
            let fields: BTreeMap<_, _> = ratelimit_headers::fields(&known, forms).into_iter().collect();
            let number = |text: &str| text.parse::<u64>().unwrap();
            let parts: Vec<u64> = fields["RateLimit"].split(", ").map(|part| number(part.split_once('=').unwrap().1)).collect();
            prop_assert!(parts[1] <= parts[0], "{fields:?}");
            if let Some(limit) = fields.get("X-RateLimit-Limit") {
                prop_assert!(number(&fields["X-RateLimit-Remaining"]) <= number(limit));
            }
        }
    }

    #[test]
    fn a_denial_changes_nothing_but_the_count_of_denials(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        for (step, cost) in steps {
            key.step(step);
            let before = key.state.usage(&policies, key.now()).policies;
            let row = row_without_denials(&key.state);
            let dirty = key.state.is_dirty();
            let months = key.state.meter().unflushed_months();
            let decision = key.decide(&policies, cost);
            if decision.is_admitted() {
                prop_assert!(key.state.is_dirty());
                continue;
            }
            prop_assert_eq!(&decision.usage.policies, &before);
            prop_assert_eq!(row_without_denials(&key.state), row);
            prop_assert_eq!(key.state.is_dirty(), dirty);
            // A cost that can never fit is a mistake in the request, not a denial.
            let counted = u64::from(matches!(decision.verdict, Verdict::Denied { .. }));
            prop_assert!(counted == 0 || key.state.has_uncommitted_denials());
            let denied = |months: &[tollgate::metering::months::MonthTotal]| months.iter().map(|m| m.denied).sum::<u64>();
            prop_assert_eq!(denied(&key.state.meter().unflushed_months()), denied(&months) + counted);
        }
    }

    #[test]
    fn a_client_that_waits_as_told_is_admitted_and_not_before(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        let mut stepped_back = false;
        for (step, cost) in steps {
            let (_, back) = key.step(step);
            stepped_back |= back;
            let decision = key.decide(&policies, cost);
            let Verdict::Denied { retry_after, .. } = decision.verdict else { continue };
            let after = |wait: u64| key.state.clone().decide(&policies, key.now().saturating_add(wait), cost).is_admitted();
            prop_assert!(retry_after > 0);
            prop_assert!(after(retry_after));
            let seconds = retry_after.div_ceil(SECOND);
            prop_assert!(after(seconds * SECOND));
            // What lies ahead because the clock stepped back may close again within a second; that
            // is no reason to wait.
            prop_assert!(stepped_back || !after(retry_after - 1));
            prop_assert!(stepped_back || !after(retry_after.saturating_sub(1000)));
            prop_assert!(stepped_back || !after((seconds - 1) * SECOND));
        }
    }

    /// If nothing more is spent, a window is as new at `reset_after`, and of the others there is
    /// more; not before.
    #[test]
    fn a_reset_is_the_end_of_the_window_or_when_more_can_be_spent(policies in policies(), steps in steps()) {
        let mut key = Key::new();
        for (step, cost) in steps {
            key.step_within(step);
            let decision = key.decide(&policies, cost);
            for (index, (policy, standing)) in policies.iter().zip(&decision.usage.policies).enumerate() {
                let after = |wait: u64| -> PolicyUsage {
                    key.state.clone().usage(&policies, key.now().saturating_add(wait)).policies[index]
                };
                let reset = after(standing.reset_after);
                if policy.algorithm() == Algorithm::Fixed {
                    prop_assert_eq!((reset.used, reset.remaining), (0, most(policy)), "{:?}", policy);
                } else if standing.used == 0 {
                    prop_assert_eq!(standing.reset_after, 0);
                } else {
                    prop_assert!(reset.remaining > standing.remaining, "{:?}", policy);
                }
                if standing.used > 0 {
                    let before = after(standing.reset_after - 1);
                    prop_assert!(before.used > 0 && before.remaining == standing.remaining, "{:?}", policy);
                }
            }
        }
    }

    #[test]
    fn exactly_the_policies_that_refuse_alone_are_violated(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        for (step, cost) in steps {
            key.step(step);
            // Both sides judge with the state of every policy in place.
            key.state.usage(&policies, key.now());
            let alone: Vec<Verdict> = policies
                .iter()
                .map(|policy| key.state.clone().decide(std::slice::from_ref(policy), key.now(), cost).verdict)
                .collect();
            let refusing: Vec<usize> = (0..policies.len()).filter(|i| !alone[*i].is_admitted()).collect();
            match key.decide(&policies, cost).verdict {
                Verdict::Admitted => prop_assert!(refusing.is_empty()),
                Verdict::Denied { violated, retry_after } => {
                    prop_assert_eq!(&violated, &refusing);
                    for verdict in &alone {
                        if let Verdict::Denied { retry_after: one, .. } = verdict {
                            prop_assert!(retry_after >= *one);
                        }
                    }
                }
                Verdict::TooManyHolds { .. } => prop_assert!(false, "there are no holds"),
                Verdict::CostExceedsQuota { policy } => {
                    prop_assert!(cost.of(policies[policy].unit()) > most(&policies[policy]));
                    let first = alone.iter().position(|v| matches!(v, Verdict::CostExceedsQuota { .. }));
                    prop_assert_eq!(first, Some(policy));
                }
            }
        }
    }

    /// A state read back from its rows is the state that wrote them: it answers and writes the same
    /// from then on.
    #[test]
    fn rows_hold_the_whole_state(
        pool in vec(policies(), 1..3),
        steps in vec((any_step(), cost(), 0..8_u8), 1..120),
        dense in any::<bool>(),
    ) {
        let mut key = Key::new();
        let mut policies = &pool[0];
        for (index, (step, cost, action)) in steps.into_iter().enumerate() {
            key.step(if dense { step % 50_000 } else { step });
            if action == 0 {
                policies = &pool[index % pool.len()];
            }
            let decision = key.state.decide_as(index as u64, policies, key.now(), cost);
            if action == 1 {
                for total in key.state.meter().unflushed_months() {
                    key.state.mark_flushed(&total);
                }
            }
            if action == 2 {
                key.state.carry_over(Month::of(key.now()), Carried { calls: 1, cost: cost.requests, tokens: cost.tokens });
            }
            key.commit();
            prop_assert!(!key.state.is_dirty() && !key.state.has_uncommitted_denials());
            let mut read = KeyState::from_rows(key.rows.clone()).unwrap();
            prop_assert_eq!(row_without_nonces(&read), row_without_nonces(&key.state));
            prop_assert_eq!(read.meter().unflushed_months(), key.state.meter().unflushed_months());
            prop_assert!(!decision.is_admitted() || read.recalls(index as u64));
            for wait in [0, SECOND, 30 * SECOND, HOUR] {
                let at = key.now().saturating_add(wait);
                prop_assert_eq!(
                    read.clone().decide(policies, at, cost),
                    key.state.clone().decide(policies, at, cost)
                );
            }
            prop_assert_eq!(read.usage(policies, key.now()).policies, key.state.usage(policies, key.now()).policies);
            if action == 3 {
                key.reload();
            }
        }
    }

    /// Uncommitted changes are lost with the state, and nothing but them.
    #[test]
    fn a_failed_write_goes_back_to_the_last_commit(policies in policies(), steps in vec((step(), cost(), any::<bool>()), 1..60)) {
        let mut key = Key::new();
        key.commit();
        let mut committed = key.state.clone();
        for (step, cost, stored) in steps {
            key.step(step);
            key.decide(&policies, cost);
            if stored {
                key.commit();
                committed = key.state.clone();
            } else {
                key.reload();
                prop_assert_eq!(key.state.to_row(), committed.to_row());
                prop_assert_eq!(
                    key.state.clone().decide(&policies, key.now(), cost),
                    committed.clone().decide(&policies, key.now(), cost)
                );
            }
        }
    }

    /// Usage carries over whatever changes: quota, algorithm, period, unit, the whole tier.
    #[test]
    fn no_change_of_policies_forgets_usage(
        pool in vec(policies(), 2..5),
        steps in vec((step(), cost(), 0..10_usize), 1..120),
    ) {
        let mut key = Key::new();
        let mut policies = &pool[0];
        let mut admitted: Vec<(u64, Cost)> = Vec::new();
        let mut had = BTreeSet::new();
        for (step, cost, action) in steps {
            let judged = key.step_within(step);
            let changed = pool.get(action).filter(|next| *next != policies);
            // One that was there before goes on with its own level.
            let buckets = policies.iter().filter(|p| p.algorithm() == Algorithm::Bucket);
            had.extend(buckets.map(|p| (p.name().to_owned(), p.unit())));
            if let Some(next) = changed {
                policies = next;
            }
            let standings = key.state.usage(policies, key.now()).policies;
            // A changed bucket holds the judged time, like an admission.
            key.last = key.last.max(serde_json::from_str::<serde_json::Value>(&key.state.to_row().body).unwrap()["t"].as_u64().unwrap());
            for (policy, standing) in policies.iter().zip(&standings) {
                let spent_since = |from: u64| -> u64 {
                    admitted.iter().filter(|(at, _)| *at >= from).map(|(_, cost)| cost.of(policy.unit())).sum()
                };
                match policy.algorithm() {
                    Algorithm::Fixed => prop_assert_eq!(standing.used, spent_since(window(policy, judged)), "{:?}", policy),
                    Algorithm::Sliding => {
                        let rolling = spent_since((judged + 1).saturating_sub(micros(policy)));
                        prop_assert!(standing.used >= rolling, "{policy:?}: {} of {rolling}", standing.used);
                        prop_assert!(standing.used >= spent_since(window(policy, judged)));
                    }
                    Algorithm::Bucket => {
                        let fresh = !had.contains(&(policy.name().to_owned(), policy.unit()));
                        if let Some((newest, _)) = admitted.iter().rfind(|(_, c)| fresh && c.of(policy.unit()) > 0) {
                            let span = u128::from(micros(policy));
                            let spent = u128::from(spent_since(window(policy, *newest)));
                            let drained = u128::from(policy.quota()) * u128::from(judged - newest);
                            let least = (spent * span).saturating_sub(drained).div_ceil(span);
                            prop_assert!(u128::from(standing.used) >= least, "{policy:?}: {} of {least}", standing.used);
                        }
                    }
                }
                prop_assert_eq!(standing.remaining, most(policy).saturating_sub(standing.used));
            }
            if key.decide(policies, cost).is_admitted() {
                admitted.push((judged, cost));
            }
        }
    }

    /// A bucket that goes away for a while and comes back has counted what was spent meanwhile.
    #[test]
    fn a_policy_that_comes_back_finds_its_level(burst in 5..40_u64, before in 1..5_u64, between in 1..20_u64, wait in 0..MINUTE) {
        let bucket = Policy::new("b", Unit::Requests, 5, Period::Hour, Algorithm::Bucket, Some(burst)).unwrap();
        let bucket = std::slice::from_ref(&bucket);
        let mut kept = KeyState::new("kept".into());
        let mut swapped = KeyState::new("swapped".into());
        let start = UnixMicros::from_micros(START);
        for state in [&mut kept, &mut swapped] {
            state.usage(bucket, start);
            for _ in 0..before {
                prop_assert!(state.decide(bucket, start, Cost::default()).is_admitted());
            }
        }
        let later = start.saturating_add(wait);
        for _ in 0..between {
            prop_assert!(swapped.decide(&[], later, Cost::default()).is_admitted());
            kept.charge_calls(later, 1, Cost::default());
        }
        prop_assert_eq!(swapped.usage(bucket, later).policies, kept.usage(bucket, later).policies);
    }

    #[test]
    fn months_are_as_long_as_they_are(days in 0..40_000_u64, micros in 0..DAY) {
        let now = UnixMicros::from_micros(days * DAY + micros);
        let policy = Policy::new("month", Unit::Requests, 1, Period::Month, Algorithm::Fixed, None).unwrap();
        let policies = std::slice::from_ref(&policy);
        let month = Month::of(now);
        prop_assert!(month.start() <= now && now < month.end());
        let length = policy.window_seconds(now) / 86_400;
        let date = jiff::civil::date(1970, 1, 1) + jiff::Span::new().days(i64::try_from(days).unwrap());
        prop_assert_eq!(Ok(length), u64::try_from(date.days_in_month()));
        prop_assert_eq!(month.end().since(month.start()), length * DAY);
        let mut state = KeyState::new("e".into());
        prop_assert!(state.decide(policies, now, Cost::default()).is_admitted());
        let denied = state.decide(policies, now, Cost::default());
        prop_assert_eq!(denied.verdict, Verdict::Denied { violated: vec![0], retry_after: month.end().since(now) });
        prop_assert_eq!(denied.usage.policies[0].reset_after, month.end().since(now));
        let last = UnixMicros::from_micros(month.end().as_micros() - 1);
        prop_assert!(!state.clone().decide(policies, last, Cost::default()).is_admitted());
        prop_assert!(state.decide(policies, month.end(), Cost::default()).is_admitted());
    }

    /// Whatever is in the rows, reading them ends in a state or an error, and the state works.
    #[test]
    fn no_row_makes_the_engine_panic(
        seq in any::<u64>(), t in any::<u64>(), window in any::<(u64, u64)>(), level in any::<(u64, u64, u64)>(),
        entries in vec(any::<u64>(), 0..8), month in vec(any::<u64>(), 7), quota in any::<u64>(), x in any::<u64>(),
        clock in any::<u64>(), cost in any::<(u64, u64)>(),
    ) {
        let mut m = vec![202_611_u64];
        m.extend(month);
        let body = serde_json::json!({
            "v": 1, "seq": seq, "e": "e", "t": t,
            "f": [[[window], [window, window], [window]]],
            "m": [m],
            "b": [{"n": "b", "k": [0, 0], "q": quota, "l": level, "x": x}, {"n": "c", "k": [1, 2], "q": 0, "l": level}],
            "l": [{"k": [0, 0], "s": 0, "e": entries}, {"k": [1, 1], "s": seq, "e": entries, "x": x}],
        });
        let mut state = KeyState::from_rows([(0, body.to_string()), (7, body.to_string())]).unwrap();
        let cost = Cost { requests: cost.0, tokens: cost.1 };
        let policies: Vec<Policy> = [Algorithm::Bucket, Algorithm::Sliding, Algorithm::Fixed]
            .into_iter()
            .map(|algorithm| Policy::new("b", Unit::Requests, 10, Period::Minute, algorithm, None).unwrap())
            .collect();
        for clock in [clock, t, 0, u64::MAX] {
            let clock = UnixMicros::from_micros(clock);
            state.decide(&policies, clock, Cost::default());
            state.decide(&[], clock, cost);
            state.charge_calls(clock, cost.requests, cost);
            state.deny_elsewhere(clock, cost.tokens);
            state.decide(&policies, clock, cost);
            let row = state.to_row();
            state.committed();
            let _ = KeyState::from_rows([(row.slot, row.body)]).unwrap();
        }
    }
}
