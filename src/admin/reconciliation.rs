//! Schemas of comparisons of an object's counts with D1. Native only: the SQL in
//! `src/runtime/store/reports.rs` builds the JSON.
#![expect(missing_docs, reason = "fields whose names say all; the others have descriptions for the document")]

use utoipa::ToSchema;

/// Usage in a month, or of one route class in an hour.
#[derive(Debug, ToSchema)]
pub struct Count {
    /// A month such as `2031-03`, or the start of an hour.
    pub period: String,
    /// Route class of an hour; `null` for a month.
    #[schema(required = true)]
    pub class: Option<String>,
    /// Admitted calls.
    pub calls: u64,
    /// Calls denied with 429.
    pub denied: u64,
    /// Requests charged for the admitted calls.
    pub cost: u64,
    /// Tokens charged.
    pub tokens: u64,
}

/// A count that differs between the key's object and D1. A side is `null` if it has no such count.
#[derive(Debug, ToSchema)]
pub struct Difference {
    #[schema(required = true)]
    pub object: Option<Count>,
    #[schema(required = true)]
    pub d1: Option<Count>,
}

/// The counts of one side, and their sums over the months.
#[derive(Debug, ToSchema)]
pub struct Counted {
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub tokens: u64,
    /// The compared months and hours.
    pub counts: Vec<Count>,
}

/// A comparison of a key's object with D1. The object is flushed to D1 first.
#[derive(Debug, ToSchema)]
pub struct Reconciliation {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(inline)]
    /// `exact`: no difference. `drift`: `differences` lists them.
    pub state: Agreement,
    /// Time of the comparison.
    #[schema(format = DateTime)]
    pub at: String,
    /// Id of the object's storage, which changes if the storage is lost. Only its counts are
    /// compared.
    pub epoch: String,
    /// Counts of the object.
    pub object: Counted,
    /// Counts of D1 for the same periods.
    pub d1: Counted,
    /// Empty if `state` is `exact`.
    pub differences: Vec<Difference>,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Agreement {
    Exact,
    Drift,
}

/// A key whose object and D1 differed when the hourly check compared them.
#[derive(Debug, ToSchema)]
pub struct Drift {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(format = DateTime)]
    pub found_at: String,
    pub detail: Reconciliation,
}
