//! Policies, the cost of a call, the counter of each algorithm, and the types of a decision.
//!
//! [`key_state`](crate::key_state) evaluates all policies of a key together.

pub mod cost;
pub mod decision;
pub(crate) mod fixed_window;
pub(crate) mod floors;
pub(crate) mod gcra;
pub mod policy;
pub mod schedule;
pub(crate) mod sliding_log;
