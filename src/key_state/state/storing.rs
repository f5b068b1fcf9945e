//! Writing a state to rows, and reading it back.

use crate::key_state::clock::JudgedClock;
use crate::key_state::layout::RowBody;
use crate::key_state::ring::RowRing;
use crate::key_state::row::{DecodeError, Rows, StateRow};
use crate::key_state::state::{KeyState, Unwritten};

impl KeyState {
    /// The rows that make all changes so far durable.
    ///
    /// Store them, then call [`committed`](Self::committed) before any other change. If storing
    /// fails, drop this state and read it back.
    #[must_use]
    pub fn to_rows(&self) -> Rows {
        let keys = self.contents.calls.keys();
        Rows {
            row: self.to_row(),
            replays: keys.rows(),
            expired_replays: keys.expired().to_vec(),
            audit: self.contents.audit.rows().to_vec(),
        }
    }

    /// The row of [`to_rows`](Self::to_rows) that every commit stores.
    #[must_use]
    pub fn to_row(&self) -> StateRow {
        let body = RowBody::of(self.ring.next_seq(), &self.contents);
        // A body has only integers, strings and arrays, which always serialise.
        StateRow { slot: self.ring.slot(), body: serde_json::to_string(&body).unwrap_or_default() }
    }

    /// Records that the rows of [`to_rows`](Self::to_rows) are stored.
    pub fn committed(&mut self) {
        self.ring.commit();
        self.contents.calls.nonces_mut().committed(self.ring.seq());
        self.contents.calls.keys_mut().committed();
        self.contents.audit.committed();
        self.unwritten = Unwritten::default();
        let has_full_run = self.contents.calls.nonces().is_full() || self.contents.holds.closed.is_full();
        if has_full_run || self.contents.counters.has_full_chunk() {
            self.leave_slot();
        }
    }

    /// The number of the last [committed](Self::committed) row. It increases with each commit.
    #[must_use]
    pub const fn last_commit(&self) -> u64 {
        self.ring.seq()
    }

    /// Records that storage has confirmed the rows up to this number.
    ///
    /// Each row repeats the nonces of all unconfirmed commits, for older code that reads the newest
    /// row alone.
    pub fn confirmed(&mut self, commit: u64) {
        self.contents.calls.nonces_mut().confirmed(commit);
    }

    /// Storage has confirmed all rows but the last `unconfirmed` ones. Rows that were committed before
    /// this state was read from storage are not counted by [`unconfirmed`](Self::unconfirmed).
    pub fn note_confirmed(&mut self, unconfirmed: u32) {
        if self.unconfirmed() > unconfirmed as usize {
            self.confirmed(self.last_commit().saturating_sub(u64::from(unconfirmed)));
        }
    }

    /// Number of committed rows that are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.contents.calls.nonces().unconfirmed()
    }

    /// Whether there are changes that must be committed before the request is answered.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.unwritten.changes
    }

    /// Whether there are denials that no committed row holds. No limit depends on them, so they can
    /// wait for the next row.
    #[must_use]
    pub const fn has_uncommitted_denials(&self) -> bool {
        self.unwritten.denials
    }

    /// Whether there are outcomes of calls or logged refusals that no committed row holds. They
    /// should be committed before the object is evicted, but not each with a row of its own.
    #[must_use]
    pub const fn has_uncommitted_notes(&self) -> bool {
        self.unwritten.notes
    }

    /// Reads a state back from all rows of a key.
    ///
    /// # Errors
    /// [`DecodeError`] if there is no row, or if any row cannot be read: without it usage could be
    /// lost.
    pub fn from_rows(rows: impl IntoIterator<Item = (u32, String)>) -> Result<Self, DecodeError> {
        // Oldest first.
        let mut older = Vec::<(u32, RowBody)>::new();
        for (slot, text) in rows {
            let body = RowBody::parse(slot, &text)?;
            let at = older.partition_point(|(other, older)| (older.seq, *other) < (body.seq, slot));
            older.insert(at, (slot, body));
        }
        let (slot, newest) = older.pop().ok_or(DecodeError::NoRows)?;
        let (ring, is_full) = (RowRing::at(slot, newest.seq), newest.is_full());
        let contents = newest.into_contents(slot, &older)?;
        let clock = JudgedClock::starting_at(contents.counters.last());
        let mut state = Self { contents, clock, ring, unwritten: Unwritten::default() };
        if is_full || state.contents.calls.nonces().is_full() || state.contents.holds.closed.is_full() {
            state.leave_slot();
        }
        Ok(state)
    }

    /// Reads chunks of idempotency keys back. Call it right after [`from_rows`](Self::from_rows).
    ///
    /// # Errors
    /// [`DecodeError`] if any of them cannot be read.
    pub fn load_replays(&mut self, rows: impl IntoIterator<Item = (u32, String)>) -> Result<(), DecodeError> {
        for (slot, body) in rows {
            if !self.contents.calls.keys_mut().load(slot, &body) {
                return Err(DecodeError::Malformed { slot, reason: "not idempotency keys".to_owned() });
            }
        }
        Ok(())
    }

    /// Closes chunks and runs in the current slot and moves to another one.
    fn leave_slot(&mut self) {
        let full = self.ring.slot();
        self.contents.counters.close_chunks(full);
        self.contents.calls.nonces_mut().close(full);
        if self.contents.holds.closed.is_full() {
            self.contents.holds.closed.close(full);
        }
        let (counters, nonces) = (&self.contents.counters, self.contents.calls.nonces());
        let closed_holds = self.contents.holds.closed.slots();
        self.ring.leave_slot(counters.slots().chain(nonces.slots()).chain(closed_holds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_state::state::judging::{ReportOutcome, ReportedUsage};
    use crate::time::UnixMicros;

    #[test]
    fn a_confirmation_counts_for_rows_of_this_state_alone() {
        let commit = |key_state: &mut KeyState, nonce: u64| {
            let report = ReportedUsage { nonce, calls: 1, ..ReportedUsage::default() };
            key_state.apply_report(&[], UnixMicros::from_millis(1_000_000), &report);
            let row = key_state.to_row();
            key_state.committed();
            (row.slot, row.body)
        };
        let mut key_state = KeyState::new("e".to_owned());
        let mut row = (0, String::new());
        for nonce in 1..=20 {
            row = commit(&mut key_state, nonce);
        }
        assert_eq!(key_state.unconfirmed(), 20);
        key_state.note_confirmed(18);
        assert_eq!(key_state.unconfirmed(), 18);

        // A write failed, and the state was read again. The nonces of the 20 rows that may not be
        // confirmed are kept until a later row is.
        let mut key_state = KeyState::from_rows([row]).unwrap();
        key_state.note_confirmed(3);
        let row = commit(&mut key_state, 21);
        key_state.note_confirmed(1);
        assert_eq!(key_state.unconfirmed(), 1, "the confirmation of a row before it");
        let row_after = commit(&mut key_state, 22);
        for row in [row, row_after] {
            let mut read = KeyState::from_rows([row]).unwrap();
            let mut report = |nonce| {
                let report = ReportedUsage { nonce, calls: 1, ..ReportedUsage::default() };
                read.apply_report(&[], UnixMicros::from_millis(1_000_000), &report)
            };
            assert!((3..=21).all(|nonce| report(nonce) == ReportOutcome::Duplicate));
        }
        key_state.note_confirmed(0);
        assert_eq!(key_state.unconfirmed(), 0);
    }
}
