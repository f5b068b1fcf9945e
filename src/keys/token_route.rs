//! Routes that spend tokens.

use crate::keys::route_key::{ANY_METHOD, method_fault, pattern_fault};
use crate::keys::route_pattern::{RouteCase, Routes};
use crate::limiter::policy::MAX_QUOTA;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// Tokens of a row's fields at most: no policy has more.
pub const ROUTE_TOKENS_LIMIT: u64 = MAX_QUOTA;
/// The largest `bytes_per_token`.
pub const BYTES_PER_TOKEN_LIMIT: u64 = 10_000;

/// Where the origin's answer says how many tokens were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum UsageFormat {
    /// In the field `X-Tollgate-Tokens`.
    Header,
    /// As OpenAI's API has it: chat completions, completions, responses, embeddings.
    OpenAi,
    /// As Anthropic's Messages API has it.
    Anthropic,
    /// As the Gemini API has it.
    Gemini,
}

impl UsageFormat {
    /// Reads the word of the schema and the API.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Header, Self::OpenAi, Self::Anthropic, Self::Gemini].into_iter().find(|format| format.as_str() == word)
    }

    /// The word of the schema and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}

/// A row of `token_routes`, as profiles store it and the API shows it. Rows of it lie in objects in
/// the field: new fields need a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct TokenRoute {
    /// A path of which each segment is literal, `*` for one segment (at the end for one or more), or `**` for any number.
    pub pattern: String,
    /// The method that it is for, or `*` for all.
    #[serde(default = "any_method")]
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub method: String,
    /// Where the answer says how many tokens were used.
    pub format: UsageFormat,
    /// Tokens of output that are held for an answer to a request that sets no limit.
    pub default_output: u64,
    /// Tokens of output that an answer has at most, whatever the request says.
    pub max_output: u64,
    /// Bytes of a request's body that are held as one token of input: 1 is a bound for text, more is an estimate.
    #[serde(default = "one")]
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub bytes_per_token: u64,
    /// Tokens of input that are held at least; `null` if the input is all in the body, as text.
    #[serde(default)]
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub max_input: Option<u64>,
}

/// A format of a later version is read as [`UsageFormat::Header`], so that the key stays in use: its
/// calls are held, and charged whole unless the field says what was used.
impl<'de> Deserialize<'de> for UsageFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::parse(&word).unwrap_or(Self::Header))
    }
}

/// What of a row decides how much a call holds and where its answer says what was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTerms {
    /// See [`TokenRoute::format`].
    pub format: UsageFormat,
    /// See [`TokenRoute::default_output`].
    pub default_output: u64,
    /// See [`TokenRoute::max_output`].
    pub max_output: u64,
    /// See [`TokenRoute::bytes_per_token`].
    pub bytes_per_token: u64,
    /// See [`TokenRoute::max_input`].
    pub max_input: Option<u64>,
}

impl From<&TokenRoute> for TokenTerms {
    fn from(row: &TokenRoute) -> Self {
        let &TokenRoute { format, default_output, max_output, bytes_per_token, max_input, .. } = row;
        Self { format, default_output, max_output, bytes_per_token, max_input }
    }
}

fn any_method() -> String {
    ANY_METHOD.to_owned()
}

const fn one() -> u64 {
    1
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct TokenRouteError {
    /// The field that is wrong.
    pub field: &'static str,
    /// What it must be.
    pub reason: Cow<'static, str>,
}

impl TokenRoute {
    /// Checks a row.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn check(&self) -> Result<(), TokenRouteError> {
        let fail = |field, reason| Err(TokenRouteError { field, reason });
        if let Some(reason) = pattern_fault(&self.pattern) {
            return fail("pattern", Cow::Owned(reason));
        }
        if let Some(reason) = method_fault(&self.method) {
            return fail("method", Cow::Borrowed(reason));
        }
        let between = |least: u64, most: u64| Cow::Owned(format!("must be {least} to {most}"));
        if self.max_output > ROUTE_TOKENS_LIMIT {
            return fail("max_output", between(0, ROUTE_TOKENS_LIMIT));
        }
        if self.default_output > self.max_output {
            return fail("default_output", Cow::Borrowed("must be at most max_output"));
        }
        if !(1..=BYTES_PER_TOKEN_LIMIT).contains(&self.bytes_per_token) {
            return fail("bytes_per_token", between(1, BYTES_PER_TOKEN_LIMIT));
        }
        if self.max_input.is_some_and(|most| !(1..=ROUTE_TOKENS_LIMIT).contains(&most)) {
            return fail("max_input", between(1, ROUTE_TOKENS_LIMIT));
        }
        Ok(())
    }
}

impl TokenTerms {
    /// Terms that hold no less than these or `other`.
    fn holding_most(self, other: Self) -> Self {
        let size = |terms: &Self| terms.max_output.saturating_add(terms.max_input.unwrap_or(0));
        Self {
            format: if size(&other) > size(&self) { other.format } else { self.format },
            default_output: self.default_output.max(other.default_output),
            max_output: self.max_output.max(other.max_output),
            bytes_per_token: self.bytes_per_token.min(other.bytes_per_token),
            max_input: self.max_input.max(other.max_input),
        }
    }

    /// Tokens of input that a body of so many bytes has at most. The bytes of a text are a bound,
    /// since a token is at least one byte; so is `max_input`, since input may be named by few bytes
    /// (an image by its URL, a file or an earlier conversation by its id). The larger one is held.
    #[must_use]
    pub fn input_of(&self, bytes: u64) -> u64 {
        // A row that was written without a check may say 0.
        let of_bytes = bytes.div_ceil(self.bytes_per_token.max(1));
        of_bytes.max(self.max_input.unwrap_or(0))
    }
}

/// `token_routes`, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRoutes(Routes<TokenRoute>);

impl TokenRoutes {
    /// Compiles the table.
    #[must_use]
    pub fn new(rows: &[TokenRoute]) -> Self {
        Self(Routes::new(rows.iter().map(|row| (row.pattern.as_str(), row.method.as_str(), row.clone()))))
    }

    /// The terms by which a request is held; `None` if it spends no tokens.
    ///
    /// Where origins may read its path in several ways, which row holds the most depends on the body.
    /// So of each number the one is taken that holds more: what is held is then no less than by any
    /// of the rows, whatever the body is. The format is that of the row with the largest
    /// `max_output` and `max_input`.
    #[must_use]
    pub fn find(&self, method: &str, path: &str, case: RouteCase) -> Option<TokenTerms> {
        self.0.of_readings(method, path, case).map(TokenTerms::from).reduce(TokenTerms::holding_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pattern: &str, method: &str) -> TokenRoute {
        TokenRoute {
            pattern: pattern.into(),
            method: method.into(),
            format: UsageFormat::OpenAi,
            default_output: 100,
            max_output: 4096,
            bytes_per_token: 1,
            max_input: None,
        }
    }

    #[test]
    fn a_row_is_stored_as_the_api_shows_it() {
        let text = r#"{"pattern":"/v1/chat/*","method":"POST","format":"openai","default_output":100,"max_output":4096,"bytes_per_token":1,"max_input":null}"#;
        assert_eq!(serde_json::to_string(&row("/v1/chat/*", "POST")).unwrap(), text);
        assert_eq!(serde_json::from_str::<TokenRoute>(text).unwrap(), row("/v1/chat/*", "POST"));
        let short = r#"{"pattern":"/v1/chat/*","format":"openai","default_output":100,"max_output":4096,"later":1}"#;
        assert_eq!(serde_json::from_str::<TokenRoute>(short).unwrap(), row("/v1/chat/*", "*"));
    }

    #[test]
    fn a_format_of_a_later_version_is_read_as_header() {
        let later = r#"{"pattern":"/v1/chat/*","format":"other","default_output":100,"max_output":4096}"#;
        assert_eq!(serde_json::from_str::<TokenRoute>(later).unwrap().format, UsageFormat::Header);
    }

    #[test]
    fn formats_are_words() {
        for word in ["header", "openai", "anthropic", "gemini"] {
            let format = UsageFormat::parse(word).unwrap();
            assert_eq!(format.as_str(), word);
            assert_eq!(serde_json::to_string(&format).unwrap(), format!("\"{word}\""));
        }
        assert_eq!(UsageFormat::parse("OpenAI"), None);
    }

    #[test]
    fn a_bad_row_is_told_the_field() {
        assert_eq!(row("/", "*").check(), Ok(()));
        let none = TokenRoute { default_output: 0, max_output: 0, max_input: Some(1), ..row("/v1/embeddings", "POST") };
        assert_eq!(none.check(), Ok(()));
        let most = ROUTE_TOKENS_LIMIT;
        let bad = [
            (row("x", "*"), "pattern"),
            (row(&format!("/{}", "ä".repeat(512)), "*"), "pattern"),
            (row("/\u{7f}", "*"), "pattern"),
            (row("/", ""), "method"),
            (row("/", "post"), "method"),
            (TokenRoute { max_output: most + 1, ..row("/", "*") }, "max_output"),
            (TokenRoute { default_output: 4097, ..row("/", "*") }, "default_output"),
            (TokenRoute { bytes_per_token: 0, ..row("/", "*") }, "bytes_per_token"),
            (TokenRoute { bytes_per_token: 10_001, ..row("/", "*") }, "bytes_per_token"),
            (TokenRoute { max_input: Some(0), ..row("/", "*") }, "max_input"),
            (TokenRoute { max_input: Some(most + 1), ..row("/", "*") }, "max_input"),
        ];
        for (row, field) in bad {
            let error = row.check().unwrap_err();
            assert_eq!(error.field, field, "{row:?}");
            assert!(error.to_string().starts_with(&format!("{field}: must be ")), "{error}");
        }
    }

    #[test]
    fn the_larger_bound_of_the_input_is_held() {
        let route = |bytes_per_token, max_input| TokenRoute { bytes_per_token, max_input, ..row("/", "*") };
        for (bytes_per_token, max_input, bytes, input) in [
            (1, None, 0, 0),
            (1, None, 100, 100),
            (3, None, 100, 34),
            (3, None, 99, 33),
            (1, Some(50), 100, 100),
            (1, Some(5_000), 100, 5_000),
            (0, None, 100, 100),
            (10_000, Some(5_000), 1_000_000, 5_000),
        ] {
            assert_eq!(
                TokenTerms::from(&route(bytes_per_token, max_input)).input_of(bytes),
                input,
                "{bytes} / {bytes_per_token}"
            );
        }
    }

    #[test]
    fn the_longest_match_is_found_and_of_several_readings_the_one_that_holds_most() {
        let rows = [
            TokenRoute { max_output: 10_000, ..row("/v1/**", "POST") },
            TokenRoute { max_output: 200, ..row("/v1/small", "POST") },
        ];
        let routes = TokenRoutes::new(&rows);
        let most = |method, path| routes.find(method, path, RouteCase::Sensitive).map(|row| row.max_output);
        assert_eq!(most("POST", "/v1/chat/completions"), Some(10_000));
        assert_eq!(most("POST", "/v1/small"), Some(200));
        assert_eq!(most("POST", "/v1/%73mall"), Some(10_000));
        assert_eq!(most("GET", "/v1/small"), None);
        assert_eq!(most("POST", "/v2/chat"), None);
        // No row, in no reading, is not a row that holds nothing.
        // Which of two rows holds more depends on the body: of each number the larger hold counts.
        let rows = [
            TokenRoute { max_output: 100, bytes_per_token: 4, max_input: Some(9_000), ..row("/v1/**", "POST") },
            TokenRoute { max_output: 200, default_output: 150, format: UsageFormat::Gemini, ..row("/v1/b", "POST") },
        ];
        for rows in [rows.clone(), [rows[1].clone(), rows[0].clone()]] {
            let routes = TokenRoutes::new(&rows);
            let find = |path| routes.find("POST", path, RouteCase::Sensitive);
            let most = TokenTerms {
                format: UsageFormat::OpenAi,
                default_output: 150,
                max_output: 200,
                bytes_per_token: 1,
                max_input: Some(9_000),
            };
            assert_eq!(find("/v1/%62"), Some(most));
            assert_eq!(find("/v1/b"), rows.iter().find(|row| row.pattern == "/v1/b").map(TokenTerms::from));
        }
        let free = TokenRoutes::new(&[TokenRoute { default_output: 0, max_output: 0, ..row("/e", "*") }]);
        assert!(free.find("POST", "/e;x", RouteCase::Sensitive).is_some());
    }
}
