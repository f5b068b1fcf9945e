//! tollgate: exact rate limits and monthly quotas per API key, at the edge.
//!
//! ```text
//! edge::fetch ─ target, route ─┬─ edge::gateway ── credential, key ── edge::object_client ─▶ edge::key_object ─ limit ─▶ row
//!                              │        └── edge::origin ◀── admitted ─── protocol ◀──────────────┘
//!                              └─ edge::admin ── admin ── edge::key_store ─▶ D1 ◀── flush, by alarm
//! ```
//!
//! Everything but `edge` is pure: no clock, no storage, no runtime; it compiles and is tested natively. `docs/architecture.md`
//! has the whole picture.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod encoding;
pub mod gateway;
pub mod http;
pub mod key_state;
pub mod keys;
pub mod limiter;
pub mod metering;
pub mod object;
pub mod protocol;
pub mod router;
pub mod time;

#[cfg(target_arch = "wasm32")]
mod runtime;
