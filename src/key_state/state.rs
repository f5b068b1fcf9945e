//! [`KeyState`]: the state of one API key, which judges a call by all policies of the key at once.
//!
//! An object runs one event at a time between its awaits, and no method here awaits. So reading,
//! deciding and counting are one atomic step. All methods are pure: the clock reading is an argument,
//! and the caller stores the rows that [`KeyState::to_rows`] returns.

pub mod holding;
pub mod judging;
mod storing;

use std::borrow::Cow;

use crate::key_state::audit_log::entry::EndedCall;
use crate::key_state::audit_log::tail::AuditLog;
use crate::key_state::call_memory::CallMemory;
use crate::key_state::clock::JudgedClock;
use crate::key_state::counters::Counters;
use crate::key_state::holds::Holds;
use crate::key_state::idempotency::IdempotencyKeys;
use crate::key_state::layout::Contents;
use crate::key_state::nonces::Nonces;
use crate::key_state::ring::RowRing;
use crate::limiter::cost::Cost;
use crate::metering::alerts::{Alert, Alerts};
use crate::metering::call_outcome::{CallCharge, CallOutcome};
use crate::metering::hours::HourTotal;
use crate::metering::meter::Meter;
use crate::metering::months::{Carried, MonthTotal};
use crate::time::{Month, UnixMicros};

/// The state of one API key.
#[derive(Debug, Clone)]
pub struct KeyState {
    contents: Contents,
    clock: JudgedClock,
    ring: RowRing,
    unwritten: Unwritten,
}

/// Changes since the last committed row.
#[derive(Debug, Clone, Copy, Default)]
struct Unwritten {
    /// Changes that must be committed before the request is answered.
    changes: bool,
    /// Denials. No limit depends on them, so they may be lost.
    denials: bool,
    /// Other changes that can wait for the next row.
    notes: bool,
}

impl KeyState {
    /// The state of an unused key. The epoch identifies the counts of this state, apart from those
    /// of earlier states of the same key.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        let contents = Contents {
            epoch,
            counters: Counters::default(),
            meter: Meter::default(),
            calls: CallMemory::new(Nonces::new(), IdempotencyKeys::default()),
            audit: AuditLog::default(),
            alerts: Alerts::default(),
            holds: Holds::default(),
        };
        Self { contents, clock: JudgedClock::default(), ring: RowRing::default(), unwritten: Unwritten::default() }
    }

    /// Identifies the counts of this state.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.contents.epoch
    }

    /// Returns the time at which a call is judged when the clock reads `clock`. The policies that
    /// hold at that time apply. See [`clock`](crate::key_state::clock).
    pub fn effective_time(&mut self, clock: UnixMicros) -> UnixMicros {
        let now = self.clock.read(clock, self.contents.counters.last());
        if now < self.contents.counters.last() {
            self.rebase_holds(now);
            self.contents.counters.rebase(now, self.ring.next_seq());
            self.contents.calls.rebase(now);
            self.unwritten.changes = true;
        }
        if self.contents.holds.is_due(now) {
            self.expire_holds(now);
        }
        now
    }

    /// How far the clock may be ahead, in microseconds: the sum of its leaps since this state was
    /// created or read. 0 once the clock has stepped back.
    ///
    /// A leap is also what an idle key looks like. [`trust_clock`](Self::trust_clock) declares the
    /// leaps so far to be idle time.
    #[must_use]
    pub fn lead(&self, clock: UnixMicros) -> u64 {
        self.clock.lead(clock)
    }

    /// Accepts the clock as correct: [`lead`](Self::lead) starts again at 0.
    pub const fn trust_clock(&mut self) {
        self.clock.trust();
    }

    /// Counts calls that were admitted or let through without a decision. Months and hours count
    /// `charged` instead of `cost`.
    fn spend(&mut self, now: UnixMicros, calls: u64, cost: Cost, charged: Cost, class: &str) {
        self.contents.counters.spend(now, cost);
        self.contents.meter.admit(now, class, calls, charged);
        self.unwritten.changes = true;
    }

    fn deny(&mut self, now: UnixMicros, denied: u64, class: &str) {
        self.contents.meter.deny(now, class, denied);
        self.unwritten.denials = true;
    }

    /// Records how a call ended; in the audit log only if `is_audited`. This can wait for the next
    /// row. `charge` is what [`end_call`](Self::end_call) gave.
    pub fn complete(&mut self, clock: UnixMicros, outcome: CallOutcome, charge: Option<CallCharge>, is_audited: bool) {
        let now = self.effective_time(clock);
        self.unwritten.notes |= self.contents.calls.keys_mut().complete(outcome.nonce) || is_audited;
        if is_audited {
            let CallOutcome { nonce, status, duration_ms, .. } = outcome;
            let CallCharge { tokens, returned } = charge.unwrap_or_default();
            let ended = EndedCall { nonce, end: Some((status, duration_ms)), charge: tokens, returned };
            self.contents.audit.end(now, &ended);
        }
    }

    /// Alerts that are not delivered yet.
    #[must_use]
    pub fn pending_alerts(&self) -> &[Alert] {
        self.contents.alerts.pending()
    }

    /// Records that this alert has been delivered.
    pub fn mark_alerted(&mut self, alert: &Alert) {
        self.unwritten.changes |= self.contents.alerts.forget(alert);
    }

    /// The end of the audit log that no stored chunk holds, as the texts and numbers of chunks.
    /// Ignore a stored chunk whose number is not below the first of these: its commit failed.
    #[must_use]
    pub fn audit_tail(&self) -> Vec<(u64, Cow<'_, str>)> {
        self.contents.audit.tail()
    }

    /// Drops the tail of the audit log if it ends at or before `until`. The caller deletes stored
    /// chunks.
    pub fn forget_audit(&mut self, until: UnixMicros) {
        self.unwritten.changes |= self.contents.audit.forget(until);
    }

    /// Usage by month and hour.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.contents.meter
    }

    /// Sets the usage of earlier epochs in `month`. Month policies count it; this epoch's totals do
    /// not include it.
    pub fn carry_over(&mut self, month: Month, carried: Carried) {
        self.unwritten.changes |= self.contents.meter.carry_over(month, carried);
    }

    /// The totals of this epoch in `month`.
    #[must_use]
    pub fn month(&self, month: Month) -> MonthTotal {
        self.contents.meter.month(month)
    }

    /// Records that D1 has these totals of a month. Anything counted since stays unflushed. Then
    /// drops flushed months, except the current one, the one before, the three newest, and those of
    /// holds.
    pub fn mark_flushed(&mut self, total: &MonthTotal) {
        let current = Month::of(self.clock.seen());
        self.unwritten.changes |= self.contents.meter.mark_month_flushed(total, current);
    }

    /// Records that D1 has this total. Then drops flushed hours that have ended.
    pub fn mark_hour_flushed(&mut self, total: &HourTotal) {
        self.unwritten.changes |= self.contents.meter.mark_hour_flushed(total);
    }

    /// Drops chunks of idempotency keys that have expired at `clock`. The next commit deletes their
    /// rows. Charges holds that have expired.
    pub fn expire(&mut self, clock: UnixMicros) {
        let before = self.contents.holds.open_count();
        let now = self.effective_time(clock);
        self.unwritten.changes |= self.contents.holds.open_count() < before;
        self.unwritten.changes |= self.contents.calls.keys_mut().expire(now);
    }

    /// When the next open hold expires; `None` if no hold is open.
    #[must_use]
    pub fn next_hold_expiry(&self) -> Option<UnixMicros> {
        self.contents.holds.next_expiry()
    }

    /// When the next chunk of idempotency keys or the next hold expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<UnixMicros> {
        [self.contents.calls.keys().next_expiry(), self.contents.holds.next_expiry()].into_iter().flatten().min()
    }
}
