//! The counters of a key's policies, and how they carry over a change of policies.
//!
//! # Changes of policies
//! A change never resets usage. Fixed windows are always counted, so a policy that becomes fixed
//! finds its usage there. A new log or bucket starts from those windows, with their units placed
//! at the latest times at which they can have been spent. The counters of a removed policy go on
//! counting until their usage has expired, in case the policy is added again.
//!
//! A scheduled change takes effect at its time, whenever the next call arrives: a bucket drains at
//! the old rate before it and at the new rate after it. So a `Retry-After` that was computed
//! earlier stays correct, whichever calls arrive in between.

use crate::key_state::hold::Hold;
use crate::key_state::ring::CHUNK;
use crate::limiter::cost::Cost;
use crate::limiter::fixed_window::{FixedWindows, Windows};
use crate::limiter::gcra::Bucket;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::limiter::schedule::Schedule;
use crate::limiter::sliding_log::SlidingLog;
use crate::time::UnixMicros;

/// Fixed windows, sliding logs and buckets of one key. Months are counted by its
/// [`Meter`](crate::metering::meter::Meter).
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// The judged time of the last admission or change of a bucket. No counter is later, except
    /// windows that were counted before the clock stepped back.
    last: UnixMicros,
    /// The judged time at which policies were last applied, if after `last`.
    applied: UnixMicros,
    fixed: FixedWindows,
    logs: Vec<SlidingLog>,
    buckets: Vec<Bucket>,
    /// Logs and buckets that began to count since the holds of the key were told of it.
    begun: Vec<Begun>,
}

/// A log or bucket that was made of the windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begun {
    /// The log of this unit and period.
    Log(Unit, Period),
    /// The bucket of this unit and name holds what was spent in the window of `period` that starts
    /// at `start`; of everything if there is none.
    Bucket { unit: Unit, name: String, period: Period, start: Option<UnixMicros> },
}

impl Counters {
    pub(super) fn new(last: UnixMicros, fixed: FixedWindows, logs: Vec<SlidingLog>, buckets: Vec<Bucket>) -> Self {
        Self { last, applied: UnixMicros::default(), fixed, logs, buckets, begun: Vec::new() }
    }

    /// The lower bound of the judged time, unless the clock steps back.
    pub(super) const fn last(&self) -> UnixMicros {
        self.last
    }

    pub(super) const fn fixed(&self) -> &FixedWindows {
        &self.fixed
    }

    pub(super) fn logs(&self) -> &[SlidingLog] {
        &self.logs
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The fixed windows of a unit and period. `None` for months.
    pub(super) fn windows(&self, unit: Unit, period: Period) -> Option<&Windows> {
        self.fixed.windows(unit, period)
    }

    pub(super) fn log_of(&mut self, policy: &Policy) -> Option<&mut SlidingLog> {
        self.logs.iter_mut().find(|log| log.unit == policy.unit() && log.period == policy.period())
    }

    pub(super) fn bucket_of(&mut self, policy: &Policy) -> Option<&mut Bucket> {
        self.buckets.iter_mut().find(|bucket| bucket.unit == policy.unit() && bucket.name == policy.name())
    }

    /// Counts an admission in every counter, including those that no current policy uses.
    pub(super) fn spend(&mut self, now: UnixMicros, cost: Cost) {
        self.advance_to(now);
        self.fixed.add(now, cost);
        for log in &mut self.logs {
            log.push(now, cost.of(log.unit));
        }
        for bucket in &mut self.buckets {
            bucket.add(now, cost.of(bucket.unit));
        }
    }

    /// Counts what a hold sets aside, as [`spend`](Self::spend) has just done for what its call
    /// costs: buckets note that they have got it.
    pub(super) fn begin_hold(&mut self, id: u64, cost: Cost) {
        for bucket in self.buckets.iter_mut().filter(|bucket| cost.of(bucket.unit) > 0) {
            bucket.begin_hold(id);
        }
    }

    /// Ends a hold: gives `less` of it back to where it was counted, and counts `more`.
    pub(super) fn end_hold(&mut self, now: UnixMicros, hold: &Hold, (less, more): (Cost, Cost), next_row: u64) {
        self.advance_to(now);
        let is_there = |period| !hold.lost.has(period, Algorithm::Fixed);
        self.fixed.correct(hold.at, now, (less, more), is_there);
        for log in &mut self.logs {
            if less.of(log.unit) > 0 && !hold.lost.has(log.period, Algorithm::Sliding) {
                log.take(hold.at, less.of(log.unit), next_row);
            }
            log.push(now, more.of(log.unit));
        }
        for bucket in &mut self.buckets {
            bucket.end_hold(now, hold.id, less.of(bucket.unit));
            if more.of(bucket.unit) > 0 {
                bucket.add(now, more.of(bucket.unit));
            }
        }
    }

    /// Gives nothing back of a hold that is never corrected.
    pub(super) fn forget_hold(&mut self, id: u64) {
        for bucket in &mut self.buckets {
            bucket.forget_hold(id);
        }
    }

    /// Whether the aligned window that starts at `start` is kept.
    pub(super) fn keeps(&self, unit: Unit, period: Period, start: UnixMicros) -> bool {
        self.fixed.windows(unit, period).is_some_and(|windows| windows.is_kept(start))
    }

    /// Logs and buckets that began to count since this was last asked.
    pub(super) fn take_begun(&mut self) -> Vec<Begun> {
        std::mem::take(&mut self.begun)
    }

    /// Has a bucket that began to count take up a hold whose units it holds.
    pub(super) fn take_up(&mut self, unit: Unit, name: &str, id: u64) {
        if let Some(bucket) = self.buckets.iter_mut().find(|bucket| bucket.unit == unit && bucket.name == name) {
            bucket.begin_hold(id);
        }
    }

    /// Raises the lower bound of the judged time to `now`.
    fn advance_to(&mut self, now: UnixMicros) {
        self.last = now;
        self.logs.iter_mut().for_each(|log| log.forget(now));
    }

    /// Moves times later than `now` to `now`, after the clock stepped back. Logs are stored anew
    /// from row `next_row` on.
    pub(super) fn rebase(&mut self, now: UnixMicros, next_row: u64) {
        self.fixed.rebase(now, self.last);
        self.last = now;
        self.applied = self.applied.min(now);
        self.logs.iter_mut().for_each(|log| log.rebase(now, next_row));
        self.buckets.iter_mut().for_each(|bucket| bucket.rebase(now));
    }

    /// Whether the open chunk of a log fills its row.
    pub(super) fn has_full_chunk(&self) -> bool {
        self.logs.iter().any(|log| log.open().len() >= CHUNK)
    }

    /// Closes the open chunks of all logs: from now on they belong to the row in `slot`.
    pub(super) fn close_chunks(&mut self, slot: u32) {
        self.logs.iter_mut().for_each(|log| log.close(slot));
    }

    /// The slots of the rows that hold chunks.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.logs.iter().flat_map(SlidingLog::slots)
    }

    /// Applies the stages of the schedule since the last time, then the current policies. Returns
    /// whether a counter changed. New logs are stored from row `next_row` on.
    pub(super) fn apply_policies(&mut self, schedule: Schedule<'_>, now: UnixMicros, next_row: u64) -> bool {
        let from = self.applied.max(self.last);
        let mut is_changed = false;
        if self.last > UnixMicros::default() && schedule.since > from {
            for (begin, stage) in schedule.stages(from, now) {
                is_changed |= self.apply_stage(&stage.policies, begin, next_row);
            }
        }
        is_changed |= self.apply_stage(schedule.now, now, next_row);
        self.applied = now;
        is_changed
    }

    /// Makes the logs and buckets match `policies`. Returns whether one changed.
    pub(super) fn apply_stage(&mut self, policies: &[Policy], now: UnixMicros, next_row: u64) -> bool {
        // An expired counter must not be revived, even if no call arrived since it expired.
        let mut is_changed = self.drop_unused();
        for policy in policies {
            is_changed |= match policy.algorithm() {
                Algorithm::Fixed => false,
                Algorithm::Sliding => self.apply_to_log(policy, next_row),
                Algorithm::Bucket => self.apply_to_bucket(policy, now),
            };
        }
        is_changed |= self.retire(policies);
        self.drop_unused() || is_changed
    }

    fn apply_to_log(&mut self, policy: &Policy, next_row: u64) -> bool {
        if let Some(log) = self.log_of(policy) {
            return log.until.take().is_some();
        }
        let windows = self.fixed.windows(policy.unit(), policy.period());
        let (Some(span), Some(windows)) = (policy.period().micros(), windows) else { return false };
        let mut log = SlidingLog::new(policy.unit(), policy.period(), span, next_row);
        for (at, units) in latest_moments(windows, span, self.last) {
            log.push(at, units);
        }
        log.forget(self.last);
        self.begun.push(Begun::Log(log.unit, log.period));
        self.logs.push(log);
        true
    }

    fn apply_to_bucket(&mut self, policy: &Policy, now: UnixMicros) -> bool {
        let Some(span) = policy.period().micros() else { return false };
        let (period, quota) = (policy.period(), policy.quota());
        if let Some(bucket) = self.bucket_of(policy) {
            let retired = bucket.until.take().is_some();
            let changed = (bucket.period, bucket.quota) != (period, quota);
            if changed {
                bucket.change(now, period, span, quota);
                // The level is now that of `now`: a judged time before it would drain it twice.
                self.advance_to(now);
            }
            return retired || changed;
        }
        let mut bucket = Bucket::new(policy.name(), policy.unit(), period, span, quota);
        let mut from = None;
        if let Some(windows) = self.fixed.windows(policy.unit(), period) {
            let current = windows.iter().filter(|(start, _)| *start <= self.last).last().map(|(start, _)| start);
            for (at, units) in latest_moments(windows, span, self.last) {
                if current.is_none_or(|start| at >= start) {
                    bucket.add(at, units);
                }
            }
            from = current;
        }
        let (unit, name) = (bucket.unit, bucket.name.clone());
        self.begun.push(Begun::Bucket { unit, name, period, start: from });
        self.buckets.push(bucket);
        true
    }

    /// Marks counters that no policy uses, to be dropped once their usage has expired. Returns
    /// whether any was marked.
    fn retire(&mut self, policies: &[Policy]) -> bool {
        let mut is_changed = false;
        for log in &mut self.logs {
            let is_used = |policy: &Policy| {
                policy.algorithm() == Algorithm::Sliding && policy.unit() == log.unit && policy.period() == log.period
            };
            if log.until.is_none() && !policies.iter().any(is_used) {
                log.until = Some(log.empty_at());
                is_changed = true;
            }
        }
        for bucket in &mut self.buckets {
            let is_used = |policy: &Policy| {
                policy.algorithm() == Algorithm::Bucket && policy.unit() == bucket.unit && policy.name() == bucket.name
            };
            if bucket.until.is_none() && !policies.iter().any(is_used) {
                bucket.until = Some(bucket.empty_at());
                is_changed = true;
            }
        }
        is_changed
    }

    /// Drops marked counters that had expired at `last`. Returns whether any was dropped.
    fn drop_unused(&mut self) -> bool {
        let last = self.last;
        let before = self.logs.len() + self.buckets.len();
        self.logs.retain(|log| log.until.is_none_or(|until| until > last));
        self.buckets.retain(|bucket| bucket.until.is_none_or(|until| until > last));
        self.logs.len() + self.buckets.len() < before
    }
}

/// The counted windows as admissions, each at the latest time at which it can have happened.
/// Windows after `last` date from before the clock stepped back. [`Counters::rebase`] has already
/// added their relevant counts to the window of `last`.
fn latest_moments(windows: &Windows, span: u64, last: UnixMicros) -> impl Iterator<Item = (UnixMicros, u64)> + '_ {
    let known = windows.iter().filter(move |(start, _)| *start <= last);
    known.map(move |(start, units)| (start.saturating_add(span - 1).min(last), units))
}
