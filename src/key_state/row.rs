//! Rows: how a state outlives the memory.
//!
//! # Design
//! A commit writes one row, whatever there is to say. The newest row holds all counters, the open chunk of each
//! sliding log and the open run of nonces. Once a chunk or run has `CHUNK` entries the next commit goes to another
//! slot, so that it stays where it is and is not written again; its slot is free once all its entries have expired, or
//! are forgotten. Reading gathers the chunks and runs of all rows and takes the counters from the newest.

use crate::key_state::audit_log::AuditRow;
use crate::key_state::idempotency::ReplayRow;
use crate::key_state::layout::{Body, VERSION};
use crate::key_state::state::KeyState;
use crate::limiter::sliding_log::Log;

/// Entries that fill a chunk of a log, or a run of nonces.
pub(super) const CHUNK: usize = 64;

/// One row to be stored: `body` replaces whatever `slot` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The primary key.
    pub slot: u32,
    /// Compact JSON.
    pub body: String,
}

/// All that a commit stores and deletes, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The state's own.
    pub row: Row,
    /// Idempotency keys: to be stored.
    pub replays: Vec<ReplayRow>,
    /// Ids of idempotency keys' rows: to be deleted.
    pub replays_over: Vec<u32>,
    /// The audit log: to be stored.
    pub audit: Vec<AuditRow>,
}

/// Stored rows are not a state.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are no rows: the key has no state yet.
    #[error("there is no row to read a state from")]
    NoRows,
    /// A row is not what this code writes.
    #[error("row in slot {slot} cannot be read: {reason}")]
    Malformed {
        /// The row.
        slot: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// A row was written by other code, perhaps newer.
    #[error("row in slot {slot} has version {found}, not {VERSION}")]
    Version {
        /// The row.
        slot: u32,
        /// Its version.
        found: u64,
    },
}

/// Where the next row goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ring {
    slot: u32,
    /// Of the newest committed row; 0 if there is none.
    seq: u64,
}

impl Ring {
    /// The sequence number of the next row.
    pub(super) const fn next_seq(&self) -> u64 {
        self.seq.saturating_add(1)
    }
}

impl KeyState {
    /// What makes everything up to now durable. Store it, then call [`committed`](Self::committed) before anything else is
    /// asked of this state; if storing fails, drop the state and read it back.
    #[must_use]
    pub fn to_rows(&self) -> Rows {
        Rows {
            row: self.to_row(),
            replays: self.replays.rows(),
            replays_over: self.replays.over().to_vec(),
            audit: self.audit.rows().to_vec(),
        }
    }

    /// The one row that all commits store; the others of [`to_rows`](Self::to_rows) are there now and then, and only for calls
    /// with idempotency keys or with an audit log.
    #[must_use]
    pub fn to_row(&self) -> Row {
        // Plain integers, strings and arrays: there is nothing in a body that JSON cannot say.
        Row { slot: self.ring.slot, body: serde_json::to_string(&Body::of(self)).unwrap_or_default() }
    }

    /// The rows of [`to_rows`](Self::to_rows) are stored.
    pub fn committed(&mut self) {
        self.ring.seq = self.ring.next_seq();
        self.nonces.committed(self.ring.seq);
        self.replays.committed();
        self.audit.committed();
        self.dirty = false;
        self.denials = false;
        self.notes = false;
        if self.nonces.is_full() || self.logs.iter().any(|log| log.open().len() >= CHUNK) {
            self.next_slot();
        }
    }

    /// The number of the last row that is [`committed`](Self::committed), higher than any before it.
    #[must_use]
    pub const fn last_commit(&self) -> u64 {
        self.ring.seq
    }

    /// Storage has confirmed the rows up to this number: retries of the calls that came with those before it need not be
    /// recognised by rows any more. Until then each row names them all.
    pub fn confirmed(&mut self, commit: u64) {
        self.nonces.confirmed(commit);
    }

    /// How many rows are committed and not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.nonces.unconfirmed()
    }

    /// Takes back the rows of idempotency keys, right after [`from_rows`](Self::from_rows).
    ///
    /// # Errors
    /// [`DecodeError`] if any of them cannot be read.
    pub fn load_replays(&mut self, rows: impl IntoIterator<Item = (u32, String)>) -> Result<(), DecodeError> {
        for (slot, body) in rows {
            if !self.replays.load(slot, &body) {
                return Err(DecodeError::Malformed { slot, reason: "not idempotency keys".to_owned() });
            }
        }
        Ok(())
    }

    /// Reads a state back from all rows of a key.
    ///
    /// # Errors
    /// [`DecodeError`] if there is no row, or if any row cannot be read: to go on without it could forget usage.
    pub fn from_rows(rows: impl IntoIterator<Item = (u32, String)>) -> Result<Self, DecodeError> {
        // Oldest first.
        let mut older = Vec::<(u32, Body)>::new();
        for (slot, text) in rows {
            let body = Body::parse(slot, &text)?;
            let at = older.partition_point(|(other, older)| (older.seq, *other) < (body.seq, slot));
            older.insert(at, (slot, body));
        }
        let (slot, newest) = older.pop().ok_or(DecodeError::NoRows)?;
        let (seq, full) = (newest.seq, newest.is_full());
        let mut state = newest.into_state(slot, &older)?;
        state.ring = Ring { slot, seq };
        if full || state.nonces.is_full() {
            state.next_slot();
        }
        Ok(state)
    }

    /// Leaves the open chunks in their row and goes on in the lowest slot that holds none.
    fn next_slot(&mut self) {
        let full = self.ring.slot;
        self.logs.iter_mut().for_each(|log| log.close(full));
        self.nonces.close(full);
        let taken = || self.logs.iter().flat_map(Log::slots).chain(self.nonces.slots()).chain([full]);
        // One of so many slots and one more is free.
        let mut is_taken = vec![false; taken().count() + 1];
        for slot in taken() {
            if let Some(is_taken) = usize::try_from(slot).ok().and_then(|slot| is_taken.get_mut(slot)) {
                *is_taken = true;
            }
        }
        let free = is_taken.iter().position(|is_taken| !is_taken).and_then(|slot| u32::try_from(slot).ok());
        self.ring.slot = free.unwrap_or(full);
    }
}
