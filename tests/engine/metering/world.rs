//! A key, its clock, its rows, and D1.

use std::collections::BTreeMap;

use crate::metering::strategies::{CALL, START};
use crate::support::Report;
use proptest::prelude::*;
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, Judgement, Verdict};
use tollgate::limiter::policy::Policy;
use tollgate::metering::hours::Counts;
use tollgate::time::{Month, UnixMicros};

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Call {
        class: usize,
        cost: u64,
        tokens: u64,
    },
    ReportedCalls(u64),
    ReportedDenials(u64),
    Commit,
    /// Uncommitted changes are lost.
    Crash,
    Flush {
        is_acknowledged: bool,
    },
    /// The acknowledgement of the previous flush arrives late.
    LateAcknowledgement,
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (0..4_usize, 1..4_u64, 0..9_u64).prop_map(|(class, cost, tokens)| Action::Call { class, cost, tokens }),
        4 => (0..50_usize).prop_map(|class| Action::Call { class, cost: 1, tokens: 0 }),
        1 => (1..5_u64).prop_map(Action::ReportedCalls),
        1 => (0..5_u64).prop_map(Action::ReportedDenials),
        6 => Just(Action::Commit),
        2 => Just(Action::Crash),
        2 => any::<bool>().prop_map(|is_acknowledged| Action::Flush { is_acknowledged }),
        1 => Just(Action::LateAcknowledgement),
    ]
}

/// A table of absolute totals in D1, merged by MAX.
pub(crate) type Table<K> = BTreeMap<K, [u64; 3]>;

pub(crate) fn merge<K: Ord>(table: &mut Table<K>, key: K, counts: [u64; 3]) {
    let row = table.entry(key).or_default();
    for (kept, new) in row.iter_mut().zip(counts) {
        *kept = (*kept).max(new);
    }
}

pub(crate) fn sum(counts: impl IntoIterator<Item = [u64; 3]>) -> [u64; 3] {
    counts.into_iter().fold([0; 3], |sum, counts| [0, 1, 2].map(|i| sum[i] + counts[i]))
}

pub(crate) struct World {
    pub(crate) state: KeyState,
    pub(crate) rows: BTreeMap<u32, String>,
    pub(crate) clock: u64,
    pub(crate) months: Table<Month>,
    pub(crate) hours: Table<(u64, String)>,
    pub(crate) sent: (Vec<tollgate::metering::months::MonthTotal>, Vec<tollgate::metering::hours::HourTotal>),
    /// Admitted and denied calls and charged units: in rows, and since the last row.
    pub(crate) counted: [u64; 3],
    pub(crate) uncommitted: [u64; 3],
    pub(crate) nonce: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let state = KeyState::new("e".into());
        let mut world = Self {
            state,
            rows: BTreeMap::new(),
            clock: START,
            months: BTreeMap::new(),
            hours: BTreeMap::new(),
            sent: (Vec::new(), Vec::new()),
            counted: [0; 3],
            uncommitted: [0; 3],
            nonce: 0,
        };
        world.commit();
        world
    }

    pub(crate) fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    pub(crate) fn step(&mut self, step: i64) {
        self.clock = self.clock.saturating_add_signed(step);
    }

    pub(crate) fn count(&mut self, counts: [u64; 3]) {
        self.uncommitted = sum([self.uncommitted, counts]);
    }

    pub(crate) fn commit(&mut self) {
        let StateRow { slot, body } = self.state.to_row();
        self.rows.insert(slot, body);
        self.state.committed();
        self.counted = sum([self.counted, self.uncommitted]);
        self.uncommitted = [0; 3];
    }

    pub(crate) fn crash(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
        self.uncommitted = [0; 3];
    }

    pub(crate) fn flush(&mut self) {
        self.commit();
        self.sent = (self.state.meter().unflushed_months(), self.state.meter().unflushed_hours());
        for total in &self.sent.0 {
            merge(&mut self.months, total.month, [total.calls, total.denied, total.cost]);
        }
        for total in &self.sent.1 {
            let Counts { calls, denied, cost, .. } = total.counts;
            merge(&mut self.hours, (total.hour, total.class.clone()), [calls, denied, cost]);
        }
    }

    pub(crate) fn acknowledge(&mut self) {
        for total in &self.sent.0 {
            self.state.mark_flushed(total);
        }
        for total in &self.sent.1 {
            self.state.mark_hour_flushed(total);
        }
    }

    pub(crate) fn call(&mut self, policies: &[Policy], class: usize, cost: Cost) {
        self.nonce += 1;
        let class = format!("GET /{class}");
        let call = CallToJudge { cost, class: &class, nonce: self.nonce, ..CALL };
        match self.state.judge_call(policies, self.now(), &call) {
            Judgement::Decided(decision) if decision.is_admitted() => self.count([1, 0, cost.requests]),
            Judgement::Decided(Decision { verdict: Verdict::Denied { .. }, .. }) => self.count([0, 1, 0]),
            _ => {}
        }
    }

    pub(crate) fn act(&mut self, policies: &[Policy], action: &Action) {
        match *action {
            Action::Call { class, cost, tokens } => self.call(policies, class, Cost { requests: cost, tokens }),
            Action::ReportedCalls(calls) => {
                self.state.report_calls(policies, self.now(), calls, Cost { requests: 2 * calls, tokens: 0 });
                self.count([calls, 0, 2 * calls]);
            }
            Action::ReportedDenials(denied) => {
                self.state.report_denials(policies, self.now(), denied);
                self.count([0, denied, 0]);
            }
            Action::Commit => self.commit(),
            Action::Crash => self.crash(),
            Action::Flush { is_acknowledged } => {
                self.flush();
                if is_acknowledged {
                    self.acknowledge();
                }
            }
            Action::LateAcknowledgement => self.acknowledge(),
        }
    }
}
