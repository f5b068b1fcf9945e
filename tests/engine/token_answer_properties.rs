//! Answers in any pieces are read the same, and agree with what a parser of whole texts finds.

use crate::token_answers::{EVENTS, JSON, read};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tollgate::keys::token_route::UsageFormat::{self, Anthropic, Gemini, OpenAi};
use tollgate::tokens::usage_reader::{EVENT_LIMIT, Passed, UsageReader};

/// Names that mean something somewhere, and some that never do.
const NAMES: [&str; 22] = [
    "usage",
    "usageMetadata",
    "response",
    "message",
    "choices",
    "delta",
    "content",
    "candidates",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "promptTokenCount",
    "candidatesTokenCount",
    "totalTokenCount",
    "type",
    "x",
    "Usage",
    "usage ",
    "",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
        r#"[a-z"\\{}\[\]:, \n\r\t]{0,12}"#,
        any::<String>(),
        Just(r#"","usage":{"total_tokens":9}"#.to_owned()),
        Just("data: [DONE]\n\n".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u64..1_000_000).prop_map(Value::from),
        (-1_000_i64..0).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..5).prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// An answer with counts where they belong, among anything else.
fn answer(format: UsageFormat) -> impl Strategy<Value = Value> {
    let names: &[&str] = match format {
        Anthropic => &["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"],
        Gemini => &["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"],
        _ => &["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"],
    };
    let count = prop_oneof![(0_u64..1_000_000).prop_map(Value::from), value()];
    let usage = vec((proptest::sample::select(names), count), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()));
    let usage_name = if format == Gemini { "usageMetadata" } else { "usage" };
    (value(), prop_oneof![4 => usage, 1 => value()], any::<bool>()).prop_map(move |(rest, usage, is_there)| {
        let mut answer = if let Value::Object(members) = rest { members } else { Map::from_iter([("x".into(), rest)]) };
        if is_there {
            answer.insert(usage_name.into(), usage);
        }
        Value::Object(answer)
    })
}

/// Input, output and total, as they stand in a whole answer.
fn expected(format: UsageFormat, answer: &Value) -> Option<(Option<u64>, Option<u64>, u64)> {
    let count = |name: &str| {
        let usage = answer.get(if format == Gemini { "usageMetadata" } else { "usage" });
        // An item of an array is no member.
        usage?.as_object()?.get(name)?.as_u64()
    };
    let sum = |names: &[&str]| names.iter().filter_map(|name| count(name)).reduce(|sum, count| sum + count);
    let (input, output, total) = match format {
        Anthropic => (
            sum(&["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]),
            count("output_tokens"),
            None,
        ),
        Gemini => {
            (sum(&["promptTokenCount"]), sum(&["candidatesTokenCount", "thoughtsTokenCount"]), count("totalTokenCount"))
        }
        _ => (
            count("input_tokens").or(count("prompt_tokens")),
            count("output_tokens").or(count("completion_tokens")),
            count("total_tokens"),
        ),
    };
    let parts = match (input, output) {
        (None, None) => None,
        _ => Some(input.unwrap_or(0) + output.unwrap_or(0)),
    };
    let total = total.max(parts)?;
    Some((input, output, total))
}

/// Cuts bytes at some places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn feed(reader: &mut UsageReader, pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match reader.feed(piece) {
            Passed::Unchanged => out.extend_from_slice(piece),
            Passed::Replaced(bytes) => out.extend(bytes),
        }
    }
    out
}

fn formats() -> impl Strategy<Value = UsageFormat> {
    proptest::sample::select(&[OpenAi, Anthropic, Gemini][..])
}

fn written(value: &Value, is_pretty: bool) -> String {
    if is_pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
}

/// An event of a stream of `OpenAI`'s chat: with the usage asked for, and without.
fn chat_event() -> impl Strategy<Value = (String, String)> {
    let null = (text(), any::<bool>()).prop_map(|(text, is_first)| {
        let text = Value::from(text).to_string();
        let choices = format!(r#""choices":[{{"index":0,"delta":{{"content":{text},"usage":null}}}}]"#);
        let id = r#""id":"chatcmpl-1""#;
        let with = if is_first {
            format!(r#"{{"usage":null,{id},{choices}}}"#)
        } else {
            format!(r#"{{{id},{choices},"usage":null}}"#)
        };
        (format!("data: {with}\n\n"), format!("data: {{{id},{choices}}}\n\n"))
    });
    let usage = (0_u64..1000, 0_u64..1000).prop_map(|(input, output)| {
        let usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
        (format!("data: {{\"id\":\"x\",\"choices\":[],\"usage\":{usage}}}\n\n"), String::new())
    });
    let other = prop_oneof![
        Just(": ping\n\n".to_owned()),
        Just("data: [DONE]\n\n".to_owned()),
        Just("event: x\nid: 1\n\n".to_owned()),
        Just("\n".to_owned()),
        Just("data\n\n".to_owned()),
    ];
    prop_oneof![4 => null, 1 => usage, 1 => other.prop_map(|event| (event.clone(), event))]
}

proptest! {
    #[test]
    fn a_whole_answer_is_read_as_a_parser_reads_it(
        (format, answer) in formats().prop_flat_map(|format| (Just(format), answer(format))),
        is_pretty in any::<bool>(),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let body = written(&answer, is_pretty);
        let mut reader = UsageReader::new(format, Some(JSON), false);
        prop_assert_eq!(feed(&mut reader, &pieces(body.as_bytes(), &cuts)), body.as_bytes());
        let usage = reader.finish().1;
        prop_assert!(usage.is_none_or(|usage| usage.is_final));
        // serde_json's maps have one member of a name; of OpenAI's two names for a count only one is used.
        let is_ambiguous = format == OpenAi && answer.get("usage").is_some_and(|usage| {
            [["prompt_tokens", "input_tokens"], ["completion_tokens", "output_tokens"]]
                .iter().any(|names| names.iter().all(|name| usage.get(name).is_some_and(Value::is_u64)))
        });
        if !is_ambiguous {
            prop_assert_eq!(usage.map(|usage| (usage.input, usage.output, usage.total)), expected(format, &answer));
        }
    }

    #[test]
    fn a_stream_is_read_event_by_event(
        (format, answers) in formats().prop_flat_map(|format| (Just(format), vec(answer(format), 0..5))),
        end in proptest::sample::select(&["\n", "\r\n", "\r"][..]),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let event = |answer: &Value| format!("event: x{end}data: {answer}{end}{end}");
        let events = answers.iter().map(event).collect::<Vec<_>>().concat();
        let read_in = |cuts: &[usize]| {
            let mut reader = UsageReader::new(format, Some(EVENTS), false);
            let out = feed(&mut reader, &pieces(events.as_bytes(), cuts));
            (out == events.as_bytes(), reader.delivered(), reader.finish())
        };
        let (is_same, delivered, (passed, usage)) = read_in(&cuts);
        prop_assert!(is_same && passed == Passed::Unchanged);
        prop_assert_eq!((delivered, usage), { let (_, delivered, (_, usage)) = read_in(&[]); (delivered, usage) });
        // Without counts in other places the last of each counts.
        let is_plain = answers.iter().all(|answer| answer.get("response").is_none() && answer.get("message").is_none());
        if let (true, [only]) = (is_plain, answers.as_slice())
            && let Some((.., total)) = expected(format, only)
            && format != OpenAi
        {
            prop_assert_eq!(usage.map(|usage| usage.total), Some(total));
        }
    }

    #[test]
    fn what_was_asked_for_is_taken_out_in_any_pieces(
        events in vec(chat_event(), 0..8),
        end in proptest::sample::select(&["\n", "\r\n", "\r"][..]),
        has_last_end in any::<bool>(),
        cuts in vec(any::<usize>(), 0..24),
    ) {
        let join = |of: fn(&(String, String)) -> &String| {
            let text: String = events.iter().map(of).map(String::as_str).collect();
            text.replace('\n', end)
        };
        let (mut with, without) = (join(|event| &event.0), join(|event| &event.1));
        let is_cut = !has_last_end && events.last().is_some_and(|event| event.1.is_empty());
        if is_cut {
            with.truncate(with.len() - 2 * end.len());
        }
        let mut reader = UsageReader::new(OpenAi, Some(EVENTS), true);
        let mut out = feed(&mut reader, &pieces(with.as_bytes(), &cuts));
        if let (Passed::Replaced(bytes), _) = reader.finish() {
            out.extend(bytes);
        }
        prop_assert_eq!(String::from_utf8(out).unwrap(), without);
    }

    #[test]
    fn any_bytes_are_read_the_same_in_any_pieces(
        format in formats(),
        strips in any::<bool>(),
        is_stream in any::<bool>(),
        parts in vec(prop_oneof![
            vec(any::<u8>(), 0..6),
            r#"(data: |data:|\{|\}|\[|\]|,|:|"|\\|\\u00|null|7|-|e|"usage"|"total_tokens"|"choices"|\n|\r|\r\n| |: x)"#
                .prop_map(String::into_bytes),
        ], 0..60),
        cuts in vec(any::<usize>(), 0..30),
    ) {
        let bytes = parts.concat();
        let read_in = |cuts: &[usize]| {
            let mut reader = UsageReader::new(format, Some(if is_stream { EVENTS } else { JSON }), strips);
            let mut out = feed(&mut reader, &pieces(&bytes, cuts));
            let delivered = reader.delivered();
            let (passed, usage) = reader.finish();
            if let Passed::Replaced(rest) = passed {
                out.extend(rest);
            }
            (out, usage, delivered)
        };
        let whole = read_in(&[]);
        prop_assert_eq!(&whole, &read_in(&cuts));
        if !strips || !is_stream {
            prop_assert_eq!(&whole.0, &bytes);
        }
        prop_assert!(whole.0.len() <= bytes.len());
    }
}

#[test]
fn a_hundred_megabytes_take_no_memory() {
    let text = format!("\"usage\":{{\"total_tokens\":1}} {}", "wörld, wide and plain ".repeat(1_000));
    let event = |end: &str| {
        let choices = json!([{"index": 0, "delta": {"content": text}}]);
        format!("data: {{\"choices\":{choices}{end}}}\n\n").into_bytes()
    };
    let event = event(r#","usage":null"#);
    for (strips, length) in [(false, 10_000_000), (true, 100_000_000)] {
        let mut reader = UsageReader::new(OpenAi, Some(EVENTS), strips);
        let mut passed = 0;
        for _ in 0..length / event.len() {
            for piece in event.chunks(4_000) {
                passed += match reader.feed(piece) {
                    Passed::Unchanged => piece.len(),
                    Passed::Replaced(bytes) => bytes.len(),
                };
            }
            assert!(reader.reserved() <= if strips { 2 * EVENT_LIMIT } else { 0 });
        }
        let taken_out = if strips { r#","usage":null"#.len() } else { 0 };
        assert_eq!(passed, (event.len() - taken_out) * (length / event.len()));
    }
    // A single line, a single text, a single nesting.
    for (content_type, start, piece, end) in [
        (EVENTS, r#"data: {"choices":[{"delta":{"content":""#, "word ", "\"}}],"),
        (JSON, r#"{"choices":[{"message":{"content":""#, "word ", "\"}}],"),
        (JSON, r#"{"x":"#, "[", ""),
        (JSON, r#"{"x":"#, "1234567890", ","),
        (JSON, r#"{"x":["#, "{\"usage\":1},", "1],"),
    ] {
        for strips in [false, true] {
            let mut reader = UsageReader::new(OpenAi, Some(content_type), strips);
            let piece = piece.repeat(10_000);
            let mut read = 0;
            reader.feed(start.as_bytes());
            while read < 2_000_000 {
                reader.feed(piece.as_bytes());
                read += piece.len();
                assert!(reader.reserved() <= 2 * EVENT_LIMIT);
            }
            reader.feed(format!("{end}\"usage\":{{\"total_tokens\":42}}}}").as_bytes());
            let usage = reader.finish().1.map(|usage| usage.total);
            assert_eq!(usage, (piece != "[".repeat(10_000)).then_some(42));
        }
    }
}

#[test]
fn reading_is_the_same_in_every_piece() {
    let answer = br#"{"usage":{"total_tokens":42}}"#;
    for cut in 0..answer.len() {
        let mut reader = UsageReader::new(OpenAi, Some(JSON), false);
        reader.feed(&answer[..cut]);
        reader.feed(&[]);
        reader.feed(&answer[cut..]);
        assert_eq!(reader.finish().1.map(|usage| usage.total), Some(42));
    }
    assert_eq!(read(UsageReader::new(OpenAi, Some(JSON), false), answer, 1).0, answer);
}
