//! Bucket limits: GCRA, represented as the level of a leaky bucket, in exact integers.
//!
//! The level is scaled by the length of the period in microseconds, `span`. So one unit is `span`,
//! the bucket drains by `quota` per microsecond, and nothing is rounded.

use crate::limiter::floors::Floors;
use crate::limiter::policy::{Period, Unit};
use crate::time::UnixMicros;

/// Maximum level in units. No quota drains as much in centuries, and it keeps the arithmetic far
/// from overflow.
const MAX_UNITS: u128 = 1 << 50;

/// The bucket of one policy name and unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) period: Period,
    /// The period in microseconds.
    span: u64,
    /// The rate at which the bucket drains, in units per period.
    pub(crate) quota: u64,
    /// The scaled level at `at`.
    level: u128,
    at: UnixMicros,
    /// When the bucket may be dropped. Set while no policy uses it.
    pub(crate) until: Option<UnixMicros>,
    /// How much of each hold can still be in the bucket.
    pub(crate) floors: Floors,
}

impl Bucket {
    pub(crate) fn new(name: &str, unit: Unit, period: Period, span: u64, quota: u64) -> Self {
        let name = name.to_owned();
        let (at, floors) = (UnixMicros::default(), Floors::default());
        Self { name, unit, period, span, quota, level: 0, at, until: None, floors }
    }

    /// Sets the level at `at` to `units` and `fraction` / `span` of a unit.
    pub(crate) fn with_level(mut self, units: u64, fraction: u64, at: UnixMicros) -> Self {
        self.level = self.amount(units, fraction);
        self.at = at;
        self
    }

    /// The level at [`at`](Self::at): whole units, and the fraction in 1/`span` units.
    pub(crate) fn level(&self) -> (u64, u64) {
        self.in_units(self.level)
    }

    /// An amount in whole units, and span-ths of one.
    pub(crate) fn in_units(&self, amount: u128) -> (u64, u64) {
        let span = u128::from(self.span);
        (narrow(amount / span), narrow(amount % span))
    }

    /// The amount of whole units, and span-ths of one.
    pub(crate) fn amount(&self, units: u64, fraction: u64) -> u128 {
        self.scaled(units) + u128::from(fraction.min(self.span))
    }

    /// The time that [`level`](Self::level) is for.
    pub(crate) const fn at(&self) -> UnixMicros {
        self.at
    }

    /// Adds `units` at `now`.
    pub(crate) fn add(&mut self, now: UnixMicros, units: u64) {
        let full = u128::from(self.span) * MAX_UNITS;
        let level = self.level_at(now);
        self.floors.note(level);
        self.level = level.saturating_add(self.scaled(units)).min(full);
        self.at = self.at.max(now);
    }

    /// From here on the hold can be given back to the bucket, which has got its units.
    pub(crate) fn begin_hold(&mut self, hold: u64) {
        self.floors.begin(hold, self.level);
    }

    /// Gives back `units` of a hold at `now`, as far as they can still be in the bucket: the level is
    /// then that of a bucket that never got them. The hold is over.
    pub(crate) fn end_hold(&mut self, now: UnixMicros, hold: u64, units: u64) {
        if self.floors.is_empty() {
            return;
        }
        let level = self.level_at(now);
        self.floors.note(level);
        self.level = level.saturating_sub(self.floors.end(hold, self.scaled(units)));
        self.at = self.at.max(now);
    }

    /// Nothing will be given back of this hold.
    pub(crate) fn forget_hold(&mut self, hold: u64) {
        self.floors.end(hold, 0);
    }

    /// The units of some holds that can still be in the bucket at `now`. `held` are their ids and
    /// units, newest first.
    pub(crate) fn held(&self, now: UnixMicros, held: impl Iterator<Item = (u64, u64)> + Clone) -> u64 {
        let level = self.level_at(now);
        let (mut sum, mut rest) = (0_u128, held);
        for floor in self.floors.since_each() {
            // A hold that is not among them has expired.
            let mut found = rest.clone();
            if let Some((_, units)) = found.find(|(hold, _)| *hold == floor.hold) {
                sum = sum.saturating_add(self.scaled(units).min(floor.least));
                rest = found;
            }
        }
        narrow(sum.min(level) / u128::from(self.span))
    }

    /// The level in units at `now`, rounded up.
    pub(crate) fn used(&self, now: UnixMicros) -> u64 {
        narrow(self.level_at(now).div_ceil(u128::from(self.span)))
    }

    /// The units that still fit under `burst` at `now`, rounded down.
    pub(crate) fn remaining(&self, now: UnixMicros, burst: u64) -> u64 {
        let room = self.scaled(burst).saturating_sub(self.level_at(now));
        narrow(room / u128::from(self.span))
    }

    /// The first time, not before `from`, at which `units` more fit under `burst`.
    pub(crate) fn first_fit(&self, from: UnixMicros, units: u64, burst: u64) -> UnixMicros {
        let surplus = self.level.saturating_add(self.scaled(units)).saturating_sub(self.scaled(burst));
        self.drained_by(surplus).max(from)
    }

    /// The first time at which the bucket is empty.
    pub(crate) fn empty_at(&self) -> UnixMicros {
        self.drained_by(self.level)
    }

    /// Changes quota and period from `now` on. The level in units stays the same, rounded up to the
    /// new scale.
    pub(crate) fn change(&mut self, now: UnixMicros, period: Period, span: u64, quota: u64) {
        let level = self.level_at(now);
        self.floors.note(level);
        let (old, new) = (u128::from(self.span), u128::from(span));
        self.level = level / old * new + (level % old * new).div_ceil(old);
        self.floors.rescale(old, new);
        self.at = self.at.max(now);
        self.period = period;
        self.span = span;
        self.quota = quota;
    }

    /// Moves the time of the level to `now` if it is later, after the clock stepped back.
    pub(crate) fn rebase(&mut self, now: UnixMicros) {
        self.at = self.at.min(now);
    }

    fn level_at(&self, now: UnixMicros) -> u128 {
        let drained = u128::from(self.quota) * u128::from(now.since(self.at));
        self.level.saturating_sub(drained)
    }

    /// The first time at which the scaled level has dropped by `amount` since `at`.
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
