//! Overrides: policies of one key.

use crate::admin::body::{FromFields, JsonFields, Limits};
use crate::admin::tiers::PolicyLimit;
use crate::http::problem::Problem;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::time::{UnixMicros, rfc3339};
use serde::Serialize;

/// Overrides of one key at most.
pub const OVERRIDES_LIMIT: usize = 16;

/// A policy of one key: it replaces the tier's of the same name, or comes beside them.
// Its name is in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"quota": 50, "period": "minute", "from": "2031-12-24T00:00:00Z", "until": "2031-12-27T00:00:00Z"})))]
pub struct PutOverride {
    #[expect(missing_docs, reason = "a part of the same object")]
    #[cfg_attr(not(target_arch = "wasm32"), schema(inline))]
    pub limit: PolicyLimit,
    /// From when on it holds.
    // In milliseconds since the Unix epoch, as the next.
    #[cfg_attr(not(target_arch = "wasm32"), schema(value_type = Option<String>, format = DateTime))]
    pub from: Option<u64>,
    /// Until when it does; later than `from`.
    #[cfg_attr(not(target_arch = "wasm32"), schema(value_type = Option<String>, format = DateTime))]
    pub until: Option<u64>,
}

impl FromFields for PutOverride {
    const LIMITS: Limits = PolicyLimit::LIMITS;
    const FLAT: &'static [&'static str] = &["limit"];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let limit = PolicyLimit::read(fields)?;
        let from = if fields.is_null("from") { None } else { fields.time("from")? };
        let until = if fields.is_null("until") { None } else { fields.time("until")? };
        Ok(Self { limit, from, until })
    }
}

impl PutOverride {
    /// The override of this name.
    ///
    /// # Errors
    /// 422 for a policy that the engine cannot keep, and for one that ends before it begins.
    pub fn named(self, policy: &str) -> Result<OverrideView, Problem> {
        let PolicyLimit { unit, quota, period, algorithm, burst } = self.limit;
        let checked = Policy::new(policy, unit, quota, period, algorithm, burst);
        checked.map_err(|error| Problem::invalid(error.field(), error.to_string()))?;
        if self.from.is_some_and(|from| self.until.is_some_and(|until| until <= from)) {
            return Err(Problem::invalid("until", "must be later than from"));
        }
        let time = |time: Option<u64>| time.map(|at| rfc3339(UnixMicros::from_millis(at)));
        let (policy, from, until) = (policy.to_owned(), time(self.from), time(self.until));
        Ok(OverrideView { policy, unit, quota, period, algorithm, burst, from, until })
    }
}

/// An override as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Override))]
pub struct OverrideView {
    /// The policy of the tier that it replaces, or its own name.
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
    /// From when on it holds, RFC 3339.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true, format = DateTime))]
    pub from: Option<String>,
    /// Until when it does, RFC 3339.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true, format = DateTime))]
    pub until: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::parse;

    fn row(name: &str, body: &str) -> Result<OverrideView, Problem> {
        parse::<PutOverride>(body.as_bytes())?.named(name)
    }

    #[test]
    fn a_good_body() {
        let view =
            row("minute", r#"{"quota":5,"period":"minute","from":"2031-01-01T01:00:00+01:00","burst":null}"#).unwrap();
        assert_eq!((view.unit, view.algorithm), (Unit::Requests, Algorithm::Fixed));
        assert_eq!((view.from.as_deref(), view.until), (Some("2031-01-01T00:00:00Z"), None));
    }

    #[test]
    fn a_bad_body_is_told_the_field() {
        for (name, body, field) in [
            ("minute", r#"{"period":"minute"}"#, "quota"),
            ("minute", r#"{"quota":5}"#, "period"),
            ("minute", r#"{"quota":-5,"period":"minute"}"#, "quota"),
            ("minute", r#"{"quota":1000000001,"period":"minute"}"#, "quota"),
            ("minute", r#"{"quota":5,"period":"week"}"#, "period"),
            ("minute", r#"{"quota":5,"period":"month","algorithm":"bucket"}"#, "algorithm"),
            ("minute", r#"{"quota":5,"period":"day","burst":3}"#, "burst"),
            ("minute", r#"{"quota":5,"period":"day","unit":"bytes"}"#, "unit"),
            ("minute", r#"{"quota":5,"period":"day","policy":"x"}"#, "policy"),
            ("minute", r#"{"quota":5,"period":"day","from":"now"}"#, "from"),
            (
                "minute",
                r#"{"quota":5,"period":"day","from":"2031-01-01T00:00:00Z","until":"2031-01-01T00:00:00Z"}"#,
                "until",
            ),
            ("Minute", r#"{"quota":5,"period":"day"}"#, "policy"),
        ] {
            match row(name, body) {
                Err(Problem::Invalid(named, _)) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
