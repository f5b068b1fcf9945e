//! How long chunks of the audit log are kept, and how much space they may take.

use crate::key_state::audit_log::tail::CHUNK_BYTES;
use crate::time::{DAY, UnixMicros};

/// Size of an object's database above which the oldest chunks are deleted: 1 GiB of the 10 GB
/// that Cloudflare allows. All other rows of an object together take a few megabytes.
pub const AUDIT_BYTES: u64 = 1 << 30;

/// The number of oldest chunks to delete when a chunk of `added` bytes is stored into a database
/// of `size` bytes. A chunk has at least `CHUNK_BYTES`, so while `size` exceeds `cap` more is
/// deleted than added.
#[must_use]
pub const fn audit_surplus(size: u64, cap: u64, added: usize) -> usize {
    if size > cap { added / CHUNK_BYTES + 2 } else { 0 }
}

/// The end of the retention period at `now`: chunks that end at or before it may be deleted.
#[must_use]
pub const fn audit_cutoff(now: UnixMicros, days: u32) -> UnixMicros {
    now.saturating_sub(DAY.saturating_mul(days as u64))
}

/// When to delete chunks next, if the oldest one left ends at `oldest`: at the end of the UTC day
/// in which it expires, so that deletion runs at most once a day.
#[must_use]
pub const fn next_audit_deletion(oldest: UnixMicros, days: u32) -> UnixMicros {
    let expiry = oldest.saturating_add(DAY.saturating_mul(days as u64)).as_micros();
    UnixMicros::from_micros((expiry / DAY).saturating_add(1).saturating_mul(DAY))
}
