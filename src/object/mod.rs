//! When a key's object writes what it has counted. What it counts is in [`limit`](crate::limit) and [`meter`](crate::meter).

pub mod denials;
pub mod group_commit;
