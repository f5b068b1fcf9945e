//! Metering: hours, idempotency keys, the audit log and alerts; case by case and by properties.
//! Stored forms are frozen, because rows of deployed objects hold them.

mod alerts;
mod alerts_properties;
mod audit_log;
mod audit_log_properties;
mod flush;
mod hours;
mod hours_properties;
mod idempotency;
mod idempotency_properties;
mod strategies;
mod world;

use crate::support::START;
use tollgate::http::idempotency_key::Fingerprint;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::metering::hours::{Counts, HourTotal};
use tollgate::time::HOUR;

pub(crate) const CALL: CallToJudge<'_> = CallToJudge {
    cost: Cost { requests: 2, tokens: 5 },
    method: "POST",
    class: "POST /a",
    nonce: 7,
    idempotency_key: None,
    fingerprint: None,
    is_audited: false,
    thresholds: &[],
    hold: None,
    reprice: None,
};

pub(crate) fn ended(nonce: u64) -> CallOutcome {
    CallOutcome { nonce, status: 201, duration_ms: 190, used: None, cost: None }
}

pub(crate) fn end(state: &mut KeyState, nonce: u64) {
    state.complete(START, ended(nonce), None, false);
}

pub(crate) fn metered() -> KeyState {
    KeyState::new("e1".into())
}

pub(crate) fn reread(state: &mut KeyState) -> KeyState {
    let row = state.to_row();
    state.committed();
    state.confirmed(state.last_commit());
    KeyState::from_rows([(row.slot, row.body)]).unwrap()
}

pub(crate) fn of_class(class: &str) -> CallToJudge<'_> {
    CallToJudge { class, ..CALL }
}

/// (hour since that of START, class, calls, denied, cost)
pub(crate) fn unflushed(state: &KeyState) -> Vec<(u64, String, u64, u64, u64)> {
    let first = START.as_micros() / HOUR;
    let row = |total: HourTotal| {
        let Counts { calls, denied, cost, .. } = total.counts;
        (total.hour - first, total.class, calls, denied, cost)
    };
    state.meter().unflushed_hours().into_iter().map(row).collect()
}

pub(crate) fn keyed(nonce: u64, key: &str) -> CallToJudge<'_> {
    keyed_at(nonce, key, "/a")
}

pub(crate) fn keyed_at<'a>(nonce: u64, key: &'a str, path: &str) -> CallToJudge<'a> {
    let fingerprint = Some(Fingerprint::of("POST", path, None));
    CallToJudge { nonce, idempotency_key: Some(key), fingerprint, ..CALL }
}
