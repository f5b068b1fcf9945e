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
}
