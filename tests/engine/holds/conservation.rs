//! Each unit is charged or given back exactly once, whatever clocks, crashes, tiers and flushes come
//! together.

use super::{commit, with_hold};
use crate::support::{call, config};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};
use tollgate::key_state::hold::{Reservation, ReservationAnswer, UsedAmount};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::hours::HourTotal;
use tollgate::metering::months::MonthTotal;
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-30T22:30:00Z: the month ends soon.
const START: u64 = 1_796_077_800 * SECOND;

#[derive(Debug, Clone)]
enum Action {
    Reserve(Cost, u64),
    /// With a hold; and whether its cost may be lowered.
    Call(Cost, Option<u64>, bool),
    Settle(Index, u64, Option<u64>),
    Release(Index),
    Renew(Index),
    Tier(Index),
    Commit,
    Crash,
    Flush {
        is_acknowledged: bool,
    },
    LateAcknowledgement,
}

fn action() -> impl Strategy<Value = Action> {
    let cost = (0..3_u64, 0..40_u64).prop_map(|(requests, tokens)| Cost { requests, tokens });
    prop_oneof![
        8 => (cost.clone(), 1..HOUR).prop_map(|(cost, ttl)| Action::Reserve(cost, ttl)),
        5 => (cost, proptest::option::of(0..40_u64), any::<bool>())
            .prop_map(|(cost, hold, reprices)| Action::Call(cost, hold, reprices)),
        9 => (any::<Index>(), 0..60_u64, proptest::option::of(0..4_u64))
            .prop_map(|(which, tokens, requests)| Action::Settle(which, tokens, requests)),
        3 => any::<Index>().prop_map(Action::Release),
        1 => any::<Index>().prop_map(Action::Renew),
        1 => any::<Index>().prop_map(Action::Tier),
        5 => Just(Action::Commit),
        2 => Just(Action::Crash),
        3 => any::<bool>().prop_map(|is_acknowledged| Action::Flush { is_acknowledged }),
        1 => Just(Action::LateAcknowledgement),
    ]
}

fn step() -> impl Strategy<Value = i64> {
    let micros = |span: u64| i64::try_from(span).unwrap();
    prop_oneof![
        10 => 0..micros(5 * SECOND),
        5 => 0..micros(5 * MINUTE),
        2 => 0..micros(3 * HOUR),
        1 => 0..micros(40 * DAY),
        2 => -micros(MINUTE)..0,
        2 => -micros(3 * HOUR)..0,
        1 => -micros(20 * DAY)..0,
        1 => -micros(400 * DAY)..micros(400 * DAY),
    ]
}

/// Generous, so that most is admitted.
fn tiers() -> Vec<Vec<Policy>> {
    let policy = |unit, quota, period, algorithm| Policy::new("p", unit, quota, period, algorithm, None).unwrap();
    let named = |name, unit, quota, period, algorithm| Policy::new(name, unit, quota, period, algorithm, None).unwrap();
    let bucket = named("b", Unit::Tokens, 600, Period::Minute, Algorithm::Bucket);
    vec![
        vec![bucket.clone()],
        vec![bucket.clone(), policy(Unit::Tokens, 900, Period::Minute, Algorithm::Fixed)],
        vec![
            bucket.clone(),
            policy(Unit::Requests, 50, Period::Minute, Algorithm::Sliding),
            named("d", Unit::Tokens, 5_000, Period::Day, Algorithm::Fixed),
        ],
        vec![bucket, policy(Unit::Requests, 90, Period::Hour, Algorithm::Sliding)],
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// When it was judged; `None` once the clock has fallen back since.
    at: Option<u64>,
    held: Cost,
    /// What of it is metered; of an open hold, nothing is.
    metered: Option<Cost>,
}

impl Entry {
    /// What certainly counts against limits.
    fn value(&self) -> Cost {
        self.metered.unwrap_or(self.held)
    }
}

#[derive(Debug, Clone, Default)]
struct Ledger {
    holds: BTreeMap<u64, Entry>,
    calls: Vec<Entry>,
    /// Of holds: the call whose cost they may still lower.
    priced: BTreeMap<u64, usize>,
}

/// Sums as D1 has them: calls, denied, charged, returned, overdraft.
type Row = [u64; 7];

fn month_row(total: &MonthTotal) -> Row {
    let MonthTotal { calls, denied, charged, returned, overdraft, .. } = *total;
    [calls, denied, charged.requests, charged.tokens, returned.requests, returned.tokens, overdraft]
}

fn hour_row(total: &HourTotal) -> Row {
    let counts = total.counts;
    let (charged, returned) = (counts.charged, counts.returned);
    [counts.calls, counts.denied, charged.requests, charged.tokens, returned.requests, returned.tokens, 0]
}

/// Calls, denied, and what remains charged.
fn net(rows: impl IntoIterator<Item = Row>) -> [u64; 4] {
    let mut sums = [0; 4];
    for row in rows {
        assert!(row[4] <= row[2] && row[5] <= row[3], "more is returned than charged: {row:?}");
        let net = [row[0], row[1], row[2] - row[4], row[3] - row[5]];
        sums = [0, 1, 2, 3].map(|i| sums[i] + net[i]);
    }
    sums
}

type Batch = (Vec<MonthTotal>, Vec<HourTotal>);

#[derive(Debug, Clone, Default)]
struct Tables {
    months: BTreeMap<Month, Row>,
    hours: BTreeMap<(u64, String), Row>,
}

impl Tables {
    fn merge(&mut self, (months, hours): &Batch) {
        fn merge<K: Ord>(table: &mut BTreeMap<K, Row>, key: K, row: Row) {
            let kept = table.entry(key).or_default();
            kept.iter_mut().zip(row).for_each(|(kept, new)| *kept = (*kept).max(new));
        }
        for total in months {
            merge(&mut self.months, total.month, month_row(total));
        }
        for total in hours {
            merge(&mut self.hours, (total.hour, total.class.clone()), hour_row(total));
        }
    }
}

struct World {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    tier: usize,
    clock: u64,
    judged: u64,
    next: u64,
    ledger: Ledger,
    committed: Ledger,
    batches: Vec<Batch>,
}

impl World {
    fn new() -> Self {
        let mut state = super::state();
        let mut rows = BTreeMap::new();
        commit(&mut state, &mut rows);
        let (ledger, committed) = (Ledger::default(), Ledger::default());
        Self { state, rows, tier: 0, clock: START, judged: 0, next: 1, ledger, committed, batches: Vec::new() }
    }

    fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    fn commit(&mut self) {
        commit(&mut self.state, &mut self.rows);
        self.committed = self.ledger.clone();
    }

    /// The judged time now. What was admitted before the clock fell back may count anywhere.
    fn look(&mut self) {
        let judged = self.state.effective_time(self.now()).as_micros();
        if judged < self.judged {
            for entry in self.ledger.holds.values_mut().chain(&mut self.ledger.calls) {
                entry.at = None;
            }
        }
        self.judged = judged;
        let open: BTreeSet<u64> = self.state.open_holds(self.now()).iter().map(|open| open.id).collect();
        for (id, entry) in &mut self.ledger.holds {
            match entry.metered {
                None if !open.contains(id) => entry.metered = Some(entry.held),
                None => {}
                Some(_) => assert!(!open.contains(id), "{id} was closed"),
            }
        }
    }

    fn close(&mut self, policies: &[Policy], which: Index, used: Option<UsedAmount>) {
        let Some(&id) = self.ledger.holds.keys().nth(which.index(self.ledger.holds.len().max(1))) else { return };
        let mut close = |used: Option<UsedAmount>| match used {
            Some(used) => self.state.settle_hold(policies, UnixMicros::from_micros(self.clock), id, used, &[]),
            None => self.state.release_hold(policies, UnixMicros::from_micros(self.clock), id),
        };
        let first = close(used);
        let entry = self.ledger.holds.get_mut(&id).unwrap();
        match first {
            Some(outcome) => {
                entry.metered = Some(outcome.charged);
                if let Some(call) = self.ledger.priced.remove(&id) {
                    let cost = self.ledger.calls[call].metered.as_mut().unwrap();
                    let requests = used.and_then(|used| used.requests);
                    cost.requests = requests.map_or(cost.requests, |requests| requests.min(cost.requests));
                }
            }
            None => assert!(entry.metered.is_some(), "an open hold is known"),
        }
        // Repeats say the same, if the hold is remembered.
        if let (Some(first), Some(again)) = (first, close(Some(super::used(7)))) {
            assert_eq!(again, first);
        }
    }

    fn act(&mut self, action: &Action) {
        let (tiers, now) = (tiers(), self.now());
        let policies = &tiers[self.tier];
        let entry = |held, metered| Entry { at: Some(self.judged), held, metered };
        match *action {
            Action::Reserve(cost, ttl) => {
                let id = self.next;
                self.next += 1;
                match self.state.reserve(policies, now, &Reservation { id, cost, ttl }) {
                    ReservationAnswer::Open(..) => drop(self.ledger.holds.insert(id, entry(cost, None))),
                    ReservationAnswer::Refused(_) => {}
                    other @ ReservationAnswer::Closed(..) => panic!("{other:?}"),
                }
            }
            Action::Call(cost, hold, reprices) => {
                let nonce = self.next;
                self.next += 1;
                let call = hold.map_or(call(nonce, cost), |tokens| with_hold(nonce, cost, tokens));
                let call = CallToJudge { reprice: reprices.then_some(super::TTL), ..call };
                if self.state.judge_call(policies, now, &call).is_admitted() {
                    self.ledger.calls.push(entry(cost, Some(cost)));
                    if hold.is_some() || reprices {
                        // What holds nothing is not listed, as if it were closed.
                        let aside = super::tokens(hold.unwrap_or(0));
                        let is_listed = aside != Cost::NONE || !reprices || cost.requests == 0;
                        self.ledger.holds.insert(nonce, entry(aside, (!is_listed).then_some(Cost::NONE)));
                    }
                    if reprices {
                        self.ledger.priced.insert(nonce, self.ledger.calls.len() - 1);
                    }
                }
            }
            Action::Settle(which, tokens, requests) => {
                self.close(policies, which, Some(UsedAmount { tokens, requests }));
            }
            Action::Release(which) => self.close(policies, which, None),
            Action::Renew(which) => {
                let open = self.state.open_holds(now);
                if !open.is_empty() {
                    assert!(self.state.renew_hold(now, open[which.index(open.len())].id, HOUR).is_some());
                }
            }
            Action::Tier(which) => self.tier = which.index(tiers.len()),
            Action::Commit => self.commit(),
            Action::Crash => {
                self.state = KeyState::from_rows(self.rows.clone()).unwrap();
                self.ledger = self.committed.clone();
                self.judged = u64::MAX;
            }
            Action::Flush { is_acknowledged } => {
                self.commit();
                let meter = self.state.meter();
                self.batches.push((meter.unflushed_months(), meter.unflushed_hours()));
                if is_acknowledged {
                    self.acknowledge();
                }
            }
            Action::LateAcknowledgement => self.acknowledge(),
        }
    }

    fn acknowledge(&mut self) {
        if let Some((months, hours)) = self.batches.last() {
            for total in months {
                self.state.mark_flushed(total);
            }
            for total in hours {
                self.state.mark_hour_flushed(total);
            }
        }
    }

    fn metered(&self) -> (u64, u64) {
        let entries = self.ledger.holds.values().chain(&self.ledger.calls);
        let metered = entries.filter_map(|entry| entry.metered).fold(Cost::NONE, Cost::saturating_add);
        (metered.requests, metered.tokens)
    }

    /// What was admitted since the clock last fell back counts, whatever else was given back.
    fn check_limits(&mut self) {
        let (tiers, now) = (tiers(), self.now());
        let policies = &tiers[self.tier];
        let usage = self.state.usage(policies, now).policies;
        let entries: Vec<Entry> = self.ledger.holds.values().chain(&self.ledger.calls).copied().collect();
        let entries = || entries.iter().filter_map(|entry| Some((entry.at?, entry)));
        for (policy, usage) in policies.iter().zip(usage) {
            let (counted, unit) = (usage.used + usage.held, policy.unit());
            match policy.algorithm() {
                Algorithm::Fixed => {
                    let window = |at: u64| policy.period().window(UnixMicros::from_micros(at));
                    let inside = entries().filter(|(at, _)| window(*at) == window(self.judged));
                    let least: u64 = inside.map(|(_, entry)| entry.value().of(unit)).sum();
                    assert!(counted >= least, "{policy:?}: {counted} of {least}");
                }
                Algorithm::Bucket => {
                    let span = u128::from(MINUTE);
                    let mut events: Vec<(u64, u64)> =
                        entries().map(|(at, entry)| (at, entry.value().of(unit).min(entry.held.of(unit)))).collect();
                    events.sort_unstable();
                    let (mut level, mut since) = (0_u128, 0);
                    for (at, units) in events.into_iter().chain([(self.judged, 0)]) {
                        level = level.saturating_sub(u128::from(policy.quota()) * u128::from(at - since));
                        level += u128::from(units) * span;
                        since = at;
                    }
                    let least = level.div_ceil(span);
                    assert!(u128::from(counted) >= least, "{policy:?}: {counted} of {least}");
                }
                Algorithm::Sliding => {}
            }
        }
    }

    fn check_rows(&mut self) {
        self.commit();
        let mut read = KeyState::from_rows(self.rows.clone()).unwrap();
        assert_eq!(read.to_row(), self.state.to_row());
        assert_eq!(read.next_expiry(), self.state.next_expiry());
        let (policies, now) = (&tiers()[self.tier], self.now());
        assert_eq!(read.usage(policies, now).policies, self.state.clone().usage(policies, now).policies);
        for id in self.ledger.holds.keys() {
            let settle = |state: &mut KeyState| {
                state.settle_hold(policies, now, *id, UsedAmount { tokens: 3, requests: Some(1) }, &[])
            };
            let mut state = self.state.clone();
            assert_eq!(settle(&mut read), settle(&mut state), "{id}");
            assert_eq!(read.usage(policies, now).policies, state.usage(policies, now).policies);
            read = KeyState::from_rows(self.rows.clone()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_unit_is_charged_or_given_back_once(steps in vec((step(), action()), 1..160), order in any::<u64>()) {
        let mut world = World::new();
        for (index, (step, action)) in steps.iter().enumerate() {
            world.clock = world.clock.saturating_add_signed(*step);
            world.look();
            world.act(action);
            world.look();
            world.check_limits();
            if index % 16 == 3 {
                world.check_rows();
            }
            let is_flushed = world.state.meter().unflushed_months().is_empty() && world.state.meter().unflushed_hours().is_empty();
            prop_assert_eq!(world.state.meter().is_flushed(), is_flushed);
        }
        world.act(&Action::Flush { is_acknowledged: false });
        // In order, and then all of them again in some other order.
        let mut tables = Tables::default();
        for batch in &world.batches {
            tables.merge(batch);
        }
        let once = tables.clone();
        let count = world.batches.len();
        for index in 0..count {
            tables.merge(&world.batches[(index * 7 + usize::try_from(order % 1_000).unwrap()) % count]);
        }
        prop_assert_eq!(&tables.months, &once.months);
        prop_assert_eq!(&tables.hours, &once.hours);
        for (month, row) in &tables.months {
            let of_month = |hour: u64| Month::of(UnixMicros::from_micros(hour * HOUR)) == *month;
            let hours = tables.hours.iter().filter(|((hour, _), _)| of_month(*hour)).map(|(_, row)| *row);
            prop_assert_eq!(net(hours), net([*row]), "{}", month);
        }
        let [_, _, requests, tokens] = net(tables.months.values().copied());
        prop_assert_eq!((requests, tokens), world.metered());
        for total in world.state.meter().kept_months() {
            prop_assert_eq!(tables.months.get(&total.month).copied().unwrap_or_default(), month_row(&total));
        }
        world.acknowledge();
        prop_assert!(world.state.meter().is_flushed());
    }
}
