//! tollgate: exact rate limits and monthly quotas per API key, at the edge.
//!
//! A request only moves forward, through these files of `runtime` and the rules that they apply:
//!
//! ```text
//! entry ── incoming, router ─┬─ gateway/gate ── gateway/authenticate ── gateway/loop_guard
//!                            │                                                │
//!                            │   gateway/call ── deny_cache, outbox ◀─────────┘
//!                            │        │ a line of text
//!                            │        ▼
//!                            │   object/key_object ── object/calls ── key_state ── one row
//!                            │        │ a line of text
//!                            │        ▼
//!                            │   gateway/call ── ratelimit_headers ── gateway/origin ─▶ the origin
//!                            └─ admin ── store ─▶ D1 ◀── object/flush, by alarm
//! ```
//!
//! All other modules are pure: they use no clock, storage or platform, and are compiled and tested
//! natively. `docs/architecture.md` describes the whole system.
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
pub mod tokens;

#[cfg(target_arch = "wasm32")]
mod runtime;
