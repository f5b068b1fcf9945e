//! Policies: the unit, quota, period and algorithm of a limit. Validated once, at construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::{DAY, HOUR, MINUTE, Month, UnixMicros, ceil_seconds};

/// The largest quota and the largest burst of any policy.
pub const MAX_QUOTA: u64 = 1_000_000_000;
/// The largest quota of a sliding policy, which keeps an entry for each admission of its period.
pub const MAX_SLIDING_QUOTA: u64 = 10_000;
/// The longest name of a policy, in bytes.
pub const MAX_NAME: usize = 32;

/// What a policy counts. `requests`: the cost of calls. `tokens`: the tokens that they spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum Unit {
    /// Calls, or what the caller prices them at.
    Requests,
    /// Tokens that a call spends.
    Tokens,
}

/// The period of a quota, in UTC. `month` is a calendar month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum Period {
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
    /// A UTC calendar month, 28 to 31 days.
    Month,
}

/// How a quota is enforced. `fixed`: at most `quota` in each period aligned to the UTC clock.
/// `sliding`: at most `quota` in any rolling period. `bucket` (GCRA): `quota` evenly per period, up to
/// `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum Algorithm {
    /// At most `quota` in each period aligned to the UTC clock.
    Fixed,
    /// At most `quota` in any rolling period, exactly.
    Sliding,
    /// `quota` per period evenly, up to `burst` at once (GCRA).
    Bucket,
}

/// The half-open time range from `start` to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Window {
    pub start: UnixMicros,
    pub end: UnixMicros,
}

impl Period {
    /// The length in microseconds. `None` for a month, whose length varies.
    #[must_use]
    pub const fn micros(self) -> Option<u64> {
        match self {
            Self::Minute => Some(MINUTE),
            Self::Hour => Some(HOUR),
            Self::Day => Some(DAY),
            Self::Month => None,
        }
    }

    /// The window of this period, aligned to the UTC clock, that contains `t`.
    #[must_use]
    pub fn window(self, t: UnixMicros) -> Window {
        if let Some(micros) = self.micros() {
            let start = t.saturating_sub(t.as_micros() % micros);
            Window { start, end: start.saturating_add(micros) }
        } else {
            let month = Month::of(t);
            Window { start: month.start(), end: month.end() }
        }
    }
}

/// The text is not an accepted value of a unit, period or algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} {found:?}: use {expected}")]
pub struct WordError {
    kind: &'static str,
    expected: &'static str,
    found: String,
}

/// Implements conversions between an enum and its words in JSON and in the database.
macro_rules! words {
    ($type:ident, $kind:literal, $expected:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// The word for this value in JSON and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = WordError;

            fn from_str(word: &str) -> Result<Self, WordError> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(WordError { kind: $kind, expected: $expected, found: word.to_owned() }),
                }
            }
        }
    };
}

words!(Unit, "unit", "requests or tokens", Requests = "requests", Tokens = "tokens");
words!(Period, "period", "minute, hour, day or month", Minute = "minute", Hour = "hour", Day = "day", Month = "month");
words!(Algorithm, "algorithm", "fixed, sliding or bucket", Fixed = "fixed", Sliding = "sliding", Bucket = "bucket");

/// Why a policy is invalid. The message names the field and the accepted values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PolicyError {
    #[error("policy name {0:?} must be 1 to {MAX_NAME} characters of a-z, 0-9, '_' and '-'")]
    Name(String),
    #[error("quota {quota} of policy {name:?} must be {least} to {MAX_QUOTA}")]
    Quota { name: String, quota: u64, least: u64 },
    #[error(
        "quota {quota} of policy {name:?} is more than {MAX_SLIDING_QUOTA}, the most that algorithm sliding takes; \
         use algorithm bucket"
    )]
    SlidingQuota { name: String, quota: u64 },
    /// Sliding and bucket need a period of constant length.
    #[error("policy {name:?} cannot use algorithm {algorithm} with period month; use algorithm fixed")]
    Month { name: String, algorithm: Algorithm },
    /// Unused tokens of a hold go back into a window or bucket.
    #[error("policy {name:?} cannot use algorithm sliding with unit tokens; use algorithm fixed or bucket")]
    SlidingTokens { name: String },
    /// Only a bucket has a burst.
    #[error("policy {name:?} has a burst, which only algorithm bucket takes")]
    BurstNotBucket { name: String },
    #[error("burst {burst} of policy {name:?} must be 1 to {MAX_QUOTA}")]
    Burst { name: String, burst: u64 },
}

impl PolicyError {
    /// The invalid field, by its name in the API.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Name(_) => "policy",
            Self::Quota { .. } | Self::SlidingQuota { .. } => "quota",
            Self::Month { .. } | Self::SlidingTokens { .. } => "algorithm",
            Self::BurstNotBucket { .. } | Self::Burst { .. } => "burst",
        }
    }
}

/// One limit of a tier. Every way to construct it validates, deserialisation included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Policy {
    name: String,
    unit: Unit,
    quota: u64,
    period: Period,
    algorithm: Algorithm,
    burst: u64,
}

/// The JSON form of a policy, before validation.
#[derive(Serialize, Deserialize)]
struct Unchecked {
    name: String,
    unit: Unit,
    quota: u64,
    period: Period,
    algorithm: Algorithm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
}

impl Policy {
    /// A policy that admits `quota` of `unit` per `period`.
    ///
    /// Only [`Algorithm::Bucket`] takes a `burst`, which defaults to the quota. Only
    /// [`Algorithm::Fixed`] takes a quota of 0, which admits nothing.
    ///
    /// # Errors
    /// [`PolicyError`] names the first field that is out of range or does not fit the algorithm.
    pub fn new(
        name: impl Into<String>,
        unit: Unit,
        quota: u64,
        period: Period,
        algorithm: Algorithm,
        burst: Option<u64>,
    ) -> Result<Self, PolicyError> {
        let name = name.into();
        if !is_name(&name) {
            return Err(PolicyError::Name(name));
        }
        if (unit, algorithm) == (Unit::Tokens, Algorithm::Sliding) {
            return Err(PolicyError::SlidingTokens { name });
        }
        let least = u64::from(algorithm != Algorithm::Fixed);
        if quota < least || quota > MAX_QUOTA {
            return Err(PolicyError::Quota { name, quota, least });
        }
        if algorithm == Algorithm::Sliding && quota > MAX_SLIDING_QUOTA {
            return Err(PolicyError::SlidingQuota { name, quota });
        }
        if algorithm != Algorithm::Fixed && period == Period::Month {
            return Err(PolicyError::Month { name, algorithm });
        }
        let burst = match burst {
            Some(_) if algorithm != Algorithm::Bucket => return Err(PolicyError::BurstNotBucket { name }),
            Some(burst) if !(1..=MAX_QUOTA).contains(&burst) => return Err(PolicyError::Burst { name, burst }),
            Some(burst) => burst,
            None => quota,
        };
        Ok(Self { name, unit, quota, period, algorithm, burst })
    }

    /// The name of the policy, as clients see it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The unit that is counted.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// The quota, in units per period.
    #[must_use]
    pub const fn quota(&self) -> u64 {
        self.quota
    }

    /// The period that the quota is for.
    #[must_use]
    pub const fn period(&self) -> Period {
        self.period
    }

    /// How the quota is enforced.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The maximum that can be spent at once: the burst of a bucket, otherwise the quota.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// The quota and the window in seconds that response fields state at `now`.
    ///
    /// For a bucket whose burst exceeds its quota these are the burst, and the time in which the
    /// bucket drains as much, rounded up: clients must never see more remaining than the quota.
    #[must_use]
    pub fn terms(&self, now: UnixMicros) -> (u64, u64) {
        let window = self.window_seconds(now);
        if self.burst <= self.quota {
            return (self.quota, window);
        }
        // The longest period times the largest burst is far from overflow.
        (self.burst, window.saturating_mul(self.burst).div_ceil(self.quota.max(1)))
    }

    /// The length in seconds of the period that contains `now`.
    fn window_seconds(&self, now: UnixMicros) -> u64 {
        let window = self.period.window(now);
        ceil_seconds(window.end.since(window.start))
    }
}

/// Whether `name` is a valid name of a policy or tier.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

impl TryFrom<Unchecked> for Policy {
    type Error = PolicyError;

    fn try_from(raw: Unchecked) -> Result<Self, PolicyError> {
        Self::new(raw.name, raw.unit, raw.quota, raw.period, raw.algorithm, raw.burst)
    }
}

impl From<Policy> for Unchecked {
    fn from(policy: Policy) -> Self {
        let burst = (policy.algorithm == Algorithm::Bucket).then_some(policy.burst);
        let Policy { name, unit, quota, period, algorithm, .. } = policy;
        Self { name, unit, quota, period, algorithm, burst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(name: &str, quota: u64) -> Result<Policy, PolicyError> {
        Policy::new(name, Unit::Requests, quota, Period::Minute, Algorithm::Fixed, None)
    }

    fn error(quota: u64, period: Period, algorithm: Algorithm, burst: Option<u64>) -> String {
        Policy::new("p", Unit::Requests, quota, period, algorithm, burst).unwrap_err().to_string()
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "minute", "per-day_2", &"x".repeat(32)] {
            assert_eq!(fixed(name, 1).unwrap().name(), name);
        }
        for name in ["", "Minute", "a b", "é", "a\"", "a;b", &"x".repeat(33)] {
            assert_eq!(fixed(name, 1), Err(PolicyError::Name(name.to_owned())));
        }
        assert_eq!(
            fixed("A", 1).unwrap_err().to_string(),
            r#"policy name "A" must be 1 to 32 characters of a-z, 0-9, '_' and '-'"#
        );
    }

    #[test]
    fn refusals_name_the_field_and_what_is_accepted() {
        use Algorithm::{Bucket, Fixed, Sliding};
        for (quota, period, algorithm, burst, text) in [
            (MAX_QUOTA + 1, Period::Day, Fixed, None, r#"quota 1000000001 of policy "p" must be 0 to 1000000000"#),
            (0, Period::Day, Sliding, None, r#"quota 0 of policy "p" must be 1 to 1000000000"#),
            (0, Period::Day, Bucket, Some(1), r#"quota 0 of policy "p" must be 1 to 1000000000"#),
            (
                10_001,
                Period::Day,
                Sliding,
                None,
                r#"quota 10001 of policy "p" is more than 10000, the most that algorithm sliding takes; use algorithm bucket"#,
            ),
            (
                1,
                Period::Month,
                Sliding,
                None,
                r#"policy "p" cannot use algorithm sliding with period month; use algorithm fixed"#,
            ),
            (
                1,
                Period::Month,
                Bucket,
                None,
                r#"policy "p" cannot use algorithm bucket with period month; use algorithm fixed"#,
            ),
            (1, Period::Day, Fixed, Some(1), r#"policy "p" has a burst, which only algorithm bucket takes"#),
            (1, Period::Day, Sliding, Some(1), r#"policy "p" has a burst, which only algorithm bucket takes"#),
            (1, Period::Day, Bucket, Some(0), r#"burst 0 of policy "p" must be 1 to 1000000000"#),
            (1, Period::Day, Bucket, Some(MAX_QUOTA + 1), r#"burst 1000000001 of policy "p" must be 1 to 1000000000"#),
        ] {
            assert_eq!(error(quota, period, algorithm, burst), text);
        }
    }

    #[test]
    fn the_ends_of_every_range_are_accepted() {
        for (quota, algorithm, burst) in [
            (0, Algorithm::Fixed, None),
            (MAX_QUOTA, Algorithm::Fixed, None),
            (1, Algorithm::Sliding, None),
            (10_000, Algorithm::Sliding, None),
            (1, Algorithm::Bucket, Some(1)),
            (MAX_QUOTA, Algorithm::Bucket, Some(MAX_QUOTA)),
        ] {
            let unit = if algorithm == Algorithm::Sliding { Unit::Requests } else { Unit::Tokens };
            let policy = Policy::new("p", unit, quota, Period::Hour, algorithm, burst).unwrap();
            assert_eq!((policy.quota(), policy.burst()), (quota, burst.unwrap_or(quota)));
            assert_eq!((policy.unit(), policy.period(), policy.algorithm()), (unit, Period::Hour, algorithm));
        }
    }

    #[test]
    fn tokens_are_not_counted_by_a_log() {
        for period in [Period::Minute, Period::Hour, Period::Day] {
            let error = Policy::new("p", Unit::Tokens, 10, period, Algorithm::Sliding, None).unwrap_err();
            assert_eq!(error.field(), "algorithm");
            assert_eq!(
                error.to_string(),
                r#"policy "p" cannot use algorithm sliding with unit tokens; use algorithm fixed or bucket"#
            );
        }
    }

    #[test]
    fn a_month_has_its_real_length() {
        let month = Policy::new("month", Unit::Requests, 1, Period::Month, Algorithm::Fixed, None).unwrap();
        let at = |month: &str| month.parse::<Month>().unwrap().start();
        for (text, days) in [("2026-01", 31), ("2026-02", 28), ("2028-02", 29), ("2026-11", 30), ("2026-12", 31)] {
            assert_eq!(month.window_seconds(at(text)), days * 86_400);
        }
        for (period, seconds) in [(Period::Minute, 60), (Period::Hour, 3_600), (Period::Day, 86_400)] {
            let policy = Policy::new("p", Unit::Requests, 1, period, Algorithm::Fixed, None).unwrap();
            assert_eq!(policy.window_seconds(at("2026-02").saturating_add(1)), seconds);
        }
    }

    #[test]
    fn a_burst_above_the_quota_is_stated_with_the_time_in_which_it_drains() {
        let terms = |quota, period, burst| {
            let policy = Policy::new("b", Unit::Requests, quota, period, Algorithm::Bucket, Some(burst)).unwrap();
            policy.terms(UnixMicros::default())
        };
        assert_eq!(terms(60, Period::Minute, 120), (120, 120));
        assert_eq!(terms(60, Period::Minute, 60), (60, 60));
        assert_eq!(terms(60, Period::Minute, 1), (60, 60));
        assert_eq!(terms(7, Period::Minute, 8), (8, 69));
        assert_eq!(terms(MAX_QUOTA - 1, Period::Hour, MAX_QUOTA), (MAX_QUOTA, 3601));
        assert_eq!(terms(1, Period::Day, MAX_QUOTA), (MAX_QUOTA, 86_400 * MAX_QUOTA));
        let none = Policy::new("n", Unit::Requests, 0, Period::Minute, Algorithm::Fixed, None).unwrap();
        assert_eq!(none.terms(UnixMicros::default()), (0, 60));
    }

    #[test]
    fn windows_are_aligned_to_the_utc_clock() {
        let start = |period: Period, t: u64| period.window(UnixMicros::from_micros(t)).start.as_micros();
        assert_eq!(start(Period::Minute, 2 * MINUTE), 2 * MINUTE);
        assert_eq!(start(Period::Minute, 2 * MINUTE - 1), MINUTE);
        assert_eq!(start(Period::Hour, DAY - 1), 23 * HOUR);
        assert_eq!(start(Period::Day, 3 * DAY + HOUR), 3 * DAY);
        assert_eq!(start(Period::Month, 32 * DAY), 31 * DAY);
    }

    #[test]
    fn words_are_those_of_the_database() {
        for unit in [Unit::Requests, Unit::Tokens] {
            assert_eq!(unit.to_string().parse(), Ok(unit));
            assert_eq!(serde_json::to_value(unit).unwrap(), unit.as_str());
        }
        for period in [Period::Minute, Period::Hour, Period::Day, Period::Month] {
            assert_eq!(period.to_string().parse(), Ok(period));
            assert_eq!(serde_json::to_value(period).unwrap(), period.as_str());
        }
        for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
        }
        let text = "week".parse::<Period>().unwrap_err().to_string();
        assert_eq!(text, r#"unknown period "week": use minute, hour, day or month"#);
    }

    #[test]
    fn json_is_validated_too() {
        let json = r#"{"name":"b","unit":"requests","quota":5,"period":"minute","algorithm":"bucket","burst":9}"#;
        let policy: Policy = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        let bare = json.replace(r#","burst":9"#, "");
        assert_eq!(serde_json::from_str::<Policy>(&bare).unwrap().burst(), 5);
        let plain = fixed("m", 3).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&serde_json::to_string(&plain).unwrap()).unwrap(), plain);
        assert!(serde_json::from_str::<Policy>(&json.replace("minute", "month")).is_err());
        assert!(serde_json::from_str::<Policy>(&json.replace(":5", ":0")).is_err());
    }
}
