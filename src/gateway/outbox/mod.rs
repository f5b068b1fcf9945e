//! What an isolate has not yet reported to the objects of keys: usage that no object has counted,
//! and outcomes of calls. The next request about the key carries it; without one it is delivered
//! alone after a delay.

pub mod call_outcomes;
pub mod delivery_timer;
pub mod queue;
pub mod usage_reports;
