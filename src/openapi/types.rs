//! Forms of bodies that no type of the Worker has: what is read field by field, and what SQL puts together. Tests hold them against
//! the real thing.
#![expect(missing_docs, reason = "their documentation is the document")]

use crate::policy::{Algorithm, Period, Unit};
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
#[schema(example = json!({"description": "60 a minute, 120 at once", "audit_days": 30, "policies": [
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
    /// A path: `keys/{id}`, `keys/{id}/overrides/{policy}`, `tiers/{name}`, `tokens/{id}`.
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

/// A month of a key's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryMonth {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub calls: u64,
    pub denied: u64,
    /// Against the month before; `null` where that had no calls.
    #[schema(required = true)]
    pub growth_percent: Option<f64>,
}

/// A key's months, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    pub months: Vec<HistoryMonth>,
    /// Calls of a full month.
    #[schema(required = true)]
    pub average: Option<f64>,
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

/// What the gate did with one request.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    #[schema(format = DateTime)]
    pub at: String,
    pub method: String,
    pub class: String,
    /// What the gate answered.
    pub status: u16,
    /// What the origin answered, once that is known.
    #[schema(required = true)]
    pub origin_status: Option<u16>,
    #[schema(required = true)]
    pub duration_ms: Option<u64>,
    pub cost: u64,
    #[schema(required = true)]
    pub idempotency_key: Option<String>,
}

/// Whether D1 has what the object counted, once a flush has gone through.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reconciliation {
    #[schema(inline)]
    pub state: Agreement,
    #[schema(value_type = Object)]
    pub object: Map<String, Value>,
    #[schema(value_type = Object)]
    pub d1: Map<String, Value>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    Exact,
    Drift,
}

/// What a tier's keys used.
#[derive(Debug, Serialize, ToSchema)]
pub struct TierReport {
    pub tier: String,
    pub keys: u64,
    pub calls: u64,
}

/// What a key used.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyReport {
    pub key_id: String,
    pub name: String,
    pub tier: String,
    pub calls: u64,
}

/// A month of all keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct Report {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub tiers: Vec<TierReport>,
    /// The largest consumers.
    #[schema(max_items = 10)]
    pub top: Vec<KeyReport>,
    pub calls: u64,
    pub denied: u64,
}

/// A key that has used a share of a month policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alert {
    pub key_id: String,
    pub policy: String,
    pub threshold: f64,
    pub used: u64,
    pub quota: u64,
    #[schema(format = DateTime)]
    pub at: String,
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
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0"}))]
pub struct Health {
    #[schema(pattern = "^ok$")]
    pub status: String,
    pub version: String,
}
