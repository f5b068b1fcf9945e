//! The cost of a call, in each unit.

use serde::{Deserialize, Serialize};

use crate::limiter::policy::Unit;

/// The units that a call spends. A policy whose unit has cost 0 always admits the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Cost {
    pub requests: u64,
    pub tokens: u64,
}

impl Default for Cost {
    fn default() -> Self {
        Self { requests: 1, tokens: 0 }
    }
}

/// Tokens that one call holds or is charged at most, whatever its body or its origin says. Any quota
/// is less. Sums of it fit into the integers of D1 and of JSON.
pub const CALL_TOKENS_LIMIT: u64 = 1_000_000_000_000;

impl Cost {
    /// Nothing.
    pub const NONE: Self = Self { requests: 0, tokens: 0 };

    /// The sum, in each unit.
    #[must_use]
    pub const fn saturating_add(self, more: Self) -> Self {
        Self { requests: self.requests.saturating_add(more.requests), tokens: self.tokens.saturating_add(more.tokens) }
    }

    /// What is left if `less` is taken away, in each unit.
    #[must_use]
    pub const fn saturating_sub(self, less: Self) -> Self {
        Self { requests: self.requests.saturating_sub(less.requests), tokens: self.tokens.saturating_sub(less.tokens) }
    }

    /// The larger of two costs, in each unit.
    #[must_use]
    pub fn max_of_each(self, other: Self) -> Self {
        Self { requests: self.requests.max(other.requests), tokens: self.tokens.max(other.tokens) }
    }

    /// The cost in `unit`.
    #[must_use]
    pub const fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
        }
    }
}
