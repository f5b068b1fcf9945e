//! The time of one decision, by algorithm, quota and number of policies, and of one row.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(missing_docs)] // functions of the macro

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::time::{MINUTE, SECOND, UnixMicros};

const START: u64 = 1_795_160_894 * SECOND;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket];

fn policies(algorithm: Algorithm, quota: u64, count: usize) -> Vec<Policy> {
    let periods = [Period::Minute, Period::Hour, Period::Day];
    (0..count)
        .map(|index| {
            let unit = if index < 3 { Unit::Requests } else { Unit::Tokens };
            Policy::new(format!("p{index}"), unit, quota, periods[index % 3], algorithm, None).unwrap()
        })
        .collect()
}

/// A plain call that spends this.
const fn call_of(cost: Cost) -> CallToJudge<'static> {
    CallToJudge {
        cost,
        method: "GET",
        class: "GET /v1",
        nonce: u64::MAX / 2,
        idempotency_key: None,
        fingerprint: None,
        is_audited: false,
        thresholds: &[],
        hold: None,
        reprice: None,
    }
}

/// Requests a little faster than a minute's quota allows. With one policy about nine of
/// ten are admitted; with more, the longer periods deny most of them.
fn steady(c: &mut Criterion) {
    let mut group = c.benchmark_group("steady");
    for algorithm in ALGORITHMS {
        for (quota, count) in [(10, 1), (1_000, 1), (10_000, 1), (1_000, 3), (1_000, 6)] {
            let policies = policies(algorithm, quota, count);
            let (mut state, mut clock) = (KeyState::new("e".into()), START);
            let step = MINUTE * 9 / 10 / quota;
            let id = BenchmarkId::new(algorithm.as_str(), format!("quota {quota}, {count} policies"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    clock += step;
                    black_box(state.judge_call(
                        &policies,
                        UnixMicros::from_micros(clock),
                        &call_of(Cost { requests: 1, tokens: 1 }),
                    ))
                });
            });
        }
    }
    group.finish();
}

/// A key that is out of quota and keeps calling.
fn denied(c: &mut Criterion) {
    let mut group = c.benchmark_group("denied");
    for algorithm in ALGORITHMS {
        for quota in [10, 10_000] {
            let policies = policies(algorithm, quota, 1);
            let mut state = KeyState::new("e".into());
            let mut clock = START;
            while state.judge_call(&policies, UnixMicros::from_micros(clock), &call_of(Cost::default())).is_admitted() {
                clock += 1000;
            }
            let id = BenchmarkId::new(algorithm.as_str(), format!("quota {quota}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    black_box(state.judge_call(&policies, UnixMicros::from_micros(clock), &call_of(Cost::default())))
                });
            });
        }
    }
    group.finish();
}

/// A call with everything that is kept of it: its class, idempotency key, audit entry and outcome.
fn call(c: &mut Criterion) {
    let mut group = c.benchmark_group("call");
    let policies = [
        Policy::new("minute", Unit::Requests, 1000, Period::Minute, Algorithm::Fixed, None).unwrap(),
        Policy::new("month", Unit::Requests, 100_000_000, Period::Month, Algorithm::Fixed, None).unwrap(),
    ];
    for (name, has_thresholds, has_key, is_audited) in [
        ("bare", false, false, false),
        ("thresholds", true, false, false),
        ("audit", true, false, true),
        ("all", true, true, true),
    ] {
        let (mut state, mut clock, mut nonce) = (KeyState::new("e".into()), START, 0_u64);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                clock += MINUTE / 900;
                nonce += 1;
                let key = nonce.to_string();
                let thresholds: &[u16] = if has_thresholds { &[80, 100] } else { &[] };
                let call = CallToJudge {
                    cost: Cost::default(),
                    method: "GET",
                    class: "GET /v1",
                    nonce,
                    idempotency_key: has_key.then_some(&key),
                    fingerprint: None,
                    is_audited,
                    thresholds,
                    hold: None,
                    reprice: None,
                };
                let now = UnixMicros::from_micros(clock);
                let judgement = state.judge_once(&policies, now, &call);
                let outcome = CallOutcome { nonce, status: 200, duration_ms: 90, used: None, cost: None };
                state.complete(now, outcome, None, is_audited);
                state.committed();
                judgement
            });
        });
        group.bench_function(format!("{name}, row"), |bencher| bencher.iter(|| black_box(state.to_rows())));
    }
    group.finish();
}

/// One commit: a row of the usual two fixed policies, and one with half a chunk.
fn row(c: &mut Criterion) {
    let mut group = c.benchmark_group("row");
    for (name, algorithm, calls) in [("fixed", Algorithm::Fixed, 5), ("sliding, 32 entries", Algorithm::Sliding, 32)] {
        let policies = policies(algorithm, 1000, 2);
        let mut state = KeyState::new("0123456789abcdef".into());
        for call in 0..calls {
            state.judge_call(&policies, UnixMicros::from_micros(START + call * 7000), &call_of(Cost::default()));
        }
        group.bench_function(name, |bencher| bencher.iter(|| black_box(state.to_row())));
    }
    group.finish();
}

criterion_group!(benches, steady, denied, call, row);
criterion_main!(benches);
