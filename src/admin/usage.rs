//! What was used, by key, class of routes and time. Native only: the Worker passes on the JSON that
//! the SQL in `src/runtime/store/reports.rs` and `usage.rs` makes.
#![expect(missing_docs, reason = "the names say it; what they do not is in the document")]

use utoipa::ToSchema;

/// What was used in a month.
#[derive(Debug, ToSchema)]
pub struct MonthUsage {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub calls: u64,
    pub denied: u64,
    /// What the calls cost, in requests.
    pub cost: u64,
}

/// What was used in an hour by one class of routes.
#[derive(Debug, ToSchema)]
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

/// What was used in a day by one class of routes.
#[derive(Debug, ToSchema)]
pub struct DayUsage {
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    pub day: String,
    /// A pattern of `route_costs`, or the method and the path's first segment.
    pub class: String,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
}

/// What the presented key has used.
#[derive(Debug, ToSchema)]
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
#[derive(Debug, ToSchema)]
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
#[derive(Debug, ToSchema)]
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

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Trend {
    Up,
    Down,
    Flat,
}

/// What a key used in a month. Of a key that is deleted, its name, owner and tier are `null`.
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
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub tokens: u64,
}

/// What all keys used together.
#[derive(Debug, ToSchema)]
#[schema(as = Totals)]
pub struct ReportTotals {
    /// Keys that were used.
    pub keys: u64,
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub tokens: u64,
}

/// A tier: how many keys it has, and what those called.
#[derive(Debug, ToSchema)]
pub struct TierReport {
    #[schema(required = true)]
    pub tier: Option<String>,
    pub keys: u64,
    pub calls: u64,
}

/// One of the keys with the most calls. Of a key that is deleted, its name and tier are `null`.
#[derive(Debug, ToSchema)]
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
#[derive(Debug, ToSchema)]
#[schema(as = Report)]
pub struct MonthReport {
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
    pub totals: ReportTotals,
    #[schema(max_items = 500)]
    pub keys: Vec<KeyReport>,
    /// Of the page that follows; `null` at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}
