//! The key's object: carries out what [`object`](crate::object) and
//! [`key_state`](crate::key_state) decide.

mod alarm;
mod alarm_work;
mod alerts;
mod calls;
mod context;
mod flush;
pub(crate) mod key_object;
mod look_ups;
mod parts;
mod profile_reader;
mod reply;
mod reservations;
mod settings;
mod storage;
mod tier_changes;
mod writer;
