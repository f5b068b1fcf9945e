//! The audit log: what the gate did with each call, and how the call ended.
//!
//! Lines are appended to a tail, which is part of every row of the state and is never written again
//! as data structures: what was said stays as it was said. A full tail becomes a chunk, a row of
//! its own. Chunks are cut by what calls were admitted, so that a flood of refusals costs no rows:
//! refusals are collapsed, those of one second that look the same into one entry with a count, and
//! when there are too many of these, those of any time since the last chunk.
//!
//! Times are milliseconds after the base, with which a text begins.
//!
//! ```text
//! 1795160894000;                      base
//! a|120|GET|~/v1|1|order-7|9f3;       admitted: at, method, class ("~" is the method and a space), cost, key, nonce
//! r|130|GET|/v1/*|0||9f4;             the same, a replay
//! c|310|9f3|201|190;                  ended: at, nonce, the origin's status, duration in milliseconds
//! d|500|GET|~/v1|1||429|17|2|980;     refused: as above with the status, how often, after how many admitted, last at
//! ```
//!
//! An idempotency key of more than `MAX_KEY` bytes is its beginning, a tilde, and a hash of all of
//! it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::encoding::hex;
use crate::encoding::record::{self, Record, decode, encode, push_hex, push_number, push_raw, push_text, records};
use crate::metering::call_outcome::CallOutcome;
use crate::metering::cut;
use crate::metering::hours::OTHER;
use crate::time::{DAY, MINUTE, UnixMicros};

/// A chunk has at least so many bytes ...
const CHUNK_BYTES: usize = 4096;
/// ... and so many admitted calls: with its deletion, a chunk costs each of them a sixteenth of a
/// row at most.
const CHUNK_CALLS: u64 = 32;
/// From this size on a text is a chunk, whatever is in it.
const MAX_BYTES: usize = 1 << 16;
/// Entries of refused calls from which on they are collapsed whenever they were.
const MAX_RUNS: usize = 64;
/// Bytes that an idempotency key takes at most, as it is stored.
const MAX_KEY: usize = 64;
/// Digits of the hash of a longer one.
const KEY_DIGITS: usize = 16;
const MAX_METHOD: usize = 16;
/// For how long after a call its end is looked for, in microseconds: 15 minutes.
pub const MAX_DURATION: u64 = 15 * MINUTE;

/// A call as the log knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedCall<'a> {
    pub(crate) method: &'a str,
    pub(crate) class: &'a str,
    pub(crate) cost: u64,
    pub(crate) key: Option<&'a str>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it was judged, in whole milliseconds.
    pub at: UnixMicros,
    /// The request's method.
    pub method: String,
    /// The class of the call.
    pub class: String,
    /// The gate's status: 200 for what was admitted.
    pub status: u16,
    /// Whether it was a replay.
    pub is_replay: bool,
    /// What it was charged, or would have been.
    pub cost: u64,
    /// Its idempotency key. Of one that takes more than 64 bytes in the log it is the beginning, an
    /// ellipsis, and the first 16 hexadecimal digits of the key's SHA-256.
    pub idempotency_key: Option<String>,
    /// How many calls this entry stands for. More than one only if they were refused.
    pub count: u64,
    /// The origin's status and the duration in milliseconds, if known.
    pub end: Option<(u16, u64)>,
    /// Of admitted calls.
    nonce: Option<u64>,
}

/// Refused calls in one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RefusalRun {
    /// Times are milliseconds since 1970.
    first: u64,
    last: u64,
    method: String,
    class: String,
    status: u16,
    cost: u64,
    /// As it is stored.
    key: Option<String>,
    count: u64,
    /// Calls admitted before the first, in this text.
    after: u64,
}

/// Lines that have a row of their own, to be stored with the state's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The primary key; later chunks have larger ones.
    pub seq: u64,
    /// The first time in it.
    pub from: UnixMicros,
    /// The last time in it.
    pub to: UnixMicros,
    /// Text.
    pub body: String,
}

/// The end of the log, and chunks that are not stored yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditLog {
    /// The number of the chunk that the tail will be.
    seq: u64,
    /// Base, admitted calls and ends.
    text: String,
    base: u64,
    /// Times in the tail, in milliseconds.
    from: u64,
    to: u64,
    admitted: u64,
    runs: Vec<RefusalRun>,
    full: Vec<AuditRow>,
}

impl AuditLog {
    pub(crate) fn admit(&mut self, now: UnixMicros, call: LoggedCall<'_>, nonce: u64, is_replay: bool) {
        self.pass(now);
        let base = self.base;
        let out = &mut self.text;
        push_head(out, if is_replay { "r" } else { "a" }, now.as_millis(), base);
        push_subject(out, call.method, call.class, call.cost, call.key.map(stored_key).as_deref());
        push_hex(out, nonce);
        record::end(out);
        self.admitted += 1;
        self.spill();
    }

    pub(crate) fn refuse(&mut self, now: UnixMicros, call: LoggedCall<'_>, status: u16) {
        self.pass(now);
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

    pub(crate) fn end(&mut self, now: UnixMicros, end: CallOutcome) {
        self.pass(now);
        let base = self.base;
        let out = &mut self.text;
        push_head(out, "c", now.as_millis(), base);
        push_hex(out, end.nonce);
        push_number(out, end.status.into());
        push_number(out, end.duration_ms);
        record::end(out);
        self.spill();
    }

    /// Notes that something is said about `now`.
    fn pass(&mut self, now: UnixMicros) {
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

    /// The tail as a chunk's text.
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

    /// Forgets a tail that says nothing about the time after `until`. True if there was one.
    pub(crate) fn forget(&mut self, until: UnixMicros) -> bool {
        let is_over = !self.text.is_empty() && UnixMicros::from_millis(self.to) <= until;
        if is_over {
            self.clear();
        }
        is_over
    }

    /// The chunks that are not stored.
    pub(crate) fn rows(&self) -> &[AuditRow] {
        &self.full
    }

    pub(crate) fn committed(&mut self) {
        self.full.clear();
    }

    /// What no stored chunk holds, each with its number: chunks that are not stored, and the tail.
    pub(crate) fn tail(&self) -> Vec<(u64, Cow<'_, str>)> {
        let full = self.full.iter().map(|row| (row.seq, Cow::Borrowed(row.body.as_str())));
        full.chain([(self.seq, self.body())]).collect()
    }

    /// The stored form, if there is anything to store: the number of the chunk, then its text as it
    /// is so far.
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

    /// Reads the stored form; `None` if it is not one.
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

fn cut_method(method: &str) -> &str {
    method.get(..method.floor_char_boundary(MAX_METHOD)).unwrap_or(method)
}

/// An idempotency key as it is stored.
fn stored_key(key: &str) -> String {
    let whole = encode(key);
    if whole.len() <= MAX_KEY {
        return whole;
    }
    let beginning = whole.get(..MAX_KEY - 1 - KEY_DIGITS).unwrap_or_default();
    // Not in the middle of an escape.
    let is_cut = |at: &usize| beginning.len() - at < 3;
    let beginning = beginning.get(..beginning.rfind('%').filter(is_cut).unwrap_or(beginning.len())).unwrap_or_default();
    let hash = hex(&Sha256::digest(key));
    [beginning, "~", hash.get(..KEY_DIGITS).unwrap_or_default()].concat()
}

/// A stored idempotency key as it is shown.
fn shown_key(stored: &str) -> String {
    match stored.split_once('~') {
        Some((beginning, hash)) => [&decode(beginning), "…", hash].concat(),
        None => decode(stored),
    }
}

fn push_base(out: &mut String, base: u64) {
    push_number(out, base);
    record::end(out);
}

/// A base that all times can be written after or before.
fn read_base(record: &mut Record<'_>) -> Option<u64> {
    record.number().filter(|base| i64::try_from(*base).is_ok())
}

fn push_head(out: &mut String, kind: &str, at: u64, base: u64) {
    push_text(out, kind);
    push_time(out, at, base);
}

/// A time after the base, or before it if the clock stepped back.
fn push_time(out: &mut String, at: u64, base: u64) {
    if at < base {
        out.push('-');
    }
    push_number(out, at.abs_diff(base));
}

/// `key` is as it is stored. An empty one is none.
fn push_subject(out: &mut String, method: &str, class: &str, cost: u64, key: Option<&str>) {
    let (method, class) = (cut_method(method), cut(class));
    push_text(out, method);
    let rest = class.strip_prefix(method).and_then(|rest| rest.strip_prefix(' '));
    if rest.is_some() {
        out.push('~');
    }
    push_text(out, rest.unwrap_or(class));
    push_number(out, cost);
    push_raw(out, key.unwrap_or_default());
}

/// One line of a text.
#[derive(Debug)]
enum AuditLine {
    Admitted { at: u64, entry: AuditEntry },
    Refused(RefusalRun),
    Ended { at: u64, end: CallOutcome },
}

impl AuditLine {
    fn parse(base: u64, mut record: Record<'_>) -> Option<Self> {
        let kind = record.raw()?;
        let time = |record: &mut Record<'_>| base.checked_add_signed(record.raw()?.parse().ok()?);
        let at = time(&mut record)?;
        if kind == "c" {
            let (nonce, status) = (record.hex()?, record.number()?.try_into().ok()?);
            return Some(Self::Ended { at, end: CallOutcome { nonce, status, duration_ms: record.number()? } });
        }
        let method = record.text()?;
        let class = record.raw()?;
        let class = match class.strip_prefix('~') {
            Some(rest) => [&method, " ", &decode(rest)].concat(),
            None => decode(class),
        };
        let cost = record.number()?;
        let key = record.raw().filter(|key| !key.is_empty());
        if kind == "d" {
            let status = record.number()?.try_into().ok()?;
            let (count, after) = (record.number()?, record.number()?);
            let last = time(&mut record)?;
            let key = key.map(str::to_owned);
            return Some(Self::Refused(RefusalRun { first: at, last, method, class, status, cost, key, count, after }));
        }
        let entry = AuditEntry {
            at: UnixMicros::from_millis(at),
            method,
            class,
            status: 200,
            is_replay: kind == "r",
            cost,
            idempotency_key: key.map(shown_key),
            count: 1,
            end: None,
            nonce: Some(record.hex()?),
        };
        matches!(kind, "a" | "r").then_some(Self::Admitted { at, entry })
    }

    /// The first and the last time that it is about.
    const fn times(&self) -> (u64, u64) {
        match self {
            Self::Admitted { at, .. } | Self::Ended { at, .. } => (*at, *at),
            Self::Refused(run) => (run.first, run.last),
        }
    }
}

impl RefusalRun {
    fn into_entry(self) -> AuditEntry {
        AuditEntry {
            at: UnixMicros::from_millis(self.first),
            method: self.method,
            class: self.class,
            status: self.status,
            is_replay: false,
            cost: self.cost,
            idempotency_key: self.key.as_deref().map(shown_key),
            count: self.count,
            end: None,
            nonce: None,
        }
    }
}

/// A place in the log: an entry of a chunk. Entries keep their places when a tail grows and becomes
/// a chunk.
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

/// The text is not what a cursor prints.
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

/// What of the log is to be read.
#[derive(Debug, Clone, Copy)]
pub struct AuditQuery {
    /// From this time on.
    pub from: UnixMicros,
    /// Before this time.
    pub to: UnixMicros,
    /// Where the page before ended.
    pub cursor: Option<AuditCursor>,
    /// Entries at most.
    pub limit: usize,
}

/// A text is not a chunk of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk {seq} of the audit log cannot be read")]
pub struct AuditError {
    /// The chunk's number.
    pub seq: u64,
}

/// Reads a page of the log: entries in the order in which they were recorded, each with its end if
/// that is known.
///
/// It is fed with chunks in the order of their numbers, the tail last: those of which `to` is not
/// before the query's `from`, and the number not before the cursor's.
#[derive(Debug)]
pub struct AuditReader {
    query: AuditQuery,
    entries: Vec<AuditEntry>,
    next: Option<AuditCursor>,
}

impl AuditReader {
    /// A reader that has seen nothing.
    #[must_use]
    pub const fn new(query: AuditQuery) -> Self {
        Self { query, entries: Vec::new(), next: None }
    }

    /// Takes the next chunk; `false` if no further one has anything to add to this page. A
    /// caller that stops earlier gets a page in which the outcomes of some calls may be missing; if
    /// the page has no next one, entries may be missing too.
    ///
    /// # Errors
    /// [`AuditError`] if that is no chunk.
    pub fn feed(&mut self, seq: u64, body: &str) -> Result<bool, AuditError> {
        let error = AuditError { seq };
        let mut records = records(body);
        let Some(mut base) = records.next() else { return Ok(true) };
        let base = read_base(&mut base).ok_or(error)?;
        let (mut admitted, mut runs, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = base;
        for record in records {
            let line = AuditLine::parse(base, record).ok_or(error)?;
            last = last.max(line.times().1);
            match line {
                AuditLine::Admitted { entry, .. } => admitted.push(entry),
                AuditLine::Refused(run) => runs.push(run),
                AuditLine::Ended { at, end } => ends.push((UnixMicros::from_millis(at), end)),
            }
        }
        // An entry's place never changes: refusals come behind those calls that were admitted
        // before them.
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
        for (at, CallOutcome { nonce, status, duration_ms }) in ends {
            let is_of = |entry: &&mut AuditEntry| entry.nonce == Some(nonce) && at.since(entry.at) <= MAX_DURATION;
            if let Some(entry) = self.entries.iter_mut().rev().find(is_of) {
                entry.end.get_or_insert((status, duration_ms));
            }
        }
        Ok(self.wants_more(base, last))
    }

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

    /// `base` and `last` are times of the last chunk, in milliseconds.
    fn wants_more(&self, base: u64, last: u64) -> bool {
        let is_past = UnixMicros::from_millis(base) >= self.query.to;
        let may_end = |entry: &AuditEntry| {
            let until = entry.at.saturating_add(MAX_DURATION);
            entry.nonce.is_some() && entry.end.is_none() && UnixMicros::from_millis(last) <= until
        };
        (self.next.is_none() && !is_past) || self.entries.iter().any(may_end)
    }

    /// The entries, and where the next page begins, if there is one.
    #[must_use]
    pub fn finish(self) -> (Vec<AuditEntry>, Option<AuditCursor>) {
        (self.entries, self.next)
    }
}

/// Bytes that an object's database may take before the oldest chunks of the audit log make room for
/// new ones: 1 GiB of the 10 GB that an object has. Everything else that it stores is some
/// megabytes.
pub const AUDIT_BYTES: u64 = 1 << 30;

/// How many of the oldest chunks are to be deleted with a new one of `added` bytes, where the
/// database takes `size` bytes of `cap`. A chunk has at least 4 KiB, so more is deleted than is
/// added as long as it takes too much.
#[must_use]
pub const fn audit_surplus(size: u64, cap: u64, added: usize) -> usize {
    if size > cap { added / CHUNK_BYTES + 2 } else { 0 }
}

/// The time up to which the log is over at `now`: chunks whose `to` is not later may be deleted.
#[must_use]
pub const fn audit_over(now: UnixMicros, days: u32) -> UnixMicros {
    now.saturating_sub(DAY.saturating_mul(days as u64))
}

/// When to delete again, if the oldest chunk that is left ends at `oldest`: at the end of the day
/// in which it is over, so that there is no more to do than once a day.
#[must_use]
pub const fn audit_next(oldest: UnixMicros, days: u32) -> UnixMicros {
    let over = oldest.saturating_add(DAY.saturating_mul(days as u64)).as_micros();
    UnixMicros::from_micros((over / DAY).saturating_add(1).saturating_mul(DAY))
}
