//! Tiers and their policies.

use crate::admin::body::{FromFields, JsonFields, Limits, TEXT_LIMIT};
use crate::http::idempotency_key::Idempotency;
use crate::http::problem::Problem;
use crate::keys::profile::PolicyRow;
use crate::limiter::policy::{Algorithm, MAX_QUOTA, Period, Policy, Unit, is_name};
use serde::Serialize;

/// Policies of one tier at most.
const POLICIES_LIMIT: usize = 16;
/// The longest time for which the requests of a tier's keys are kept.
const AUDIT_DAYS_LIMIT: u64 = 3650;

/// What a policy is beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct PolicyLimit {
    /// `requests` unless it is said.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub unit: Unit,
    /// Units per period. Sliding policies have 10000 at most, buckets 1 at least.
    pub quota: u64,
    #[expect(missing_docs, reason = "the name says it")]
    pub period: Period,
    /// `fixed` unless it is said. A month is always fixed.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub algorithm: Algorithm,
    /// Units at once: for buckets alone, which have the quota unless it is said.
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

/// A policy of a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct PutPolicy {
    /// The name that clients see; each once in a tier.
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

/// A policy, as the admin API takes and shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Policy))]
pub struct PolicyView {
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

/// A whole tier.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"description": "60 a minute, 120 at once", "audit_days": 30, "idempotency": "on", "policies": [
    {"policy": "minute", "quota": 60, "period": "minute", "algorithm": "bucket", "burst": 120},
    {"policy": "month", "quota": 100_000, "period": "month"}]})))]
pub struct PutTier {
    #[expect(missing_docs, reason = "the name says it")]
    #[cfg_attr(
        not(target_arch = "wasm32"),
        schema(required = false, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    pub description: String,
    /// For how many days requests are kept one by one; 0 is off.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub audit_days: u64,
    /// Whether calls are recognised by their `Idempotency-Key`: `on` unless it is said; `off` passes the field on and otherwise
    /// ignores it.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub idempotency: Idempotency,
    /// All its policies. They are shown by period and name.
    // In that order.
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
                return Err(fields.wrong(&format!("policies[{at}].policy"), "there is another one of this name"));
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
    /// 422 for a name that cannot be.
    pub fn named(self, name: &str) -> Result<Tier, Problem> {
        if !is_name(name) {
            return Err(Problem::invalid("name", "a tier's name is 1 to 32 characters of a-z, 0-9, '_' and '-'"));
        }
        let Self { description, audit_days, idempotency, policies } = self;
        let policies = policies.into_iter().map(PolicyView::from).collect();
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
    pub policies: Vec<PolicyView>,
}

/// The JSON of a `ChangedTier`: `tier` is that of the tier, `pushed` and `pending` are numbers of
/// keys.
#[must_use]
pub fn changed(tier: &str, pushed: u64, pending: u64) -> String {
    let open = tier.strip_suffix('}').unwrap_or(tier);
    format!("{open},\"pushed\":{pushed},\"pending\":{pending}}}")
}

/// A tier after a change, and how the change spreads.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ChangedTier {
    #[expect(missing_docs, reason = "a part of the same object")]
    #[serde(flatten)]
    pub tier: Tier,
    /// Keys whose objects have taken the change over.
    pub pushed: u64,
    /// Keys whose objects find out by themselves, within 60 seconds.
    pub pending: u64,
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
