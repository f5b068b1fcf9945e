//! The outcome of judging one call, and the usage of every policy after it.

use crate::time::UnixMicros;

/// The usage of every policy at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSnapshot {
    /// In the order of the policies.
    pub policies: Vec<PolicyUsage>,
    /// The clock reading. All waits and resets count from it.
    pub now: UnixMicros,
}

/// The verdict of all policies on one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Admitted, or why not.
    pub verdict: Verdict,
    /// The usage after this decision.
    pub usage: UsageSnapshot,
}

/// The outcome of one call, which may repeat another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It was judged by all policies.
    Decided(Decision),
    /// It repeats a call that was admitted, by its idempotency key.
    Replay {
        /// The decision on the repeat.
        decision: Decision,
        /// Whether it was judged only by the policies that protect the origin, and is charged to no
        /// policy of months or tokens. Otherwise it was judged and charged like a new call.
        is_free: bool,
    },
    /// It was admitted before, under the same nonce: this is the same call, asked about again.
    /// Nothing is counted.
    Recalled {
        /// Whether it is a replay.
        is_replay: bool,
        /// The present usage.
        usage: UsageSnapshot,
    },
    /// It repeats a call that may still be in flight. It was not judged, and is counted nowhere.
    Conflict(UsageSnapshot),
    /// Its idempotency key was used for another request. It was not judged, and is counted nowhere.
    Mismatch(UsageSnapshot),
}

impl Judgement {
    /// Whether the call may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        match self {
            Self::Decided(decision) | Self::Replay { decision, .. } => decision.is_admitted(),
            Self::Recalled { .. } => true,
            Self::Conflict(_) | Self::Mismatch(_) => false,
        }
    }
}

/// Admitted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every policy admits the request, and it has been counted.
    Admitted,
    /// At least one policy refuses the request; nothing was spent.
    Denied {
        /// Every refusing policy, as indices into the policies, in their order.
        violated: Vec<usize>,
        /// Microseconds from [`UsageSnapshot::now`] to the first moment at which every policy that
        /// holds then admits this request, if nothing else is admitted before; if no policies that
        /// are known ever will again, to the moment from which on that is so. Never 0.
        retry_after: u64,
    },
    /// The request costs more than a policy can ever admit, and no others that admit it are known
    /// to follow, so that waiting does not help; nothing was spent.
    CostExceedsQuota {
        /// The first such policy, as an index into the policies.
        policy: usize,
    },
}

/// The usage of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyUsage {
    /// What can still be spent at once. At most the quota, or the burst of a bucket.
    pub remaining: u64,
    /// What counts against the quota now. More than the quota if the quota was lowered since; of a
    /// bucket its level, rounded up.
    pub used: u64,
    /// Microseconds from the clock reading to the end of the window (fixed), or to the moment at
    /// which more than `remaining` can be spent (sliding, bucket; 0 if nothing counts now). So a
    /// wait for what does not fit now is never shorter than this, as
    /// draft-ietf-httpapi-ratelimit-headers asks of `Retry-After` and `t`. No later than the moment
    /// at which the policy no longer holds.
    pub reset_after: u64,
}

impl Verdict {
    /// Whether the call may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted)
    }
}

impl Decision {
    /// Whether the call may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.verdict.is_admitted()
    }
}
