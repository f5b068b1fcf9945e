//! Forms of bodies that no type of the Worker has: what is read field by field, and what SQL puts together. Tests hold them against
//! the real thing.
#![expect(missing_docs, reason = "their documentation is the document")]

use crate::http::idempotency_key::Idempotency;
use crate::limiter::policy::{Algorithm, Period, Unit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tier": "free", "name": "first", "owner": "customer-7", "metadata": {"plan": "trial"}, "expires_at": null}))]
pub struct CreateKey {
    /// An existing tier.
    #[schema(pattern = "^[a-z0-9_-]{1,32}$")]
    pub tier: String,
    /// A name for people.
    #[serde(default)]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub name: String,
    /// Whose key it is, in your own terms.
    #[serde(default)]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub owner: String,
    /// Any object of at most 4096 bytes as compact JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// From when on the key is refused: RFC 3339 with any offset, 1970 to 9999.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// A change of a key: what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tier": "pro", "status": "active", "expires_at": "2031-01-01T00:00:00Z"}))]
pub struct ChangeKey {
    /// An existing tier.
    #[serde(default)]
    #[schema(pattern = "^[a-z0-9_-]{1,32}$")]
    pub tier: String,
    /// A name for people.
    #[serde(default)]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub name: String,
    /// Whose key it is, in your own terms.
    #[serde(default)]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub owner: String,
    /// Any object of at most 4096 bytes as compact JSON; replaced as a whole.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Switches the key off and on. A revoked key has no way back: 409.
    #[serde(default)]
    #[schema(inline)]
    pub status: Switch,
    /// From when on the key is refused; `null` clears it.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    #[default]
    Active,
    Disabled,
}

/// How a key's secret is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace_seconds": 86400}))]
pub struct RotateKey {
    /// For how long the old secret stays valid, at most 30 days.
    #[schema(minimum = 0, maximum = 2_592_000)]
    pub grace_seconds: u64,
}

/// A policy of one key: it replaces the tier's of the same name, or comes beside them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"quota": 50, "period": "minute", "from": "2031-12-24T00:00:00Z", "until": "2031-12-27T00:00:00Z"}))]
pub struct PutOverride {
    /// `requests` unless it is said.
    #[serde(default = "requests")]
    pub unit: Unit,
    /// Units per period. Sliding policies have 10000 at most, buckets 1 at least.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub quota: u64,
    pub period: Period,
    /// `fixed` unless it is said. A month is always fixed.
    #[serde(default = "fixed")]
    pub algorithm: Algorithm,
    /// Units at once: for buckets alone, which have the quota unless it is said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub burst: Option<u64>,
    /// From when on it holds.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub from: Option<String>,
    /// Until when it does; later than `from`.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub until: Option<String>,
}

/// A policy of a tier.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPolicy {
    /// The name that clients see; each once in a tier.
    #[schema(pattern = "^[a-z0-9_-]{1,32}$")]
    pub policy: String,
    /// `requests` unless it is said.
    #[serde(default = "requests")]
    pub unit: Unit,
    /// Units per period. Sliding policies have 10000 at most, buckets 1 at least.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub quota: u64,
    pub period: Period,
    /// `fixed` unless it is said. A month is always fixed.
    #[serde(default = "fixed")]
    pub algorithm: Algorithm,
    /// Units at once: for buckets alone, which have the quota unless it is said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub burst: Option<u64>,
}

fn requests() -> Unit {
    Unit::Requests
}

fn fixed() -> Algorithm {
    Algorithm::Fixed
}

/// A whole tier.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "60 a minute, 120 at once", "audit_days": 30, "idempotency": "on", "policies": [
    {"policy": "minute", "quota": 60, "period": "minute", "algorithm": "bucket", "burst": 120},
    {"policy": "month", "quota": 100_000, "period": "month"}]}))]
pub struct PutTier {
    #[serde(default)]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub description: String,
    /// For how many days requests are kept one by one; 0 is off.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 3650)]
    pub audit_days: u64,
    /// Whether calls are recognised by their `Idempotency-Key`: `on` unless it is said; `off` passes the field on and otherwise
    /// ignores it.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// All its policies. They are shown by period and name.
    #[schema(max_items = 16)]
    pub policies: Vec<PutPolicy>,
}

/// A tier after a change, and how the change spreads.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedTier {
    #[serde(flatten)]
    pub tier: crate::admin::tiers::Tier,
    /// Keys whose objects have taken the change over.
    pub pushed: u64,
    /// Keys whose objects find out by themselves, within 60 seconds.
    pub pending: u64,
}

/// What calls cost whose method and path match: the longest pattern that does counts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"pattern": "/v1/*/export", "method": "GET", "cost": 25}))]
pub struct PutRouteCost {
    /// A path of which each segment is literal, `*` for one segment (at the end for one or more), or `**` for any number.
    #[schema(max_length = 512, pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub pattern: String,
    /// The method that it is for; `*`, for all, unless it is said.
    #[serde(default)]
    #[schema(pattern = "^(\\*|[A-Z]+)$")]
    pub method: String,
    /// Requests that a call counts as.
    #[schema(minimum = 1, maximum = 10_000)]
    pub cost: u64,
}

/// A key as it is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedKey {
    #[serde(flatten)]
    pub view: crate::admin::keys::KeyView,
    /// The key itself.
    pub key: String,
}

/// A token as it is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedToken {
    #[serde(flatten)]
    pub view: crate::admin::tokens::TokenView,
    /// The token itself.
    pub token: String,
}

/// A new token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ci", "scopes": ["read"]}))]
pub struct CreateToken {
    /// Who it is for, each name once; the admin log calls its holder so. Not `root`.
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub name: String,
    /// `write` is to change everything but tokens, and to look at it.
    #[schema(min_items = 1, max_items = 16, value_type = Vec<crate::admin::tokens::Scope>)]
    pub scopes: Vec<GivenScope>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GivenScope {
    Read,
    Write,
}

/// A change that was made through the admin API.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogEntry {
    pub id: u64,
    #[schema(format = DateTime)]
    pub at: String,
    /// The token's name, or `root`.
    pub actor: String,
    /// `create`, `change`, `rotate`, `revoke`, `delete`, `put`, ...
    pub action: String,
    /// A path: `keys/{id}`, `keys/{id}/overrides/{policy}`, `tiers/{name}`, `route-costs`, `tokens/{id}`.
    pub target: String,
    /// The thing before; `null` if it was not there.
    #[schema(value_type = Option<Object>, required = true)]
    pub before: Option<Value>,
    /// The thing after; `null` if it is not there any more.
    #[schema(value_type = Option<Object>, required = true)]
    pub after: Option<Value>,
}

/// What was used in a month.
#[derive(Debug, Serialize, ToSchema)]
pub struct MonthUsage {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub calls: u64,
    pub denied: u64,
    /// What the calls cost, in requests.
    pub cost: u64,
}

/// What was used in an hour by one class of routes.
#[derive(Debug, Serialize, ToSchema)]
pub struct HourUsage {
    /// When the hour begins.
    #[schema(format = DateTime)]
    pub hour: String,
    /// A pattern of `route_costs`, or the method and the path's first segment.
    pub class: String,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
}

/// What the presented key has used.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeUsage {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    /// The last 12 months, oldest first, those with usage and the current one, which is up to date.
    #[schema(max_items = 12)]
    pub months: Vec<MonthUsage>,
    /// The current hour and the 23 before it as of the last flush, oldest first.
    pub hours: Vec<HourUsage>,
}

/// What was used in a day by one class of routes.
#[derive(Debug, Serialize, ToSchema)]
pub struct DayUsage {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    pub day: String,
    /// A pattern of `route_costs`, or the method and the path's first segment.
    pub class: String,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
}

/// A month of a key's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryMonth {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub calls: u64,
    pub denied: u64,
    /// What the calls cost, in requests.
    pub cost: u64,
    pub tokens: u64,
    /// Whether the month is over.
    pub is_complete: bool,
    /// Calls against the month before; `null` where that had none.
    #[schema(required = true)]
    pub growth_percent: Option<f64>,
}

/// A key's months, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    /// From the month in which the key was issued on, the current one included.
    #[schema(max_items = 36)]
    pub months: Vec<HistoryMonth>,
    /// Calls of a month, of those shown that are over; `null` if none is.
    #[schema(required = true)]
    pub average: Option<f64>,
    /// The last month that is over against the average of up to three before it: `flat` is within a tenth.
    #[schema(inline)]
    pub trend: Trend,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    Up,
    Down,
    Flat,
}

/// What was counted in a month, or in an hour by one class of routes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Count {
    /// A month such as `2031-03`, or when the hour begins.
    pub period: String,
    /// `null` for a month.
    #[schema(required = true)]
    pub class: Option<String>,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    /// 0 for an hour.
    pub tokens: u64,
}

/// A count that is not the same; `null` is where it is not there at all.
#[derive(Debug, Serialize, ToSchema)]
pub struct Difference {
    #[schema(required = true)]
    pub object: Option<Count>,
    #[schema(required = true)]
    pub d1: Option<Count>,
}

/// One side of the accounts: the sums over its months, and all of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Counted {
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub counts: Vec<Count>,
}

/// Whether D1 has what the object counted, once a flush has gone through.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reconciliation {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(inline)]
    pub state: Agreement,
    /// When they were compared.
    #[schema(format = DateTime)]
    pub at: String,
    /// The life of the object's storage that is counted.
    pub epoch: String,
    /// What the object has counted.
    pub object: Counted,
    /// What D1 has of that.
    pub d1: Counted,
    /// Empty if `state` is `exact`.
    pub differences: Vec<Difference>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    Exact,
    Drift,
}

/// A key of which D1 has something else than its object.
#[derive(Debug, Serialize, ToSchema)]
pub struct Drift {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(format = DateTime)]
    pub found_at: String,
    pub detail: Reconciliation,
}

/// What a key used in a month. Of a key that is deleted, its name, owner and tier are `null`.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyReport {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(required = true)]
    pub name: Option<String>,
    #[schema(required = true)]
    pub owner: Option<String>,
    #[schema(required = true)]
    pub tier: Option<String>,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub tokens: u64,
}

/// What all keys used together.
#[derive(Debug, Serialize, ToSchema)]
pub struct Totals {
    /// Keys that were used.
    pub keys: u64,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub tokens: u64,
}

/// A tier: how many keys it has, and what those called.
#[derive(Debug, Serialize, ToSchema)]
pub struct TierReport {
    #[schema(required = true)]
    pub tier: Option<String>,
    pub keys: u64,
    pub calls: u64,
}

/// One of the keys with the most calls. Of a key that is deleted, its name and tier are `null`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LargestKey {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(required = true)]
    pub name: Option<String>,
    #[schema(required = true)]
    pub tier: Option<String>,
    pub calls: u64,
}

/// A month of all keys, and a page of them by their ids.
#[derive(Debug, Serialize, ToSchema)]
pub struct Report {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// By name; usage of deleted keys is of tier `null`.
    pub tiers: Vec<TierReport>,
    /// The ten keys with the most calls.
    #[schema(max_items = 10)]
    pub top: Vec<LargestKey>,
    pub calls: u64,
    pub denied: u64,
    /// Of the whole month, on every page.
    pub totals: Totals,
    #[schema(max_items = 500)]
    pub keys: Vec<KeyReport>,
    /// Of the page that follows; `null` at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A key that has used a share of a month policy that holds for it now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alert {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    pub name: String,
    pub owner: String,
    pub tier: String,
    pub policy: String,
    pub unit: Unit,
    pub quota: u64,
    pub used: u64,
    /// `used` by `quota`; `null` where the quota is 0.
    #[schema(required = true)]
    pub share: Option<f64>,
    /// The share that was asked for.
    pub threshold: f64,
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// When the share was reached, if an alert was raised at this threshold, else when D1 last heard of the key.
    #[schema(format = DateTime)]
    pub at: String,
}

/// An alert that was raised, and what became of telling it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    pub policy: String,
    /// A share of the quota: 0.8 is 80 %.
    pub threshold: f64,
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub quota: u64,
    /// At that moment.
    pub used: u64,
    #[schema(format = DateTime)]
    pub at: String,
    #[schema(inline)]
    pub state: DeliveryState,
    pub attempts: u32,
    /// `null` if there is none to come.
    #[schema(required = true, format = DateTime)]
    pub next_attempt_at: Option<String>,
    /// Why the last attempt failed.
    #[schema(required = true)]
    pub last_error: Option<String>,
}

/// `dead` is given up; `none` was raised while there was nobody to tell.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    Pending,
    Delivered,
    Dead,
    None,
}

/// What tollgate answers when it does not do what was asked (RFC 9457).
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": "tier: there is no tier `gold`", "field": "tier"}))]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    pub detail: String,
    /// 422: the field of the body, such as `policies[0].quota`.
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// 429 of `me`: `self-service`.
    #[serde(rename = "violated-policies")]
    #[schema(nullable = false)]
    pub violated_policies: Option<Vec<String>>,
    /// 429 of `me`: whole seconds, as in `Retry-After`.
    #[schema(nullable = false)]
    pub retry_after: Option<u64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0"}))]
pub struct Health {
    #[schema(pattern = "^ok$")]
    pub status: String,
    pub version: String,
}
