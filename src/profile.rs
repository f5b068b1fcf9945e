//! What a key may do: its tier, its status and its policies, as D1 has them and as its object keeps them.

use crate::policy::{Algorithm, Period, Policy, PolicyError, Unit};
use crate::route_cost::{self, RouteCost};
use crate::time::UnixMicros;
use serde::{Deserialize, Serialize};

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may.
    Active,
    /// Switched off; can be switched on again.
    Disabled,
    /// Withdrawn for ever.
    Revoked,
    /// Its time is over. Never stored: it follows from `expires_at`.
    Expired,
}

impl Status {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// Why a key of this status is refused; `None` if it is not.
    #[must_use]
    pub const fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Active => None,
            Self::Disabled => Some("the API key is disabled"),
            Self::Revoked => Some("the API key is revoked"),
            Self::Expired => Some("the API key is expired"),
        }
    }

    /// This status at `now`, for a key that expires at `expires_at`.
    #[must_use]
    pub fn at(self, expires_at: Option<UnixMicros>, now: UnixMicros) -> Self {
        match expires_at {
            Some(end) if self == Self::Active && now >= end => Self::Expired,
            _ => self,
        }
    }
}

/// A row of `tier_limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// The name that clients see.
    pub policy: String,
    /// What it counts.
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Its period.
    pub period: Period,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Units at once, for buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

impl PolicyRow {
    fn policy(&self) -> Result<Policy, PolicyError> {
        let burst = self.burst.filter(|_| self.algorithm == Algorithm::Bucket);
        Policy::new(self.policy.clone(), self.unit, self.quota, self.period, self.algorithm, burst)
    }
}

/// The stored form of a profile. Rows of it lie in objects in the field: new fields need a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRow {
    /// The key's id.
    pub id: String,
    /// Its tier's name.
    pub tier: String,
    /// As stored; expiry is not in it.
    pub status: Status,
    /// Hash of the key's secret.
    pub secret_hash: String,
    /// Milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The tier's policies, in the order in which clients see them.
    pub policies: Vec<PolicyRow>,
    /// What calls cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteCost>,
}

/// A profile that decisions can be made with.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What it was made from.
    pub row: ProfileRow,
    /// Its policies, validated.
    pub policies: Vec<Policy>,
}

impl Profile {
    /// Validates a row.
    ///
    /// # Errors
    /// If a policy is not one that the engine can keep; the schema of D1 lets none of these in.
    pub fn new(row: ProfileRow) -> Result<Self, PolicyError> {
        let policies = row.policies.iter().map(PolicyRow::policy).collect::<Result<_, _>>()?;
        Ok(Self { row, policies })
    }

    /// What a call costs.
    #[must_use]
    pub fn cost(&self, method: &str, path: &str) -> u64 {
        route_cost::cost(&self.row.routes, method, path)
    }

    /// The key's status at `now`.
    #[must_use]
    pub fn status(&self, now: UnixMicros) -> Status {
        self.row.status.at(self.row.expires_at.map(UnixMicros::from_millis), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of this form lie in objects in the field.
    #[test]
    fn the_stored_form_is_frozen() {
        let text = r#"{"id":"k","tier":"free","status":"active","secret_hash":"h","policies":[{"policy":"minute","unit":"requests","quota":10,"period":"minute","algorithm":"fixed"}]}"#;
        let row: ProfileRow = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&row).unwrap(), text);
        assert_eq!(Profile::new(row).unwrap().policies.len(), 1);
    }

    #[test]
    fn only_an_active_key_expires() {
        let end = Some(UnixMicros::from_millis(10));
        assert_eq!(Status::Active.at(end, UnixMicros::from_millis(9)), Status::Active);
        assert_eq!(Status::Active.at(end, UnixMicros::from_millis(10)), Status::Expired);
        assert_eq!(Status::Active.at(None, UnixMicros::from_millis(10)), Status::Active);
        assert_eq!(Status::Revoked.at(end, UnixMicros::from_millis(10)), Status::Revoked);
    }
}
