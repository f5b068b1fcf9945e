//! The state of one API key: counters and the verdicts of its policies, recent calls, the audit
//! log, and the rows that store all of this.

pub mod audit_log;
pub mod call_memory;
pub mod clock;
pub mod closed_holds;
mod counters;
mod evaluate;
pub mod hold;
mod holds;
pub mod idempotency;
mod layout;
mod nonces;
mod ring;
pub mod row;
pub mod state;
