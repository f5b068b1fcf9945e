//! The holds of a key: those that are open, and those that were closed lately.

use crate::encoding::record::{self, records};
use crate::key_state::closed_holds::{ClosedHolds, RunRow};
use crate::key_state::hold::{Hold, HoldKind, MAX_OPEN_HOLDS, OpenHold};
use crate::limiter::cost::Cost;
use crate::limiter::policy::{Algorithm, Period, Policy, Unit};
use crate::time::{Month, UnixMicros};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Holds {
    /// In the order in which they were made.
    open: Vec<Hold>,
    pub(super) closed: ClosedHolds,
    /// When the first of the open ones expires; never, if there are none.
    next_expiry: UnixMicros,
}

const NEVER: UnixMicros = UnixMicros::from_micros(u64::MAX);

impl Default for Holds {
    fn default() -> Self {
        Self::new(Vec::new(), ClosedHolds::default())
    }
}

impl Holds {
    fn new(open: Vec<Hold>, closed: ClosedHolds) -> Self {
        let mut holds = Self { open, closed, next_expiry: NEVER };
        holds.find_next_expiry();
        holds
    }

    /// Reads what [`to_text`](Self::to_text) gives; `None` if it is not that.
    pub(super) fn from_text(text: &str, closed: ClosedHolds) -> Option<Self> {
        let open = records(text).map(|mut record| Hold::read(&mut record)).collect::<Option<_>>()?;
        Some(Self::new(open, closed))
    }

    /// The open holds, if there are any.
    pub(super) fn to_text(&self) -> Option<String> {
        let mut out = String::new();
        for hold in &self.open {
            hold.push(&mut out);
            record::end(&mut out);
        }
        (!out.is_empty()).then_some(out)
    }

    pub(super) fn closed_row(&self) -> Option<RunRow> {
        self.closed.to_row()
    }

    pub(super) const fn open_count(&self) -> usize {
        self.open.len()
    }

    /// When the next of the holds that are for a price alone, or of the others, expires, if no more
    /// of these may be open.
    pub(super) fn expiry_if_full(&self, for_price_alone: bool) -> Option<UnixMicros> {
        if self.open.len() < MAX_OPEN_HOLDS {
            return None;
        }
        let of_kind = || self.open.iter().filter(|hold| hold.is_for_price_alone() == for_price_alone);
        if of_kind().count() < MAX_OPEN_HOLDS { None } else { of_kind().map(|hold| hold.expires_at).min() }
    }

    /// Whether units of limits may be given back at any time.
    pub(super) fn may_return(&self, unit: Unit) -> bool {
        self.open.iter().any(|hold| hold.counted().of(unit) > 0)
    }

    /// When the next hold expires, if one is open.
    pub(super) fn next_expiry(&self) -> Option<UnixMicros> {
        (!self.open.is_empty()).then_some(self.next_expiry)
    }

    /// Whether a hold has expired at `now` that is still among the open ones.
    pub(super) fn is_due(&self, now: UnixMicros) -> bool {
        self.next_expiry <= now
    }

    /// Whether a hold of this id, open or remembered, is one of this kind.
    pub(super) fn is_of_kind(&self, id: u64, kind: HoldKind, now: UnixMicros) -> bool {
        let open = self.find(id).map(|hold| hold.kind);
        open.or_else(|| self.closed.find(id, now).map(|closed| closed.kind)) == Some(kind)
    }

    /// Those that set something aside.
    pub(super) fn views(&self) -> impl Iterator<Item = OpenHold> + '_ {
        self.open.iter().filter(|hold| !hold.is_for_price_alone()).map(Hold::view)
    }

    /// Those of reservations.
    pub(super) fn reservations(&self) -> impl Iterator<Item = OpenHold> + '_ {
        self.open.iter().filter(|hold| hold.kind == HoldKind::Reservation).map(Hold::view)
    }

    pub(super) fn find(&self, id: u64) -> Option<&Hold> {
        self.open.iter().find(|hold| hold.id == id)
    }

    pub(super) fn add(&mut self, hold: Hold) {
        self.next_expiry = self.next_expiry.min(hold.expires_at);
        self.open.push(hold);
    }

    /// Takes an open hold out.
    pub(super) fn take(&mut self, id: u64) -> Option<Hold> {
        let index = self.open.iter().position(|hold| hold.id == id)?;
        let hold = self.open.remove(index);
        self.find_next_expiry();
        Some(hold)
    }

    /// Takes out what has expired at `now`, in the order of expiry, in which closed holds are
    /// remembered and forgotten.
    pub(super) fn take_expired(&mut self, now: UnixMicros) -> Vec<Hold> {
        let mut expired: Vec<Hold> = self.open.extract_if(.., |hold| hold.expires_at <= now).collect();
        expired.sort_by_key(|hold| hold.expires_at);
        self.find_next_expiry();
        expired
    }

    /// Has a hold expire no earlier than at `expires_at`.
    pub(super) fn renew(&mut self, id: u64, expires_at: UnixMicros) -> Option<OpenHold> {
        let hold = self.open.iter_mut().find(|hold| hold.id == id)?;
        hold.expires_at = hold.expires_at.max(expires_at);
        let view = hold.view();
        self.find_next_expiry();
        Some(view)
    }

    /// Those that are open, and those that expired and may be corrected.
    pub(super) fn all(&self) -> impl Iterator<Item = &Hold> {
        self.open.iter().chain(self.closed.expired())
    }

    /// Changes all of them; see [`ClosedHolds::change_expired`].
    pub(super) fn change_all(&mut self, next_row: u64, mut change: impl FnMut(&mut Hold)) {
        self.open.iter_mut().for_each(&mut change);
        self.closed.change_expired(next_row, change);
        self.find_next_expiry();
    }

    /// The hours in which they are or may be metered.
    pub(super) fn hours(&self) -> Vec<u64> {
        let mut hours = Vec::new();
        for hold in self.all() {
            if !hours.contains(&hold.hour) {
                hours.push(hold.hour);
            }
        }
        hours
    }

    /// The ids of the open holds and what they set aside of `unit`, newest first.
    pub(super) fn newest_first(&self, unit: Unit) -> impl Iterator<Item = (u64, u64)> + Clone + '_ {
        self.open.iter().rev().map(move |hold| (hold.id, hold.cost.of(unit)))
    }

    /// What is set aside of `unit` in a month.
    pub(super) fn held_in(&self, unit: Unit, month: Month) -> u64 {
        self.sum(unit, |hold| hold.month() == month)
    }

    /// What counts against a fixed or sliding policy at `now` because it is set aside; of a month,
    /// [`held_in`](Self::held_in) says it.
    pub(super) fn held_of(&self, policy: &Policy, now: UnixMicros) -> u64 {
        let (period, algorithm) = (policy.period(), policy.algorithm());
        self.sum(policy.unit(), |hold| hold.counts(period, algorithm, now))
    }

    fn sum(&self, unit: Unit, counts: impl Fn(&Hold) -> bool) -> u64 {
        let counted = self.open.iter().filter(|hold| hold.cost.of(unit) > 0 && counts(hold));
        counted.fold(0, |sum: u64, hold| sum.saturating_add(hold.cost.of(unit)))
    }

    /// The clock stepped back to `now`. `keeps` says whether a window of a unit and period, which
    /// starts then, is kept.
    pub(super) fn rebase(&mut self, now: UnixMicros, next_row: u64, keeps: impl Fn(Unit, Period, UnixMicros) -> bool) {
        self.change_all(next_row, |hold| {
            for period in [Period::Minute, Period::Hour, Period::Day] {
                let (start, current) = (period.window(hold.at).start, period.window(now).start);
                let is_kept = |unit| hold.counted().of(unit) == 0 || keeps(unit, period, start);
                if start > current || !is_kept(Unit::Requests) || !is_kept(Unit::Tokens) {
                    hold.lost.add(period, Algorithm::Fixed);
                }
            }
            hold.expires_at = hold.expires_at.min(now.saturating_add(hold.ttl));
            hold.at = hold.at.min(now);
        });
    }

    fn find_next_expiry(&mut self) {
        self.next_expiry = self.open.iter().map(|hold| hold.expires_at).min().unwrap_or(NEVER);
    }
}

/// What a hold costs more, and less, if this is charged instead of what was.
pub(super) const fn difference(before: Cost, after: Cost) -> (Cost, Cost) {
    (before.saturating_sub(after), after.saturating_sub(before))
}
