//! The rules of all policies together: whether they admit a call, when they would, and their usage.
//! Nothing is spent here.

use crate::key_state::counters::Counters;
use crate::limiter::cost::Cost;
use crate::limiter::decision::{PolicyUsage, UsageSnapshot, Verdict};
use crate::limiter::policy::{Algorithm, Period, Policy};
use crate::limiter::schedule::Schedule;
use crate::metering::months::Months;
use crate::time::{Month, SECOND, UnixMicros};

/// What a call would spend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) cost: Cost,
    /// Policies of a month do not judge a free replay.
    pub(super) is_free: bool,
}

impl Demand {
    /// A free replay spends no tokens.
    pub(super) const fn new(cost: Cost, is_free: bool) -> Self {
        Self { cost: if is_free { Cost { tokens: 0, ..cost } } else { cost }, is_free }
    }

    fn judges(self, policies: &[Policy]) -> impl Iterator<Item = (usize, &Policy)> {
        policies.iter().enumerate().filter(move |(_, policy)| !(self.is_free && policy.period() == Period::Month))
    }

    /// Whether `policy` never admits it.
    fn is_too_dear(self, policy: &Policy) -> bool {
        self.cost.of(policy.unit()) > policy.burst()
    }
}

/// Judges by the counters of a key. Of the counters it moves only cursors.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    counters: &'a mut Counters,
    months: &'a Months,
}

impl<'a> Evaluator<'a> {
    pub(super) const fn new(counters: &'a mut Counters, months: &'a Months) -> Self {
        Self { counters, months }
    }

    /// The verdict of all policies together.
    pub(super) fn verdict(
        &mut self,
        schedule: Schedule<'_>,
        now: UnixMicros,
        clock: UnixMicros,
        demand: Demand,
    ) -> Verdict {
        let mut violated = Vec::new();
        let mut too_dear = None;
        for (index, policy) in demand.judges(schedule.now) {
            if demand.is_too_dear(policy) {
                too_dear = too_dear.or(Some(index));
                violated.push(index);
            } else if self.first_fit(policy, demand.cost, now) > now {
                violated.push(index);
            }
        }
        if violated.is_empty() {
            return Verdict::Admitted;
        }
        match (self.first_admission(schedule, now, demand), too_dear) {
            (Ok(at), _) => Verdict::Denied { violated, retry_after: at.since(clock) },
            (Err(_), Some(policy)) => Verdict::CostExceedsQuota { policy },
            // The policies that hold last never admit this call: from that moment on the verdict is
            // `CostExceedsQuota`.
            (Err(last), None) => Verdict::Denied { violated, retry_after: last.since(clock) },
        }
    }

    /// The first moment, not before `now`, at which the policies that hold then admit this, if
    /// nothing else is spent, and still do a second later, because clients wait for whole seconds.
    /// If there is none, the last moment at which policies change.
    fn first_admission(
        &mut self,
        schedule: Schedule<'_>,
        now: UnixMicros,
        demand: Demand,
    ) -> Result<UnixMicros, UnixMicros> {
        let mut found = self.first_agreement(schedule.now, now, demand);
        let Some(change) = schedule.until else { return found.ok_or(now) };
        if let Some(at) = found.filter(|at| at.saturating_add(SECOND) < change) {
            return Ok(at);
        }
        let mut last = now;
        let mut projected = self.counters.clone();
        for (begin, stage) in schedule.stages(now, UnixMicros::from_micros(u64::MAX)) {
            // What was found before must hold on.
            found = found.filter(|at| *at < begin);
            // The number of a row matters only to what is stored.
            projected.apply_stage(&stage.policies, begin, 0);
            let mut later = Evaluator::new(&mut projected, self.months);
            let next = later.first_agreement(&stage.policies, begin, demand);
            if found.is_none() || next != Some(begin) {
                found = next;
            }
            if let Some(at) = found.filter(|at| stage.until.is_none_or(|until| at.saturating_add(SECOND) < until)) {
                return Ok(at);
            }
            last = begin;
        }
        Err(last)
    }

    /// The first moment, not before `from`, at which all of `policies` admit this, if nothing else
    /// is spent, and do for a second.
    fn first_agreement(&mut self, policies: &[Policy], from: UnixMicros, demand: Demand) -> Option<UnixMicros> {
        if demand.judges(policies).any(|(_, policy)| demand.is_too_dear(policy)) {
            return None;
        }
        // A clock that stepped back may have spent from windows that are still to come, so a policy
        // that admits at one moment may refuse later. Waiting helps once all of them agree.
        let mut at = from;
        loop {
            let fit =
                demand.judges(policies).map(|(_, policy)| self.first_fit(policy, demand.cost, at)).max().unwrap_or(at);
            let closing =
                demand.judges(policies).filter_map(|(_, policy)| self.closes_soon(policy, demand.cost, at)).min();
            match closing {
                _ if fit > at => at = fit,
                Some(end) => at = end,
                None => return Some(at),
            }
        }
    }

    /// The end of the window that `at` is in, if it comes within a second and the next window has
    /// no room.
    fn closes_soon(&self, policy: &Policy, cost: Cost, at: UnixMicros) -> Option<UnixMicros> {
        let end = (policy.algorithm() == Algorithm::Fixed).then(|| policy.period().window(at).end)?;
        let units = cost.of(policy.unit());
        let is_full =
            |end: &UnixMicros| units > 0 && self.fixed_used(policy, *end).saturating_add(units) > policy.quota();
        Some(end).filter(|end| *end > at && *end <= at.saturating_add(SECOND)).filter(is_full)
    }

    /// The first moment, not before `from`, at which `policy` alone admits `cost`, if nothing else
    /// is spent.
    fn first_fit(&mut self, policy: &Policy, cost: Cost, from: UnixMicros) -> UnixMicros {
        let units = cost.of(policy.unit());
        if units == 0 {
            return from;
        }
        match policy.algorithm() {
            Algorithm::Fixed => self.fixed_fit(policy, units, from),
            Algorithm::Sliding => {
                self.counters.log_of(policy).map_or(from, |log| log.first_fit(from, units, policy.quota()))
            }
            Algorithm::Bucket => {
                self.counters.bucket_of(policy).map_or(from, |bucket| bucket.first_fit(from, units, policy.burst()))
            }
        }
    }

    fn fixed_fit(&self, policy: &Policy, units: u64, from: UnixMicros) -> UnixMicros {
        let mut at = from;
        loop {
            let end = policy.period().window(at).end;
            let fits = self.fixed_used(policy, at).saturating_add(units) <= policy.quota();
            if fits || end <= at {
                return at;
            }
            at = end;
        }
    }

    /// What was counted in the aligned window of `policy` that `at` is in.
    fn fixed_used(&self, policy: &Policy, at: UnixMicros) -> u64 {
        match self.counters.windows(policy.unit(), policy.period()) {
            Some(windows) => windows.count(policy.period().window(at).start),
            None => self.months.used(policy.unit(), Month::of(at)),
        }
    }

    /// The usage of every policy at `now`. Resets count from `clock`.
    pub(super) fn usage(&mut self, schedule: Schedule<'_>, now: UnixMicros, clock: UnixMicros) -> UsageSnapshot {
        let policies = schedule.now.iter().map(|policy| self.usage_of(schedule, policy, now, clock)).collect();
        UsageSnapshot { policies, now: clock }
    }

    fn usage_of(&mut self, schedule: Schedule<'_>, policy: &Policy, now: UnixMicros, clock: UnixMicros) -> PolicyUsage {
        let quota = policy.quota();
        let (used, remaining, reset) = match policy.algorithm() {
            Algorithm::Fixed => {
                let used = self.fixed_used(policy, now);
                (used, quota.saturating_sub(used), policy.period().window(now).end)
            }
            Algorithm::Sliding => self.counters.log_of(policy).map_or((0, quota, clock), |log| {
                let used = log.used(now);
                (used, quota.saturating_sub(used), log.first_release(now, quota))
            }),
            Algorithm::Bucket => self.counters.bucket_of(policy).map_or((0, policy.burst(), clock), |bucket| {
                let remaining = bucket.remaining(now, policy.burst());
                (bucket.used(now), remaining, bucket.first_fit(now, remaining.saturating_add(1), policy.burst()))
            }),
        };
        let unused = used == 0 && policy.algorithm() != Algorithm::Fixed;
        let reset_after = if unused { 0 } else { schedule.end_of(policy, reset).since(clock) };
        PolicyUsage { remaining, used, reset_after }
    }
}
