//! What a key's state keeps beside its limits: usage by hour and class, the idempotency keys of its calls, the
//! audit log, and alerts.
//!
//! All of it is part of the one [`State`](crate::limit::State) of a key, so that one row holds a call's counts together with
//! what else is known of it, or none of that.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod hours;
pub(crate) mod replays;
mod text;

pub use alerts::{Alert, signature};
pub use audit::{
    AUDIT_BYTES, AuditCursor, AuditCursorError, AuditError, AuditQuery, AuditReader, AuditRow, End, Entry,
    MAX_DURATION, audit_next, audit_over, audit_surplus,
};
pub use hours::{Counts, HourTotal, MAX_CLASSES};
pub use replays::{MAX_FLIGHT, MAX_IN_FLIGHT, MAX_REPLAYS, REPLAY_SECONDS, ReplayRow};

/// Bytes of a class's name at most.
pub const MAX_CLASS_BYTES: usize = 64;

/// A class's name as it is kept.
pub(crate) fn cut(class: &str) -> &str {
    class.get(..class.floor_char_boundary(MAX_CLASS_BYTES)).unwrap_or(class)
}
