//! Totals by calendar month. Month policies and metering share them.
//!
//! D1 keeps the larger of two totals. So a dropped month must never be counted again: D1 would
//! ignore its new counts, and its usage would be lost. These months are kept:
//!
//! - the current one, the one before, and all later ones;
//! - all months that D1 does not have;
//! - the `KEPT` newest, since a clock that steps back usually returns to one of them.
//!
//! If the clock steps back to a dropped month, its calls count in the next kept month.

use serde::{Deserialize, Serialize};

use crate::limiter::cost::Cost;
use crate::limiter::policy::Unit;
use crate::metering::charges::{Charges, sum};
use crate::time::Month;

/// Minimum number of months that are kept, the newest ones.
const KEPT: usize = 3;

/// The usage of a month in earlier epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Admitted calls, whatever they cost.
    pub calls: u64,
    /// Charged requests.
    pub cost: u64,
    /// Charged tokens.
    pub tokens: u64,
    /// Tokens charged beyond their holds.
    #[serde(default)]
    pub overdraft: u64,
}

/// The totals of one month in the current epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MonthTotal {
    pub month: Month,
    /// Admitted calls, whatever they cost.
    pub calls: u64,
    pub denied: u64,
    /// The usage of earlier epochs. Month policies count it; the other counts do not include it.
    pub carried: Carried,
    /// Requests that remain charged.
    pub cost: u64,
    /// Tokens that remain charged.
    pub tokens: u64,
    /// What was ever charged in this epoch. Only grows.
    pub charged: Cost,
    /// What was returned of it. Only grows.
    pub returned: Cost,
    /// Tokens charged in this epoch beyond their holds. Only grows.
    pub overdraft: u64,
}

impl MonthTotal {
    /// Whether anything was counted in this epoch.
    #[must_use]
    pub fn has_counts(&self) -> bool {
        MonthCounts::of(self) != MonthCounts::default()
    }
}

/// Counts of one epoch and month, which only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MonthCounts {
    pub(crate) calls: u64,
    pub(crate) denied: u64,
    pub(crate) charges: Charges,
    pub(crate) overdraft: u64,
}

impl MonthCounts {
    fn of(total: &MonthTotal) -> Self {
        let &MonthTotal { calls, denied, charged, returned, overdraft, .. } = total;
        Self { calls, denied, charges: Charges { charged, returned }, overdraft }
    }

    fn add(&mut self, more: Self) {
        self.calls = sum(self.calls, more.calls);
        self.denied = sum(self.denied, more.denied);
        self.charges.add(more.charges);
        self.overdraft = sum(self.overdraft, more.overdraft);
    }

    /// The larger of each, as D1 merges them too.
    fn merge(&mut self, other: Self) {
        self.calls = self.calls.max(other.calls);
        self.denied = self.denied.max(other.denied);
        self.charges.merge(other.charges);
        self.overdraft = self.overdraft.max(other.overdraft);
    }
}

/// Charged tokens that no origin has reported. Only the object keeps these sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenMarks {
    /// Charged for what was delivered of answers that were cut off.
    pub estimated: u64,
    /// Charged for holds that expired, without those that were settled or released later.
    pub expired: u64,
}

/// What is kept of a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeptMonth {
    pub(crate) counted: MonthCounts,
    pub(crate) marks: TokenMarks,
    pub(crate) carried: Carried,
    /// What D1 has.
    pub(crate) flushed: MonthCounts,
}

impl KeptMonth {
    fn is_flushed(&self) -> bool {
        self.counted == self.flushed
    }
}

/// The dropped months, as far as they are less than 64 months older than the newest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    newest: Month,
    /// Bit `n` stands for the month `n` months before the newest.
    mask: u64,
}

impl Dropped {
    /// The inverse of [`to_row`](Self::to_row).
    pub(crate) fn from_row((newest, mask): (u64, u64)) -> Option<Self> {
        Some(Self { newest: Month::from_number(newest)?, mask })
    }

    pub(crate) fn to_row(self) -> (u64, u64) {
        (self.newest.as_number(), self.mask)
    }

    fn contains(self, month: Month) -> bool {
        self.newest
            .since(month)
            .and_then(|age| self.mask.checked_shr(u32::try_from(age).ok()?))
            .is_some_and(|mask| mask & 1 == 1)
    }

    fn with(self, month: Month) -> Self {
        let shift = |bits: u64, by: u64| u32::try_from(by).ok().and_then(|by| bits.checked_shl(by)).unwrap_or(0);
        match month.since(self.newest) {
            Some(later) => Self { newest: month, mask: shift(self.mask, later) | 1 },
            None => Self { mask: self.mask | shift(1, self.newest.since(month).unwrap_or_default()), ..self },
        }
    }
}

/// The kept months, oldest first. A list, because there are only a few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Months {
    kept: Vec<(Month, KeptMonth)>,
    dropped: Option<Dropped>,
}

impl Months {
    pub(crate) fn from_kept(months: impl IntoIterator<Item = (Month, KeptMonth)>, dropped: Option<Dropped>) -> Self {
        let mut read = Self { dropped, ..Self::default() };
        for (month, totals) in months {
            read.change(month, |kept| *kept = totals);
        }
        read
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Month, &KeptMonth)> {
        self.kept.iter().map(|(month, totals)| (*month, totals))
    }

    pub(crate) const fn dropped(&self) -> Option<Dropped> {
        self.dropped
    }

    pub(crate) fn is_kept(&self, month: Month) -> bool {
        self.get(month).is_some()
    }

    /// The month in which calls of `month` count.
    pub(crate) fn place(&self, month: Month) -> Month {
        if self.is_kept(month) || self.dropped.is_none_or(|dropped| !dropped.contains(month)) {
            return month;
        }
        self.kept.iter().map(|(kept, _)| *kept).find(|kept| *kept >= month).unwrap_or(month)
    }

    fn get(&self, month: Month) -> Option<&KeptMonth> {
        self.kept.iter().find(|(kept, _)| *kept == month).map(|(_, totals)| totals)
    }

    fn change(&mut self, month: Month, change: impl FnOnce(&mut KeptMonth)) {
        if let Some((_, totals)) = self.kept.iter_mut().find(|(kept, _)| *kept == month) {
            return change(totals);
        }
        let mut totals = KeptMonth::default();
        change(&mut totals);
        let at = self.kept.partition_point(|(kept, _)| *kept < month);
        self.kept.insert(at, (month, totals));
    }

    pub(crate) fn count(&mut self, month: Month, counts: MonthCounts) {
        self.change(self.place(month), |kept| kept.counted.add(counts));
    }

    pub(crate) fn mark(&mut self, month: Month, change: impl FnOnce(&mut TokenMarks)) {
        self.change(self.place(month), |kept| change(&mut kept.marks));
    }

    pub(crate) fn marks(&self, month: Month) -> TokenMarks {
        self.get(month).map(|kept| kept.marks).unwrap_or_default()
    }

    /// Sets the usage of earlier epochs. Returns whether it changed.
    pub(crate) fn carry(&mut self, month: Month, carried: Carried) -> bool {
        if self.total(month).carried == carried {
            return false;
        }
        self.change(month, |totals| totals.carried = carried);
        true
    }

    /// The usage that a month policy of `unit` counts in `month`.
    pub(crate) fn used(&self, unit: Unit, month: Month) -> u64 {
        self.get(self.place(month)).map_or(0, |totals| match unit {
            Unit::Requests => totals.counted.charges.net().requests.saturating_add(totals.carried.cost),
            Unit::Tokens => totals.counted.charges.net().tokens.saturating_add(totals.carried.tokens),
        })
    }

    pub(crate) fn total(&self, month: Month) -> MonthTotal {
        let KeptMonth { counted, carried, .. } = self.get(month).copied().unwrap_or_default();
        let MonthCounts { calls, denied, charges, overdraft } = counted;
        let (Charges { charged, returned }, Cost { requests, tokens }) = (charges, charges.net());
        MonthTotal { month, calls, denied, carried, cost: requests, tokens, charged, returned, overdraft }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.kept.iter().all(|(_, totals)| totals.is_flushed())
    }

    pub(crate) fn unflushed(&self) -> Vec<MonthTotal> {
        self.kept.iter().filter(|(_, totals)| !totals.is_flushed()).map(|(month, _)| self.total(*month)).collect()
    }

    /// Records totals that D1 has, then drops months that need not be kept if the month is
    /// `current`, except pinned ones. Returns whether anything changed.
    pub(crate) fn mark_flushed(
        &mut self,
        total: &MonthTotal,
        current: Month,
        is_pinned: impl Fn(Month) -> bool,
    ) -> bool {
        let mut is_changed = false;
        if let Some((_, totals)) = self.kept.iter_mut().find(|(kept, _)| *kept == total.month) {
            // Counts only grow, so a late acknowledgement has no effect.
            let before = totals.flushed;
            totals.flushed.merge(MonthCounts::of(total));
            is_changed = totals.flushed != before;
        }
        let mut newer = self.kept.len();
        let dropped = &mut self.dropped;
        self.kept.retain(|(month, totals)| {
            newer -= 1;
            let is_needed = newer < KEPT || *month >= current.previous() || !totals.is_flushed() || is_pinned(*month);
            if !is_needed {
                let before = dropped.unwrap_or(Dropped { newest: *month, mask: 0 });
                *dropped = Some(before.with(*month));
                is_changed = true;
            }
            is_needed
        });
        is_changed
    }
}
