//! The Worker's rules: credentials, what an isolate can decide without the object, and the form of
//! requests to the origin and responses to clients.
//!
//! All state here belongs to one isolate. None of it is stored: it only caches responses of objects
//! and D1.

pub mod body_budget;
pub mod credential;
pub mod credential_filter;
pub mod deny_cache;
pub mod final_cost;
pub mod import_cache;
pub mod import_queue;
pub mod known_terms;
pub mod loop_guard;
pub mod outage;
pub mod outbound;
pub mod outbox;
pub mod ratelimit_headers;
pub mod recent;
pub mod refused_addresses;
pub mod self_service;
pub mod token_answer;
pub mod verified_keys;
