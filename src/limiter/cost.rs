//! The cost of a call, in each unit.

use serde::{Deserialize, Serialize};

use crate::limiter::policy::Unit;

/// What a request spends of each unit. A policy whose unit it spends nothing of does not judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cost {
    /// Spent from policies of [`Unit::Requests`].
    pub requests: u64,
    /// Spent from policies of [`Unit::Tokens`].
    pub tokens: u64,
}

impl Default for Cost {
    fn default() -> Self {
        Self { requests: 1, tokens: 0 }
    }
}

impl Cost {
    /// What is spent of `unit`.
    #[must_use]
    pub const fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
        }
    }
}
