//! Usage by hour and class, and the part of it that D1 has.
//!
//! An hour is dropped once D1 has all of it and a later hour of its month exists. D1 keeps the
//! larger of two totals. So a dropped hour must never be reopened, or D1 would ignore its new
//! counts. After the clock stepped back, counts of a dropped hour go to the next kept hour of its
//! month. The last hour of a month is kept for as long as the month itself.

use crate::encoding::record::{self, push_number, push_text, records};
use crate::metering::cut;
use crate::time::{HOUR, Month, UnixMicros};

/// Maximum number of classes of one hour that are counted by name. Further ones count as `other`.
pub const MAX_CLASSES: usize = 32;
/// Number of entries in all hours from which on no further class is counted by name. It is reached
/// only if D1 was unavailable for half a day or more.
const MAX_ENTRIES: usize = 512;

/// The class of calls without one of their own.
pub(crate) const OTHER: &str = "other";
/// The class of denials that an isolate served from its cache.
pub(crate) const EDGE: &str = "edge";
/// The class of calls that an isolate let through without a decision.
pub(crate) const UNJUDGED: &str = "unjudged";

/// The counts of one hour and class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    /// Admitted calls.
    pub calls: u64,
    pub denied: u64,
    /// Charged requests.
    pub cost: u64,
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.denied = self.denied.saturating_add(more.denied);
        self.cost = self.cost.saturating_add(more.cost);
    }

    /// Takes the larger of each count, as D1 does.
    fn merge(&mut self, other: Self) {
        self.calls = self.calls.max(other.calls);
        self.denied = self.denied.max(other.denied);
        self.cost = self.cost.max(other.cost);
    }
}

/// The total of one hour and class.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HourTotal {
    /// Hours since 1970.
    pub hour: u64,
    pub class: String,
    /// Absolute counts of this epoch.
    pub counts: Counts,
}

impl HourTotal {
    /// The beginning of the hour.
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

/// The kept hours, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hours {
    kept: Vec<Hour>,
}

impl Hours {
    /// Adds the counts of a class at `now`. `is_kept` returns whether a month is kept.
    pub(crate) fn count(&mut self, now: UnixMicros, class: &str, counts: Counts, is_kept: impl Fn(Month) -> bool) {
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

    /// The index at which the counts of an hour go, once it is open.
    fn place(&self, number: u64) -> usize {
        self.kept.partition_point(|hour| hour.number < number)
    }

    /// Opens an hour, unless a later one of its month is kept and takes its counts.
    fn open(&mut self, number: u64, is_kept: impl Fn(Month) -> bool) {
        let at = self.place(number);
        let month = Month::of(start(number));
        if self.kept.get(at).is_none_or(|later| Month::of(start(later.number)) != month) {
            self.kept.insert(at, Hour { number, classes: Vec::new() });
            self.prune(is_kept);
        }
    }

    /// Drops flushed hours, except the last of each kept month.
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

    /// Totals that D1 does not have, oldest first.
    pub(crate) fn unflushed(&self) -> Vec<HourTotal> {
        self.totals(|class| class.counted != class.flushed)
    }

    /// All totals, oldest first.
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

    /// Whether D1 has all totals.
    pub(crate) fn is_flushed(&self) -> bool {
        self.kept.iter().all(Hour::is_flushed)
    }

    /// Records a total that D1 has. `is_kept` returns whether a month is kept. Returns whether
    /// anything changed.
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

    /// The stored form, oldest first: hour, class, then calls, denied and cost as counted, then the
    /// same as D1 has them.
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

    /// Reads the stored form. `None` if it is malformed.
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

/// Whether an hour may count one more class by name. `entries` is the number in all hours.
fn has_room(classes: &[ClassCounts], entries: usize) -> bool {
    let named = classes.iter().filter(|class| !is_reserved(&class.name)).count();
    named < MAX_CLASSES && entries < MAX_ENTRIES
}
