//! The Worker's rules: whose request it is, what is known without asking, what the origin and the client see.
//!
//! Everything here is one isolate's: nothing is stored, and nothing is more than a memory of what objects and D1 have said.

pub mod credential;
pub mod credential_filter;
pub mod deny_cache;
pub mod import_cache;
pub mod import_queue;
pub mod loop_guard;
pub mod outage;
pub mod outbound;
pub mod outbox;
pub mod ratelimit_headers;
pub mod recent;
pub mod refused_addresses;
pub mod self_service;
pub mod verified_keys;
