//! The admin log. Native only: the Worker passes on the JSON that the SQL in
//! `src/runtime/store/log.rs` makes.
#![expect(missing_docs, reason = "the names say it; what they do not is in the document")]

use serde_json::Value;
use utoipa::ToSchema;

/// A change that was made through the admin API.
#[derive(Debug, ToSchema)]
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
