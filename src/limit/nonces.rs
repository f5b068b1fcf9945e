//! Nonces of requests admitted lately, so that a retry of one is recognised instead of spent again.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Nonces kept in memory.
const KEPT: usize = 1024;
/// Nonces a row is filled up to.
const IN_ROW: usize = 8;

/// Spreads numbers that are random or follow each other, as nonces are. Nobody who could choose them gains by it: an isolate makes
/// them.
#[derive(Debug, Clone, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio, as in Knuth's multiplicative hashing.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Oldest first.
#[derive(Debug, Clone)]
pub(super) struct Nonces {
    known: VecDeque<u64>,
    /// The same: every call is looked up, and the list is long.
    set: HashSet<u64, BuildHasherDefault<Spread>>,
    /// How many of the newest are in no committed row yet.
    uncommitted: usize,
    /// The last confirmed commit and all after it: which, and how many of the nonces came with it.
    commits: VecDeque<(u64, usize)>,
}

impl Default for Nonces {
    fn default() -> Self {
        Self::from_row(Vec::new())
    }
}

impl Nonces {
    pub(super) fn from_row(nonces: Vec<u64>) -> Self {
        let commits = VecDeque::from([(0, nonces.len())]);
        Self { set: nonces.iter().copied().collect(), known: nonces.into(), uncommitted: 0, commits }
    }

    pub(super) fn remember(&mut self, nonce: u64) {
        if !self.set.insert(nonce) {
            return;
        }
        self.known.push_back(nonce);
        self.uncommitted += 1;
        // Never drops one that only a row still holds whose answers may be on their way.
        let keep = self.needed().max(KEPT);
        for nonce in self.known.drain(..self.known.len().saturating_sub(keep)) {
            self.set.remove(&nonce);
        }
    }

    pub(super) fn recalls(&self, nonce: u64) -> bool {
        self.set.contains(&nonce)
    }

    /// All that no confirmed row holds and those of the last one, filled up with older ones. Of these commits answers may be on
    /// their way, or be lost with the object, when their rows are found by the next.
    pub(super) fn for_row(&self) -> Vec<u64> {
        let count = self.needed().max(IN_ROW);
        self.known.iter().skip(self.known.len().saturating_sub(count)).copied().collect()
    }

    fn needed(&self) -> usize {
        self.commits.iter().fold(self.uncommitted, |sum, (_, count)| sum.saturating_add(*count))
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
}
