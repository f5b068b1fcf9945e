//! The engine: one [`KeyState`] per API key, which judges a request against all policies of the key's tier at once.
//!
//! The object that owns a key runs one request at a time between its awaits, and a decision here never awaits; that is
//! what makes read, decide and write one step. Everything is pure: the clock reading is an argument, and what must
//! outlive the memory is handed out as rows (see [`KeyState::to_row`]) for the caller to store.
//!
//! # Judged time
//! A clock that stepped back by [`MAX_SKEW`] or less is taken to stand still until it has caught up: the time that is judged
//! never goes back behind the last admission, so no window opens again. A clock that stepped back further is believed, so that a
//! reading of the far future holds nobody up. Nothing is forgiven then:
//!
//! - The counts of a window are kept where they are: of minutes, hours and days the last three windows up to the one that was
//!   counted last, and the next two after the one that the clock fell back into; of months, see `months.rs`.
//! - What was admitted less than a period before the step counts in the window that the clock fell back into, too. So that one has
//!   left what is left of one quota after itself and the window before the step.
//! - Logs and levels of buckets are moved to the judged time.
//!
//! All waits count from the clock as it was read.

use std::borrow::Cow;

use crate::http::idempotency_key::Fingerprint;
use crate::key_state::audit_log::{Audit, Subject};
use crate::key_state::idempotency::{KeyHash, Replays, RequestHash, Seen};
use crate::limiter::decision::{Decision, Judgement, PolicyUsage, Verdict};
use crate::metering::alerts::{Alert, Alerts};
use crate::metering::call_outcome::CallOutcome;
use crate::metering::hours::{self, Counts, HourTotal, Hours};
use crate::time::{HOUR, MINUTE, Month, SECOND, UnixMicros};

use crate::limiter::cost::Cost;
use crate::limiter::fixed_window::Fixed;
use crate::limiter::gcra::Bucket;
use crate::limiter::schedule::Schedule;
use crate::limiter::sliding_log::{Log, MAX_MILLIS};
use crate::metering::months::{Carried, MonthTotal, Months};

use crate::key_state::evaluate::Ask;
use crate::key_state::nonces::Nonces;
use crate::key_state::row::Ring;

/// Statuses of refusals, as the audit log has them.
const BAD_REQUEST: u16 = 400;
const CONFLICT: u16 = 409;
const UNPROCESSABLE: u16 = 422;
const TOO_MANY_REQUESTS: u16 = 429;

/// The most that the judged time runs ahead of a clock that stepped back, in microseconds: 5 minutes.
pub const MAX_SKEW: u64 = 5 * MINUTE;

/// A clock that is so much later than at the decision before may have leapt ahead, in microseconds.
const LEAP: u64 = HOUR;

/// How long a question may be under way, in microseconds: what is said to be so old is taken to be this much older.
pub const MAX_DELAY: u64 = 10 * SECOND;

/// A call to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// What it spends.
    pub cost: Cost,
    /// Its method.
    pub method: &'a str,
    /// Its class: see [`Price::class`](crate::keys::route_cost::Price::class).
    pub class: &'a str,
    /// Names it: a call that is admitted is remembered by it.
    pub nonce: u64,
    /// Its idempotency key, if that applies to it: a later call with the same one repeats it.
    pub idempotency_key: Option<&'a str>,
    /// What it asks for, which a repeat must ask for too. Isolates of an earlier version do not say.
    pub fingerprint: Option<Fingerprint>,
    /// Whether it is to be in the audit log.
    pub is_audited: bool,
    /// Percentages of a month's quota at which there is to be an [`Alert`].
    pub thresholds: &'a [u16],
}

/// What an isolate owes to the counts: calls that it let through without a decision, and denials that it gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportedUsage {
    /// Names it: it is counted once. If it is a call that may have been admitted, it is that call's own nonce.
    pub nonce: u64,
    /// For how many microseconds it may have been counted already; `None` if it is owed for the first time.
    pub age: Option<u64>,
    /// Calls that were let through.
    pub calls: u64,
    /// What they cost together.
    pub cost: Cost,
    /// Denials.
    pub denied: u64,
}

/// What became of what was [owed](ReportedUsage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is counted.
    Now,
    /// It had been counted before.
    Before,
    /// It may have been counted so long ago that this is not known any more, so it is not counted.
    Never,
}

impl<'a> Call<'a> {
    const fn subject(&self, cost: u64) -> Subject<'a> {
        Subject { method: self.method, class: self.class, cost, key: self.idempotency_key }
    }
}

/// All that is known of one key's usage.
#[derive(Debug, Clone)]
pub struct KeyState {
    pub(super) epoch: String,
    /// The judged time of the last admission or change of a bucket: nothing in this state is later, except windows of
    /// [`Fixed`].
    pub(super) last: UnixMicros,
    /// The judged time of the last decision.
    pub(super) seen: UnixMicros,
    /// See [`lead`](Self::lead).
    pub(super) lead: u64,
    /// When policies were last adopted, if that is after `last`.
    pub(super) adopted: UnixMicros,
    pub(super) fixed: Fixed,
    pub(super) months: Months,
    pub(super) logs: Vec<Log>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) nonces: Nonces,
    /// `None` if nobody asked for [`count_hours`](KeyState::count_hours).
    pub(super) hours: Option<Hours>,
    pub(super) replays: Replays,
    pub(super) audit: Audit,
    pub(super) alerts: Alerts,
    pub(super) ring: Ring,
    /// Changes that must be in a row before they are answered.
    pub(super) dirty: bool,
    /// Denials counted since the last row.
    pub(super) denials: bool,
    /// Other changes since the last row that can wait for the next.
    pub(super) notes: bool,
}

impl KeyState {
    /// A key that nothing was spent of. The epoch names this state's own count, apart from any that came before it.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self {
            epoch,
            last: UnixMicros::default(),
            seen: UnixMicros::default(),
            lead: 0,
            adopted: UnixMicros::default(),
            fixed: Fixed::default(),
            months: Months::default(),
            logs: Vec::new(),
            buckets: Vec::new(),
            nonces: Nonces::new(),
            hours: None,
            replays: Replays::default(),
            audit: Audit::default(),
            alerts: Alerts::default(),
            ring: Ring::default(),
            dirty: false,
            denials: false,
            notes: false,
        }
    }

    /// The name of this state's own count.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// From here on calls are also counted by hour and class; rows of this state say so to those who read them.
    pub fn count_hours(&mut self) {
        self.hours.get_or_insert_default();
    }

    /// The time at which a decision is made if the clock reads so: the policies that hold then are the ones to ask.
    pub fn judged(&mut self, clock: UnixMicros) -> UnixMicros {
        self.effective_time(clock)
    }

    /// Judges one request against all policies: it is spent from every one of them, or from none.
    pub fn decide<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, cost: Cost) -> Decision {
        let now = self.effective_time(clock);
        self.decide_at(policies.into(), now, clock, cost, false, hours::OTHER)
    }

    /// Judges one call as [`decide`](Self::decide) does, and keeps what is to be known of it, in the same row as its counts.
    ///
    /// The first call under an idempotency key that is admitted is remembered for 24 hours. A call with the same key that asks for
    /// something else is refused. Calls that repeat it are refused while it is in flight: until it is [complete](Self::complete),
    /// for [`MAX_FLIGHT`](crate::key_state::idempotency::MAX_FLIGHT) at most. After that they are replays. Of these
    /// [`FREE_REPEATS`](crate::http::idempotency_key::FREE_REPEATS) are judged by all policies but those of months and tokens, and charged to
    /// none of these; further ones, and those that cannot be compared, are judged and charged like new calls.
    pub fn judge_call<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        call: &Call<'_>,
    ) -> Judgement {
        let policies = policies.into();
        let now = self.effective_time(clock);
        let key = call.idempotency_key.map(|key| {
            let request = call.fingerprint.map(|request| RequestHash::of(&self.epoch, key, request));
            (KeyHash::of(key), request.unwrap_or(RequestHash::UNKNOWN))
        });
        let seen = key.map_or(Seen::Never, |(key, request)| self.replays.seen(key, request, now));
        let is_free = seen == Seen::Complete { is_free: true };
        match seen {
            Seen::Other => {
                let standings = self.refuse_unjudged(policies, now, clock, call, UNPROCESSABLE);
                return Judgement::Mismatch { standings, now: clock };
            }
            Seen::InFlight { .. } => {
                let standings = self.refuse_unjudged(policies, now, clock, call, CONFLICT);
                return Judgement::Conflict { standings, now: clock };
            }
            Seen::Never | Seen::Complete { .. } => {}
        }
        let is_replay = seen != Seen::Never;
        let cost = if is_free { Cost { tokens: 0, ..call.cost } } else { call.cost };
        let decision = self.decide_at(policies, now, clock, cost, is_free, call.class);
        if decision.is_admitted() {
            self.remember(call.nonce);
            match key {
                Some((key, request)) if is_replay => self.replays.repeat(key, request, is_free),
                Some((key, request)) => self.replays.begin(key, request, call.nonce, now),
                None => {}
            }
            self.replays.expire(now);
            if call.is_audited {
                let due = if is_free { 0 } else { cost.requests };
                self.audit.admit(now, call.subject(due), call.nonce, is_replay);
            }
        } else {
            let is_denial = matches!(decision.verdict, Verdict::Denied { .. });
            self.audit_refusal(now, call, if is_denial { TOO_MANY_REQUESTS } else { BAD_REQUEST });
        }
        if !call.thresholds.is_empty() {
            let months = &self.months;
            let used = |unit, month| months.used(unit, month);
            self.dirty |= self.alerts.check(policies.now, call.thresholds, now, used, |month| months.is_kept(month));
        }
        if is_replay { Judgement::Replay { decision, is_free } } else { Judgement::Decided(decision) }
    }

    /// Notes a refusal that comes before the policies are asked. Gives where they stand.
    fn refuse_unjudged(
        &mut self,
        policies: Schedule<'_>,
        now: UnixMicros,
        clock: UnixMicros,
        call: &Call<'_>,
        status: u16,
    ) -> Vec<PolicyUsage> {
        self.audit_refusal(now, call, status);
        self.adopt(policies, now);
        self.measure(policies, now, clock)
    }

    /// Whether a free replay of this cost gets the same verdict as a new call has got at `clock`: then it holds for all calls,
    /// whatever their idempotency keys are. Counts nothing.
    pub fn judges_replays_alike<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        cost: Cost,
        verdict: &Verdict,
    ) -> bool {
        let now = self.effective_time(clock);
        self.judge(policies.into(), now, clock, Ask { cost: Cost { tokens: 0, ..cost }, is_free: true }) == *verdict
    }

    /// Judges a call of which the question may arrive more than once, in any order: what was admitted under its nonce is not
    /// spent again.
    pub fn judge_once<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        call: &Call<'_>,
    ) -> Judgement {
        let policies = policies.into();
        self.recall_call(policies, clock, call).unwrap_or_else(|| self.judge_call(policies, clock, call))
    }

    /// Whether it can be told if something was counted under `nonce`, that may have been counted since `age` microseconds; `None`
    /// if it is new. If it cannot, counting it could count it twice.
    pub fn can_tell(&mut self, clock: UnixMicros, nonce: u64, age: Option<u64>) -> bool {
        let now = self.effective_time(clock);
        let asked = age.map(|age| now.saturating_sub(age).saturating_sub(MAX_DELAY));
        asked.is_none_or(|asked| asked >= self.nonces.complete_since()) || self.recalls(nonce)
    }

    /// What was said to a call that was admitted under its nonce, for a retry of the question: nothing is spent again. `None` if no
    /// such call is remembered.
    pub fn recall_call<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        call: &Call<'_>,
    ) -> Option<Judgement> {
        if !self.recalls(call.nonce) {
            return None;
        }
        let now = self.effective_time(clock);
        let seen = call.idempotency_key.map(|key| self.replays.seen(KeyHash::of(key), RequestHash::UNKNOWN, now));
        let standings = self.standings(policies, clock);
        let decision = Decision { verdict: Verdict::Admitted, standings, now: clock };
        Some(match seen {
            None | Some(Seen::Never) => Judgement::Decided(decision),
            Some(Seen::InFlight { nonce }) if nonce == call.nonce => Judgement::Decided(decision),
            Some(_) => Judgement::Replay { decision, is_free: false },
        })
    }

    /// Notes in the audit log that a call was refused with this status without being judged. Counts it nowhere.
    pub fn refuse_call(&mut self, clock: UnixMicros, call: &Call<'_>, status: u16) {
        let now = self.effective_time(clock);
        self.audit_refusal(now, call, status);
    }

    fn audit_refusal(&mut self, now: UnixMicros, call: &Call<'_>, status: u16) {
        if call.is_audited {
            self.audit.refuse(now, call.subject(call.cost.requests), status);
            self.notes = true;
        }
    }

    /// Notes that a call has ended, in the audit log only if it `is_audited`. Nobody has to wait until a row holds that.
    pub fn complete(&mut self, clock: UnixMicros, end: CallOutcome, is_audited: bool) {
        let now = self.effective_time(clock);
        self.notes |= self.replays.complete(end.nonce) || is_audited;
        if is_audited {
            self.audit.end(now, end);
        }
    }

    /// Alerts that nobody has been told of.
    #[must_use]
    pub fn pending_alerts(&self) -> &[Alert] {
        self.alerts.pending()
    }

    /// Notes that this very alert has been told.
    pub fn mark_alerted(&mut self, alert: &Alert) {
        self.dirty |= self.alerts.forget(alert);
    }

    /// The end of the audit log that no stored chunk holds: texts as of chunks, with the numbers that these have or will have. A
    /// stored chunk whose number is not lower than the first of these came with a row that was not written: it is to be ignored.
    #[must_use]
    pub fn audit_tail(&self) -> Vec<(u64, Cow<'_, str>)> {
        self.audit.tail()
    }

    /// Forgets the end of the audit log if it says nothing about the time after `until`. Chunks are rows; the caller deletes them.
    pub fn forget_audit(&mut self, until: UnixMicros) {
        self.dirty |= self.audit.forget(until);
    }

    /// A free replay costs nothing that is counted by the month.
    fn decide_at(
        &mut self,
        policies: Schedule<'_>,
        now: UnixMicros,
        clock: UnixMicros,
        cost: Cost,
        is_free: bool,
        class: &str,
    ) -> Decision {
        self.adopt(policies, now);
        let verdict = self.judge(policies, now, clock, Ask { cost, is_free });
        if verdict.is_admitted() {
            let due = if is_free { Cost { requests: 0, tokens: 0 } } else { cost };
            self.spend(now, 1, cost, due, class);
        } else if matches!(verdict, Verdict::Denied { .. }) {
            // A cost that can never fit is a mistake in the request, not a denial.
            self.deny(now, 1, class);
        }
        Decision { verdict, standings: self.measure(policies, now, clock), now: clock }
    }

    /// Where every policy stands, in their order. Spends nothing and counts nothing.
    pub fn standings<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros) -> Vec<PolicyUsage> {
        let policies = policies.into();
        let now = self.effective_time(clock);
        self.adopt(policies, now);
        self.measure(policies, now, clock)
    }

    /// Counts what an isolate owes, unless it was counted before.
    pub fn apply_report<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        owed: &ReportedUsage,
    ) -> ReportOutcome {
        let &ReportedUsage { nonce, age, calls, cost, denied } = owed;
        if self.recalls(nonce) {
            return ReportOutcome::Before;
        }
        if !self.can_tell(clock, nonce, age) {
            return ReportOutcome::Never;
        }
        // Else it would count in logs and buckets as they were when policies were last asked.
        let now = self.effective_time(clock);
        self.adopt(policies.into(), now);
        self.remember(nonce);
        self.deny_elsewhere(clock, denied);
        if calls > 0 {
            self.charge_calls(clock, calls, cost);
        }
        ReportOutcome::Now
    }

    /// Counts `calls` calls that were let through without a decision, and what they cost together.
    pub fn charge_calls(&mut self, clock: UnixMicros, calls: u64, cost: Cost) {
        let now = self.effective_time(clock);
        self.spend(now, calls, cost, cost, hours::UNJUDGED);
    }

    /// Counts `denied` denials that were answered without a decision.
    pub fn deny_elsewhere(&mut self, clock: UnixMicros, denied: u64) {
        if denied > 0 {
            let now = self.effective_time(clock);
            self.deny(now, denied, hours::EDGE);
        }
    }

    /// Notes what earlier epochs recorded of `month`. It is spent from month policies, but is not part of this epoch's own
    /// totals. Noting it again replaces what was noted.
    pub fn carry_over(&mut self, month: Month, carried: Carried) {
        self.dirty |= self.months.carry(month, carried);
    }

    /// What this epoch counted in `month`.
    #[must_use]
    pub fn month(&self, month: Month) -> MonthTotal {
        self.months.total(month)
    }

    /// The months whose calls or denials differ from what [`mark_flushed`](Self::mark_flushed) acknowledged, oldest
    /// first.
    #[must_use]
    pub fn unflushed(&self) -> Vec<MonthTotal> {
        self.months.unflushed()
    }

    /// Notes that these very totals of `month` are stored elsewhere; what was counted since stays unflushed. Then drops
    /// flushed months that are neither current, nor the one before, nor among the three newest.
    pub fn mark_flushed(&mut self, month: Month, calls: u64, denied: u64) {
        self.dirty |= self.months.mark_flushed(month, calls, denied, Month::of(self.seen));
    }

    /// All months that are kept, oldest first.
    #[must_use]
    pub fn kept_months(&self) -> Vec<MonthTotal> {
        self.months.iter().map(|(month, _)| self.months.total(month)).collect()
    }

    /// What each hour that is kept holds of each class, oldest first.
    #[must_use]
    pub fn kept_hours(&self) -> Vec<HourTotal> {
        self.hours.as_ref().map_or_else(Vec::new, Hours::kept)
    }

    /// What each hour holds of each class and differs from what [`mark_hour_flushed`](Self::mark_hour_flushed) acknowledged,
    /// oldest first.
    #[must_use]
    pub fn unflushed_hours(&self) -> Vec<HourTotal> {
        self.hours.as_ref().map_or_else(Vec::new, Hours::unflushed)
    }

    /// Whether all months and hours are stored elsewhere.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.months.is_flushed() && self.hours.as_ref().is_none_or(Hours::is_flushed)
    }

    /// Notes that this very total is stored elsewhere, as [`mark_flushed`](Self::mark_flushed) does for months. Then drops hours
    /// that are flushed and over.
    pub fn mark_hour_flushed(&mut self, total: &HourTotal) {
        if let Some(hours) = &mut self.hours {
            let months = &self.months;
            self.dirty |= hours.mark_flushed(total, |month| months.is_kept(month));
        }
    }

    /// Whether there are changes, other than counted denials, that no committed row holds.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether there are counted denials that no committed row holds. Losing them is harmless to every limit, so they
    /// can wait for a row that is written anyway.
    #[must_use]
    pub const fn has_uncommitted_denials(&self) -> bool {
        self.denials
    }

    /// Remembers the nonce of an admitted request.
    pub fn remember(&mut self, nonce: u64) {
        self.nonces.remember(nonce, self.seen.max(self.last));
        self.dirty = true;
    }

    /// Whether the nonce is one of a request admitted lately.
    #[must_use]
    pub fn recalls(&self, nonce: u64) -> bool {
        self.nonces.recalls(nonce) || self.replays.is_in_flight(nonce)
    }

    /// Whether there are changes that no committed row holds and nobody waits for: calls have ended, or refusals are in the audit
    /// log. They should be in a row before the memory is lost, but are no reason to write one for each.
    #[must_use]
    pub const fn has_uncommitted_notes(&self) -> bool {
        self.notes
    }

    /// Lets go of what is over at `clock`, so that the next commit deletes its rows.
    pub fn expire(&mut self, clock: UnixMicros) {
        let now = self.effective_time(clock);
        self.dirty |= self.replays.expire(now);
    }

    /// When there will be rows to let go of.
    #[must_use]
    pub fn next_expiry(&self) -> Option<UnixMicros> {
        self.replays.next_expiry()
    }

    /// The judged time for a clock reading. See the module's head.
    fn effective_time(&mut self, clock: UnixMicros) -> UnixMicros {
        let clock = clock.min(UnixMicros::from_millis(MAX_MILLIS));
        let is_believed = clock.saturating_add(MAX_SKEW) < self.last;
        let now = if is_believed { clock } else { clock.max(self.last) };
        if now < self.last {
            self.fixed.rebase(now, self.last);
            self.last = now;
            let since = self.ring.next_seq();
            self.logs.iter_mut().for_each(|log| log.rebase(now, since));
            self.buckets.iter_mut().for_each(|bucket| bucket.rebase(now));
            self.replays.rebase(now);
            self.nonces.rebase(now);
            self.adopted = self.adopted.min(now);
            self.lead = 0;
            self.dirty = true;
        } else if self.seen > UnixMicros::default() && now.since(self.seen) > LEAP {
            self.lead = self.lead.saturating_add(now.since(self.seen));
        }
        self.seen = now;
        now
    }

    /// How far ahead the clock may be, in microseconds: by so much it leapt forward since this state was made or read, if it has
    /// not fallen back. The key was idle for as long, if the clock is right; then [`trust_clock`](Self::trust_clock) says so.
    #[must_use]
    pub fn lead(&self, clock: UnixMicros) -> u64 {
        if clock.saturating_add(MAX_SKEW) < self.seen { 0 } else { self.lead }
    }

    /// The clock is right.
    pub const fn trust_clock(&mut self) {
        self.lead = 0;
    }

    /// Counts an admission everywhere, whether a policy asks for it today or not. `due` is what months count of its cost.
    fn spend(&mut self, now: UnixMicros, calls: u64, cost: Cost, due: Cost, class: &str) {
        self.pass(now);
        self.fixed.add(now, cost);
        self.months.count(Month::of(now), calls, due);
        self.meter(now, class, Counts { calls, denied: 0, cost: due.requests });
        for log in &mut self.logs {
            log.push(now, cost.of(log.unit));
        }
        for bucket in &mut self.buckets {
            bucket.pour(now, cost.of(bucket.unit));
        }
        self.dirty = true;
    }

    fn deny(&mut self, now: UnixMicros, denied: u64, class: &str) {
        self.months.deny(Month::of(now), denied);
        self.meter(now, class, Counts { calls: 0, denied, cost: 0 });
        self.denials = true;
    }

    /// Counts by hour and class what was just counted by month.
    fn meter(&mut self, now: UnixMicros, class: &str, counts: Counts) {
        let Some(hours) = &mut self.hours else { return };
        let months = &self.months;
        let (month, counted) = (Month::of(now), months.place(Month::of(now)));
        // The hours of a month add up to it.
        let at = if counted == month { now } else { counted.start() };
        hours.count(at, class, counts, |month| months.is_kept(month));
    }

    /// From here on the judged time does not go back behind `now`.
    pub(super) fn pass(&mut self, now: UnixMicros) {
        self.last = now;
        self.logs.iter_mut().for_each(|log| log.forget(now));
    }
}
