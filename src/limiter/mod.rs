//! Policies and how they decide: what a request costs, the counters of each algorithm, the verdict.
//!
//! What one key has used, over all of its policies, is in [`key_state`](crate::key_state).

pub mod cost;
pub mod decision;
pub(crate) mod fixed_window;
pub(crate) mod gcra;
pub mod policy;
pub mod schedule;
pub(crate) mod sliding_log;
