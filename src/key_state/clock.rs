//! The time at which calls are judged, derived from readings of a clock that may step.
//!
//! # A clock that steps back
//! A step back of [`MAX_SKEW`] or less is absorbed: the judged time does not change until the clock
//! has caught up. The judged time is then never before the last admission, so no window reopens.
//!
//! A larger step back is followed. Otherwise one reading from the far future would block a key
//! until that time. Usage survives the step:
//!
//! - Windows keep their counts. Of minutes, hours and days, the three newest windows up to the one
//!   counted last are kept, and the next two after the window that the clock stepped back to. For
//!   months, see [`months`](crate::metering::months).
//! - Units admitted less than one period before the step also count in the window that the clock
//!   stepped back to. So the windows before and after the step share one quota.
//! - Times in logs and buckets that are later than the judged time are moved to it.
//!
//! Waits and resets always count from the clock's reading.

use crate::limiter::sliding_log::MAX_MILLIS;
use crate::time::{HOUR, MINUTE, UnixMicros};

/// The largest lead of the judged time over the clock's reading, in microseconds: 5 minutes.
pub const MAX_SKEW: u64 = 5 * MINUTE;

/// An advance between two readings of more than this may be a leap of the clock, in microseconds.
const LEAP: u64 = HOUR;

/// Turns readings of the clock into judged times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JudgedClock {
    /// The last judged time. 0 before the first reading.
    seen: UnixMicros,
    /// The sum of all advances that may have been leaps, in microseconds.
    lead: u64,
}

impl JudgedClock {
    pub(super) const fn starting_at(seen: UnixMicros) -> Self {
        Self { seen, lead: 0 }
    }

    /// Returns the judged time of a reading. `last` is the time of the last admission.
    ///
    /// The result is before `last` only if the clock stepped back by more than [`MAX_SKEW`]. The
    /// caller must then rebase its counters.
    pub(super) fn read(&mut self, reading: UnixMicros, last: UnixMicros) -> UnixMicros {
        let reading = reading.min(UnixMicros::from_millis(MAX_MILLIS));
        let is_followed = reading.saturating_add(MAX_SKEW) < last;
        let now = if is_followed { reading } else { reading.max(last) };
        if is_followed {
            self.lead = 0;
        } else if self.seen > UnixMicros::default() && now.since(self.seen) > LEAP {
            self.lead = self.lead.saturating_add(now.since(self.seen));
        }
        self.seen = now;
        now
    }

    pub(super) const fn seen(&self) -> UnixMicros {
        self.seen
    }

    /// How far the clock may be ahead, in microseconds. 0 once it has stepped back.
    pub(super) fn lead(&self, reading: UnixMicros) -> u64 {
        if reading.saturating_add(MAX_SKEW) < self.seen { 0 } else { self.lead }
    }

    /// Accepts all advances so far as correct.
    pub(super) const fn trust(&mut self) {
        self.lead = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    const START: UnixMicros = UnixMicros::from_micros(1_795_160_894 * SECOND);

    #[test]
    fn small_steps_back_are_absorbed_and_large_ones_followed() {
        let mut clock = JudgedClock::starting_at(START);
        let read = |clock: &mut JudgedClock, back| clock.read(START.saturating_sub(back), START);
        assert_eq!(read(&mut clock, 0), START);
        assert_eq!(read(&mut clock, MAX_SKEW), START);
        assert_eq!(read(&mut clock, MAX_SKEW + 1), START.saturating_sub(MAX_SKEW + 1));
        assert_eq!(clock.seen(), START.saturating_sub(MAX_SKEW + 1));
        assert_eq!(clock.read(START.saturating_add(1), START), START.saturating_add(1));
    }

    #[test]
    fn a_reading_is_never_later_than_a_log_can_hold() {
        let far = UnixMicros::from_micros(u64::MAX);
        assert_eq!(JudgedClock::default().read(far, UnixMicros::default()), UnixMicros::from_millis(MAX_MILLIS));
    }

    #[test]
    fn leaps_ahead_add_up_until_the_clock_is_trusted_or_falls_back() {
        let at = |hours: u64| START.saturating_add(hours * HOUR);
        let mut clock = JudgedClock::default();
        clock.read(START, START);
        assert_eq!(clock.lead(START), 0, "the first reading is no leap");
        clock.read(at(1), START);
        assert_eq!(clock.lead(at(1)), 0, "an hour is no leap");
        clock.read(at(3), START);
        clock.read(at(6), START);
        assert_eq!((clock.lead(at(6)), clock.lead(at(5))), (5 * HOUR, 0));
        let mut trusted = clock;
        trusted.trust();
        assert_eq!(trusted.lead(at(6)), 0);
        clock.read(START, at(6));
        assert_eq!(clock.lead(START), 0);
    }
}
