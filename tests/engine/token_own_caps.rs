//! A cap that the origin does not know holds only if it is also where the origin looks for it.

use crate::token_requests::{request, route};
use proptest::prelude::*;
use serde_json::Value;
use tollgate::keys::token_route::UsageFormat::{self, Anthropic, Gemini, Header, OpenAi};
use tollgate::tokens::request::{BodyHead, RequestBody, TokenRequest};

fn sent(format: UsageFormat, body: &str) -> (u64, Option<String>) {
    let request = request(format, body);
    let rewritten = request.rewritten(None).map(|body| String::from_utf8(body).unwrap());
    (request.hold.output_per_answer, rewritten)
}

#[test]
fn a_cap_that_the_origin_does_not_know_is_written_into_its_own_field() {
    for (format, body, expected) in [
        (OpenAi, r#"{"messages":[],"max_output_tokens":1}"#, r#"{"max_tokens":1,"messages":[],"max_output_tokens":1}"#),
        (
            OpenAi,
            r#"{"messages":[],"generationConfig":{"maxOutputTokens":1}}"#,
            r#"{"max_tokens":1,"messages":[],"generationConfig":{"maxOutputTokens":1}}"#,
        ),
        (
            OpenAi,
            r#"{"messages":[],"max_tokens":null,"max_output_tokens":1}"#,
            r#"{"messages":[],"max_tokens":1,"max_output_tokens":1}"#,
        ),
        (
            OpenAi,
            r#"{"model":"o3","messages":[],"max_output_tokens":1}"#,
            r#"{"max_completion_tokens":1,"model":"o3","messages":[],"max_output_tokens":1}"#,
        ),
        (OpenAi, r#"{"prompt":"a","max_output_tokens":1}"#, r#"{"max_tokens":1,"prompt":"a","max_output_tokens":1}"#),
        (OpenAi, r#"{"input":"a","max_tokens":1}"#, r#"{"max_output_tokens":1,"input":"a","max_tokens":1}"#),
        (
            OpenAi,
            r#"{"input":"a","max_completion_tokens":1,"max_tokens":0.5}"#,
            r#"{"max_output_tokens":1,"input":"a","max_completion_tokens":1,"max_tokens":0.5}"#,
        ),
        (
            Anthropic,
            r#"{"messages":[],"max_output_tokens":1}"#,
            r#"{"max_tokens":1,"messages":[],"max_output_tokens":1}"#,
        ),
        (
            Gemini,
            r#"{"contents":[],"max_tokens":1}"#,
            r#"{"generationConfig":{"maxOutputTokens":1},"contents":[],"max_tokens":1}"#,
        ),
        (
            Gemini,
            r#"{"contents":[],"max_tokens":1,"generationConfig":{"topK":1}}"#,
            r#"{"contents":[],"max_tokens":1,"generationConfig":{"maxOutputTokens":1,"topK":1}}"#,
        ),
        (
            Gemini,
            r#"{"contents":[],"max_tokens":1,"generationConfig":{"maxOutputTokens":null}}"#,
            r#"{"contents":[],"max_tokens":1,"generationConfig":{"maxOutputTokens":1}}"#,
        ),
    ] {
        assert_eq!(sent(format, body), (1, Some(expected.to_owned())), "{body}");
    }
    // With the question for the usage of a stream, and below a clamp.
    let body = r#"{"messages":[],"stream":true,"max_output_tokens":9}"#;
    let expected =
        r#"{"max_tokens":9,"stream_options":{"include_usage":true},"messages":[],"stream":true,"max_output_tokens":9}"#;
    assert_eq!(sent(OpenAi, body), (9, Some(expected.to_owned())));
    let clamped = request(OpenAi, body).rewritten(Some(7)).unwrap();
    assert_eq!(String::from_utf8(clamped).unwrap(), expected.replace('9', "7"));
}

#[test]
fn a_body_with_a_cap_that_the_origin_knows_stays_as_it_is() {
    for (format, body, output) in [
        (OpenAi, r#"{"messages":[],"max_tokens":5,"max_output_tokens":1}"#, 5),
        (OpenAi, r#"{"messages":[],"max_completion_tokens":5,"max_output_tokens":1}"#, 5),
        (OpenAi, r#"{"messages":[],"max_tokens":null,"max_completion_tokens":5}"#, 5),
        (OpenAi, r#"{"messages":[],"max_tokens":5,"max_output_tokens":null}"#, 5),
        (OpenAi, r#"{"input":"a","max_output_tokens":5,"max_tokens":1}"#, 5),
        (Anthropic, r#"{"messages":[],"max_tokens":5}"#, 5),
        (Gemini, r#"{"contents":[],"generation_config":{"max_output_tokens":5},"max_tokens":1}"#, 5),
        // Without a number, or one that some read as none, the default is held.
        (OpenAi, r#"{"messages":[]}"#, 1_000),
        (OpenAi, r#"{"messages":[],"max_output_tokens":null}"#, 1_000),
        (OpenAi, r#"{"messages":[],"max_output_tokens":"1"}"#, 1_000),
        (OpenAi, r#"{"messages":[],"MAX_OUTPUT_TOKENS":1}"#, 1_000),
        // Of no known form.
        (OpenAi, r#"{"max_output_tokens":1}"#, 1),
        (Gemini, r#"{"max_tokens":1}"#, 1),
        (Header, r#"{"messages":[],"max_output_tokens":1}"#, 1),
    ] {
        assert_eq!(sent(format, body), (output, None), "{body}");
    }
    let none = tollgate::keys::token_route::TokenRoute { default_output: 0, max_output: 0, ..route(OpenAi) };
    let body = RequestBody::Whole(br#"{"input":"a","max_tokens":1}"#.to_vec());
    let request = TokenRequest::read(&none, BodyHead::default(), body).unwrap();
    assert_eq!((request.hold.output_per_answer, request.rewritten(None)), (0, None));
}

#[test]
fn where_an_own_cap_cannot_be_written_the_default_is_held() {
    for (format, body, output) in [
        (OpenAi, r#"[{"messages":[],"max_output_tokens":1}]"#, 1_000),
        (OpenAi, r#"[{"messages":[],"max_tokens":5},{"input":"a","max_tokens":1}]"#, 1_000),
        (OpenAi, r#"[{"messages":[],"max_output_tokens":2000}]"#, 2_000),
        (OpenAi, r#"[{"messages":[],"max_tokens":5}]"#, 5),
        (OpenAi, r#"{"messages":[],"max_output_tokens":1,"generationConfig":[]}"#, 1_000),
        (Gemini, r#"{"requests":[{"contents":[],"max_tokens":1}]}"#, 1_000),
        (Header, r#"[{"messages":[],"max_output_tokens":1}]"#, 1),
    ] {
        assert_eq!(sent(format, body), (output, None), "{body}");
    }
}

#[test]
fn a_batch_of_gemini_is_a_list_of_calls() {
    let held = |format, body: &str| {
        let request = request(format, body);
        (request.hold.output_per_answer, request.hold.answers)
    };
    let call = r#"{"contents":[],"generationConfig":{"maxOutputTokens":5,"candidateCount":2}}"#;
    for (body, output, answers) in [
        (format!(r#"{{"requests":[{call},{call}]}}"#), 5, 4),
        (format!(r#"{{"requests":[{call},{{"contents":[]}}],"model":"x"}}"#), 1_000, 3),
        (format!(r#"{{"requests":[{call}],"requests":[{call}]}}"#), 5, 4),
        (format!(r#"{{"REQUESTS":[{call},{call}]}}"#), 1_000, 4),
        // An origin that takes the body for one call reads these.
        (format!(r#"{{"requests":[{call}],"contents":[]}}"#), 1_000, 3),
        (format!(r#"{{"generationConfig":{{"maxOutputTokens":9}},"requests":[{call}]}}"#), 9, 3),
        (r#"{"requests":[]}"#.to_owned(), 1_000, 1),
        (r#"{"requests":[1]}"#.to_owned(), 1_000, 1),
    ] {
        assert_eq!(held(Gemini, &body), (output, answers), "{body}");
    }
    let batch = format!(r#"{{"requests":[{call},{call}]}}"#);
    assert!(!request(Gemini, &batch).can_be_clamped());
    assert_eq!(request(Gemini, &batch).rewritten(Some(1)), None);
    assert_eq!(held(OpenAi, &batch), (1_000, 1));
}

#[test]
fn a_member_in_other_letters_is_not_the_origins_own() {
    let clamped = |format, body: &str| String::from_utf8(request(format, body).rewritten(Some(7)).unwrap()).unwrap();
    for (body, own) in [
        (r#"{"contents":[],"GENERATIONCONFIG":{}}"#, r#"{"generationConfig":{"maxOutputTokens":7},"#),
        (r#"{"contents":[],"GenerationConfig":null}"#, r#"{"generationConfig":{"maxOutputTokens":7},"#),
    ] {
        let written = clamped(Gemini, body);
        assert!(written.starts_with(own), "{written}");
        // An origin that compares without case may take the last one.
        assert_eq!(written.matches("\"maxOutputTokens\":7").count(), 2, "{written}");
    }
    let both = clamped(Gemini, r#"{"contents":[],"GENERATIONCONFIG":{},"generationConfig":{}}"#);
    assert_eq!(both.matches("\"generationConfig\"").count(), 1, "{both}");
    let asked = request(OpenAi, r#"{"messages":[],"stream":true,"STREAM_OPTIONS":{}}"#).rewritten(None).unwrap();
    let asked = String::from_utf8(asked).unwrap();
    assert!(asked.starts_with(r#"{"stream_options":{"include_usage":true},"#), "{asked}");
}

/// What an origin generates that ignores the members that it does not know.
fn generated(format: UsageFormat, body: &Value) -> u64 {
    let number = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64);
    let cap = match format {
        Gemini => number("/generationConfig/maxOutputTokens"),
        Anthropic => number("/max_tokens"),
        _ if body.get("messages").is_some() => number("/max_completion_tokens").or(number("/max_tokens")),
        _ => number("/max_output_tokens"),
    };
    cap.unwrap_or(1_000)
}

proptest! {
    #[test]
    fn no_origin_generates_more_than_was_held_for_a_cap_that_it_ignores(
        (format, form) in proptest::sample::select(&[
            (OpenAi, "messages"), (OpenAi, "input"), (Anthropic, "messages"), (Gemini, "contents"),
        ][..]),
        caps in proptest::collection::vec((
            proptest::sample::select(&["max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"][..]),
            proptest::option::of(1_u64..2_000),
        ), 0..4),
    ) {
        let mut body = serde_json::json!({ form: [] });
        for (name, cap) in caps {
            if name == "maxOutputTokens" {
                body["generationConfig"] = serde_json::json!({ name: cap });
            } else {
                body[name] = cap.into();
            }
        }
        let text = body.to_string();
        let (held, written) = sent(format, &text);
        let written = written.unwrap_or(text);
        prop_assert!(generated(format, &serde_json::from_str(&written).unwrap()) <= held, "{held} {written}");
    }
}
