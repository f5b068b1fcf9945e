//! Counters of windows aligned to the UTC clock. They count under all policies, so that a changed
//! policy finds the usage of its period.

use crate::limiter::cost::Cost;
use crate::limiter::policy::{Period, Unit};
use crate::time::{DAY, HOUR, MINUTE, UnixMicros};

/// Number of windows kept up to the one counted last. A clock that was ahead by less than a period
/// has counted in at most two later windows, so the window that it steps back to is still kept.
const KEPT: usize = 3;
/// Number of later windows kept. They were counted before the clock stepped back.
const AHEAD: usize = 2;

/// The counts of one unit and one period: non-empty windows only, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Windows {
    kept: Vec<(UnixMicros, u64)>,
}

impl Windows {
    /// The count of the window that starts at `start`.
    pub(crate) fn count(&self, start: UnixMicros) -> u64 {
        self.kept.iter().find(|(kept, _)| *kept == start).map_or(0, |(_, count)| *count)
    }

    /// Counts `units` in the window that starts at `start`, and drops windows too far from it.
    pub(crate) fn add(&mut self, start: UnixMicros, units: u64) {
        if units == 0 {
            return;
        }
        let until = self.kept.partition_point(|(kept, _)| *kept < start);
        match self.kept.get_mut(until) {
            Some((kept, count)) if *kept == start => *count = count.saturating_add(units),
            _ => self.kept.insert(until, (start, units)),
        }
        self.kept.truncate(until + 1 + AHEAD);
        self.kept.drain(..(until + 1).saturating_sub(KEPT));
    }

    /// Whether anything is counted in the window that starts at `start`.
    pub(crate) fn is_kept(&self, start: UnixMicros) -> bool {
        self.kept.iter().any(|(kept, _)| *kept == start)
    }

    /// Takes `units` out of the window that starts at `start`, if it is kept.
    fn take(&mut self, start: UnixMicros, units: u64) {
        if let Some((_, count)) = self.kept.iter_mut().find(|(kept, _)| *kept == start) {
            *count = count.saturating_sub(units);
        }
        self.kept.retain(|(_, count)| *count > 0);
    }

    /// Counts `units` in the window that starts at `start`, if it is kept. Unlike
    /// [`add`](Self::add) it forgets no window.
    fn add_if_kept(&mut self, start: UnixMicros, units: u64) {
        if let Some((_, count)) = self.kept.iter_mut().find(|(kept, _)| *kept == start) {
            *count = count.saturating_add(units);
        }
    }

    /// Adjusts windows of length `span` to a clock that stepped back from `last` to `now`: units
    /// counted less than `span` before the step count in the window of `now`, too.
    fn rebase(&mut self, now: UnixMicros, last: UnixMicros, span: u64) {
        let start = now.saturating_sub(now.as_micros() % span);
        let is_recent = |kept: UnixMicros| kept > start && kept.saturating_add(2 * span) > last;
        let recent = self.kept.iter().filter(|(kept, _)| is_recent(*kept));
        let units = recent.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        self.add(start, units);
    }

    /// Restores windows from their stored form.
    pub(crate) fn from_kept(mut kept: Vec<(UnixMicros, u64)>) -> Self {
        kept.sort_unstable();
        Self { kept }
    }

    /// The windows as (start, count), oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UnixMicros, u64)> + '_ {
        self.kept.iter().copied()
    }
}

/// The counts of one unit over minutes, hours and days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WindowsByPeriod {
    pub(crate) minute: Windows,
    pub(crate) hour: Windows,
    pub(crate) day: Windows,
}

impl WindowsByPeriod {
    fn all(&mut self) -> [(&mut Windows, u64); 3] {
        [(&mut self.minute, MINUTE), (&mut self.hour, HOUR), (&mut self.day, DAY)]
    }

    fn add(&mut self, now: UnixMicros, units: u64) {
        for (windows, span) in self.all() {
            windows.add(now.saturating_sub(now.as_micros() % span), units);
        }
    }
}

/// The counts of both units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FixedWindows {
    pub(crate) requests: WindowsByPeriod,
    pub(crate) tokens: WindowsByPeriod,
}

impl FixedWindows {
    /// Counts an admission at `now`.
    pub(crate) fn add(&mut self, now: UnixMicros, cost: Cost) {
        self.requests.add(now, cost.requests);
        self.tokens.add(now, cost.tokens);
    }

    /// Adjusts all windows to a clock that stepped back from `last` to `now`.
    pub(crate) fn rebase(&mut self, now: UnixMicros, last: UnixMicros) {
        for spans in [&mut self.requests, &mut self.tokens] {
            spans.all().into_iter().for_each(|(windows, span)| windows.rebase(now, last, span));
        }
    }

    /// Corrects what was counted at `at`: counts `more`, and gives `less` back in the windows of
    /// those periods in which it `is_there`. What is over at `now` and not kept is left alone.
    pub(crate) fn correct(
        &mut self,
        at: UnixMicros,
        now: UnixMicros,
        (less, more): (Cost, Cost),
        is_there: impl Fn(Period) -> bool,
    ) {
        for unit in [Unit::Requests, Unit::Tokens] {
            let (less, more) = (less.of(unit), more.of(unit));
            let spans = match unit {
                Unit::Requests => &mut self.requests,
                Unit::Tokens => &mut self.tokens,
            };
            let periods = [Period::Minute, Period::Hour, Period::Day];
            for ((windows, _), period) in spans.all().into_iter().zip(periods) {
                let (start, current) = (period.window(at).start, period.window(now).start);
                if less > 0 && is_there(period) {
                    windows.take(start, less);
                }
                if start == current {
                    windows.add(start, more);
                } else {
                    windows.add_if_kept(start, more);
                }
            }
        }
    }

    /// The windows of a unit and period. `None` for months, which
    /// [`months`](crate::metering::months) counts.
    pub(crate) fn windows(&self, unit: Unit, period: Period) -> Option<&Windows> {
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
