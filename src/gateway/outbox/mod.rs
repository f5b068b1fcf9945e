//! Everything that an isolate still has to report to the objects of keys: usage that no object has
//! counted yet, and how calls ended. It goes along with the next request about the key, or by
//! itself after a delay.

pub mod call_outcomes;
pub mod delivery_timer;
pub mod queue;
pub mod usage_reports;
