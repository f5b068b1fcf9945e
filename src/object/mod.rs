//! What a key's object decides: how requests are answered, when rows are written, when the profile
//! is read, when alerts are delivered, and when the alarm comes. Events and times go in, actions
//! come out, and `runtime/object` carries them out.

pub mod alarm_schedule;
pub mod alert_delivery;
pub mod denials;
#[cfg(test)]
mod fixtures;
pub mod group_commit;
pub mod judge;
pub mod look_up;
pub mod memory;
pub mod profile_freshness;
pub mod reservations;
pub mod settings;
