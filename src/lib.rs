//! tollgate: exact rate limits and monthly quotas per API key, at the edge.
//!
//! A request goes forward only, through these files of `runtime` and the rules that they carry out:
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
//! Everything but `runtime` is pure: no clock, no storage, no platform. It compiles and is tested natively.
//! `docs/architecture.md` has the whole picture.
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
