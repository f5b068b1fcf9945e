//! Does the work of one case so many times. `scripts/instructions.mjs` counts the instructions of a
//! run and of one with twice as many repetitions. The difference is the work alone, without start
//! and preparation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::process::ExitCode;

use tollgate::gateway::deny_cache::{DenyCache, Keyed};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::keys::key::{self, ENTROPY_BYTES, PresentedKey, Signer};
use tollgate::keys::token_route::{TokenRoute, UsageFormat};
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Decision;
use tollgate::limiter::decision::Judgement;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::protocol::object_request::{Call, CallOutcomes, Check, ObjectRequest};
use tollgate::protocol::object_response::{KeyResponse, KeyUsage, KeyVerdict, ObjectResponse};
use tollgate::time::{DAY, HOUR, MINUTE, SECOND, UnixMicros};
use tollgate::tokens::request::{BodyHead, RequestBody, TokenRequest};
use tollgate::tokens::usage_reader::UsageReader;

/// 2026-11-20T07:48:14Z, in microseconds.
const START: u64 = 1_795_160_894 * SECOND;
const EPOCH: &str = "0123456789abcdef";
/// The quota of cases that do not vary it.
const QUOTA: u64 = 1_000;
/// The cost, of every policy.
const COST: Cost = Cost { requests: 1, tokens: 1 };
const PERIODS: [Period; 3] = [Period::Minute, Period::Hour, Period::Day];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(case), Some(Ok(times))) = (args.next(), args.next().map(|times| times.parse())) else {
        // The arguments of `cargo bench`.
        println!("instructions CASE TIMES: see scripts/instructions.mjs");
        return ExitCode::SUCCESS;
    };
    if run(&case, times).is_none() {
        eprintln!("no such case: {case}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn run(case: &str, times: u64) -> Option<()> {
    match case {
        "row" => row(Algorithm::Fixed, 8, times),
        "row-sliding" => row(Algorithm::Sliding, 32, times),
        "protocol" => protocol(times),
        "key" => key(times),
        "key-hash" => key_hash(times),
        "deny-cache" => deny_cache(times),
        "answer-events" => answer("text/event-stream", &chat_events(), false, times),
        "answer-events-filtered" => answer("text/event-stream", &chat_events(), true, times),
        "answer-text" => answer("application/json", &chat_answer(), false, times),
        "answer-embeddings" => answer("application/json", &embeddings(), false, times),
        "token-request" => token_request(times),
        decision => {
            let (algorithm, rest) = decision.split_once('-')?;
            let algorithm = algorithm.parse().ok()?;
            match rest {
                "six" => admitted(&policies(algorithm, QUOTA, 6), DAY / QUOTA, times),
                "denied" => denied(&policies(algorithm, QUOTA, 1), times),
                quota => {
                    let quota = quota.parse().ok()?;
                    admitted(&policies(algorithm, quota, 1), MINUTE.checked_div(quota)?, times);
                }
            }
        }
    }
    Some(())
}

/// Up to six policies: minute, hour and day, of requests and of tokens. Sliding ones are all of
/// requests.
fn policies(algorithm: Algorithm, quota: u64, count: usize) -> Vec<Policy> {
    let second = if algorithm == Algorithm::Sliding { Unit::Requests } else { Unit::Tokens };
    let all = [Unit::Requests, second].into_iter().flat_map(|unit| PERIODS.map(|period| (unit, period)));
    let policy =
        |(index, (unit, period))| Policy::new(format!("p{index}"), unit, quota, period, algorithm, None).unwrap();
    all.enumerate().take(count).map(policy).collect()
}

fn repeat<T>(times: u64, mut work: impl FnMut() -> T) {
    for _ in 0..times {
        black_box(work());
    }
}

/// Judges a call as an object does. Most calls share a nonce, so that nonces fill no rows.
fn judge(state: &mut KeyState, policies: &[Policy], clock: UnixMicros, nonce: u64) -> Decision {
    let call = CallToJudge {
        cost: COST,
        method: CALL.method,
        class: "GET /v1/models",
        nonce: u64::MAX / 2 + nonce,
        idempotency_key: None,
        fingerprint: None,
        is_audited: false,
        thresholds: &[],
        hold: None,
        reprice: None,
    };
    let Judgement::Decided(decision) = state.judge_call(policies, clock, &call) else {
        // Without an idempotency key a call is no replay.
        std::process::abort()
    };
    decision
}

/// Calls at nine tenths of the rate that the policies allow, each followed by a commit, as an object
/// does with calls that arrive one by one. D1 gets the totals of each hour, or they would pile up.
fn admitted(policies: &[Policy], pace: u64, times: u64) {
    let mut state = KeyState::new(EPOCH.into());
    let mut clock = START;
    let mut call = || {
        clock += pace * 10 / 9;
        let decision = judge(&mut state, policies, UnixMicros::from_micros(clock), 0);
        assert!(decision.is_admitted());
        state.committed();
        state.confirmed(state.last_commit());
        if clock / HOUR != (clock - pace * 10 / 9) / HOUR {
            for total in state.meter().unflushed_hours() {
                state.mark_hour_flushed(&total);
            }
        }
        decision
    };
    // Fills logs and windows.
    repeat(2 * policies[0].quota(), &mut call);
    repeat(times, call);
}

/// A key that is out of quota and keeps calling.
fn denied(policies: &[Policy], times: u64) {
    let (mut state, clock) = exhausted(policies);
    repeat(times, || judge(&mut state, policies, clock, 0));
}

/// A key that is out of quota, and the time. Its last calls were a millisecond apart.
fn exhausted(policies: &[Policy]) -> (KeyState, UnixMicros) {
    let mut state = KeyState::new(EPOCH.into());
    let mut clock = UnixMicros::from_micros(START);
    while judge(&mut state, policies, clock, 0).is_admitted() {
        state.committed();
        state.confirmed(state.last_commit());
        clock = clock.saturating_add(SECOND / 1000);
    }
    (state, clock)
}

/// The text of a row, after so many calls.
fn row(algorithm: Algorithm, calls: u64, times: u64) {
    let policies = policies(algorithm, QUOTA, 2);
    let mut state = KeyState::new(EPOCH.into());
    for call in 0..calls {
        // A row has at least eight nonces.
        judge(&mut state, &policies, UnixMicros::from_micros(START + call * 7_000), call % 8);
    }
    repeat(times, || state.to_row());
}

const CALL: Call<'_> = Call {
    id: "abcdefghijklmnop",
    secret_hash: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    method: "GET",
    path: "/v1/models?limit=10",
};

/// The response of an object to a call with two policies.
fn known(state: &mut KeyState, policies: &[Policy], clock: UnixMicros) -> KeyResponse {
    let decision = judge(state, policies, clock, 0);
    KeyResponse {
        verdict: KeyVerdict::new(&decision.verdict, COST.requests),
        usage: KeyUsage::new("free", policies, &decision.usage),
    }
}

/// An object request and its response, each written and parsed.
fn protocol(times: u64) {
    let question = ObjectRequest::Check(Check {
        call: CALL,
        nonce: u64::MAX / 2,
        is_repeat: false,
        age: None,
        is_concurrent: false,
        is_found: false,
        report: None,
        idempotency_key: None,
        fingerprint: None,
        has_malformed_key: false,
        held: None,
        outcomes: CallOutcomes::default(),
    });
    let policies = policies(Algorithm::Fixed, QUOTA, 2);
    let answer =
        ObjectResponse::Key(known(&mut KeyState::new(EPOCH.into()), &policies, UnixMicros::from_micros(START)));
    repeat(times, || {
        let asked = question.to_url();
        black_box(ObjectRequest::parse(&asked));
        ObjectResponse::parse(&answer.to_line())
    });
}

/// Checks a presented key: form and tag.
fn key(times: u64) {
    let (signer, key) = issued();
    repeat(times, || PresentedKey::verify(black_box(&key), &signer).is_some());
}

/// The hash under which its secret is stored.
fn key_hash(times: u64) {
    let (signer, key) = issued();
    let presented = PresentedKey::verify(&key, &signer).unwrap();
    repeat(times, || black_box(presented).secret_hash());
}

fn issued() -> (Signer, String) {
    let signer = Signer::new("a secret of some length, as KEY_SECRET is", []).unwrap();
    let key = key::issue(&signer, &[7; ENTROPY_BYTES]).key;
    (signer, key)
}

/// A call that is denied from an isolate's cache.
fn deny_cache(times: u64) {
    let policies = policies(Algorithm::Fixed, QUOTA, 2);
    let (mut state, clock) = exhausted(&policies);
    let denial = known(&mut state, &policies, clock);
    let mut denials = DenyCache::default();
    denials.keep(CALL, Keyed::No, &denial, 0..1, 10_000, denials.generation());
    repeat(times, || denials.find(black_box(CALL), Keyed::No, 2).is_some());
}

/// A piece of an origin's answer, as the runtime hands them over.
const PIECE: usize = 1_024;
/// Bytes of an answer, about.
const ANSWER: usize = 8 * 1024;

/// A streamed chat of short events, with the usage asked for.
fn chat_events() -> String {
    let event = r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}"#;
    [event, "\n\n"].concat().repeat(ANSWER / event.len())
}

/// A long text in one answer.
fn chat_answer() -> String {
    let text = r#"Some words, \"quoted\" and not,\nin lines. "#;
    let text = text.repeat(ANSWER / text.len());
    format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}}}}],"usage":{{"total_tokens":9}}}}"#)
}

/// Numbers.
fn embeddings() -> String {
    let numbers = "-0.0069292834,".repeat(ANSWER / 14);
    format!(r#"{{"data":[{{"embedding":[{numbers}0.5]}}],"usage":{{"total_tokens":8}}}}"#)
}

/// The reading of an answer while it passes.
fn answer(content_type: &str, answer: &str, strips: bool, times: u64) {
    repeat(times, || {
        let mut reader = UsageReader::new(UsageFormat::OpenAi, Some(content_type), strips);
        for piece in answer.as_bytes().chunks(PIECE) {
            black_box(reader.feed(piece));
        }
        reader.finish()
    });
}

/// A request of a chat: what it holds, and a question for its usage.
fn token_request(times: u64) {
    let route = TokenRoute {
        pattern: "/v1/chat/completions".into(),
        method: "POST".into(),
        format: UsageFormat::OpenAi,
        default_output: 1_000,
        max_output: 4_096,
        bytes_per_token: 1,
        max_input: None,
    };
    let text = "Some words of a conversation. ".repeat(100);
    let body = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}],"stream":true}}"#);
    let head = BodyHead { content_type: Some("application/json"), content_encoding: None };
    repeat(times, || {
        let request = TokenRequest::read(&route, head, RequestBody::Whole(body.clone().into())).unwrap();
        request.rewritten(None)
    });
}
