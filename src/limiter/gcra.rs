//! Bucket limits: GCRA, kept as the level of a leaky bucket, in exact integers.
//!
//! The level is in units times the period's microseconds. So counted, one unit is `span`, the
//! bucket drains exactly `quota` per microsecond, and nothing is ever rounded.

use crate::limiter::policy::{Period, Unit};
use crate::time::UnixMicros;

/// More than any quota could drain in a lifetime; keeps the arithmetic far from its end.
const MAX_UNITS: u128 = 1 << 50;

/// The bucket of one policy name and unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) period: Period,
    /// The period in microseconds.
    span: u64,
    /// Units per period, at which the bucket drains.
    pub(crate) quota: u64,
    /// At `at`.
    level: u128,
    at: UnixMicros,
    /// Set while no policy uses the bucket: when it may be dropped.
    pub(crate) until: Option<UnixMicros>,
}

impl Bucket {
    pub(crate) fn new(name: &str, unit: Unit, period: Period, span: u64, quota: u64) -> Self {
        let name = name.to_owned();
        Self { name, unit, period, span, quota, level: 0, at: UnixMicros::default(), until: None }
    }

    /// This bucket with a level of `units` and `fraction` span-ths of one, at `at`.
    pub(crate) fn with_level(mut self, units: u64, fraction: u64, at: UnixMicros) -> Self {
        self.level = self.scaled(units) + u128::from(fraction.min(self.span));
        self.at = at;
        self
    }

    /// Whole units, and span-ths of one, that are in the bucket at [`at`](Self::at).
    pub(crate) fn level(&self) -> (u64, u64) {
        let span = u128::from(self.span);
        (narrow(self.level / span), narrow(self.level % span))
    }

    /// The instant that [`level`](Self::level) is for.
    pub(crate) const fn at(&self) -> UnixMicros {
        self.at
    }

    /// Adds `units` at `now`.
    pub(crate) fn add(&mut self, now: UnixMicros, units: u64) {
        let full = u128::from(self.span) * MAX_UNITS;
        self.level = self.level_at(now).saturating_add(self.scaled(units)).min(full);
        self.at = self.at.max(now);
    }

    /// What is in the bucket at `now`, rounded up.
    pub(crate) fn used(&self, now: UnixMicros) -> u64 {
        narrow(self.level_at(now).div_ceil(u128::from(self.span)))
    }

    /// What fits in at `now` under `burst`, rounded down.
    pub(crate) fn remaining(&self, now: UnixMicros, burst: u64) -> u64 {
        let room = self.scaled(burst).saturating_sub(self.level_at(now));
        narrow(room / u128::from(self.span))
    }

    /// The first moment, not before `from`, at which `units` more fit under `burst`.
    pub(crate) fn first_fit(&self, from: UnixMicros, units: u64, burst: u64) -> UnixMicros {
        let surplus = self.level.saturating_add(self.scaled(units)).saturating_sub(self.scaled(burst));
        self.drained_by(surplus).max(from)
    }

    /// The first moment at which the bucket is empty.
    pub(crate) fn empty_at(&self) -> UnixMicros {
        self.drained_by(self.level)
    }

    /// Goes on with another quota or period from `now`. The level stays what it is in units,
    /// rounded up.
    pub(crate) fn change(&mut self, now: UnixMicros, period: Period, span: u64, quota: u64) {
        let level = self.level_at(now);
        let (old, new) = (u128::from(self.span), u128::from(span));
        self.level = level / old * new + (level % old * new).div_ceil(old);
        self.at = self.at.max(now);
        self.period = period;
        self.span = span;
        self.quota = quota;
    }

    /// If the level is of a time after `now`, it is of `now`.
    pub(crate) fn rebase(&mut self, now: UnixMicros) {
        self.at = self.at.min(now);
    }

    fn level_at(&self, now: UnixMicros) -> u128 {
        let drained = u128::from(self.quota) * u128::from(now.since(self.at));
        self.level.saturating_sub(drained)
    }

    /// The first moment at which the level of [`at`](Self::at) has sunk by `amount`.
    fn drained_by(&self, amount: u128) -> UnixMicros {
        self.at.saturating_add(narrow(amount.div_ceil(u128::from(self.quota.max(1)))))
    }

    fn scaled(&self, units: u64) -> u128 {
        u128::from(units) * u128::from(self.span)
    }
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
