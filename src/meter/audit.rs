//! The audit log: what the gate did with each call, and how the call ended.
//!
//! Lines are appended to a tail, which is part of every row of the state and is never written again as data structures: what was
//! said stays as it was said. A full tail becomes a chunk, a row of its own. Chunks are cut by what calls were admitted, so that a
//! flood of refusals costs no rows: refusals are collapsed, those of one second that look the same into one entry with a count,
//! and when there are too many of these, those of any time since the last chunk.
//!
//! A line is a letter, fields with bars between, and a semicolon; times are milliseconds after the base, with which a text begins.
//!
//! ```text
//! 1795160894000;                              base
//! a120|GET|~/v1|1|9f3|order-7;                admitted: at, method, class ("~" is the method and a space), cost, nonce, key
//! r130|GET|/v1/*|0|9f4|;                      the same, a replay
//! c310|9f3|201|190;                           ended: at, nonce, the origin's status, duration in milliseconds
//! d500|GET|~/v1|1|429||17|2|980;              refused: as above with the status, how often, after how many admitted, last at
//! ```

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::meter::cut;
use crate::meter::hours::OTHER;
use crate::time::{DAY, MINUTE, SECOND, UnixMicros};

/// A chunk has at least so many bytes ...
const CHUNK_BYTES: usize = 4096;
/// ... and so many admitted calls: with its deletion, a chunk costs each of them a sixteenth of a row at most.
const CHUNK_CALLS: usize = 32;
/// From this size on a text is a chunk, whatever is in it.
const MAX_BYTES: usize = 1 << 16;
/// Entries of refused calls from which on they are collapsed whenever they were.
const MAX_RUNS: usize = 64;
/// What is kept of an idempotency key, in bytes.
const MAX_KEY: usize = 255;
const MAX_METHOD: usize = 16;
/// For how long after a call its end is looked for, in microseconds: 15 minutes.
pub const MAX_DURATION: u64 = 15 * MINUTE;

/// What has a meaning in a line, and what JSON would escape.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'|').add(b';').add(b'%').add(b'~').add(b'"').add(b'\\');

/// A call as the log knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) method: &'a str,
    pub(crate) class: &'a str,
    pub(crate) cost: u64,
    pub(crate) key: Option<&'a str>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The call's nonce.
    pub nonce: u64,
    /// The origin's status.
    pub status: u16,
    /// Milliseconds from the question to the origin's answer.
    pub duration_ms: u64,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
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
    /// Its idempotency key.
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
struct Run {
    /// Times are milliseconds since 1970.
    first: u64,
    last: u64,
    method: String,
    class: String,
    status: u16,
    cost: u64,
    key: Option<String>,
    count: u64,
    /// Calls admitted before the first, in this text.
    after: usize,
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
pub(crate) struct Audit {
    /// The number of the chunk that the tail will be.
    seq: u64,
    /// Base, admitted calls and ends.
    text: String,
    base: u64,
    /// Times in the tail, in milliseconds.
    from: u64,
    to: u64,
    admitted: usize,
    runs: Vec<Run>,
    full: Vec<AuditRow>,
}

/// The stored form of the tail.
#[derive(Serialize, Deserialize)]
pub(crate) struct AuditTail<'a> {
    #[serde(rename = "s")]
    seq: u64,
    #[serde(rename = "t", default)]
    text: Cow<'a, str>,
}

impl Audit {
    pub(crate) fn admit(&mut self, now: UnixMicros, call: Subject<'_>, nonce: u64, is_replay: bool) {
        let at = self.pass(now);
        self.text.push(if is_replay { 'r' } else { 'a' });
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{at}|");
        push_subject(&mut self.text, call.method, call.class, call.cost);
        let _ = write!(self.text, "|{nonce:x}|");
        push_key(&mut self.text, call.key);
        self.text.push(';');
        self.admitted += 1;
        self.spill();
    }

    pub(crate) fn refuse(&mut self, now: UnixMicros, call: Subject<'_>, status: u16) {
        self.pass(now);
        let at = now.as_millis();
        let is_crowded = self.runs.len() >= MAX_RUNS;
        let second = |millis: u64| millis * 1000 / SECOND;
        let is_same = |run: &&mut Run| {
            run.status == status
                && (is_crowded || second(run.last) == second(at))
                && run.class == cut(call.class)
                && run.method == cut_method(call.method)
        };
        let mut call = call;
        let mut run = self.runs.iter_mut().rev().find(is_same);
        if run.is_none() && is_crowded {
            call = Subject { method: "", class: OTHER, ..call };
            run = self.runs.iter_mut().rev().find(|run| run.status == status && run.class == OTHER);
        }
        if let Some(run) = run {
            run.count = run.count.saturating_add(1);
            run.last = run.last.max(at);
            run.key = run.key.take().filter(|key| Some(key.as_str()) == call.key.map(cut_key));
            return;
        }
        self.runs.push(Run {
            first: at,
            last: at,
            method: cut_method(call.method).to_owned(),
            class: cut(call.class).to_owned(),
            status,
            cost: call.cost,
            key: call.key.map(|key| cut_key(key).to_owned()),
            count: 1,
            after: self.admitted,
        });
    }

    pub(crate) fn end(&mut self, now: UnixMicros, end: End) {
        let at = self.pass(now);
        let End { nonce, status, duration_ms } = end;
        let _ = write!(self.text, "c{at}|{nonce:x}|{status}|{duration_ms};");
        self.spill();
    }

    /// Notes that something is said about `now`; gives its milliseconds after the base.
    fn pass(&mut self, now: UnixMicros) -> i64 {
        let at = now.as_millis();
        if self.text.is_empty() {
            self.base = at;
            self.from = at;
            self.to = at;
            let _ = write!(self.text, "{at};");
        }
        self.from = self.from.min(at);
        self.to = self.to.max(at);
        at.cast_signed().wrapping_sub(self.base.cast_signed())
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
        let mut text = self.text.clone();
        for run in &self.runs {
            let after_base = |millis: u64| millis.cast_signed().wrapping_sub(self.base.cast_signed());
            let _ = write!(text, "d{}|", after_base(run.first));
            push_subject(&mut text, &run.method, &run.class, run.cost);
            let _ = write!(text, "|{}|", run.status);
            push_key(&mut text, run.key.as_deref());
            let _ = write!(text, "|{}|{}|{};", run.count, run.after, after_base(run.last));
        }
        Cow::Owned(text)
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

    /// The stored form, if there is anything to store.
    pub(crate) fn to_row(&self) -> Option<AuditTail<'_>> {
        let is_empty = self.seq == 0 && self.text.is_empty();
        (!is_empty).then(|| AuditTail { seq: self.seq, text: self.body() })
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn from_row(row: &AuditTail<'_>) -> Option<Self> {
        let mut audit = Self { seq: row.seq, ..Self::default() };
        if row.text.is_empty() {
            return Some(audit);
        }
        let (base, lines) = split(&row.text)?;
        let _ = write!(audit.text, "{base};");
        audit.base = base;
        audit.from = base;
        audit.to = base;
        for line in lines {
            let parsed = Line::parse(base, line)?;
            let (first, last) = parsed.times();
            audit.from = audit.from.min(first);
            audit.to = audit.to.max(last);
            if let Line::Refused(run) = parsed {
                audit.runs.push(run);
            } else {
                audit.admitted += usize::from(matches!(parsed, Line::Admitted { .. }));
                audit.text.push_str(line);
                audit.text.push(';');
            }
        }
        Some(audit)
    }
}

fn cut_method(method: &str) -> &str {
    method.get(..method.floor_char_boundary(MAX_METHOD)).unwrap_or(method)
}

fn cut_key(key: &str) -> &str {
    key.get(..key.floor_char_boundary(MAX_KEY)).unwrap_or(key)
}

fn push_subject(text: &mut String, method: &str, class: &str, cost: u64) {
    let (method, class) = (cut_method(method), cut(class));
    text.extend(utf8_percent_encode(method, ESCAPED));
    text.push('|');
    let rest = class.strip_prefix(method).and_then(|rest| rest.strip_prefix(' '));
    if rest.is_some() {
        text.push('~');
    }
    text.extend(utf8_percent_encode(rest.unwrap_or(class), ESCAPED));
    let _ = write!(text, "|{cost}");
}

/// No key is an empty field; an empty key is none.
fn push_key(text: &mut String, key: Option<&str>) {
    text.extend(utf8_percent_encode(cut_key(key.unwrap_or_default()), ESCAPED));
}

/// The base of a text, and its lines.
fn split(text: &str) -> Option<(u64, impl Iterator<Item = &str>)> {
    let (base, lines) = text.strip_suffix(';')?.split_once(';').unwrap_or((text.strip_suffix(';')?, ""));
    let is_empty = lines.is_empty();
    Some((base.parse().ok()?, lines.split(';').filter(move |_| !is_empty)))
}

/// One line of a text.
#[derive(Debug)]
enum Line {
    Admitted { at: u64, entry: Entry },
    Refused(Run),
    Ended { at: u64, end: End },
}

impl Line {
    fn parse(base: u64, line: &str) -> Option<Self> {
        let kind = line.get(..1)?;
        let mut fields = line.get(1..)?.split('|');
        let mut field = || fields.next();
        let time = |after: &str| base.checked_add_signed(after.parse().ok()?);
        let at = time(field()?)?;
        if kind == "c" {
            let nonce = u64::from_str_radix(field()?, 16).ok()?;
            let end = End { nonce, status: field()?.parse().ok()?, duration_ms: field()?.parse().ok()? };
            return Some(Self::Ended { at, end });
        }
        let method = decode(field()?);
        let class = field()?;
        let class = match class.strip_prefix('~') {
            Some(rest) => [&method, " ", &decode(rest)].concat(),
            None => decode(class),
        };
        let cost = field()?.parse().ok()?;
        let third = field()?;
        let key = Some(decode(field()?)).filter(|key| !key.is_empty());
        if kind == "d" {
            let status = third.parse().ok()?;
            let (count, after) = (field()?.parse().ok()?, field()?.parse().ok()?);
            let last = time(field()?)?;
            return Some(Self::Refused(Run { first: at, last, method, class, status, cost, key, count, after }));
        }
        let entry = Entry {
            at: UnixMicros::from_millis(at),
            method,
            class,
            status: 200,
            is_replay: kind == "r",
            cost,
            idempotency_key: key,
            count: 1,
            end: None,
            nonce: Some(u64::from_str_radix(third, 16).ok()?),
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

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Run {
    fn into_entry(self) -> Entry {
        Entry {
            at: UnixMicros::from_millis(self.first),
            method: self.method,
            class: self.class,
            status: self.status,
            is_replay: false,
            cost: self.cost,
            idempotency_key: self.key,
            count: self.count,
            end: None,
            nonce: None,
        }
    }
}

/// A place in the log: an entry of a chunk. Entries keep their places when a tail grows and becomes a chunk.
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

/// Reads a page of the log: entries in the order in which they were recorded, each with its end if that is known.
///
/// It is fed with chunks in the order of their numbers, the tail last: those of which `to` is not before the query's `from`, and
/// the number not before the cursor's.
#[derive(Debug)]
pub struct AuditReader {
    query: AuditQuery,
    entries: Vec<Entry>,
    next: Option<AuditCursor>,
}

impl AuditReader {
    /// A reader that has seen nothing.
    #[must_use]
    pub const fn new(query: AuditQuery) -> Self {
        Self { query, entries: Vec::new(), next: None }
    }

    /// Takes the next chunk; `false` if no further one has anything to add to this page. Who stops earlier gets a page in which the
    /// ends of some calls may be missing, if it has a next one; otherwise also entries.
    ///
    /// # Errors
    /// [`AuditError`] if that is no chunk.
    pub fn feed(&mut self, seq: u64, body: &str) -> Result<bool, AuditError> {
        let error = AuditError { seq };
        if body.is_empty() {
            return Ok(true);
        }
        let (base, lines) = split(body).ok_or(error)?;
        let (mut entries, mut ends) = (Vec::new(), Vec::new());
        let (mut admitted, mut last) = (0, base);
        for line in lines {
            let line = Line::parse(base, line).ok_or(error)?;
            last = last.max(line.times().1);
            match line {
                // An entry's place never changes: behind those that were admitted before it.
                Line::Admitted { entry, .. } => {
                    entries.push((admitted, true, entry));
                    admitted += 1;
                }
                Line::Refused(run) => entries.push((run.after, false, run.into_entry())),
                Line::Ended { at, end } => ends.push((UnixMicros::from_millis(at), end)),
            }
        }
        entries.sort_by_key(|(after, is_admitted, _)| (*after, *is_admitted));
        for (index, (_, _, entry)) in entries.into_iter().enumerate() {
            self.take(AuditCursor { seq, index }, entry);
        }
        for (at, End { nonce, status, duration_ms }) in ends {
            let is_of = |entry: &&mut Entry| entry.nonce == Some(nonce) && at.since(entry.at) <= MAX_DURATION;
            if let Some(entry) = self.entries.iter_mut().rev().find(is_of) {
                entry.end.get_or_insert((status, duration_ms));
            }
        }
        Ok(self.wants_more(base, last))
    }

    fn take(&mut self, place: AuditCursor, entry: Entry) {
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
        let may_end = |entry: &Entry| {
            let until = entry.at.saturating_add(MAX_DURATION);
            entry.nonce.is_some() && entry.end.is_none() && UnixMicros::from_millis(last) <= until
        };
        (self.next.is_none() && !is_past) || self.entries.iter().any(may_end)
    }

    /// The entries, and where the next page begins, if there is one.
    #[must_use]
    pub fn finish(self) -> (Vec<Entry>, Option<AuditCursor>) {
        (self.entries, self.next)
    }
}

/// The time up to which the log is over at `now`: chunks whose `to` is not later may be deleted.
#[must_use]
pub const fn audit_over(now: UnixMicros, days: u32) -> UnixMicros {
    now.saturating_sub(DAY * days as u64)
}

/// When to delete again, if the oldest chunk that is left ends at `oldest`: at the end of the day in which it is over, so that
/// there is no more to do than once a day.
#[must_use]
pub const fn audit_next(oldest: UnixMicros, days: u32) -> UnixMicros {
    let over = oldest.saturating_add(DAY * days as u64).as_micros();
    UnixMicros::from_micros((over / DAY).saturating_add(1).saturating_mul(DAY))
}
