//! Rules about HTTP requests that depend on neither keys nor limits.

pub mod address;
pub mod framing;
pub mod idempotency_key;
pub mod preflight;
pub mod problem;
pub mod target;
