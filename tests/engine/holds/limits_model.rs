//! Limits against a naive model that keeps every call and hold with what was used of it, and replays
//! them all. The clock steps back by no more than the judged time absorbs.

use super::commit;
use crate::support::{call, config};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeMap;
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::closed_holds::REMEMBERED_FOR;
use tollgate::key_state::hold::{HoldState, HoldTerms, Reservation, ReservationAnswer, UsedAmount};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-30T23:40:00Z: 20 minutes before the end of the month.
const START: u64 = 1_796_082_000 * SECOND;

#[derive(Debug, Clone)]
enum Action {
    Reserve {
        cost: Cost,
        ttl: u64,
    },
    Call {
        cost: Cost,
        hold: Option<u64>,
        reprices: bool,
    },
    /// Of one that was made before, whatever became of it. Shares of 256 of what was held.
    Settle {
        which: Index,
        tokens: u64,
        requests: Option<u64>,
    },
    Release(Index),
    Renew(Index, u64),
    Expire,
    Commit,
    Crash,
}

fn action(is_bounded: bool) -> impl Strategy<Value = Action> {
    let cost = (0..3_u64, 0..40_u64).prop_map(|(requests, tokens)| Cost { requests, tokens });
    let ttl = prop_oneof![3 => 1..40 * SECOND, 1 => 1..HOUR];
    let share = move || prop_oneof![2 => Just(0_u64), 4 => 0..256_u64, 2 => Just(256), 2 => 0..if is_bounded { 257_u64 } else { 700 }];
    prop_oneof![
        6 => (cost.clone(), ttl.clone()).prop_map(|(cost, ttl)| Action::Reserve { cost, ttl }),
        5 => (cost, proptest::option::of(0..40_u64), any::<bool>())
            .prop_map(|(cost, hold, reprices)| Action::Call { cost, hold, reprices }),
        7 => (any::<Index>(), share(), proptest::option::of(share()))
            .prop_map(|(which, tokens, requests)| Action::Settle { which, tokens, requests }),
        2 => any::<Index>().prop_map(Action::Release),
        1 => (any::<Index>(), ttl).prop_map(|(which, ttl)| Action::Renew(which, ttl)),
        1 => Just(Action::Expire),
        3 => Just(Action::Commit),
        1 => Just(Action::Crash),
    ]
}

fn step() -> impl Strategy<Value = i64> {
    let micros = |span: u64| i64::try_from(span).unwrap();
    prop_oneof![
        4 => Just(0),
        8 => 0..micros(5 * SECOND),
        3 => (0..60_i64).prop_map(|seconds| seconds * 1_000_000),
        3 => 0..micros(2 * MINUTE),
        1 => 0..micros(2 * HOUR),
        1 => 0..micros(DAY),
        1 => -micros(MAX_SKEW)..0,
    ]
}

/// Many holds at once, about a bucket that drains one token a second and is near empty.
fn overlap() -> impl Strategy<Value = (i64, Action)> {
    let step = prop_oneof![2 => Just(0_i64), 6 => 0..6_000_000_i64, 1 => 0..40_000_000_i64];
    let cost = || (1..12_u64).prop_map(super::tokens);
    let action = prop_oneof![
        5 => cost().prop_map(|cost| Action::Reserve { cost, ttl: HOUR }),
        2 => cost().prop_map(|cost| Action::Call { cost, hold: None, reprices: false }),
        6 => (any::<Index>(), prop_oneof![Just(0_u64), 0..300_u64])
            .prop_map(|(which, tokens)| Action::Settle { which, tokens, requests: None }),
    ];
    (step, action)
}

fn policy(name: String) -> impl Strategy<Value = Policy> {
    let kinds = [
        (Unit::Tokens, Algorithm::Fixed, Period::Minute),
        (Unit::Tokens, Algorithm::Fixed, Period::Hour),
        (Unit::Tokens, Algorithm::Fixed, Period::Day),
        (Unit::Tokens, Algorithm::Fixed, Period::Month),
        (Unit::Tokens, Algorithm::Bucket, Period::Minute),
        (Unit::Tokens, Algorithm::Bucket, Period::Hour),
        (Unit::Requests, Algorithm::Fixed, Period::Minute),
        (Unit::Requests, Algorithm::Fixed, Period::Month),
        (Unit::Requests, Algorithm::Sliding, Period::Minute),
        (Unit::Requests, Algorithm::Sliding, Period::Hour),
        (Unit::Requests, Algorithm::Bucket, Period::Minute),
    ];
    (select(kinds.to_vec()), 1..200_u64, 1..200_u64).prop_map(move |((unit, algorithm, period), quota, burst)| {
        let (quota, burst) = if unit == Unit::Tokens { (quota, burst) } else { (quota % 12 + 1, burst % 12 + 1) };
        let burst = (algorithm == Algorithm::Bucket).then_some(burst);
        Policy::new(name.clone(), unit, quota, period, algorithm, burst).unwrap()
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    (1..=5_usize).prop_flat_map(|count| (0..count).map(|i| policy(format!("p{i}"))).collect::<Vec<_>>())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Expired,
    /// At.
    Closed(HoldState, u64),
}

/// A hold, or the cost of a call, which is a hold that was settled at once.
#[derive(Debug, Clone)]
struct Entry {
    id: u64,
    is_reservation: bool,
    /// Of a call's hold: the entry of its cost, if that may be lowered.
    priced: Option<usize>,
    is_call: bool,
    at: u64,
    expires_at: u64,
    held: Cost,
    /// What counts of it in the end, as far as is known.
    value: Cost,
    /// When it was corrected: what is beyond the hold is added to logs and buckets then.
    settled_at: u64,
    fate: Fate,
}

#[derive(Debug, Clone, Default)]
struct Model {
    last: u64,
    entries: Vec<Entry>,
    calls: u64,
}

const fn span(period: Period) -> u64 {
    match period.micros() {
        Some(micros) => micros,
        None => unreachable!(),
    }
}

fn at(micros: u64) -> UnixMicros {
    UnixMicros::from_micros(micros)
}

impl Entry {
    fn base(&self, unit: Unit) -> u64 {
        self.value.of(unit).min(self.held.of(unit))
    }

    fn beyond(&self, unit: Unit) -> u64 {
        self.value.of(unit).saturating_sub(self.held.of(unit))
    }
}

impl Model {
    fn judged(&mut self, clock: u64) -> u64 {
        let now = clock.max(self.last);
        for entry in self.entries.iter_mut().filter(|entry| entry.fate == Fate::Open && entry.expires_at <= now) {
            entry.fate = Fate::Expired;
            self.calls += u64::from(entry.held.requests > 0);
        }
        now
    }

    /// Units, in span-ths of one for a bucket.
    fn level(&self, policy: &Policy, now: u64) -> u128 {
        let unit = policy.unit();
        let window = |t: u64| policy.period().window(at(t));
        match policy.algorithm() {
            Algorithm::Fixed => {
                let entries = self.entries.iter().filter(|entry| window(entry.at) == window(now));
                entries.map(|entry| u128::from(entry.value.of(unit))).sum()
            }
            Algorithm::Sliding => {
                let counts = |t: u64| t.div_ceil(1000) * 1000 + span(policy.period()) > now;
                let of = |entry: &Entry| {
                    u64::from(counts(entry.at)) * entry.base(unit)
                        + u64::from(counts(entry.settled_at)) * entry.beyond(unit)
                };
                self.entries.iter().map(|entry| u128::from(of(entry))).sum()
            }
            Algorithm::Bucket => {
                let mut events: Vec<(u64, u64)> = Vec::new();
                for entry in &self.entries {
                    events.push((entry.at, entry.base(unit)));
                    events.push((entry.settled_at, entry.beyond(unit)));
                }
                events.sort_unstable();
                let (mut level, mut since) = (0_u128, 0);
                for (t, units) in events.into_iter().chain([(now, 0)]) {
                    level = level.saturating_sub(u128::from(policy.quota()) * u128::from(t - since));
                    level += u128::from(units) * u128::from(span(policy.period()));
                    since = t;
                }
                level
            }
        }
    }

    fn admits(&self, policy: &Policy, units: u64, now: u64) -> bool {
        let scale = if policy.algorithm() == Algorithm::Bucket { u128::from(span(policy.period())) } else { 1 };
        let most = u128::from(policy.burst()) * scale;
        units == 0 || self.level(policy, now) + u128::from(units) * scale <= most
    }

    fn verdict(&self, policies: &[Policy], cost: Cost, now: u64) -> Result<(), Vec<usize>> {
        let all = policies.iter().enumerate();
        let violated = all.filter(|(_, policy)| !self.admits(policy, cost.of(policy.unit()), now)).map(|(i, _)| i);
        let violated: Vec<usize> = violated.collect();
        if violated.is_empty() { Ok(()) } else { Err(violated) }
    }

    fn add(&mut self, id: u64, is_reservation: bool, now: u64, ttl: u64, held: Cost, fate: Fate) {
        let entry = Entry {
            id,
            is_reservation,
            priced: None,
            is_call: !is_reservation,
            at: now,
            expires_at: now + ttl,
            held,
            value: held,
            settled_at: now,
            fate,
        };
        self.entries.push(entry);
        self.last = now;
    }

    /// The requests that the call of a hold may get back.
    fn returnable(&self, index: usize) -> u64 {
        self.entries[index].priced.map_or(0, |priced| self.entries[priced].held.requests)
    }

    /// What is held in the window of a fixed policy, or in the period of a sliding one.
    fn held(&self, policy: &Policy, now: u64) -> u64 {
        let counts = |entry: &Entry| match policy.algorithm() {
            Algorithm::Sliding => entry.at.div_ceil(1000) * 1000 + span(policy.period()) > now,
            _ => policy.period().window(at(entry.at)) == policy.period().window(at(now)),
        };
        let open = self.entries.iter().filter(|entry| entry.fate == Fate::Open && counts(entry));
        open.map(|entry| entry.held.of(policy.unit())).sum()
    }

    /// What is metered by month.
    fn metered(&self) -> BTreeMap<Month, (u64, u64)> {
        let mut months = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.fate != Fate::Open) {
            let sums: &mut (u64, u64) = months.entry(Month::of(at(entry.at))).or_default();
            *sums = (sums.0 + entry.value.requests, sums.1 + entry.value.tokens);
        }
        months
    }
}

struct Run {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    policies: Vec<Policy>,
    model: Model,
    committed: Model,
    clock: u64,
    latest: u64,
    next: u64,
    is_bounded: bool,
}

impl Run {
    fn new(policies: Vec<Policy>, is_bounded: bool) -> Self {
        let mut run = Self {
            state: super::state(),
            rows: BTreeMap::new(),
            policies,
            model: Model::default(),
            committed: Model::default(),
            clock: START,
            latest: START,
            next: 1,
            is_bounded,
        };
        // Logs count from when they are there.
        run.state.usage(&run.policies, at(START));
        commit(&mut run.state, &mut run.rows);
        run
    }

    fn compare_verdict(&self, verdict: &Verdict, cost: Cost, now: u64) -> bool {
        match (self.model.verdict(&self.policies, cost, now), verdict) {
            (Ok(()), Verdict::Admitted) => true,
            (Err(violated), Verdict::Denied { violated: found, .. }) => {
                assert_eq!(found, &violated);
                false
            }
            (Err(_), Verdict::CostExceedsQuota { policy }) => {
                assert!(cost.of(self.policies[*policy].unit()) > self.policies[*policy].burst());
                false
            }
            (model, verdict) => panic!("{verdict:?}, not {model:?}"),
        }
    }

    fn close(&mut self, index: usize, amount: Option<(u64, Option<u64>)>) {
        let now = self.model.judged(self.clock);
        let entry = &self.model.entries[index];
        let (id, held, is_call) = (entry.id, entry.held, entry.is_call);
        let (priced, price) = (entry.priced, self.model.returnable(index));
        let part = |share: u64, of: u64| if share > 256 { of * share / 256 + share } else { of * share / 256 };
        let used = amount.map(|(tokens, requests)| UsedAmount {
            tokens: part(tokens, held.tokens),
            requests: requests.map(|share| part(share, if is_call { price } else { held.requests })),
        });
        let outcome = match used {
            Some(used) => self.state.settle_hold(&self.policies, at(self.clock), id, used, &[]),
            None => self.state.release_hold(&self.policies, at(self.clock), id),
        };
        let entry = &mut self.model.entries[index];
        let is_known = |since: u64| now < since + REMEMBERED_FOR;
        match entry.fate {
            Fate::Expired if !is_known(entry.expires_at) => assert_eq!(outcome, None),
            Fate::Open | Fate::Expired => {
                let outcome = outcome.expect("there is such a hold");
                let requests = |used: UsedAmount| used.requests.filter(|_| !is_call).unwrap_or(held.requests);
                let value = used.map_or(Cost::NONE, |used| Cost { requests: requests(used), tokens: used.tokens });
                let state = if used.is_some() { HoldState::Settled } else { HoldState::Released };
                super::expect(outcome, state, value, held);
                assert_eq!(outcome.at, at(now));
                let was_expired = entry.fate == Fate::Expired;
                let is_call = value.requests > 0 && !(was_expired && held.requests > 0);
                self.model.calls += u64::from(is_call);
                entry.value = value;
                entry.settled_at = now;
                entry.fate = Fate::Closed(state, now);
                entry.is_reservation |= was_expired;
                self.model.last = now;
                if let (Some(priced), Some(requests)) = (priced, used.and_then(|used| used.requests)) {
                    self.model.entries[priced].value.requests = requests.min(price);
                }
            }
            Fate::Closed(state, since) if entry.is_reservation && is_known(since) => {
                super::expect(outcome.expect("it is remembered"), state, entry.value, held);
            }
            Fate::Closed(..) => assert_eq!(outcome, None),
        }
    }

    fn act(&mut self, action: &Action) {
        let clock = at(self.clock);
        let count = self.model.entries.len();
        match *action {
            Action::Reserve { cost, ttl } => {
                let now = self.model.judged(self.clock);
                let id = self.next;
                self.next += 1;
                match self.state.reserve(&self.policies, clock, &Reservation { id, cost, ttl }) {
                    ReservationAnswer::Open(open, _) => {
                        assert!(self.compare_verdict(&Verdict::Admitted, cost, now));
                        assert_eq!((open.id, open.at, open.expires_at), (id, at(now), at(now + ttl)));
                        self.model.add(id, true, now, ttl, cost, Fate::Open);
                    }
                    ReservationAnswer::Refused(decision) => {
                        assert!(!self.compare_verdict(&decision.verdict, cost, now));
                    }
                    other @ ReservationAnswer::Closed(..) => panic!("{other:?}"),
                }
            }
            Action::Call { cost, hold, reprices } => {
                let now = self.model.judged(self.clock);
                let id = self.next;
                self.next += 1;
                let hold = hold.map(|tokens| HoldTerms { tokens, ttl: 20 * SECOND });
                let reprice = reprices.then_some(20 * SECOND);
                let call = CallToJudge { hold, reprice, ..call(id, cost) };
                let judgement = self.state.judge_call(&self.policies, clock, &call);
                let tollgate::limiter::decision::Judgement::Decided(decision) = judgement else { panic!() };
                let on_top = super::tokens(hold.map_or(0, |hold| hold.tokens));
                if self.compare_verdict(&decision.verdict, cost.saturating_add(on_top), now) {
                    self.model.calls += 1;
                    self.model.add(0, false, now, 0, cost, Fate::Closed(HoldState::Settled, 0));
                    if hold.is_some() || reprices {
                        let priced = reprices.then_some(self.model.entries.len() - 1);
                        self.model.add(id, false, now, 20 * SECOND, on_top, Fate::Open);
                        self.model.entries.last_mut().unwrap().priced = priced;
                    }
                }
            }
            Action::Settle { which, tokens, requests } if count > 0 => {
                self.close(which.index(count), Some((tokens, requests)));
            }
            Action::Release(which) if count > 0 => self.close(which.index(count), None),
            Action::Renew(which, ttl) if count > 0 => {
                let now = self.model.judged(self.clock);
                let entry = &mut self.model.entries[which.index(count)];
                let renewed = self.state.renew_hold(clock, entry.id, ttl);
                assert_eq!(renewed.is_some(), entry.fate == Fate::Open);
                if let Some(renewed) = renewed {
                    entry.expires_at = entry.expires_at.max(now + ttl);
                    assert_eq!(renewed.expires_at, at(entry.expires_at));
                }
            }
            Action::Expire => {
                self.model.judged(self.clock);
                self.state.expire(clock);
            }
            Action::Commit => {
                commit(&mut self.state, &mut self.rows);
                self.committed = self.model.clone();
            }
            Action::Crash => {
                self.state = KeyState::from_rows(self.rows.clone()).unwrap();
                self.model = self.committed.clone();
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let now = self.model.judged(self.clock);
        let usage = self.state.usage(&self.policies, at(self.clock)).policies;
        for (policy, usage) in self.policies.iter().zip(usage) {
            let PolicyUsage { used, held, remaining, .. } = usage;
            let level = self.model.level(policy, now);
            let scale = if policy.algorithm() == Algorithm::Bucket { u128::from(span(policy.period())) } else { 1 };
            assert_eq!(u128::from(used + held), level.div_ceil(scale), "{policy:?}");
            let room = (u128::from(policy.burst()) * scale).saturating_sub(level);
            assert_eq!(u128::from(remaining), room / scale, "{policy:?}");
            if policy.algorithm() != Algorithm::Bucket {
                assert_eq!(held, self.model.held(policy, now), "{policy:?}");
            }
            if self.is_bounded {
                assert!(level <= u128::from(policy.burst()) * scale, "{policy:?}");
            }
        }
        let entries = &self.model.entries;
        let is_listed = |index: &usize| entries[*index].held != Cost::NONE || self.model.returnable(*index) == 0;
        let open = (0..entries.len()).filter(|index| entries[*index].fate == Fate::Open && is_listed(index));
        let open = open.map(|index| entries[index].id);
        assert!(self.state.open_holds(at(self.clock)).iter().map(|open| open.id).eq(open));
        let mut calls = 0;
        for total in self.state.meter().kept_months() {
            let metered = self.model.metered().get(&total.month).copied().unwrap_or_default();
            assert_eq!((total.cost, total.tokens), metered, "{}", total.month);
            calls += total.calls;
        }
        assert_eq!(calls, self.model.calls);
    }

    /// No window, not one that is over either, ever has more than its quota.
    fn check_windows(&self) {
        for policy in self.policies.iter().filter(|policy| policy.algorithm() == Algorithm::Fixed) {
            let mut windows = BTreeMap::<u64, u64>::new();
            for entry in &self.model.entries {
                let start = policy.period().window(at(entry.at)).start.as_micros();
                *windows.entry(start).or_default() += entry.value.of(policy.unit());
            }
            assert!(windows.values().all(|units| *units <= policy.quota()), "{policy:?}: {windows:?}");
        }
    }

    fn go(&mut self, steps: &[(i64, Action)]) {
        for (step, action) in steps {
            let clock = self.clock.saturating_add_signed(*step);
            self.clock = clock.max(self.latest.saturating_sub(MAX_SKEW));
            self.latest = self.latest.max(self.clock);
            self.act(action);
            self.check();
            if self.is_bounded {
                self.check_windows();
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// Where settles stay within their holds, nothing is ever granted beyond a quota.
    #[test]
    fn granted_is_never_above_a_quota(policies in policies(), steps in vec((step(), action(true)), 1..120)) {
        Run::new(policies, true).go(&steps);
    }

    #[test]
    fn limits_are_those_of_the_model(policies in policies(), steps in vec((step(), action(false)), 1..120)) {
        Run::new(policies, false).go(&steps);
    }

    #[test]
    fn holds_of_a_bucket_do_not_disturb_each_other(steps in vec(overlap(), 1..60)) {
        let policy = Policy::new("b", Unit::Tokens, 60, Period::Minute, Algorithm::Bucket, Some(300)).unwrap();
        Run::new(vec![policy], false).go(&steps);
    }

    /// A bucket that gets holds back is a bucket that only ever got what was used.
    #[test]
    fn buckets_are_those_of_a_replay(
        shape in (1..80_u64, 20..200_u64, select(vec![Period::Minute, Period::Hour])),
        steps in vec((step(), action(false)), 1..150),
    ) {
        let (quota, burst, period) = shape;
        let policy = Policy::new("b", Unit::Tokens, quota, period, Algorithm::Bucket, Some(burst)).unwrap();
        Run::new(vec![policy], false).go(&steps);
    }
}
