//! Idempotency keys: the calls that were admitted under them, so that repeats are recognised.
//!
//! A mark is 24 bytes in memory and 32 characters in storage. It holds what the first call was and
//! how many of its repeats were free. New marks go to a tail, which is part of every row; a full
//! tail becomes a chunk, a row of its own that is written once and deleted when all in it is over.
//! A free repeat changes the mark in the tail, or appends another one there; of several marks of a
//! key the newest counts. So a call costs two rows for each `CHUNK` more than it does without a
//! key.
//!
//! # Stored forms
//! A mark is two groups of 12 bytes: key and second, then request and free repeats. The first
//! version stored the first group alone, and reads the second as a mark that is over. A tail says
//! in its record that its marks have both, a chunk in a group of its own at its beginning.

use sha2::{Digest, Sha256};

use crate::encoding::record::{self, push_number, push_text, records};
use crate::encoding::{base64, unbase64};
use crate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use crate::time::{HOUR, MINUTE, SECOND, UnixMicros, ceil_seconds};

/// For how long a call's idempotency key is remembered, in seconds: 24 hours.
pub const REPLAY_SECONDS: u64 = 24 * HOUR / SECOND;
/// For how long a call whose end is not known is taken to be in flight, in microseconds: 5 minutes.
pub const MAX_FLIGHT: u64 = 5 * MINUTE;
/// Marks that are kept at least. Each first call has one, and so has a free repeat of a call whose
/// mark is in a chunk. Beyond that the oldest are forgotten, and the repeats of their calls are new
/// calls.
pub const MAX_REPLAYS: usize = MAX_CHUNKS * CHUNK;
/// Calls in flight of one key at most; beyond that the oldest count as complete.
pub const MAX_IN_FLIGHT: usize = 1024;

const CHUNK: usize = 512;
const MAX_CHUNKS: usize = 128;
/// Bytes of one of a mark's two groups.
const GROUP: usize = 12;
/// The form in which marks are stored, in the record of a tail.
const FORM: u64 = 2;
/// The same as the first group of a chunk: the key 0 and the second 2.
const FORM_GROUP: &str = "AAAAAAAAAAAAAAAC";

fn head(hash: Sha256) -> u64 {
    hash.finalize().first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

/// An idempotency key by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        Self(head(Sha256::new_with_prefix(b"tollgate idempotency v1\0").chain_update(key)))
    }
}

/// What was asked for under an idempotency key. Hashed with the epoch, which no client knows, so
/// that nobody can look for two requests that have the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestHash(u64);

impl RequestHash {
    /// Of calls whose isolates sent no fingerprint.
    pub(crate) const UNKNOWN: Self = Self(0);

    pub(crate) fn of(epoch: &str, key: &str, request: Fingerprint) -> Self {
        let hash = Sha256::new_with_prefix(b"tollgate repeat v1\0").chain_update(epoch).chain_update(b"\0");
        Self(head(hash.chain_update(request.to_bytes()).chain_update(key)).max(1))
    }

    fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }
}

/// A call that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct IdempotencyMark {
    key: KeyHash,
    /// When, in seconds since 1970, rounded up: remembered a little longer, never shorter. Good
    /// until the year 2106.
    second: u32,
    request: RequestHash,
    /// Repeats that were free.
    repeats: u32,
}

impl IdempotencyMark {
    fn groups(self) -> [[u8; GROUP]; 2] {
        let group = |hash: u64, number: u32| {
            let mut bytes = [0; GROUP];
            let (head, tail) = bytes.split_at_mut(8);
            head.copy_from_slice(&hash.to_be_bytes());
            tail.copy_from_slice(&number.to_be_bytes());
            bytes
        };
        [group(self.key.0, self.second), group(self.request.0, self.repeats)]
    }

    /// A mark of two groups, or of one.
    fn read(first: &[u8], second: Option<&[u8]>) -> Option<Self> {
        let group = |bytes: &[u8]| {
            let (head, tail) = bytes.split_first_chunk()?;
            Some((u64::from_be_bytes(*head), u32::from_be_bytes(*tail.first_chunk()?)))
        };
        let (key, at) = group(first)?;
        let (request, repeats) = second.map_or(Some((RequestHash::UNKNOWN.0, 0)), group)?;
        Some(Self { key: KeyHash(key), second: at, request: RequestHash(request), repeats })
    }

    fn until(self) -> u64 {
        u64::from(self.second).saturating_add(REPLAY_SECONDS)
    }
}

fn push_marks(text: &mut String, marks: &[IdempotencyMark]) {
    for group in marks.iter().flat_map(|mark| mark.groups()) {
        text.push_str(&base64(&group));
    }
}

fn to_text(marks: &[IdempotencyMark]) -> String {
    let mut text = String::with_capacity(marks.len() * 32);
    push_marks(&mut text, marks);
    text
}

/// Marks of the present form, or of the first.
fn from_text(text: &str, is_first_form: bool) -> Option<Vec<IdempotencyMark>> {
    let bytes = unbase64(text)?;
    let groups: Vec<&[u8]> = bytes.chunks(GROUP).collect();
    if is_first_form {
        return groups.into_iter().map(|group| IdempotencyMark::read(group, None)).collect();
    }
    groups.chunks(2).map(|pair| IdempotencyMark::read(pair.first()?, Some(pair.get(1)?))).collect()
}

/// Marks that have a row of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct IdempotencyChunk {
    id: u32,
    /// In order of their keys.
    marks: Vec<IdempotencyMark>,
    /// The second in which the last of them is over.
    until: u64,
    is_stored: bool,
}

impl IdempotencyChunk {
    /// `marks` are in order of their keys.
    fn new(id: u32, marks: Vec<IdempotencyMark>, is_stored: bool) -> Self {
        let until = marks.iter().map(|mark| mark.until()).max().unwrap_or_default();
        Self { id, marks, until, is_stored }
    }

    /// The newest mark of a key: a tail has one alone, but for tails of the first form, of which
    /// the later one is newer.
    fn find(&self, key: KeyHash) -> Option<IdempotencyMark> {
        let after = self.marks.partition_point(|mark| mark.key <= key);
        self.marks.get(after.checked_sub(1)?).copied().filter(|mark| mark.key == key)
    }
}

/// Marks in order of their keys. They are a few hundred, and this is far less code than a sort.
fn sorted(marks: &[IdempotencyMark]) -> Vec<IdempotencyMark> {
    let mut sorted = Vec::with_capacity(marks.len());
    for mark in marks {
        let at = sorted.partition_point(|other| other <= mark);
        sorted.insert(at, *mark);
    }
    sorted
}

/// A row of its own, to be stored with the state's row: `body` replaces whatever `id` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// The primary key.
    pub id: u32,
    /// When nothing in it matters any more.
    pub until: UnixMicros,
    /// Text.
    pub body: String,
}

/// A call that was admitted under an idempotency key, and of which no end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallInFlight {
    nonce: u64,
    key: KeyHash,
    since: UnixMicros,
}

/// The call that was admitted before under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PriorCall {
    /// Nothing, or nothing any more.
    None,
    /// A call that asked for something else was admitted under it.
    Different,
    /// The call of this nonce was admitted under it, and may still be in flight.
    InFlight { nonce: u64 },
    /// The first call has ended. A repeat is free if both are known to be the same request, up to
    /// [`FREE_REPEATS`] of them.
    Complete { is_free: bool },
}

/// The calls of the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdempotencyKeys {
    /// Oldest first.
    tail: Vec<IdempotencyMark>,
    tail_text: String,
    /// Oldest first.
    chunks: Vec<IdempotencyChunk>,
    next_id: u32,
    /// Oldest first.
    flights: Vec<CallInFlight>,
    /// Rows to be deleted.
    over: Vec<u32>,
}

impl IdempotencyKeys {
    /// The newest mark of a key.
    fn mark(&self, key: KeyHash) -> Option<IdempotencyMark> {
        let in_tail = self.tail.iter().rev().find(|mark| mark.key == key).copied();
        in_tail.or_else(|| self.chunks.iter().rev().find_map(|chunk| chunk.find(key)))
    }

    pub(crate) fn prior_call(&self, key: KeyHash, request: RequestHash, now: UnixMicros) -> PriorCall {
        let Some(mark) = self.mark(key).filter(|mark| mark.until() > now.as_seconds()) else { return PriorCall::None };
        let are_known = request.is_known() && mark.request.is_known();
        if are_known && request != mark.request {
            return PriorCall::Different;
        }
        let flight = self.flights.iter().rev().find(|flight| flight.key == key);
        match flight.filter(|flight| now.since(flight.since) < MAX_FLIGHT) {
            Some(flight) => PriorCall::InFlight { nonce: flight.nonce },
            None => PriorCall::Complete { is_free: are_known && mark.repeats < FREE_REPEATS },
        }
    }

    /// Notes that the first call under this key was admitted.
    pub(crate) fn begin(&mut self, key: KeyHash, request: RequestHash, nonce: u64, now: UnixMicros) {
        let second = u32::try_from(ceil_seconds(now.as_micros())).unwrap_or(u32::MAX);
        self.put(IdempotencyMark { key, second, request, repeats: 0 });
        let over = self.flights.iter().take_while(|flight| now.since(flight.since) >= MAX_FLIGHT).count();
        let over = over.max((self.flights.len() + 1).saturating_sub(MAX_IN_FLIGHT));
        self.flights.drain(..over);
        self.flights.push(CallInFlight { nonce, key, since: UnixMicros::from_millis(now.as_millis()) });
    }

    /// Notes that a repeat was admitted: a free one, or one that was charged. Of a call whose
    /// request is not known, the first one that is charged says what it was.
    pub(crate) fn repeat(&mut self, key: KeyHash, request: RequestHash, is_free: bool) {
        let Some(mark) = self.mark(key) else { return };
        if is_free {
            self.put(IdempotencyMark { repeats: mark.repeats.saturating_add(1), ..mark });
        } else if request.is_known() && !mark.request.is_known() {
            self.put(IdempotencyMark { request, ..mark });
        }
    }

    /// Makes this the newest mark of its key.
    fn put(&mut self, mark: IdempotencyMark) {
        if let Some(older) = self.tail.iter_mut().rev().find(|older| older.key == mark.key) {
            *older = mark;
            self.tail_text = to_text(&self.tail);
            return;
        }
        self.tail.push(mark);
        push_marks(&mut self.tail_text, &[mark]);
        if self.tail.len() >= CHUNK {
            self.chunks.push(IdempotencyChunk::new(self.next_id, sorted(&self.tail), false));
            self.tail.clear();
            self.tail_text.clear();
            self.next_id = self.next_id.saturating_add(1);
        }
    }

    /// Notes that a call has ended. True if it was in flight.
    pub(crate) fn complete(&mut self, nonce: u64) -> bool {
        let before = self.flights.len();
        self.flights.retain(|flight| flight.nonce != nonce);
        self.flights.len() < before
    }

    pub(crate) fn is_in_flight(&self, nonce: u64) -> bool {
        self.flights.iter().any(|flight| flight.nonce == nonce)
    }

    /// Lets go of chunks that are over, or too many. True if there were any.
    pub(crate) fn expire(&mut self, now: UnixMicros) -> bool {
        let second = now.as_seconds();
        let over = self.chunks.iter().take_while(|chunk| chunk.until <= second).count();
        let over = over.max(self.chunks.len().saturating_sub(MAX_CHUNKS));
        self.over.extend(self.chunks.drain(..over).map(|chunk| chunk.id));
        over > 0
    }

    /// When the next chunk will be over.
    pub(crate) fn next_expiry(&self) -> Option<UnixMicros> {
        self.chunks.first().map(|chunk| UnixMicros::from_millis(chunk.until.saturating_mul(1000)))
    }

    /// Moves what lies after `now` to it, for a clock that was ahead.
    pub(crate) fn rebase(&mut self, now: UnixMicros) {
        let latest = u32::try_from(ceil_seconds(now.as_micros())).unwrap_or(u32::MAX);
        let rebase = |marks: &mut [IdempotencyMark]| {
            let ahead = marks.iter_mut().filter(|mark| mark.second > latest);
            ahead.map(|mark| mark.second = latest).count() > 0
        };
        if rebase(&mut self.tail) {
            self.tail_text = to_text(&self.tail);
        }
        for chunk in &mut self.chunks {
            if rebase(&mut chunk.marks) {
                *chunk = IdempotencyChunk::new(chunk.id, sorted(&chunk.marks), false);
            }
        }
        for flight in &mut self.flights {
            flight.since = flight.since.min(UnixMicros::from_millis(now.as_millis()));
        }
    }

    /// The chunks that are not stored as they are.
    pub(crate) fn rows(&self) -> Vec<IdempotencyRow> {
        let unstored = self.chunks.iter().filter(|chunk| !chunk.is_stored);
        let row = |chunk: &IdempotencyChunk| IdempotencyRow {
            id: chunk.id,
            until: UnixMicros::from_millis(chunk.until.saturating_mul(1000)),
            body: [FORM_GROUP, &to_text(&chunk.marks)].concat(),
        };
        unstored.map(row).collect()
    }

    /// The rows to be deleted.
    pub(crate) fn over(&self) -> &[u32] {
        &self.over
    }

    /// What is to be stored and deleted, is.
    pub(crate) fn committed(&mut self) {
        self.over.clear();
        // Only the newest can be new, unless the clock stepped back.
        self.chunks.iter_mut().for_each(|chunk| chunk.is_stored = true);
    }

    /// The stored form, but for the chunks, if there is anything to store: the tail, the number of
    /// the next chunk and [`FORM`]; then of each call in flight its nonce, the hash of its key, and
    /// milliseconds since 1970.
    pub(crate) fn to_text(&self) -> Option<String> {
        if self.tail.is_empty() && self.flights.is_empty() && self.next_id == 0 {
            return None;
        }
        let mut out = String::with_capacity(self.tail_text.len() + 64);
        push_text(&mut out, &self.tail_text);
        push_number(&mut out, u64::from(self.next_id));
        push_number(&mut out, FORM);
        record::end(&mut out);
        for CallInFlight { nonce, key, since } in &self.flights {
            push_number(&mut out, *nonce);
            push_number(&mut out, key.0);
            push_number(&mut out, since.as_millis());
            record::end(&mut out);
        }
        Some(out)
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut records = records(text);
        let mut head = records.next()?;
        let (tail, next_id) = (head.text()?, head.number()?.try_into().ok()?);
        let is_first_form = match head.raw() {
            None => true,
            Some(form) if form.parse() == Ok(FORM) => false,
            Some(_) => return None,
        };
        let tail = from_text(&tail, is_first_form)?;
        let mut replays = Self { tail_text: to_text(&tail), tail, next_id, ..Self::default() };
        for mut record in records {
            let (nonce, key) = (record.number()?, KeyHash(record.number()?));
            replays.flights.push(CallInFlight { nonce, key, since: UnixMicros::from_millis(record.number()?) });
        }
        Some(replays)
    }

    /// Takes back a chunk of a row; `false` if it is not one. A chunk that the state's row does not
    /// know came with a row that was not written: nothing in it was admitted, and it is deleted.
    pub(crate) fn load(&mut self, id: u32, body: &str) -> bool {
        if id >= self.next_id {
            self.over.push(id);
            return true;
        }
        let (marks, is_first_form) = body.strip_prefix(FORM_GROUP).map_or((body, true), |marks| (marks, false));
        let Some(marks) = from_text(marks, is_first_form) else { return false };
        let at = self.chunks.partition_point(|chunk| chunk.id < id);
        self.chunks.insert(at, IdempotencyChunk::new(id, marks, true));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: [IdempotencyMark; 2] = [
        IdempotencyMark {
            key: KeyHash(0x0102_0304_0506_0708),
            second: 1_795_160_894,
            request: RequestHash(u64::MAX),
            repeats: 5,
        },
        IdempotencyMark { key: KeyHash(u64::MAX), second: 0, request: RequestHash::UNKNOWN, repeats: 0 },
    ];

    #[test]
    fn marks_are_frozen() {
        assert_eq!(KeyHash::of("order-7"), KeyHash(868_112_185_802_575_781));
        let text = to_text(&MARKS);
        assert_eq!(text, "AQIDBAUGBwhq__s-__________8AAAAF__________8AAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(from_text(&text, false).unwrap(), MARKS);
        for wrong in ["AQ", "AQIDBAUGBwhrAA", "AQIDBAUGBwhrAA!!", "AQIDBAUGBwhq__s-", "AQIDBAUGBwhq__s-AAAA"] {
            assert_eq!(from_text(wrong, false), None, "{wrong}");
        }
        assert_eq!(size_of::<IdempotencyMark>(), 24);
        let request = RequestHash::of("00ff", "order-7", Fingerprint::of("POST", "/orders", None));
        assert_eq!(request, RequestHash(7_829_633_170_508_453_875));
    }

    /// Objects in the field hold these.
    #[test]
    fn marks_of_the_first_form_are_read() {
        let text = "AQIDBAUGBwhq__s-__________8AAAAA";
        let marks = MARKS.map(|mark| IdempotencyMark { request: RequestHash::UNKNOWN, repeats: 0, ..mark });
        assert_eq!(from_text(text, true).unwrap(), marks);
        for wrong in ["AQ", "AQIDBAUGBwhrAA", "AQIDBAUGBwhrAA!!"] {
            assert_eq!(from_text(wrong, true), None, "{wrong}");
        }
    }

    /// The first version reads each group as a mark: the marks as they are, and others that are
    /// over since 1970.
    #[test]
    fn the_first_version_reads_the_present_form() {
        let read = from_text(&to_text(&MARKS), true).unwrap();
        let seconds: Vec<u32> = read.iter().map(|mark| mark.second).collect();
        assert_eq!(seconds, [1_795_160_894, 5, 0, 0]);
        assert_eq!(from_text(FORM_GROUP, true).unwrap()[0].second, 2);
    }

    #[test]
    fn a_chunk_finds_the_newest_mark_of_a_key() {
        let mark =
            |key, second, repeats| IdempotencyMark { key: KeyHash(key), second, request: RequestHash(7), repeats };
        let chunk =
            IdempotencyChunk::new(1, sorted(&[mark(5, 9, 0), mark(3, 1, 2), mark(5, 7, 4), mark(9, 2, 0)]), true);
        let find = |key| chunk.find(KeyHash(key)).map(|mark| (mark.second, mark.repeats));
        assert_eq!([0, 3, 4, 5, 9, 10].map(find), [None, Some((1, 2)), None, Some((9, 0)), Some((2, 0)), None]);
        assert_eq!(chunk.until, 9 + REPLAY_SECONDS);
    }
}
