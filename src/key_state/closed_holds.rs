//! Holds that are closed, so that a repeated question about one is recognised, and an expired one
//! can be corrected.
//!
//! A hold is remembered for [`REMEMBERED_FOR`], and as long as fewer than [`REMEMBERED`] newer ones
//! are. One that is corrected after it expired is remembered anew; of several entries of a hold the
//! newest counts.
//!
//! # In rows
//! Like nonces, they are in runs (see `ring`). The open run is part of each
//! row, whatever slot it is in; with `CHUNK` entries it is left to the row that it was last written
//! to. A run is named by the number of the first row that could hold it, so that of several rows of
//! one run the last is recognised: it has all of them.

use std::collections::VecDeque;

use crate::encoding::record::{self, Record, push_hex, push_number, records};
use crate::key_state::hold::{Hold, HoldKind, HoldOutcome, HoldState};
use crate::key_state::ring::CHUNK;
use crate::limiter::cost::Cost;
use crate::time::{DAY, UnixMicros};

/// For how long a closed hold is remembered, in microseconds: 24 hours.
pub const REMEMBERED_FOR: u64 = DAY;
/// Closed holds that are remembered at least, if they are not older than that.
pub const REMEMBERED: usize = 1_000;

/// A hold that is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClosedHold {
    pub(super) outcome: HoldOutcome,
    pub(super) kind: HoldKind,
    /// Of one that expired: what its correction needs.
    pub(super) expired: Option<Hold>,
}

impl ClosedHold {
    fn is_over(&self, now: UnixMicros) -> bool {
        self.outcome.at.saturating_add(REMEMBERED_FOR) <= now
    }

    /// Id, when, in hexadecimal; how; charged and held requests and tokens; then the hold itself if
    /// it expired, and 1 if it is that of a call and was corrected.
    fn push(&self, out: &mut String) {
        let HoldOutcome { id, state, charged, reserved, at } = self.outcome;
        push_hex(out, id);
        push_hex(out, at.as_micros());
        push_number(out, state_to_row(state));
        for number in [charged.requests, charged.tokens, reserved.requests, reserved.tokens] {
            push_number(out, number);
        }
        if let Some(hold) = &self.expired {
            hold.push(out);
        } else if self.kind == HoldKind::Call {
            push_number(out, 1);
        }
        record::end(out);
    }

    fn read(record: &mut Record<'_>) -> Option<Self> {
        let (id, at) = (record.hex()?, UnixMicros::from_micros(record.hex()?));
        let state = state_from_row(record.number()?)?;
        let mut cost = || Some(Cost { requests: record.number()?, tokens: record.number()? });
        let outcome = HoldOutcome { id, state, charged: cost()?, reserved: cost()?, at };
        let (expired, kind) = if state == HoldState::Expired {
            let hold = Hold::read(record)?;
            let kind = hold.kind;
            (Some(hold), kind)
        } else {
            let is_call = record.number().is_some_and(|kind| kind == 1);
            (None, if is_call { HoldKind::Call } else { HoldKind::Reservation })
        };
        Some(Self { outcome, kind, expired })
    }
}

const fn state_to_row(state: HoldState) -> u64 {
    match state {
        HoldState::Settled => 0,
        HoldState::Released => 1,
        HoldState::Expired => 2,
    }
}

const fn state_from_row(state: u64) -> Option<HoldState> {
    Some(match state {
        0 => HoldState::Settled,
        1 => HoldState::Released,
        2 => HoldState::Expired,
        _ => return None,
    })
}

/// A full run, in the row of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClosedRun {
    slot: u32,
    count: usize,
}

/// The open run as a row has it.
pub(super) type RunRow = (u64, String);

#[derive(Debug, Clone, Default)]
pub(super) struct ClosedHolds {
    /// Oldest first.
    entries: VecDeque<ClosedHold>,
    /// Oldest first.
    runs: VecDeque<ClosedRun>,
    /// How many of the newest are in the open run.
    open: usize,
    /// The first row that can hold the open run.
    since: u64,
}

impl ClosedHolds {
    /// Reads the runs of a key's rows, oldest first, of which the last is that of the newest row.
    pub(super) fn from_rows<'a>(
        older: impl Iterator<Item = (u32, &'a RunRow)>,
        newest: Option<&RunRow>,
    ) -> Option<Self> {
        let mut runs = Vec::<(u32, &RunRow)>::new();
        for run in older {
            runs.pop_if(|(_, (since, _))| *since == run.1.0);
            runs.push(run);
        }
        if let Some((newest, _)) = newest {
            runs.pop_if(|(_, (since, _))| since == newest);
        }
        let mut read = Self::default();
        for (slot, row) in runs {
            read.take(row)?;
            read.close(slot);
        }
        if let Some(row) = newest {
            read.take(row)?;
        }
        if let Some(last) = read.entries.back() {
            let at = last.outcome.at;
            read.forget(at);
        }
        Some(read)
    }

    fn take(&mut self, (since, text): &RunRow) -> Option<()> {
        self.since = *since;
        for mut record in records(text) {
            self.entries.push_back(ClosedHold::read(&mut record)?);
            self.open += 1;
        }
        Some(())
    }

    /// The open run, if there is one.
    pub(super) fn to_row(&self) -> Option<RunRow> {
        let open = self.entries.range(self.entries.len().saturating_sub(self.open)..);
        let mut text = String::new();
        open.for_each(|closed| closed.push(&mut text));
        (self.open > 0).then_some((self.since, text))
    }

    /// Remembers a hold that was closed just now. `next_row` is the number of the next row. Gives
    /// the ids of those that had expired and are forgotten.
    pub(super) fn push(&mut self, closed: ClosedHold, next_row: u64) -> Vec<u64> {
        let forgotten = self.forget(closed.outcome.at);
        if self.open == 0 {
            self.since = next_row;
        }
        self.open += 1;
        self.entries.push_back(closed);
        forgotten
    }

    /// The hold of this id, if it is remembered at `now`.
    pub(super) fn find(&self, id: u64, now: UnixMicros) -> Option<&ClosedHold> {
        self.entries.iter().rev().find(|closed| closed.outcome.id == id).filter(|closed| !closed.is_over(now))
    }

    /// All holds that expired, whether they were corrected since or not.
    pub(super) fn expired(&self) -> impl Iterator<Item = &Hold> {
        self.entries.iter().filter_map(|closed| closed.expired.as_ref())
    }

    /// Changes all of them. What older rows hold is stored anew from row `next_row` on.
    pub(super) fn change_expired(&mut self, next_row: u64, change: impl FnMut(&mut Hold)) {
        if self.expired().next().is_some() {
            self.entries.iter_mut().filter_map(|closed| closed.expired.as_mut()).for_each(change);
            self.runs.clear();
            self.open = self.entries.len();
            self.since = next_row;
        }
    }

    /// Whether the open run fills its row.
    pub(super) const fn is_full(&self) -> bool {
        self.open >= CHUNK
    }

    /// Leaves the open run to the row in `slot`.
    pub(super) fn close(&mut self, slot: u32) {
        if self.open > 0 {
            self.runs.push_back(ClosedRun { slot, count: std::mem::take(&mut self.open) });
        }
    }

    /// The slots of the rows that hold runs.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().map(|run| run.slot)
    }

    /// Forgets runs that are over or too many, each as a whole.
    fn forget(&mut self, now: UnixMicros) -> Vec<u64> {
        let mut forgotten = Vec::new();
        let is_over = |entries: &VecDeque<ClosedHold>, count: usize| {
            count.checked_sub(1).and_then(|last| entries.get(last)).is_none_or(|last| last.is_over(now))
        };
        while let Some(run) = self.runs.front() {
            let newer = self.entries.len().saturating_sub(run.count);
            if !is_over(&self.entries, run.count) && newer < REMEMBERED {
                return forgotten;
            }
            let run = self.entries.drain(..run.count.min(self.entries.len()));
            forgotten.extend(run.filter_map(|closed| closed.expired).map(|hold| hold.id));
            self.runs.pop_front();
        }
        if self.open > 0 && is_over(&self.entries, self.entries.len()) {
            forgotten.extend(self.entries.drain(..).filter_map(|closed| closed.expired).map(|hold| hold.id));
            self.open = 0;
        }
        forgotten
    }
}
