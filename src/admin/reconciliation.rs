//! Comparisons of an object's counts with D1. Native only: the Worker passes on the JSON that the
//! SQL in `src/runtime/store/reports.rs` makes.
#![expect(missing_docs, reason = "the names say it; what they do not is in the document")]

use utoipa::ToSchema;

/// What was counted in a month, or in an hour by one class of routes.
#[derive(Debug, ToSchema)]
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
#[derive(Debug, ToSchema)]
pub struct Difference {
    #[schema(required = true)]
    pub object: Option<Count>,
    #[schema(required = true)]
    pub d1: Option<Count>,
}

/// One side of the accounts: the sums over its months, and all of it.
#[derive(Debug, ToSchema)]
pub struct Counted {
    pub calls: u64,
    pub denied: u64,
    pub cost: u64,
    pub counts: Vec<Count>,
}

/// Whether D1 has what the object counted, once a flush has gone through.
#[derive(Debug, ToSchema)]
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

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Agreement {
    Exact,
    Drift,
}

/// A key of which D1 has something else than its object.
#[derive(Debug, ToSchema)]
pub struct Drift {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    #[schema(format = DateTime)]
    pub found_at: String,
    pub detail: Reconciliation,
}
