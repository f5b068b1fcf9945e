//! Strategies for properties of metering.

use proptest::prelude::*;
use proptest::sample::select;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::time::{DAY, HOUR, MINUTE, SECOND};

/// 2026-11-30T22:30:00Z: the month ends soon.
pub(crate) const START: u64 = 1_796_077_800 * SECOND;

pub(crate) const CALL: CallToJudge<'_> = CallToJudge {
    cost: Cost { requests: 1, tokens: 0 },
    method: "GET",
    class: "GET /",
    nonce: 7,
    idempotency_key: None,
    fingerprint: None,
    is_audited: false,
    thresholds: &[],
    hold: None,
    reprice: None,
};

pub(crate) fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let algorithms = select(&[Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket][..]);
    (algorithms, 1..20_u64, 5..200_u64, 10..100_u64).prop_map(|(algorithm, minute, month, tokens)| {
        vec![
            Policy::new("minute", Unit::Requests, minute, Period::Minute, algorithm, None).unwrap(),
            Policy::new("month", Unit::Requests, month, Period::Month, Algorithm::Fixed, None).unwrap(),
            Policy::new("tokens", Unit::Tokens, tokens, Period::Hour, Algorithm::Fixed, None).unwrap(),
        ]
    })
}

/// A step of the clock in microseconds.
pub(crate) fn step() -> impl Strategy<Value = i64> {
    let micros = |span: u64| i64::try_from(span).unwrap();
    prop_oneof![
        8 => 0..micros(5 * SECOND),
        4 => 0..micros(5 * MINUTE),
        2 => 0..micros(3 * HOUR),
        1 => 0..micros(40 * DAY),
        1 => -micros(MINUTE)..0,
        1 => -micros(3 * HOUR)..0,
        1 => -micros(20 * DAY)..0,
        1 => -micros(400 * DAY)..micros(400 * DAY),
    ]
}
