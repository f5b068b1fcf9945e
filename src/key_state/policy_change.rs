//! What a change of policies does to the state: usage carries over, it never starts again.
//!
//! Fixed windows are always counted, so a policy that becomes fixed finds its usage there. A sliding or bucket policy
//! that has no state of its own starts from those windows, at the latest moments at which they can have been spent. The
//! state of a policy that is gone goes on counting until what it held has run out, in case the policy comes back.
//!
//! A change at a moment that was known before takes effect at that moment, whenever the state is asked next: a bucket has drained
//! at the old rate until then and at the new rate since. So what was said of the time after it holds, whoever asks meanwhile.

use crate::key_state::state::KeyState;
use crate::limiter::fixed_window::Windows;
use crate::limiter::gcra::Bucket;
use crate::limiter::policy::{Algorithm, Policy};
use crate::limiter::schedule::Schedule;
use crate::limiter::sliding_log::Log;
use crate::time::UnixMicros;

impl KeyState {
    /// Makes the stored logs and buckets those of the policies that hold now, after those that held since the last time.
    pub(super) fn adopt(&mut self, schedule: Schedule<'_>, now: UnixMicros) {
        let from = self.adopted.max(self.last);
        if self.last > UnixMicros::default() && schedule.since > from {
            for (begin, stage) in schedule.stages(from, now) {
                self.adopt_stage(&stage.policies, begin);
            }
        }
        self.adopt_stage(schedule.now, now);
        self.adopted = now;
    }

    /// Makes the stored logs and buckets those of `policies`.
    pub(super) fn adopt_stage(&mut self, policies: &[Policy], now: UnixMicros) {
        // What has run out does not come back, also if nobody has looked since.
        self.drop_unused();
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

    /// Marks what no policy uses: it is dropped when what it holds now has run out.
    fn retire(&mut self, policies: &[Policy]) {
        for log in &mut self.logs {
            let is_used = |policy: &Policy| {
                policy.algorithm() == Algorithm::Sliding && policy.unit() == log.unit && policy.period() == log.period
            };
            if log.until.is_none() && !policies.iter().any(is_used) {
                log.until = Some(log.empty_at());
                self.dirty = true;
            }
        }
        for bucket in &mut self.buckets {
            let is_used = |policy: &Policy| {
                policy.algorithm() == Algorithm::Bucket && policy.unit() == bucket.unit && policy.name() == bucket.name
            };
            if bucket.until.is_none() && !policies.iter().any(is_used) {
                bucket.until = Some(bucket.empty_at());
                self.dirty = true;
            }
        }
        self.drop_unused();
    }

    /// Drops what has run out by the last admission.
    fn drop_unused(&mut self) {
        let last = self.last;
        let before = self.logs.len() + self.buckets.len();
        self.logs.retain(|log| log.until.is_none_or(|until| until > last));
        self.buckets.retain(|bucket| bucket.until.is_none_or(|until| until > last));
        self.dirty |= self.logs.len() + self.buckets.len() < before;
    }
}

/// The counted windows as admissions, each at the last moment it can have been made. Those after `last` are of a clock that was
/// ahead; what matters of them is in the window of `last`.
fn latest_moments(windows: &Windows, span: u64, last: UnixMicros) -> impl Iterator<Item = (UnixMicros, u64)> + '_ {
    let known = windows.iter().filter(move |(start, _)| *start <= last);
    known.map(move |(start, units)| (start.saturating_add(span - 1).min(last), units))
}
