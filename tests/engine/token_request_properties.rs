//! However an origin reads a body, it generates no more than was held.

#![allow(clippy::cast_precision_loss)]

use crate::token_requests::{request, route};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use tollgate::keys::token_route::UsageFormat;
use tollgate::tokens::request::{BodyHead, RequestBody, TokenRequest};

const VALUES: [&str; 16] = [
    "null",
    "0",
    "1",
    "7",
    "7.0",
    "6.5",
    "3000",
    "3e3",
    "9999999",
    "\"7\"",
    "\"3000\"",
    "\"3_000\"",
    "true",
    "false",
    "[]",
    "{\"max_tokens\":1}",
];

/// The members of an object, all of them.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// How an origin reads a body.
#[derive(Debug, Clone, Copy)]
struct Origin {
    takes_last: bool,
    ignores_case: bool,
    reads_texts: bool,
}

fn origins() -> impl Iterator<Item = Origin> {
    (0..8).map(|bits| Origin { takes_last: bits & 1 > 0, ignores_case: bits & 2 > 0, reads_texts: bits & 4 > 0 })
}

impl Origin {
    /// The number that a member has to it; `None` if it has none.
    fn number(self, members: &Members, name: &str) -> Option<f64> {
        let is_it = |(found, _): &&(String, Value)| {
            if self.ignores_case { found.eq_ignore_ascii_case(name) } else { found == name }
        };
        let mut found = members.0.iter().filter(is_it);
        let (_, value) = if self.takes_last { found.next_back() } else { found.next() }?;
        match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if self.reads_texts => text.replace('_', "").parse().ok(),
            _ => None,
        }
    }

    /// Tokens that it generates, of the answers that it gives.
    fn output(self, body: &str) -> f64 {
        let members: Members = serde_json::from_str(body).unwrap();
        let route = route(UsageFormat::OpenAi);
        // Nothing and 0 are the default to it, and it has a limit of its own.
        let cap = self.number(&members, "max_tokens").filter(|cap| *cap > 0.0);
        let cap = cap.unwrap_or(route.default_output as f64).min(route.max_output as f64);
        let answers = self.number(&members, "n").unwrap_or(1.0).max(1.0);
        cap.floor() * answers.floor()
    }
}

fn members() -> impl Strategy<Value = Vec<(String, &'static str)>> {
    let name = proptest::sample::select(&["max_tokens", "MAX_TOKENS", "Max_Tokens", "n", "N", "x"][..]);
    vec((name.prop_map(str::to_owned), proptest::sample::select(&VALUES[..])), 0..5)
}

fn written(members: &[(String, &str)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A body with members of all shapes among caps.
fn body() -> impl Strategy<Value = Value> {
    let names = [
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "generationConfig",
        "stream",
        "stream_options",
        "messages",
        "prompt",
        "input",
        "contents",
        "model",
        "x",
    ];
    let number = prop_oneof![(0_u64..5_000).prop_map(Value::from), Just(Value::Null), Just(json!("a"))];
    let config = prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!({"topK": 1})),
        Just(json!({"include_usage": true, "x": [1]})),
        Just(json!({"include_usage": false})),
        (0_u64..5_000).prop_map(|cap| json!({"maxOutputTokens": cap, "topK": 1})),
    ];
    let value = prop_oneof![number, config, any::<bool>().prop_map(Value::from), Just(json!([{"content": "a\"b"}]))];
    vec((proptest::sample::select(names.to_vec()), value), 1..6)
        .prop_map(|members| Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

fn formats() -> impl Strategy<Value = UsageFormat> {
    let all = [UsageFormat::OpenAi, UsageFormat::Anthropic, UsageFormat::Gemini, UsageFormat::Header];
    proptest::sample::select(all.to_vec())
}

/// A body without what a change may write.
fn without_written(body: &Value) -> Value {
    let mut body = body.clone();
    let members = body.as_object_mut().unwrap();
    members.retain(|name, _| !matches!(name.as_str(), "max_tokens" | "max_completion_tokens" | "max_output_tokens"));
    for (name, written) in [("generationConfig", "maxOutputTokens"), ("stream_options", "include_usage")] {
        let inner = members.remove(name).unwrap_or_default();
        let mut inner = inner.as_object().cloned().unwrap_or_else(Map::new);
        inner.remove(written);
        members.insert(name.to_owned(), inner.into());
    }
    body
}

proptest! {
    #[test]
    fn no_origin_generates_more_than_was_held(members in members()) {
        let body = written(&members);
        let hold = request(UsageFormat::OpenAi, &body).hold;
        for origin in origins() {
            let output = origin.output(&body);
            prop_assert!(output <= hold.output_per_answer as f64 * hold.answers as f64, "{origin:?} {output} {hold:?} {body}");
        }
    }

    #[test]
    fn no_origin_generates_more_than_a_cap_that_was_written(members in members(), cap in 1_u64..5_000) {
        let body = written(&members).replacen('{', "{\"messages\":[],", 1).replace(",}", "}");
        let request = request(UsageFormat::OpenAi, &body);
        if let Some(hold) = request.hold.within(request.hold.input.saturating_add(cap.saturating_mul(request.hold.answers)))
            && request.can_be_clamped()
            && hold != request.hold
        {
            // Caps that are small enough stay.
            let rewritten = request.rewritten(Some(hold.output_per_answer));
            let rewritten = rewritten.map_or(body, |body| String::from_utf8(body).unwrap());
            for origin in origins() {
                let output = origin.output(&rewritten);
                prop_assert!(output <= (hold.output_per_answer as f64) * hold.answers as f64, "{origin:?} {output} {hold:?} {rewritten}");
            }
        }
    }

    #[test]
    fn a_change_is_of_nothing_else(format in formats(), body in body(), is_pretty in any::<bool>(), cap in 1_u64..5_000) {
        let text = if is_pretty { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() };
        let request = request(format, &text);
        let Some(rewritten) = request.rewritten(Some(cap)) else { return Ok(()) };
        let rewritten: Value = serde_json::from_slice(&rewritten).unwrap();
        prop_assert_eq!(without_written(&rewritten), without_written(&body));
        let again = self::request(format, &rewritten.to_string());
        if request.can_be_clamped() {
            prop_assert!(again.hold.output_per_answer <= cap, "{} {}", text, rewritten);
            let is_written = |body: &Value| {
                let caps = ["max_tokens", "max_completion_tokens", "max_output_tokens"].map(|name| body.get(name).cloned());
                caps.iter().flatten().chain(body.pointer("/generationConfig/maxOutputTokens")).all(|found| {
                    found.as_u64().is_some_and(|found| (1..=cap).contains(&found))
                })
            };
            prop_assert!(is_written(&rewritten), "{} {}", text, rewritten);
        }
        if request.needs_usage() {
            prop_assert_eq!(rewritten.pointer("/stream_options/include_usage"), Some(&Value::Bool(true)));
            prop_assert!(again.asks_usage());
        } else {
            prop_assert_eq!(rewritten.get("stream_options"), body.get("stream_options"));
        }
    }

    #[test]
    fn any_bytes_hold_their_length(
        bytes in vec(prop_oneof![
            vec(any::<u8>(), 0..4),
            r#"(\{|\}|\[|\]|,|:|"|\\|"max_tokens":|"n":|null|7|-|e|"prompt":| )"#.prop_map(String::into_bytes),
        ], 0..40),
        content_type in proptest::option::of(proptest::sample::select(&["application/json", "text/plain"][..])),
    ) {
        let (bytes, route) = (bytes.concat(), route(UsageFormat::OpenAi));
        let head = BodyHead { content_type, content_encoding: None };
        if let Ok(request) = TokenRequest::read(&route, head, RequestBody::Whole(bytes.clone())) {
            let is_json = serde_json::from_slice::<Value>(&bytes).is_ok();
            prop_assert!(request.hold.input == bytes.len() as u64 && request.hold.answers >= 1);
            prop_assert!(is_json || bytes.is_empty() || request.hold.output_per_answer == route.max_output);
            prop_assert!(is_json || !request.can_be_clamped());
        }
    }
}
