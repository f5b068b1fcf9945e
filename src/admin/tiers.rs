//! Tiers and their policies.

use super::Text;
use crate::policy::{Algorithm, Period, Policy, PolicyError, Unit};
use crate::profile::PolicyRow;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};

/// Policies of one tier at most.
const POLICIES_LIMIT: usize = 16;
/// The longest time for which the requests of a tier's keys are kept.
const AUDIT_DAYS_LIMIT: u32 = 3650;

pub(super) const fn default_unit() -> Unit {
    Unit::Requests
}

pub(super) const fn default_algorithm() -> Algorithm {
    Algorithm::Fixed
}

/// A policy, as the admin API takes and shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyBody {
    /// The name that clients see.
    pub policy: String,
    /// What it counts.
    #[serde(default = "default_unit")]
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Its period.
    pub period: Period,
    /// How it counts.
    #[serde(default = "default_algorithm")]
    pub algorithm: Algorithm,
    /// Units at once, for buckets.
    #[serde(default)]
    pub burst: Option<u64>,
}

impl PolicyBody {
    /// The row of this policy.
    ///
    /// # Errors
    /// If it is not one that the engine can keep.
    pub fn into_row(self) -> Result<PolicyRow, PolicyError> {
        let Self { policy, unit, quota, period, algorithm, burst } = self;
        Policy::new(policy.as_str(), unit, quota, period, algorithm, burst)?;
        Ok(PolicyRow { policy, unit, quota, period, algorithm, burst })
    }
}

/// Body of `PUT /_tollgate/tiers/{name}`: the whole tier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutTier {
    /// For people.
    #[serde(default)]
    pub description: Text,
    /// For how many days requests are kept one by one.
    #[serde(default)]
    pub audit_days: AuditDays,
    /// All its policies.
    pub policies: Vec<PolicyBody>,
}

/// Days from 0 to 3650.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct AuditDays(pub u32);

impl TryFrom<u32> for AuditDays {
    type Error = String;

    fn try_from(days: u32) -> Result<Self, String> {
        if days > AUDIT_DAYS_LIMIT {
            return Err(format!("must be 0 to {AUDIT_DAYS_LIMIT}"));
        }
        Ok(Self(days))
    }
}

impl PutTier {
    /// The tier of this name.
    ///
    /// # Errors
    /// 422 for a name or a policy that cannot be.
    pub fn into_tier(self, name: &str) -> Result<Tier, Refusal> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if !(1..=32).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(Refusal::invalid("name", "a tier's name is 1 to 32 characters of a-z, 0-9, '_' and '-'"));
        }
        if self.policies.len() > POLICIES_LIMIT {
            return Err(Refusal::invalid("policies", format!("a tier has at most {POLICIES_LIMIT}")));
        }
        for (at, policy) in self.policies.iter().enumerate() {
            let wrong = |field: &str, reason| Refusal::invalid(format!("policies[{at}].{field}"), reason);
            if let Err(error) = policy.clone().into_row() {
                return Err(wrong(error.field(), error.to_string()));
            }
            if self.policies.iter().take(at).any(|other| other.policy == policy.policy) {
                return Err(wrong("policy", "there is another one of this name".to_owned()));
            }
        }
        let mut policies = self.policies;
        policies.sort_by(|a, b| (a.period, &a.policy).cmp(&(b.period, &b.policy)));
        Ok(Tier { name: name.to_owned(), description: self.description.0, audit_days: self.audit_days.0, policies })
    }
}

/// A tier, as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// For how many days requests are kept one by one.
    pub audit_days: u32,
    /// Its policies, in the order in which clients see them.
    pub policies: Vec<PolicyBody>,
}

/// What `PUT` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierChanged {
    /// Its name.
    pub name: String,
    /// See [`Tier`].
    pub description: String,
    /// See [`Tier`].
    pub audit_days: u32,
    /// See [`Tier`].
    pub policies: Vec<PolicyBody>,
    /// How many keys of the tier have been told.
    pub pushed: u64,
    /// How many have not yet; they find out within 60 seconds.
    pub pending: u64,
}

/// A page of tiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierList {
    /// By name.
    pub tiers: Vec<Tier>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse;

    fn tier(name: &str, body: &str) -> Result<Tier, Refusal> {
        parse::<PutTier>(body.as_bytes())?.into_tier(name)
    }

    #[test]
    fn policies_are_in_the_order_of_their_periods() {
        let body = r#"{"policies":[
            {"policy":"b","quota":1,"period":"month"},
            {"policy":"z","quota":2,"period":"minute","algorithm":"bucket","burst":3},
            {"policy":"a","quota":1,"period":"minute"}]}"#;
        let tier = tier("gold", body).unwrap();
        assert_eq!((tier.name.as_str(), tier.description.as_str(), tier.audit_days), ("gold", "", 0));
        assert_eq!(tier.policies.iter().map(|p| p.policy.as_str()).collect::<Vec<_>>(), ["a", "z", "b"]);
    }

    #[test]
    fn a_bad_body_is_told_the_field() {
        let policy = r#"{"policy":"a","quota":1,"period":"day"}"#;
        let many = format!(r#"{{"policies":[{}]}}"#, vec![policy; 17].join(","));
        let twice = format!(r#"{{"policies":[{policy},{policy}]}}"#);
        for (name, body, field) in [
            ("gold", "{}", "policies"),
            ("gold", r#"{"policies":{}}"#, "policies"),
            ("gold", r#"{"policies":[],"audit_days":3651}"#, "audit_days"),
            ("gold", r#"{"policies":[],"audit_days":-1}"#, "audit_days"),
            ("gold", r#"{"policies":[],"description":"a\nb"}"#, "description"),
            ("gold", r#"{"policies":[],"name":"x"}"#, "name"),
            ("Gold", r#"{"policies":[]}"#, "name"),
            ("gold", r#"{"policies":[7]}"#, "policies[0]"),
            ("gold", r#"{"policies":[{"quota":1,"period":"day"}]}"#, "policies[0].policy"),
            ("gold", r#"{"policies":[{"policy":"a","quota":1,"period":"day","x":1}]}"#, "policies[0].x"),
            ("gold", r#"{"policies":[{"policy":"a","quota":"1","period":"day"}]}"#, "policies[0].quota"),
            ("gold", r#"{"policies":[{"policy":"A","quota":1,"period":"day"}]}"#, "policies[0].policy"),
            ("gold", r#"{"policies":[{"policy":"a","quota":1,"period":"day","burst":0}]}"#, "policies[0].burst"),
            ("gold", twice.as_str(), "policies[1].policy"),
            ("gold", many.as_str(), "policies"),
        ] {
            match tier(name, body) {
                Err(Refusal::Invalid(named, _)) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
