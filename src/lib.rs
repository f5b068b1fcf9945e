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

pub mod address;
pub mod admin;
pub mod arrears;
pub mod config;
pub mod credential;
pub mod decision;
pub mod deny_cache;
pub mod encoding;
pub mod framing;
pub mod headers;
pub mod idempotency;
pub mod key;
pub mod key_lookups;
pub mod limit;
pub mod lookup_queue;
pub mod meter;
pub mod object;
#[cfg(not(target_arch = "wasm32"))]
pub mod openapi;
pub mod outage;
pub mod outbound;
pub mod own_loop;
pub mod policy;
pub mod preflight;
pub mod profile;
pub mod protocol;
pub mod recent;
pub mod refusal;
pub mod refusals;
pub mod route;
pub mod route_cost;
pub mod route_pattern;
pub mod self_service;
pub mod target;
pub mod time;
pub mod verified_keys;

#[cfg(target_arch = "wasm32")]
mod edge;
