//! The timer after which something is delivered that no request about its key has taken along.

/// A timer belongs to a request, and may die with it: a Worker may work for 30 s after its
/// response. After this time in milliseconds it is taken to be dead.
pub const TIMER_LIFE: u64 = 30_000;

/// Whether a timer is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryTimer {
    /// In milliseconds.
    since: Option<u64>,
}

impl DeliveryTimer {
    /// Whether a timer has to be set now. It counts as set then.
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

    /// Whether one was set and has not ended. It may be dead.
    #[must_use]
    pub const fn is_set(self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timer_at_a_time_and_another_when_it_ended_or_died() {
        let mut timer = DeliveryTimer::default();
        assert!(!timer.is_set());
        assert_eq!(
            [0, TIMER_LIFE - 1, TIMER_LIFE, TIMER_LIFE + 1].map(|now| timer.start(now)),
            [true, false, true, false]
        );
        // A clock that stepped back for less than that is no reason for another.
        assert_eq!([1, 0].map(|now| timer.start(now)), [false, true]);
        assert!(timer.is_set());
        timer.end();
        assert!(!timer.is_set());
        assert!(timer.start(2));
    }
}
