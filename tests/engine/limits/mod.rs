//! Limits, case by case. Most cases have one policy, named `p`.

mod algorithms;
mod clock;
mod months;
mod policy_changes;

use crate::support::Decide;
use tollgate::key_state::state::KeyState;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{PolicyUsage, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::UnixMicros;

pub(crate) fn policy(quota: u64, period: Period, algorithm: Algorithm) -> [Policy; 1] {
    [Policy::new("p", Unit::Requests, quota, period, algorithm, None).unwrap()]
}

pub(crate) fn fixed(quota: u64) -> [Policy; 1] {
    policy(quota, Period::Minute, Algorithm::Fixed)
}

pub(crate) fn sliding(quota: u64) -> [Policy; 1] {
    policy(quota, Period::Minute, Algorithm::Sliding)
}

pub(crate) fn bucket(quota: u64, period: Period, burst: u64) -> [Policy; 1] {
    [Policy::new("p", Unit::Requests, quota, period, Algorithm::Bucket, Some(burst)).unwrap()]
}

pub(crate) fn state() -> KeyState {
    KeyState::new("e".into())
}

pub(crate) fn admit(state: &mut KeyState, policies: &[Policy], at: UnixMicros, requests: u64) {
    let decision = state.decide(policies, at, Cost { requests, tokens: 0 });
    assert!(decision.is_admitted(), "{decision:?}");
}

pub(crate) fn wait(state: &mut KeyState, policies: &[Policy], at: UnixMicros, requests: u64) -> u64 {
    match state.decide(policies, at, Cost { requests, tokens: 0 }).verdict {
        Verdict::Denied { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn usage_of(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> PolicyUsage {
    state.usage(policies, at).policies[0]
}

pub(crate) fn used(state: &mut KeyState, policies: &[Policy], at: UnixMicros) -> u64 {
    usage_of(state, policies, at).used
}
