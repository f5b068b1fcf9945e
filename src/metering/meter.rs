//! The usage of one key, by month and by hour and class.

use crate::limiter::cost::Cost;
use crate::metering::hours::{Counts, HourTotal, Hours};
use crate::metering::months::{Carried, MonthTotal, Months};
use crate::time::{Month, UnixMicros};

/// Months and hours, counted together: the hours of a month add up to its total.
///
/// Methods that return `bool` return whether anything changed that must be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meter {
    months: Months,
    hours: Hours,
}

impl Meter {
    pub(crate) const fn new(months: Months, hours: Hours) -> Self {
        Self { months, hours }
    }

    pub(crate) const fn months(&self) -> &Months {
        &self.months
    }

    pub(crate) const fn hours(&self) -> &Hours {
        &self.hours
    }

    /// Counts `calls` admitted calls of one class, charged `charged` in total.
    pub(crate) fn admit(&mut self, now: UnixMicros, class: &str, calls: u64, charged: Cost) {
        let month = Month::of(now);
        self.months.count(month, calls, charged);
        self.count_hour(now, month, class, Counts { calls, denied: 0, cost: charged.requests });
    }

    /// Counts `denied` denied calls of one class.
    pub(crate) fn deny(&mut self, now: UnixMicros, class: &str, denied: u64) {
        let month = Month::of(now);
        self.months.deny(month, denied);
        self.count_hour(now, month, class, Counts { calls: 0, denied, cost: 0 });
    }

    /// Adds to the hour what was just added to the month. `month` is the month of `now`.
    fn count_hour(&mut self, now: UnixMicros, month: Month, class: &str, counts: Counts) {
        let counted_in = self.months.place(month);
        let at = if counted_in == month { now } else { counted_in.start() };
        self.hours.count(at, class, counts, |month| self.months.is_kept(month));
    }

    /// Sets the usage of earlier epochs in `month`.
    pub(crate) fn carry_over(&mut self, month: Month, carried: Carried) -> bool {
        self.months.carry(month, carried)
    }

    /// The totals of this epoch in `month`.
    #[must_use]
    pub fn month(&self, month: Month) -> MonthTotal {
        self.months.total(month)
    }

    /// All kept months, oldest first.
    #[must_use]
    pub fn kept_months(&self) -> Vec<MonthTotal> {
        self.months.iter().map(|(month, _)| self.months.total(month)).collect()
    }

    /// The months with calls or denials that D1 does not have, oldest first.
    #[must_use]
    pub fn unflushed_months(&self) -> Vec<MonthTotal> {
        self.months.unflushed()
    }

    /// All kept hours by class, oldest first.
    #[must_use]
    pub fn kept_hours(&self) -> Vec<HourTotal> {
        self.hours.kept()
    }

    /// The hours with counts that D1 does not have, by class, oldest first.
    #[must_use]
    pub fn unflushed_hours(&self) -> Vec<HourTotal> {
        self.hours.unflushed()
    }

    /// Whether D1 has all months and hours.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.months.is_flushed() && self.hours.is_flushed()
    }

    pub(crate) fn mark_month_flushed(&mut self, month: Month, calls: u64, denied: u64, current: Month) -> bool {
        self.months.mark_flushed(month, calls, denied, current)
    }

    pub(crate) fn mark_hour_flushed(&mut self, total: &HourTotal) -> bool {
        self.hours.mark_flushed(total, |month| self.months.is_kept(month))
    }
}
