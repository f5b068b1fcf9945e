//! Judging calls, and counting reported ones.

use crate::http::idempotency_key::Fingerprint;
use crate::key_state::audit_log::tail::LoggedCall;
use crate::key_state::call_memory::CallKey;
use crate::key_state::evaluate::{Demand, Evaluator};
use crate::key_state::hold::{HoldKind, HoldTerms};
use crate::key_state::idempotency::PriorCall;
use crate::key_state::state::KeyState;
use crate::key_state::state::holding::NewHold;
use crate::limiter::cost::{CALL_TOKENS_LIMIT, Cost};
use crate::limiter::decision::{Decision, Judgement, UsageSnapshot, Verdict};
use crate::limiter::schedule::Schedule;
use crate::metering::hours;
use crate::time::UnixMicros;

// Statuses of refusals, as the audit log records them.
const BAD_REQUEST: u16 = 400;
const CONFLICT: u16 = 409;
const UNPROCESSABLE: u16 = 422;
const TOO_MANY_REQUESTS: u16 = 429;

/// A call to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CallToJudge<'a> {
    pub cost: Cost,
    pub method: &'a str,
    /// See [`Price::class`](crate::keys::route_cost::Price::class).
    pub class: &'a str,
    /// Identifies the call across retries of the object request.
    pub nonce: u64,
    /// The idempotency key, if one applies: a later call with the same key repeats this one.
    pub idempotency_key: Option<&'a str>,
    /// The request, which must be the same in a repeat. Isolates of an earlier version do not send
    /// it.
    pub fingerprint: Option<Fingerprint>,
    /// Whether the audit log records the call.
    pub is_audited: bool,
    /// Percentages of a monthly quota at which alerts are raised.
    pub thresholds: &'a [u16],
    /// What the call sets aside besides its cost, judged together with it. The hold's id is the
    /// call's nonce. A free replay sets nothing aside.
    pub hold: Option<HoldTerms>,
    /// For how many microseconds the cost in requests may be lowered by
    /// [`end_call`](KeyState::end_call), if it may. With a hold, as long as with that. Nothing is
    /// given back of a free replay.
    pub reprice: Option<u64>,
}

impl<'a> CallToJudge<'a> {
    fn new_hold(&self) -> Option<NewHold> {
        let returnable = self.reprice.map_or(0, |_| self.cost.requests);
        let (tokens, ttl) = match (self.hold, self.reprice) {
            (Some(HoldTerms { tokens, ttl }), _) => (tokens.min(CALL_TOKENS_LIMIT), ttl),
            (None, Some(ttl)) => (0, ttl),
            (None, None) => return None,
        };
        let cost = Cost { requests: 0, tokens };
        Some(NewHold {
            id: self.nonce,
            kind: HoldKind::Call,
            cost,
            returnable,
            ttl,
            is_required: self.hold.is_some(),
            is_audited: self.is_audited,
        })
    }

    const fn logged(&self, cost: u64) -> LoggedCall<'a> {
        LoggedCall { method: self.method, class: self.class, cost, key: self.idempotency_key }
    }
}

/// A report of calls that an isolate let through without a decision, and of denials that it served
/// from its cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ReportedUsage {
    /// Identifies the report, so that it is counted once. The report of a call that may have been
    /// admitted carries the nonce of that call.
    pub nonce: u64,
    /// Microseconds since the first attempt that may have been counted. `None` for a first attempt.
    pub age: Option<u64>,
    pub calls: u64,
    /// The total cost of the calls.
    pub cost: Cost,
    pub denied: u64,
}

/// How [`KeyState::apply_report`] handled a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The report is counted now.
    Counted,
    /// The report had been counted before.
    Duplicate,
    /// The report may have been counted, so long ago that its nonce is no longer kept. It is not
    /// counted.
    TooLate,
}

impl KeyState {
    /// Judges a call whose object request may arrive more than once, in any order. A call that was
    /// already admitted under its nonce is not counted again.
    pub fn judge_once<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        call: &CallToJudge<'_>,
    ) -> Judgement {
        let policies = policies.into();
        if !self.is_counted(call.nonce) {
            return self.judge_call(policies, clock, call);
        }
        let now = self.effective_time(clock);
        let is_replay = self.contents.calls.is_replay(call.nonce, call.idempotency_key, now);
        Judgement::Recalled { is_replay, usage: self.usage_at(policies, now, clock) }
    }

    /// Judges a call by all policies: its cost is spent from every one of them, or from none.
    ///
    /// The first admitted call under an idempotency key is remembered for 24 hours. A later call
    /// with the same key is
    ///
    /// - refused if it is a different request;
    /// - refused while the first call is in flight: until it is [complete](Self::complete), for at
    ///   most [`MAX_FLIGHT`](crate::key_state::idempotency::MAX_FLIGHT);
    /// - a replay otherwise. The first
    ///   [`FREE_REPEATS`](crate::http::idempotency_key::FREE_REPEATS) replays are neither judged by
    ///   nor charged to month and token policies. Further replays, and those without a fingerprint
    ///   to compare, are judged and charged like new calls.
    pub fn judge_call<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        call: &CallToJudge<'_>,
    ) -> Judgement {
        let policies = policies.into();
        let now = self.effective_time(clock);
        let epoch = &self.contents.epoch;
        let key = call.idempotency_key.map(|key| CallKey::new(epoch, key, call.fingerprint));
        let prior = self.contents.calls.prior_call(key, now);
        let (is_replay, is_free) = match prior {
            PriorCall::Different => {
                self.log_refusal(now, call, UNPROCESSABLE);
                return Judgement::Mismatch(self.usage_at(policies, now, clock));
            }
            PriorCall::InFlight { .. } => {
                self.log_refusal(now, call, CONFLICT);
                return Judgement::Conflict(self.usage_at(policies, now, clock));
            }
            PriorCall::None => (false, false),
            PriorCall::Complete { is_free } => (true, is_free),
        };
        let demand = Demand::new(call.cost, is_free);
        let hold = call.new_hold().filter(|_| !is_free);
        let decision = self.decide(policies, now, clock, demand, call.class, hold);
        if decision.is_admitted() {
            self.contents.calls.admit(call.nonce, key, prior, now);
            if call.is_audited {
                let charged = if is_free { 0 } else { call.cost.requests };
                let tokens = hold.map(|hold| hold.cost.tokens);
                self.contents.audit.admit(now, call.logged(charged), call.nonce, is_replay, tokens);
            }
        } else {
            self.log_refusal(now, call, if decision.verdict.is_denied() { TOO_MANY_REQUESTS } else { BAD_REQUEST });
        }
        self.raise_alerts(policies, now, call.thresholds);
        if is_replay { Judgement::Replay { decision, is_free } } else { Judgement::Decided(decision) }
    }

    /// Judges by the policies, then counts the call and makes its hold, or makes a reservation. The
    /// amount of a call's hold adds to `demand`; of a reservation it is `demand`. Ignores
    /// idempotency keys.
    pub(super) fn decide(
        &mut self,
        policies: Schedule<'_>,
        now: UnixMicros,
        clock: UnixMicros,
        demand: Demand,
        class: &str,
        hold: Option<NewHold>,
    ) -> Decision {
        self.apply_policies(policies, now);
        let is_call = hold.is_none_or(|hold| hold.kind == HoldKind::Call);
        let on_top = hold.filter(|_| is_call).map_or(Cost::NONE, |hold| hold.cost);
        let all = Demand { cost: demand.cost.saturating_add(on_top), ..demand };
        let mut verdict = self.evaluator().verdict(policies, now, clock, all);
        let mut hold = hold;
        if let Some(new) = &hold {
            match self.limit_holds(verdict.clone(), clock, new) {
                // The call keeps its cost.
                Verdict::TooManyHolds { .. } if !new.is_required => hold = None,
                limited => verdict = limited,
            }
        }
        if verdict.is_admitted() {
            self.contents.counters.spend(now, all.cost);
            let mut class = class;
            if is_call {
                let charged = if demand.is_free { Cost::NONE } else { demand.cost };
                class = self.contents.meter.admit(now, class, 1, charged);
            }
            if let Some(hold) = hold {
                self.begin_hold(now, hold, class);
            }
            self.unwritten.changes = true;
        } else if verdict.is_denied() {
            // A cost above the quota is an error in the request, not a denial.
            self.deny(now, 1, class);
        }
        Decision { verdict, usage: self.evaluator().usage(policies, now, clock) }
    }

    /// Whether a free replay of this cost would get the verdict that a new call got at `clock`. If
    /// so, the verdict holds for all calls, whatever their idempotency keys. Counts nothing.
    pub fn judges_replays_alike<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        cost: Cost,
        verdict: &Verdict,
    ) -> bool {
        let now = self.effective_time(clock);
        self.evaluator().verdict(policies.into(), now, clock, Demand::new(cost, true)) == *verdict
    }

    /// Whether nonces reach back far enough to decide if `nonce` was counted. `age` is the time in
    /// microseconds since the first request with it, `None` if this is the first. If `false`,
    /// counting it could count it twice.
    pub fn can_deduplicate(&mut self, clock: UnixMicros, nonce: u64, age: Option<u64>) -> bool {
        let now = self.effective_time(clock);
        self.contents.calls.can_deduplicate(now, nonce, age) || self.is_counted(nonce)
    }

    /// Whether a call was counted under this nonce recently, or has an open hold.
    #[must_use]
    pub fn is_counted(&self, nonce: u64) -> bool {
        self.contents.calls.is_known(nonce) || self.contents.holds.find(nonce).is_some()
    }

    /// Records in the audit log that a call was refused with this status without a judgement. The
    /// call is not counted.
    pub fn refuse_call(&mut self, clock: UnixMicros, call: &CallToJudge<'_>, status: u16) {
        let now = self.effective_time(clock);
        self.log_refusal(now, call, status);
    }

    fn log_refusal(&mut self, now: UnixMicros, call: &CallToJudge<'_>, status: u16) {
        if call.is_audited {
            self.contents.audit.refuse(now, call.logged(call.cost.requests), status);
            self.unwritten.notes = true;
        }
    }

    /// The usage of every policy. Counts nothing.
    pub fn usage<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros) -> UsageSnapshot {
        let now = self.effective_time(clock);
        self.usage_at(policies.into(), now, clock)
    }

    pub(super) fn usage_at(&mut self, policies: Schedule<'_>, now: UnixMicros, clock: UnixMicros) -> UsageSnapshot {
        self.apply_policies(policies, now);
        self.evaluator().usage(policies, now, clock)
    }

    /// Counts the report of an isolate, unless it was counted before.
    pub fn apply_report<'a>(
        &mut self,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        report: &ReportedUsage,
    ) -> ReportOutcome {
        let &ReportedUsage { nonce, age, calls, cost, denied } = report;
        if self.is_counted(nonce) {
            return ReportOutcome::Duplicate;
        }
        let now = self.effective_time(clock);
        if !self.contents.calls.can_deduplicate(now, nonce, age) {
            return ReportOutcome::TooLate;
        }
        // Logs and buckets must be those of the current policies, not of those at the last call.
        self.apply_policies(policies.into(), now);
        self.contents.calls.remember(nonce, now);
        self.unwritten.changes = true;
        if denied > 0 {
            self.deny(now, denied, hours::EDGE);
        }
        if calls > 0 {
            self.spend(now, calls, cost, cost, hours::UNJUDGED);
        }
        ReportOutcome::Counted
    }

    pub(super) fn apply_policies(&mut self, policies: Schedule<'_>, now: UnixMicros) {
        let next_row = self.ring.next_seq();
        if self.contents.counters.apply_policies(policies, now, next_row) {
            self.unwritten.changes = true;
            self.take_up_holds();
        }
    }

    const fn evaluator(&mut self) -> Evaluator<'_> {
        Evaluator::new(&mut self.contents.counters, self.contents.meter.months(), &self.contents.holds)
    }
}
