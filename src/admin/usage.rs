//! Schemas of usage reports. Native only: the SQL in `src/runtime/store/reports.rs` and `usage.rs`
//! builds the JSON.
#![expect(missing_docs, reason = "fields whose names say all; the others have descriptions for the document")]

use crate::admin::parameters::PAGE_LIMIT;
use crate::admin::reports::{MONTHS_LIMIT, TOP_LIMIT};
use crate::gateway::self_service::MONTHS_SHOWN;
use utoipa::ToSchema;

/// Usage in a UTC month.
#[derive(Debug, ToSchema)]
pub struct MonthUsage {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
}

/// Usage of one route class in an hour.
#[derive(Debug, ToSchema)]
pub struct HourUsage {
    /// Start of the hour.
    #[schema(format = DateTime)]
    pub hour: String,
    /// Route class: a pattern of `route_costs`, or the method and the first segment of the path.
    pub class: String,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
}

/// Usage of one route class in a UTC day.
#[derive(Debug, ToSchema)]
pub struct DayUsage {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    pub day: String,
    /// Route class: a pattern of `route_costs`, or the method and the first segment of the path.
    pub class: String,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
}

/// The most items of lists: the schema, its list, the number.
pub const LIST_LIMITS: &[(&str, &str, usize)] = &[
    ("MeUsage", "months", MONTHS_SHOWN),
    ("History", "months", MONTHS_LIMIT),
    ("Report", "top", TOP_LIMIT),
    ("Report", "keys", PAGE_LIMIT),
];

/// Usage of the presented key.
#[derive(Debug, ToSchema)]
pub struct MeUsage {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    /// The current month, as of now, and those of the 11 before it that have usage; oldest first.
    pub months: Vec<MonthUsage>,
    /// The current hour and the 23 before it by route class, as of the key's last flush to D1;
    /// oldest first.
    pub hours: Vec<HourUsage>,
}

/// A month of a key's history.
#[derive(Debug, ToSchema)]
pub struct HistoryMonth {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
    /// Tokens charged beyond what was held for them.
    pub overdraft: u64,
    /// Whether the month is over.
    pub is_complete: bool,
    /// Change of `calls` from the month before, in percent; `null` if that month had no calls.
    #[schema(required = true)]
    pub growth_percent: Option<f64>,
}

/// Monthly usage of a key.
#[derive(Debug, ToSchema)]
pub struct History {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    /// Oldest first, from the month of issue at the earliest to the current one; months without
    /// usage included.
    pub months: Vec<HistoryMonth>,
    /// Mean of `calls` over the complete months shown; `null` if there is none.
    #[schema(required = true)]
    pub average: Option<f64>,
    /// The last complete month compared with the mean of up to three months before it. `flat`: the
    /// difference is at most 10 %, or there is nothing to compare.
    #[schema(inline)]
    pub trend: Trend,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Trend {
    Up,
    Down,
    Flat,
}

/// Usage of a key in a month. `name`, `owner` and `tier` of a deleted key are `null`.
#[derive(Debug, ToSchema)]
pub struct KeyReport {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(required = true)]
    pub name: Option<String>,
    #[schema(required = true)]
    pub owner: Option<String>,
    #[schema(required = true)]
    pub tier: Option<String>,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
    /// Tokens charged beyond what was held for them.
    pub overdraft: u64,
}

/// Usage of all keys together.
#[derive(Debug, ToSchema)]
#[schema(as = Totals)]
pub struct ReportTotals {
    /// Keys with usage in the month.
    pub keys: u64,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
    /// Tokens charged beyond what was held for them.
    pub overdraft: u64,
}

/// Usage of the keys that have a tier now.
#[derive(Debug, ToSchema)]
pub struct TierReport {
    /// `null` for deleted keys.
    #[schema(required = true)]
    pub tier: Option<String>,
    /// Keys of the tier, with or without usage; of deleted keys, those with usage.
    pub keys: u64,
    /// Admitted calls.
    pub calls: u64,
    /// Tokens charged.
    pub tokens: u64,
}

/// One of the keys with the most calls; those with equally many by their tokens. `name` and `tier` of a deleted key are `null`.
#[derive(Debug, ToSchema)]
pub struct LargestKey {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(required = true)]
    pub name: Option<String>,
    #[schema(required = true)]
    pub tier: Option<String>,
    /// Admitted calls.
    pub calls: u64,
    /// Tokens charged.
    pub tokens: u64,
}

/// Usage of all keys in a month, and a page of them in the order of their ids.
#[derive(Debug, ToSchema)]
#[schema(as = Report)]
pub struct MonthReport {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// In the order of their names; deleted keys are under tier `null`, last.
    pub tiers: Vec<TierReport>,
    /// The keys with the most calls, largest first.
    pub top: Vec<LargestKey>,
    /// Admitted calls of all keys.
    pub calls: u64,
    /// Calls of all keys denied with 429.
    pub denied: u64,
    /// Tokens charged to all keys.
    pub tokens: u64,
    /// Usage of all keys, the same on every page.
    pub totals: ReportTotals,
    pub keys: Vec<KeyReport>,
    /// Cursor of the next page; `null` on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}
