//! The outcome of judging a call, and the usage of every policy after it.

use crate::time::UnixMicros;

/// The usage of every policy at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSnapshot {
    /// In the order of the policies of the key.
    pub policies: Vec<PolicyUsage>,
    /// The clock reading. All waits and resets are relative to it.
    pub now: UnixMicros,
}

/// The verdict on one call, and the usage after it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Decision {
    pub verdict: Verdict,
    pub usage: UsageSnapshot,
}

/// The outcome of judging one call, which may be a repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The call is new. All policies judged it.
    Decided(Decision),
    /// The call repeats an admitted one, by its idempotency key.
    Replay {
        /// The decision on the repeat.
        decision: Decision,
        /// Whether month and token policies neither judged nor charged it. Otherwise it was judged
        /// and charged like a new call.
        is_free: bool,
    },
    /// The call was already admitted under the same nonce: its object request was retried. Nothing
    /// is counted.
    Recalled {
        /// Whether the call is a replay.
        is_replay: bool,
        /// The current usage.
        usage: UsageSnapshot,
    },
    /// The call repeats one that may still be in flight. It is neither judged nor counted.
    Conflict(UsageSnapshot),
    /// Its idempotency key was used for a different request. It is neither judged nor counted.
    Mismatch(UsageSnapshot),
}

impl Judgement {
    /// Whether the call may proceed to the origin.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        match self {
            Self::Decided(decision) | Self::Replay { decision, .. } => decision.is_admitted(),
            Self::Recalled { .. } => true,
            Self::Conflict(_) | Self::Mismatch(_) => false,
        }
    }
}

/// The verdict of all policies on one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every policy admits the call. Its cost is spent.
    Admitted,
    /// At least one policy refuses the call. Nothing is spent.
    Denied {
        /// The indices of all refusing policies, ascending.
        violated: Vec<usize>,
        /// Microseconds from [`UsageSnapshot::now`] to the first time at which every policy that
        /// holds then admits this call, assuming that no other call is admitted before. If the
        /// last scheduled policies never admit it, the time of their start. Never 0.
        retry_after: u64,
    },
    /// The call or reservation needs a hold, and the maximum number of holds is open. Nothing is
    /// spent.
    TooManyHolds {
        /// The indices of all policies that refuse it as well, ascending.
        violated: Vec<usize>,
        /// As in [`Denied`](Self::Denied), and at least the time until a hold expires.
        retry_after: u64,
    },
    /// The call costs more than a policy can ever admit, and no scheduled change lifts that limit.
    /// Waiting does not help. Nothing is spent.
    CostExceedsQuota {
        /// The index of the first such policy.
        policy: usize,
    },
}

/// The usage of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyUsage {
    /// The units that can be spent at once now. At most the quota, or the burst of a bucket.
    pub remaining: u64,
    /// The units that count against the quota now, except those of [`held`](Self::held). For a
    /// bucket, its level, rounded up. More than the quota if the quota was lowered since, or if a
    /// hold was settled beyond its amount.
    pub used: u64,
    /// The units that open holds set aside and that count against the quota now.
    pub held: u64,
    /// Microseconds from the clock reading to the reset: for a fixed window its end, for a log or a
    /// bucket the time at which more than `remaining` can be spent, or 0 if it is unused. At most
    /// the time until the policy is replaced.
    ///
    /// So no wait for a call that does not fit now is shorter than this, as
    /// draft-ietf-httpapi-ratelimit-headers requires of `Retry-After` and `t`.
    pub reset_after: u64,
}

impl Verdict {
    /// Whether the call may proceed to the origin.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted)
    }

    /// Whether a later call like this may be admitted.
    #[must_use]
    pub const fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::TooManyHolds { .. })
    }
}

impl Decision {
    /// Whether the verdict is [`Verdict::Admitted`].
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.verdict.is_admitted()
    }
}
