//! Tiers and their policies: request bodies and responses.

use crate::admin::body::{FromFields, JsonFields, Limits, TEXT_LIMIT};
use crate::http::idempotency_key::Idempotency;
use crate::http::problem::Problem;
use crate::keys::profile::PolicyRow;
use crate::limiter::policy::{Algorithm, MAX_QUOTA, Period, Policy, Unit, is_name};
use serde::Serialize;

/// The most policies that a tier may have.
const POLICIES_LIMIT: usize = 16;
/// The longest retention of the audit log, in days.
const AUDIT_DAYS_LIMIT: u64 = 3650;

/// A policy without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct PolicyLimit {
    /// What the quota counts. Default: `requests`.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub unit: Unit,
    /// Units per period. At most 10000 for `sliding`, at least 1 for `bucket`.
    pub quota: u64,
    /// Period of the quota.
    pub period: Period,
    /// How the quota is enforced. Default: `fixed`, the only one for a month. `sliding` is only for
    /// requests.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub algorithm: Algorithm,
    /// Units that may be spent at once, only for `bucket`. `null` (the default): the quota.
    pub burst: Option<u64>,
}

impl FromFields for PolicyLimit {
    const LIMITS: Limits = &[("quota", "maximum", MAX_QUOTA), ("burst", "minimum", 1), ("burst", "maximum", MAX_QUOTA)];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
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

/// A policy in the body that sets a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct PutPolicy {
    /// Name that clients see in the rate-limit fields; unique in a tier.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub policy: String,
    #[expect(missing_docs, reason = "a part of the same object")]
    #[cfg_attr(not(target_arch = "wasm32"), schema(inline))]
    pub limit: PolicyLimit,
}

impl FromFields for PutPolicy {
    const LIMITS: Limits = PolicyLimit::LIMITS;
    const FLAT: &'static [&'static str] = &["limit"];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let policy = fields.string("policy")?;
        let policy = fields.required("policy", policy)?;
        let limit = PolicyLimit::read(fields)?;
        let PolicyLimit { unit, quota, period, algorithm, burst } = limit;
        Policy::new(policy.as_str(), unit, quota, period, algorithm, burst)
            .map_err(|error| fields.wrong(error.field(), error.to_string()))?;
        Ok(Self { policy, limit })
    }
}

/// A policy of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Policy))]
pub struct PolicyView {
    /// Name that clients see in the rate-limit fields.
    pub policy: String,
    /// What the quota counts.
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Period of the quota.
    pub period: Period,
    /// How the quota is enforced.
    pub algorithm: Algorithm,
    /// Units that may be spent at once; `null` unless `algorithm` is `bucket` and the burst was
    /// set.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub burst: Option<u64>,
}

impl From<PutPolicy> for PolicyView {
    fn from(put: PutPolicy) -> Self {
        let PolicyLimit { unit, quota, period, algorithm, burst } = put.limit;
        Self { policy: put.policy, unit, quota, period, algorithm, burst }
    }
}

impl From<&PolicyView> for PolicyRow {
    fn from(view: &PolicyView) -> Self {
        let PolicyView { policy, unit, quota, period, algorithm, burst } = view.clone();
        Self { policy, unit, quota, period, algorithm, burst }
    }
}

/// The body that creates or replaces a tier. Fields that are left out get their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"description": "60 a minute, 120 at once", "audit_days": 30, "idempotency": "on", "policies": [
    {"policy": "minute", "quota": 60, "period": "minute", "algorithm": "bucket", "burst": 120},
    {"policy": "month", "quota": 100_000, "period": "month"}]})))]
pub struct PutTier {
    /// Description for people. Default: empty.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        schema(required = false, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    pub description: String,
    /// Days for which the audit log keeps each request of the tier's keys. 0 (the default): no log.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub audit_days: u64,
    /// Whether `Idempotency-Key` marks repeats of a call. Default: `on`. `off`: the field is
    /// forwarded and otherwise ignored.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub idempotency: Idempotency,
    /// All policies of the tier; empty for no limits. Responses sort them by period and name.
    // Sorted.
    pub policies: Vec<PutPolicy>,
}

impl FromFields for PutTier {
    const LIMITS: Limits = &[
        ("description", "maxLength", TEXT_LIMIT as u64),
        ("audit_days", "maximum", AUDIT_DAYS_LIMIT),
        ("policies", "maxItems", POLICIES_LIMIT as u64),
    ];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let given = fields.objects::<PutPolicy>("policies", POLICIES_LIMIT)?;
        let mut policies: Vec<PutPolicy> = Vec::new();
        for (at, policy) in fields.required("policies", given)?.into_iter().enumerate() {
            if policies.iter().any(|other| other.policy == policy.policy) {
                return Err(
                    fields.wrong(&format!("policies[{at}].policy"), "another policy of this tier has the same name")
                );
            }
            let is_later =
                |other: &PutPolicy| (other.limit.period, &other.policy) > (policy.limit.period, &policy.policy);
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
    /// 422 for an invalid name.
    pub fn named(self, name: &str) -> Result<Tier, Problem> {
        if !is_name(name) {
            return Err(Problem::invalid("name", "a tier's name is 1 to 32 characters of a-z, 0-9, '_' and '-'"));
        }
        let Self { description, audit_days, idempotency, policies } = self;
        let policies = policies.into_iter().map(PolicyView::from).collect();
        Ok(Tier { name: name.to_owned(), description, audit_days, idempotency, policies })
    }
}

/// A tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct Tier {
    /// Name of the tier.
    pub name: String,
    /// Description for people; may be empty.
    pub description: String,
    /// Days for which the audit log keeps each request of the tier's keys; 0 for no log.
    pub audit_days: u64,
    /// Whether `Idempotency-Key` marks repeats of a call.
    pub idempotency: Idempotency,
    /// Policies in the order of the rate-limit fields; empty if the tier has no limits.
    pub policies: Vec<PolicyView>,
}

/// Builds the JSON of a `ChangedTier` from the JSON of the tier and two numbers of keys.
#[must_use]
pub fn changed(tier: &str, pushed: u64, pending: u64) -> String {
    let open = tier.strip_suffix('}').unwrap_or(tier);
    format!("{open},\"pushed\":{pushed},\"pending\":{pending}}}")
}

/// A tier after a change, and how many of its keys already have the change.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ChangedTier {
    #[expect(missing_docs, reason = "a part of the same object")]
    #[serde(flatten)]
    pub tier: Tier,
    /// Keys that already have the change.
    pub pushed: u64,
    /// Keys that get the change within 60 seconds.
    pub pending: u64,
}

/// The detail of the 409 for a tier that still has keys.
#[must_use]
pub fn in_use(keys: u64) -> String {
    match keys {
        1 => "1 key has this tier: change its tier or delete the key first".to_owned(),
        _ => format!("{keys} keys have this tier: change their tier or delete the keys first"),
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
    fn the_error_of_a_bad_body_names_the_field() {
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
            (
                "gold",
                r#"{"policies":[{"policy":"a","unit":"tokens","quota":1,"period":"day","algorithm":"sliding"}]}"#,
                "policies[0].algorithm",
            ),
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
