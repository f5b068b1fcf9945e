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

impl Cost {
    /// The cost in `unit`.
    #[must_use]
    pub const fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
        }
    }
}
