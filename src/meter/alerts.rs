//! Warnings that a month's quota is nearly or quite used up: once for each policy, threshold and month, until the quota is raised.

use crate::meter::text::{self, push_number, push_text, records};
use crate::policy::{Period, Policy, Unit};
use crate::time::{Month, UnixMicros};

/// A policy of a month has reached a threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The policy's name.
    pub policy: String,
    /// Percent of the quota.
    pub threshold: u16,
    /// The month.
    pub month: Month,
    /// The quota then.
    pub quota: u64,
    /// What was used of it then.
    pub used: u64,
    /// When.
    pub at: UnixMicros,
}

impl Alert {
    fn is_of(&self, mark: &Mark) -> bool {
        self.month == mark.month && self.threshold == mark.threshold && self.policy == mark.policy
    }
}

/// Where an alert has been given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    policy: String,
    threshold: u16,
    month: Month,
}

/// Alerts that nobody has been told of yet, and where there has been one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Alerts {
    marks: Vec<Mark>,
    pending: Vec<Alert>,
}

impl Alerts {
    /// Looks where the policies stand in the month of `now`. True if that changed anything.
    pub(crate) fn check(
        &mut self,
        policies: &[Policy],
        thresholds: &[u16],
        now: UnixMicros,
        used: impl Fn(Unit, Month) -> u64,
    ) -> bool {
        let month = Month::of(now);
        let monthly = || policies.iter().filter(|policy| policy.period() == Period::Month);
        let has_reached = |policy: &Policy, threshold: u16| {
            let used = used(policy.unit(), month);
            used > 0 && u128::from(used) * 100 >= u128::from(policy.quota()) * u128::from(threshold)
        };
        let before = self.marks.len();
        // Where a policy no longer stands at its threshold, it may reach it again.
        self.marks.retain(|mark| {
            let holds = |policy: &Policy| policy.name() == mark.policy && has_reached(policy, mark.threshold);
            let is_held = || thresholds.contains(&mark.threshold) && monthly().any(holds);
            // A clock that is about to turn the month may turn it more than once.
            if mark.month == month { is_held() } else { mark.month >= month.previous() }
        });
        let mut is_changed = self.marks.len() < before;
        for policy in monthly() {
            for &threshold in thresholds.iter().filter(|threshold| has_reached(policy, **threshold)) {
                let is_mark =
                    |mark: &Mark| mark.month == month && mark.threshold == threshold && mark.policy == policy.name();
                if self.marks.iter().any(is_mark) {
                    continue;
                }
                let mark = Mark { policy: policy.name().to_owned(), threshold, month };
                // News of what nobody has heard of yet takes its place.
                self.pending.retain(|alert| !alert.is_of(&mark));
                self.pending.push(Alert {
                    policy: mark.policy.clone(),
                    threshold,
                    month,
                    quota: policy.quota(),
                    used: used(policy.unit(), month),
                    at: now,
                });
                self.marks.push(mark);
                is_changed = true;
            }
        }
        is_changed
    }

    pub(crate) fn pending(&self) -> &[Alert] {
        &self.pending
    }

    /// Lets go of an alert that was told. True if it was there.
    pub(crate) fn forget(&mut self, told: &Alert) -> bool {
        let before = self.pending.len();
        self.pending.retain(|alert| alert != told);
        self.pending.len() < before
    }

    /// The stored form, if there is anything to store: policy, threshold and month (202611); of pending ones also quota, used, and
    /// microseconds since 1970.
    pub(crate) fn to_text(&self) -> Option<String> {
        let mut out = String::new();
        let mut push = |policy: &str, threshold: u16, month: Month, more: &[u64]| {
            push_text(&mut out, policy);
            push_number(&mut out, threshold.into());
            push_number(&mut out, month.as_number());
            for number in more {
                push_number(&mut out, *number);
            }
            text::end(&mut out);
        };
        for Mark { policy, threshold, month } in &self.marks {
            push(policy, *threshold, *month, &[]);
        }
        for Alert { policy, threshold, month, quota, used, at } in &self.pending {
            push(policy, *threshold, *month, &[*quota, *used, at.as_micros()]);
        }
        Some(out).filter(|out| !out.is_empty())
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut alerts = Self::default();
        for mut record in records(text) {
            let (policy, threshold) = (record.text()?, record.number()?.try_into().ok()?);
            let month = Month::from_number(record.number()?)?;
            match record.number() {
                None => alerts.marks.push(Mark { policy, threshold, month }),
                Some(quota) => {
                    let (used, at) = (record.number()?, UnixMicros::from_micros(record.number()?));
                    alerts.pending.push(Alert { policy, threshold, month, quota, used, at });
                }
            }
        }
        Some(alerts)
    }
}
