//! Totals by calendar month: what month policies count, and what is metered.

use serde::{Deserialize, Serialize};

use crate::limit::Cost;
use crate::policy::Unit;
use crate::time::Month;

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
    /// What earlier epochs recorded of this month: spent from month policies, not part of the other counts.
    pub carried: Carried,
    /// Requests charged in this epoch: what the calls cost.
    pub cost: u64,
    /// Tokens charged in this epoch.
    pub tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) denied: u64,
    pub(super) carried: Carried,
    pub(super) requests: u64,
    pub(super) tokens: u64,
    pub(super) flushed_calls: u64,
    pub(super) flushed_denied: u64,
}

impl Totals {
    fn is_flushed(&self) -> bool {
        (self.calls, self.denied) == (self.flushed_calls, self.flushed_denied)
    }
}

/// The months that still matter: the current and the previous one, and all that are not flushed. In their order; a list, because
/// they are two or three.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Months {
    kept: Vec<(Month, Totals)>,
}

impl Months {
    pub(super) fn from_iter(months: impl IntoIterator<Item = (Month, Totals)>) -> Self {
        let mut read = Self::default();
        for (month, totals) in months {
            read.change(month, |kept| *kept = totals);
        }
        read
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Month, &Totals)> {
        self.kept.iter().map(|(month, totals)| (*month, totals))
    }

    fn get(&self, month: Month) -> Option<&Totals> {
        self.kept.iter().find(|(kept, _)| *kept == month).map(|(_, totals)| totals)
    }

    fn change(&mut self, month: Month, change: impl FnOnce(&mut Totals)) {
        if let Some((_, totals)) = self.kept.iter_mut().find(|(kept, _)| *kept == month) {
            return change(totals);
        }
        let mut totals = Totals::default();
        change(&mut totals);
        let at = self.kept.partition_point(|(kept, _)| *kept < month);
        self.kept.insert(at, (month, totals));
    }

    /// Counts `calls` admitted requests that cost `cost` together.
    pub(super) fn count(&mut self, month: Month, calls: u64, cost: Cost) {
        self.change(month, |totals| {
            totals.calls = totals.calls.saturating_add(calls);
            totals.requests = totals.requests.saturating_add(cost.requests);
            totals.tokens = totals.tokens.saturating_add(cost.tokens);
        });
    }

    pub(super) fn deny(&mut self, month: Month, denied: u64) {
        self.change(month, |totals| totals.denied = totals.denied.saturating_add(denied));
    }

    /// True if that changed anything.
    pub(super) fn carry(&mut self, month: Month, carried: Carried) -> bool {
        if self.total(month).carried == carried {
            return false;
        }
        self.change(month, |totals| totals.carried = carried);
        true
    }

    /// What a month policy of `unit` has seen spent in `month`.
    pub(super) fn used(&self, unit: Unit, month: Month) -> u64 {
        self.get(month).map_or(0, |totals| match unit {
            Unit::Requests => totals.requests.saturating_add(totals.carried.cost),
            Unit::Tokens => totals.tokens.saturating_add(totals.carried.tokens),
        })
    }

    pub(super) fn total(&self, month: Month) -> MonthTotal {
        let totals = self.get(month).copied().unwrap_or_default();
        let Totals { calls, denied, carried, requests, tokens, .. } = totals;
        MonthTotal { month, calls, denied, carried, cost: requests, tokens }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.kept.iter().all(|(_, totals)| totals.is_flushed())
    }

    pub(super) fn unflushed(&self) -> Vec<MonthTotal> {
        self.kept.iter().filter(|(_, totals)| !totals.is_flushed()).map(|(month, _)| self.total(*month)).collect()
    }

    /// Notes what a flush has stored, then drops months before the one that precedes `current`, once stored. True if
    /// that changed anything.
    pub(super) fn mark_flushed(&mut self, month: Month, calls: u64, denied: u64, current: Month) -> bool {
        let before = self.kept.len();
        let mut is_news = false;
        if let Some((_, totals)) = self.kept.iter_mut().find(|(kept, _)| *kept == month) {
            // Totals only grow, so an acknowledgement that comes late says nothing new.
            is_news = calls > totals.flushed_calls || denied > totals.flushed_denied;
            totals.flushed_calls = totals.flushed_calls.max(calls);
            totals.flushed_denied = totals.flushed_denied.max(denied);
        }
        self.kept.retain(|(month, totals)| *month >= current.previous() || !totals.is_flushed());
        is_news || self.kept.len() < before
    }
}
