//! When the alarm of a key's object is set, and what it does when it comes.
//!
//! A state machine without clock, storage or D1: each method takes an event and the time, and
//! returns what is to be done. All times are in milliseconds since 1970.
//!
//! - Counts that D1 does not have are flushed within a pause: `FLUSH_SECONDS`, doubled with each
//!   flush that failed in a row, up to [`LONGEST_PAUSE`]. The alarm comes in the second half of the
//!   pause, at random, so that keys that were called together do not flush together.
//! - Alerts set the alarm for when they are due (see
//!   [`alert_delivery`](crate::object::alert_delivery)).
//! - Open holds set the alarm for when the first of them expires, because nothing else wakes an object
//!   to charge it: a hold is not counted in the totals that are flushed.
//! - Denials that are in memory alone may bring the alarm forward (see
//!   [`denials`](crate::object::denials)).
//! - The alarm is set again before it works, because the platform deletes an alarm that has failed
//!   six times. After its work it is set for what comes next, or deleted.
//! - A clock that leapt ahead would set an alarm that does not come for as long. So after a leap
//!   the alarm is set by the time before it. If the clock is right, the key was idle and that time
//!   is over: the alarm comes at once, and so proves that the clock is right.

use crate::key_state::state::KeyState;
use crate::metering::alerts::Alert;
use crate::object::alert_delivery::{AlertDelivery, DELAY};
use crate::object::denials::{Denials, Later, Wake};
use crate::time::UnixMicros;

/// The longest pause between two flushes while D1 cannot be reached, in seconds; `FLUSH_SECONDS` if
/// that is longer.
pub const LONGEST_PAUSE: u64 = 900;

/// The alarm in storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum StoredAlarm {
    /// Not read yet.
    #[default]
    Unknown,
    Unset,
    Set(u64),
}

/// What an object has counted and not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog<'a> {
    /// Alerts that are not delivered.
    pub alerts: &'a [Alert],
    /// Whether D1 has all counts.
    pub is_flushed: bool,
    /// When the first open hold expires, by the clock before it leapt.
    pub hold_expiry: Option<u64>,
    /// The time before the clock leapt; now if it did not.
    pub before_leap: u64,
}

impl<'a> Backlog<'a> {
    /// The backlog of `key_state`.
    #[must_use]
    pub fn of(key_state: &'a KeyState, now: UnixMicros) -> Self {
        let lead = key_state.lead(now);
        let hold_expiry = key_state.next_hold_expiry().map(|at| at.saturating_sub(lead).as_millis_ceil());
        Self {
            alerts: key_state.pending_alerts(),
            is_flushed: key_state.meter().is_flushed(),
            hold_expiry,
            before_leap: now.saturating_sub(lead).as_millis(),
        }
    }
}

/// How the alarm's work begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkBegun {
    /// The alarm is first set to this time.
    pub alarm: u64,
    /// Whether the alarm came so soon that the clock must be right.
    pub is_clock_right: bool,
}

/// What becomes of the alarm when its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAlarm {
    /// It stays as it is.
    Keep,
    /// It is set to this time.
    Set(u64),
    /// It is deleted: an idle key costs nothing.
    Delete,
}

/// The state of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlarmSchedule {
    alarm: StoredAlarm,
    /// When the alarm was set for its work.
    set_at: u64,
    /// Flushes that failed in a row.
    failed_flushes: u32,
    denials: Denials,
    delivery: AlertDelivery,
}

impl AlarmSchedule {
    /// Whether the alarm has to be read from storage.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self.alarm, StoredAlarm::Unknown)
    }

    /// The alarm has to be read from storage again: it could not be set or deleted, or a write that
    /// it was set with has failed.
    pub const fn discard(&mut self) {
        self.alarm = StoredAlarm::Unknown;
    }

    /// Storage is empty, so no alarm is set.
    pub const fn storage_is_empty(&mut self) {
        self.alarm = StoredAlarm::Unset;
    }

    /// The alarm was read from storage. One that was set meanwhile is newer.
    pub fn found(&mut self, alarm: Option<u64>) {
        if self.is_unknown() {
            self.alarm = alarm.map_or(StoredAlarm::Unset, StoredAlarm::Set);
        }
    }

    /// Something may have been counted or held. Returns the time to set the alarm to, if none is set that
    /// comes in time. `random` returns a number from 0 to 1.
    #[must_use]
    pub fn arm(
        &mut self,
        backlog: Backlog<'_>,
        flush_seconds: u64,
        now: u64,
        random: impl FnOnce() -> f64,
    ) -> Option<u64> {
        let due_at = self.delivery.next(backlog.alerts, now).into_iter().chain(backlog.hold_expiry).min();
        let pause = self.pause(flush_seconds);
        let before = backlog.before_leap;
        let flush_at = (!backlog.is_flushed).then(|| before.saturating_add(pause.saturating_mul(1_000)));
        let latest = due_at.into_iter().chain(flush_at).min()?;
        // A later one is for something else, or was set by a clock that was ahead.
        if matches!(self.alarm, StoredAlarm::Set(at) if at <= latest) {
            return None;
        }
        let at = if due_at == Some(latest) { latest } else { before.saturating_add(jittered(pause, random())) };
        self.set_for_work(at, now);
        Some(at)
    }

    /// Something was counted that is in memory alone.
    pub fn counted(&mut self, now: u64) -> Later {
        let alarm = match self.alarm {
            StoredAlarm::Set(at) => Some(at),
            StoredAlarm::Unknown | StoredAlarm::Unset => None,
        };
        let later = self.denials.counted(alarm, now);
        if let Later::SetAlarm(at) = later {
            self.alarm = StoredAlarm::Set(at);
        }
        later
    }

    /// The alarm has come. `is_unwritten` if there are counts in memory alone.
    pub fn woken(&mut self, is_unwritten: bool, now: u64) -> Wake {
        let wake = self.denials.woken(is_unwritten, now);
        if let Wake::Counts { alarm, .. } = wake {
            self.alarm = StoredAlarm::Set(alarm);
        }
        wake
    }

    /// The alarm's work begins.
    pub fn begin_work(&mut self, flush_seconds: u64, now: u64, random: impl FnOnce() -> f64) -> WorkBegun {
        let pause = self.pause(flush_seconds);
        // An alarm set for later than the time before a leap cannot come so soon.
        let is_clock_right = now.abs_diff(self.set_at) < pause.saturating_mul(500);
        let alarm = now.saturating_add(jittered(pause, random()));
        self.set_for_work(alarm, now);
        WorkBegun { alarm, is_clock_right }
    }

    /// A flush has ended.
    pub const fn flush_ended(&mut self, is_ok: bool) {
        self.failed_flushes = if is_ok { 0 } else { self.failed_flushes.saturating_add(1) };
    }

    /// All work is done and nothing failed. `expiry` is when stored rows next expire.
    pub fn work_ended(&mut self, backlog: Backlog<'_>, expiry: Option<u64>, now: u64) -> NextAlarm {
        if !backlog.is_flushed {
            // The alarm of what was counted meanwhile was set before the work.
            return NextAlarm::Keep;
        }
        let Some(at) = self.delivery.next(backlog.alerts, now).into_iter().chain(expiry).min() else {
            self.alarm = StoredAlarm::Unset;
            self.denials.alarm_is_for_work();
            return NextAlarm::Delete;
        };
        let at = at.max(now.saturating_add(DELAY));
        self.set_for_work(at, now);
        NextAlarm::Set(at)
    }

    /// The delivery of alerts.
    #[must_use]
    pub const fn delivery(&self) -> &AlertDelivery {
        &self.delivery
    }

    /// The delivery of alerts, to record attempts.
    pub const fn delivery_mut(&mut self) -> &mut AlertDelivery {
        &mut self.delivery
    }

    const fn set_for_work(&mut self, at: u64, now: u64) {
        self.denials.alarm_is_for_work();
        self.set_at = now;
        self.alarm = StoredAlarm::Set(at);
    }

    /// How long to wait for the next flush, in seconds.
    fn pause(&self, flush_seconds: u64) -> u64 {
        let factor = 1u64.checked_shl(self.failed_flushes).unwrap_or(u64::MAX);
        flush_seconds.saturating_mul(factor).min(LONGEST_PAUSE.max(flush_seconds))
    }
}

/// Milliseconds, between half of `seconds` and all of them.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a random share of minutes"
)]
fn jittered(seconds: u64, random: f64) -> u64 {
    (seconds as f64 * 500.0 * (1.0 + random)) as u64
}

#[cfg(test)]
mod tests;
