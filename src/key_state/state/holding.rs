//! Holds: made, settled, released, renewed, expired.
//!
//! A hold counts against all policies from the moment at which it is made, whole, in the windows of
//! that moment. The meter has nothing of it before it is closed: policies of months count what is
//! metered and what is held. So none of both is ever missed or counted twice.
//!
//! A hold expires at its time, whatever event comes first after that. Losing that is harmless: it
//! happens again. What is charged then can be corrected once, by a settle or release that comes
//! late.

use crate::key_state::audit_log::entry::EndedCall;
use crate::key_state::closed_holds::ClosedHold;
use crate::key_state::counters::Begun;
use crate::key_state::evaluate::Demand;
use crate::key_state::hold::{
    CallUse, Hold, HoldKind, HoldOutcome, HoldState, Lost, MAX_TTL, OpenHold, Reservation, ReservationAnswer,
    UsedAmount, is_for_price_alone,
};
use crate::key_state::holds::difference;
use crate::key_state::state::KeyState;
use crate::limiter::cost::Cost;
use crate::limiter::decision::Verdict;
use crate::limiter::policy::{Algorithm, Unit};
use crate::limiter::schedule::Schedule;
use crate::metering::call_outcome::{CallCharge, CallOutcome, ChargeBasis, FinalCost, TokenCharge, UsedTokens};
use crate::metering::charges::{Charges, sum};
use crate::metering::cut;
use crate::metering::hours;
use crate::metering::months::{MonthCounts, TokenMarks};
use crate::time::UnixMicros;

/// A hold that is made if it is admitted.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewHold {
    pub(super) id: u64,
    pub(super) kind: HoldKind,
    pub(super) cost: Cost,
    /// Of what its call is charged: see [`Hold`].
    pub(super) returnable: u64,
    pub(super) ttl: u64,
    /// Whether the call must not be made without it.
    pub(super) is_required: bool,
    pub(super) is_audited: bool,
}

impl NewHold {
    pub(super) fn is_for_price_alone(&self) -> bool {
        is_for_price_alone(self.cost, self.returnable)
    }
}

impl KeyState {
    /// Sets an amount aside: from all policies, or from none.
    pub fn reserve<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        reservation: &Reservation,
    ) -> ReservationAnswer {
        let policies = policies.into();
        let now = self.effective_time(clock);
        let &Reservation { id, cost, ttl } = reservation;
        if let Some(open) = self.contents.holds.find(id).map(Hold::view) {
            return ReservationAnswer::Open(open, self.usage_at(policies, now, clock));
        }
        if let Some(outcome) = self.contents.holds.closed.find(id, now).map(|closed| closed.outcome) {
            return ReservationAnswer::Closed(outcome, self.usage_at(policies, now, clock));
        }
        let kind = HoldKind::Reservation;
        let hold = NewHold { id, kind, cost, returnable: 0, ttl, is_required: true, is_audited: false };
        let decision = self.decide(policies, now, clock, Demand::new(cost, false), hours::RESERVATIONS, Some(hold));
        match self.contents.holds.find(id).map(Hold::view) {
            Some(open) => ReservationAnswer::Open(open, decision.usage),
            None => ReservationAnswer::Refused(decision),
        }
    }

    /// Charges what was used of a hold, in the windows in which it was made, and gives back the
    /// rest. More than was held is charged, too, whatever policies say. `None` if there is no hold
    /// of this id, or none any more; of a call's hold that includes one that is settled.
    ///
    /// A hold that is closed stays as it is, except that one which has expired is corrected.
    /// `thresholds` are as in [`CallToJudge`](crate::key_state::state::judging::CallToJudge).
    pub fn settle_hold<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        id: u64,
        used: UsedAmount,
        thresholds: &[u16],
    ) -> Option<HoldOutcome> {
        let used = CallUse { tokens: Some(used.tokens), requests: used.requests };
        Some(self.close_hold(policies.into(), clock, id, Some(used), thresholds, ChargeBasis::Reported)?.0)
    }

    /// Settles the hold of a call that has ended, as [`settle_hold`](Self::settle_hold) does. `None`
    /// if there is nothing to settle: one that is charged what it holds, and is not open, is charged
    /// already.
    pub fn end_call<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        outcome: &CallOutcome,
        thresholds: &[u16],
    ) -> Option<CallCharge> {
        let CallOutcome { nonce, used, cost, .. } = *outcome;
        if used.is_none() && cost.is_none() {
            return None;
        }
        let now = self.effective_time(clock);
        if !self.contents.holds.is_of_kind(nonce, HoldKind::Call, now) {
            return None;
        }
        let tokens = match used {
            None | Some(UsedTokens::Held) => None,
            Some(UsedTokens::Reported(tokens) | UsedTokens::Estimated(tokens)) => Some(tokens),
        };
        let requests = match cost {
            None | Some(FinalCost::AsCharged) => None,
            Some(FinalCost::Requests(requests)) => Some(requests),
        };
        if (tokens, requests) == (None, None) && self.open_hold(clock, nonce).is_none() {
            return None;
        }
        let basis = used.map_or(ChargeBasis::Reported, UsedTokens::basis);
        let used_amount = CallUse { tokens, requests };
        let (closed, returned) =
            self.close_hold(policies.into(), clock, nonce, Some(used_amount), thresholds, basis)?;
        let tokens = used.map(|_| TokenCharge { tokens: closed.charged.tokens, basis });
        Some(CallCharge { tokens, returned })
    }

    /// Whether the cost of the call of this nonce can still be lowered.
    pub fn can_be_repriced(&mut self, clock: UnixMicros, nonce: u64) -> bool {
        self.effective_time(clock);
        self.contents.holds.find(nonce).is_some_and(|hold| hold.returnable > 0)
    }

    /// Whether units may be given back to limits at any time, because holds or calls whose cost may
    /// be lowered are open.
    #[must_use]
    pub fn may_return(&self, unit: Unit) -> bool {
        self.contents.holds.may_return(unit)
    }

    /// Gives back all of a hold. Otherwise like [`settle_hold`](Self::settle_hold).
    pub fn release_hold<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        id: u64,
    ) -> Option<HoldOutcome> {
        Some(self.close_hold(policies.into(), clock, id, None, &[], ChargeBasis::Reported)?.0)
    }

    fn close_hold(
        &mut self,
        policies: Schedule<'_>,
        clock: UnixMicros,
        id: u64,
        used: Option<CallUse>,
        thresholds: &[u16],
        basis: ChargeBasis,
    ) -> Option<(HoldOutcome, u64)> {
        let now = self.effective_time(clock);
        // Buckets drain at the rate of their times, also when a hold is given back to them.
        self.apply_policies(policies, now);
        let open = self.contents.holds.take(id);
        let is_open = open.is_some();
        let hold = if let Some(hold) = open {
            hold
        } else {
            let closed = self.contents.holds.closed.find(id, now)?;
            let Some(expired) = &closed.expired else { return Some((closed.outcome, 0)) };
            expired.clone()
        };
        let (charged, back) = used.map_or((Cost::NONE, 0), |used| hold.charged(used));
        let back = Cost { requests: back, tokens: 0 };
        let state = if used.is_some() { HoldState::Settled } else { HoldState::Released };
        let outcome = HoldOutcome { id, state, charged, reserved: hold.cost, at: now };
        let (next_row, (less, more)) = (self.ring.next_seq(), difference(hold.cost, charged));
        self.contents.counters.end_hold(now, &hold, (less.saturating_add(back), more), next_row);
        // Of one that expired, all is metered already.
        let (returned, more) = difference(if is_open { Cost::NONE } else { hold.cost }, charged);
        let is_call = charged.requests > 0 && (is_open || hold.cost.requests == 0);
        let counts = MonthCounts {
            calls: u64::from(is_call),
            charges: Charges { charged: more, returned: returned.saturating_add(back) },
            overdraft: outcome.overdraft(),
            ..MonthCounts::default()
        };
        self.contents.meter.settle(hold.hour, &hold.class, counts);
        self.contents.meter.mark(hold.hour, |marks| {
            if !is_open {
                marks.expired = marks.expired.saturating_sub(hold.cost.tokens);
            }
            if basis == ChargeBasis::Estimated {
                marks.estimated = sum(marks.estimated, charged.tokens);
            }
        });
        if !is_open || hold.kind == HoldKind::Reservation {
            self.remember(ClosedHold { outcome, kind: hold.kind, expired: None });
        }
        self.pin_hours();
        self.raise_alerts(policies, now, thresholds);
        // A call that keeps its cost is counted already. If this is lost, it is so again.
        let is_lasting = !is_open || !hold.is_for_price_alone() || back != Cost::NONE;
        self.unwritten.changes |= is_lasting;
        self.unwritten.notes = true;
        Some((outcome, back.requests))
    }

    /// Keeps a hold open for `ttl` microseconds from now on, at least; `None` if it is not open.
    pub fn renew_hold(&mut self, clock: UnixMicros, id: u64, ttl: u64) -> Option<OpenHold> {
        let now = self.effective_time(clock);
        let renewed = self.contents.holds.renew(id, now.saturating_add(ttl.clamp(1, MAX_TTL)));
        self.unwritten.changes |= renewed.is_some();
        renewed
    }

    /// The open hold of this id.
    pub fn open_hold(&mut self, clock: UnixMicros, id: u64) -> Option<OpenHold> {
        self.effective_time(clock);
        self.contents.holds.find(id).map(Hold::view)
    }

    /// Whether the hold of this id, open or closed and remembered, is a [`Reservation`]. All others
    /// are of calls: nobody but the gate may close them.
    pub fn is_reservation(&mut self, clock: UnixMicros, id: u64) -> bool {
        let now = self.effective_time(clock);
        self.contents.holds.is_of_kind(id, HoldKind::Reservation, now)
    }

    /// All open [reservations](Reservation), oldest first.
    pub fn open_reservations(&mut self, clock: UnixMicros) -> Vec<OpenHold> {
        self.effective_time(clock);
        self.contents.holds.reservations().collect()
    }

    /// All open holds, oldest first.
    pub fn open_holds(&mut self, clock: UnixMicros) -> Vec<OpenHold> {
        self.effective_time(clock);
        self.contents.holds.views().collect()
    }

    /// Raises alerts about what was charged without a question, as by holds that expired.
    /// `thresholds` are as in [`CallToJudge`](crate::key_state::state::judging::CallToJudge).
    pub fn check_alerts<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, thresholds: &[u16]) {
        let now = self.effective_time(clock);
        self.raise_alerts(policies.into(), now, thresholds);
    }

    pub(super) fn raise_alerts(&mut self, policies: Schedule<'_>, now: UnixMicros, thresholds: &[u16]) {
        if thresholds.is_empty() {
            return;
        }
        let months = self.contents.meter.months();
        let (used, is_kept) = (|unit, month| months.used(unit, month), |month| months.is_kept(month));
        self.unwritten.changes |= self.contents.alerts.check(policies.now, thresholds, now, used, is_kept);
    }

    /// The verdict on another hold, of which policies say `verdict`.
    pub(super) fn limit_holds(&self, verdict: Verdict, clock: UnixMicros, new: &NewHold) -> Verdict {
        let Some(expiry) = self.contents.holds.expiry_if_full(new.is_for_price_alone()) else { return verdict };
        let wait = expiry.since(clock).max(1);
        match verdict {
            Verdict::Admitted => Verdict::TooManyHolds { violated: Vec::new(), retry_after: wait },
            Verdict::Denied { violated, retry_after } => {
                Verdict::TooManyHolds { violated, retry_after: retry_after.max(wait) }
            }
            other => other,
        }
    }

    /// Makes a hold whose cost has just been spent from all counters.
    pub(super) fn begin_hold(&mut self, now: UnixMicros, new: NewHold, class: &str) {
        let NewHold { id, kind, cost, returnable, ttl, is_required: _, is_audited } = new;
        let ttl = ttl.clamp(1, MAX_TTL);
        let hour = self.contents.meter.open_hour(now);
        let (class, lost) = (cut(class).to_owned(), Lost::default());
        let expires_at = now.saturating_add(ttl);
        let hold = Hold { id, kind, cost, returnable, at: now, ttl, expires_at, hour, class, lost, is_audited };
        self.contents.counters.begin_hold(id, hold.counted());
        self.contents.holds.add(hold);
        self.pin_hours();
        self.unwritten.changes = true;
    }

    /// Charges all holds that have expired.
    pub(super) fn expire_holds(&mut self, now: UnixMicros) {
        for mut hold in self.contents.holds.take_expired(now) {
            let calls = u64::from(hold.cost.requests > 0);
            let counts = MonthCounts { calls, charges: Charges::of(hold.cost), ..MonthCounts::default() };
            // What is corrected must be in the same class.
            let class = self.contents.meter.settle(hold.hour, &hold.class, counts).to_owned();
            hold.class = class;
            let (charged, at) = (hold.cost, hold.expires_at);
            let add = |marks: &mut TokenMarks| marks.expired = sum(marks.expired, charged.tokens);
            self.contents.meter.mark(hold.hour, add);
            if hold.is_audited && !hold.is_for_price_alone() {
                let charge = TokenCharge { tokens: charged.tokens, basis: ChargeBasis::Expired };
                self.contents
                    .audit
                    .end(now, &EndedCall { nonce: hold.id, end: None, charge: Some(charge), returned: 0 });
            }
            let outcome = HoldOutcome { id: hold.id, state: HoldState::Expired, charged, reserved: hold.cost, at };
            self.remember(ClosedHold { outcome, kind: hold.kind, expired: Some(hold) });
        }
        self.pin_hours();
        self.unwritten.denials = true;
    }

    fn remember(&mut self, closed: ClosedHold) {
        for forgotten in self.contents.holds.closed.push(closed, self.ring.next_seq()) {
            self.contents.counters.forget_hold(forgotten);
        }
    }

    fn pin_hours(&mut self) {
        self.contents.meter.pin_hours(self.contents.holds.hours());
    }

    /// The clock stepped back to `now`; the counters have not moved yet.
    pub(super) fn rebase_holds(&mut self, now: UnixMicros) {
        let counters = &self.contents.counters;
        let keeps = |unit, period, start| counters.keeps(unit, period, start);
        self.contents.holds.rebase(now, self.ring.next_seq(), keeps);
    }

    /// Has logs and buckets that began to count take up the holds that they hold units of.
    pub(super) fn take_up_holds(&mut self) {
        for begun in self.contents.counters.take_begun() {
            match begun {
                // What of its entries is of a hold cannot be said.
                Begun::Log(Unit::Requests, period) => {
                    let next_row = self.ring.next_seq();
                    self.contents.holds.change_all(next_row, |hold| hold.lost.add(period, Algorithm::Sliding));
                }
                Begun::Log(Unit::Tokens, _) => {}
                Begun::Bucket { unit, name, period, start } => {
                    for hold in self.contents.holds.all().filter(|hold| hold.counted().of(unit) > 0) {
                        let is_there = start.is_none_or(|start| period.window(hold.at).start == start);
                        if is_there && !hold.lost.has(period, Algorithm::Fixed) {
                            self.contents.counters.take_up(unit, &name, hold.id);
                        }
                    }
                }
            }
        }
    }
}
