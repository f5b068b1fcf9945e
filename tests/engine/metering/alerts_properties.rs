//! Properties of alerts, against a model.

use std::collections::BTreeMap;

use crate::metering::strategies::{CALL, step};
use crate::metering::world::World;
use crate::support::config;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::Month;

proptest! {
    #![proptest_config(config())]

    /// Each crossing of a threshold raises one alert, whatever is lost in between.
    #[test]
    fn alerts_match_the_model(
        steps in vec((step(), 1..40_u64, select(&[10_u64, 20, 40, 80][..]), 0..10_u8), 1..120),
    ) {
        const THRESHOLDS: [u16; 3] = [50, 80, 100];
        let mut world = World::new();
        // The reached thresholds by month, as in rows and as in memory.
        let mut reached: [BTreeMap<(Month, u16), bool>; 2] = Default::default();
        for (step, cost, quota, action) in steps {
            world.step(step.abs());
            let policies = [Policy::new("month", Unit::Requests, quota, Period::Month, Algorithm::Fixed, None).unwrap()];
            let call = CallToJudge { cost: Cost { requests: cost, tokens: 0 }, thresholds: &THRESHOLDS, ..CALL };
            world.state.judge_call(&policies, world.now(), &call);
            let month = Month::of(world.now());
            let used = world.state.month(month).cost;
            let mut expected = Vec::new();
            for threshold in THRESHOLDS {
                let is_reached = used > 0 && used * 100 >= quota * u64::from(threshold);
                let before = reached[1].insert((month, threshold), is_reached).unwrap_or_default();
                if is_reached && !before {
                    expected.push((threshold, quota, used));
                }
            }
            let raised = world.state.pending_alerts().to_vec();
            for alert in &raised {
                world.state.mark_alerted(alert);
            }
            let raised: Vec<_> = raised.iter().map(|alert| (alert.threshold, alert.quota, alert.used)).collect();
            prop_assert_eq!(raised, expected);
            let [stored, now] = &mut reached;
            match action {
                0 => {
                    world.crash();
                    now.clone_from(stored);
                }
                1..6 => {
                    world.commit();
                    stored.clone_from(now);
                }
                _ => {}
            }
        }
    }
}
