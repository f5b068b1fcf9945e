//! What is admitted, denied and reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::properties::{Key, any_steps, micros, most, policies, steps, window};
use crate::support::{Decide, config, window_seconds};
use proptest::prelude::*;
use tollgate::gateway::ratelimit_headers::{Forms, RateLimitFields, RateLimits};
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, MAX_QUOTA, Period, Policy, Unit};
use tollgate::protocol::object_response::{KeyResponse, KeyUsage, KeyVerdict};
use tollgate::time::{DAY, SECOND};

/// A row without counts of denials and without its number.
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
    // Hour, class, calls, denied and cost; then the same as D1 has them.
    let hours = body["h"].as_str().unwrap().split_terminator(';').map(|hour| {
        let mut fields: Vec<&str> = hour.split('|').collect();
        fields[3] = "0";
        fields
    });
    let hours = hours.filter(|fields| fields[2..].iter().any(|count| *count != "0"));
    body["h"] = hours.map(|fields| fields.join("|")).collect::<Vec<_>>().into();
    (row.slot, body)
}

/// Drops windows as the engine does: those with three newer counted ones up to the clock, and of
/// those after the clock all but two.
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

    /// Fixed: at most the quota in each window of the UTC clock, on any clock.
    #[test]
    fn no_aligned_window_holds_more_than_the_quota(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        let mut windows = BTreeMap::<(usize, u64), u64>::new();
        for (step, cost) in steps {
            let (judged, is_back) = key.step(step);
            if is_back {
                // Recently spent units also count in the window that the clock stepped back to, so
                // that window is kept from then on.
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

    /// A step back grants nothing: the window that it reaches and the one that it leaves share one
    /// quota.
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
            // Within the window that the clock has reached.
            let step = step.unsigned_abs() % SECOND;
            admit(&mut admitted, &mut key, i64::try_from(step).unwrap(), cost);
        }
        for policy in policies.iter().filter(|p| p.algorithm() == Algorithm::Fixed && p.period() != Period::Month) {
            let of = |t: u64| window(policy, t);
            let units = |cost: &Cost| cost.of(policy.unit());
            // A window with three newer counted ones is no longer kept.
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

    /// Sliding: at most the quota in any rolling period. Bucket: at most burst + rate × length in
    /// any interval.
    #[test]
    fn no_interval_exceeds_its_allowance(policies in policies(), steps in any_steps()) {
        let mut key = Key::new();
        let mut admitted: Vec<(u64, Cost)> = Vec::new();
        for (step, cost) in steps {
            let (mut judged, back) = key.step(step);
            if back {
                // Times are no longer of one clock. The model test covers this case.
                admitted.clear();
            }
            let mut decision = key.decide(&policies, cost);
            if let (Verdict::Denied { retry_after, .. }, true) = (&decision.verdict, step % 2 == 0) {
                // Continues at the exact end of the wait, so that admissions are as dense as
                // possible.
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
                // Usage exceeds the quota only after a step back moved it.
                let rest = policy.quota().saturating_sub(standing.used);
                prop_assert!(policy.algorithm() == Algorithm::Bucket || standing.remaining == rest);
                prop_assert!(stepped_back || standing.used <= most(policy));
                // Between two whole units the remainder of a bucket is unusable, and its level is
                // rounded up.
                prop_assert!(policy.algorithm() != Algorithm::Bucket || standing.remaining + standing.used == policy.burst());
            }
        }
    }

    /// The stated remainder is never more than the stated quota, and that quota is granted at the
    /// policy's rate.
    #[test]
    fn response_fields_never_state_more_than_the_limit(
        policies in policies(), steps in any_steps(), large in (1..=MAX_QUOTA, 1..=MAX_QUOTA),
    ) {
        let bucket = Policy::new("large", Unit::Requests, large.0, Period::Hour, Algorithm::Bucket, Some(large.1)).unwrap();
        let mut policies = policies;
        policies.push(bucket);
        let mut key = Key::new();
        for (step, cost) in steps {
            key.step(step);
            let decision = key.decide(&policies, cost);
            let verdict = KeyVerdict::new(&decision.verdict, cost.requests);
            let usage = KeyUsage::new("t", &policies, &decision.usage);
            let known = KeyResponse { verdict, usage };
            for (policy, standing) in policies.iter().zip(&known.usage.policies) {
                prop_assert!(standing.remaining <= standing.quota, "{policy:?}: {standing:?}");
                let period = window_seconds(policy, key.now());
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
            let fields: BTreeMap<_, _> = RateLimits::of_call(&known, forms).fields().into_iter().collect();
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
            // A cost above the quota is an error in the request, not a denial.
            let counted = u64::from(matches!(decision.verdict, Verdict::Denied { .. }));
            prop_assert!(counted == 0 || key.state.has_uncommitted_denials());
            let denied = |months: &[tollgate::metering::months::MonthTotal]| months.iter().map(|m| m.denied).sum::<u64>();
            prop_assert_eq!(denied(&key.state.meter().unflushed_months()), denied(&months) + counted);
        }
    }

    #[test]
    fn a_client_that_honours_retry_after_is_admitted_and_not_before(policies in policies(), steps in any_steps()) {
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
            // Counts ahead of the clock, after a step back, may close a window again within a
            // second. Such room does not end a wait.
            prop_assert!(stepped_back || !after(retry_after - 1));
            prop_assert!(stepped_back || !after(retry_after.saturating_sub(1000)));
            prop_assert!(stepped_back || !after((seconds - 1) * SECOND));
        }
    }

    /// If nothing more is spent, at `reset_after` a window starts anew and other policies have more
    /// room. Not before.
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
            // Both states have the counters of every policy.
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
}
