//! The part of the crate that the runtime calls, for wasm only: requests, objects, storage. It
//! collects facts and carries out what the rest of the crate decides. Its rooms have the names of
//! the crate's.

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
