//! Tests of the engine and other pure rules, through their public surface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)]

mod holds;
mod import_queue;
mod limits;
mod metering;
mod migrations;
mod model;
mod nonces;
mod outbox;
mod properties;
mod route_properties;
mod rows;
mod schedule;
mod stored_numbers;
mod support;
mod token_answer_properties;
mod token_answers;
mod token_final_counts;
mod token_own_caps;
mod token_request_properties;
mod token_requests;
