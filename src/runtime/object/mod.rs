//! The key's object: what carries out the rules of [`object`](crate::object) and [`key_state`](crate::key_state).

mod alerts;
mod fan_out;
mod flush;
pub(crate) mod key_object;
mod key_status;
mod profile;
pub(crate) mod reconcile;
mod storage;
mod writer;
