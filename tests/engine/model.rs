//! The engine against a naive reference that keeps every admission and applies the definitions
//! literally.
//!
//! Steps are drawn from a seeded generator, so a failure repeats. `TOLLGATE_MODEL_STEPS` sets how
//! many (default 200,000), `TOLLGATE_MODEL_SEED` where they start.

use std::collections::BTreeMap;

use crate::support::{Decide, Report};
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

const STEPS_PER_KEY: u64 = 400;

/// Steele, Lea and Flood's `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// An admission; `at` moves to the judged time when the clock steps back too far.
struct Admission {
    at: u64,
    cost: Cost,
    /// The periods that had ended at a later admission. A step back does not revive them.
    over: Vec<Period>,
}

impl Admission {
    fn expiry(&self, period: Period) -> u64 {
        self.at.div_ceil(1000) * 1000 + micros(period)
    }

    fn counts(&self, period: Period, t: u64) -> bool {
        self.expiry(period) > t && !self.over.contains(&period)
    }
}

/// GCRA by theoretical arrival time, in quota-ths of a microsecond.
#[derive(Clone, Copy)]
struct Arrival {
    tat: u128,
    quota: u128,
    /// The last admission that moved `tat`.
    at: u64,
}

struct Model {
    policies: Vec<Policy>,
    last: u64,
    admissions: Vec<Admission>,
    /// Per policy.
    arrivals: Vec<Arrival>,
    /// Aligned windows by unit, period and start.
    windows: BTreeMap<(Unit, Period, u64), u64>,
    calls: BTreeMap<Month, (u64, u64)>,
}

fn micros(period: Period) -> u64 {
    match period {
        Period::Minute => MINUTE,
        Period::Hour => HOUR,
        Period::Day => DAY,
        Period::Month => unreachable!("no rolling months"),
    }
}

fn start(period: Period, t: u64) -> u64 {
    period.window(UnixMicros::from_micros(t)).start.as_micros()
}

fn end(period: Period, t: u64) -> u64 {
    period.window(UnixMicros::from_micros(t)).end.as_micros()
}

impl Model {
    fn new(policies: Vec<Policy>) -> Self {
        let arrivals =
            policies.iter().map(|policy| Arrival { tat: 0, quota: u128::from(policy.quota()), at: 0 }).collect();
        Self { policies, last: 0, admissions: Vec::new(), arrivals, windows: BTreeMap::new(), calls: BTreeMap::new() }
    }

    fn judged(&mut self, clock: u64) -> u64 {
        let now = if clock + MAX_SKEW < self.last { clock } else { clock.max(self.last) };
        if now < self.last {
            self.fall_back(now);
            self.last = now;
            for admission in &mut self.admissions {
                admission.at = admission.at.min(now);
            }
            for arrival in &mut self.arrivals {
                if arrival.at > now {
                    let level = arrival.tat.saturating_sub(u128::from(arrival.at) * arrival.quota);
                    arrival.tat = u128::from(now) * arrival.quota + level;
                    arrival.at = now;
                }
            }
        }
        now
    }

    /// Units spent less than a period before the step count in the window of `now`, too.
    fn fall_back(&mut self, now: u64) {
        for unit in [Unit::Requests, Unit::Tokens] {
            for period in [Period::Minute, Period::Hour, Period::Day] {
                let (span, at) = (micros(period), start(period, now));
                let is_recent = |start: u64| start > at && start + 2 * span > self.last;
                let windows =
                    self.windows.iter().filter(|((u, p, start), _)| (*u, *p) == (unit, period) && is_recent(*start));
                let units: u64 = windows.map(|(_, units)| *units).sum();
                if units > 0 {
                    *self.windows.entry((unit, period, at)).or_default() += units;
                    self.forget(unit, period, at);
                }
            }
        }
    }

    fn replace(&mut self, policies: Vec<Policy>, now: u64) {
        let mut unchecked = false;
        for (arrival, policy) in self.arrivals.iter_mut().zip(&policies) {
            let quota = u128::from(policy.quota());
            if policy.algorithm() == Algorithm::Bucket && quota != arrival.quota {
                let level = arrival.tat.saturating_sub(u128::from(now.max(arrival.at)) * arrival.quota);
                unchecked = true;
                *arrival = Arrival { tat: u128::from(now) * quota + level, quota, at: now };
            }
        }
        self.policies = policies;
        if unchecked {
            self.pass(now);
        }
    }

    /// The judged time never goes before `now` again, so what has expired by then stays expired.
    fn pass(&mut self, now: u64) {
        self.last = now;
        for admission in &mut self.admissions {
            let over = [Period::Minute, Period::Hour, Period::Day].into_iter().filter(|p| admission.expiry(*p) <= now);
            admission.over = over.chain(admission.over.iter().copied()).collect();
        }
        self.admissions.retain(|admission| !admission.over.contains(&Period::Day));
    }

    /// Units that count against a policy at `t`, if nothing else is admitted until then.
    fn rolling(&self, policy: &Policy, t: u64) -> u64 {
        let counted = self.admissions.iter().filter(|a| a.counts(policy.period(), t));
        counted.map(|a| a.cost.of(policy.unit())).sum()
    }

    fn window(&self, policy: &Policy, t: u64) -> u64 {
        let key = (policy.unit(), policy.period(), start(policy.period(), t));
        self.windows.get(&key).copied().unwrap_or(0)
    }

    fn level(&self, index: usize, t: u64) -> u128 {
        let arrival = &self.arrivals[index];
        arrival.tat.saturating_sub(u128::from(t.max(arrival.at)) * arrival.quota)
    }

    fn admits(&self, index: usize, units: u64, t: u64) -> bool {
        let policy = &self.policies[index];
        if units == 0 {
            return true;
        }
        match policy.algorithm() {
            Algorithm::Fixed => self.window(policy, t) + units <= policy.quota(),
            Algorithm::Sliding => self.rolling(policy, t) + units <= policy.quota(),
            Algorithm::Bucket => {
                let span = u128::from(micros(policy.period()));
                self.level(index, t) + u128::from(units) * span <= u128::from(policy.burst()) * span
            }
        }
    }

    /// All times from `now` on at which a policy may begin to admit.
    fn moments(&self, now: u64, cost: Cost) -> Vec<u64> {
        let mut moments = vec![now];
        for (index, policy) in self.policies.iter().enumerate() {
            match policy.algorithm() {
                Algorithm::Fixed => {
                    moments.push(end(policy.period(), now));
                    moments.extend(self.windows.keys().map(|(_, _, start)| end(policy.period(), *start)));
                    // The start of a window that was counted while the clock was ahead.
                    moments.extend(self.windows.keys().map(|(_, _, at)| start(policy.period(), *at)));
                }
                Algorithm::Sliding => {
                    moments.extend(self.admissions.iter().map(|a| a.expiry(policy.period())));
                }
                Algorithm::Bucket => {
                    let arrival = &self.arrivals[index];
                    let span = u128::from(micros(policy.period()));
                    let units = u128::from(cost.of(policy.unit()));
                    let free = (arrival.tat + units * span).saturating_sub(u128::from(policy.burst()) * span);
                    moments.push(u64::try_from(free.div_ceil(arrival.quota)).unwrap());
                }
            }
        }
        moments.retain(|moment| *moment >= now);
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    fn decide(&mut self, clock: u64, cost: Cost) -> Verdict {
        let now = self.judged(clock);
        let cost_of = |policy: &Policy| cost.of(policy.unit());
        let month = Month::of(UnixMicros::from_micros(now));
        if let Some(policy) = self.policies.iter().position(|policy| cost_of(policy) > policy.burst()) {
            return Verdict::CostExceedsQuota { policy };
        }
        let refuses = |t: u64| -> Vec<usize> {
            let all = self.policies.iter().enumerate();
            all.filter(|(index, policy)| !self.admits(*index, cost_of(policy), t)).map(|(index, _)| index).collect()
        };
        let violated = refuses(now);
        if violated.is_empty() {
            self.charge(now, 1, cost);
            return Verdict::Admitted;
        }
        let moments = self.moments(now, cost);
        let is_good = |moment: u64| {
            let soon = moments.iter().filter(|later| (moment..=moment + SECOND).contains(later));
            soon.copied().all(|later| refuses(later).is_empty())
        };
        let moment = moments.iter().copied().find(|moment| is_good(*moment));
        self.calls.entry(month).or_default().1 += 1;
        Verdict::Denied { violated, retry_after: moment.expect("waiting helps") - clock }
    }

    fn charge(&mut self, now: u64, calls: u64, cost: Cost) {
        self.calls.entry(Month::of(UnixMicros::from_micros(now))).or_default().0 += calls;
        self.pass(now);
        self.admissions.push(Admission { at: now, cost, over: Vec::new() });
        for (arrival, policy) in self.arrivals.iter_mut().zip(&self.policies) {
            if policy.algorithm() == Algorithm::Bucket {
                let units = u128::from(cost.of(policy.unit()));
                let from = arrival.tat.max(u128::from(now.max(arrival.at)) * arrival.quota);
                arrival.tat = from + units * u128::from(micros(policy.period()));
                arrival.at = arrival.at.max(now);
            }
        }
        for unit in [Unit::Requests, Unit::Tokens] {
            for period in [Period::Minute, Period::Hour, Period::Day, Period::Month] {
                if cost.of(unit) > 0 {
                    let at = start(period, now);
                    *self.windows.entry((unit, period, at)).or_default() += cost.of(unit);
                    self.forget(unit, period, at);
                }
            }
        }
    }

    /// The engine keeps this window, the two non-empty ones before it and the next two after it; of
    /// months, all.
    fn forget(&mut self, unit: Unit, period: Period, at: u64) {
        if period == Period::Month {
            return;
        }
        let starts: Vec<u64> =
            self.windows.keys().filter(|(u, p, _)| (*u, *p) == (unit, period)).map(|(_, _, start)| *start).collect();
        let before = starts.iter().rev().filter(|start| **start <= at).skip(3);
        let after = starts.iter().filter(|start| **start > at).skip(2);
        for start in before.chain(after) {
            self.windows.remove(&(unit, period, *start));
        }
    }

    fn usage(&mut self, clock: u64) -> Vec<PolicyUsage> {
        let now = self.judged(clock);
        let all = self.policies.iter().enumerate();
        all.map(|(index, policy)| match policy.algorithm() {
            Algorithm::Fixed => {
                let used = self.window(policy, now);
                let reset_after = end(policy.period(), now) - clock;
                PolicyUsage { remaining: policy.quota().saturating_sub(used), used, held: 0, reset_after }
            }
            Algorithm::Sliding => {
                let used = self.rolling(policy, now);
                let remaining = policy.quota().saturating_sub(used);
                let expiries = self.admissions.iter().map(|a| a.expiry(policy.period())).filter(|expiry| *expiry > now);
                let grows = |t: &u64| policy.quota().saturating_sub(self.rolling(policy, *t)) > remaining;
                let reset_after = if used == 0 { 0 } else { expiries.filter(grows).min().unwrap() - clock };
                PolicyUsage { remaining, used, held: 0, reset_after }
            }
            Algorithm::Bucket => {
                let span = u128::from(micros(policy.period()));
                let level = self.level(index, now);
                let room = (u128::from(policy.burst()) * span).saturating_sub(level);
                let arrival = &self.arrivals[index];
                let free = arrival.tat + (room / span + 1) * span - u128::from(policy.burst()) * span;
                let grows = u64::try_from(free.div_ceil(arrival.quota)).unwrap();
                PolicyUsage {
                    remaining: u64::try_from(room / span).unwrap(),
                    used: u64::try_from(level.div_ceil(span)).unwrap(),
                    held: 0,
                    reset_after: if level == 0 { 0 } else { grows - clock },
                }
            }
        })
        .collect()
    }
}

fn policy(random: &mut Random, name: &str, algorithm: Algorithm, period: Period, unit: Unit) -> Policy {
    let quota = match random.below(4) {
        0 => 1 + random.below(3),
        1 => 5 + random.below(10),
        _ => 10 + random.below(60),
    };
    let burst = (algorithm == Algorithm::Bucket && random.one_in(2)).then(|| 1 + random.below(40));
    Policy::new(name, unit, quota, period, algorithm, burst).unwrap()
}

fn policies(random: &mut Random, algorithms: &[Algorithm]) -> Vec<Policy> {
    let count = 1 + random.below(6);
    (0..count)
        .map(|index| {
            let algorithm = random.pick(algorithms);
            let mut periods = vec![Period::Minute, Period::Minute, Period::Hour, Period::Day];
            if algorithm == Algorithm::Fixed {
                periods.push(Period::Month);
            }
            let period = random.pick(&periods);
            // Logs are of requests alone.
            let units = [Unit::Requests, Unit::Requests, Unit::Tokens];
            let unit = random.pick(if algorithm == Algorithm::Sliding { &units[..1] } else { &units });
            policy(random, &format!("p{index}"), algorithm, period, unit)
        })
        .collect()
}

fn step(random: &mut Random, clock: u64) -> u64 {
    match random.below(100) {
        0..30 => clock,
        30..50 => clock + random.below(5_000),
        50..75 => clock + random.below(3 * SECOND),
        75..85 => clock + random.below(2 * MINUTE),
        85..88 => clock + random.below(2 * HOUR),
        88 => clock + random.below(2 * DAY),
        // Whole seconds and whole windows, where limits are off by one.
        89..92 => (clock / SECOND + 1) * SECOND,
        92..94 => (clock / MINUTE + 1) * MINUTE - random.below(2),
        94..97 => clock - random.below(MAX_SKEW),
        97 => clock - random.below(4 * MAX_SKEW),
        98 => clock - random.below(2 * HOUR),
        _ if random.one_in(4) => clock - random.below(3 * DAY),
        _ => Month::of(UnixMicros::from_micros(clock)).end().as_micros() - random.below(3 * SECOND),
    }
}

struct Run {
    random: Random,
    state: KeyState,
    model: Model,
    rows: BTreeMap<u32, String>,
    clock: u64,
}

impl Run {
    fn new(seed: u64, algorithms: &[Algorithm]) -> Self {
        let mut random = Random(seed);
        let policies = policies(&mut random, algorithms);
        let clock = 1_790_000_000 * SECOND + random.below(400 * DAY);
        let mut run = Self {
            random,
            state: KeyState::new("e".into()),
            model: Model::new(policies),
            rows: BTreeMap::new(),
            clock,
        };
        // A report counts in existing logs only, so make them exist.
        let _ = run.state.usage(&run.model.policies, UnixMicros::from_micros(run.clock));
        run
    }

    fn change_quotas(&mut self) {
        let random = &mut self.random;
        let changed = self.model.policies.iter().map(|old| {
            let keep = random.one_in(2);
            let new = policy(random, old.name(), old.algorithm(), old.period(), old.unit());
            if keep { old.clone() } else { new }
        });
        let changed = changed.collect();
        let now = self.model.judged(self.clock);
        self.model.replace(changed, now);
    }

    fn commit(&mut self) {
        let row = self.state.to_row();
        self.rows.insert(row.slot, row.body);
        self.state.committed();
        assert!(!self.state.is_dirty());
    }

    fn step(&mut self) -> bool {
        self.clock = step(&mut self.random, self.clock);
        let clock = UnixMicros::from_micros(self.clock);
        if self.random.one_in(60) {
            self.change_quotas();
        }
        let cost = match self.random.below(8) {
            0 => Cost { requests: self.random.below(4), tokens: self.random.below(30) },
            1 => Cost { requests: 1 + self.random.below(12), tokens: self.random.below(3) },
            _ => Cost { requests: 1, tokens: self.random.below(4) },
        };
        let mut denied = false;
        if self.random.one_in(100) {
            let _ = self.state.usage(&self.model.policies, clock).policies;
            let now = self.model.judged(self.clock);
            self.state.report_calls(&self.model.policies, clock, 3, cost);
            self.model.charge(now, 3, cost);
        } else {
            let verdict = self.model.decide(self.clock, cost);
            let decision = self.state.decide(&self.model.policies, clock, cost);
            assert_eq!(decision.verdict, verdict, "{cost:?} {:?}", self.model.policies);
            assert_eq!(decision.usage.policies, self.model.usage(self.clock), "{:?}", self.model.policies);
            denied = matches!(verdict, Verdict::Denied { .. });
        }
        assert_eq!(
            self.state.usage(&self.model.policies, clock).policies,
            self.model.usage(self.clock),
            "{:?}",
            self.model.policies
        );
        if self.random.one_in(2) {
            self.commit();
            if self.random.one_in(5) {
                self.state = KeyState::from_rows(self.rows.clone()).unwrap();
            }
        }
        denied
    }

    fn check_months(&self) {
        for (month, (calls, denied)) in &self.model.calls {
            let total = self.state.month(*month);
            assert_eq!((total.calls, total.denied), (*calls, *denied), "{month}");
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn run(algorithms: &[Algorithm]) {
    let steps = number("TOLLGATE_MODEL_STEPS", 200_000) / 4;
    let seed = number("TOLLGATE_MODEL_SEED", 1);
    let mut denials = 0;
    for key in 0..steps.div_ceil(STEPS_PER_KEY) {
        let mut run = Run::new(seed.wrapping_mul(1_000_003).wrapping_add(key), algorithms);
        for step in 0..STEPS_PER_KEY {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.step()));
            match outcome {
                Ok(denied) => denials += u64::from(denied),
                Err(panic) => {
                    eprintln!("key {key}, step {step}, seed {seed}, {algorithms:?}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
        run.check_months();
    }
    // A run that never reaches a limit would prove nothing.
    assert!(denials > steps / 20, "{denials} denials in {steps} steps");
}

#[test]
fn fixed_windows_are_those_of_the_model() {
    run(&[Algorithm::Fixed]);
}

#[test]
fn sliding_logs_are_those_of_the_model() {
    run(&[Algorithm::Sliding]);
}

#[test]
fn buckets_are_those_of_the_model() {
    run(&[Algorithm::Bucket]);
}

#[test]
fn mixes_are_those_of_the_model() {
    run(&[Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket]);
}
