//! What the tests of the engine share: calls as production makes them, in few words.

use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, Judgement};
use tollgate::limiter::schedule::Schedule;
use tollgate::time::UnixMicros;

/// The nonce of calls whose nonce does not matter. They share one, so that nonces fill no rows.
pub(crate) const NONCE: u64 = 1 << 63;

/// A call that spends this, with nothing else to it.
pub(crate) const fn call(nonce: u64, cost: Cost) -> CallToJudge<'static> {
    CallToJudge {
        cost,
        method: "GET",
        class: "other",
        nonce,
        idempotency_key: None,
        fingerprint: None,
        is_audited: false,
        thresholds: &[],
    }
}

/// Calls that cannot be repeats.
pub(crate) trait Decide {
    /// Judges a call of this nonce and cost.
    fn decide_as<'a>(
        &mut self,
        nonce: u64,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        cost: Cost,
    ) -> Decision;

    /// Judges a call of this cost, under a nonce that does not matter.
    fn decide<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, cost: Cost) -> Decision {
        self.decide_as(NONCE, policies, clock, cost)
    }
}

impl Decide for KeyState {
    fn decide_as<'a>(
        &mut self,
        nonce: u64,
        policies: impl Into<Schedule<'a>>,
        clock: UnixMicros,
        cost: Cost,
    ) -> Decision {
        match self.judge_call(policies, clock, &call(nonce, cost)) {
            Judgement::Decided(decision) => decision,
            other => unreachable!("a call without an idempotency key is no repeat: {other:?}"),
        }
    }
}
