//! Nonces of calls that were admitted lately, so that a call that is asked about again is
//! recognised and not counted again.
//!
//! # For how long
//! A request to the object is repeated when its response is lost. If that response is lost too and
//! the call was let through, the isolate reports the call under the same nonce, with a later
//! request. So a nonce is known for [`LIFE`] after its admission, and for as long as fewer than
//! [`CHUNK`] newer ones are known, but not once [`MOST`] newer ones are. The life of all nonces
//! starts again after a pause of [`GAP`]: the object was unreachable and reports arrive now, or its
//! clock jumped.
//!
//! What is forgotten is forgotten in the order of admission, and [`Nonces::complete_since`] is the
//! time of the oldest that is known. A repeated question carries its age. A question that was first
//! asked after `complete_since` was counted after it too, if at all; if its nonce is not known it
//! was not counted. Of an earlier one nothing can be told; it is not counted, so that none is
//! counted twice. With fewer than [`MOST`] calls a minute, all can be told that was asked less than
//! [`LIFE`] - [`GAP`] ago. (After a restart a pause before it is not known, so what was asked
//! before that pause may not be told.)
//!
//! # In rows
//! As the entries of a log are (see [`ring`](crate::key_state::ring)), nonces are held by rows in
//! runs. The open run is part of each row; a full one stays in the slot of the row that it was last
//! written to, until it is forgotten. So they cost no rows, and what is known outlives the memory.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::key_state::ring::CHUNK;
use crate::time::{MINUTE, SECOND, UnixMicros};

/// For how long a nonce is known at least, in microseconds: a minute.
const LIFE: u64 = MINUTE;
/// A time without calls after which the life of all nonces starts again, in microseconds.
const GAP: u64 = 10 * SECOND;
/// Newer nonces that are known when one is forgotten whatever its age. At 1,000 calls a second, 16
/// seconds.
const MOST: usize = 16_384;
/// Nonces a row is filled up to: code that knows no runs takes them from the newest row alone.
const IN_ROW: usize = 8;

/// Spreads numbers that are random or follow each other, as nonces are. Nobody who could choose
/// them gains by it: an isolate makes them.
#[derive(Debug, Clone, Default)]
struct Spread(u64);

impl Hasher for Spread {
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

/// Nonces that belong to one row.
#[derive(Debug, Clone, Copy, Default)]
struct NonceRun {
    count: usize,
    /// The times of its oldest and its newest nonce.
    first: UnixMicros,
    last: UnixMicros,
}

/// What a row says of its nonces.
pub(super) struct RowNonces<'a> {
    /// When the row was written.
    pub(super) at: UnixMicros,
    pub(super) nonces: &'a [u64],
    /// See [`Nonces::times_for_row`].
    pub(super) times: Option<(UnixMicros, UnixMicros)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Nonces {
    /// Oldest first.
    known: VecDeque<u64>,
    /// The same: every call is looked up, and the list is long.
    set: HashSet<u64, BuildHasherDefault<Spread>>,
    /// Runs in the rows of these slots, oldest first.
    closed: VecDeque<(u32, NonceRun)>,
    /// The newest nonces, which are part of the next row.
    open: NonceRun,
    /// All nonces from this time on are known; 0 if none was ever forgotten.
    complete_since: UnixMicros,
    /// When the first nonce was remembered since this state was made or read, or after the last
    /// pause.
    awake_since: UnixMicros,
    /// When the last nonce was remembered.
    last: UnixMicros,
    /// How many of the newest are in no committed row yet.
    uncommitted: usize,
    /// The last confirmed commit and all after it: which, and how many of the nonces came with it.
    commits: VecDeque<(u64, usize)>,
}

impl Nonces {
    pub(super) fn new() -> Self {
        Self { commits: VecDeque::from([(0, 0)]), ..Self::default() }
    }

    /// Reads nonces from the rows of a key: those of the older ones, oldest first, with their
    /// slots, and those of the newest.
    pub(super) fn from_rows<'a>(older: impl Iterator<Item = (u32, RowNonces<'a>)>, newest: &RowNonces<'_>) -> Self {
        let mut nonces = Self::new();
        for (slot, held) in older {
            nonces.take(&held);
            nonces.close(slot);
        }
        nonces.take(newest);
        // Code that knew no runs forgot what it did not fill a row with, and did not say so.
        let is_cut = newest.nonces.len() >= IN_ROW;
        let unsaid = if is_cut { newest.at } else { UnixMicros::default() };
        nonces.complete_since = newest.times.map_or(unsaid, |(complete_since, _)| complete_since);
        nonces.forget(newest.at, UnixMicros::default());
        nonces
    }

    pub(super) fn remember(&mut self, nonce: u64, now: UnixMicros) {
        if now.since(self.last) >= GAP {
            self.awake_since = now;
        }
        self.last = now;
        if self.add(nonce, now) {
            self.uncommitted += 1;
            self.forget(now, self.awake_since);
        }
    }

    pub(super) fn recalls(&self, nonce: u64) -> bool {
        self.set.contains(&nonce)
    }

    /// The time from which on all nonces are known.
    pub(super) const fn complete_since(&self) -> UnixMicros {
        self.complete_since
    }

    /// The open run, and all that no confirmed row holds with those of the last one, filled up with
    /// older ones. The latter is for code that knows no runs: of these commits answers may be on
    /// their way, or be lost with the object, when their rows are found by the next.
    pub(super) fn for_row(&self) -> impl Iterator<Item = u64> + '_ {
        let count = self.needed().max(self.open.count).max(IN_ROW);
        self.known.range(self.known.len().saturating_sub(count)..).copied()
    }

    /// [`complete_since`](Self::complete_since) and the time of the oldest nonce of the open run,
    /// for a row of which the nonces alone do not tell that none was forgotten.
    pub(super) fn times_for_row(&self) -> Option<(UnixMicros, UnixMicros)> {
        (self.known.len() >= IN_ROW).then_some((self.complete_since, self.open.first))
    }

    /// Whether the open run fills its row.
    pub(super) const fn is_full(&self) -> bool {
        self.open.count >= CHUNK
    }

    /// Leaves the open run to the row in `slot`.
    pub(super) fn close(&mut self, slot: u32) {
        if self.open.count > 0 {
            self.closed.push_back((slot, std::mem::take(&mut self.open)));
        }
    }

    /// The slots of the rows that hold runs.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.closed.iter().map(|(slot, _)| *slot)
    }

    /// Moves what lies after `now` to it, for a clock that was ahead.
    pub(super) fn rebase(&mut self, now: UnixMicros) {
        for run in self.closed.iter_mut().map(|(_, run)| run).chain([&mut self.open]) {
            run.first = run.first.min(now);
            run.last = run.last.min(now);
        }
        self.complete_since = self.complete_since.min(now);
        self.awake_since = self.awake_since.min(now);
        self.last = self.last.min(now);
    }

    pub(super) fn committed(&mut self, commit: u64) {
        self.commits.push_back((commit, std::mem::take(&mut self.uncommitted)));
    }

    pub(super) fn unconfirmed(&self) -> usize {
        // The first is the last that is confirmed, or that was there when this state was read.
        self.commits.len().saturating_sub(1)
    }

    pub(super) fn confirmed(&mut self, commit: u64) {
        while self.commits.front().is_some_and(|(first, _)| *first < commit) {
            self.commits.pop_front();
        }
    }

    fn needed(&self) -> usize {
        self.commits.iter().fold(self.uncommitted, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Adds the nonces of a row that are not known yet, as the open run.
    fn take(&mut self, held: &RowNonces<'_>) {
        for nonce in held.nonces {
            self.add(*nonce, held.at);
        }
        // Without its time, the oldest is taken to be as late as it can be: less can be told then.
        self.open.first = held.times.map_or(held.at, |(_, first)| first);
    }

    /// False if it is known already.
    fn add(&mut self, nonce: u64, at: UnixMicros) -> bool {
        let is_new = self.set.insert(nonce);
        if is_new {
            self.known.push_back(nonce);
            let first = if self.open.count == 0 { at } else { self.open.first };
            self.open = NonceRun { count: self.open.count + 1, first, last: at };
        }
        is_new
    }

    /// Forgets runs that are over, each as a whole. Never one that only a row still holds whose
    /// answers may be on their way.
    fn forget(&mut self, now: UnixMicros, awake_since: UnixMicros) {
        while let Some((_, run)) = self.closed.front() {
            let newer = self.known.len().saturating_sub(run.count);
            let is_old = run.last.max(awake_since).saturating_add(LIFE) <= now && newer >= CHUNK;
            if !(is_old || newer >= MOST) || newer < self.needed() {
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
