//! Appending to the audit log.
//!
//! Calls are appended to a tail, which is part of every row of the state. A full tail becomes a
//! chunk, a row of its own. The tail is kept as text, so that writing a row serialises only what
//! is new.
//!
//! Refusals must not cost rows, or a flood of them would. So a chunk is full only once enough
//! calls were admitted, and refusals of one second with the same method, class and status share
//! an entry. Once the tail has `MAX_RUNS` such entries, refusals of different seconds share one
//! too.

use std::borrow::Cow;

use crate::encoding::record::{self, push_hex, push_number, records};
use crate::key_state::audit_log::entry::{
    AuditLine, EndedCall, RefusalRun, cut_method, push_base, push_head, push_subject, push_time, read_base, stored_key,
};
use crate::metering::cut;
use crate::metering::hours::OTHER;
use crate::time::UnixMicros;

/// Minimum size of a chunk, in bytes, unless [`MAX_BYTES`] is reached first.
pub(super) const CHUNK_BYTES: usize = 4096;
/// Minimum number of admitted calls in a chunk. A chunk is written once and deleted once, so this
/// bounds its cost to a sixteenth of a row per admitted call.
const CHUNK_CALLS: u64 = 32;
/// A tail of this size becomes a chunk whatever it contains.
const MAX_BYTES: usize = 1 << 16;
/// Number of entries of refusals from which on refusals of different seconds share an entry.
const MAX_RUNS: usize = 64;

/// A call as the audit log records it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedCall<'a> {
    pub(crate) method: &'a str,
    pub(crate) class: &'a str,
    pub(crate) cost: u64,
    pub(crate) key: Option<&'a str>,
}

/// A chunk, to be stored in the same transaction as the state's row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AuditRow {
    /// The primary key. Later chunks have larger ones.
    pub seq: u64,
    /// The earliest time in it.
    pub from: UnixMicros,
    /// The latest time in it.
    pub to: UnixMicros,
    pub body: String,
}

/// The tail of the log, and chunks that are not stored yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditLog {
    /// The number that the tail will have as a chunk.
    seq: u64,
    /// The base and the records of the tail, except those of refusals.
    text: String,
    /// Milliseconds since 1970, like `from` and `to`.
    base: u64,
    /// The earliest and the latest time in the tail.
    from: u64,
    to: u64,
    /// Admitted calls in the tail.
    admitted: u64,
    /// Refusals in the tail.
    runs: Vec<RefusalRun>,
    full: Vec<AuditRow>,
}

impl AuditLog {
    /// `held` are the tokens that the call holds.
    pub(crate) fn admit(
        &mut self,
        now: UnixMicros,
        call: LoggedCall<'_>,
        nonce: u64,
        is_replay: bool,
        held: Option<u64>,
    ) {
        self.extend_to(now);
        let base = self.base;
        let out = &mut self.text;
        push_head(out, if is_replay { "r" } else { "a" }, now.as_millis(), base);
        push_subject(out, call.method, call.class, call.cost, call.key.map(stored_key).as_deref());
        push_hex(out, nonce);
        if let Some(held) = held {
            push_number(out, held);
        }
        record::end(out);
        self.admitted += 1;
        self.spill();
    }

    pub(crate) fn refuse(&mut self, now: UnixMicros, call: LoggedCall<'_>, status: u16) {
        self.extend_to(now);
        let at = now.as_millis();
        let is_crowded = self.runs.len() >= MAX_RUNS;
        let second = |millis: u64| millis / 1000;
        let is_same = |run: &&mut RefusalRun| {
            run.status == status
                && (is_crowded || second(run.last) == second(at))
                && run.class == cut(call.class)
                && run.method == cut_method(call.method)
        };
        let mut call = call;
        let mut run = self.runs.iter_mut().rev().find(is_same);
        if run.is_none() && is_crowded {
            call = LoggedCall { method: "", class: OTHER, ..call };
            run = self.runs.iter_mut().rev().find(|run| run.status == status && run.class == OTHER);
        }
        if let Some(run) = run {
            run.count = run.count.saturating_add(1);
            run.last = run.last.max(at);
            run.key = run.key.take().filter(|key| Some(key) == call.key.map(stored_key).as_ref());
            return;
        }
        self.runs.push(RefusalRun {
            first: at,
            last: at,
            method: cut_method(call.method).to_owned(),
            class: cut(call.class).to_owned(),
            status,
            cost: call.cost,
            key: call.key.map(stored_key),
            count: 1,
            after: self.admitted,
        });
    }

    pub(crate) fn end(&mut self, now: UnixMicros, ended: &EndedCall) {
        self.extend_to(now);
        push_head(&mut self.text, "c", now.as_millis(), self.base);
        ended.push(&mut self.text);
        record::end(&mut self.text);
        self.spill();
    }

    /// Extends the time range of the tail to `now`. Starts the text if it is empty.
    fn extend_to(&mut self, now: UnixMicros) {
        let at = now.as_millis();
        if self.text.is_empty() {
            self.base = at;
            self.from = at;
            self.to = at;
            push_base(&mut self.text, at);
        }
        self.from = self.from.min(at);
        self.to = self.to.max(at);
    }

    /// Turns the tail into a chunk once it is full.
    fn spill(&mut self) {
        let is_full = self.text.len() >= CHUNK_BYTES && self.admitted >= CHUNK_CALLS;
        if is_full || self.text.len() >= MAX_BYTES {
            let body = self.body().into_owned();
            let (from, to) = (UnixMicros::from_millis(self.from), UnixMicros::from_millis(self.to));
            self.full.push(AuditRow { seq: self.seq, from, to, body });
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.seq = self.seq.saturating_add(1);
        self.text.clear();
        self.runs.clear();
        self.admitted = 0;
    }

    /// The text of the tail, with the records of refusals at its end.
    fn body(&self) -> Cow<'_, str> {
        if self.runs.is_empty() {
            return Cow::Borrowed(&self.text);
        }
        let mut out = self.text.clone();
        for RefusalRun { first, last, method, class, status, cost, key, count, after } in &self.runs {
            push_head(&mut out, "d", *first, self.base);
            push_subject(&mut out, method, class, *cost, key.as_deref());
            push_number(&mut out, (*status).into());
            push_number(&mut out, *count);
            push_number(&mut out, *after);
            push_time(&mut out, *last, self.base);
            record::end(&mut out);
        }
        Cow::Owned(out)
    }

    /// Drops the tail if it ends at or before `until`. Returns whether anything was dropped.
    pub(crate) fn forget(&mut self, until: UnixMicros) -> bool {
        let is_over = !self.text.is_empty() && UnixMicros::from_millis(self.to) <= until;
        if is_over {
            self.clear();
        }
        is_over
    }

    /// The chunks that are not stored yet.
    pub(crate) fn rows(&self) -> &[AuditRow] {
        &self.full
    }

    pub(crate) fn committed(&mut self) {
        self.full.clear();
    }

    /// The texts that no stored chunk holds, with their numbers: chunks that are not stored yet,
    /// then the tail.
    pub(crate) fn tail(&self) -> Vec<(u64, Cow<'_, str>)> {
        let full = self.full.iter().map(|row| (row.seq, Cow::Borrowed(row.body.as_str())));
        full.chain([(self.seq, self.body())]).collect()
    }

    /// The stored form of the tail: the number that it will have as a chunk, then its text. `None`
    /// if nothing was ever recorded.
    pub(crate) fn to_text(&self) -> Option<String> {
        if self.seq == 0 && self.text.is_empty() {
            return None;
        }
        let body = self.body();
        let mut out = String::with_capacity(body.len() + 24);
        push_base(&mut out, self.seq);
        out.push_str(&body);
        Some(out)
    }

    /// Reads the stored form. `None` if it is malformed.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut records = records(text);
        let mut audit = Self { seq: records.next()?.number()?, ..Self::default() };
        let Some(mut base) = records.next() else { return Some(audit) };
        let base = read_base(&mut base)?;
        push_base(&mut audit.text, base);
        audit.base = base;
        audit.from = base;
        audit.to = base;
        for record in records {
            let text = record.text;
            let line = AuditLine::parse(base, record)?;
            let (first, last) = line.times();
            audit.from = audit.from.min(first);
            audit.to = audit.to.max(last);
            if let AuditLine::Refused(run) = line {
                audit.runs.push(run);
            } else {
                audit.admitted += u64::from(matches!(line, AuditLine::Admitted { .. }));
                audit.text.push_str(text);
                audit.text.push(';');
            }
        }
        Some(audit)
    }
}
