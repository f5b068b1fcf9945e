//! The admin log.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A change that was made through the admin API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Grows with every change.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// The name of the token, or `root`.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what: `keys/{id}`, `tiers/{name}` and so on, the paths of the API.
    pub target: String,
    /// The thing before; `null` if there was none.
    pub before: Value,
    /// The thing after; `null` if it is gone.
    pub after: Value,
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogPage {
    /// Newest first.
    pub entries: Vec<LogEntry>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}
