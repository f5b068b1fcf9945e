//! How calls ended.

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOutcome {
    /// The call's nonce.
    pub nonce: u64,
    /// The origin's status.
    pub status: u16,
    /// Milliseconds from the question to the origin's answer.
    pub duration_ms: u64,
}
