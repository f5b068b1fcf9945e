//! What is handed to storage, and what reading it back can fail with. `ring.rs` says
//! which rows there are.

use crate::key_state::audit_log::AuditRow;
use crate::key_state::idempotency::IdempotencyRow;

/// The version of the layout that this code writes. A layout that older code would misread needs
/// another number.
pub(super) const VERSION: u64 = 1;

/// One row to be stored: `body` replaces whatever `slot` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// The primary key.
    pub slot: u32,
    /// Compact JSON.
    pub body: String,
}

/// All that a commit stores and deletes, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The row that every commit stores. The others are rare, and only for keys whose calls have
    /// idempotency keys or an audit log.
    pub row: StateRow,
    /// Rows of idempotency keys to be stored.
    pub replays: Vec<IdempotencyRow>,
    /// Ids of rows of idempotency keys to be deleted.
    pub replays_over: Vec<u32>,
    /// Chunks of the audit log to be stored.
    pub audit: Vec<AuditRow>,
}

/// Stored rows are not a state.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are no rows: the key has no state yet.
    #[error("there is no row to read a state from")]
    NoRows,
    /// A row is not what this code writes.
    #[error("row in slot {slot} cannot be read: {reason}")]
    Malformed {
        /// The row.
        slot: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// A row was written by other code, perhaps newer.
    #[error("row in slot {slot} has version {found}, not {VERSION}")]
    Version {
        /// The row.
        slot: u32,
        /// Its version.
        found: u64,
    },
}
