//! Holds: what is set aside, charged and given back.

mod amounts;
mod conservation;
mod expiry;
mod limits_model;
mod repricing;
mod rows;

use std::collections::BTreeMap;

use crate::support::call;
use tollgate::key_state::hold::{
    HoldOutcome, HoldState, HoldTerms, OpenHold, Reservation, ReservationAnswer, UsedAmount,
};
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, PolicyUsage};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{MINUTE, UnixMicros};

/// The time to live where it does not matter.
pub(crate) const TTL: u64 = 10 * MINUTE;

pub(crate) const fn tokens(tokens: u64) -> Cost {
    Cost { requests: 0, tokens }
}

pub(crate) const fn used(tokens: u64) -> UsedAmount {
    UsedAmount { tokens, requests: None }
}

pub(crate) fn fixed(quota: u64, period: Period) -> Policy {
    Policy::new("t", Unit::Tokens, quota, period, Algorithm::Fixed, None).unwrap()
}

pub(crate) fn bucket(quota: u64, burst: u64) -> Policy {
    Policy::new("b", Unit::Tokens, quota, Period::Minute, Algorithm::Bucket, Some(burst)).unwrap()
}

pub(crate) fn with_hold(nonce: u64, cost: Cost, tokens: u64) -> CallToJudge<'static> {
    CallToJudge { hold: Some(HoldTerms { tokens, ttl: TTL }), ..call(nonce, cost) }
}

pub(crate) const fn reservation(id: u64, cost: Cost) -> Reservation {
    Reservation { id, cost, ttl: TTL }
}

pub(crate) fn reserve(state: &mut KeyState, policies: &[Policy], at: UnixMicros, id: u64, cost: Cost) -> OpenHold {
    match state.reserve(policies, at, &reservation(id, cost)) {
        ReservationAnswer::Open(open, _) => open,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn refuse(state: &mut KeyState, policies: &[Policy], at: UnixMicros, id: u64, cost: Cost) -> Decision {
    match state.reserve(policies, at, &reservation(id, cost)) {
        ReservationAnswer::Refused(decision) => decision,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn settle(state: &mut KeyState, policies: &[Policy], at: UnixMicros, id: u64, amount: u64) -> HoldOutcome {
    state.settle_hold(policies, at, id, used(amount), &[]).unwrap()
}

pub(crate) fn usage(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> PolicyUsage {
    state.usage(policies, at).policies[0]
}

/// Used, held and remaining.
pub(crate) fn amounts(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> (u64, u64, u64) {
    let PolicyUsage { used, held, remaining, .. } = usage(state, policies, at);
    (used, held, remaining)
}

pub(crate) fn state() -> KeyState {
    KeyState::new("e1".into())
}

pub(crate) fn commit(state: &mut KeyState, rows: &mut BTreeMap<u32, String>) {
    let StateRow { slot, body } = state.to_row();
    rows.insert(slot, body);
    state.committed();
    state.confirmed(state.last_commit());
}

/// The state that a restart reads after a commit.
pub(crate) fn reread(state: &mut KeyState) -> KeyState {
    let mut rows = BTreeMap::new();
    commit(state, &mut rows);
    KeyState::from_rows(rows).unwrap()
}

pub(crate) fn expect(outcome: HoldOutcome, state: HoldState, charged: Cost, reserved: Cost) {
    assert_eq!((outcome.state, outcome.charged, outcome.reserved), (state, charged, reserved));
}
