//! Properties of limits, for all mixes of policies, costs and clocks.

mod limits;
mod state;

use std::collections::BTreeMap;

use crate::support::Decide;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Decision;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{SECOND, UnixMicros};

/// 2026-11-20T07:48:14Z.
pub(crate) const START: u64 = 1_795_160_894 * SECOND;
pub(crate) const ALGORITHMS: [Algorithm; 3] = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket];
pub(crate) const PERIODS: [Period; 4] = [Period::Minute, Period::Hour, Period::Day, Period::Month];

pub(crate) fn policy(name: String) -> impl Strategy<Value = Policy> {
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

pub(crate) fn policies() -> impl Strategy<Value = Vec<Policy>> {
    (1..=6_usize).prop_flat_map(|count| (0..count).map(|i| policy(format!("p{i}"))).collect::<Vec<_>>())
}

pub(crate) fn cost() -> impl Strategy<Value = Cost> {
    prop_oneof![
        4 => Just(Cost::default()),
        2 => (0..6_u64, 0..12_u64).prop_map(|(requests, tokens)| Cost { requests, tokens }),
        1 => (1..40_u64, 0..40_u64).prop_map(|(requests, tokens)| Cost { requests, tokens }),
    ]
}

/// A step of the clock in microseconds, forward or back by no more than the judged time absorbs.
pub(crate) fn step() -> impl Strategy<Value = i64> {
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

/// Also much further back than the judged time absorbs.
pub(crate) fn any_step() -> impl Strategy<Value = i64> {
    prop_oneof![20 => step(), 1 => -7_200_000_000..0_i64, 1 => -3 * 86_400_000_000_i64..0]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<(i64, Cost)>> {
    vec((step(), cost()), 1..80)
}

pub(crate) fn any_steps() -> impl Strategy<Value = Vec<(i64, Cost)>> {
    vec((any_step(), cost()), 1..80)
}

/// A key, its clock and its stored rows.
pub(crate) struct Key {
    pub(crate) state: KeyState,
    pub(crate) clock: u64,
    pub(crate) rows: BTreeMap<u32, String>,
    /// The judged time of the last admission.
    pub(crate) last: u64,
}

impl Key {
    pub(crate) fn new() -> Self {
        Self { state: KeyState::new("epoch".into()), clock: START, rows: BTreeMap::new(), last: 0 }
    }

    pub(crate) fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    pub(crate) fn judged(&self) -> u64 {
        if self.clock + MAX_SKEW < self.last { self.clock } else { self.clock.max(self.last) }
    }

    /// The judged time after this step of the clock, and whether it stepped back.
    pub(crate) fn step(&mut self, step: i64) -> (u64, bool) {
        self.clock = self.clock.saturating_add_signed(step);
        let judged = self.judged();
        let back = judged < self.last;
        self.last = self.last.min(judged);
        (judged, back)
    }

    /// A step that leaves the clock no further behind the last admission than the judged time
    /// absorbs.
    pub(crate) fn step_within(&mut self, step: i64) -> u64 {
        let clock = self.clock.saturating_add_signed(step);
        self.clock = clock.max(self.last.saturating_sub(MAX_SKEW));
        self.clock.max(self.last)
    }

    pub(crate) fn decide(&mut self, policies: &[Policy], cost: Cost) -> Decision {
        let judged = self.judged();
        let decision = self.state.decide(policies, self.now(), cost);
        if decision.is_admitted() {
            self.last = judged;
        }
        decision
    }

    pub(crate) fn commit(&mut self) {
        let StateRow { slot, body } = self.state.to_row();
        self.rows.insert(slot, body);
        self.state.committed();
    }

    pub(crate) fn reload(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
    }
}

pub(crate) fn micros(policy: &Policy) -> u64 {
    policy.period().micros().unwrap()
}

pub(crate) fn window(policy: &Policy, t: u64) -> u64 {
    policy.period().window(UnixMicros::from_micros(t)).start.as_micros()
}

pub(crate) fn most(policy: &Policy) -> u64 {
    if policy.algorithm() == Algorithm::Bucket { policy.burst() } else { policy.quota() }
}
