//! When a key's object writes what it has counted. What it counts is in [`limit`](crate::key_state) and [`meter`](crate::metering).

pub mod denials;
pub mod group_commit;
