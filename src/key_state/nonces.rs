//! Nonces of recently admitted calls, so that a retried object request is not counted twice.
//!
//! # Retention
//! An isolate retries an object request when the response is lost. If that response is lost too and
//! the call was let through, the isolate reports the call later under the same nonce. So a nonce is
//! kept for [`RETENTION`] after its admission, and longer while fewer than [`CHUNK`] newer ones
//! exist. It is dropped early once [`MAX_NEWER`] newer ones exist. The retention of all nonces
//! starts anew after [`PAUSE`] without calls: either the object was unreachable and reports are
//! arriving now, or its clock leapt.
//!
//! Nonces are dropped in the order of admission. All nonces admitted since
//! [`Nonces::complete_since`] are kept. A retried request states its age:
//!
//! - If it was first sent after `complete_since` and its nonce is unknown, it was never counted.
//! - If it was first sent earlier and its nonce is unknown, it may have been counted. It is then
//!   not counted, so that no call is counted twice.
//!
//! With fewer than [`MAX_NEWER`] calls a minute, the first case covers every request that was first
//! sent less than [`RETENTION`] - [`PAUSE`] ago. The exception is a request sent before a pause
//! that a restart followed, because pauses are not stored.
//!
//! # In rows
//! Rows hold nonces in runs, as they hold the entries of a log (see
//! [`ring`](crate::key_state::ring)). The open run is part of each row. A full run stays in the row
//! that it was last written to until it is dropped. So nonces cost no rows of their own.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::key_state::ring::CHUNK;
use crate::time::{MINUTE, SECOND, UnixMicros};

/// How long a nonce is kept, in microseconds: one minute.
const RETENTION: u64 = MINUTE;
/// A time without calls after which the retention of all nonces starts anew, in microseconds.
const PAUSE: u64 = 10 * SECOND;
/// Number of newer nonces that causes a nonce to be dropped early. At 1,000 calls per second, this
/// happens after 16 seconds.
const MAX_NEWER: usize = 16_384;
/// Minimum number of nonces per row. Code older than runs reads only those of the newest row.
const MIN_IN_ROW: usize = 8;

/// Hashes nonces, which are random or consecutive. Isolates generate them, so clients cannot
/// provoke collisions.
#[derive(Debug, Clone, Default)]
struct NonceHasher(u64);

impl Hasher for NonceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio, as in Knuth's multiplicative hashing.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A run of nonces, stored in one row.
#[derive(Debug, Clone, Copy, Default)]
struct NonceRun {
    count: usize,
    /// The admission times of its oldest and its newest nonce.
    first: UnixMicros,
    last: UnixMicros,
}

/// The nonces of one row.
pub(super) struct RowNonces<'a> {
    /// The time of the last admission before the row was written.
    pub(super) at: UnixMicros,
    pub(super) nonces: &'a [u64],
    /// See [`Nonces::times_for_row`].
    pub(super) times: Option<(UnixMicros, UnixMicros)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Nonces {
    /// Oldest first.
    known: VecDeque<u64>,
    /// The same nonces, for the lookup of each call.
    set: HashSet<u64, BuildHasherDefault<NonceHasher>>,
    /// Full runs and the slots of their rows, oldest first.
    closed: VecDeque<(u32, NonceRun)>,
    /// The run of the newest nonces, which is part of the next row.
    open: NonceRun,
    /// All nonces admitted since this time are kept. 0 if none was ever dropped.
    complete_since: UnixMicros,
    /// The time of the first admission since the last pause, or since this value was created.
    active_since: UnixMicros,
    /// The time of the last admission.
    last: UnixMicros,
    /// Number of the newest nonces that no committed row holds yet.
    uncommitted: usize,
    /// The last confirmed commit and all later ones, each with its number of new nonces.
    commits: VecDeque<(u64, usize)>,
}

impl Nonces {
    pub(super) fn new() -> Self {
        Self { commits: VecDeque::from([(0, 0)]), ..Self::default() }
    }

    /// Reads nonces back from the rows of a key: the older rows with their slots, oldest first, and
    /// the newest row.
    pub(super) fn from_rows<'a>(older: impl Iterator<Item = (u32, RowNonces<'a>)>, newest: &RowNonces<'_>) -> Self {
        let mut nonces = Self::new();
        for (slot, held) in older {
            nonces.take(&held);
            nonces.close(slot);
        }
        nonces.take(newest);
        // Code older than runs stored no times, and kept only the newest `MIN_IN_ROW` nonces.
        let may_be_cut = newest.nonces.len() >= MIN_IN_ROW;
        let assumed = if may_be_cut { newest.at } else { UnixMicros::default() };
        nonces.complete_since = newest.times.map_or(assumed, |(complete_since, _)| complete_since);
        nonces.forget(newest.at, UnixMicros::default());
        nonces
    }

    pub(super) fn remember(&mut self, nonce: u64, now: UnixMicros) {
        if now.since(self.last) >= PAUSE {
            self.active_since = now;
        }
        self.last = now;
        if self.add(nonce, now) {
            self.uncommitted += 1;
            self.forget(now, self.active_since);
        }
    }

    pub(super) fn contains(&self, nonce: u64) -> bool {
        self.set.contains(&nonce)
    }

    /// All nonces admitted since this time are kept.
    pub(super) const fn complete_since(&self) -> UnixMicros {
        self.complete_since
    }

    /// The nonces for the next row: the open run, those of the last confirmed commit, all
    /// unconfirmed ones, and at least [`MIN_IN_ROW`].
    ///
    /// Code older than runs needs all but the open run: it reads the newest row alone, and requests
    /// of these commits may be retried after a restart.
    pub(super) fn for_row(&self) -> impl Iterator<Item = u64> + '_ {
        let count = self.needed().max(self.open.count).max(MIN_IN_ROW);
        self.known.range(self.known.len().saturating_sub(count)..).copied()
    }

    /// [`complete_since`](Self::complete_since) and the time of the oldest nonce of the open run.
    /// `None` while there are so few nonces that none can have been dropped.
    pub(super) fn times_for_row(&self) -> Option<(UnixMicros, UnixMicros)> {
        (self.known.len() >= MIN_IN_ROW).then_some((self.complete_since, self.open.first))
    }

    /// Whether the open run fills its row.
    pub(super) const fn is_full(&self) -> bool {
        self.open.count >= CHUNK
    }

    /// Closes the open run: from now on it belongs to the row in `slot`.
    pub(super) fn close(&mut self, slot: u32) {
        if self.open.count > 0 {
            self.closed.push_back((slot, std::mem::take(&mut self.open)));
        }
    }

    /// The slots of the rows that hold runs.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.closed.iter().map(|(slot, _)| *slot)
    }

    /// Moves times later than `now` to `now`, after the clock stepped back.
    pub(super) fn rebase(&mut self, now: UnixMicros) {
        for run in self.closed.iter_mut().map(|(_, run)| run).chain([&mut self.open]) {
            run.first = run.first.min(now);
            run.last = run.last.min(now);
        }
        self.complete_since = self.complete_since.min(now);
        self.active_since = self.active_since.min(now);
        self.last = self.last.min(now);
    }

    pub(super) fn committed(&mut self, commit: u64) {
        self.commits.push_back((commit, std::mem::take(&mut self.uncommitted)));
    }

    pub(super) fn unconfirmed(&self) -> usize {
        // The first entry is the last confirmed commit, or the last one before this value was read.
        self.commits.len().saturating_sub(1)
    }

    pub(super) fn confirmed(&mut self, commit: u64) {
        while self.commits.front().is_some_and(|(first, _)| *first < commit) {
            self.commits.pop_front();
        }
    }

    /// Number of new nonces in the last confirmed commit and since.
    fn needed(&self) -> usize {
        self.commits.iter().fold(self.uncommitted, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Adds the nonces of a row that are not kept yet, as the open run.
    fn take(&mut self, held: &RowNonces<'_>) {
        for nonce in held.nonces {
            self.add(*nonce, held.at);
        }
        // Without a stored time, assume the latest possible one: it claims the least.
        self.open.first = held.times.map_or(held.at, |(_, first)| first);
    }

    /// Returns `false` if it is kept already.
    fn add(&mut self, nonce: u64, at: UnixMicros) -> bool {
        let is_new = self.set.insert(nonce);
        if is_new {
            self.known.push_back(nonce);
            let first = if self.open.count == 0 { at } else { self.open.first };
            self.open = NonceRun { count: self.open.count + 1, first, last: at };
        }
        is_new
    }

    /// Drops expired runs as a whole, except those with nonces of commits that are still
    /// [needed](Self::needed).
    fn forget(&mut self, now: UnixMicros, active_since: UnixMicros) {
        while let Some((_, run)) = self.closed.front() {
            let newer = self.known.len().saturating_sub(run.count);
            let is_old = run.last.max(active_since).saturating_add(RETENTION) <= now && newer >= CHUNK;
            if !(is_old || newer >= MAX_NEWER) || newer < self.needed() {
                break;
            }
            for nonce in self.known.drain(..run.count) {
                self.set.remove(&nonce);
            }
            self.closed.pop_front();
            let oldest = self.closed.front().map_or(self.open.first, |(_, run)| run.first);
            self.complete_since = self.complete_since.max(oldest);
        }
    }
}
