//! Any row is read or refused, and a state that was read works. A debug build panics on overflow.

use crate::support::{Decide, Report};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tollgate::admin::audit::AuditView;
use tollgate::http::idempotency_key::Fingerprint;
use tollgate::key_state::audit_log::reader::{AuditCursor, AuditQuery, AuditReader};
use tollgate::key_state::audit_log::retention::{audit_cutoff, next_audit_deletion};
use tollgate::key_state::hold::{Reservation, UsedAmount};
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::metering::months::Carried;
use tollgate::time::{DAY, HOUR, Month, SECOND, UnixMicros, rfc3339};

/// 2026-11-20T07:48:14Z.
const START: u64 = 1_795_160_894 * SECOND;

/// About the end of the year 9999, beyond any real clock.
const LAST: u64 = 250_000_000_000_000_000;

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 400, ..config } }
}

/// Meaningful numbers, and those at the edges of the arithmetic.
fn number() -> impl Strategy<Value = u64> {
    const NEAR: &[u64] = &[
        0,
        1,
        2,
        60,
        20_777,
        498_655,
        29_919_348,
        202_611,
        202_612,
        197_001,
        999_912,
        1_795_160_894,
        START / 1000,
        START,
        START + DAY,
    ];
    const FAR: &[u64] = &[
        (1 << 32) - 1,
        1 << 32,
        (1 << 44) - 1,
        1 << 44,
        1 << 53,
        u64::MAX / DAY,
        u64::MAX / HOUR + 1,
        u64::MAX / 1_000_000,
        u64::MAX / 1_000,
        u64::MAX / 1_000 + 1,
        i64::MAX as u64,
        i64::MAX as u64 + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![6 => select(NEAR), 2 => select(FAR), 1 => any::<u64>()]
}

/// The text of a field.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => number().prop_map(|number| number.to_string()),
        1 => number().prop_map(|number| format!("{number:x}")),
        1 => number().prop_map(|number| format!("-{number}")),
        2 => select(&["GET", "~/v1", "/v1/*", "month", "key 1", "", "a", "r", "c", "d"][..]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9%~_=+ é-]{0,12}",
    ]
}

fn record(fields: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = String> {
    vec(field(), fields).prop_map(|fields| fields.join("|") + ";")
}

fn numbers(count: usize) -> impl Strategy<Value = Vec<String>> {
    vec(number().prop_map(|number| number.to_string()), count)
}

fn wild() -> impl Strategy<Value = String> {
    prop_oneof![vec(record(0..12), 0..6).prop_map(|records| records.concat()), "[-a-z0-9|;%~_é]{0,40}"]
}

/// The given text, now and then something random.
fn mostly(right: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    prop_oneof![30 => right, 1 => wild()].boxed()
}

fn hours() -> impl Strategy<Value = String> {
    let record = (number(), prop_oneof![numbers(6), numbers(12), numbers(8)])
        .prop_map(|(hour, counts)| (hour, format!("{hour}|GET /v1|{};", counts.join("|"))));
    mostly(vec(record, 0..5).prop_map(|mut records| {
        records.sort();
        records.into_iter().map(|(_, record)| record).collect()
    }))
}

/// Marks of so many groups each.
fn marks(groups: usize) -> impl Strategy<Value = String> {
    let hash = prop_oneof![1 => any::<u64>(), 1 => select(&[0, 1, KEY_1][..])];
    let group = (hash, number()).prop_map(|(hash, number)| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        tollgate::encoding::base64(&[&hash.to_be_bytes()[..], &number.to_be_bytes()[..]].concat())
    });
    let right = vec(vec(group, groups), 0..9).prop_map(|marks| marks.concat().concat());
    prop_oneof![30 => right, 1 => "[A-Za-z0-9_-]{0,40}"]
}

/// The hash of "key 1".
const KEY_1: u64 = 0x6765_1597_55b9_a09a;

fn replays() -> impl Strategy<Value = String> {
    let head = |groups, form: &'static str| {
        (marks(groups), 0..3_u32)
            .prop_map(move |(marks, id)| format!("{marks}|{}{form};", [0, 7, u32::MAX][id as usize]))
    };
    let flights = vec(numbers(3).prop_map(|numbers| numbers.join("|") + ";"), 0..4);
    let head = prop_oneof![head(1, ""), head(2, "|2")];
    mostly((head, flights).prop_map(|(head, flights)| head + &flights.concat()))
}

/// Lines of the audit log after their base.
fn lines() -> impl Strategy<Value = String> {
    let time = || {
        prop_oneof![
            8 => (0..100_000_i64).prop_map(|at| at.to_string()),
            1 => number().prop_map(|at| at.to_string()),
            1 => number().prop_map(|at| format!("-{at}")),
        ]
    };
    let key = || select(&["", "order-7", "a%7Cb", "xx~0011223344556677"][..]);
    let line = prop_oneof![
        10 => (select(&["a", "r"][..]), time(), number(), key(), number())
            .prop_map(|(kind, at, cost, key, nonce)| format!("{kind}|{at}|GET|~/v1|{cost}|{key}|{nonce:x};")),
        10 => (time(), number(), number(), number())
            .prop_map(|(at, nonce, status, duration)| format!("c|{at}|{nonce:x}|{}|{duration};", status % 1000)),
        10 => (time(), number(), number(), key(), number(), number(), time()).prop_map(
            |(at, cost, status, key, count, after, last)| {
                // Mostly the nonce of a call of this test.
                let status = [400, 403, 409, 422, 429].get(usize::try_from(status % 7).unwrap()).copied().unwrap_or(status % 1000);
                format!("d|{at}|GET|/v1|{cost}|{key}|{status}|{count}|{after}|{last};")
            }
        ),
        1 => record(0..10),
    ];
    (number(), vec(line, 0..8)).prop_map(|(base, lines)| format!("{base};{}", lines.concat()))
}

/// The fields of a hold, and of a closed one with or without them.
fn hold() -> impl Strategy<Value = String> {
    let time = || prop_oneof![4 => START - HOUR..START + HOUR, 1 => number()];
    let rest = vec(number().prop_map(|number| format!("|{number:x}")), 0..4);
    (number(), time(), number(), (number(), number()), rest).prop_map(|(id, at, ttl, (requests, tokens), rest)| {
        format!("{:x}|{at:x}|{ttl:x}|{requests}|{tokens}|GET /v1|1{}", id % 4, rest.concat())
    })
}

fn closed_hold() -> impl Strategy<Value = String> {
    (hold(), 0..4_u64, vec(number(), 4), number()).prop_map(|(hold, state, costs, at)| {
        let costs: Vec<String> = costs.iter().map(u64::to_string).collect();
        format!("{:x}|{at:x}|{state}|{}|{hold};", at % 5, costs.join("|"))
    })
}

fn month() -> impl Strategy<Value = u64> {
    prop_oneof![20 => select(&[197_001, 202_610, 202_611, 202_612, 999_912][..]), 1 => number()]
}

fn alerts() -> impl Strategy<Value = String> {
    let mark = (number(), month(), numbers(3), any::<bool>()).prop_map(|(threshold, month, numbers, is_pending)| {
        let rest = if is_pending { format!("|{}", numbers.join("|")) } else { String::new() };
        format!("month|{}|{month}{rest};", threshold % 65_536)
    });
    mostly(vec(mark, 0..4).prop_map(|marks| marks.concat()))
}

/// A value, or nothing.
fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop_oneof![2 => value, 1 => Just(Value::Null)]
}

fn body() -> impl Strategy<Value = String> {
    let windows = || vec((number(), number()), 0..4);
    let fixed = vec([windows(), windows(), windows()], 0..3);
    let months = vec((month(), vec(number(), 7)).prop_map(|(month, rest)| [&[month], &rest[..]].concat()), 0..4);
    let kind = || prop_oneof![30 => (0..2_u8, 0..3_u8), 1 => (0..4_u8, 0..5_u8)];
    let bucket = (
        select(&["b", "c"][..]),
        kind(),
        number(),
        [number(), number(), number()],
        maybe(number().prop_map(Value::from)),
        vec((number(), number(), number()).prop_map(|(id, units, fraction)| (id % 4, units, fraction)), 0..4),
    )
        .prop_map(
            |(name, kind, quota, level, until, floors)| json!({"n": name, "k": kind, "q": quota, "l": level, "x": until, "g": floors}),
        );
    let taken = vec((number(), number()), 0..4);
    let log = (kind(), number(), vec(number(), 0..140), maybe(number().prop_map(Value::from)), taken).prop_map(
        |(kind, since, entries, until, taken)| json!({"k": kind, "s": since, "e": entries, "x": until, "g": taken}),
    );
    let holds = vec(hold().prop_map(|hold| hold + ";"), 0..5).prop_map(|holds| holds.concat());
    let closed =
        maybe((number(), vec(closed_hold(), 0..70)).prop_map(|(since, closed)| json!([since % 3, closed.concat()])));
    let more = (month(), numbers(8)).prop_map(|(month, more)| format!("{month}|{};", more.join("|")));
    let text = |text: BoxedStrategy<String>| maybe(text.prop_map(Value::from));
    (
        [number(), number()],
        (fixed, months, vec(bucket, 0..3), vec(log, 0..3), vec(number(), 0..12)),
        [text(hours().boxed()), text(replays().boxed()), text((number(), lines()).prop_map(|(seq, lines)| format!("{seq};{lines}")).boxed()), text(alerts().boxed())],
        (text(mostly(holds)), closed, text(mostly(more))),
    )
        .prop_map(|([seq, last], (fixed, months, buckets, logs, nonces), [hours, replays, audit, alerts], (holds, closed, more))| {
            let body = json!({"v": 1, "seq": seq, "e": "e", "t": last, "f": fixed, "m": months, "b": buckets, "l": logs, "n": nonces,
                "h": hours, "i": replays, "a": audit, "w": alerts, "o": holds, "d": closed, "r": more});
            body.to_string()
        })
}

fn policies() -> Vec<Policy> {
    let policy = |name: &str, unit, quota, period, algorithm, burst| {
        Policy::new(name, unit, quota, period, algorithm, burst).unwrap()
    };
    vec![
        policy("minute", Unit::Requests, 1_000_000_000, Period::Minute, Algorithm::Fixed, None),
        policy("hour", Unit::Tokens, 1_000_000_000, Period::Hour, Algorithm::Fixed, None),
        policy("s", Unit::Requests, 10_000, Period::Day, Algorithm::Sliding, None),
        policy("t", Unit::Requests, 10, Period::Minute, Algorithm::Sliding, None),
        policy("b", Unit::Requests, 1, Period::Day, Algorithm::Bucket, Some(1_000_000_000)),
        policy("c", Unit::Tokens, 1_000_000_000, Period::Minute, Algorithm::Bucket, None),
        policy("month", Unit::Requests, 1_000_000_000, Period::Month, Algorithm::Fixed, None),
    ]
}

fn read_audit(text: &str, seq: u64) {
    for cursor in [None, Some("0-0"), Some("18446744073709551615-18446744073709551615")] {
        let cursor = cursor.map(|cursor| cursor.parse::<AuditCursor>().unwrap());
        for (from, to, limit) in [(0, u64::MAX, 500), (START, START + DAY, 1), (u64::MAX, 0, 0)] {
            let (from, to) = (UnixMicros::from_micros(from), UnixMicros::from_micros(to));
            let mut reader = AuditReader::new(AuditQuery { from, to, cursor, limit });
            let _ = reader.feed(seq, text);
            let (entries, next) = reader.finish();
            serde_json::to_string(&AuditView::new(entries, next)).unwrap();
        }
    }
}

/// All operations of an object on a state.
fn work_with(state: &mut KeyState, clock: u64, extreme: u64) {
    let (policies, now) = (policies(), UnixMicros::from_micros(clock));
    for cost in [Cost { requests: 1, tokens: 3 }, Cost { requests: 1_000_000_000, tokens: 0 }] {
        let decision = state.decide(&policies, now, cost);
        state.judges_replays_alike(&policies, now, cost, &decision.verdict);
        for (nonce, key) in [(1, None), (extreme, Some("key 1")), (3, Some("key 1"))] {
            let call = CallToJudge {
                cost,
                method: "GET",
                class: "GET /v1",
                nonce,
                idempotency_key: key,
                fingerprint: Some(Fingerprint::of("POST", "/", None)),
                is_audited: true,
                thresholds: &[80, 1000],
                hold: None,
                reprice: None,
            };
            state.judge_call(&policies, now, &call);
            state.judge_once(&policies, now, &call);
            state.refuse_call(now, &call, 403);
            state.complete(
                now,
                CallOutcome { nonce, status: 200, duration_ms: extreme, used: None, cost: None },
                None,
                true,
            );
        }
    }
    // A tier with other limits, then none.
    state.usage(&policies[..3], now);
    state.usage(&[], now);
    state.report_denials(&[], now, extreme);
    state.report_calls(&[], now, extreme, Cost { requests: extreme, tokens: extreme });
    state.carry_over(Month::of(now), Carried { calls: extreme, cost: extreme, tokens: extreme, overdraft: extreme });
    for total in state.meter().unflushed_months().into_iter().chain(state.meter().kept_months()) {
        state.mark_flushed(&total);
    }
    for total in state.meter().unflushed_hours().into_iter().chain(state.meter().kept_hours()) {
        assert!(!rfc3339(total.start()).is_empty());
        state.mark_hour_flushed(&total);
    }
    for alert in state.pending_alerts().to_vec() {
        assert!(!alert.body("k").is_empty());
        state.mark_alerted(&alert);
    }
    for (seq, text) in state.audit_tail() {
        read_audit(&text, seq);
    }
    for id in 0..5 {
        state.reserve(&policies, now, &Reservation { id, cost: Cost { requests: 1, tokens: extreme }, ttl: extreme });
        state.renew_hold(now, id, extreme);
        let used = UsedAmount { tokens: extreme / (id + 1), requests: (id > 2).then_some(id) };
        state.settle_hold(&policies, now, id, used, &[80]);
        state.release_hold(&policies, now, id);
        state.reserve(
            &policies[..6],
            now,
            &Reservation { id: 10 + id, cost: Cost { requests: id, tokens: 4 }, ttl: 9 },
        );
    }
    state.check_alerts(&policies, now, &[80]);
    assert!(state.open_holds(now).len() < 1_010);
    state.expire(now);
    assert!(state.next_expiry().map(rfc3339).is_none_or(|at| !at.is_empty()));
    state.forget_audit(audit_cutoff(now, u32::MAX));
    assert!(next_audit_deletion(now, u32::MAX) > now);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_row_is_read_or_refused(
        bodies in vec(body(), 1..4),
        chunks in vec((0..9_u32, prop_oneof![marks(1), marks(2).prop_map(|marks| format!("AAAAAAAAAAAAAAAC{marks}"))]), 0..3),
        clocks in vec(prop_oneof![3 => Just(START), 1 => Just(START + 40 * DAY), 1 => number().prop_map(|clock| clock % LAST)], 1..4),
        extreme in number(),
    ) {
        let rows = bodies.into_iter().enumerate().map(|(slot, body)| (u32::try_from(slot).unwrap(), body));
        let Ok(mut state) = KeyState::from_rows(rows) else { return Ok(()) };
        if state.load_replays(chunks).is_err() {
            return Ok(());
        }
        for clock in clocks {
            work_with(&mut state, clock, extreme);
            let rows = state.to_rows();
            state.committed();
            state.confirmed(state.last_commit());
            let StateRow { slot, body } = rows.row;
            prop_assert!(KeyState::from_rows([(slot, body.clone())]).is_ok(), "{body}");
        }
    }

    #[test]
    fn any_chunk_of_the_audit_log_is_read_or_refused(text in prop_oneof![lines(), wild()], seq in number()) {
        read_audit(&text, seq);
    }
}
