//! Answers as the vendors' documentation shows them, and what is read of them.

use tollgate::gateway::token_answer::RENEWAL;
use tollgate::keys::token_route::UsageFormat::{self, Anthropic, Gemini, Header, OpenAi};
use tollgate::object::judge::HOLD_TTL;
use tollgate::tokens::request::TokenHold;
use tollgate::tokens::usage_reader::{DeliveredAnswer, EVENT_LIMIT, Passed, UsageReader, reported_by_header};

pub(crate) const EVENTS: &str = "text/event-stream; charset=utf-8";
pub(crate) const JSON: &str = "application/json";

/// Input, output, total, whether they are final.
pub(crate) type Read = Option<(Option<u64>, Option<u64>, u64, bool)>;

/// Feeds an answer in pieces of a length; what the client gets, and what was read.
pub(crate) fn read(mut reader: UsageReader, answer: &[u8], piece: usize) -> (Vec<u8>, Read, DeliveredAnswer) {
    let mut out = Vec::new();
    for bytes in answer.chunks(piece) {
        match reader.feed(bytes) {
            Passed::Unchanged => out.extend_from_slice(bytes),
            Passed::Replaced(bytes) => out.extend(bytes),
        }
    }
    let delivered = reader.delivered();
    let (passed, usage) = reader.finish();
    if let Passed::Replaced(bytes) = passed {
        out.extend(bytes);
    }
    (out, usage.map(|usage| (usage.input, usage.output, usage.total, usage.is_final)), delivered)
}

fn usage(format: UsageFormat, content_type: &str, answer: &str) -> Read {
    let of = |piece| {
        let (out, usage, _) = read(UsageReader::new(format, Some(content_type), false), answer.as_bytes(), piece);
        assert_eq!(out, answer.as_bytes());
        usage
    };
    let whole = of(usize::MAX);
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(of(piece), whole, "in pieces of {piece}");
    }
    whole
}

fn delivered(format: UsageFormat, content_type: &str, answer: &str) -> DeliveredAnswer {
    read(UsageReader::new(format, Some(content_type), false), answer.as_bytes(), 5).2
}

/// What a client gets of a stream whose usage the gate has asked for.
fn stripped(answer: &str) -> String {
    let of = |piece| read(UsageReader::new(OpenAi, Some(EVENTS), true), answer.as_bytes(), piece);
    let whole = of(usize::MAX);
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(of(piece), whole, "in pieces of {piece}");
    }
    String::from_utf8(whole.0).unwrap()
}

const CHAT: &str = r#"{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
  "object": "chat.completion",
  "created": 1741569952,
  "model": "gpt-4.1-2025-04-14",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "Say \"usage\":{\"total_tokens\":9999} and {\"usage\":{\"prompt_tokens\":1}}",
        "refusal": null,
        "annotations": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 7, "total_tokens": 14}
      },
      "logprobs": null,
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0, "total_tokens": 1}
  },
  "service_tier": "default"
}"#;

const CHAT_STREAM: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":"Hello \"usage\":null, wörld"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x9"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#;

#[test]
fn openai_chat() {
    assert_eq!(usage(OpenAi, JSON, CHAT), Some((Some(19), Some(10), 29, true)));
    assert_eq!(usage(OpenAi, EVENTS, CHAT_STREAM), Some((Some(9), Some(12), 21, true)));
    // Without a question for it there is none.
    let silent = CHAT_STREAM.replace(r#""usage":null"#, r#""x":null"#).replace(r#""usage":{"#, r#""x":{"#);
    assert_eq!(usage(OpenAi, EVENTS, &silent), None);
}

#[test]
fn openai_embeddings_and_images() {
    let answer = r#"{"object":"list","data":[{"object":"embedding","embedding":[0.0023,-0.0093],"index":0}],"model":"text-embedding-ada-002","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    assert_eq!(usage(OpenAi, JSON, answer), Some((Some(8), None, 8, true)));
    let image = r#"{"created":1713833628,"data":[{"b64_json":"aGk="}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#;
    assert_eq!(usage(OpenAi, JSON, image), Some((Some(50), Some(50), 100, true)));
}

#[test]
fn openai_responses() {
    let answer = r#"{"id":"resp_67cc","object":"response","status":"completed","error":null,"output":[{"type":"message","id":"msg_67","status":"completed","role":"assistant","content":[{"type":"output_text","text":"In a peaceful grove","annotations":[]}]}],"text":{"format":{"type":"text"}},"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123},"user":null}"#;
    assert_eq!(usage(OpenAi, JSON, answer), Some((Some(36), Some(87), 123, true)));
    let stream = |end: &str| {
        format!(
            r#"event: response.created
data: {{"type":"response.created","response":{{"id":"resp_67c9","status":"in_progress","output":[],"usage":null}}}}

event: response.output_text.delta
data: {{"type":"response.output_text.delta","item_id":"msg_67c9","output_index":0,"content_index":0,"delta":"Hi \"usage\":{{\"total_tokens\":1}}"}}

event: response.output_text.done
data: {{"type":"response.output_text.done","item_id":"msg_67c9","text":"Hi there, all of it once more"}}

{end}"#
        )
    };
    for kind in ["completed", "incomplete"] {
        let end = format!(
            r#"event: response.{kind}
data: {{"type":"response.{kind}","response":{{"id":"resp_67c9","status":"{kind}","output":[{{"type":"message","content":[{{"text":"Hi"}}]}}],"usage":{{"input_tokens":37,"output_tokens":11,"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":48}}}}}}

"#
        );
        assert_eq!(usage(OpenAi, EVENTS, &stream(&end)), Some((Some(37), Some(11), 48, true)));
    }
    assert_eq!(usage(OpenAi, EVENTS, &stream("")), None);
    // The text is counted once, as it comes.
    assert_eq!(delivered(OpenAi, EVENTS, &stream("")).output, r#"Hi "usage":{"total_tokens":1}"#.len() as u64);
}

const MESSAGES_STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY","type":"message","role":"assistant","content":[],"model":"claude-opus-4-1","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"cache_creation":{"ephemeral_5m_input_tokens":3},"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"usage\": {\"output_tokens\": 900}}"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"}}

"#;
const MESSAGES_END: &str = r#"event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

#[test]
fn anthropic() {
    let answer = r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","content":[{"type":"text","text":"Hello! \"usage\":{\"input_tokens\":1}"}],"model":"claude-opus-4-1","stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":2095,"cache_creation_input_tokens":100,"cache_read_input_tokens":20,"output_tokens":503,"server_tool_use":{"web_search_requests":1,"input_tokens":7},"service_tier":"standard"}}"#;
    assert_eq!(usage(Anthropic, JSON, answer), Some((Some(2215), Some(503), 2718, true)));
    let other = r#"{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
    assert_eq!(usage(Anthropic, JSON, other), None);
    // A message within is not the answer's own.
    let nested = r#"{"type":"x","message":{"usage":{"input_tokens":1,"output_tokens":2}}}"#;
    assert_eq!(usage(Anthropic, JSON, nested), None);
    let stream = [MESSAGES_STREAM, MESSAGES_END].concat();
    assert_eq!(usage(Anthropic, EVENTS, &stream), Some((Some(32), Some(15), 47, true)));
    // Counts are cumulative, and the latest of each is kept.
    let later = stream.replace(
        r#""usage":{"output_tokens":15}"#,
        r#""usage":{"input_tokens":10682,"cache_read_input_tokens":0,"cache_creation_input_tokens":null,"output_tokens":510}"#,
    );
    assert_eq!(usage(Anthropic, EVENTS, &later), Some((Some(10_685), Some(510), 11_195, true)));
    assert_eq!(usage(Anthropic, EVENTS, MESSAGES_STREAM), Some((Some(32), Some(1), 33, false)));
}

const GEMINI: &str = r#"{
  "candidates": [
    {
      "content": {"parts": [{"text": "Hello \"usageMetadata\""}], "role": "model"},
      "finishReason": "STOP",
      "index": 0
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 4,
    "candidatesTokenCount": 20,
    "totalTokenCount": 131,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}],
    "thoughtsTokenCount": 100,
    "toolUsePromptTokenCount": 7
  },
  "modelVersion": "gemini-2.5-flash"
}"#;

#[test]
fn gemini() {
    let expected = Some((Some(11), Some(120), 131, true));
    assert_eq!(usage(Gemini, JSON, GEMINI), expected);
    // Without a total it is the sum.
    assert_eq!(usage(Gemini, JSON, &GEMINI.replace("totalTokenCount", "x")), expected);
    assert_eq!(usage(Gemini, JSON, &GEMINI.replace("131", "140")), Some((Some(11), Some(120), 140, true)));
    let early = r#"{"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":104,"thoughtsTokenCount":100}}"#;
    let array = format!("[{early}\n,\r\n{GEMINI}\n]\n");
    assert_eq!(usage(Gemini, JSON, &array), expected);
    let line = GEMINI.replace('\n', "");
    let stream = format!("data: {early}\r\n\r\ndata: {line}\r\n\r\n");
    assert_eq!(usage(Gemini, EVENTS, &stream), expected);
    // An answer that breaks off has said what it has said.
    let cut = usage(Gemini, EVENTS, &format!("data: {early}\r\n\r\ndata: {{\"candidates\""));
    assert_eq!(cut, Some((Some(4), Some(100), 104, false)));
    assert_eq!(usage(Gemini, JSON, &format!("[{early},")), Some((Some(4), Some(100), 104, false)));
}

#[test]
fn a_header_is_a_number_or_nothing() {
    for (value, count) in [
        ("0", Some(0)),
        (" 42\t", Some(42)),
        ("007", Some(7)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1, 2", None),
        ("1e3", None),
        ("٣", None),
        ("99999999999999999999999", Some((1 << 53) - 1)),
    ] {
        assert_eq!(reported_by_header(value), count, "{value}");
    }
    // Nothing of the answer counts then.
    assert_eq!(usage(Header, JSON, CHAT), None);
    assert_eq!(usage(Header, EVENTS, CHAT_STREAM), None);
    assert_eq!(delivered(Header, JSON, "0123456789").output, 10);
}

#[test]
fn only_the_own_format_counts() {
    assert_eq!(usage(Gemini, JSON, CHAT), None);
    assert_eq!(usage(Anthropic, JSON, GEMINI), None);
    assert_eq!(usage(OpenAi, JSON, GEMINI), None);
}

#[test]
fn odd_counts() {
    let of = |count: &str| usage(OpenAi, JSON, &format!(r#"{{"usage":{{"total_tokens":{count}}}}}"#));
    for (count, total) in [("5", 5), ("5.0", 5), ("4.2", 5), ("1e2", 100), ("1e99", (1 << 53) - 1), ("0", 0)] {
        assert_eq!(of(count), Some((None, None, total, true)), "{count}");
    }
    for count in ["-5", "null", "\"5\"", "{}", "[5]", "true", "nan"] {
        assert_eq!(of(count), None, "{count}");
    }
    // The latest of each counts.
    let twice = r#"{"usage":{"prompt_tokens":1,"completion_tokens":2},"usage":{"completion_tokens":5}}"#;
    assert_eq!(usage(OpenAi, JSON, twice), Some((Some(1), Some(5), 6, true)));
    let escaped = r#"{"us\u0061ge":{"total_tok\u0065ns":5}}"#;
    assert_eq!(usage(OpenAi, JSON, escaped), Some((None, None, 5, true)));
    for decoy in [
        r#"{"Usage":{"total_tokens":5}}"#,
        r#"{"data":{"usage":{"total_tokens":5}}}"#,
        r#"{"response":{"usage":{"total_tokens":5}}}"#,
        r#"{"usage":[{"total_tokens":5}]}"#,
        r#"{"usage":{"x":{"total_tokens":5}}}"#,
        r#"[[{"usage":{"total_tokens":5}}]]"#,
        r#""{\"usage\":{\"total_tokens\":5}}""#,
        r#"{"a":"\\","b":"\"usage\":{\"total_tokens\":5}"}"#,
        r#"{"usage\u0000":{"total_tokens":5}}"#,
        r#"{"usage\ud800":{"total_tokens":5}}"#,
        r#"{"a":[[[[[[[[[[{"usage":{"total_tokens":5}}]]]]]]]]]]}"#,
    ] {
        assert_eq!(usage(OpenAi, JSON, decoy), None, "{decoy}");
    }
    let behind_depth = format!(r#"{{"a":{}1{},"usage":{{"total_tokens":5}}}}"#, "[".repeat(9_000), "]".repeat(9_000));
    assert_eq!(usage(OpenAi, JSON, &behind_depth), Some((None, None, 5, true)));
}

#[test]
fn the_content_type_says_what_is_an_event_stream() {
    let of = |content_type, answer: &str| {
        let reader = UsageReader::new(OpenAi, content_type, false);
        read(reader, answer.as_bytes(), 4).1.map(|(.., total, _)| total)
    };
    for content_type in ["text/event-stream", "Text/Event-Stream ;charset=utf-8"] {
        assert_eq!(of(Some(content_type), CHAT_STREAM), Some(21), "{content_type}");
    }
    assert_eq!(of(None, CHAT_STREAM), None);
    for content_type in [None, Some("application/json"), Some("text/plain")] {
        assert_eq!(of(content_type, CHAT), Some(29));
        assert_eq!(of(content_type, &format!("\u{feff} \r\n{CHAT}")), Some(29));
        assert_eq!(of(content_type, &format!("x{CHAT}")), None);
    }
}

#[test]
fn lines_of_events() {
    let answer = |lines: &[&str], end: &str| lines.iter().map(|line| [line, end].concat()).collect::<String>();
    let usage_line = r#"data: {"choices":[],"usage":{"total_tokens":21}}"#;
    for end in ["\n", "\r\n", "\r"] {
        let of = |lines: &[&str]| usage(OpenAi, EVENTS, &answer(lines, end)).map(|(.., total, _)| total);
        assert_eq!(of(&[usage_line, ""]), Some(21), "{end:?}");
        assert_eq!(of(&[": ping", "", usage_line, "id: 1", "", "data: [DONE]", ""]), Some(21));
        assert_eq!(of(&["event: x", usage_line]), Some(21));
        // A value may go on in the next line, a name may not.
        let parts =
            [r#"data: {"choices":[],"usage":"#, r#"data:{"total_tokens":"#, ": comment", "data:  21", "data: }}", ""];
        assert_eq!(of(&parts), Some(21));
        assert_eq!(of(&[r#"data: {"usage":{"total_"#, r#"data: tokens":21}}"#, ""]), None);
        // Each event is a text of its own.
        assert_eq!(of(&[r#"data: {"usage":"#, "", r#"data: {"total_tokens":21}}"#, ""]), None);
        for other in ["dat: ", "datax: ", "data", " data: ", "event: ", ": ", "Data: "] {
            assert_eq!(of(&[&usage_line.replace("data: ", other), ""]), None, "{other}");
        }
    }
    assert_eq!(usage(OpenAi, EVENTS, &format!("\u{feff}{usage_line}")).map(|(.., total, _)| total), Some(21));
    assert_eq!(usage(OpenAi, EVENTS, &format!("\n\u{feff}{usage_line}")), None);
    assert_eq!(usage(OpenAi, EVENTS, usage_line).map(|(.., total, _)| total), Some(21));
}

#[test]
fn what_was_asked_for_is_taken_out() {
    let without = |text: &str| {
        let events = text.split_inclusive("\n\n").filter(|event| !event.contains(r#""choices":[]"#));
        events.map(|event| event.replace(r#","usage":null}"#, "}").replace(r#","usage":null,"ob"#, r#","ob"#)).collect()
    };
    let expected: String = without(CHAT_STREAM);
    assert_eq!(expected.matches("\n\n").count(), 4);
    assert_eq!(expected.matches("usage").count(), 1, "that in the text");
    assert_eq!(stripped(CHAT_STREAM), expected);
    for end in ["\r\n", "\r"] {
        let with_ends = |text: &str| text.replace('\n', end);
        assert_eq!(stripped(&with_ends(CHAT_STREAM)), with_ends(&expected), "{end:?}");
    }
    // The last event, without an end.
    let (before, _) = CHAT_STREAM.rsplit_once("\n\ndata: [DONE]").unwrap();
    let (expected, _) = expected.rsplit_once("data: [DONE]").unwrap();
    assert_eq!(stripped(before), expected);
    // Who has asked for it gets it.
    let (out, ..) = read(UsageReader::new(OpenAi, Some(EVENTS), false), CHAT_STREAM.as_bytes(), 9);
    assert_eq!(out, CHAT_STREAM.as_bytes());
}

#[test]
fn what_was_not_asked_for_stays() {
    for event in [
        // Origins that name the usage in their last piece of text do so unasked.
        r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":{"total_tokens":3}}"#,
        r#"data: {"choices":[{"delta":{"content":"\"usage\":null"}}],"x":{"usage":null}}"#,
        r#"data: {"choices":[],"prompt_filter_results":[]}"#,
        "data: [DONE]",
        ": a comment",
        "event: x",
        r#"data: {"error":{"message":"x"}}"#,
    ] {
        let event = format!("{event}\n\n");
        assert_eq!(stripped(&event), event);
    }
    for (event, expected) in [
        (r#"data: {"usage":null,"choices":[]}"#, r#"data: {"choices":[]}"#),
        (r#"data: { "usage" : null , "choices":[] }"#, r#"data: { "choices":[] }"#),
        (r#"data: {"id":"x" , "usage" : null , "choices":[] }"#, r#"data: {"id":"x"  , "choices":[] }"#),
        (r#"data: {"usage":null}"#, "data: {}"),
        ("data: {\"id\":1,\ndata: \"usage\":null\ndata: }", "data: {\"id\":1\ndata: }"),
        ("id: 7\ndata:{\"id\":1,\"usage\":null}\n: c", "id: 7\ndata:{\"id\":1}\n: c"),
    ] {
        assert_eq!(stripped(&format!("{event}\n\n")), format!("{expected}\n\n"));
    }
}

#[test]
fn a_long_event_passes() {
    for (length, is_changed) in [(EVENT_LIMIT - 1, true), (EVENT_LIMIT, true), (EVENT_LIMIT + 1, false)] {
        let empty = r#"data: {"choices":[{"delta":{"content":""}}],"usage":null}"#;
        let text = "x".repeat(length - empty.len() - 2);
        let event = format!("{}\n\n", empty.replace(r#""""#, &format!("\"{text}\"")));
        assert_eq!(event.len(), length);
        let answer = format!("{event}data: {{\"usage\":{{\"total_tokens\":4}}}}\n\n{event}");
        let expected = if is_changed { event.replace(r#","usage":null"#, "") } else { event };
        for piece in [1_000, 4_096, 65_536, usize::MAX] {
            let reader = UsageReader::new(OpenAi, Some(EVENTS), true);
            let (out, usage, _) = read(reader, answer.as_bytes(), piece);
            assert!(out == expected.repeat(2).as_bytes(), "{length} in pieces of {piece}");
            assert_eq!(usage, Some((None, None, 4, false)), "text comes after it");
        }
    }
}

#[test]
fn what_was_delivered_is_counted() {
    let begin = |text: &str| CHAT_STREAM.split(text).next().unwrap().to_owned();
    // "Hello " in the middle of an event.
    let early = delivered(OpenAi, EVENTS, &begin(r#"\"usage"#));
    assert_eq!((early.output, early.input, early.counted), (6, None, 0));
    let late = delivered(OpenAi, EVENTS, &begin("data: [DONE]"));
    assert_eq!((late.output, late.input, late.counted), (12, Some(9), 21));
    assert_eq!(delivered(OpenAi, JSON, &CHAT.replace(r#""usage""#, r#""x""#)).output, 67);
    assert_eq!(delivered(OpenAi, JSON, CHAT).output, 10);
    // What the origin has counted so far, and the text since: not signatures, nor names of types.
    let text = "Hello".len() + r#"{"usage": {"output_tokens": 900}}"#.len();
    let message = delivered(Anthropic, EVENTS, MESSAGES_STREAM);
    assert_eq!((message.output, message.input, message.counted), (1 + text as u64, Some(32), 33));
    let complete = delivered(Anthropic, EVENTS, &[MESSAGES_STREAM, MESSAGES_END].concat());
    assert_eq!((complete.output, complete.counted), (15, 47));
    // The count of a part is of its text too, whichever comes first.
    let counted = r#""usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"totalTokenCount":6}"#;
    let text = r#""candidates":[{"content":{"parts":[{"text":"Hello wörld"}],"role":"model"}}]"#;
    for part in [format!("{{{counted},{text}}}"), format!("{{{text},{counted}}}")] {
        assert_eq!(delivered(Gemini, EVENTS, &format!("data: {part}\n\n")).output, 2);
        assert_eq!(delivered(Gemini, JSON, &format!("[{part}")).output, 2);
        let next = r#"{"candidates":[{"content":{"parts":[{"text":"abc"#;
        assert_eq!(delivered(Gemini, EVENTS, &format!("data: {part}\n\ndata: {next}")).output, 5);
        assert_eq!(delivered(Gemini, JSON, &format!("[{part},{next}")).output, 5);
    }
    // An answer of another form counts by its bytes, and none counts nothing.
    assert_eq!(delivered(OpenAi, "audio/mpeg", "0123456789").output, 10);
    assert_eq!(delivered(OpenAi, JSON, r#"{"data":"0123"}"#).output, 15);
    assert_eq!(delivered(OpenAi, JSON, "").output, 0);
    assert_eq!(delivered(OpenAi, EVENTS, "data: {\"choices\":[").output, 1);
}

#[test]
fn escapes_count_as_what_they_stand_for() {
    let of = |text: &str| {
        delivered(OpenAi, EVENTS, &format!(r#"data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#)).output
    };
    for text in [r"\n\t\r\b\f\/\\x", r"\u4f60\u597d", r"\ud83d\ude00", r#"\""#, "é😀", r"a\u0000"] {
        let value: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        assert_eq!(of(text), value.len() as u64, "{text}");
    }
}

#[test]
fn an_answer_that_was_cut_off_is_charged() {
    let hold = TokenHold { input: 100, output_per_answer: 50, answers: 2 };
    let of = |input, output, counted| DeliveredAnswer { bytes: 1, input, output, counted }.charge(&hold);
    assert_eq!(of(None, 10, 0), 110);
    assert_eq!(of(Some(30), 10, 31), 40);
    // An estimate does not go beyond the hold; a count does.
    assert_eq!(of(None, 1_000, 0), 200);
    assert_eq!(of(Some(30), 1_000, 31), 200);
    assert_eq!(of(Some(300), 5, 301), 301);
    assert_eq!(of(Some(0), 0, 0), 1);
}

/// One renewal of a hold may be lost while its answer goes on.
#[test]
fn a_hold_is_renewed_long_before_it_expires() {
    assert_eq!(RENEWAL * 3 * 1_000, HOLD_TTL);
}
