//! All that one key's object remembers: its counts and the verdicts of policies on them, the calls
//! that it may be asked about again, the audit log, and the rows that store all of this.

pub mod audit_log;
pub mod call_memory;
pub mod clock;
mod counters;
mod evaluate;
pub mod idempotency;
mod layout;
mod nonces;
mod ring;
pub mod row;
pub mod state;
