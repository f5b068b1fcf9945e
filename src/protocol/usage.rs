//! Usage of a key, as the admin API and self-service show it.

use crate::keys::profile::Status;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::time::UnixMicros;
use serde::{Deserialize, Serialize};

/// Usage of a key now, by policy, and its calls in the current month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct Usage {
    /// Id of the key.
    pub key_id: String,
    /// Name of the key's tier.
    pub tier: String,
    /// Whether the key may be used now.
    pub status: Status,
    /// Time of this state.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub as_of: String,
    /// Usage of each policy in force; empty if the key has no limits.
    pub policies: Vec<PolicyUsageBody>,
    /// The current UTC month.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[0-9]{4}-[0-9]{2}$"))]
    pub month: String,
    /// Calls admitted this month.
    pub calls: u64,
    /// Tokens charged this month.
    pub tokens: u64,
    /// Tokens charged this month beyond what was held for them.
    pub overdraft: u64,
    /// Of `tokens`, those charged for what was delivered of answers that were cut off.
    #[serde(default)]
    pub tokens_estimated: u64,
    /// Of `tokens`, those charged for holds and reservations that expired, without those that were
    /// settled or released since.
    #[serde(default)]
    pub tokens_expired: u64,
}

/// Usage of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema), schema(as = PolicyUsage))]
pub struct PolicyUsageBody {
    /// Name of the policy.
    pub policy: String,
    /// What the quota counts.
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Units that may be spent at once; only for `bucket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Units that count against the quota now, without those of `held`.
    pub used: u64,
    /// Units of open reservations that count against the quota now.
    #[serde(default)]
    pub held: u64,
    /// Units that can be spent now.
    pub remaining: u64,
    /// Period of the quota.
    pub period: Period,
    /// How the quota is enforced.
    pub algorithm: Algorithm,
    /// End of the window (`fixed`), or the time after which more than `remaining` can be spent
    /// (`sliding`, `bucket`).
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub reset_at: String,
}

impl PolicyUsageBody {
    /// The usage of a policy at `now`.
    #[must_use]
    pub fn new(policy: &Policy, standing: &crate::limiter::decision::PolicyUsage, now: UnixMicros) -> Self {
        Self {
            policy: policy.name().to_owned(),
            unit: policy.unit(),
            quota: policy.quota(),
            burst: (policy.algorithm() == Algorithm::Bucket).then_some(policy.burst()),
            used: standing.used,
            held: standing.held,
            remaining: standing.remaining,
            period: policy.period(),
            algorithm: policy.algorithm(),
            reset_at: crate::time::rfc3339(now.saturating_add(standing.reset_after)),
        }
    }
}
