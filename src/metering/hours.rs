//! Usage by hour and class, and the part of it that D1 has.
//!
//! An hour is dropped once D1 has all of it and a later hour of its month exists. D1 keeps the
//! larger of two totals. So a dropped hour must never be reopened, or D1 would ignore its new
//! counts. After the clock stepped back, counts of a dropped hour go to the next kept hour of its
//! month. The last hour of a month is kept for as long as the month itself.

use crate::encoding::record::{self, Record, push_number, push_text, records};
use crate::limiter::cost::Cost;
use crate::metering::charges::{Charges, sum};
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
/// The class of what is used without a call that passes the gate.
pub const RESERVATIONS: &str = "reservations";

/// The counts of one hour and class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    /// Admitted calls.
    pub calls: u64,
    pub denied: u64,
    /// Requests that remain charged.
    pub cost: u64,
    /// Tokens that remain charged.
    pub tokens: u64,
    /// What was ever charged. Only grows.
    pub charged: Cost,
    /// What was returned of it. Only grows.
    pub returned: Cost,
}

impl Default for Counts {
    fn default() -> Self {
        HourCounts::default().total()
    }
}

/// Counts of one epoch, hour and class, which only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HourCounts {
    pub(crate) calls: u64,
    pub(crate) denied: u64,
    pub(crate) charges: Charges,
}

impl HourCounts {
    const fn of(counts: &Counts) -> Self {
        let &Counts { calls, denied, charged, returned, .. } = counts;
        Self { calls, denied, charges: Charges { charged, returned } }
    }

    const fn total(self) -> Counts {
        let Self { calls, denied, charges } = self;
        let (Charges { charged, returned }, Cost { requests, tokens }) = (charges, charges.net());
        Counts { calls, denied, cost: requests, tokens, charged, returned }
    }

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, more: Self) {
        self.calls = sum(self.calls, more.calls);
        self.denied = sum(self.denied, more.denied);
        self.charges.add(more.charges);
    }

    /// Takes the larger of each count, as D1 does.
    fn merge(&mut self, other: Self) {
        self.calls = self.calls.max(other.calls);
        self.denied = self.denied.max(other.denied);
        self.charges.merge(other.charges);
    }

    /// Whether there are more numbers than the first form of a record has.
    const fn has_more(&self) -> bool {
        let Charges { charged, returned } = self.charges;
        charged.tokens > 0 || returned.requests > 0 || returned.tokens > 0
    }

    fn push_first(&self, out: &mut String) {
        push_number(out, self.calls);
        push_number(out, self.denied);
        push_number(out, self.charges.charged.requests);
    }

    fn push_more(&self, out: &mut String) {
        push_number(out, self.charges.charged.tokens);
        push_number(out, self.charges.returned.requests);
        push_number(out, self.charges.returned.tokens);
    }

    fn read_first(record: &mut Record<'_>) -> Option<Self> {
        let (calls, denied) = (record.number()?, record.number()?);
        Some(Self { calls, denied, charges: Charges::of(Cost { requests: record.number()?, tokens: 0 }) })
    }

    /// What `push_more` wrote, if it did.
    fn read_more(&mut self, record: &mut Record<'_>) {
        let mut number = || record.number().unwrap_or_default();
        self.charges.charged.tokens = number();
        self.charges.returned = Cost { requests: number(), tokens: number() };
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
        start_of_hour(self.hour)
    }
}

pub(crate) const fn start_of_hour(hour: u64) -> UnixMicros {
    UnixMicros::from_micros(hour.saturating_mul(HOUR))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ClassCounts {
    name: String,
    counted: HourCounts,
    flushed: HourCounts,
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
    /// Hours whose counts may change, however old they are: nothing that takes them is dropped.
    pinned: Vec<u64>,
}

impl Hours {
    /// Adds the counts of a class at `now`. `is_kept` returns whether a month is kept. Returns the
    /// class that took them.
    pub(crate) fn count<'a>(
        &mut self,
        now: UnixMicros,
        class: &'a str,
        counts: HourCounts,
        is_kept: impl Fn(Month) -> bool,
    ) -> &'a str {
        let class = cut(class);
        if counts.is_zero() {
            return class;
        }
        let number = now.as_micros() / HOUR;
        if self.kept.last().is_none_or(|hour| hour.number != number || hour.classes.is_empty()) {
            self.open(number);
            self.prune(Some(number), is_kept);
        }
        let entries = self.kept.iter().map(|hour| hour.classes.len()).sum::<usize>();
        let at = self.place(number);
        let Some(Hour { classes, .. }) = self.kept.get_mut(at) else { return class };
        let known = classes.iter().position(|known| known.name == class);
        let name = if known.is_some() || is_reserved(class) || has_room(classes, entries) { class } else { OTHER };
        let known = known.or_else(|| classes.iter().position(|known| known.name == name));
        if let Some(known) = known.and_then(|known| classes.get_mut(known)) {
            known.counted.add(counts);
        } else {
            let mut counted = HourCounts::default();
            counted.add(counts);
            classes.push(ClassCounts { name: name.to_owned(), counted, flushed: HourCounts::default() });
        }
        name
    }

    /// The index at which the counts of an hour go, once it is open.
    fn place(&self, number: u64) -> usize {
        self.kept.partition_point(|hour| hour.number < number)
    }

    /// Opens an hour, unless a later one of its month is kept and takes its counts.
    fn open(&mut self, number: u64) {
        let at = self.place(number);
        let month = Month::of(start_of_hour(number));
        if self.kept.get(at).is_none_or(|later| Month::of(start_of_hour(later.number)) != month) {
            self.kept.insert(at, Hour { number, classes: Vec::new() });
        }
    }

    /// Opens the hour that will take what is counted for `now`, and says which it is. An hour
    /// without counts is in no row, so nothing is dropped for its sake.
    pub(crate) fn open_for(&mut self, now: UnixMicros) -> u64 {
        let number = now.as_micros() / HOUR;
        self.open(number);
        self.kept.get(self.place(number)).map_or(number, |hour| hour.number)
    }

    /// Keeps these hours, and no others, until they are pinned no more. Each must be one that
    /// [`open_for`](Self::open_for) gave and that has been pinned since.
    pub(crate) fn pin(&mut self, pinned: Vec<u64>) {
        for number in &pinned {
            let at = self.place(*number);
            if self.kept.get(at).is_none_or(|hour| hour.number != *number) {
                self.kept.insert(at, Hour { number: *number, classes: Vec::new() });
            }
        }
        self.pinned = pinned;
    }

    pub(crate) fn is_pinned(&self, month: Month) -> bool {
        self.pinned.iter().any(|number| Month::of(start_of_hour(*number)) == month)
    }

    /// Drops flushed hours, except the last of each kept month, pinned ones and the one that takes
    /// the counts of `opened`.
    fn prune(&mut self, opened: Option<u64>, is_kept: impl Fn(Month) -> bool) {
        let opened = opened.and_then(|number| self.kept.get(self.place(number))).map(|hour| hour.number);
        let pinned = &self.pinned;
        let mut later = None;
        let mut newest_first = std::mem::take(&mut self.kept);
        newest_first.reverse();
        newest_first.retain(|hour| {
            let (month, is_opened) = (Month::of(start_of_hour(hour.number)), Some(hour.number) == opened);
            let has_counts = is_opened || !hour.classes.is_empty();
            let is_last = has_counts && later.replace(month) != Some(month);
            is_opened || !hour.is_flushed() || pinned.contains(&hour.number) || (is_last && is_kept(month))
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
            .map(|(hour, class)| HourTotal { hour, class: class.name.clone(), counts: class.counted.total() })
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
        class.flushed.merge(HourCounts::of(&total.counts));
        let is_news = class.flushed != before;
        if is_news {
            self.prune(None, is_kept);
        }
        is_news
    }

    /// The stored form, oldest first: hour, class, then calls, denied and charged requests as
    /// counted, then the same as D1 has them. If any of them is not 0, charged tokens, returned
    /// requests and returned tokens follow, as counted and as D1 has them.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        for hour in &self.kept {
            for ClassCounts { name, counted, flushed } in &hour.classes {
                push_number(&mut out, hour.number);
                push_text(&mut out, name);
                counted.push_first(&mut out);
                flushed.push_first(&mut out);
                if counted.has_more() || flushed.has_more() {
                    counted.push_more(&mut out);
                    flushed.push_more(&mut out);
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
            let mut counted = HourCounts::read_first(&mut record)?;
            let mut flushed = HourCounts::read_first(&mut record)?;
            counted.read_more(&mut record);
            flushed.read_more(&mut record);
            let class = ClassCounts { name, counted, flushed };
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
    [OTHER, EDGE, UNJUDGED, RESERVATIONS].contains(&class)
}

/// Whether an hour may count one more class by name. `entries` is the number in all hours.
fn has_room(classes: &[ClassCounts], entries: usize) -> bool {
    let named = classes.iter().filter(|class| !is_reserved(&class.name)).count();
    named < MAX_CLASSES && entries < MAX_ENTRIES
}
