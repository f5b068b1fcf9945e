//! Sliding limits: an exact log of the admissions of one rolling period.
//!
//! Times are rounded up to whole milliseconds. So an admission at `t` counts until at least
//! `t` + period, and less than a millisecond longer.

use std::collections::VecDeque;
use std::ops::Range;

use crate::limiter::policy::{MAX_QUOTA, MAX_SLIDING_QUOTA, Period, Unit};
use crate::time::UnixMicros;

/// The low bits of an entry hold its units, the others milliseconds since 1970.
const UNIT_BITS: u32 = 20;
const MAX_UNITS: u64 = (1 << UNIT_BITS) - 1;
/// The last millisecond that an entry can hold, in the year 2527.
pub(crate) const MAX_MILLIS: u64 = (1 << (u64::BITS - UNIT_BITS)) - 1;
/// Maximum number of entries. Dropping the oldest beyond it changes no decision: each entry has at
/// least one unit, so the newest ones alone exhaust the largest quota, and they expire last.
const MAX_ENTRIES: usize = 10_000;
/// Corrections of closed entries that a row holds at most.
const MAX_TAKEN: usize = 64;
const _: () = assert!(MAX_ENTRIES as u64 == MAX_SLIDING_QUOTA);

/// Units admitted in one millisecond, in 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEntry(u64);

impl LogEntry {
    fn new(millis: u64, units: u64) -> Self {
        Self(millis.min(MAX_MILLIS) << UNIT_BITS | units.min(MAX_UNITS))
    }

    pub(crate) const fn millis(self) -> u64 {
        self.0 >> UNIT_BITS
    }

    pub(crate) const fn units(self) -> u64 {
        self.0 & MAX_UNITS
    }
}

/// A run of entries that an older row holds, in `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogChunk {
    pub(crate) slot: u32,
    pub(crate) last_millis: u64,
}

/// A position in the log that is kept between searches, so that a search that moves it little is
/// cheap.
#[derive(Debug, Clone, Copy, Default)]
struct LogCursor {
    index: usize,
    /// Units of all entries before `index`.
    before: u64,
}

impl LogCursor {
    /// Moves to the first entry for which `is_before` is false. Its arguments are the entry and the
    /// units of all entries before it. It must be true for a prefix of the entries only.
    fn seek(&mut self, entries: &VecDeque<LogEntry>, is_before: impl Fn(LogEntry, u64) -> bool) {
        while let Some(&entry) = self.index.checked_sub(1).and_then(|index| entries.get(index)) {
            let before = self.before - entry.units();
            if is_before(entry, before) {
                break;
            }
            *self = Self { index: self.index - 1, before };
        }
        while let Some(&entry) = entries.get(self.index).filter(|entry| is_before(**entry, self.before)) {
            *self = Self { index: self.index + 1, before: self.before + entry.units() };
        }
    }

    /// Adjusts to the removal of the first `count` entries, with `units` in total.
    fn shift(&mut self, count: usize, units: u64) {
        *self = match self.index.checked_sub(count) {
            Some(index) => Self { index, before: self.before - units },
            None => Self::default(),
        };
    }
}

/// The log of one unit and period.
#[derive(Debug, Clone)]
pub(crate) struct SlidingLog {
    pub(crate) unit: Unit,
    pub(crate) period: Period,
    /// The period in microseconds.
    span: u64,
    /// Oldest first.
    entries: VecDeque<LogEntry>,
    /// Units of all entries.
    total: u64,
    /// Number of the newest entries, which belong to the next row.
    open: usize,
    /// The rows of the older entries, oldest first.
    closed: VecDeque<LogChunk>,
    /// The number of the first row of this log. Entries in older rows do not belong to it.
    pub(crate) since: u64,
    /// When the log may be dropped. Set while no policy uses it.
    pub(crate) until: Option<UnixMicros>,
    /// Milliseconds and units of what was taken out of entries that older rows hold.
    pub(crate) taken: Vec<(u64, u64)>,
    /// The first entry that has not expired.
    live: LogCursor,
    /// The entry whose expiry made room in the last search.
    release: LogCursor,
}

impl SlidingLog {
    pub(crate) fn new(unit: Unit, period: Period, span: u64, since: u64) -> Self {
        Self {
            unit,
            period,
            span,
            entries: VecDeque::new(),
            total: 0,
            open: 0,
            closed: VecDeque::new(),
            since,
            until: None,
            taken: Vec::new(),
            live: LogCursor::default(),
            release: LogCursor::default(),
        }
    }

    /// The expiry of an entry of `millis`.
    pub(crate) fn expiry(&self, millis: u64) -> UnixMicros {
        UnixMicros::from_millis(millis).saturating_add(self.span)
    }

    /// Appends an admission of `units` at `at`.
    pub(crate) fn push(&mut self, at: UnixMicros, units: u64) {
        let newest = self.entries.back().map_or(0, |entry| entry.millis());
        let millis = at.as_millis_ceil().clamp(newest, MAX_MILLIS);
        let mut left = units.min(MAX_QUOTA);
        if let Some(back) = self.entries.back_mut().filter(|back| self.open > 0 && back.millis() == millis) {
            let more = left.min(MAX_UNITS - back.units());
            *back = LogEntry::new(millis, back.units() + more);
            self.total += more;
            left -= more;
            // A cursor past this entry has summed its old units.
            self.live = LogCursor::default();
            self.release = LogCursor::default();
        }
        while left > 0 {
            let units = left.min(MAX_UNITS);
            self.entries.push_back(LogEntry::new(millis, units));
            self.total += units;
            self.open += 1;
            left -= units;
        }
        self.drop_front(self.entries.len().saturating_sub(MAX_ENTRIES));
    }

    /// Drops entries that have expired at `now`. The judged time must never be before `now` again.
    pub(crate) fn forget(&mut self, now: UnixMicros) {
        self.seek_live(now);
        self.drop_front(self.live.index);
        while self.closed.front().is_some_and(|chunk| self.expiry(chunk.last_millis) <= now) {
            self.closed.pop_front();
        }
        if !self.taken.is_empty() {
            let span = self.span;
            self.taken.retain(|(millis, _)| UnixMicros::from_millis(*millis).saturating_add(span) > now);
        }
    }

    /// Takes out up to `units` of what was admitted at `at`. If older rows cannot hold any more of
    /// what is taken out of them, all entries go into the next row, `next_row`.
    pub(crate) fn take(&mut self, at: UnixMicros, units: u64, next_row: u64) {
        let millis = at.as_millis_ceil();
        let closed = self.entries.len() - self.open;
        let of_closed = self.take_from(millis, 0..closed, units);
        if of_closed > 0 {
            self.taken.push((millis, of_closed));
        }
        let closed = self.entries.len() - self.open;
        self.take_from(millis, closed..self.entries.len(), units - of_closed);
        if self.taken.len() > MAX_TAKEN {
            self.taken.clear();
            self.closed.clear();
            self.open = self.entries.len();
            self.since = next_row;
        }
    }

    /// Takes out of closed entries what a row says was taken. Call it before any entry is open.
    pub(crate) fn take_again(&mut self, taken: &[(u64, u64)]) {
        for (millis, units) in taken {
            self.take_from(*millis, 0..self.entries.len(), *units);
        }
        self.taken = taken.to_vec();
    }

    /// Takes up to `units` of this millisecond out of a range of entries; says how many.
    fn take_from(&mut self, millis: u64, range: Range<usize>, units: u64) -> u64 {
        let first = self.entries.partition_point(|entry| entry.millis() < millis).max(range.start);
        let (mut index, mut end, mut left) = (first, range.end, units);
        while let Some(entry) = self.entries.get_mut(index).filter(|entry| index < end && entry.millis() == millis) {
            let taken = left.min(entry.units());
            *entry = LogEntry::new(millis, entry.units() - taken);
            left -= taken;
            if entry.units() > 0 {
                index += 1;
                continue;
            }
            self.entries.remove(index);
            self.open -= usize::from(index >= self.entries.len() + 1 - self.open);
            end -= 1;
        }
        if left < units {
            self.total -= units - left;
            self.live = LogCursor::default();
            self.release = LogCursor::default();
        }
        units - left
    }

    /// The units that count at `now`.
    pub(crate) fn used(&mut self, now: UnixMicros) -> u64 {
        self.seek_live(now);
        self.total - self.live.before
    }

    /// The first time, not before `from`, at which `units` more fit into `quota`.
    pub(crate) fn first_fit(&mut self, from: UnixMicros, units: u64, quota: u64) -> UnixMicros {
        let surplus = self.total.saturating_add(units).saturating_sub(quota);
        if surplus == 0 {
            return from;
        }
        self.release.seek(&self.entries, |entry, before| before + entry.units() < surplus);
        self.entries.get(self.release.index).map_or(from, |entry| self.expiry(entry.millis()).max(from))
    }

    /// The first time after `now` at which more units fit into `quota` than at `now`. `now` if the
    /// log is empty.
    pub(crate) fn first_release(&mut self, now: UnixMicros, quota: u64) -> UnixMicros {
        if self.used(now) > quota {
            return self.first_fit(now, 1, quota);
        }
        // `first_fit` would move the `release` cursor away from the position that calls use.
        self.entries.get(self.live.index).map_or(now, |entry| self.expiry(entry.millis()))
    }

    /// The time at which the newest entry expires.
    pub(crate) fn empty_at(&self) -> UnixMicros {
        self.entries.back().map_or(UnixMicros::default(), |entry| self.expiry(entry.millis()))
    }

    /// Moves times later than `now` to `now`, after the clock stepped back. All entries go into the
    /// next row, `since`.
    pub(crate) fn rebase(&mut self, now: UnixMicros, since: u64) {
        let entries = std::mem::take(&mut self.entries);
        *self = Self::new(self.unit, self.period, self.span, since);
        for entry in entries {
            self.push(UnixMicros::from_millis(entry.millis()).min(now), entry.units());
        }
    }

    /// The entries for the next row.
    pub(crate) fn open(&self) -> impl ExactSizeIterator<Item = LogEntry> + '_ {
        self.entries.range(self.entries.len() - self.open..).copied()
    }

    /// Closes the open entries: from now on they belong to the row in `slot`.
    pub(crate) fn close(&mut self, slot: u32) {
        if let Some(last) = self.entries.back().filter(|_| self.open > 0) {
            self.closed.push_back(LogChunk { slot, last_millis: last.millis() });
            self.open = 0;
        }
    }

    /// The slots of the rows that hold chunks.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.closed.iter().map(|chunk| chunk.slot)
    }

    fn seek_live(&mut self, now: UnixMicros) {
        let span = self.span;
        let expired = |entry: LogEntry| UnixMicros::from_millis(entry.millis()).saturating_add(span) <= now;
        self.live.seek(&self.entries, |entry, _| expired(entry));
    }

    fn drop_front(&mut self, count: usize) {
        let units = self.entries.drain(..count).map(LogEntry::units).sum();
        self.total -= units;
        self.open = self.open.min(self.entries.len());
        self.live.shift(count, units);
        self.release.shift(count, units);
    }
}
