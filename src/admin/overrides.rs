//! Overrides: policies of a single key.

use crate::admin::body::{FromFields, JsonFields, Limits};
use crate::admin::tiers::PolicyLimit;
use crate::http::problem::Problem;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::time::{UnixMicros, rfc3339};
use serde::Serialize;

/// The most overrides that a key may have.
pub const OVERRIDES_LIMIT: usize = 16;

/// The body that sets an override. It replaces the tier's policy of the same name for one key, or
/// adds a policy.
// The name is in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"quota": 50, "period": "minute", "from": "2031-12-24T00:00:00Z", "until": "2031-12-27T00:00:00Z"})))]
pub struct PutOverride {
    #[expect(missing_docs, reason = "a part of the same object")]
    #[cfg_attr(not(target_arch = "wasm32"), schema(inline))]
    pub limit: PolicyLimit,
    /// Time from which the override applies, RFC 3339 with any offset. `null` (the default): at
    /// once.
    // Milliseconds since the Unix epoch, as in `until`.
    #[cfg_attr(not(target_arch = "wasm32"), schema(value_type = Option<String>, format = DateTime))]
    pub from: Option<u64>,
    /// Time from which the override no longer applies; later than `from`. `null` (the default): it
    /// does not end.
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
    /// 422 for an invalid policy, and for an `until` that is not later than `from`.
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

/// A policy of a single key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Override))]
pub struct OverrideView {
    /// Name of the tier's policy that it replaces, or of an added policy.
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
    /// Time from which the override applies; `null` if it has no start.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true, format = DateTime))]
    pub from: Option<String>,
    /// Time from which the override no longer applies; `null` if it has no end.
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
    fn the_error_of_a_bad_body_names_the_field() {
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
