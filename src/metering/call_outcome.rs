//! How calls ended.

use serde::Serialize;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CallOutcome {
    /// The nonce of the call.
    pub nonce: u64,
    /// The origin's status.
    pub status: u16,
    /// Milliseconds from the request to the origin until its response.
    pub duration_ms: u64,
    /// What is charged of the hold of the call. `None` without a hold.
    pub used: Option<UsedTokens>,
    /// What the call costs in the end, if its cost may be lowered.
    pub cost: Option<FinalCost>,
}

/// The final cost of a call, in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalCost {
    /// What it was charged, because the answer does not say.
    AsCharged,
    /// So many, and at most what it was charged.
    Requests(u64),
}

/// The tokens that a call has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsedTokens {
    /// So many, as the origin says.
    Reported(u64),
    /// At most so many: the answer was cut off.
    Estimated(u64),
    /// As many as were held, because the answer does not say.
    Held,
}

/// The tokens that are charged for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TokenCharge {
    pub tokens: u64,
    pub basis: ChargeBasis,
}

/// What a call that has ended is charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCharge {
    /// `None` of a call without a hold of tokens.
    pub tokens: Option<TokenCharge>,
    /// How many of the requests that it was charged it got back.
    pub returned: u64,
}

/// What the tokens that are charged for a call are based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum ChargeBasis {
    /// The usage that the origin reports.
    Reported,
    /// What was delivered of an answer that was cut off.
    Estimated,
    /// The whole hold, because the answer does not report its usage.
    Held,
    /// The whole hold, because nothing has settled it.
    Expired,
}

impl UsedTokens {
    /// What a charge of these tokens is based on.
    #[must_use]
    pub const fn basis(self) -> ChargeBasis {
        match self {
            Self::Reported(_) => ChargeBasis::Reported,
            Self::Estimated(_) => ChargeBasis::Estimated,
            Self::Held => ChargeBasis::Held,
        }
    }
}
