//! [`KeyState`]: the state of one API key, which judges a call by all policies of the key at once.
//!
//! The object that owns a key runs one event at a time between its awaits, and nothing here awaits.
//! So reading, deciding and counting are one step. Everything is pure: the clock reading is an
//! argument, and rows are handed out for the caller to store (see [`KeyState::to_rows`]).

pub mod judging;
mod storing;

use std::borrow::Cow;

use crate::key_state::call_memory::CallMemory;
use crate::key_state::clock::JudgedClock;
use crate::key_state::counters::Counters;
use crate::key_state::idempotency::IdempotencyKeys;
use crate::key_state::layout::Contents;
use crate::key_state::nonces::Nonces;
use crate::key_state::ring::RowRing;
use crate::limiter::cost::Cost;
use crate::metering::alerts::{Alert, Alerts};
use crate::metering::call_outcome::CallOutcome;
use crate::metering::hours::{self, HourTotal};
use crate::metering::meter::Meter;
use crate::metering::months::{Carried, MonthTotal};
use crate::time::{Month, UnixMicros};

/// All that is remembered of one key.
#[derive(Debug, Clone)]
pub struct KeyState {
    contents: Contents,
    clock: JudgedClock,
    ring: RowRing,
    unwritten: Unwritten,
}

/// What has changed since the last row.
#[derive(Debug, Clone, Copy, Default)]
struct Unwritten {
    /// Something that must be in a row before it is answered.
    changes: bool,
    /// Denials. Losing them is harmless to every limit.
    denials: bool,
    /// Something else that can wait for the next row.
    notes: bool,
}

impl KeyState {
    /// A key that nothing was spent of. The epoch names this state's own counts, apart from those
    /// of any state of the key before it.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        let contents = Contents {
            epoch,
            counters: Counters::default(),
            meter: Meter::default(),
            calls: CallMemory::new(Nonces::new(), IdempotencyKeys::default()),
            audit: crate::key_state::audit_log::AuditLog::default(),
            alerts: Alerts::default(),
        };
        Self { contents, clock: JudgedClock::default(), ring: RowRing::default(), unwritten: Unwritten::default() }
    }

    /// The name of this state's own counts.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.contents.epoch
    }

    /// The time at which a call is judged if the clock reads `clock`: the policies that hold then
    /// are the ones to judge by. See [`clock`](crate::key_state::clock).
    pub fn effective_time(&mut self, clock: UnixMicros) -> UnixMicros {
        let now = self.clock.read(clock, self.contents.counters.last());
        if now < self.contents.counters.last() {
            self.contents.counters.rebase(now, self.ring.next_seq());
            self.contents.calls.rebase(now);
            self.unwritten.changes = true;
        }
        now
    }

    /// By how many microseconds the clock may be ahead: it leapt forward so far since this state
    /// was made or read, and has not fallen back. If the clock is right, the key was idle for as
    /// long; [`trust_clock`](Self::trust_clock) says that it is.
    #[must_use]
    pub fn lead(&self, clock: UnixMicros) -> u64 {
        self.clock.lead(clock)
    }

    /// The clock is right.
    pub const fn trust_clock(&mut self) {
        self.clock.trust();
    }

    /// Counts calls that were admitted, or let through without a decision. `charged` is what months
    /// and hours count of their cost.
    fn spend(&mut self, now: UnixMicros, calls: u64, cost: Cost, charged: Cost, class: &str) {
        self.contents.counters.spend(now, cost);
        self.contents.meter.admit(now, class, calls, charged);
        self.unwritten.changes = true;
    }

    fn deny(&mut self, now: UnixMicros, denied: u64, class: &str) {
        self.contents.meter.deny(now, class, denied);
        self.unwritten.denials = true;
    }

    /// Counts `calls` calls that were let through without a decision, and what they cost together.
    pub fn charge_calls(&mut self, clock: UnixMicros, calls: u64, cost: Cost) {
        let now = self.effective_time(clock);
        self.spend(now, calls, cost, cost, hours::UNJUDGED);
    }

    /// Counts `denied` denials that were given without a decision.
    pub fn deny_elsewhere(&mut self, clock: UnixMicros, denied: u64) {
        if denied > 0 {
            let now = self.effective_time(clock);
            self.deny(now, denied, hours::EDGE);
        }
    }

    /// Records how a call ended; in the audit log only if it `is_audited`. That can wait for the
    /// next row.
    pub fn complete(&mut self, clock: UnixMicros, outcome: CallOutcome, is_audited: bool) {
        let now = self.effective_time(clock);
        self.unwritten.notes |= self.contents.calls.keys_mut().complete(outcome.nonce) || is_audited;
        if is_audited {
            self.contents.audit.end(now, outcome);
        }
    }

    /// Alerts that are not delivered yet.
    #[must_use]
    pub fn pending_alerts(&self) -> &[Alert] {
        self.contents.alerts.pending()
    }

    /// Records that this very alert has been delivered.
    pub fn mark_alerted(&mut self, alert: &Alert) {
        self.unwritten.changes |= self.contents.alerts.forget(alert);
    }

    /// The part of the audit log that no stored chunk holds: texts like those of chunks, with the
    /// numbers that these have or will have. A stored chunk whose number is not lower than the
    /// first of these belongs to a row that was not written: it is to be ignored.
    #[must_use]
    pub fn audit_tail(&self) -> Vec<(u64, Cow<'_, str>)> {
        self.contents.audit.tail()
    }

    /// Forgets the tail of the audit log if it holds nothing after `until`. The caller deletes
    /// chunks.
    pub fn forget_audit(&mut self, until: UnixMicros) {
        self.unwritten.changes |= self.contents.audit.forget(until);
    }

    /// Usage by month and hour.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.contents.meter
    }

    /// Records what earlier epochs counted in `month`, in place of what was recorded before. It is
    /// spent from policies of months, but is not part of this epoch's own totals.
    pub fn carry_over(&mut self, month: Month, carried: Carried) {
        self.unwritten.changes |= self.contents.meter.carry_over(month, carried);
    }

    /// What this epoch counted in `month`.
    #[must_use]
    pub fn month(&self, month: Month) -> MonthTotal {
        self.contents.meter.month(month)
    }

    /// Records that D1 has these very totals of `month`; what was counted since stays unflushed.
    /// Then drops flushed months that are neither current, nor the one before, nor among the three
    /// newest.
    pub fn mark_flushed(&mut self, month: Month, calls: u64, denied: u64) {
        let current = Month::of(self.clock.seen());
        self.unwritten.changes |= self.contents.meter.mark_month_flushed(month, calls, denied, current);
    }

    /// Records that D1 has this very total. Then drops hours that are flushed and over.
    pub fn mark_hour_flushed(&mut self, total: &HourTotal) {
        self.unwritten.changes |= self.contents.meter.mark_hour_flushed(total);
    }

    /// Drops idempotency keys that have expired at `clock`, so that the next commit deletes their
    /// rows.
    pub fn expire(&mut self, clock: UnixMicros) {
        let now = self.effective_time(clock);
        self.unwritten.changes |= self.contents.calls.keys_mut().expire(now);
    }

    /// When the next rows of idempotency keys expire.
    #[must_use]
    pub fn next_expiry(&self) -> Option<UnixMicros> {
        self.contents.calls.keys().next_expiry()
    }
}
