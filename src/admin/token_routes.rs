//! Token routes: which calls spend tokens, by path pattern and method.

use crate::admin::body::{FromFields, JsonFields, Limits};
use crate::http::problem::Problem;
use crate::keys::route_key::{ANY_METHOD, PATTERN_LENGTH};
use crate::keys::token_route::{BYTES_PER_TOKEN_LIMIT, ROUTE_TOKENS_LIMIT, TokenRoute, UsageFormat};

/// The most token routes. Each key's object keeps all of them and matches each call against them.
pub const TOKEN_ROUTES_LIMIT: usize = 500;

/// The body that makes calls spend tokens whose path and method match. If several patterns match,
/// the longest one decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"pattern": "/v1/chat/completions", "method": "POST",
    "format": "openai", "default_output": 1024, "max_output": 16384, "bytes_per_token": 1, "max_input": null})))]
pub struct PutTokenRoute {
    /// Path pattern. Each segment is literal, `*` (one segment; as the last one, one or more) or
    /// `**` (any number of segments, also none).
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub pattern: String,
    /// Method in upper case, or `*` (the default) for all methods.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, pattern = "^(\\*|[A-Z]+)$"))]
    pub method: String,
    /// Where the origin's response reports the tokens that were used.
    pub format: UsageFormat,
    /// Tokens of output that are held for a response to a request without a cap; at most `max_output`.
    pub default_output: u64,
    /// Tokens of output that are held for a response at most.
    pub max_output: u64,
    /// Bytes of the request's body that are held as one token of input. 1 (the default) is a bound
    /// for text, more is an estimate.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub bytes_per_token: u64,
    /// Tokens of input that are held at least; `null` (the default) if the bytes of the body are a
    /// bound.
    pub max_input: Option<u64>,
}

impl FromFields for PutTokenRoute {
    const LIMITS: Limits = &[
        ("pattern", "maxLength", PATTERN_LENGTH as u64),
        ("default_output", "maximum", ROUTE_TOKENS_LIMIT),
        ("max_output", "maximum", ROUTE_TOKENS_LIMIT),
        ("bytes_per_token", "minimum", 1),
        ("bytes_per_token", "maximum", BYTES_PER_TOKEN_LIMIT),
        ("max_input", "minimum", 1),
        ("max_input", "maximum", ROUTE_TOKENS_LIMIT),
    ];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let pattern = fields.string("pattern")?;
        let pattern = fields.required("pattern", pattern)?;
        let method = fields.string("method")?.unwrap_or_else(|| ANY_METHOD.to_owned());
        let format = fields.string("format")?;
        let format = fields.required("format", format)?;
        let Some(format) = UsageFormat::parse(&format) else {
            return Err(fields.wrong("format", "must be header, openai, anthropic or gemini"));
        };
        let default_output = fields.number("default_output")?;
        let default_output = fields.required("default_output", default_output)?;
        let max_output = fields.number("max_output")?;
        let max_output = fields.required("max_output", max_output)?;
        let bytes_per_token = fields.number("bytes_per_token")?.unwrap_or(1);
        let max_input = if fields.is_null("max_input") { None } else { fields.number("max_input")? };
        let row = TokenRoute { pattern, method, format, default_output, max_output, bytes_per_token, max_input };
        row.check().map_err(|error| fields.wrong(error.field, error.reason))?;
        Ok(Self::from(row))
    }
}

impl From<TokenRoute> for PutTokenRoute {
    fn from(row: TokenRoute) -> Self {
        let TokenRoute { pattern, method, format, default_output, max_output, bytes_per_token, max_input } = row;
        Self { pattern, method, format, default_output, max_output, bytes_per_token, max_input }
    }
}

impl From<PutTokenRoute> for TokenRoute {
    fn from(body: PutTokenRoute) -> Self {
        let PutTokenRoute { pattern, method, format, default_output, max_output, bytes_per_token, max_input } = body;
        Self { pattern, method, format, default_output, max_output, bytes_per_token, max_input }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::parse;

    fn read(body: &str) -> Result<TokenRoute, Problem> {
        parse::<PutTokenRoute>(body.as_bytes()).map(TokenRoute::from)
    }

    #[test]
    fn what_a_row_does_not_say_has_a_default() {
        let row = read(r#"{"pattern":"/v1/*","format":"gemini","default_output":0,"max_output":9}"#).unwrap();
        let expected = TokenRoute {
            pattern: "/v1/*".to_owned(),
            method: "*".to_owned(),
            format: UsageFormat::Gemini,
            default_output: 0,
            max_output: 9,
            bytes_per_token: 1,
            max_input: None,
        };
        assert_eq!(row, expected);
        let whole = r#"{"pattern":"/v1/*","method":"POST","format":"gemini","default_output":9,"max_output":9,
            "bytes_per_token":3,"max_input":7}"#;
        let method = "POST".to_owned();
        let expected = TokenRoute { method, default_output: 9, bytes_per_token: 3, max_input: Some(7), ..expected };
        assert_eq!(read(whole), Ok(expected));
    }

    #[test]
    fn the_error_of_a_bad_row_names_the_field() {
        let row = |rest: &str| format!(r#"{{"pattern":"/","default_output":1,"max_output":2{rest}}}"#);
        let known = |rest: &str| row(&format!(r#","format":"openai"{rest}"#));
        for (body, field) in [
            (r#"{"format":"openai","default_output":1,"max_output":2}"#.to_owned(), "pattern"),
            (known("").replace("\"/\"", "\"x\""), "pattern"),
            (known(r#","method":"get""#), "method"),
            (row(""), "format"),
            (row(r#","format":"OpenAI""#), "format"),
            (row(r#","format":1"#), "format"),
            (r#"{"pattern":"/","format":"openai","max_output":2}"#.to_owned(), "default_output"),
            (known("").replace(":1,", ":3,"), "default_output"),
            (r#"{"pattern":"/","format":"openai","default_output":1}"#.to_owned(), "max_output"),
            (known("").replace(":2,", ":1000000001,"), "max_output"),
            (known(r#","bytes_per_token":0"#), "bytes_per_token"),
            (known(r#","bytes_per_token":null"#), "bytes_per_token"),
            (known(r#","max_input":0"#), "max_input"),
            (known(r#","x":1"#), "x"),
        ] {
            match read(&body) {
                Err(Problem::Invalid(named, _)) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
