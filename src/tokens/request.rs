//! How many tokens a request may use at most: what is held before the origin is asked.

use crate::keys::token_route::{TokenTerms, UsageFormat};
use crate::tokens::body_call::CapField;
use crate::tokens::body_fields::BodyFields;
use crate::tokens::json::NUMBER_LIMIT;
use serde::de::IgnoredAny;

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The header fields that say how a body is to be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct BodyHead<'a> {
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
}

/// A request's body.
#[derive(Debug, Clone)]
pub enum RequestBody {
    /// All of it.
    Whole(Vec<u8>),
    /// Of one that is too long to be read.
    Longer {
        /// What was read of it, perhaps nothing.
        start: Vec<u8>,
        /// Its length.
        length: u64,
    },
    /// Of one that is too long to be read, and whose length is known only at its end.
    Unmeasured {
        /// What was read of it.
        start: Vec<u8>,
        /// The bytes that have come so far.
        received: u64,
    },
}

/// A body of which nothing bounds the tokens. It is refused with 415, or 411 if it is
/// [`Unmeasured`](Self::Unmeasured).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnboundedBody {
    /// A few compressed bytes may be any number of tokens, and ask for any number of answers.
    #[error("this route counts tokens and takes no compressed body: send it without Content-Encoding")]
    Compressed,
    /// JSON is UTF-8 (RFC 8259). Origins that also read it otherwise would read another number of
    /// answers than the gate.
    #[error("this route counts tokens and takes text as UTF-8 only")]
    Charset,
    /// Its bytes bound nothing before they have all come, and the row does not say what its origin
    /// accepts.
    #[error("this route counts tokens and takes a long body only with its Content-Length")]
    Unmeasured,
}

/// The tokens that a call holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHold {
    /// Of the input.
    pub input: u64,
    /// Of each answer.
    pub output_per_answer: u64,
    /// The answers that it asks for, at least 1.
    pub answers: u64,
}

impl TokenHold {
    /// All of them, at most [`NUMBER_LIMIT`].
    #[must_use]
    pub fn total(&self) -> u64 {
        self.output_per_answer.saturating_mul(self.answers).saturating_add(self.input).min(NUMBER_LIMIT)
    }

    /// The hold with as much output as fits into what is left of a budget; `None` if not one token
    /// of output for each answer does.
    #[must_use]
    pub fn within(&self, left: u64) -> Option<Self> {
        if self.total() <= left {
            return Some(*self);
        }
        let output = left.checked_sub(self.input)?.checked_div(self.answers)?.min(self.output_per_answer);
        (output > 0).then_some(Self { output_per_answer: output, ..*self })
    }
}

/// A request on a route that spends tokens.
#[derive(Debug)]
pub struct TokenRequest {
    /// What it holds.
    pub hold: TokenHold,
    /// What was read of its body.
    pub body: Vec<u8>,
    pub(super) format: UsageFormat,
    /// What the body says, if it looks like JSON.
    pub(super) fields: Option<BodyFields>,
    /// Whether the body is complete and is JSON.
    pub(super) is_json: bool,
}

impl TokenRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// If nothing bounds its tokens.
    pub fn read(terms: impl Into<TokenTerms>, head: BodyHead<'_>, body: RequestBody) -> Result<Self, UnboundedBody> {
        let terms = terms.into();
        let mut is_measured = true;
        let (start, length) = match body {
            RequestBody::Whole(body) => {
                let length = body.len() as u64;
                (body, length)
            }
            RequestBody::Longer { start, length } => {
                let length = length.max(start.len() as u64);
                (start, length)
            }
            RequestBody::Unmeasured { .. } if terms.max_input.is_none() => return Err(UnboundedBody::Unmeasured),
            RequestBody::Unmeasured { start, received } => {
                is_measured = false;
                let length = received.max(start.len() as u64);
                (start, length)
            }
        };
        let is_whole = is_measured && start.len() as u64 == length;
        let has_coding = head.content_encoding.is_some_and(|coding| {
            coding
                .split(',')
                .map(str::trim)
                .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
        });
        // An empty body has no coding, whatever its field says.
        if has_coding && (length > 0 || !is_measured) {
            return Err(UnboundedBody::Compressed);
        }
        let content_type = head.content_type.unwrap_or_default();
        if !is_like_ascii(content_type) || is_wide_json(&start) {
            return Err(UnboundedBody::Charset);
        }
        let text = start.strip_prefix(MARK).unwrap_or(&start);
        let seems_json = content_type.to_ascii_lowercase().contains("json") || begins_like_json(text);
        let at = start.len().saturating_sub(text.len()) as u64;
        let fields = seems_json.then(|| BodyFields::read(terms, at, text));
        let is_json = is_whole && seems_json && is_json_text(text);
        let output_per_answer = match &fields {
            Some(fields) if is_json => fields.output,
            _ if is_measured && length == 0 => terms.default_output.min(terms.max_output),
            _ => terms.max_output,
        };
        let answers = fields.as_ref().map_or(1, |fields| fields.answers).max(1);
        let hold = TokenHold { input: terms.input_of(length), output_per_answer, answers };
        Ok(Self { hold, body: start, format: terms.format, fields, is_json })
    }

    /// Whether it asks for a stream.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.fields.as_ref().is_some_and(|fields| fields.streams)
    }

    /// Whether the client asks for the usage of a stream itself.
    #[must_use]
    pub fn asks_usage(&self) -> bool {
        self.fields.as_ref().is_some_and(BodyFields::asks_usage)
    }

    /// Whether the usage of its answer is only said if the gate asks for it: a streamed chat or
    /// completion of OpenAI's API. A client's `false` is no different from nothing, since usage
    /// that is not said cannot be counted. Responses say it in any case.
    #[must_use]
    pub fn needs_usage(&self) -> bool {
        let can_be_asked =
            |fields: &BodyFields| fields.streams && fields.form.is_chat() && !fields.is_rigid && fields.root.is_some();
        self.format == UsageFormat::OpenAi
            && self.is_json
            && self.fields.as_ref().is_some_and(|fields| can_be_asked(fields) && !fields.asks_usage())
    }

    /// Whether a stream of its answer may generate what is not delivered: the reasoning of a model
    /// of OpenAI. A body that was not read to its end may ask for that.
    #[must_use]
    pub fn hides_output(&self) -> bool {
        let is_asked = |fields: &BodyFields| fields.is_reasoning || fields.asks_reasoning || !self.is_json;
        self.format == UsageFormat::OpenAi && self.fields.as_ref().is_some_and(is_asked)
    }

    /// Whether a cap can be written into its body.
    #[must_use]
    pub fn can_be_clamped(&self) -> bool {
        let is_known = |fields: &BodyFields| fields.root.is_some() && !fields.is_rigid;
        self.is_json
            && self.hold.output_per_answer > 0
            && self.fields.as_ref().is_some_and(|fields| is_known(fields) && !self.caps_to_write(fields).is_empty())
    }

    /// The fields that cap its output: those that its protocol has for a body of this shape, or
    /// else those that stand in it.
    pub(super) fn caps_to_write(&self, fields: &BodyFields) -> Vec<CapField> {
        let is_gemini =
            self.format == UsageFormat::Gemini || self.format == UsageFormat::Header && fields.form.has_contents;
        let mut caps = Vec::new();
        if is_gemini {
            caps.push(CapField::InConfig);
        } else if self.format == UsageFormat::Anthropic {
            caps.push(CapField::MaxTokens);
        } else {
            if fields.form.is_chat() {
                let has_new = fields.has_cap(CapField::MaxCompletionTokens);
                let is_new = has_new || fields.is_reasoning && !fields.has_cap(CapField::MaxTokens);
                caps.push(if is_new { CapField::MaxCompletionTokens } else { CapField::MaxTokens });
            }
            if fields.form.has_input {
                caps.push(CapField::MaxOutputTokens);
            }
        }
        if caps.is_empty() {
            let all =
                [CapField::MaxTokens, CapField::MaxCompletionTokens, CapField::MaxOutputTokens, CapField::InConfig];
            caps.extend(all.into_iter().filter(|field| fields.has_cap(*field)));
        }
        caps
    }
}

/// Whether a content type names no charset, or one in which ASCII is ASCII.
fn is_like_ascii(content_type: &str) -> bool {
    let is_known = |charset: &str| {
        let charset = charset.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
        matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii" | "ascii" | "latin1" | "")
            || charset.starts_with("iso-8859-")
            || charset.starts_with("windows-125")
    };
    let charsets = content_type.split([';', ',']).filter_map(|parameter| parameter.split_once('='));
    charsets.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset")).all(|(_, charset)| is_known(charset))
}

/// Whether a text is JSON. Ignored strings are not checked to be UTF-8, so all of it is.
fn is_json_text(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn begins_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Whether a body begins like JSON in UTF-16 or UTF-32, which some parsers recognise.
fn is_wide_json(body: &[u8]) -> bool {
    let begins = |width: usize, is_big: bool| {
        let unit = |bytes: &[u8]| {
            let add = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            if is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
        };
        let is_space = |unit: &u32| matches!(unit, 0xfeff | 0x20 | 0x9 | 0xa | 0xd);
        matches!(body.chunks_exact(width).map(unit).find(|unit| !is_space(unit)), Some(0x7b | 0x5b))
    };
    begins(2, true) || begins(2, false) || begins(4, true) || begins(4, false)
}
