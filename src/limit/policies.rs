//! What a change of policies does to the state: usage carries over, it never starts again.
//!
//! Fixed windows are always counted, so a policy that becomes fixed finds its usage there. A sliding or bucket policy
//! that has no state of its own starts from those windows, at the latest moments at which they can have been spent. The
//! state of a policy that is gone goes on counting until what it held has run out, in case the policy comes back.

use crate::limit::State;
use crate::limit::bucket::Bucket;
use crate::limit::log::Log;
use crate::limit::windows::Windows;
use crate::policy::{Algorithm, Policy};
use crate::time::UnixMicros;

impl State {
    /// Makes the stored logs and buckets those of `policies`.
    pub(super) fn adopt(&mut self, policies: &[Policy], now: UnixMicros) {
        for policy in policies {
            match policy.algorithm() {
                Algorithm::Fixed => {}
                Algorithm::Sliding => self.adopt_log(policy),
                Algorithm::Bucket => self.adopt_bucket(policy, now),
            }
        }
        self.retire(policies);
    }

    fn adopt_log(&mut self, policy: &Policy) {
        if let Some(log) = self.log_of(policy) {
            let retired = log.until.take().is_some();
            self.dirty |= retired;
            return;
        }
        let windows = self.fixed.windows(policy.unit(), policy.period());
        if let (Some(span), Some(windows)) = (policy.period().micros(), windows) {
            let mut log = Log::new(policy.unit(), policy.period(), span, self.ring.next_seq());
            for (at, units) in latest_moments(windows, span, self.last) {
                log.push(at, units);
            }
            log.forget(self.last);
            self.logs.push(log);
            self.dirty = true;
        }
    }

    fn adopt_bucket(&mut self, policy: &Policy, now: UnixMicros) {
        let Some(span) = policy.period().micros() else { return };
        let (period, quota) = (policy.period(), policy.quota());
        if let Some(bucket) = self.bucket_of(policy) {
            let retired = bucket.until.take().is_some();
            let changed = (bucket.period, bucket.quota) != (period, quota);
            if changed {
                bucket.change(now, period, span, quota);
                // The level is now one of `now`, which the judged time must not go back behind.
                self.pass(now);
            }
            self.dirty |= retired || changed;
            return;
        }
        let mut bucket = Bucket::new(policy.name(), policy.unit(), period, span, quota);
        if let Some(windows) = self.fixed.windows(policy.unit(), period) {
            let current = windows.iter().filter(|(start, _)| *start <= self.last).last().map(|(start, _)| start);
            for (at, units) in latest_moments(windows, span, self.last) {
                if current.is_none_or(|start| at >= start) {
                    bucket.pour(at, units);
                }
            }
        }
        self.buckets.push(bucket);
        self.dirty = true;
    }

    /// Lets go of what no policy uses: marks it first, and drops it when what it held then has run out.
    fn retire(&mut self, policies: &[Policy]) {
        let last = self.last;
        let mut dirty = false;
        self.logs.retain_mut(|log| {
            let used = policies.iter().any(|policy| {
                policy.algorithm() == Algorithm::Sliding && policy.unit() == log.unit && policy.period() == log.period
            });
            let empty_at = log.empty_at();
            keep(used, &mut log.until, empty_at, last, &mut dirty)
        });
        self.buckets.retain_mut(|bucket| {
            let used = policies.iter().any(|policy| {
                policy.algorithm() == Algorithm::Bucket && policy.unit() == bucket.unit && policy.name() == bucket.name
            });
            let empty_at = bucket.empty_at();
            keep(used, &mut bucket.until, empty_at, last, &mut dirty)
        });
        self.dirty |= dirty;
    }
}

fn keep(used: bool, until: &mut Option<UnixMicros>, empty_at: UnixMicros, last: UnixMicros, dirty: &mut bool) -> bool {
    if used {
        return true;
    }
    *dirty |= until.is_none();
    let until = *until.get_or_insert(empty_at);
    *dirty |= until <= last;
    until > last
}

/// The counted windows as admissions, each at the last moment it can have been made.
fn latest_moments(windows: &Windows, span: u64, last: UnixMicros) -> impl Iterator<Item = (UnixMicros, u64)> + '_ {
    windows.iter().map(move |(start, units)| (start.saturating_add(span - 1).min(last), units))
}
