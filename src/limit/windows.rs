//! Counters of windows aligned to the UTC clock. They count whatever the policies are, so that a change of limits finds
//! the usage of its period already there.

use crate::limit::Cost;
use crate::policy::{Period, Unit};
use crate::time::{DAY, HOUR, MINUTE, UnixMicros};

/// Windows kept up to the one counted last, and windows kept beyond it (seen before the clock stepped back).
const KEPT: usize = 2;

/// The counts of one unit and one period: non-empty windows only, in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Windows {
    kept: Vec<(UnixMicros, u64)>,
}

impl Windows {
    /// What was counted in the window that starts at `start`.
    pub(super) fn count(&self, start: UnixMicros) -> u64 {
        self.kept.iter().find(|(kept, _)| *kept == start).map_or(0, |(_, count)| *count)
    }

    /// Counts `units` in the window that starts at `start`, and forgets windows too far from it.
    pub(super) fn add(&mut self, start: UnixMicros, units: u64) {
        if units == 0 {
            return;
        }
        let until = self.kept.partition_point(|(kept, _)| *kept < start);
        match self.kept.get_mut(until) {
            Some((kept, count)) if *kept == start => *count = count.saturating_add(units),
            _ => self.kept.insert(until, (start, units)),
        }
        self.kept.truncate(until + 1 + KEPT);
        self.kept.drain(..(until + 1).saturating_sub(KEPT));
    }

    /// Windows as they were kept before.
    pub(super) fn from_kept(mut kept: Vec<(UnixMicros, u64)>) -> Self {
        kept.sort_unstable();
        Self { kept }
    }

    /// The windows as (start, count), in order of time.
    pub(super) fn iter(&self) -> impl Iterator<Item = (UnixMicros, u64)> + '_ {
        self.kept.iter().copied()
    }
}

/// The counts of one unit over minutes, hours and days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans {
    pub(super) minute: Windows,
    pub(super) hour: Windows,
    pub(super) day: Windows,
}

impl Spans {
    fn add(&mut self, now: UnixMicros, units: u64) {
        for (windows, span) in [(&mut self.minute, MINUTE), (&mut self.hour, HOUR), (&mut self.day, DAY)] {
            windows.add(now.saturating_sub(now.as_micros() % span), units);
        }
    }
}

/// The counts of both units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) requests: Spans,
    pub(super) tokens: Spans,
}

impl Fixed {
    /// Counts an admission at `now`.
    pub(super) fn add(&mut self, now: UnixMicros, cost: Cost) {
        self.requests.add(now, cost.requests);
        self.tokens.add(now, cost.tokens);
    }

    /// The windows of a unit and period; months are counted elsewhere.
    pub(super) fn windows(&self, unit: Unit, period: Period) -> Option<&Windows> {
        let spans = match unit {
            Unit::Requests => &self.requests,
            Unit::Tokens => &self.tokens,
        };
        match period {
            Period::Minute => Some(&spans.minute),
            Period::Hour => Some(&spans.hour),
            Period::Day => Some(&spans.day),
            Period::Month => None,
        }
    }
}
