//! Properties of totals: whatever calls, clocks, crashes and flushes coincide, they add up.

use std::collections::{BTreeMap, BTreeSet};

use crate::metering::strategies::{CALL, policies, step};
use crate::metering::world::{World, action, sum};
use crate::support::config;
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::metering::hours::MAX_CLASSES;
use tollgate::time::{HOUR, Month, UnixMicros};

proptest! {
    #![proptest_config(config())]

    /// The hours of a month add up to the month, and the months to everything counted and not lost.
    #[test]
    fn hours_sum_up_to_months(policies in policies(), steps in vec((step(), action()), 1..300)) {
        let mut world = World::new();
        for (step, action) in &steps {
            world.step(*step);
            world.act(&policies, action);
            let is_flushed = world.state.meter().unflushed_months().is_empty() && world.state.meter().unflushed_hours().is_empty();
            prop_assert_eq!(world.state.meter().is_flushed(), is_flushed);
        }
        world.flush();
        for (month, counts) in &world.months {
            let of_month = |hour: u64| Month::of(UnixMicros::from_micros(hour * HOUR)) == *month;
            let hours = world.hours.iter().filter(|((hour, _), _)| of_month(*hour));
            prop_assert_eq!(sum(hours.map(|(_, counts)| *counts)), *counts, "{}", month);
        }
        prop_assert_eq!(sum(world.months.values().copied()), world.counted);
        prop_assert_eq!(sum(world.hours.values().copied()), world.counted);
        let mut classes = BTreeMap::<u64, usize>::new();
        for (hour, class) in world.hours.keys() {
            *classes.entry(*hour).or_default() += usize::from(class.starts_with("GET"));
        }
        prop_assert!(classes.values().all(|classes| *classes <= MAX_CLASSES));
        // Once all is acknowledged, only the last hour of each kept month remains.
        world.acknowledge();
        prop_assert!(world.state.meter().is_flushed());
        let body = world.state.to_row().body;
        let hours = body.split_once(r#""h":"#).unwrap().1.trim_matches('"').split(';');
        let hours: BTreeSet<_> = hours.filter_map(|hour| hour.split_once('|')).map(|(hour, _)| hour).collect();
        prop_assert!(hours.len() <= world.state.meter().kept_months().len(), "{}", body);
    }

    /// A state read back from its rows counts as the one that wrote them.
    #[test]
    fn a_state_read_back_goes_on_counting(policies in policies(), steps in vec((step(), action()), 1..120)) {
        let mut world = World::new();
        for (step, action) in &steps {
            world.step(*step);
            world.act(&policies, action);
            if world.uncommitted != [0; 3] || world.state.is_dirty() {
                continue;
            }
            let mut read = KeyState::from_rows(world.rows.clone()).unwrap();
            let mut kept = world.state.clone();
            let call = CallToJudge { class: "GET /7", ..CALL };
            read.judge_call(&policies, world.now(), &call);
            kept.judge_call(&policies, world.now(), &call);
            prop_assert_eq!(read.meter().unflushed_hours(), kept.meter().unflushed_hours());
            prop_assert_eq!(read.meter().unflushed_months(), kept.meter().unflushed_months());
        }
    }
}
