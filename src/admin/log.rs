//! Schemas of the admin log. Native only: the SQL in `src/runtime/store/log.rs` builds the JSON.

use serde_json::Value;
use utoipa::ToSchema;

/// A change made through the admin API.
#[derive(Debug, ToSchema)]
#[schema(as = LogEntry)]
pub struct LogEntryView {
    /// Grows with each entry.
    pub id: u64,
    /// Time of the change.
    #[schema(format = DateTime)]
    pub at: String,
    /// Name of the admin token; `root` for `ADMIN_TOKEN`.
    pub actor: String,
    /// `create`, `import`, `change`, `rotate`, `revoke`, `put` or `delete`.
    pub action: String,
    /// Path of what was changed: `keys/{id}`, `keys/{id}/overrides/{policy}`, `tiers/{name}`,
    /// `route-costs`, `token-routes` or `tokens/{id}`.
    pub target: String,
    /// State before the change, without secrets; `null` if the target was created.
    #[schema(value_type = Option<Object>, required = true)]
    pub before: Option<Value>,
    /// State after the change, without secrets; `null` if the target was deleted.
    #[schema(value_type = Option<Object>, required = true)]
    pub after: Option<Value>,
}
