//! The platform layer, for wasm only: HTTP, Durable Objects, D1, timers.
//!
//! It gathers the inputs of the rules in the other modules and applies their decisions. Its modules
//! bear the names of the rooms whose rules they apply.

mod admin;
mod clock;
mod cron;
mod deadline;
mod entry;
mod error;
mod gateway;
mod handler;
mod http;
mod incoming;
mod isolate;
mod js;
mod object;
mod store;
