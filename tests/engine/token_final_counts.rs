//! Which counts of an answer are those of all that was generated, and what other answers are charged.

use crate::token_answers::{EVENTS, JSON};
use crate::token_requests::request;
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate::gateway::token_answer::AnswerMeter;
use tollgate::keys::token_route::UsageFormat::{self, Anthropic, Gemini, Header, OpenAi};
use tollgate::metering::call_outcome::UsedTokens::{self, Estimated, Held, Reported};
use tollgate::tokens::request::TokenHold;

const HOLD: TokenHold = TokenHold { input: 100, output_per_answer: 500, answers: 1 };

fn meter(format: UsageFormat, answers: u64, content_type: &str, body: &[u8]) -> AnswerMeter {
    let mut meter = AnswerMeter::new(TokenHold { answers, ..HOLD }, format, false);
    meter.begin(200, Some(content_type), None);
    for byte in body {
        meter.pass(&[*byte]);
    }
    meter
}

fn cut(format: UsageFormat, answers: u64, content_type: &str, body: &str) -> UsedTokens {
    meter(format, answers, content_type, body.as_bytes()).used_when_cut()
}

fn ended(format: UsageFormat, content_type: &str, body: &str) -> UsedTokens {
    let mut meter = meter(format, 1, content_type, body.as_bytes());
    meter.end();
    assert_eq!(meter.used(), meter.used_when_cut());
    meter.used()
}

fn events(parts: &[&str]) -> String {
    parts.iter().map(|part| ["data: ", part, "\n\n"].concat()).collect()
}

const START: &str = r#"{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}"#;
const DELTA: &str = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello"}}"#;
const STOP: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#;
const FAULT: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;

#[test]
fn a_stream_that_ends_without_its_last_count_is_charged_as_one_that_was_cut() {
    let early = r#"{"candidates":[{"content":{"parts":[{"text":"Hel"}]}}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"totalTokenCount":6}}"#;
    let more = r#"{"candidates":[{"content":{"parts":[{"text":"lo you"}]}}]}"#;
    let counted = r#"{"choices":[{"delta":{"content":"Hel"}}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}"#;
    let text = r#"{"choices":[{"delta":{"content":"lo you"}}]}"#;
    let huge = START.replace("25", "9000");
    for (format, parts, used) in [
        (Anthropic, &[START, DELTA, FAULT][..], Estimated(31)),
        (Anthropic, &[START], Estimated(26)),
        (Anthropic, &[START, DELTA, STOP], Reported(40)),
        (Anthropic, &[&huge, DELTA], Estimated(9_001)),
        (Gemini, &[early], Estimated(6)),
        (Gemini, &[early, more], Estimated(12)),
        (OpenAi, &[counted], Reported(6)),
        (OpenAi, &[counted, text], Estimated(12)),
        (OpenAi, &[counted, text, "[DONE]"], Estimated(12)),
        (OpenAi, &[text, counted, "[DONE]"], Reported(6)),
        (OpenAi, &[text, "[DONE]"], Held),
    ] {
        assert_eq!(ended(format, EVENTS, &events(parts)), used, "{parts:?}");
    }
    assert_eq!(ended(Gemini, JSON, &format!("[{early}")), Estimated(6));
}

#[test]
fn a_reason_to_stop_counts_at_the_end_of_its_event() {
    let stream = events(&[START, DELTA, STOP]);
    let end = stream.len() - 1;
    assert!(matches!(cut(Anthropic, 1, EVENTS, &stream[..end]), Estimated(_)));
    assert_eq!(cut(Anthropic, 1, EVENTS, &stream), Reported(40));
    // The model goes on.
    let on = events(&[START, DELTA, STOP, DELTA]);
    assert_eq!(cut(Anthropic, 1, EVENTS, &on), Estimated(45));
    assert_eq!(ended(Anthropic, EVENTS, &on), Estimated(45));
}

#[test]
fn one_of_several_answers_that_ends_is_not_the_end() {
    let candidate = |index, end: &str, count| {
        format!(
            r#"{{"candidates":[{{{end}"content":{{"parts":[{{"text":"abc"}}]}},"index":{index}}}],"usageMetadata":{{"promptTokenCount":4,"candidatesTokenCount":{count},"totalTokenCount":{}}}}}"#,
            count + 4
        )
    };
    let stop = r#""finishReason":"STOP","#;
    let parts = [candidate(0, "", 1), candidate(1, "", 2), candidate(0, stop, 3)];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    assert_eq!(cut(Gemini, 2, EVENTS, &events(&parts)), Estimated(7));
    let last = candidate(1, stop, 9);
    assert_eq!(cut(Gemini, 2, EVENTS, &(events(&parts) + &events(&[&last]))), Reported(13));
    // The second one has not begun.
    let first = candidate(0, stop, 3);
    assert_eq!(cut(Gemini, 2, EVENTS, &events(&[&first])), Estimated(7));
    assert_eq!(cut(Gemini, 1, EVENTS, &events(&[&first])), Reported(7));
    assert_eq!(cut(Gemini, 1, JSON, &format!("[{first}")), Reported(7));
}

#[test]
fn usage_before_the_text_is_not_the_end() {
    let usage = |output| {
        let total = output + 9;
        format!(r#"{{"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{output},"total_tokens":{total}}}}}"#)
    };
    let (none, all) = (usage(0), usage(5));
    let text = r#"{"choices":[{"index":0,"delta":{"content":"abc"},"finish_reason":null}]}"#;
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    assert_eq!(cut(OpenAi, 1, EVENTS, &events(&[&none])), Estimated(10));
    assert_eq!(cut(OpenAi, 1, EVENTS, &events(&[&none, text, stop])), Estimated(12));
    assert_eq!(cut(OpenAi, 1, EVENTS, &events(&[&none, text, stop, &all])), Reported(14));
    assert_eq!(cut(OpenAi, 1, EVENTS, &events(&[&none, text, &all, "[DONE]"])), Reported(14));
    let response = |kind: &str, count| {
        format!(
            r#"{{"response":{{"usage":{{"input_tokens":9,"output_tokens":{count},"total_tokens":{}}}}},"type":"response.{kind}"}}"#,
            count + 9
        )
    };
    let delta = r#"{"type":"response.output_text.delta","delta":"abc"}"#;
    let (begun, done) = (response("in_progress", 1), response("completed", 7));
    assert_eq!(cut(OpenAi, 1, EVENTS, &events(&[&begun])), Estimated(10));
    assert_eq!(cut(OpenAi, 1, EVENTS, &events(&[&begun, delta, &done])), Reported(16));
}

#[test]
fn an_answer_that_is_no_stream_has_been_generated_whole() {
    let whole = 600;
    let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}"#;
    for (format, body, used) in [
        (OpenAi, r#"{"choices":[{"message":{"content":"Hel"#.to_owned(), Estimated(whole)),
        (OpenAi, String::new(), Estimated(whole)),
        (OpenAi, " \n".to_owned(), Estimated(whole)),
        (OpenAi, "ID3".to_owned(), Estimated(whole)),
        // A part of the counts is none.
        (OpenAi, r#"{"usage":{"prompt_tokens":7,"#.to_owned(), Estimated(whole)),
        (OpenAi, r#"{"usage":{"prompt_tokens":7000,"#.to_owned(), Estimated(7_000)),
        (OpenAi, format!("{{{usage},\"choices\":[{{\"message\":"), Reported(12)),
        (
            Gemini,
            r#"{"candidates":[{"finishReason":"STOP","content":{"parts":[{"text":"Hel"#.to_owned(),
            Estimated(whole),
        ),
        (Anthropic, r#"{"stop_reason":"end_turn","content":[{"text":"Hel"#.to_owned(), Estimated(whole)),
        // A stream of Gemini's as a list.
        (Gemini, r#"[{"candidates":[{"content":{"parts":[{"text":"Hel"#.to_owned(), Estimated(103)),
    ] {
        assert_eq!(cut(format, 1, JSON, &body), used, "{format:?} {body}");
    }
    assert_eq!(cut(Header, 1, "audio/mpeg", "ID3"), Estimated(whole));
    assert_eq!(cut(Header, 1, EVENTS, "data: x"), Estimated(107));
    // An origin that failed has generated nothing.
    let mut failed = AnswerMeter::new(HOLD, OpenAi, false);
    failed.begin(500, Some(JSON), None);
    failed.pass(b"{");
    assert_eq!(failed.used_when_cut(), Reported(0));
}

#[test]
fn a_stream_of_a_model_that_reasons_is_charged_whole_if_it_is_cut() {
    for (format, body, hides) in [
        (OpenAi, r#"{"model":"o3","messages":[]}"#, true),
        (OpenAi, r#"{"model":"gpt-5","input":"a"}"#, true),
        (OpenAi, r#"{"model":"x","messages":[],"reasoning_effort":"high"}"#, true),
        (OpenAi, r#"{"model":"x","input":"a","reasoning":{"effort":"low"}}"#, true),
        (OpenAi, r#"{"model":"x","messages":["#, true),
        (OpenAi, r#"{"model":"gpt-4.1","messages":[{"reasoning":1}]}"#, false),
        (OpenAi, r#"{"messages":[]}"#, false),
        (Anthropic, r#"{"model":"o3","messages":[]}"#, false),
    ] {
        assert_eq!(request(format, body).hides_output(), hides, "{body}");
    }
    let text = events(&[r#"{"choices":[{"delta":{"content":"abc"}}]}"#]);
    let stop = events(&[r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#]);
    let usage = events(&[r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":80,"total_tokens":89}}"#]);
    let hidden = |body: &str, hides| {
        let mut meter = AnswerMeter::new(HOLD, OpenAi, false).hiding(hides);
        meter.begin(200, Some(EVENTS), None);
        meter.pass(body.as_bytes());
        meter.used_when_cut()
    };
    assert_eq!(hidden(&text, true), Estimated(600));
    assert_eq!(hidden(&text, false), Estimated(103));
    assert_eq!(hidden("", true), Estimated(600));
    assert_eq!(hidden(&[text, stop, usage].concat(), true), Reported(89));
}

#[test]
fn a_total_below_its_parts_does_not_hide_them() {
    let body =
        |total: &str| format!(r#"{{"usage":{{"prompt_tokens":70,"completion_tokens":50,"total_tokens":{total}}}}}"#);
    for (total, used) in [("0", 120), ("119", 120), ("120", 120), ("500", 500), ("null", 120)] {
        assert_eq!(ended(OpenAi, JSON, &body(total)), Reported(used), "{total}");
    }
}

/// A stream of chunks of several choices, and the counts at its end.
fn chunks() -> impl Strategy<Value = (UsageFormat, u64, Vec<String>, u64)> {
    let step = (0_usize..3, 0_usize..5, any::<bool>(), any::<bool>());
    (proptest::sample::select(&[OpenAi, Gemini][..]), 1_usize..4, vec(step, 0..12)).prop_map(
        |(format, answers, mut steps)| {
            steps.extend((0..answers).map(|choice| (choice, 1, true, true)));
            let (mut output, mut parts, mut open) = (0, Vec::new(), vec![true; answers]);
            let left = |steps: &[(usize, usize, bool, bool)], choice| steps.iter().any(|step| step.0 % answers == choice);
            for (at, (choice, length, is_counted, _)) in steps.iter().enumerate() {
                let (choice, text) = (choice % answers, "x".repeat(*length));
                output += length;
                let ends = !left(&steps[at + 1..], choice);
                open[choice] &= !ends;
                let is_last = !open.contains(&true);
                let total = output + 9;
                let usage = match format {
                    _ if !(*is_counted || is_last) => String::new(),
                    Gemini => format!(
                        r#","usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":{output},"totalTokenCount":{total}}}"#
                    ),
                    _ => format!(
                        r#","usage":{{"total_tokens":{total},"prompt_tokens":9,"completion_tokens":{output}}}"#
                    ),
                };
                let reason = if ends { r#""STOP""# } else { "null" };
                parts.push(match format {
                    Gemini => format!(
                        r#"{{"candidates":[{{"finishReason":{reason},"content":{{"parts":[{{"text":"{text}"}}]}},"index":{choice}}}]{usage}}}"#
                    ),
                    _ => format!(
                        r#"{{"choices":[{{"index":{choice},"finish_reason":{reason},"delta":{{"content":"{text}"}}}}]{usage}}}"#
                    ),
                });
            }
            (format, answers as u64, parts, output as u64 + 9)
        },
    )
}

proptest! {
    /// Wherever a client leaves, what is charged as reported is what the whole answer has used.
    #[test]
    fn what_is_charged_as_reported_is_all_that_was_used((format, answers, parts, total) in chunks(), is_list in any::<bool>()) {
        let is_list = is_list && format == Gemini;
        let body = if is_list {
            format!("[{}]", parts.join(","))
        } else {
            events(&parts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let mut meter = meter(format, answers, if is_list { JSON } else { EVENTS }, b"");
        for byte in body.as_bytes() {
            meter.pass(&[*byte]);
            match meter.used_when_cut() {
                Reported(tokens) => prop_assert_eq!(tokens, total),
                Estimated(tokens) => prop_assert!(tokens > 0),
                Held => prop_assert!(false, "held"),
            }
        }
        prop_assert_eq!(meter.used_when_cut(), Reported(total));
        meter.end();
        prop_assert_eq!(meter.used(), Reported(total));
    }
}
