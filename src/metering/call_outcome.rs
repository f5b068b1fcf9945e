//! How calls ended.

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
