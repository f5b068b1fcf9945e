//! Asking policies: whether each admits a request, when it would, and where it stands. Nothing is spent here.

use crate::key_state::KeyState;
use crate::limiter::cost::Cost;
use crate::limiter::decision::{PolicyUsage, Verdict};
use crate::limiter::gcra::Bucket;
use crate::limiter::policy::{Algorithm, Period, Policy};
use crate::limiter::schedule::Schedule;
use crate::limiter::sliding_log::Log;
use crate::time::{Month, SECOND, UnixMicros};

/// What is asked of policies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) cost: Cost,
    /// Policies of a month are not asked about a free replay.
    pub(super) is_free: bool,
}

impl Ask {
    fn judges(self, policies: &[Policy]) -> impl Iterator<Item = (usize, &Policy)> {
        policies.iter().enumerate().filter(move |(_, policy)| !(self.is_free && policy.period() == Period::Month))
    }

    /// Whether `policy` never admits it.
    fn is_too_dear(self, policy: &Policy) -> bool {
        self.cost.of(policy.unit()) > policy.burst()
    }
}

impl KeyState {
    /// What all policies together say to a request.
    pub(super) fn judge(&mut self, schedule: Schedule<'_>, now: UnixMicros, clock: UnixMicros, ask: Ask) -> Verdict {
        let mut violated = Vec::new();
        let mut too_dear = None;
        for (index, policy) in ask.judges(schedule.now) {
            if ask.is_too_dear(policy) {
                too_dear = too_dear.or(Some(index));
                violated.push(index);
            } else if self.first_fit(policy, ask.cost, now) > now {
                violated.push(index);
            }
        }
        if violated.is_empty() {
            return Verdict::Admitted;
        }
        match (self.first_admission(schedule, now, ask), too_dear) {
            (Ok(at), _) => Verdict::Denied { violated, retry_after: at.since(clock) },
            (Err(_), Some(policy)) => Verdict::CostExceedsQuota { policy },
            // The policies that hold last never admit this call: from that moment on the verdict is `CostExceedsQuota`.
            (Err(last), None) => Verdict::Denied { violated, retry_after: last.since(clock) },
        }
    }

    /// The first moment, not before `now`, at which the policies that hold then admit this, if nothing else is spent, and still do
    /// a second later, because clients wait for whole seconds. If there is none, the last moment at which policies change.
    fn first_admission(&mut self, schedule: Schedule<'_>, now: UnixMicros, ask: Ask) -> Result<UnixMicros, UnixMicros> {
        let mut found = self.first_agreement(schedule.now, now, ask);
        let Some(change) = schedule.until else { return found.ok_or(now) };
        if let Some(at) = found.filter(|at| at.saturating_add(SECOND) < change) {
            return Ok(at);
        }
        let mut last = now;
        let mut later = self.projection();
        for (begin, stage) in schedule.stages(now, UnixMicros::from_micros(u64::MAX)) {
            // What was found before must hold on.
            found = found.filter(|at| *at < begin);
            later.adopt_stage(&stage.policies, begin);
            let next = later.first_agreement(&stage.policies, begin, ask);
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

    /// The first moment, not before `from`, at which all of `policies` admit this, if nothing else is spent, and do for a second.
    fn first_agreement(&mut self, policies: &[Policy], from: UnixMicros, ask: Ask) -> Option<UnixMicros> {
        if ask.judges(policies).any(|(_, policy)| ask.is_too_dear(policy)) {
            return None;
        }
        // A clock that stepped back may have spent from windows that are still to come, so a policy that admits at one moment may
        // refuse later. Waiting helps once all of them agree.
        let mut at = from;
        loop {
            let fit = ask.judges(policies).map(|(_, policy)| self.first_fit(policy, ask.cost, at)).max().unwrap_or(at);
            let closing = ask.judges(policies).filter_map(|(_, policy)| self.closes_soon(policy, ask.cost, at)).min();
            match closing {
                _ if fit > at => at = fit,
                Some(end) => at = end,
                None => return Some(at),
            }
        }
    }

    /// The end of the window that `at` is in, if it comes within a second and the next window has no room.
    fn closes_soon(&self, policy: &Policy, cost: Cost, at: UnixMicros) -> Option<UnixMicros> {
        let end = (policy.algorithm() == Algorithm::Fixed).then(|| policy.period().window(at).end)?;
        let units = cost.of(policy.unit());
        let is_full =
            |end: &UnixMicros| units > 0 && self.fixed_used(policy, *end).saturating_add(units) > policy.quota();
        Some(end).filter(|end| *end > at && *end <= at.saturating_add(SECOND)).filter(is_full)
    }

    /// What decisions are made of, for asking what they would be.
    fn projection(&self) -> Self {
        Self {
            last: self.last,
            fixed: self.fixed.clone(),
            months: self.months.clone(),
            logs: self.logs.clone(),
            buckets: self.buckets.clone(),
            ..Self::new(String::new())
        }
    }

    /// The first moment, not before `from`, at which `policy` alone admits `cost`, if nothing else is spent.
    fn first_fit(&mut self, policy: &Policy, cost: Cost, from: UnixMicros) -> UnixMicros {
        let units = cost.of(policy.unit());
        if units == 0 {
            return from;
        }
        match policy.algorithm() {
            Algorithm::Fixed => self.fixed_fit(policy, units, from),
            Algorithm::Sliding => self.log_of(policy).map_or(from, |log| log.first_fit(from, units, policy.quota())),
            Algorithm::Bucket => {
                self.bucket_of(policy).map_or(from, |bucket| bucket.first_fit(from, units, policy.burst()))
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
        match self.fixed.windows(policy.unit(), policy.period()) {
            Some(windows) => windows.count(policy.period().window(at).start),
            None => self.months.used(policy.unit(), Month::of(at)),
        }
    }

    pub(super) fn measure(&mut self, schedule: Schedule<'_>, now: UnixMicros, clock: UnixMicros) -> Vec<PolicyUsage> {
        schedule.now.iter().map(|policy| self.standing(schedule, policy, now, clock)).collect()
    }

    fn standing(&mut self, schedule: Schedule<'_>, policy: &Policy, now: UnixMicros, clock: UnixMicros) -> PolicyUsage {
        let quota = policy.quota();
        let (used, remaining, reset) = match policy.algorithm() {
            Algorithm::Fixed => {
                let used = self.fixed_used(policy, now);
                (used, quota.saturating_sub(used), policy.period().window(now).end)
            }
            Algorithm::Sliding => self.log_of(policy).map_or((0, quota, clock), |log| {
                let used = log.used(now);
                (used, quota.saturating_sub(used), log.first_release(now, quota))
            }),
            Algorithm::Bucket => self.bucket_of(policy).map_or((0, policy.burst(), clock), |bucket| {
                let remaining = bucket.remaining(now, policy.burst());
                (bucket.used(now), remaining, bucket.first_fit(now, remaining.saturating_add(1), policy.burst()))
            }),
        };
        let unused = used == 0 && policy.algorithm() != Algorithm::Fixed;
        let reset_after = if unused { 0 } else { schedule.end_of(policy, reset).since(clock) };
        PolicyUsage { remaining, used, reset_after }
    }

    pub(super) fn log_of(&mut self, policy: &Policy) -> Option<&mut Log> {
        self.logs.iter_mut().find(|log| log.unit == policy.unit() && log.period == policy.period())
    }

    pub(super) fn bucket_of(&mut self, policy: &Policy) -> Option<&mut Bucket> {
        self.buckets.iter_mut().find(|bucket| bucket.unit == policy.unit() && bucket.name == policy.name())
    }
}
