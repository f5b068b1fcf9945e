//! Tiers and their policies.

use crate::admin::body::{Body, Fields};
use crate::http::idempotency_key::Idempotency;
use crate::http::problem::Problem;
use crate::keys::profile::PolicyRow;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit, is_name};
use serde::Serialize;

/// Policies of one tier at most.
const POLICIES_LIMIT: usize = 16;
/// The longest time for which the requests of a tier's keys are kept.
const AUDIT_DAYS_LIMIT: u64 = 3650;

/// What a policy is beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What it counts; requests unless it is said.
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Its period.
    pub period: Period,
    /// How it counts; fixed unless it is said.
    pub algorithm: Algorithm,
    /// Units at once, for buckets.
    pub burst: Option<u64>,
}

impl Body for Limit {
    fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let (quota, period) = (fields.number("quota")?, fields.word("period")?);
        Ok(Self {
            unit: fields.word("unit")?.unwrap_or(Unit::Requests),
            quota: fields.required("quota", quota)?,
            period: fields.required("period", period)?,
            algorithm: fields.word("algorithm")?.unwrap_or(Algorithm::Fixed),
            burst: if fields.is_null("burst") { None } else { fields.number("burst")? },
        })
    }
}

/// A policy, as the admin API takes and shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Policy))]
pub struct PolicyBody {
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
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub burst: Option<u64>,
}

impl Body for PolicyBody {
    fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let policy = fields.string("policy")?;
        let policy = fields.required("policy", policy)?;
        let Limit { unit, quota, period, algorithm, burst } = Limit::read(fields)?;
        Policy::new(policy.as_str(), unit, quota, period, algorithm, burst)
            .map_err(|error| fields.wrong(error.field(), error.to_string()))?;
        Ok(Self { policy, unit, quota, period, algorithm, burst })
    }
}

impl From<&PolicyBody> for PolicyRow {
    fn from(body: &PolicyBody) -> Self {
        let PolicyBody { policy, unit, quota, period, algorithm, burst } = body.clone();
        Self { policy, unit, quota, period, algorithm, burst }
    }
}

/// Body of `PUT /_tollgate/tiers/{name}`: the whole tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutTier {
    /// For people.
    pub description: String,
    /// For how many days requests are kept one by one.
    pub audit_days: u64,
    /// Whether its calls are recognised by their idempotency keys.
    pub idempotency: Idempotency,
    /// All its policies, in the order in which clients see them.
    pub policies: Vec<PolicyBody>,
}

impl Body for PutTier {
    fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let given = fields.objects::<PolicyBody>("policies", POLICIES_LIMIT)?;
        let mut policies: Vec<PolicyBody> = Vec::new();
        for (at, policy) in fields.required("policies", given)?.into_iter().enumerate() {
            if policies.iter().any(|other| other.policy == policy.policy) {
                return Err(fields.wrong(&format!("policies[{at}].policy"), "there is another one of this name"));
            }
            let is_later = |other: &PolicyBody| (other.period, &other.policy) > (policy.period, &policy.policy);
            policies.insert(policies.iter().position(is_later).unwrap_or(policies.len()), policy);
        }
        Ok(Self {
            description: fields.text("description")?.unwrap_or_default(),
            audit_days: fields.number_to("audit_days", AUDIT_DAYS_LIMIT)?.unwrap_or_default(),
            idempotency: fields.word("idempotency")?.unwrap_or_default(),
            policies,
        })
    }
}

impl PutTier {
    /// The tier of this name.
    ///
    /// # Errors
    /// 422 for a name that cannot be.
    pub fn named(self, name: &str) -> Result<Tier, Problem> {
        if !is_name(name) {
            return Err(Problem::invalid("name", "a tier's name is 1 to 32 characters of a-z, 0-9, '_' and '-'"));
        }
        let Self { description, audit_days, idempotency, policies } = self;
        Ok(Tier { name: name.to_owned(), description, audit_days, idempotency, policies })
    }
}

/// A tier, as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// For how many days requests are kept one by one.
    pub audit_days: u64,
    /// Whether its calls are recognised by their idempotency keys.
    pub idempotency: Idempotency,
    /// Its policies, in the order in which clients see them.
    pub policies: Vec<PolicyBody>,
}

/// What `PUT` answers: the tier, as JSON, and how many of its keys have been told, and have not yet; these find out within 60
/// seconds.
#[must_use]
pub fn changed(tier: &str, pushed: u64, pending: u64) -> String {
    let open = tier.strip_suffix('}').unwrap_or(tier);
    format!("{open},\"pushed\":{pushed},\"pending\":{pending}}}")
}

/// Why a tier cannot be deleted.
#[must_use]
pub fn in_use(keys: u64) -> String {
    match keys {
        1 => "1 key is of this tier: give it another one, or delete it".to_owned(),
        _ => format!("{keys} keys are of this tier: give them another one, or delete them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::parse;

    fn tier(name: &str, body: &str) -> Result<Tier, Problem> {
        parse::<PutTier>(body.as_bytes())?.named(name)
    }

    #[test]
    fn policies_are_in_the_order_of_their_periods() {
        let body = r#"{"policies":[
            {"policy":"b","quota":1,"period":"month"},
            {"policy":"z","quota":2,"period":"minute","algorithm":"bucket","burst":3},
            {"policy":"a","quota":1,"period":"minute"}]}"#;
        let tier = tier("gold", body).unwrap();
        assert_eq!((tier.name.as_str(), tier.description.as_str(), tier.audit_days), ("gold", "", 0));
        let text = changed(&serde_json::to_string(&tier).unwrap(), 3, 4);
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&shown["name"], &shown["pushed"], &shown["pending"]), (&"gold".into(), &3.into(), &4.into()));
        assert_eq!(shown["idempotency"], "on");
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
            ("gold", r#"{"policies":[],"idempotency":"maybe"}"#, "idempotency"),
            ("gold", r#"{"policies":[],"idempotency":false}"#, "idempotency"),
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
                Err(Problem::Invalid(named, _)) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
