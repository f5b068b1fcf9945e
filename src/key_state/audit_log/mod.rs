//! The audit log: what the gate did with each call, and how the call ended.

pub mod entry;
pub mod reader;
pub mod retention;
pub mod tail;
