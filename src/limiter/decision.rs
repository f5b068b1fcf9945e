//! What the engine answers: the verdict on one request, and where every policy stands after it.

use serde::{Deserialize, Serialize};

use crate::time::{UnixMicros, ceil_seconds};

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Admitted, or why not.
    pub verdict: Verdict,
    /// Where each policy stands after this decision, in the order of the policies.
    pub standings: Vec<PolicyUsage>,
    /// The clock reading that was judged. All waits count from it.
    pub now: UnixMicros,
}

/// The answer to one call, which may repeat another under the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It was judged against all policies.
    Decided(Decision),
    /// It repeats a call that was admitted.
    Replay {
        /// The decision.
        decision: Decision,
        /// Whether it was judged only against what protects the origin, and is charged to no policy of a month or of tokens. Otherwise it
        /// was judged and charged like a new call.
        is_free: bool,
    },
    /// It repeats a call that may still be in flight: it was not judged, and is counted nowhere.
    Conflict {
        /// Where every policy stands.
        standings: Vec<PolicyUsage>,
        /// The clock reading.
        now: UnixMicros,
    },
    /// Its idempotency key was used for another request: it was not judged, and is counted nowhere.
    Mismatch {
        /// Where every policy stands.
        standings: Vec<PolicyUsage>,
        /// The clock reading.
        now: UnixMicros,
    },
}

impl Judgement {
    /// Whether the call may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        match self {
            Self::Decided(decision) | Self::Replay { decision, .. } => decision.is_admitted(),
            Self::Conflict { .. } | Self::Mismatch { .. } => false,
        }
    }
}

/// Admitted or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every policy admits the request, and it has been counted.
    Admitted,
    /// At least one policy refuses the request; nothing was spent.
    Denied {
        /// Every refusing policy, as indices into the policies, in their order.
        violated: Vec<usize>,
        /// Microseconds from [`Decision::now`] to the first moment at which every policy that holds then admits this
        /// request, if nothing else is admitted before; if no policies that are known ever will again, to the moment
        /// from which on that is so. Never 0.
        retry_after: u64,
    },
    /// The request costs more than a policy can ever admit, and no others that admit it are known to follow, so that
    /// waiting does not help; nothing was spent.
    CostExceedsQuota {
        /// The first such policy, as an index into the policies.
        policy: usize,
    },
}

/// Where one policy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyUsage {
    /// What can still be spent at once. At most the quota, or the burst of a bucket.
    pub remaining: u64,
    /// What counts against the quota now. More than the quota if the quota was lowered since; of a bucket its level,
    /// rounded up.
    pub used: u64,
    /// Microseconds from the clock reading to the end of the window (fixed), or to the moment at which more than
    /// `remaining` can be spent (sliding, bucket; 0 if nothing counts now). So a wait for what does not fit now is never
    /// shorter than this, as draft-ietf-httpapi-ratelimit-headers asks of `Retry-After` and `t`. No later than the moment
    /// at which the policy no longer holds.
    pub reset_after: u64,
}

impl PolicyUsage {
    /// [`reset_after`](Self::reset_after) in seconds, rounded up.
    #[must_use]
    pub const fn reset_after_seconds(&self) -> u64 {
        ceil_seconds(self.reset_after)
    }
}

impl Verdict {
    /// Whether the request may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted)
    }

    /// Whole seconds that a denied client must wait: rounded up, at least 1. Also 1 where there is nothing to wait for.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        match self {
            Self::Denied { retry_after, .. } => ceil_seconds(*retry_after).max(1),
            Self::Admitted | Self::CostExceedsQuota { .. } => 1,
        }
    }
}

impl Decision {
    /// Whether the request may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.verdict.is_admitted()
    }

    /// Whole seconds that a denied client must wait: rounded up, at least 1. Also 1 where there is nothing to wait for.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        self.verdict.retry_after_seconds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_seconds_and_never_none() {
        let denied = |retry_after| Verdict::Denied { violated: vec![0], retry_after };
        assert_eq!([0, 1, 1_000_000, 1_000_001].map(|wait| denied(wait).retry_after_seconds()), [1, 1, 1, 2]);
        assert_eq!(Verdict::Admitted.retry_after_seconds(), 1);
        let decision = Decision { verdict: denied(2_500_000), standings: Vec::new(), now: UnixMicros::default() };
        assert_eq!((decision.retry_after_seconds(), decision.is_admitted()), (3, false));
        assert!(Verdict::Admitted.is_admitted());
        assert!(!Verdict::CostExceedsQuota { policy: 0 }.is_admitted());
        let admitted = Decision { verdict: Verdict::Admitted, ..decision };
        assert!(admitted.is_admitted());
        let standing = |reset_after| PolicyUsage { remaining: 0, used: 1, reset_after };
        assert_eq!([0, 1, 1_000_001].map(|reset| standing(reset).reset_after_seconds()), [0, 1, 2]);
    }
}
