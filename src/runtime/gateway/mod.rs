//! Applies the rules of [`gateway`](crate::gateway) to requests.

pub(crate) mod authenticate;
pub(crate) mod call;
pub(crate) mod gate;
pub(crate) mod import_lookup;
pub(crate) mod in_flight;
pub(crate) mod loop_guard;
pub(crate) mod object_client;
pub(crate) mod origin;
pub(crate) mod outbox;
mod refusal;
pub(crate) mod self_service;
pub(crate) mod token_call;
