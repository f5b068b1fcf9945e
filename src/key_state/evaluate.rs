//! Evaluates all policies together: whether they admit a call, when they will, and their usage.
//! Evaluation spends nothing.

use crate::key_state::counters::Counters;
use crate::key_state::holds::Holds;
use crate::limiter::cost::Cost;
use crate::limiter::decision::{PolicyUsage, UsageSnapshot, Verdict};
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::limiter::schedule::Schedule;
use crate::metering::months::Months;
use crate::time::{Month, SECOND, UnixMicros};

/// What a call would spend, and which policies apply to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) cost: Cost,
    /// Whether the call is a free replay. Month policies do not apply to one.
    pub(super) is_free: bool,
}

impl Demand {
    /// A free replay spends no tokens.
    pub(super) const fn new(cost: Cost, is_free: bool) -> Self {
        Self { cost: if is_free { Cost { tokens: 0, ..cost } } else { cost }, is_free }
    }

    /// The policies that apply to the call, with their indices.
    fn applicable(self, policies: &[Policy]) -> impl Iterator<Item = (usize, &Policy)> {
        policies.iter().enumerate().filter(move |(_, policy)| !(self.is_free && policy.period() == Period::Month))
    }

    /// Whether `policy` can never admit the call.
    fn exceeds(self, policy: &Policy) -> bool {
        self.cost.of(policy.unit()) > policy.burst()
    }
}

/// Evaluates policies by the counters of a key. It changes no counter, only their cursors.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    counters: &'a mut Counters,
    months: &'a Months,
    holds: &'a Holds,
}

impl<'a> Evaluator<'a> {
    pub(super) const fn new(counters: &'a mut Counters, months: &'a Months, holds: &'a Holds) -> Self {
        Self { counters, months, holds }
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
        let mut never_fits = None;
        for (index, policy) in demand.applicable(schedule.now) {
            if demand.exceeds(policy) {
                never_fits = never_fits.or(Some(index));
                violated.push(index);
            } else if self.first_fit(policy, demand.cost, now) > now {
                violated.push(index);
            }
        }
        if violated.is_empty() {
            return Verdict::Admitted;
        }
        match (self.first_admission(schedule, now, demand), never_fits) {
            (Ok(at), _) => Verdict::Denied { violated, retry_after: at.since(clock) },
            (Err(_), Some(policy)) => Verdict::CostExceedsQuota { policy },
            // The last policies of the schedule never admit this call: once they hold, the verdict
            // is `CostExceedsQuota`.
            (Err(last), None) => Verdict::Denied { violated, retry_after: last.since(clock) },
        }
    }

    /// The first time, not before `now`, at which the policies that hold then admit the call,
    /// assuming that nothing else is spent. They must still admit it a second later, because
    /// clients wait for whole seconds.
    ///
    /// Returns the time of the last change of policies as an error if there is no such time.
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
            // A time found in an earlier stage is void unless it precedes this stage.
            found = found.filter(|at| *at < begin);
            // Projected counters are never stored, so the row number is irrelevant.
            projected.apply_stage(&stage.policies, begin, 0);
            let mut later = Evaluator::new(&mut projected, self.months, self.holds);
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

    /// The first time, not before `from`, at which all of `policies` admit the call and still do a
    /// second later, assuming that nothing else is spent. `None` if one can never admit it.
    fn first_agreement(&mut self, policies: &[Policy], from: UnixMicros, demand: Demand) -> Option<UnixMicros> {
        if demand.applicable(policies).any(|(_, policy)| demand.exceeds(policy)) {
            return None;
        }
        // After the clock stepped back, future windows may already have counts. So a policy that
        // admits the call at one time may refuse it later, and the search repeats until all agree.
        let mut at = from;
        loop {
            let fit = demand
                .applicable(policies)
                .map(|(_, policy)| self.first_fit(policy, demand.cost, at))
                .max()
                .unwrap_or(at);
            let closing =
                demand.applicable(policies).filter_map(|(_, policy)| self.closes_soon(policy, demand.cost, at)).min();
            match closing {
                _ if fit > at => at = fit,
                Some(end) => at = end,
                None => return Some(at),
            }
        }
    }

    /// The end of the window that contains `at`, if it is less than a second away and the next
    /// window has no room.
    fn closes_soon(&self, policy: &Policy, cost: Cost, at: UnixMicros) -> Option<UnixMicros> {
        let end = (policy.algorithm() == Algorithm::Fixed).then(|| policy.period().window(at).end)?;
        let units = cost.of(policy.unit());
        let is_full =
            |end: &UnixMicros| units > 0 && self.fixed_used(policy, *end).saturating_add(units) > policy.quota();
        Some(end).filter(|end| *end > at && *end <= at.saturating_add(SECOND)).filter(is_full)
    }

    /// The first time, not before `from`, at which `policy` alone admits `cost`, assuming that
    /// nothing else is spent.
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

    /// The count of the window of `policy` that contains `at`.
    fn fixed_used(&self, policy: &Policy, at: UnixMicros) -> u64 {
        if let Some(windows) = self.counters.windows(policy.unit(), policy.period()) {
            return windows.count(policy.period().window(at).start);
        }
        let (unit, month) = (policy.unit(), Month::of(at));
        self.months.used(unit, month).saturating_add(self.held_in_month(unit, month))
    }

    fn held_in_month(&self, unit: Unit, month: Month) -> u64 {
        if self.holds.open_count() == 0 { 0 } else { self.holds.held_in(unit, self.months.place(month)) }
    }

    /// What open holds set aside of what counts against `policy` at `now`.
    fn held(&mut self, policy: &Policy, now: UnixMicros) -> u64 {
        if self.holds.open_count() == 0 {
            return 0;
        }
        match (policy.algorithm(), policy.period()) {
            (Algorithm::Fixed, Period::Month) => self.held_in_month(policy.unit(), Month::of(now)),
            (Algorithm::Fixed | Algorithm::Sliding, _) => self.holds.held_of(policy, now),
            (Algorithm::Bucket, _) => {
                let held = self.holds.newest_first(policy.unit());
                self.counters.bucket_of(policy).map_or(0, |bucket| bucket.held(now, held))
            }
        }
    }

    /// The usage of every policy at `now`. Resets are relative to `clock`.
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
        let held = self.held(policy, now).min(used);
        PolicyUsage { remaining, used: used - held, held, reset_after }
    }
}
