//! Asking policies: whether each admits a request, when it would, and where it stands. Nothing is spent here.

use crate::decision::{Standing, Verdict};
use crate::limit::bucket::Bucket;
use crate::limit::log::Log;
use crate::limit::{Cost, State};
use crate::policy::{Algorithm, Period, Policy};
use crate::time::{Month, UnixMicros};

impl State {
    /// What all policies together say to a request. Policies of a month are not asked about a replay.
    pub(super) fn judge(
        &mut self,
        policies: &[Policy],
        now: UnixMicros,
        clock: UnixMicros,
        cost: Cost,
        is_replay: bool,
    ) -> Verdict {
        let is_judge = |policy: &Policy| !(is_replay && policy.period() == Period::Month);
        let too_dear = policies.iter().position(|policy| cost.of(policy.unit()) > policy.burst() && is_judge(policy));
        if let Some(policy) = too_dear {
            return Verdict::CostExceedsQuota { policy };
        }
        let mut at = now;
        let mut violated = Vec::new();
        for (index, policy) in policies.iter().enumerate().filter(|(_, policy)| is_judge(policy)) {
            let fit = self.first_fit(policy, cost, now);
            if fit > now {
                violated.push(index);
                at = at.max(fit);
            }
        }
        if violated.is_empty() {
            return Verdict::Admitted;
        }
        // A clock that stepped back may have spent from windows that are still to come, so a policy that admits now may
        // refuse then. Waiting helps once all of them agree.
        loop {
            let judges = policies.iter().filter(|policy| is_judge(policy));
            let fit = judges.map(|policy| self.first_fit(policy, cost, at)).max().unwrap_or(at);
            if fit <= at {
                break;
            }
            at = fit;
        }
        Verdict::Denied { violated, retry_after: at.since(clock) }
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

    pub(super) fn measure(&mut self, policies: &[Policy], now: UnixMicros, clock: UnixMicros) -> Vec<Standing> {
        policies.iter().map(|policy| self.standing(policy, now, clock)).collect()
    }

    fn standing(&mut self, policy: &Policy, now: UnixMicros, clock: UnixMicros) -> Standing {
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
        Standing { remaining, used, reset_after: if unused { 0 } else { reset.since(clock) } }
    }

    pub(super) fn log_of(&mut self, policy: &Policy) -> Option<&mut Log> {
        self.logs.iter_mut().find(|log| log.unit == policy.unit() && log.period == policy.period())
    }

    pub(super) fn bucket_of(&mut self, policy: &Policy) -> Option<&mut Bucket> {
        self.buckets.iter_mut().find(|bucket| bucket.unit == policy.unit() && bucket.name == policy.name())
    }
}
