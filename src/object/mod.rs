//! What a key's object decides: how calls and look-ups are answered, when rows are written, when
//! the profile is read, when alerts are delivered, and when the alarm comes. Events and times go
//! in, actions come out; [`runtime/object`](crate) carries them out.

pub mod alarm_schedule;
pub mod alert_delivery;
pub mod denials;
pub mod group_commit;
pub mod profile_freshness;
