//! The usage of one key, by month and by hour and class.

use crate::limiter::cost::Cost;
use crate::metering::charges::Charges;
use crate::metering::hours::{HourCounts, HourTotal, Hours, start_of_hour};
use crate::metering::months::{Carried, MonthCounts, MonthTotal, Months, TokenMarks};
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

    /// Counts `calls` admitted calls of one class, charged `charged` in total. Gives the class that
    /// they were counted in.
    pub(crate) fn admit<'a>(&mut self, now: UnixMicros, class: &'a str, calls: u64, charged: Cost) -> &'a str {
        self.count(now, class, MonthCounts { calls, charges: Charges::of(charged), ..MonthCounts::default() })
    }

    /// Counts `denied` denied calls of one class.
    pub(crate) fn deny(&mut self, now: UnixMicros, class: &str, denied: u64) {
        self.count(now, class, MonthCounts { denied, ..MonthCounts::default() });
    }

    /// Counts something by month and by hour. Gives the class that it was counted in.
    fn count<'a>(&mut self, now: UnixMicros, class: &'a str, counts: MonthCounts) -> &'a str {
        let month = Month::of(now);
        self.months.count(month, counts);
        let MonthCounts { calls, denied, charges, .. } = counts;
        let at = self.hour_of(now, month);
        self.hours.count(at, class, HourCounts { calls, denied, charges }, |month| self.months.is_kept(month))
    }

    /// The time by which an hour takes what is counted at `now`, so that it is of the month that
    /// does; `month` is that of `now`.
    fn hour_of(&self, now: UnixMicros, month: Month) -> UnixMicros {
        let counted_in = self.months.place(month);
        if counted_in == month { now } else { counted_in.start() }
    }

    /// Opens the hour of a hold that is made at `now`, and says which it is. It must be pinned for
    /// as long as anything may be counted for the hold.
    pub(crate) fn open_hour(&mut self, now: UnixMicros) -> u64 {
        self.hours.open_for(self.hour_of(now, Month::of(now)))
    }

    /// Keeps these hours, and no others, until they are pinned no more.
    pub(crate) fn pin_hours(&mut self, hours: Vec<u64>) {
        self.hours.pin(hours);
    }

    /// Counts in a pinned hour and its month. Gives the class that it was counted in.
    pub(crate) fn settle<'a>(&mut self, hour: u64, class: &'a str, counts: MonthCounts) -> &'a str {
        self.count(start_of_hour(hour), class, counts)
    }

    /// Changes the marks of the month of a pinned hour.
    pub(crate) fn mark(&mut self, hour: u64, change: impl FnOnce(&mut TokenMarks)) {
        self.months.mark(Month::of(start_of_hour(hour)), change);
    }

    /// The charged tokens of this epoch in `month` that no origin has reported.
    #[must_use]
    pub fn marks(&self, month: Month) -> TokenMarks {
        self.months.marks(month)
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

    /// The months with counts that D1 does not have, oldest first.
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

    pub(crate) fn mark_month_flushed(&mut self, total: &MonthTotal, current: Month) -> bool {
        self.months.mark_flushed(total, current, |month| self.hours.is_pinned(month))
    }

    pub(crate) fn mark_hour_flushed(&mut self, total: &HourTotal) -> bool {
        self.hours.mark_flushed(total, |month| self.months.is_kept(month))
    }
}
