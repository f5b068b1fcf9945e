//! Rules about requests that hold for any gate: no key, no limit, no runtime.

pub mod address;
pub mod framing;
pub mod idempotency_key;
pub mod preflight;
pub mod problem;
pub mod target;
