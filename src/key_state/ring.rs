//! The slots that rows are written to.
//!
//! A commit writes one row of the state. The newest row holds all counters, the open chunk of each
//! sliding log and the open run of nonces. Once a chunk or run has [`CHUNK`] entries, the next
//! commit uses another slot, so that the full one is never written again. A slot is free once its
//! entries have expired and its nonces are dropped. Reading takes the counters from the newest row,
//! and chunks and runs from all rows.

/// Number of entries in a full chunk of a log, and of nonces in a full run.
pub(super) const CHUNK: usize = 64;

/// The slot and number of the next row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowRing {
    slot: u32,
    /// The number of the newest committed row. 0 if there is none.
    seq: u64,
}

impl RowRing {
    /// The newest committed row is in `slot` and has the number `seq`.
    pub(super) const fn at(slot: u32, seq: u64) -> Self {
        Self { slot, seq }
    }

    pub(super) const fn slot(&self) -> u32 {
        self.slot
    }

    /// The number of the newest committed row.
    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) const fn next_seq(&self) -> u64 {
        self.seq.saturating_add(1)
    }

    /// Records that the next row is stored.
    pub(super) const fn commit(&mut self) {
        self.seq = self.next_seq();
    }

    /// Moves from the current slot to the lowest one that is not `taken`.
    pub(super) fn leave_slot(&mut self, taken: impl Iterator<Item = u32>) {
        let taken: Vec<u32> = taken.chain([self.slot]).collect();
        // Among one more slot than there are taken ones, at least one is free.
        let mut is_taken = vec![false; taken.len() + 1];
        for slot in taken {
            if let Some(is_taken) = usize::try_from(slot).ok().and_then(|slot| is_taken.get_mut(slot)) {
                *is_taken = true;
            }
        }
        let free = is_taken.iter().position(|is_taken| !is_taken).and_then(|slot| u32::try_from(slot).ok());
        self.slot = free.unwrap_or(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_is_next() {
        let next = |slot, taken: &[u32]| {
            let mut ring = RowRing::at(slot, 7);
            ring.leave_slot(taken.iter().copied());
            (ring.slot(), ring.seq())
        };
        assert_eq!(next(0, &[]), (1, 7));
        assert_eq!(next(3, &[0, 1]), (2, 7));
        assert_eq!(next(2, &[0, 0, 1, 9]), (3, 7));
        assert_eq!(next(1, &[u32::MAX]), (0, 7));
    }
}
