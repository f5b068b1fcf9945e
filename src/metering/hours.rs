//! Usage by hour and class, and what D1 has of it.
//!
//! An hour is kept until D1 has all of it and a later one of its month is known. D1 keeps the
//! larger of two totals, so an hour that was dropped must never be opened again, or its new counts
//! would vanish behind the old ones: what a clock that stepped back counts goes to the next hour of
//! its month that is kept. The last hour of a month stays for as long as the month itself is kept.

use crate::encoding::record::{self, push_number, push_text, records};
use crate::metering::cut;
use crate::time::{HOUR, Month, UnixMicros};

/// Classes of one hour that are counted by name; all others together are `other`.
pub const MAX_CLASSES: usize = 32;
/// Entries of all hours together from which on no further class is counted by name. So many are
/// there only if D1 has been out of reach for half a day or more.
const MAX_ENTRIES: usize = 512;

/// The class of calls that have none of their own.
pub(crate) const OTHER: &str = "other";
/// The class of denials that were given without asking the object.
pub(crate) const EDGE: &str = "edge";
/// The class of calls that were let through without asking the object.
pub(crate) const UNJUDGED: &str = "unjudged";

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls admitted.
    pub calls: u64,
    /// Calls denied.
    pub denied: u64,
    /// Requests charged.
    pub cost: u64,
}

impl Counts {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, more: Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.denied = self.denied.saturating_add(more.denied);
        self.cost = self.cost.saturating_add(more.cost);
    }

    /// The larger of each, as D1 merges them too.
    fn merge(&mut self, other: Self) {
        self.calls = self.calls.max(other.calls);
        self.denied = self.denied.max(other.denied);
        self.cost = self.cost.max(other.cost);
    }
}

/// What an hour holds of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourTotal {
    /// Hours since 1970.
    pub hour: u64,
    /// The class.
    pub class: String,
    /// Absolute counts of this epoch.
    pub counts: Counts,
}

impl HourTotal {
    /// When the hour begins.
    #[must_use]
    pub const fn start(&self) -> UnixMicros {
        start(self.hour)
    }
}

const fn start(hour: u64) -> UnixMicros {
    UnixMicros::from_micros(hour.saturating_mul(HOUR))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ClassCounts {
    name: String,
    counted: Counts,
    flushed: Counts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hour {
    /// Hours since 1970.
    number: u64,
    classes: Vec<ClassCounts>,
}

impl Hour {
    fn is_flushed(&self) -> bool {
        self.classes.iter().all(|class| class.counted == class.flushed)
    }
}

/// The hours that still matter, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hours {
    kept: Vec<Hour>,
}

impl Hours {
    /// Counts something of a class at `now`. `is_kept` says which months are.
    pub(crate) fn count(&mut self, now: UnixMicros, class: &str, counts: Counts, is_kept: impl Fn(Month) -> bool) {
        if counts.is_zero() {
            return;
        }
        let number = now.as_micros() / HOUR;
        if self.kept.last().is_none_or(|hour| hour.number != number) {
            self.open(number, is_kept);
        }
        let entries = self.kept.iter().map(|hour| hour.classes.len()).sum::<usize>();
        let at = self.place(number);
        let Some(Hour { classes, .. }) = self.kept.get_mut(at) else { return };
        let class = cut(class);
        let known = classes.iter().position(|known| known.name == class);
        let name = if known.is_some() || is_reserved(class) || has_room(classes, entries) { class } else { OTHER };
        let known = known.or_else(|| classes.iter().position(|known| known.name == name));
        if let Some(known) = known.and_then(|known| classes.get_mut(known)) {
            known.counted.add(counts);
        } else {
            classes.push(ClassCounts { name: name.to_owned(), counted: counts, flushed: Counts::default() });
        }
    }

    /// Where the counts of an hour go, once it is open.
    fn place(&self, number: u64) -> usize {
        self.kept.partition_point(|hour| hour.number < number)
    }

    /// Makes place for an hour, unless a later one of its month takes its counts.
    fn open(&mut self, number: u64, is_kept: impl Fn(Month) -> bool) {
        let at = self.place(number);
        let month = Month::of(start(number));
        if self.kept.get(at).is_none_or(|later| Month::of(start(later.number)) != month) {
            self.kept.insert(at, Hour { number, classes: Vec::new() });
            self.prune(is_kept);
        }
    }

    /// Drops what D1 has. What it has not is kept, however old.
    fn prune(&mut self, is_kept: impl Fn(Month) -> bool) {
        let mut later = None;
        let mut newest_first = std::mem::take(&mut self.kept);
        newest_first.reverse();
        newest_first.retain(|hour| {
            let month = Month::of(start(hour.number));
            let is_last = later.replace(month) != Some(month);
            !hour.is_flushed() || hour.classes.is_empty() || (is_last && is_kept(month))
        });
        newest_first.reverse();
        self.kept = newest_first;
    }

    /// What D1 does not have, oldest first.
    pub(crate) fn unflushed(&self) -> Vec<HourTotal> {
        self.totals(|class| class.counted != class.flushed)
    }

    /// All that is kept, oldest first.
    pub(crate) fn kept(&self) -> Vec<HourTotal> {
        self.totals(|_| true)
    }

    fn totals(&self, is_wanted: fn(&ClassCounts) -> bool) -> Vec<HourTotal> {
        let totals = self.kept.iter().flat_map(|hour| hour.classes.iter().map(|class| (hour.number, class)));
        totals
            .filter(|(_, class)| is_wanted(class))
            .map(|(hour, class)| HourTotal { hour, class: class.name.clone(), counts: class.counted })
            .collect()
    }

    /// Whether there is anything that D1 does not have.
    pub(crate) fn is_flushed(&self) -> bool {
        self.kept.iter().all(Hour::is_flushed)
    }

    /// Notes what D1 has. `is_kept` says which months are. True if that changed anything.
    pub(crate) fn mark_flushed(&mut self, total: &HourTotal, is_kept: impl Fn(Month) -> bool) -> bool {
        let hour = self.kept.iter_mut().find(|hour| hour.number == total.hour);
        let class = hour.and_then(|hour| hour.classes.iter_mut().find(|class| class.name == total.class));
        let Some(class) = class else { return false };
        let before = class.flushed;
        class.flushed.merge(total.counts);
        let is_news = class.flushed != before;
        if is_news {
            self.prune(is_kept);
        }
        is_news
    }

    /// The stored form, oldest first: hour, class, and calls, denied and cost as counted and as D1
    /// has them.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        for hour in &self.kept {
            for ClassCounts { name, counted, flushed } in &hour.classes {
                push_number(&mut out, hour.number);
                push_text(&mut out, name);
                for Counts { calls, denied, cost } in [counted, flushed] {
                    push_number(&mut out, *calls);
                    push_number(&mut out, *denied);
                    push_number(&mut out, *cost);
                }
                record::end(&mut out);
            }
        }
        out
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut hours = Self::default();
        for mut record in records(text) {
            let (number, name) = (record.number()?, record.text()?);
            let mut counts =
                || Some(Counts { calls: record.number()?, denied: record.number()?, cost: record.number()? });
            let class = ClassCounts { name, counted: counts()?, flushed: counts()? };
            match hours.kept.last_mut() {
                Some(hour) if hour.number == number => hour.classes.push(class),
                Some(hour) if hour.number > number => return None,
                _ => hours.kept.push(Hour { number, classes: vec![class] }),
            }
        }
        Some(hours)
    }
}

fn is_reserved(class: &str) -> bool {
    [OTHER, EDGE, UNJUDGED].contains(&class)
}

/// Whether one more class may be counted by its name, with so many entries in all hours.
fn has_room(classes: &[ClassCounts], entries: usize) -> bool {
    let named = classes.iter().filter(|class| !is_reserved(&class.name)).count();
    named < MAX_CLASSES && entries < MAX_ENTRIES
}
