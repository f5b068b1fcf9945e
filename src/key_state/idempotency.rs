//! Idempotency keys: the calls that were admitted under them, so that repeats are recognised.
//!
//! A mark holds the hash of the first call and how many of its repeats were free. It takes 24 bytes
//! in memory and 32 characters in storage. New marks are appended to a tail, which is part of every
//! row. A full tail becomes a chunk, a row of its own that is written once and deleted once all of
//! its marks have expired. A free repeat updates the mark in the tail, or appends a newer one if
//! the mark is in a chunk. The newest mark of a key is the valid one. So an idempotency key costs
//! two rows per `CHUNK` calls.
//!
//! # Stored forms
//! A mark is two groups of 12 bytes: key and second, then request and free repeats. Version 1
//! stored only the first group, and reads the second as an expired mark. A tail states in its
//! record that its marks have two groups; a chunk begins with the group `FORM_GROUP`.

use sha2::{Digest, Sha256};

use crate::encoding::record::{self, push_number, push_text, records};
use crate::encoding::{base64, unbase64};
use crate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use crate::time::{HOUR, MINUTE, SECOND, UnixMicros, ceil_seconds};

/// How long an idempotency key is remembered, in seconds: 24 hours.
pub const REPLAY_SECONDS: u64 = 24 * HOUR / SECOND;
/// How long a call without a known outcome counts as in flight, in microseconds: 5 minutes.
pub const MAX_FLIGHT: u64 = 5 * MINUTE;
/// Minimum number of marks that are kept. Each first call has one, and so has each free repeat of a
/// call whose mark is in a chunk. Repeats of calls whose marks were dropped are new calls.
pub const MAX_REPLAYS: usize = MAX_CHUNKS * CHUNK;
/// Maximum number of calls in flight per key. Beyond it, the oldest count as complete.
pub const MAX_IN_FLIGHT: usize = 1024;

const CHUNK: usize = 512;
const MAX_CHUNKS: usize = 128;
/// Size of one of the two groups of a mark, in bytes.
const GROUP: usize = 12;
/// Number of the stored form, in the record of a tail.
const FORM: u64 = 2;
/// Number of the stored form, as the first group of a chunk: the key 0 and the second 2.
const FORM_GROUP: &str = "AAAAAAAAAAAAAAAC";

fn head(hash: Sha256) -> u64 {
    hash.finalize().first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

/// The hash of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        Self(head(Sha256::new_with_prefix(b"tollgate idempotency v1\0").chain_update(key)))
    }
}

/// The hash of the request under an idempotency key. It includes the epoch, which is secret, so
/// that clients cannot search for two requests with the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestHash(u64);

impl RequestHash {
    /// Stands for a request whose fingerprint was not sent.
    pub(crate) const UNKNOWN: Self = Self(0);

    pub(crate) fn of(epoch: &str, key: &str, request: Fingerprint) -> Self {
        let hash = Sha256::new_with_prefix(b"tollgate repeat v1\0").chain_update(epoch).chain_update(b"\0");
        Self(head(hash.chain_update(request.to_bytes()).chain_update(key)).max(1))
    }

    fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }
}

/// An admitted call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct IdempotencyMark {
    key: KeyHash,
    /// The time of admission in seconds since 1970, rounded up so that the mark never expires
    /// early. Overflows in the year 2106.
    second: u32,
    request: RequestHash,
    /// Number of free repeats.
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

    /// Reads a mark of two groups, or of one as version 1 stored it.
    fn read(first: &[u8], second: Option<&[u8]>) -> Option<Self> {
        let group = |bytes: &[u8]| {
            let (head, tail) = bytes.split_first_chunk()?;
            Some((u64::from_be_bytes(*head), u32::from_be_bytes(*tail.first_chunk()?)))
        };
        let (key, at) = group(first)?;
        let (request, repeats) = second.map_or(Some((RequestHash::UNKNOWN.0, 0)), group)?;
        Some(Self { key: KeyHash(key), second: at, request: RequestHash(request), repeats })
    }

    /// The expiry, in seconds since 1970.
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

/// Reads marks of the current form, or of version 1.
fn from_text(text: &str, is_version_1: bool) -> Option<Vec<IdempotencyMark>> {
    let bytes = unbase64(text)?;
    let groups: Vec<&[u8]> = bytes.chunks(GROUP).collect();
    if is_version_1 {
        return groups.into_iter().map(|group| IdempotencyMark::read(group, None)).collect();
    }
    groups.chunks(2).map(|pair| IdempotencyMark::read(pair.first()?, Some(pair.get(1)?))).collect()
}

/// Marks that are stored in a row of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct IdempotencyChunk {
    id: u32,
    /// Sorted by key.
    marks: Vec<IdempotencyMark>,
    /// When the last of them expires, in seconds since 1970.
    until: u64,
    is_stored: bool,
}

impl IdempotencyChunk {
    /// `marks` must be sorted by key.
    fn new(id: u32, marks: Vec<IdempotencyMark>, is_stored: bool) -> Self {
        let until = marks.iter().map(|mark| mark.until()).max().unwrap_or_default();
        Self { id, marks, until, is_stored }
    }

    /// The newest mark of a key. Chunks of version 1 may have several, of which the latest is the
    /// newest.
    fn find(&self, key: KeyHash) -> Option<IdempotencyMark> {
        let after = self.marks.partition_point(|mark| mark.key <= key);
        self.marks.get(after.checked_sub(1)?).copied().filter(|mark| mark.key == key)
    }
}

/// The marks, sorted by key. Insertion takes far less code than `sort` for these few hundred.
fn sorted(marks: &[IdempotencyMark]) -> Vec<IdempotencyMark> {
    let mut sorted = Vec::with_capacity(marks.len());
    for mark in marks {
        let at = sorted.partition_point(|other| other <= mark);
        sorted.insert(at, *mark);
    }
    sorted
}

/// A chunk, to be stored in the same transaction as the state's row. It replaces the row `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IdempotencyRow {
    /// The primary key.
    pub id: u32,
    /// When the last of its marks expires.
    pub until: UnixMicros,
    pub body: String,
}

/// A call that was admitted under an idempotency key, and whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallInFlight {
    nonce: u64,
    key: KeyHash,
    since: UnixMicros,
}

/// The call that was admitted earlier under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PriorCall {
    /// There is none, or it has expired.
    None,
    /// The call was a different request.
    Different,
    /// The call may still be in flight.
    InFlight { nonce: u64 },
    /// The call has ended. A repeat is free if both requests are known to be the same and fewer
    /// than [`FREE_REPEATS`] repeats were free.
    Complete { is_free: bool },
}

/// The idempotency keys of the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdempotencyKeys {
    /// Oldest first.
    tail: Vec<IdempotencyMark>,
    tail_text: String,
    /// Oldest first.
    chunks: Vec<IdempotencyChunk>,
    next_id: u32,
    /// Oldest first.
    in_flight: Vec<CallInFlight>,
    /// Rows to be deleted.
    expired: Vec<u32>,
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
        let flight = self.in_flight.iter().rev().find(|flight| flight.key == key);
        match flight.filter(|flight| now.since(flight.since) < MAX_FLIGHT) {
            Some(flight) => PriorCall::InFlight { nonce: flight.nonce },
            None => PriorCall::Complete { is_free: are_known && mark.repeats < FREE_REPEATS },
        }
    }

    /// Records the first admitted call under this key.
    pub(crate) fn begin(&mut self, key: KeyHash, request: RequestHash, nonce: u64, now: UnixMicros) {
        let second = u32::try_from(ceil_seconds(now.as_micros())).unwrap_or(u32::MAX);
        self.put(IdempotencyMark { key, second, request, repeats: 0 });
        let expired = self.in_flight.iter().take_while(|flight| now.since(flight.since) >= MAX_FLIGHT).count();
        let expired = expired.max((self.in_flight.len() + 1).saturating_sub(MAX_IN_FLIGHT));
        self.in_flight.drain(..expired);
        self.in_flight.push(CallInFlight { nonce, key, since: UnixMicros::from_millis(now.as_millis()) });
    }

    /// Records an admitted repeat, free or charged. If the request of the first call is unknown, the
    /// request of the first charged repeat takes its place.
    pub(crate) fn repeat(&mut self, key: KeyHash, request: RequestHash, is_free: bool) {
        let Some(mark) = self.mark(key) else { return };
        if is_free {
            self.put(IdempotencyMark { repeats: mark.repeats.saturating_add(1), ..mark });
        } else if request.is_known() && !mark.request.is_known() {
            self.put(IdempotencyMark { request, ..mark });
        }
    }

    /// Replaces the key's mark in the tail, or appends this one.
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

    /// Records that a call has ended. Returns whether it was in flight.
    pub(crate) fn complete(&mut self, nonce: u64) -> bool {
        let before = self.in_flight.len();
        self.in_flight.retain(|flight| flight.nonce != nonce);
        self.in_flight.len() < before
    }

    pub(crate) fn is_in_flight(&self, nonce: u64) -> bool {
        self.in_flight.iter().any(|flight| flight.nonce == nonce)
    }

    /// Drops expired chunks, and the oldest beyond [`MAX_CHUNKS`]. Returns whether any was dropped.
    pub(crate) fn expire(&mut self, now: UnixMicros) -> bool {
        let second = now.as_seconds();
        let expired = self.chunks.iter().take_while(|chunk| chunk.until <= second).count();
        let expired = expired.max(self.chunks.len().saturating_sub(MAX_CHUNKS));
        self.expired.extend(self.chunks.drain(..expired).map(|chunk| chunk.id));
        expired > 0
    }

    /// When the next chunk expires.
    pub(crate) fn next_expiry(&self) -> Option<UnixMicros> {
        self.chunks.first().map(|chunk| UnixMicros::from_millis(chunk.until.saturating_mul(1000)))
    }

    /// Moves times later than `now` to `now`, after the clock stepped back.
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
        for flight in &mut self.in_flight {
            flight.since = flight.since.min(UnixMicros::from_millis(now.as_millis()));
        }
    }

    /// Chunks that are new or changed since the last commit.
    pub(crate) fn rows(&self) -> Vec<IdempotencyRow> {
        let unstored = self.chunks.iter().filter(|chunk| !chunk.is_stored);
        let row = |chunk: &IdempotencyChunk| IdempotencyRow {
            id: chunk.id,
            until: UnixMicros::from_millis(chunk.until.saturating_mul(1000)),
            body: [FORM_GROUP, &to_text(&chunk.marks)].concat(),
        };
        unstored.map(row).collect()
    }

    /// Ids of rows to be deleted.
    pub(crate) fn expired(&self) -> &[u32] {
        &self.expired
    }

    /// Records that [`rows`](Self::rows) are stored and [`expired`](Self::expired) ones deleted.
    pub(crate) fn committed(&mut self) {
        self.expired.clear();
        self.chunks.iter_mut().for_each(|chunk| chunk.is_stored = true);
    }

    /// The stored form without the chunks. A first record holds the tail, the number of the next
    /// chunk and [`FORM`]. Each call in flight adds a record: nonce, hash of the key, and
    /// milliseconds since 1970. `None` if no key was ever used.
    pub(crate) fn to_text(&self) -> Option<String> {
        if self.tail.is_empty() && self.in_flight.is_empty() && self.next_id == 0 {
            return None;
        }
        let mut out = String::with_capacity(self.tail_text.len() + 64);
        push_text(&mut out, &self.tail_text);
        push_number(&mut out, u64::from(self.next_id));
        push_number(&mut out, FORM);
        record::end(&mut out);
        for CallInFlight { nonce, key, since } in &self.in_flight {
            push_number(&mut out, *nonce);
            push_number(&mut out, key.0);
            push_number(&mut out, since.as_millis());
            record::end(&mut out);
        }
        Some(out)
    }

    /// Reads the stored form. `None` if it is malformed.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut records = records(text);
        let mut head = records.next()?;
        let (tail, next_id) = (head.text()?, head.number()?.try_into().ok()?);
        let is_version_1 = match head.raw() {
            None => true,
            Some(form) if form.parse() == Ok(FORM) => false,
            Some(_) => return None,
        };
        let tail = from_text(&tail, is_version_1)?;
        let mut keys = Self { tail_text: to_text(&tail), tail, next_id, ..Self::default() };
        for mut record in records {
            let (nonce, key) = (record.number()?, KeyHash(record.number()?));
            keys.in_flight.push(CallInFlight { nonce, key, since: UnixMicros::from_millis(record.number()?) });
        }
        Some(keys)
    }

    /// Reads a chunk back from its row. Returns `false` if it is malformed.
    ///
    /// A chunk whose number the state's row has not assigned belongs to a commit that failed: none
    /// of its calls was admitted, and it is deleted.
    pub(crate) fn load(&mut self, id: u32, body: &str) -> bool {
        if id >= self.next_id {
            self.expired.push(id);
            return true;
        }
        let (marks, is_version_1) = body.strip_prefix(FORM_GROUP).map_or((body, true), |marks| (marks, false));
        let Some(marks) = from_text(marks, is_version_1) else { return false };
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

    /// Deployed objects still hold these.
    #[test]
    fn marks_of_version_1_are_read() {
        let text = "AQIDBAUGBwhq__s-__________8AAAAA";
        let marks = MARKS.map(|mark| IdempotencyMark { request: RequestHash::UNKNOWN, repeats: 0, ..mark });
        assert_eq!(from_text(text, true).unwrap(), marks);
        for wrong in ["AQ", "AQIDBAUGBwhrAA", "AQIDBAUGBwhrAA!!"] {
            assert_eq!(from_text(wrong, true), None, "{wrong}");
        }
    }

    /// Version 1 reads each group as a mark: the second group of a mark looks like one that
    /// expired in 1970.
    #[test]
    fn version_1_reads_the_current_form() {
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
