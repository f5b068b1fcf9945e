//! Profiles: the tier, status and policies of a key, as D1 and the key's object store them.

use crate::http::idempotency_key::Idempotency;
use crate::keys::key::same_hash;
use crate::keys::route_cost::{self, Price, RouteCost, RouteCosts};
use crate::keys::route_pattern::RouteCase;
use crate::keys::token_route::{TokenRoute, TokenRoutes, TokenTerms};
use crate::limiter::policy::{Algorithm, Period, Policy, PolicyError, Unit};
use crate::limiter::schedule::{Schedule, Stage, Timetable};
use crate::time::UnixMicros;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// Whether a key may be used. `disabled` can be undone, `revoked` cannot. `expired`: its `expires_at`
/// has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum Status {
    /// Calls are admitted.
    Active,
    /// Refused until it is active again.
    Disabled,
    /// Refused for ever.
    Revoked,
    /// Refused. Never stored: it follows from `expires_at`.
    Expired,
}

impl Status {
    /// The value in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// The reason for which a key of this status is refused. `None` if it is not.
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
#[allow(missing_docs)]
pub struct PolicyRow {
    /// The name of the policy, as clients see it.
    pub policy: String,
    pub unit: Unit,
    /// In units per period.
    pub quota: u64,
    pub period: Period,
    pub algorithm: Algorithm,
    /// In units. Only buckets have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

impl PolicyRow {
    /// Earlier versions took tokens with algorithm sliding, and a migration still can, because a
    /// table's constraints cannot be extended. Such a row limits tokens by aligned windows, so that
    /// the keys of its tier stay limited and in use; what the row says cannot be done.
    fn policy(&self) -> Result<Policy, PolicyError> {
        let burst = self.burst.filter(|_| self.algorithm == Algorithm::Bucket);
        let is_log_of_tokens = (self.unit, self.algorithm) == (Unit::Tokens, Algorithm::Sliding);
        let algorithm = if is_log_of_tokens { Algorithm::Fixed } else { self.algorithm };
        Policy::new(self.policy.clone(), self.unit, self.quota, self.period, algorithm, burst)
    }
}

/// A row of `overrides`: a policy of one key. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRow {
    /// Replaces the policy of the same name.
    pub policy: PolicyRow,
    /// The time from which on it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The time at which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl OverrideRow {
    fn holds_at(&self, now: u64) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// A change of a tier, as sent to the objects of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TierChange {
    /// The name of the tier.
    pub tier: String,
    /// Increases with every change.
    pub version: u64,
    /// Retention of the audit log, in days. 0 without an audit log.
    pub audit_days: u64,
    /// Whether repeated calls are recognised. Absent from an earlier version, which leaves it
    /// unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
    pub policies: Vec<PolicyRow>,
}

/// The stored form of a profile. Deployed objects hold rows of it, so new fields need a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ProfileRow {
    pub id: String,
    /// The name of the tier.
    pub tier: String,
    /// The stored status, which is never [`Status::Expired`].
    pub status: Status,
    pub secret_hash: String,
    /// In milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The policies of the tier, sorted by period and name, so that equal profiles compare equal.
    pub policies: Vec<PolicyRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<OverrideRow>,
    /// The hash of the secret that a rotation replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
    /// The time until which that secret is valid, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<u64>,
    /// The version of the last applied [`TierChange`].
    #[serde(default)]
    pub tier_version: u64,
    /// Retention of the audit log, in days. 0 without an audit log.
    #[serde(default)]
    pub audit_days: u64,
    #[serde(default, skip_serializing_if = "Idempotency::is_on")]
    pub idempotency: Idempotency,
    /// The costs of routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteCost>,
    /// The routes that spend tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_routes: Vec<TokenRoute>,
}

/// A validated profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The row that it was created from.
    pub row: ProfileRow,
    /// The current policies, in the order of the response fields. See [`Profile::turn_to`].
    pub policies: Vec<Policy>,
    costs: RouteCosts,
    token_routes: TokenRoutes,
    /// The time range in milliseconds for which `policies` are current. An override begins or ends
    /// at its end.
    holds: Range<u64>,
}

impl Profile {
    /// Validates a row.
    ///
    /// # Errors
    /// If a policy is invalid. The schema of D1 prevents this.
    pub fn new(row: ProfileRow) -> Result<Self, PolicyError> {
        for policy in row.policies.iter().chain(row.overrides.iter().map(|own| &own.policy)) {
            policy.policy()?;
        }
        let (costs, token_routes) = (RouteCosts::new(&row.routes), TokenRoutes::new(&row.token_routes));
        let mut profile = Self { row, policies: Vec::new(), costs, token_routes, holds: 0..0 };
        profile.turn_to(UnixMicros::default());
        Ok(profile)
    }

    /// Sets `policies` to those that hold at `now`.
    pub fn turn_to(&mut self, now: UnixMicros) {
        if !self.holds.contains(&now.as_millis()) {
            (self.policies, self.holds) = self.stage(now.as_millis());
        }
    }

    /// The current policies and those of other times. See [`Profile::turn_to`].
    #[must_use]
    pub fn schedule(&self) -> Schedule<'_> {
        Schedule::new(&self.policies, UnixMicros::from_millis(self.holds.start), moment(self.holds.end), self)
    }

    /// The policies that hold at `now`, and the time range in milliseconds for which they do.
    fn stage(&self, now: u64) -> (Vec<Policy>, Range<u64>) {
        let overrides = &self.row.overrides;
        let own: Vec<&PolicyRow> = overrides.iter().filter(|own| own.holds_at(now)).map(|own| &own.policy).collect();
        let of_tier = self.row.policies.iter().filter(|row| own.iter().all(|own| own.policy != row.policy));
        let mut policies = Vec::new();
        // `new` has validated them all.
        for policy in of_tier.chain(own.iter().copied()).filter_map(|row| row.policy().ok()) {
            let is_later = |other: &Policy| (other.period(), other.name()) > (policy.period(), policy.name());
            let at = policies.iter().position(is_later).unwrap_or(policies.len());
            policies.insert(at, policy);
        }
        let mut holds = 0..u64::MAX;
        for moment in overrides.iter().flat_map(|own| [own.from, own.until]).flatten() {
            if moment <= now {
                holds.start = holds.start.max(moment);
            } else {
                holds.end = holds.end.min(moment);
            }
        }
        (policies, holds)
    }

    /// Applies a change of a tier. Returns `false` if the key has another tier, or already this
    /// version.
    ///
    /// # Errors
    /// As [`Profile::new`]. The profile is then unchanged.
    pub fn apply_tier(&mut self, change: &TierChange) -> Result<bool, PolicyError> {
        if self.row.tier != change.tier || self.row.tier_version >= change.version {
            return Ok(false);
        }
        let mut row = self.row.clone();
        row.policies.clone_from(&change.policies);
        row.audit_days = change.audit_days;
        row.idempotency = change.idempotency.unwrap_or(row.idempotency);
        row.tier_version = change.version;
        *self = Self::new(row)?;
        Ok(true)
    }

    /// Whether a secret is valid: the current one, or the previous one during the grace period of a
    /// rotation.
    #[must_use]
    pub fn accepts(&self, secret_hash: &str, now: UnixMicros) -> bool {
        let row = &self.row;
        let is_current = same_hash(secret_hash, &row.secret_hash);
        let previous =
            row.previous_hash.as_deref().filter(|_| row.previous_until.is_some_and(|until| now.as_millis() < until));
        // Both are always compared, so that timing reveals nothing.
        is_current | previous.is_some_and(|previous| same_hash(secret_hash, previous))
    }

    /// The cost of a call, and the class in which it counts.
    #[must_use]
    pub fn price(&self, method: &str, path: &str, case: RouteCase) -> Price<'_> {
        self.costs.price(method, path, case)
    }

    /// The row of a call that spends tokens; `None` if it spends none.
    #[must_use]
    pub fn token_route(&self, method: &str, path: &str, case: RouteCase) -> Option<TokenTerms> {
        self.token_routes.find(method, path, case)
    }

    /// The total cost of `calls`. `targets` has the counts, methods and paths of those that are known.
    /// A call without a target costs [`DEFAULT_COST`](route_cost::DEFAULT_COST).
    #[must_use]
    pub fn cost_of<'a>(
        &self,
        calls: u64,
        targets: impl Iterator<Item = (u64, Cow<'a, str>, Cow<'a, str>)>,
        case: RouteCase,
    ) -> u64 {
        let mut unnamed = calls;
        let mut cost = 0_u64;
        for (count, method, path) in targets {
            let count = count.min(unnamed);
            unnamed -= count;
            cost = cost.saturating_add(self.price(&method, &path, case).cost.saturating_mul(count));
        }
        cost.saturating_add(route_cost::DEFAULT_COST.saturating_mul(unnamed))
    }

    /// The key's status at `now`.
    #[must_use]
    pub fn status(&self, now: UnixMicros) -> Status {
        self.row.status.at(self.row.expires_at.map(UnixMicros::from_millis), now)
    }
}

impl Timetable for Profile {
    fn at(&self, t: UnixMicros) -> Stage {
        let (policies, holds) = self.stage(t.as_millis());
        Stage { policies, until: moment(holds.end) }
    }
}

/// A time in milliseconds. `u64::MAX` stands for none.
fn moment(millis: u64) -> Option<UnixMicros> {
    (millis < u64::MAX).then_some(UnixMicros::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::token_route::UsageFormat;

    /// Deployed objects hold rows of this form.
    #[test]
    fn the_stored_form_is_frozen() {
        let first = r#"{"id":"k","tier":"free","status":"active","secret_hash":"h","policies":[{"policy":"minute","unit":"requests","quota":10,"period":"minute","algorithm":"fixed"}]}"#;
        let row: ProfileRow = serde_json::from_str(first).unwrap();
        assert_eq!((row.tier_version, row.overrides.len(), row.idempotency), (0, 0, Idempotency::On));
        assert_eq!(Profile::new(row).unwrap().policies.len(), 1);
        let text = r#"{"id":"k","tier":"free","status":"active","secret_hash":"h","expires_at":9,"policies":[],"routes":[],"overrides":[{"policy":{"policy":"minute","unit":"requests","quota":10,"period":"minute","algorithm":"bucket","burst":3},"from":1,"until":2}],"previous_hash":"g","previous_until":8,"tier_version":4,"audit_days":7,"idempotency":"off"}"#;
        let row: ProfileRow = serde_json::from_str(text).unwrap();
        let sorted = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let printed = serde_json::to_string(&row).unwrap();
        assert_eq!(sorted(&printed), sorted(&text.replace(r#""routes":[],"#, "")));
        let priced = r#"{"id":"k","tier":"free","status":"active","secret_hash":"h","policies":[],"tier_version":0,"audit_days":0,"routes":[{"pattern":"/a","method":"*","cost":2},{"pattern":"/b","method":"*","cost":3,"reprice":1}]}"#;
        let priced: ProfileRow = serde_json::from_str(priced).unwrap();
        assert_eq!(priced.routes.iter().map(|route| route.reprice).collect::<Vec<_>>(), [false, true]);
        let printed = serde_json::to_string(&priced).unwrap();
        assert!(printed.contains(r#""cost":2},{"pattern":"/b","method":"*","cost":3,"reprice":1}]"#), "{printed}");
        let routes = r#""token_routes":[{"pattern":"/v1/*","method":"POST","format":"openai","default_output":1,"max_output":2,"bytes_per_token":1,"max_input":null}]"#;
        let text = text.replace(r#""routes":[]"#, routes);
        let row: ProfileRow = serde_json::from_str(&text).unwrap();
        assert_eq!(sorted(&serde_json::to_string(&row).unwrap()), sorted(&text));
        // A format that this version does not have.
        let later: ProfileRow = serde_json::from_str(&text.replace("openai", "later")).unwrap();
        let profile = Profile::new(later).unwrap();
        let of = |method, path| profile.token_route(method, path, RouteCase::Sensitive).map(|row| row.format);
        assert_eq!(of("POST", "/v1/chat"), Some(UsageFormat::Header));
        assert_eq!((of("GET", "/v1/chat"), of("POST", "/v2")), (None, None));
    }

    const TIER: &str = r#"{"id":"k","tier":"free","status":"active","secret_hash":"hh","policies":[
        {"policy":"minute","unit":"requests","quota":10,"period":"minute","algorithm":"fixed"},
        {"policy":"month","unit":"requests","quota":1000,"period":"month","algorithm":"fixed"}]"#;

    fn profile(rest: &str) -> Profile {
        Profile::new(serde_json::from_str(&format!("{TIER}{rest}}}")).unwrap()).unwrap()
    }

    fn limits(profile: &mut Profile, now: u64) -> Vec<(String, u64)> {
        profile.turn_to(UnixMicros::from_millis(now));
        profile.policies.iter().map(|policy| (policy.name().to_owned(), policy.quota())).collect()
    }

    #[test]
    fn overrides_replace_and_add_while_they_hold() {
        let mut profile = profile(
            r#","overrides":[
            {"policy":{"policy":"minute","unit":"requests","quota":99,"period":"minute","algorithm":"fixed"},"from":100,"until":200},
            {"policy":{"policy":"a","unit":"requests","quota":5,"period":"day","algorithm":"fixed"},"from":150}]"#,
        );
        let named = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, q)| ((*n).to_owned(), *q)).collect::<Vec<_>>();
        for (now, expected) in [
            (0, named(&[("minute", 10), ("month", 1000)])),
            (99, named(&[("minute", 10), ("month", 1000)])),
            (100, named(&[("minute", 99), ("month", 1000)])),
            (150, named(&[("minute", 99), ("a", 5), ("month", 1000)])),
            (200, named(&[("minute", 10), ("a", 5), ("month", 1000)])),
            (199, named(&[("minute", 99), ("a", 5), ("month", 1000)])),
            (u64::MAX / 1000, named(&[("minute", 10), ("a", 5), ("month", 1000)])),
            (0, named(&[("minute", 10), ("month", 1000)])),
        ] {
            assert_eq!(limits(&mut profile, now), expected, "{now}");
        }
    }

    #[test]
    fn a_row_of_tokens_with_algorithm_sliding_limits_by_windows() {
        let mut profile = profile(
            r#","overrides":[
            {"policy":{"policy":"t","unit":"tokens","quota":5,"period":"day","algorithm":"sliding"},"until":200}]"#,
        );
        let own = |profile: &mut Profile, now| {
            profile.turn_to(UnixMicros::from_millis(now));
            profile.policies.iter().find(|policy| policy.name() == "t").map(|own| (own.quota(), own.algorithm()))
        };
        assert_eq!(own(&mut profile, 0), Some((5, Algorithm::Fixed)));
        assert_eq!(own(&mut profile, 200), None);
        // The row is kept as it is, so that an equal one is found to be equal.
        assert_eq!(profile.row.overrides.first().unwrap().policy.algorithm, Algorithm::Sliding);
    }

    #[test]
    fn a_change_of_the_tier_is_taken_over_once_and_in_order() {
        let mut profile = profile(r#","tier_version":4"#);
        let change = |tier: &str, version, quota| TierChange {
            tier: tier.to_owned(),
            version,
            audit_days: 3,
            idempotency: None,
            policies: vec![PolicyRow { quota, ..profile_policy() }],
        };
        assert_eq!(profile.apply_tier(&change("pro", 9, 1)), Ok(false));
        assert_eq!(profile.apply_tier(&change("free", 4, 1)), Ok(false));
        assert_eq!(profile.apply_tier(&change("free", 6, 2)), Ok(true));
        assert_eq!(profile.apply_tier(&change("free", 5, 3)), Ok(false));
        assert!(profile.apply_tier(&change("free", 7, u64::MAX)).is_err());
        assert_eq!(limits(&mut profile, 0), [("minute".to_owned(), 2)]);
        assert_eq!((profile.row.audit_days, profile.row.tier_version), (3, 6));
        for (version, given, taken) in [
            (7, Some(Idempotency::Off), Idempotency::Off),
            (8, None, Idempotency::Off),
            (9, Some(Idempotency::On), Idempotency::On),
        ] {
            let change = TierChange { idempotency: given, ..change("free", version, 2) };
            assert_eq!(profile.apply_tier(&change), Ok(true));
            assert_eq!(profile.row.idempotency, taken);
        }
    }

    fn profile_policy() -> PolicyRow {
        PolicyRow {
            policy: "minute".to_owned(),
            unit: Unit::Requests,
            quota: 1,
            period: Period::Minute,
            algorithm: Algorithm::Fixed,
            burst: None,
        }
    }

    #[test]
    fn reported_calls_cost_what_their_routes_do() {
        let profile = profile(
            r#","routes":[{"pattern":"/dear","method":"GET","cost":10},{"pattern":"/v1/*","method":"*","cost":4}]"#,
        );
        let cost = |calls, targets: &[(u64, &'static str, &'static str)]| {
            let targets = targets.iter().map(|&(count, method, path)| (count, method.into(), path.into()));
            profile.cost_of(calls, targets, RouteCase::Sensitive)
        };
        assert_eq!(cost(0, &[]), 0);
        // An older isolate sends no targets.
        assert_eq!(cost(3, &[]), 3);
        assert_eq!(cost(3, &[(2, "GET", "/dear"), (1, "POST", "/dear")]), 21);
        assert_eq!(cost(5, &[(2, "GET", "/v1/%64ear"), (1, "GET", "/a")]), 8 + 1 + 2);
        // Targets beyond the number of calls are ignored.
        assert_eq!(cost(1, &[(2, "GET", "/dear"), (7, "GET", "/v1/a")]), 10);
    }

    #[test]
    fn a_replaced_secret_is_accepted_until_its_time_is_over() {
        let profile = profile(r#","previous_hash":"gg","previous_until":50"#);
        let accepts = |hash: &str, now| profile.accepts(hash, UnixMicros::from_millis(now));
        assert!(accepts("hh", 49) && accepts("hh", 50) && accepts("gg", 49));
        assert!(!accepts("gg", 50) && !accepts("ff", 0) && !accepts("", 0));
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
