//! All that one key's object remembers: its counts and the policies' verdicts on them, the calls it
//! may be asked about again, the audit log, and the rows that all of it is stored in.

pub mod audit_log;
mod evaluate;
pub mod idempotency;
mod layout;
mod nonces;
mod policy_change;
pub mod row;
pub mod state;
