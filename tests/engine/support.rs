//! Shared helpers: calls and reports as production makes them, in short form.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{CallToJudge, ReportedUsage};
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, Judgement};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::limiter::schedule::Schedule;
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::time::{SECOND, UnixMicros};

/// 2026-11-20T07:48:14Z: 46 s before the end of the minute.
pub(crate) const START: UnixMicros = UnixMicros::from_micros(1_795_160_894 * SECOND);

/// The time so many seconds after [`START`].
pub(crate) fn after(seconds: u64) -> UnixMicros {
    START.saturating_add(seconds * SECOND)
}

/// A fixed policy of requests.
pub(crate) fn fixed_policy(name: &str, quota: u64, period: Period) -> Policy {
    Policy::new(name, Unit::Requests, quota, period, Algorithm::Fixed, None).unwrap()
}

/// `PROPTEST_CASES` sets the number of cases; the default runs for a few seconds in a debug build.
pub(crate) fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 96, ..config } }
}

/// The nonce of calls whose nonce does not matter. Sharing one keeps the rows small.
pub(crate) const NONCE: u64 = 1 << 63;

/// A call of this cost.
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
        hold: None,
        reprice: None,
    }
}

/// Judges calls without idempotency keys.
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

/// Reports of isolates, each with a nonce of its own.
pub(crate) trait Report {
    /// Reports `calls` calls that were let through without a decision, and their total cost.
    fn report_calls<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, calls: u64, cost: Cost);

    /// Reports `denied` denials that were served from a cache.
    fn report_denials<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, denied: u64);
}

/// The nonce of the next report. No test uses nonces this large otherwise.
fn next_report() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 62);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Report for KeyState {
    fn report_calls<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, calls: u64, cost: Cost) {
        let report = ReportedUsage { nonce: next_report(), calls, cost, ..ReportedUsage::default() };
        self.apply_report(policies, clock, &report);
    }

    fn report_denials<'a>(&mut self, policies: impl Into<Schedule<'a>>, clock: UnixMicros, denied: u64) {
        let report = ReportedUsage { nonce: next_report(), denied, ..ReportedUsage::default() };
        self.apply_report(policies, clock, &report);
    }
}

/// Those of `nonces` under which a call would not be counted again.
pub(crate) fn known_nonces(state: &KeyState, nonces: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut state = state.clone();
    // Calls under other nonces are denied, which leaves the nonces as they are.
    let nothing = [Policy::new("n", Unit::Requests, 0, Period::Minute, Algorithm::Fixed, None).unwrap()];
    let is_known = |nonce: &u64| {
        let judgement = state.judge_once(&nothing, UnixMicros::default(), &call(*nonce, Cost::default()));
        matches!(judgement, Judgement::Recalled { .. })
    };
    nonces.into_iter().filter(is_known).collect()
}

/// Whether a call under this nonce would not be counted again.
pub(crate) fn knows(state: &KeyState, nonce: u64) -> bool {
    !known_nonces(state, [nonce]).is_empty()
}

/// Whether calls under all of these nonces would not be counted again.
pub(crate) fn knows_all(state: &KeyState, nonces: impl IntoIterator<Item = u64> + Clone) -> bool {
    known_nonces(state, nonces.clone()).into_iter().eq(nonces)
}

/// The length in seconds of the policy's period that contains `now`.
pub(crate) fn window_seconds(policy: &Policy, now: UnixMicros) -> u64 {
    let window = policy.period().window(now);
    window.end.since(window.start) / SECOND
}

/// The outcome of a call with status 200.
pub(crate) const fn outcome(nonce: u64) -> CallOutcome {
    CallOutcome { nonce, status: 200, duration_ms: 1, used: None, cost: None }
}
