//! The rows that a commit stores, and the errors of reading them back.
//! `ring.rs` describes their layout.

use crate::key_state::audit_log::tail::AuditRow;
use crate::key_state::idempotency::IdempotencyRow;

/// The version of the layout that this code writes. Increase it for any layout that older code
/// would misread.
pub(super) const VERSION: u64 = 1;

/// The row of a commit. It replaces the row in `slot`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StateRow {
    /// The primary key.
    pub slot: u32,
    /// Compact JSON.
    pub body: String,
}

/// The rows that a commit stores and deletes, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Every commit stores this row. The others are rare, and exist only for keys with idempotency
    /// keys or an audit log.
    pub row: StateRow,
    /// Chunks of idempotency keys to store.
    pub replays: Vec<IdempotencyRow>,
    /// Ids of chunks of idempotency keys to delete.
    pub expired_replays: Vec<u32>,
    /// Chunks of the audit log to store.
    pub audit: Vec<AuditRow>,
}

/// The stored rows cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DecodeError {
    /// The key has no state yet.
    #[error("there is no row to read a state from")]
    NoRows,
    #[error("row in slot {slot} cannot be read: {reason}")]
    Malformed { slot: u32, reason: String },
    /// The row was written by another version of this code, probably a newer one.
    #[error("row in slot {slot} has version {found}, not {VERSION}")]
    Version { slot: u32, found: u64 },
}
