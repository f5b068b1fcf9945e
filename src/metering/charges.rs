//! What was charged and what was given back of it: two sums that only grow, so that of two states of
//! them the larger of each is the later one.

use crate::limiter::cost::Cost;

/// The largest sum of a meter: every reader of JSON has it exactly, and D1 can add a thousand of them.
const SUM_LIMIT: u64 = (1 << 53) - 1;

/// The sum of two counts of a meter, at most [`SUM_LIMIT`]. A count never becomes less.
pub(crate) fn sum(count: u64, more: u64) -> u64 {
    count.saturating_add(more).min(SUM_LIMIT).max(count)
}

fn sum_of_each(count: Cost, more: Cost) -> Cost {
    Cost { requests: sum(count.requests, more.requests), tokens: sum(count.tokens, more.tokens) }
}

/// Charges of one month, or of one hour and class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charges {
    pub(crate) charged: Cost,
    /// Never more than was charged.
    pub(crate) returned: Cost,
}

impl Default for Charges {
    fn default() -> Self {
        Self { charged: Cost::NONE, returned: Cost::NONE }
    }
}

impl Charges {
    pub(crate) const fn of(charged: Cost) -> Self {
        Self { charged, returned: Cost::NONE }
    }

    /// What remains charged.
    pub(crate) const fn net(&self) -> Cost {
        self.charged.saturating_sub(self.returned)
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.charged = sum_of_each(self.charged, more.charged);
        self.returned = sum_of_each(self.returned, more.returned);
    }

    /// The larger of each, as D1 merges them too.
    pub(crate) fn merge(&mut self, other: Self) {
        self.charged = self.charged.max_of_each(other.charged);
        self.returned = self.returned.max_of_each(other.returned);
    }
}
