//! Reading the audit log, a page at a time.

use std::fmt;
use std::str::FromStr;

use crate::encoding::record::records;
use crate::key_state::audit_log::entry::{AuditEntry, AuditLine, EndedCall, read_base};
use crate::metering::call_outcome::ChargeBasis;
use crate::time::{MINUTE, UnixMicros};

/// How long after a call its outcome is searched for, in microseconds: 15 minutes.
pub const MAX_DURATION: u64 = 15 * MINUTE;

/// The position of an entry in the log. It stays valid when the tail grows and becomes a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditCursor {
    /// The number of the chunk.
    pub seq: u64,
    index: usize,
}

impl fmt::Display for AuditCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.seq, self.index)
    }
}

/// The text is not the printed form of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct AuditCursorError;

impl FromStr for AuditCursor {
    type Err = AuditCursorError;

    fn from_str(text: &str) -> Result<Self, AuditCursorError> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (seq, index) =
            text.split_once('-').filter(|(a, b)| is_digits(a) && is_digits(b)).ok_or(AuditCursorError)?;
        let error = |_| AuditCursorError;
        Ok(Self { seq: seq.parse().map_err(error)?, index: index.parse().map_err(error)? })
    }
}

/// A page of the log to read.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct AuditQuery {
    /// Inclusive.
    pub from: UnixMicros,
    /// Exclusive.
    pub to: UnixMicros,
    /// The end of the previous page.
    pub cursor: Option<AuditCursor>,
    /// Maximum number of entries.
    pub limit: usize,
}

/// The text is not a chunk of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk {seq} of the audit log cannot be read")]
pub struct AuditError {
    /// The number of the chunk.
    pub seq: u64,
}

/// Reads one page of the log: entries in the order of recording, each with its outcome if known.
///
/// The caller feeds chunks in ascending order of their numbers, the tail last. It may skip chunks
/// that end before the query's `from` and chunks with a lower number than the cursor's.
#[derive(Debug)]
pub struct AuditReader {
    query: AuditQuery,
    entries: Vec<AuditEntry>,
    next: Option<AuditCursor>,
}

impl AuditReader {
    /// A reader that has read no chunk yet.
    #[must_use]
    pub const fn new(query: AuditQuery) -> Self {
        Self { query, entries: Vec::new(), next: None }
    }

    /// Reads the next chunk. Returns `false` once no later chunk can add to this page.
    ///
    /// If the caller stops earlier, outcomes of some calls may be missing. If
    /// [`finish`](Self::finish) then returns no cursor, entries may be missing too.
    ///
    /// # Errors
    /// [`AuditError`] if the text is not a chunk.
    pub fn feed(&mut self, seq: u64, body: &str) -> Result<bool, AuditError> {
        let error = AuditError { seq };
        let mut records = records(body);
        let Some(mut base) = records.next() else { return Ok(true) };
        let base = read_base(&mut base).ok_or(error)?;
        let (mut admitted, mut runs, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = base;
        for record in records {
            let line = AuditLine::parse(base, record).ok_or(error)?;
            last = last.max(line.times().1);
            match line {
                AuditLine::Admitted { entry, .. } => admitted.push(entry),
                AuditLine::Refused(run) => runs.push(run),
                AuditLine::Ended { at, ended } => outcomes.push((UnixMicros::from_millis(at), ended)),
            }
        }
        // The order of entries must not change when the tail grows, because cursors count them:
        // refusals follow the calls that were admitted before them.
        let mut place = AuditCursor { seq, index: 0 };
        let mut runs = runs.into_iter().peekable();
        for (before, entry) in (0..).zip(admitted) {
            while let Some(run) = runs.next_if(|run| run.after <= before) {
                self.take(&mut place, run.into_entry());
            }
            self.take(&mut place, entry);
        }
        for run in runs {
            self.take(&mut place, run.into_entry());
        }
        for (at, EndedCall { nonce, end, charge, returned }) in outcomes {
            let is_of = |entry: &&mut AuditEntry| entry.nonce == Some(nonce) && at.since(entry.at) <= MAX_DURATION;
            if let Some(entry) = self.entries.iter_mut().rev().find(is_of) {
                entry.end = entry.end.or(end);
                // A late settle corrects what expired.
                entry.charge = charge.or(entry.charge);
                entry.cost = entry.cost.saturating_sub(returned);
            }
        }
        Ok(self.wants_more(base, last))
    }

    /// Adds the entry at `next` if it belongs to this page, and advances `next`.
    fn take(&mut self, next: &mut AuditCursor, entry: AuditEntry) {
        let place = *next;
        next.index += 1;
        let is_given = self.query.cursor.is_some_and(|cursor| (place.seq, place.index) < (cursor.seq, cursor.index));
        if is_given || self.next.is_some() || entry.at < self.query.from || entry.at >= self.query.to {
            return;
        }
        if self.entries.len() < self.query.limit {
            self.entries.push(entry);
        } else {
            self.next = Some(place);
        }
    }

    /// `base` and `last` are the base and the latest time of the last chunk, in milliseconds.
    fn wants_more(&self, base: u64, last: u64) -> bool {
        let is_past = UnixMicros::from_millis(base) >= self.query.to;
        let may_end = |entry: &AuditEntry| {
            let until = entry.at.saturating_add(MAX_DURATION);
            let is_charged = entry.charge.is_some_and(|charge| charge.basis != ChargeBasis::Expired);
            let is_complete = entry.end.is_some() && (entry.held.is_none() || is_charged);
            entry.nonce.is_some() && !is_complete && UnixMicros::from_millis(last) <= until
        };
        (self.next.is_none() && !is_past) || self.entries.iter().any(may_end)
    }

    /// Returns the entries, and the start of the next page if there is one.
    #[must_use]
    pub fn finish(self) -> (Vec<AuditEntry>, Option<AuditCursor>) {
        (self.entries, self.next)
    }
}
