//! Totals by calendar month: what month policies count, and what is metered.
//!
//! D1 keeps the larger of two totals, so a month that was dropped must never be counted again: its
//! new counts would vanish behind the old ones, and what was spent of it would be forgotten. Kept
//! are the current month, the one before and all later ones, all that D1 does not have, and the
//! `KEPT` newest: to one of these a clock comes back that was ahead. Should it come back to a month
//! that was dropped, that is counted in the next one that is kept.

use serde::{Deserialize, Serialize};

use crate::limiter::cost::Cost;
use crate::limiter::policy::Unit;
use crate::time::Month;

/// Months kept at least, the newest.
const KEPT: usize = 3;

/// What earlier epochs recorded of a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Requests that were admitted, whatever they cost.
    pub calls: u64,
    /// Requests that were charged.
    pub cost: u64,
    /// Tokens that were charged.
    pub tokens: u64,
}

/// What one month holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthTotal {
    /// The month.
    pub month: Month,
    /// Requests admitted in this epoch, whatever they cost.
    pub calls: u64,
    /// Requests denied in this epoch.
    pub denied: u64,
    /// What earlier epochs recorded of this month: spent from month policies, not part of the other
    /// counts.
    pub carried: Carried,
    /// Requests charged in this epoch: what the calls cost.
    pub cost: u64,
    /// Tokens charged in this epoch.
    pub tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MonthCounts {
    pub(crate) calls: u64,
    pub(crate) denied: u64,
    pub(crate) carried: Carried,
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    pub(crate) flushed_calls: u64,
    pub(crate) flushed_denied: u64,
}

impl MonthCounts {
    fn is_flushed(&self) -> bool {
        (self.calls, self.denied) == (self.flushed_calls, self.flushed_denied)
    }
}

/// Which months were dropped, as far as they are less than 64 months older than the newest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    newest: Month,
    /// A bit for each: the lowest for the newest, the next one for the month before it, and so on.
    mask: u64,
}

impl Dropped {
    /// Reads what [`to_row`](Self::to_row) gives.
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

/// The months that still matter. In their order; a list, because they are a few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Months {
    kept: Vec<(Month, MonthCounts)>,
    dropped: Option<Dropped>,
}

impl Months {
    pub(crate) fn from_kept(months: impl IntoIterator<Item = (Month, MonthCounts)>, dropped: Option<Dropped>) -> Self {
        let mut read = Self { dropped, ..Self::default() };
        for (month, totals) in months {
            read.change(month, |kept| *kept = totals);
        }
        read
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Month, &MonthCounts)> {
        self.kept.iter().map(|(month, totals)| (*month, totals))
    }

    /// The months that were dropped, if there are any.
    pub(crate) const fn dropped(&self) -> Option<Dropped> {
        self.dropped
    }

    pub(crate) fn is_kept(&self, month: Month) -> bool {
        self.get(month).is_some()
    }

    /// The month in which `month` is counted.
    pub(crate) fn place(&self, month: Month) -> Month {
        if self.is_kept(month) || self.dropped.is_none_or(|dropped| !dropped.contains(month)) {
            return month;
        }
        self.kept.iter().map(|(kept, _)| *kept).find(|kept| *kept >= month).unwrap_or(month)
    }

    fn get(&self, month: Month) -> Option<&MonthCounts> {
        self.kept.iter().find(|(kept, _)| *kept == month).map(|(_, totals)| totals)
    }

    fn change(&mut self, month: Month, change: impl FnOnce(&mut MonthCounts)) {
        if let Some((_, totals)) = self.kept.iter_mut().find(|(kept, _)| *kept == month) {
            return change(totals);
        }
        let mut totals = MonthCounts::default();
        change(&mut totals);
        let at = self.kept.partition_point(|(kept, _)| *kept < month);
        self.kept.insert(at, (month, totals));
    }

    /// Counts `calls` admitted requests that cost `cost` together.
    pub(crate) fn count(&mut self, month: Month, calls: u64, cost: Cost) {
        self.change(self.place(month), |totals| {
            totals.calls = totals.calls.saturating_add(calls);
            totals.requests = totals.requests.saturating_add(cost.requests);
            totals.tokens = totals.tokens.saturating_add(cost.tokens);
        });
    }

    pub(crate) fn deny(&mut self, month: Month, denied: u64) {
        self.change(self.place(month), |totals| totals.denied = totals.denied.saturating_add(denied));
    }

    /// True if that changed anything.
    pub(crate) fn carry(&mut self, month: Month, carried: Carried) -> bool {
        if self.total(month).carried == carried {
            return false;
        }
        self.change(month, |totals| totals.carried = carried);
        true
    }

    /// What a month policy of `unit` has seen spent in `month`.
    pub(crate) fn used(&self, unit: Unit, month: Month) -> u64 {
        self.get(self.place(month)).map_or(0, |totals| match unit {
            Unit::Requests => totals.requests.saturating_add(totals.carried.cost),
            Unit::Tokens => totals.tokens.saturating_add(totals.carried.tokens),
        })
    }

    pub(crate) fn total(&self, month: Month) -> MonthTotal {
        let totals = self.get(month).copied().unwrap_or_default();
        let MonthCounts { calls, denied, carried, requests, tokens, .. } = totals;
        MonthTotal { month, calls, denied, carried, cost: requests, tokens }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.kept.iter().all(|(_, totals)| totals.is_flushed())
    }

    pub(crate) fn unflushed(&self) -> Vec<MonthTotal> {
        self.kept.iter().filter(|(_, totals)| !totals.is_flushed()).map(|(month, _)| self.total(*month)).collect()
    }

    /// Notes what a flush has stored, then drops what need not be kept in `current`. True if that
    /// changed anything.
    pub(crate) fn mark_flushed(&mut self, month: Month, calls: u64, denied: u64, current: Month) -> bool {
        let mut is_changed = false;
        if let Some((_, totals)) = self.kept.iter_mut().find(|(kept, _)| *kept == month) {
            // MonthCounts only grow, so an acknowledgement that comes late says nothing new.
            is_changed = calls > totals.flushed_calls || denied > totals.flushed_denied;
            totals.flushed_calls = totals.flushed_calls.max(calls);
            totals.flushed_denied = totals.flushed_denied.max(denied);
        }
        let mut newer = self.kept.len();
        let dropped = &mut self.dropped;
        self.kept.retain(|(month, totals)| {
            newer -= 1;
            let is_needed = newer < KEPT || *month >= current.previous() || !totals.is_flushed();
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
