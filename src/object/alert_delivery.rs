//! When a key's object delivers alerts to the operator's webhook, and what follows an attempt.
//!
//! An alert is a part of the key's state until it is delivered or given up. Its record in D1 counts
//! the attempts, so that an object that lost its memory neither repeats nor skips any. All times
//! are in milliseconds since 1970.

use crate::metering::alerts::Alert;

/// How long after it was raised an alert is delivered, in milliseconds.
pub const DELAY: u64 = 1_000;
/// The longest pause between two attempts, in milliseconds.
const LONGEST_PAUSE: u64 = Alert::LONGEST_PAUSE * 1_000;

/// The progress of an alert, as stored in D1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertRecord {
    /// Whether it still has to be delivered.
    pub is_pending: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next_attempt_at: Option<u64>,
}

/// What to do about an alert that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Nothing: it is delivered or given up, or there is no receiver.
    Settled,
    /// Wait until this time.
    Wait(u64),
    /// Send it.
    Send,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptResult {
    /// The alert is delivered.
    Delivered,
    /// It is sent again at this time.
    Retry(u64),
    /// It is given up.
    GivenUp,
}

impl AttemptResult {
    /// When the next attempt is due.
    #[must_use]
    pub const fn retry_at(self) -> Option<u64> {
        match self {
            Self::Retry(at) => Some(at),
            Self::Delivered | Self::GivenUp => None,
        }
    }
}

impl AlertRecord {
    /// What to do about an alert that is due at `now`.
    #[must_use]
    pub fn next_attempt(self, has_receiver: bool, now: u64) -> NextAttempt {
        if !self.is_pending || !has_receiver {
            return NextAttempt::Settled;
        }
        // A later time than any pause allows was set by a clock that was ahead.
        let is_to_come = |at: &u64| (1..=LONGEST_PAUSE).contains(&at.saturating_sub(now));
        self.next_attempt_at.filter(is_to_come).map_or(NextAttempt::Send, NextAttempt::Wait)
    }

    /// The result of an attempt that ended at `now`.
    #[must_use]
    pub fn attempted(self, is_delivered: bool, now: u64) -> AttemptResult {
        if is_delivered {
            return AttemptResult::Delivered;
        }
        let pause = Alert::pause_after(self.attempts.saturating_add(1));
        pause.map_or(AttemptResult::GivenUp, |pause| AttemptResult::Retry(after(now, pause)))
    }
}

/// The alerts of one object whose last attempt failed, and when each is due again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertDelivery {
    retries: Vec<(Alert, u64)>,
}

impl AlertDelivery {
    /// When the next of the `pending` alerts is due.
    #[must_use]
    pub fn next(&self, pending: &[Alert], now: u64) -> Option<u64> {
        pending.iter().map(|alert| self.retry_of(alert).unwrap_or_else(|| now.saturating_add(DELAY))).min()
    }

    /// Those of the `pending` alerts that are due.
    #[must_use]
    pub fn due(&self, pending: &[Alert], now: u64) -> Vec<Alert> {
        let is_due = |alert: &&Alert| self.retry_of(alert).is_none_or(|at| at <= now);
        pending.iter().filter(is_due).cloned().collect()
    }

    /// An alert is due again at `retry_at`, or is settled.
    pub fn attempted(&mut self, alert: &Alert, retry_at: Option<u64>) {
        self.retries.retain(|(other, _)| other != alert);
        self.retries.extend(retry_at.map(|at| (alert.clone(), at)));
    }

    /// The record of an alert could not be read or written at `now`.
    pub fn failed(&mut self, alert: &Alert, now: u64) {
        self.attempted(alert, Some(after(now, Alert::pause_after(1).unwrap_or_default())));
    }

    fn retry_of(&self, alert: &Alert) -> Option<u64> {
        self.retries.iter().find(|(other, _)| other == alert).map(|(_, at)| *at)
    }
}

/// The time `seconds` after `now`.
const fn after(now: u64, seconds: u64) -> u64 {
    now.saturating_add(seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::policy::Unit;
    use crate::time::{Month, UnixMicros};
    use proptest::prelude::*;

    const NOW: u64 = 1_930_564_800_000;
    const HOUR: u64 = 3_600_000;

    fn alert(threshold: u16) -> Alert {
        let at = UnixMicros::from_millis(NOW);
        let (policy, unit) = ("month".to_owned(), Unit::Requests);
        Alert { policy, threshold, month: Month::of(at), unit, quota: 1_000, used: 801, at }
    }

    const fn record(attempts: u32, next_attempt_at: Option<u64>) -> AlertRecord {
        AlertRecord { is_pending: true, attempts, next_attempt_at }
    }

    #[test]
    fn an_alert_is_sent_once_its_time_has_come() {
        let attempt = |next| record(1, next).next_attempt(true, NOW);
        assert_eq!(attempt(None), NextAttempt::Send);
        assert_eq!(attempt(Some(NOW)), NextAttempt::Send);
        assert_eq!(attempt(Some(NOW - 1)), NextAttempt::Send);
        assert_eq!(attempt(Some(NOW + 1)), NextAttempt::Wait(NOW + 1));
        assert_eq!(attempt(Some(NOW + HOUR)), NextAttempt::Wait(NOW + HOUR));
        assert_eq!(attempt(Some(NOW + HOUR + 1)), NextAttempt::Send, "the clock was ahead");
    }

    #[test]
    fn what_is_settled_or_has_no_receiver_is_not_sent() {
        assert_eq!(record(0, None).next_attempt(false, NOW), NextAttempt::Settled);
        let settled = AlertRecord { is_pending: false, ..record(0, Some(NOW + 1)) };
        assert_eq!(settled.next_attempt(true, NOW), NextAttempt::Settled);
    }

    #[test]
    fn a_failed_attempt_is_repeated_until_the_twelfth() {
        let results: Vec<_> = (0..12).map(|attempts| record(attempts, None).attempted(false, NOW)).collect();
        let pauses = [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600, 3_600];
        let expected = pauses.map(|seconds| AttemptResult::Retry(NOW + seconds * 1_000));
        assert_eq!(results[..11], expected);
        assert_eq!(results[11], AttemptResult::GivenUp);
        assert_eq!(record(11, None).attempted(true, NOW), AttemptResult::Delivered);
        assert_eq!(record(u32::MAX, None).attempted(false, NOW), AttemptResult::GivenUp);
        let retries = [results[0], results[11], AttemptResult::Delivered].map(AttemptResult::retry_at);
        assert_eq!(retries, [Some(NOW + 30_000), None, None]);
    }

    #[test]
    fn a_new_alert_is_due_now_and_wakes_the_object_a_second_later() {
        let delivery = AlertDelivery::default();
        assert_eq!(delivery.next(&[], NOW), None);
        assert_eq!(delivery.next(&[alert(80)], NOW), Some(NOW + 1_000));
        assert_eq!(delivery.due(&[alert(80), alert(100)], NOW), [alert(80), alert(100)]);
    }

    #[test]
    fn an_alert_that_failed_is_due_at_its_retry_and_others_are_not_delayed() {
        let mut delivery = AlertDelivery::default();
        let pending = [alert(80), alert(100)];
        delivery.attempted(&pending[0], Some(NOW + 500));
        assert_eq!(delivery.next(&pending, NOW), Some(NOW + 500));
        assert_eq!(delivery.due(&pending, NOW + 499), [alert(100)]);
        assert_eq!(delivery.due(&pending, NOW + 500), pending);
        delivery.failed(&pending[0], NOW + 500);
        assert_eq!(delivery.next(&pending[..1], NOW), Some(NOW + 30_500));
        assert_eq!(delivery.due(&pending[..1], NOW + 30_499), []);
        delivery.attempted(&pending[0], None);
        assert_eq!(delivery, AlertDelivery::default());
    }

    proptest! {
        /// Over any sequence of failures, losses of memory and receivers that come and go, an
        /// alert is sent 12 times at most, with the pauses of [`Alert::pause_after`] between, and
        /// ends.
        #[test]
        fn an_alert_ends(outcomes in proptest::collection::vec(any::<(bool, bool, u16)>(), 20..60)) {
            let (mut delivery, mut d1, mut now) = (AlertDelivery::default(), record(0, None), NOW);
            let (pending, mut sent, mut is_settled) = ([alert(80)], Vec::new(), false);
            for (d1_fails, forgets, late) in outcomes {
                if forgets {
                    delivery = AlertDelivery::default();
                }
                now = delivery.next(&pending, now).unwrap().max(now) + u64::from(late);
                prop_assert_eq!(&delivery.due(&pending, now)[..], &pending[..]);
                if d1_fails {
                    delivery.failed(&pending[0], now);
                    continue;
                }
                let retry_at = match d1.next_attempt(true, now) {
                    NextAttempt::Settled => None,
                    NextAttempt::Wait(at) => {
                        prop_assert!(at > now);
                        Some(at)
                    }
                    NextAttempt::Send => {
                        sent.push(now);
                        let result = d1.attempted(false, now);
                        let is_pending = result != AttemptResult::GivenUp;
                        d1 = AlertRecord { is_pending, attempts: d1.attempts + 1, next_attempt_at: result.retry_at() };
                        result.retry_at()
                    }
                };
                delivery.attempted(&pending[0], retry_at);
                is_settled = retry_at.is_none();
                if is_settled {
                    break;
                }
            }
            prop_assert!(sent.len() <= 12);
            prop_assert_eq!(is_settled, sent.len() == 12);
            for (attempts, pair) in (1..).zip(sent.windows(2)) {
                prop_assert!(pair[1] - pair[0] >= Alert::pause_after(attempts).unwrap() * 1_000);
            }
        }
    }
}
