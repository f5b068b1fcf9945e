//! Policies of one key.

use super::Timestamp;
use super::tiers::{PolicyBody, default_algorithm, default_unit};
use crate::policy::{Algorithm, Period, Unit};
use crate::profile::{OverrideRow, PolicyRow};
use crate::refusal::Refusal;
use crate::time::{UnixMicros, rfc3339};
use serde::{Deserialize, Serialize};

/// Overrides of one key at most.
pub const OVERRIDES_LIMIT: usize = 16;

/// Body of `PUT /_tollgate/keys/{id}/overrides/{policy}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutOverride {
    /// What the policy counts.
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
    /// From when on it holds.
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// Until when it does.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl PutOverride {
    /// The row of the override of this name.
    ///
    /// # Errors
    /// 422 for a policy that the engine cannot keep, and for one that ends before it begins.
    pub fn into_row(self, policy: &str) -> Result<OverrideRow, Refusal> {
        let Self { unit, quota, period, algorithm, burst, .. } = self;
        let policy = PolicyBody { policy: policy.to_owned(), unit, quota, period, algorithm, burst };
        let policy = policy.into_row().map_err(|error| Refusal::invalid(error.field(), error.to_string()))?;
        let [from, until] = [self.from, self.until].map(|time| time.map(|time| time.0.as_millis()));
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            return Err(Refusal::invalid("until", "must be later than from"));
        }
        Ok(OverrideRow { policy, from, until })
    }
}

/// An override as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    pub burst: Option<u64>,
    /// From when on it holds, RFC 3339.
    pub from: Option<String>,
    /// Until when it does, RFC 3339.
    pub until: Option<String>,
}

impl From<OverrideRow> for OverrideView {
    fn from(row: OverrideRow) -> Self {
        let [from, until] = [row.from, row.until].map(|time| time.map(|at| rfc3339(UnixMicros::from_millis(at))));
        let PolicyRow { policy, unit, quota, period, algorithm, burst } = row.policy;
        Self { policy, unit, quota, period, algorithm, burst, from, until }
    }
}

/// A page of overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OverrideList {
    /// By name.
    pub overrides: Vec<OverrideView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse;

    fn row(name: &str, body: &str) -> Result<OverrideRow, Refusal> {
        parse::<PutOverride>(body.as_bytes())?.into_row(name)
    }

    #[test]
    fn a_good_body() {
        let row = row("minute", r#"{"quota":5,"period":"minute","from":"2031-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!((row.policy.unit, row.policy.algorithm), (Unit::Requests, Algorithm::Fixed));
        let view = OverrideView::from(row);
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
                Err(Refusal::Invalid(named, _)) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
