//! Policies and how they decide: the cost of a call, the counters of each algorithm, the verdict.
//!
//! The usage of one key over all of its policies is in [`key_state`](crate::key_state).

pub mod cost;
pub mod decision;
pub(crate) mod fixed_window;
pub(crate) mod gcra;
pub mod policy;
pub mod schedule;
pub(crate) mod sliding_log;
