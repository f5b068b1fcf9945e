//! What was charged and what was given back of it: two sums that only grow, so that of two states of
//! them the larger of each is the later one.

use crate::limiter::cost::Cost;

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

    pub(crate) const fn add(&mut self, more: Self) {
        self.charged = self.charged.saturating_add(more.charged);
        self.returned = self.returned.saturating_add(more.returned);
    }

    /// The larger of each, as D1 merges them too.
    pub(crate) fn merge(&mut self, other: Self) {
        self.charged = self.charged.max_of_each(other.charged);
        self.returned = self.returned.max_of_each(other.returned);
    }
}
