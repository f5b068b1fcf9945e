//! What a key has used, for people.

use crate::keys::profile::Status;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::time::UnixMicros;
use serde::{Deserialize, Serialize};

/// Usage of a key now and in the current month: the body of `GET /_tollgate/keys/{id}/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct Usage {
    /// The key's id.
    pub key_id: String,
    /// Its tier.
    pub tier: String,
    /// Its status.
    pub status: Status,
    /// When this was read, RFC 3339.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub as_of: String,
    /// Where it stands with each policy.
    pub policies: Vec<PolicyUsageBody>,
    /// The current UTC month.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[0-9]{4}-[0-9]{2}$"))]
    pub month: String,
    /// Calls admitted in it.
    pub calls: u64,
}

/// Where a key stands with one policy, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema), schema(as = PolicyUsage))]
pub struct PolicyUsageBody {
    /// Its name.
    pub policy: String,
    /// Its unit.
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Units at once, of a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Units that count against it now.
    pub used: u64,
    /// Units left.
    pub remaining: u64,
    /// Its period.
    pub period: Period,
    /// How it counts.
    pub algorithm: Algorithm,
    /// When it resets, RFC 3339.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub reset_at: String,
}

impl PolicyUsageBody {
    /// Joins a policy and where a key stands with it at `now`.
    #[must_use]
    pub fn new(policy: &Policy, standing: &crate::limiter::decision::PolicyUsage, now: UnixMicros) -> Self {
        Self {
            policy: policy.name().to_owned(),
            unit: policy.unit(),
            quota: policy.quota(),
            burst: (policy.algorithm() == Algorithm::Bucket).then_some(policy.burst()),
            used: standing.used,
            remaining: standing.remaining,
            period: policy.period(),
            algorithm: policy.algorithm(),
            reset_at: crate::time::rfc3339(now.saturating_add(standing.reset_after)),
        }
    }
}
