//! What requests hold, and how their bodies are changed.

use tollgate::keys::token_route::{TokenRoute, UsageFormat};
use tollgate::tokens::request::{BodyHead, RequestBody, TokenHold, TokenRequest, UnboundedBody};

const JSON: BodyHead<'_> = BodyHead { content_type: Some("application/json"), content_encoding: None };

pub(crate) fn route(format: UsageFormat) -> TokenRoute {
    TokenRoute {
        pattern: "/**".into(),
        method: "POST".into(),
        format,
        default_output: 1_000,
        max_output: 4_096,
        bytes_per_token: 1,
        max_input: None,
    }
}

pub(crate) fn request(format: UsageFormat, body: &str) -> TokenRequest {
    TokenRequest::read(&route(format), JSON, RequestBody::Whole(body.into())).unwrap()
}

fn openai(body: &str) -> TokenRequest {
    request(UsageFormat::OpenAi, body)
}

/// Output of each answer, and answers.
fn held(body: &str) -> (u64, u64) {
    let hold = openai(body).hold;
    assert_eq!(hold.input, body.len() as u64, "{body}");
    (hold.output_per_answer, hold.answers)
}

#[test]
fn the_largest_cap_is_held() {
    for (body, output) in [
        (r#"{"messages":[]}"#, 1_000),
        (r#"{"max_tokens":5}"#, 5),
        (r#"{"max_completion_tokens":6}"#, 6),
        (r#"{"max_output_tokens":7}"#, 7),
        (r#"{"generationConfig":{"maxOutputTokens":8}}"#, 8),
        (r#"{"generation_config":{"max_output_tokens":9}}"#, 9),
        (r#"{"generationConfig":{"max_output_tokens":10}}"#, 10),
        (r#"{"max_tokens":5,"max_completion_tokens":6}"#, 6),
        (r#"{"max_output_tokens":7,"max_tokens":5,"generationConfig":{"maxOutputTokens":1}}"#, 7),
        (r#"{"max_tokens":5000}"#, 4_096),
        (r#"{"max_tokens":18446744073709551617}"#, 4_096),
        // Not where the origin would look.
        (r#"{"x":{"max_tokens":5}}"#, 1_000),
        (r#"{"messages":[{"content":"\"max_tokens\":5","max_tokens":5}]}"#, 1_000),
        (r#"{"maxOutputTokens":5}"#, 1_000),
        (r#"{"generationConfig":{"max_tokens":5}}"#, 1_000),
        (r#"{"generationConfig":[{"maxOutputTokens":5}]}"#, 1_000),
        (r#"{"m\u0061x_tokens":5}"#, 5),
        (r#"{ "max_tokens" : 5 }"#, 5),
        ("\u{feff}{\"max_tokens\":5}", 5),
        (" \r\n{\"max_tokens\":5}\n", 5),
    ] {
        assert_eq!(held(body), (output, 1), "{body}");
    }
}

/// 3000 in quotes, with more digits than are kept of a text.
const ZEROS: &str =
    r#"{"max_tokens":"0000000000000000000000000000000000000000000000000000000000000000000000000000003000"}"#;

#[test]
fn a_cap_that_origins_read_differently_makes_no_hold_smaller() {
    for (body, output) in [
        // Of two the first or the last may count.
        (r#"{"max_tokens":5,"max_tokens":2000}"#, 2_000),
        (r#"{"max_tokens":2000,"max_tokens":5}"#, 2_000),
        (r#"{"max_tokens":5,"max_tokens":null}"#, 1_000),
        (r#"{"max_tokens":null,"max_tokens":5}"#, 1_000),
        (r#"{"max_tokens":2000,"max_tokens":null}"#, 2_000),
        (r#"{"generationConfig":{"maxOutputTokens":5},"generationConfig":{}}"#, 1_000),
        (r#"{"generationConfig":{},"generation_config":{"maxOutputTokens":5}}"#, 1_000),
        (r#"{"generationConfig":{"maxOutputTokens":5},"generationConfig":null}"#, 1_000),
        (r#"{"generationConfig":{"maxOutputTokens":5,"max_output_tokens":null}}"#, 1_000),
        // One of them is no cap, the other one is.
        (r#"{"max_tokens":null,"max_completion_tokens":5}"#, 5),
        // In other letters it is a cap to some.
        (r#"{"MAX_TOKENS":5}"#, 1_000),
        (r#"{"MAX_TOKENS":2000}"#, 2_000),
        (r#"{"max_tokens":5,"Max_Tokens":2000}"#, 2_000),
        ("{\"max_tokens\":5,\"max_to\u{212a}ens\":2000}", 2_000),
        (r#"{"GenerationConfig":{"maxoutputtokens":5}}"#, 1_000),
        // What is no number in JSON is one to some.
        (r#"{"max_tokens":"5"}"#, 1_000),
        (r#"{"max_tokens":" 2000 "}"#, 2_000),
        (r#"{"max_tokens":"3_000"}"#, 4_096),
        (r#"{"max_tokens":"+5"}"#, 4_096),
        (r#"{"max_tokens":"0x5"}"#, 4_096),
        (r#"{"max_tokens":""}"#, 4_096),
        (ZEROS, 4_096),
        (r#"{"max_tokens":true}"#, 1_000),
        (r#"{"max_tokens":[5]}"#, 1_000),
        (r#"{"max_tokens":{"max_tokens":5}}"#, 1_000),
        (r#"{"max_tokens":null}"#, 1_000),
        (r#"{"max_tokens":5,"max_completion_tokens":"2000"}"#, 2_000),
        (r#"{"max_tokens":5,"max_completion_tokens":false}"#, 1_000),
        // 0 is no cap to some, and less is none at all.
        (r#"{"max_tokens":0}"#, 1_000),
        (r#"{"max_tokens":-0}"#, 1_000),
        (r#"{"max_tokens":-1}"#, 4_096),
        (r#"{"max_tokens":-0.5}"#, 4_096),
        (r#"{"max_tokens":"-1"}"#, 4_096),
        (r#"{"max_tokens":5,"max_output_tokens":-1}"#, 4_096),
        (r#"{"max_tokens":5.0}"#, 5),
        (r#"{"max_tokens":5.2}"#, 6),
        (r#"{"max_tokens":2e3}"#, 2_000),
        (r#"{"max_tokens":20000E-1}"#, 2_000),
        (r#"{"max_tokens":1e999999999999999999999}"#, 4_096),
        (r#"{"max_tokens":1e-999999999999999999999}"#, 1),
        (r#"{"max_tokens":0.00000000000000000000000000001}"#, 1),
        (r#"{"max_tokens":20.000000000000000000000000001}"#, 21),
    ] {
        assert_eq!(held(body), (output, 1), "{body}");
    }
}

#[test]
fn all_answers_are_held() {
    for (body, answers) in [
        (r#"{"n":3}"#, 3),
        (r#"{"best_of":4,"n":2}"#, 4),
        (r#"{"generationConfig":{"candidateCount":5}}"#, 5),
        (r#"{"generation_config":{"candidate_count":5}}"#, 5),
        (r#"{"candidateCount":5}"#, 5),
        (r#"{"n":2,"n":7}"#, 7),
        (r#"{"n":7,"n":2}"#, 7),
        (r#"{"N":7}"#, 7),
        (r#"{"n":"7"}"#, 7),
        (r#"{"n":1.5}"#, 2),
        (r#"{"n":1e2}"#, 100),
        (r#"{"n":0}"#, 1),
        (r#"{"n":-3}"#, 1),
        (r#"{"n":null}"#, 1),
        (r#"{"n":[9]}"#, 1),
        (r#"{"x":{"n":9}}"#, 1),
        // Each prompt has answers of its own.
        (r#"{"prompt":["a","b","c"],"n":2}"#, 6),
        (r#"{"prompt":[[1,2],[3]]}"#, 2),
        (r#"{"prompt":[1,2,3]}"#, 1),
        (r#"{"prompt":"abc"}"#, 1),
        (r#"{"prompt":[]}"#, 1),
        // A batch.
        (r#"[{"n":2},{"n":3},{}]"#, 6),
        ("[]", 1),
        ("[1,2,3]", 1),
    ] {
        assert_eq!(held(body), (1_000, answers), "{body}");
    }
    assert_eq!(held(r#"[{"n":2,"max_tokens":5},{"n":3,"max_tokens":50}]"#), (50, 5));
    assert_eq!(held(r#"[{"max_tokens":5},{}]"#), (1_000, 2));
    // What may be any number of answers fits into no quota.
    for body in [r#"{"n":"1_0"}"#, r#"{"n":"x"}"#, &ZEROS.replace("max_tokens", "n")] {
        assert_eq!(held(body), (1_000, (1 << 53) - 1), "{body}");
    }
    let huge = openai(r#"{"n":1e300,"prompt":["a","b"]}"#).hold;
    assert_eq!(huge.total(), (1 << 53) - 1);
}

#[test]
fn an_unreadable_body_holds_the_most() {
    let of = |content_type, body: &str| {
        let head = BodyHead { content_type, content_encoding: None };
        let request = TokenRequest::read(&route(UsageFormat::OpenAi), head, RequestBody::Whole(body.into())).unwrap();
        assert!(!request.can_be_clamped() && !request.needs_usage());
        assert_eq!(request.rewritten(Some(1)), None);
        assert_eq!(request.body, body.as_bytes());
        request.hold
    };
    let most = |body: &str, answers| TokenHold { input: body.len() as u64, output_per_answer: 4_096, answers };
    for (content_type, body) in [
        (Some("application/json"), "hello"),
        (Some("application/json"), r#"{"max_tokens":5"#),
        (Some("application/json"), r#"{"max_tokens":5}}"#),
        (Some("application/json"), r#"{"max_tokens":5,}"#),
        (Some("application/json"), r#"{"max_tokens":05}"#),
        (Some("application/json"), r#"{"max_tokens":5,"x":NaN}"#),
        (None, r#"{"max_tokens":5"#),
        (
            Some("multipart/form-data; boundary=x"),
            "--x\r\nContent-Disposition: form-data; name=\"max_tokens\"\r\n\r\n5\r\n--x--",
        ),
        (Some("application/x-www-form-urlencoded"), "max_tokens=5"),
        (Some("audio/mpeg"), "\u{0}\u{0}\u{0} ftypisom"),
        (None, "5"),
    ] {
        assert_eq!(of(content_type, body), most(body, 1), "{body}");
    }
    // JSON but for its bytes.
    let body = RequestBody::Whole(b"{\"max_tokens\":5,\"x\":\"\xff\"}".to_vec());
    let request = TokenRequest::read(&route(UsageFormat::OpenAi), JSON, body).unwrap();
    assert_eq!((request.hold.output_per_answer, request.can_be_clamped()), (4_096, false));
    // Lenient parsers read these, and give as many answers as they ask for.
    for body in [r#"{"n":7,"max_tokens":5,"x":NaN}"#, r#"{"n":7,}"#, r#"{"n":7"#, r#"{"n":07}"#] {
        assert_eq!(of(None, body), most(body, 7), "{body}");
    }
    // JSON is read whatever its type is.
    for content_type in [None, Some("text/plain"), Some("multipart/form-data"), Some("application/vnd.api+json")] {
        let head = BodyHead { content_type, content_encoding: None };
        let body = RequestBody::Whole(br#"{"max_tokens":5}"#.to_vec());
        let request = TokenRequest::read(&route(UsageFormat::OpenAi), head, body).unwrap();
        assert_eq!(request.hold.output_per_answer, 5, "{content_type:?}");
    }
    // No body asks for nothing unusual.
    let none = TokenRequest::read(&route(UsageFormat::Header), BodyHead::default(), RequestBody::Whole(Vec::new()));
    assert_eq!(none.unwrap().hold, TokenHold { input: 0, output_per_answer: 1_000, answers: 1 });
}

#[test]
fn a_long_body_holds_its_whole_length_and_the_most() {
    let of = |start: &str, length| {
        let body = RequestBody::Longer { start: start.into(), length };
        let request = TokenRequest::read(&route(UsageFormat::OpenAi), JSON, body).unwrap();
        assert!(!request.can_be_clamped() && !request.needs_usage());
        request.hold
    };
    let most = |input, answers| TokenHold { input, output_per_answer: 4_096, answers };
    assert_eq!(of("", 5_000_000), most(5_000_000, 1));
    assert_eq!(of(r#"{"max_tokens":5,"messages":["#, 5_000_000), most(5_000_000, 1));
    assert_eq!(of(r#"{"n":9,"max_tokens":5,"messages":["#, 5_000_000), most(5_000_000, 9));
    assert_eq!(of(r#"{"max_tokens":5}"#, 17), most(17, 1));
    assert_eq!(of("0123456789", 3), most(10, 1));
}

/// `max_input` is the most that the origin accepts. What has come already counts, as it would of a
/// body with a length.
#[test]
fn a_long_body_without_a_length_needs_the_rows_bound() {
    let of = |start: &str, received, max_input| {
        let route = TokenRoute { max_input, bytes_per_token: 100, ..route(UsageFormat::OpenAi) };
        let body = RequestBody::Unmeasured { start: start.into(), received };
        TokenRequest::read(&route, JSON, body).map(|request| {
            assert!(!request.can_be_clamped() && !request.needs_usage());
            request.hold
        })
    };
    let most = |input, answers| Ok(TokenHold { input, output_per_answer: 4_096, answers });
    assert_eq!(of(r#"{"n":9,"max_tokens":5,"messages":["#, 1_100_000, None), Err(UnboundedBody::Unmeasured));
    assert_eq!(of(r#"{"n":9,"max_tokens":5,"messages":["#, 1_100_000, Some(90_000)), most(90_000, 9));
    assert_eq!(of(r#"{"n":9,"max_tokens":5,"messages":["#, 1_100_000, Some(900)), most(11_000, 9));
    // Nothing says that this is all of it.
    assert_eq!(of(r#"{"max_tokens":5}"#, 16, Some(900)), most(900, 1));
    let head = BodyHead { content_type: None, content_encoding: Some("gzip") };
    let route = TokenRoute { max_input: Some(900), ..route(UsageFormat::OpenAi) };
    let body = RequestBody::Unmeasured { start: Vec::new(), received: 0 };
    assert_eq!(TokenRequest::read(&route, head, body).err(), Some(UnboundedBody::Compressed));
}

#[test]
fn input_is_bounded_by_bytes_and_by_the_row() {
    let body = r#"{"max_tokens":5,"messages":[{"content":[{"image_url":{"url":"https://example.com/a.png"}}]}]}"#;
    let of = |bytes_per_token, max_input| {
        let route = TokenRoute { bytes_per_token, max_input, ..route(UsageFormat::OpenAi) };
        TokenRequest::read(&route, JSON, RequestBody::Whole(body.into())).unwrap().hold
    };
    let bytes = body.len() as u64;
    assert_eq!(of(1, None), TokenHold { input: bytes, output_per_answer: 5, answers: 1 });
    assert_eq!(of(1, None).total(), bytes + 5);
    assert_eq!(of(3, None).input, bytes.div_ceil(3));
    assert_eq!(of(1, Some(20_000)).input, 20_000);
    assert_eq!(of(1, Some(10)).input, bytes);
    let embeddings = TokenRoute { default_output: 0, max_output: 0, ..route(UsageFormat::OpenAi) };
    let body = r#"{"input":["a","b"],"model":"text-embedding-3-small"}"#;
    let request = TokenRequest::read(&embeddings, JSON, RequestBody::Whole(body.into())).unwrap();
    assert_eq!(request.hold.total(), body.len() as u64);
    assert!(!request.can_be_clamped());
}

fn fault(content_type: Option<&str>, content_encoding: Option<&str>, body: &[u8]) -> Option<UnboundedBody> {
    let head = BodyHead { content_type, content_encoding };
    TokenRequest::read(&route(UsageFormat::OpenAi), head, RequestBody::Whole(body.into())).err()
}

#[test]
fn a_body_that_nothing_bounds_is_refused() {
    let of = fault;
    for coding in ["gzip", "br", "GZIP", "identity, gzip", "x-unknown", "identity;q=1"] {
        assert_eq!(of(None, Some(coding), b"x"), Some(UnboundedBody::Compressed), "{coding}");
    }
    for coding in ["identity", "", "Identity", "identity, identity"] {
        assert_eq!(of(None, Some(coding), b"x"), None, "{coding}");
    }
    assert_eq!(of(None, Some("gzip"), b""), None);
    let long = RequestBody::Longer { start: Vec::new(), length: 1 };
    let head = BodyHead { content_type: None, content_encoding: Some("gzip") };
    assert_eq!(TokenRequest::read(&route(UsageFormat::OpenAi), head, long).err(), Some(UnboundedBody::Compressed));
    for charset in ["ibm500", "utf-16", "utf-7", "\"UTF-16\"", "shift_jis", "utf-8; charset=utf-16"] {
        let content_type = format!("application/json; charset={charset}");
        assert_eq!(of(Some(&content_type), None, b"{}"), Some(UnboundedBody::Charset), "{charset}");
    }
    for content_type in
        ["application/json;charset=UTF-8", "text/plain; Charset=\"us-ascii\"", "a/b; x=y; charset=ISO-8859-1", "a/b"]
    {
        assert_eq!(of(Some(content_type), None, b"{}"), None, "{content_type}");
    }
    let text = " {\"n\":100}";
    let wide = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
    let wider = |unit: fn(u32) -> [u8; 4]| text.chars().flat_map(|char| unit(u32::from(char))).collect::<Vec<_>>();
    for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes), wider(u32::to_le_bytes), wider(u32::to_be_bytes)] {
        assert_eq!(of(None, None, &bytes), Some(UnboundedBody::Charset), "{bytes:?}");
    }
    assert_eq!(of(None, None, b"\xff\xfe{\0\"\0"), Some(UnboundedBody::Charset));
}

#[test]
fn a_hold_fits_into_what_is_left() {
    let hold = TokenHold { input: 100, output_per_answer: 50, answers: 2 };
    for (left, output) in [
        (200, Some(50)),
        (u64::MAX, Some(50)),
        (199, Some(49)),
        (150, Some(25)),
        (103, Some(1)),
        (102, Some(1)),
        (101, None),
        (100, None),
        (99, None),
        (0, None),
    ] {
        let fitted = hold.within(left);
        assert_eq!(fitted.map(|hold| hold.output_per_answer), output, "{left}");
        assert!(fitted.is_none_or(|hold| hold.total() <= left));
    }
    let none = TokenHold { output_per_answer: 0, ..hold };
    assert_eq!((none.within(100), none.within(99)), (Some(none), None));
}

#[test]
fn streams_are_recognised() {
    for (body, streams) in [
        (r#"{"stream":true}"#, true),
        (r#"{"stream":false,"stream":true}"#, true),
        (r#"{"stream":true,"stream":false}"#, true),
        (r#"{"stream":1}"#, true),
        (r#"{"stream":"true"}"#, true),
        (r#"{"Stream":true}"#, true),
        (r#"{"stream":false}"#, false),
        (r#"{"stream":null}"#, false),
        (r#"{"stream":0}"#, false),
        (r#"{"x":{"stream":true}}"#, false),
        ("{}", false),
    ] {
        assert_eq!(openai(body).streams(), streams, "{body}");
    }
}

#[test]
fn the_usage_of_a_stream_is_asked_for() {
    for (body, expected) in [
        (
            r#"{"messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"messages":[],"stream":true}"#,
        ),
        (r#"{"prompt":"a","stream":true}"#, r#"{"stream_options":{"include_usage":true},"prompt":"a","stream":true}"#),
        (
            r#" { "messages":[], "stream":true, "stream_options": { "x":1 } } "#,
            r#" { "messages":[], "stream":true, "stream_options": {"include_usage":true, "x":1 } } "#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":null}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":null,"x":{}}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true,"x":{}}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"stream_options":{}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"Include_Usage":false}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true,"Include_Usage":true}}"#,
        ),
        (
            "\u{feff}{\"messages\":[],\"stream\":true}",
            "\u{feff}{\"stream_options\":{\"include_usage\":true},\"messages\":[],\"stream\":true}",
        ),
    ] {
        let request = openai(body);
        assert!(request.needs_usage() && !request.asks_usage(), "{body}");
        assert_eq!(String::from_utf8(request.rewritten(None).unwrap()).unwrap(), expected);
    }
}

#[test]
fn the_usage_is_not_asked_for_in_vain() {
    let asked = r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
    assert!(openai(asked).asks_usage());
    for body in [
        asked,
        r#"{"messages":[]}"#,
        r#"{"messages":[],"stream":false}"#,
        // A response says it in any case.
        r#"{"input":"a","stream":true}"#,
        r#"{"prompt":{"id":"pmpt_1"},"input":"a","stream":true}"#,
        r#"{"stream":true}"#,
        r#"[{"messages":[],"stream":true}]"#,
        // Broken, or nothing that could be changed.
        r#"{"messages":[],"stream":true"#,
        r#"{"messages":[],"stream":true,"stream_options":[]}"#,
        r#"{"messages":[],"stream":true,"stream_options":{"include_usage":{}}}"#,
    ] {
        let request = openai(body);
        assert!(!request.needs_usage(), "{body}");
        assert_eq!(request.rewritten(None), None, "{body}");
    }
    for format in [UsageFormat::Header, UsageFormat::Anthropic, UsageFormat::Gemini] {
        assert!(!request(format, r#"{"messages":[],"stream":true}"#).needs_usage());
    }
}

fn clamped(format: UsageFormat, body: &str) -> Option<String> {
    let request = request(format, body);
    assert!(request.can_be_clamped(), "{body}");
    request.rewritten(Some(7)).map(|body| String::from_utf8(body).unwrap())
}

#[test]
fn a_cap_is_written_where_it_is_larger() {
    for (body, expected) in [
        (r#"{"messages":[],"max_tokens":500}"#, r#"{"messages":[],"max_tokens":7}"#),
        (r#"{"messages":[], "max_completion_tokens" : 5e2 }"#, r#"{"messages":[], "max_completion_tokens" : 7 }"#),
        (r#"{"input":"a","max_output_tokens":500}"#, r#"{"input":"a","max_output_tokens":7}"#),
        (
            r#"{"messages":[],"max_tokens":3,"max_completion_tokens":500}"#,
            r#"{"messages":[],"max_tokens":3,"max_completion_tokens":7}"#,
        ),
        (r#"{"messages":[],"max_tokens":500,"max_tokens":600}"#, r#"{"messages":[],"max_tokens":7,"max_tokens":7}"#),
        // What may be read otherwise.
        (r#"{"messages":[],"max_tokens":null}"#, r#"{"messages":[],"max_tokens":7}"#),
        (r#"{"messages":[],"max_tokens":"5"}"#, r#"{"messages":[],"max_tokens":7}"#),
        (r#"{"messages":[],"max_tokens":0}"#, r#"{"messages":[],"max_tokens":7}"#),
        (r#"{"messages":[],"max_tokens":-1}"#, r#"{"messages":[],"max_tokens":7}"#),
        (r#"{"messages":[],"MAX_TOKENS":500}"#, r#"{"max_tokens":7,"messages":[],"MAX_TOKENS":7}"#),
        (r#"{"max_tokens":500}"#, r#"{"max_tokens":7}"#),
        ("\u{feff}{\"max_tokens\":500}", "\u{feff}{\"max_tokens\":7}"),
    ] {
        assert_eq!(clamped(UsageFormat::OpenAi, body).as_deref(), Some(expected));
    }
    assert_eq!(clamped(UsageFormat::OpenAi, r#"{"messages":[],"max_tokens":7}"#), None);
    assert_eq!(clamped(UsageFormat::OpenAi, r#"{"messages":[],"max_completion_tokens":7}"#), None);
    let both = clamped(UsageFormat::OpenAi, r#"{"messages":[],"stream":true}"#).unwrap();
    assert_eq!(both, r#"{"max_tokens":7,"stream_options":{"include_usage":true},"messages":[],"stream":true}"#);
}

#[test]
fn a_cap_is_written_where_there_is_none() {
    let (openai, anthropic, gemini) = (UsageFormat::OpenAi, UsageFormat::Anthropic, UsageFormat::Gemini);
    for (format, body, expected) in [
        (openai, r#"{"messages":[]}"#, r#"{"max_tokens":7,"messages":[]}"#),
        (openai, r#"{"prompt":"a"}"#, r#"{"max_tokens":7,"prompt":"a"}"#),
        (openai, r#"{"input":"a"}"#, r#"{"max_output_tokens":7,"input":"a"}"#),
        // A cap that the origin does not know in this place is none.
        (openai, r#"{"input":"a","max_tokens":5}"#, r#"{"max_output_tokens":7,"input":"a","max_tokens":5}"#),
        (openai, r#"{"model":"gpt-4.1","messages":[]}"#, r#"{"max_tokens":7,"model":"gpt-4.1","messages":[]}"#),
        (
            openai,
            r#"{"model":"o3-mini","messages":[]}"#,
            r#"{"max_completion_tokens":7,"model":"o3-mini","messages":[]}"#,
        ),
        (
            openai,
            r#"{"model":"openai/gpt-5-nano","messages":[]}"#,
            r#"{"max_completion_tokens":7,"model":"openai/gpt-5-nano","messages":[]}"#,
        ),
        (openai, r#"{"model":"openchat","messages":[]}"#, r#"{"max_tokens":7,"model":"openchat","messages":[]}"#),
        (anthropic, r#"{"model":"x"}"#, r#"{"max_tokens":7,"model":"x"}"#),
        (gemini, r#"{"contents":[]}"#, r#"{"generationConfig":{"maxOutputTokens":7},"contents":[]}"#),
        (
            gemini,
            r#"{"contents":[],"generationConfig":{"topK":1}}"#,
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":7,"topK":1}}"#,
        ),
        (
            gemini,
            r#"{"contents":[],"generation_config":{}}"#,
            r#"{"contents":[],"generation_config":{"maxOutputTokens":7}}"#,
        ),
        (
            gemini,
            r#"{"contents":[],"generationConfig":{"max_output_tokens":null}}"#,
            r#"{"contents":[],"generationConfig":{"max_output_tokens":7}}"#,
        ),
        (
            gemini,
            r#"{"contents":[],"generationConfig":null}"#,
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":7}}"#,
        ),
        (UsageFormat::Header, r#"{"messages":[]}"#, r#"{"max_tokens":7,"messages":[]}"#),
        (UsageFormat::Header, r#"{"contents":[]}"#, r#"{"generationConfig":{"maxOutputTokens":7},"contents":[]}"#),
    ] {
        assert_eq!(clamped(format, body).as_deref(), Some(expected));
    }
}

#[test]
fn a_body_that_cannot_be_capped_says_so() {
    let many = format!(r#"{{"messages":[],{}"x":1}}"#, r#""max_tokens":500,"#.repeat(100));
    for body in [
        "{}",
        r#"{"model":"x"}"#,
        r#"[{"messages":[],"max_tokens":500}]"#,
        r#"{"messages":[],"max_tokens":[500]}"#,
        r#"{"messages":[],"generationConfig":[]}"#,
        r#"{"messages":[],"max_tokens":500"#,
        many.as_str(),
    ] {
        let request = openai(body);
        assert!(!request.can_be_clamped(), "{body}");
        assert_eq!(request.rewritten(Some(7)), None, "{body}");
    }
    for format in [UsageFormat::Anthropic, UsageFormat::Gemini] {
        assert!(!request(format, "{}").can_be_clamped());
    }
}

#[test]
fn an_empty_body_holds_the_default_whatever_its_fields_say() {
    for head in [JSON, BodyHead::default(), BodyHead { content_encoding: Some("gzip"), ..JSON }] {
        let request = TokenRequest::read(&route(UsageFormat::OpenAi), head, RequestBody::Whole(Vec::new())).unwrap();
        assert_eq!(request.hold, TokenHold { input: 0, output_per_answer: 1_000, answers: 1 }, "{head:?}");
    }
}
