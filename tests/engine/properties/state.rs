//! What rows hold, and what a change of policies keeps.

use std::collections::BTreeSet;

use crate::properties::{Key, START, any_step, cost, micros, most, policies, step, window};
use crate::support::{Decide, Report, config, knows, window_seconds};
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Verdict;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::months::Carried;
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// A row without its nonces: a state read back may go on writing more old ones than the state that
/// wrote them.
fn row_without_nonces(state: &KeyState) -> (u32, serde_json::Value) {
    let StateRow { slot, body } = state.to_row();
    let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body.as_object_mut().unwrap().remove("n");
    (slot, body)
}

proptest! {
    #![proptest_config(config())]

    /// A state read back from its rows behaves and writes as the state that wrote them.
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
            prop_assert!(!decision.is_admitted() || knows(&read, index as u64));
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

    /// A crash loses uncommitted changes and nothing else.
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

    /// Usage carries over any change of quota, algorithm, period, unit or tier.
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
            // A counter that existed before keeps its own level.
            let buckets = policies.iter().filter(|p| p.algorithm() == Algorithm::Bucket);
            had.extend(buckets.map(|p| (p.name().to_owned(), p.unit())));
            if let Some(next) = changed {
                policies = next;
            }
            let standings = key.state.usage(policies, key.now()).policies;
            // A changed bucket bounds the judged time, like an admission.
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

    /// A removed bucket that is added again has counted meanwhile.
    #[test]
    fn a_bucket_that_is_added_again_has_counted_meanwhile(burst in 5..40_u64, before in 1..5_u64, between in 1..20_u64, wait in 0..MINUTE) {
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
            kept.report_calls(bucket, later, 1, Cost::default());
        }
        prop_assert_eq!(swapped.usage(bucket, later).policies, kept.usage(bucket, later).policies);
    }

    #[test]
    fn months_have_their_real_length(days in 0..40_000_u64, micros in 0..DAY) {
        let now = UnixMicros::from_micros(days * DAY + micros);
        let policy = Policy::new("month", Unit::Requests, 1, Period::Month, Algorithm::Fixed, None).unwrap();
        let policies = std::slice::from_ref(&policy);
        let month = Month::of(now);
        prop_assert!(month.start() <= now && now < month.end());
        let length = window_seconds(&policy, now) / 86_400;
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

    /// Any rows are read into a state or an error, and the state works.
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
            state.report_calls(&[], clock, cost.requests, cost);
            state.report_denials(&[], clock, cost.tokens);
            state.decide(&policies, clock, cost);
            let row = state.to_row();
            state.committed();
            let _ = KeyState::from_rows([(row.slot, row.body)]).unwrap();
        }
    }
}
