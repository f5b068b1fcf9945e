//! Idempotency keys: which calls were admitted under one, so that a repeat is recognised.
//!
//! A mark is 16 bytes in memory and 16 characters in storage. New marks go to a tail, which is part of every row; a full tail
//! becomes a chunk, a row of its own that is written once and deleted when all in it is over. So a call costs two rows for each
//! [`CHUNK`] more than it does without a key.

use sha2::{Digest, Sha256};

use crate::encoding::{base64, unbase64};
use crate::meter::text::{self, push_number, push_text, records};
use crate::time::{HOUR, MINUTE, SECOND, UnixMicros, ceil_seconds};

/// For how long a call's idempotency key is remembered, in seconds: 24 hours.
pub const REPLAY_SECONDS: u64 = 24 * HOUR / SECOND;
/// For how long a call whose end is not known is taken to be in flight, in microseconds: 5 minutes.
pub const MAX_FLIGHT: u64 = 5 * MINUTE;
/// Calls that are remembered of one key at least; beyond that the oldest are forgotten, and their repeats are charged.
pub const MAX_REPLAYS: usize = MAX_CHUNKS * CHUNK;
/// Calls in flight of one key at most; beyond that the oldest count as complete.
pub const MAX_IN_FLIGHT: usize = 1024;

const CHUNK: usize = 512;
const MAX_CHUNKS: usize = 128;
/// Bytes of a mark, and characters.
const MARK: usize = 12;
const MARK_TEXT: usize = 16;

/// What is remembered of an idempotency key.
fn hash(key: &str) -> u64 {
    let hash = Sha256::new_with_prefix(b"tollgate idempotency v1\0").chain_update(key.as_bytes()).finalize();
    hash.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

/// An idempotency key by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        Self(hash(key))
    }
}

/// A call that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    key: KeyHash,
    /// When, in seconds since 1970, rounded up: remembered a little longer, never shorter. Good until the year 2106.
    second: u32,
}

impl Mark {
    fn bytes(self) -> [u8; MARK] {
        let mut bytes = [0; MARK];
        let (key, second) = bytes.split_at_mut(8);
        key.copy_from_slice(&self.key.0.to_be_bytes());
        second.copy_from_slice(&self.second.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (key, second) = bytes.split_first_chunk()?;
        let second = u32::from_be_bytes(*second.first_chunk()?);
        Some(Self { key: KeyHash(u64::from_be_bytes(*key)), second })
    }

    fn until(self) -> u64 {
        u64::from(self.second).saturating_add(REPLAY_SECONDS)
    }
}

fn to_text(marks: &[Mark]) -> String {
    let mut text = String::with_capacity(marks.len() * MARK_TEXT);
    for mark in marks {
        text.push_str(&base64(&mark.bytes()));
    }
    text
}

fn from_text(text: &str) -> Option<Vec<Mark>> {
    let bytes = unbase64(text)?;
    bytes.chunks(MARK).map(Mark::read).collect()
}

/// Marks that have a row of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    id: u32,
    /// In order of their keys.
    marks: Vec<Mark>,
    /// The second in which the last of them is over.
    until: u64,
    is_stored: bool,
}

impl Chunk {
    /// `marks` are in order of their keys.
    fn new(id: u32, marks: Vec<Mark>, is_stored: bool) -> Self {
        let until = marks.iter().map(|mark| mark.until()).max().unwrap_or_default();
        Self { id, marks, until, is_stored }
    }

    /// The newest mark of a key.
    fn find(&self, key: KeyHash) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.key <= key);
        self.marks.get(after.checked_sub(1)?).copied().filter(|mark| mark.key == key)
    }
}

/// Marks in order of their keys. They are a few hundred, and this is far less code than a sort.
fn sorted(marks: &[Mark]) -> Vec<Mark> {
    let mut sorted = Vec::with_capacity(marks.len());
    for mark in marks {
        let at = sorted.partition_point(|other| other <= mark);
        sorted.insert(at, *mark);
    }
    sorted
}

/// A row of its own, to be stored with the state's row: `body` replaces whatever `id` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRow {
    /// The primary key.
    pub id: u32,
    /// When nothing in it matters any more.
    pub until: UnixMicros,
    /// Text.
    pub body: String,
}

/// A call that was admitted under an idempotency key, and of which no end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flight {
    nonce: u64,
    key: KeyHash,
    since: UnixMicros,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing, or nothing any more.
    Never,
    /// The call of this nonce was admitted under it, and may still be in flight.
    InFlight {
        nonce: u64,
    },
    Complete,
}

/// The calls of the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Replays {
    /// Oldest first.
    tail: Vec<Mark>,
    tail_text: String,
    /// Oldest first.
    chunks: Vec<Chunk>,
    next_id: u32,
    /// Oldest first.
    flights: Vec<Flight>,
    /// Rows to be deleted.
    over: Vec<u32>,
}

impl Replays {
    pub(crate) fn seen(&self, key: KeyHash, now: UnixMicros) -> Seen {
        let mark = self.tail.iter().rev().find(|mark| mark.key == key).copied();
        let mark = mark.or_else(|| self.chunks.iter().rev().find_map(|chunk| chunk.find(key)));
        if mark.is_none_or(|mark| mark.until() <= now.as_seconds()) {
            return Seen::Never;
        }
        let flight = self.flights.iter().rev().find(|flight| flight.key == key);
        match flight.filter(|flight| now.since(flight.since) < MAX_FLIGHT) {
            Some(flight) => Seen::InFlight { nonce: flight.nonce },
            None => Seen::Complete,
        }
    }

    /// Notes that the first call under this key was admitted.
    pub(crate) fn begin(&mut self, key: KeyHash, nonce: u64, now: UnixMicros) {
        let mark = Mark { key, second: u32::try_from(ceil_seconds(now.as_micros())).unwrap_or(u32::MAX) };
        self.tail.push(mark);
        self.tail_text.push_str(&base64(&mark.bytes()));
        if self.tail.len() >= CHUNK {
            self.chunks.push(Chunk::new(self.next_id, sorted(&self.tail), false));
            self.tail.clear();
            self.tail_text.clear();
            self.next_id = self.next_id.saturating_add(1);
        }
        let over = self.flights.iter().take_while(|flight| now.since(flight.since) >= MAX_FLIGHT).count();
        let over = over.max((self.flights.len() + 1).saturating_sub(MAX_IN_FLIGHT));
        self.flights.drain(..over);
        self.flights.push(Flight { nonce, key, since: UnixMicros::from_millis(now.as_millis()) });
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
        let rebase = |marks: &mut [Mark]| {
            let ahead = marks.iter_mut().filter(|mark| mark.second > latest);
            ahead.map(|mark| mark.second = latest).count() > 0
        };
        if rebase(&mut self.tail) {
            self.tail_text = to_text(&self.tail);
        }
        for chunk in &mut self.chunks {
            if rebase(&mut chunk.marks) {
                *chunk = Chunk::new(chunk.id, sorted(&chunk.marks), false);
            }
        }
        for flight in &mut self.flights {
            flight.since = flight.since.min(UnixMicros::from_millis(now.as_millis()));
        }
    }

    /// The chunks that are not stored as they are.
    pub(crate) fn rows(&self) -> Vec<ReplayRow> {
        let unstored = self.chunks.iter().filter(|chunk| !chunk.is_stored);
        let row = |chunk: &Chunk| ReplayRow {
            id: chunk.id,
            until: UnixMicros::from_millis(chunk.until.saturating_mul(1000)),
            body: to_text(&chunk.marks),
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

    /// The stored form, but for the chunks, if there is anything to store: the tail and the number of the next chunk; then of
    /// each call in flight its nonce, the hash of its key, and milliseconds since 1970.
    pub(crate) fn to_text(&self) -> Option<String> {
        if self.tail.is_empty() && self.flights.is_empty() && self.next_id == 0 {
            return None;
        }
        let mut out = String::with_capacity(self.tail_text.len() + 64);
        push_text(&mut out, &self.tail_text);
        push_number(&mut out, u64::from(self.next_id));
        text::end(&mut out);
        for Flight { nonce, key, since } in &self.flights {
            push_number(&mut out, *nonce);
            push_number(&mut out, key.0);
            push_number(&mut out, since.as_millis());
            text::end(&mut out);
        }
        Some(out)
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut records = records(text);
        let mut head = records.next()?;
        let tail_text = head.text()?;
        let mut replays = Self { tail: from_text(&tail_text)?, tail_text, ..Self::default() };
        replays.next_id = head.number()?.try_into().ok()?;
        for mut record in records {
            let (nonce, key) = (record.number()?, KeyHash(record.number()?));
            replays.flights.push(Flight { nonce, key, since: UnixMicros::from_millis(record.number()?) });
        }
        Some(replays)
    }

    /// Takes back a chunk of a row; `false` if it is not one.
    pub(crate) fn load(&mut self, id: u32, body: &str) -> bool {
        let Some(marks) = from_text(body) else { return false };
        let at = self.chunks.partition_point(|chunk| chunk.id < id);
        self.chunks.insert(at, Chunk::new(id, marks, true));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_frozen() {
        assert_eq!(KeyHash::of("order-7"), KeyHash(868_112_185_802_575_781));
        let marks = [
            Mark { key: KeyHash(0x0102_0304_0506_0708), second: 1_795_160_894 },
            Mark { key: KeyHash(u64::MAX), second: 0 },
        ];
        let text = to_text(&marks);
        assert_eq!(text, "AQIDBAUGBwhq__s-__________8AAAAA");
        assert_eq!(from_text(&text).unwrap(), marks);
        for wrong in ["AQ", "AQIDBAUGBwhrAA", "AQIDBAUGBwhrAA!!"] {
            assert_eq!(from_text(wrong), None, "{wrong}");
        }
        assert_eq!(size_of::<Mark>(), 16);
    }

    #[test]
    fn a_chunk_finds_the_newest_mark_of_a_key() {
        let mark = |key, second| Mark { key: KeyHash(key), second };
        let chunk = Chunk::new(1, sorted(&[mark(5, 9), mark(3, 1), mark(5, 7), mark(9, 2)]), true);
        let find = |key| chunk.find(KeyHash(key)).map(|mark| mark.second);
        assert_eq!([0, 3, 4, 5, 9, 10].map(find), [None, Some(1), None, Some(9), Some(2), None]);
        assert_eq!(chunk.until, 9 + REPLAY_SECONDS);
    }
}
