//! Nonces of requests admitted lately, so that a retry of one is recognised instead of spent again.

use std::collections::VecDeque;

/// Nonces kept in memory.
const KEPT: usize = 1024;
/// Nonces a row is filled up to.
const IN_ROW: usize = 8;

/// Oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Nonces {
    known: VecDeque<u64>,
    /// How many of the newest are in no committed row yet.
    uncommitted: usize,
    /// How many before those came with the last committed row.
    last: usize,
}

impl Nonces {
    pub(super) fn from_row(nonces: Vec<u64>) -> Self {
        let last = nonces.len();
        Self { known: nonces.into(), uncommitted: 0, last }
    }

    pub(super) fn remember(&mut self, nonce: u64) {
        self.known.push_back(nonce);
        self.uncommitted += 1;
        // Never drops one that no row holds: a crash would forget an admission that was answered.
        let keep = self.uncommitted.max(KEPT);
        self.known.drain(..self.known.len().saturating_sub(keep));
    }

    pub(super) fn recalls(&self, nonce: u64) -> bool {
        self.known.contains(&nonce)
    }

    /// All that no row holds yet and those of the last row, filled up with older ones. The answers of two commits at most
    /// are on their way at a time: the next is written when the last is confirmed.
    pub(super) fn for_row(&self) -> Vec<u64> {
        let count = self.uncommitted.saturating_add(self.last).max(IN_ROW);
        self.known.iter().skip(self.known.len().saturating_sub(count)).copied().collect()
    }

    pub(super) fn committed(&mut self) {
        self.last = self.uncommitted;
        self.uncommitted = 0;
    }
}
