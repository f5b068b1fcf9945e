//! The timer after which a report is delivered alone if no request about its key has carried it.

/// How long a timer counts as set, in milliseconds. It belongs to a request and may end with it: a
/// Worker may run for 30 s after its response.
pub const TIMER_LIFE: u64 = 30_000;

/// Whether a timer is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryTimer {
    /// In milliseconds.
    since: Option<u64>,
}

impl DeliveryTimer {
    /// Whether a timer must be set now. If so, it counts as set.
    pub fn start(&mut self, now: u64) -> bool {
        let is_set = self.since.is_some_and(|since| now.abs_diff(since) < TIMER_LIFE);
        if !is_set {
            self.since = Some(now);
        }
        !is_set
    }

    /// The timer has ended.
    pub const fn end(&mut self) {
        self.since = None;
    }

    /// Whether one was set and has not ended. Its request may have ended without it.
    #[must_use]
    pub const fn is_set(self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timer_at_a_time_until_it_ends_or_expires() {
        let mut timer = DeliveryTimer::default();
        assert!(!timer.is_set());
        assert_eq!(
            [0, TIMER_LIFE - 1, TIMER_LIFE, TIMER_LIFE + 1].map(|now| timer.start(now)),
            [true, false, true, false]
        );
        // A smaller step back of the clock does not set another.
        assert_eq!([1, 0].map(|now| timer.start(now)), [false, true]);
        assert!(timer.is_set());
        timer.end();
        assert!(!timer.is_set());
        assert!(timer.start(2));
    }
}
