//! One call of a request's body: its caps, its number of answers and its form.

use crate::keys::token_route::UsageFormat;
use crate::tokens::json::{JsonNumber, JsonToken, NUMBER_LIMIT};
use crate::tokens::names::JsonStep as S;

/// Fields that cap the output.
pub(super) const CAP_FIELDS: usize = 4;

/// What a value says as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// A number, at least 1.
    Number(u64),
    /// This number to some, or nothing to some.
    Unsure(u64),
    /// Less than zero: no limit, to some.
    Negative,
    /// A text that may be any number, such as `1_000` in quotes.
    Anything,
    /// `null`.
    Null,
}

impl Amount {
    pub(super) fn of(token: &JsonToken<'_>) -> Self {
        match token {
            JsonToken::Number(number) if number.is_negative() => Self::Negative,
            JsonToken::Number(number) => match number.ceiling() {
                0 => Self::Unsure(0),
                amount => Self::Number(amount),
            },
            JsonToken::Text(text) | JsonToken::Word(text) => match text.whole().and_then(JsonNumber::parse) {
                Some(number) if number.is_negative() => Self::Negative,
                Some(number) => Self::Unsure(number.ceiling()),
                None => Self::Anything,
            },
            JsonToken::Null => Self::Null,
            _ => Self::Unsure(0),
        }
    }

    /// The number of answers that it asks for.
    pub(super) const fn answers(self) -> u64 {
        match self {
            Self::Number(answers) | Self::Unsure(answers) => answers,
            Self::Negative | Self::Null => 0,
            Self::Anything => NUMBER_LIMIT,
        }
    }
}

/// Fields that cap the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapField {
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
    /// `max_output_tokens`.
    MaxOutputTokens,
    /// `generationConfig.maxOutputTokens`.
    InConfig,
}

impl CapField {
    pub(super) fn at(path: &[S]) -> Option<Self> {
        match path {
            [S::MaxTokens] => Some(Self::MaxTokens),
            [S::MaxCompletionTokens] => Some(Self::MaxCompletionTokens),
            [S::MaxOutputTokens] => Some(Self::MaxOutputTokens),
            [S::GenerationConfig, S::MaxOutputTokens | S::MaxOutputTokensCamel] => Some(Self::InConfig),
            _ => None,
        }
    }
}

/// What a call has that shows which protocol it is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct BodyForm {
    /// `messages`.
    pub has_messages: bool,
    /// `prompt`.
    pub has_prompt: bool,
    /// `input`.
    pub has_input: bool,
    /// `contents`.
    pub has_contents: bool,
}

impl BodyForm {
    /// Whether it is a chat or completion of OpenAI's API.
    #[must_use]
    pub const fn is_chat(self) -> bool {
        self.has_messages || self.has_prompt && !self.has_input
    }

    pub(super) const fn note(&mut self, name: S) {
        match name {
            S::Messages => self.has_messages = true,
            S::Prompt => self.has_prompt = true,
            S::Input => self.has_input = true,
            S::Contents => self.has_contents = true,
            _ => {}
        }
    }

    /// Whether an origin of a format has no number in a field that caps the output in this form.
    pub(super) const fn lacks_cap(self, format: UsageFormat, numbers: [bool; CAP_FIELDS]) -> bool {
        let [tokens, completion_tokens, output_tokens, in_config] = numbers;
        match format {
            UsageFormat::Header => false,
            UsageFormat::Anthropic => !tokens,
            UsageFormat::Gemini => self.has_contents && !in_config,
            UsageFormat::OpenAi => self.is_chat() && !tokens && !completion_tokens || self.has_input && !output_tokens,
        }
    }
}

/// One call of a body: all of it, or an item of its list.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub(super) struct BodyCall {
    /// Whether anything of it was read.
    pub(super) is_begun: bool,
    pub(super) largest: u64,
    pub(super) has_number: bool,
    pub(super) is_unsure: bool,
    pub(super) is_unlimited: bool,
    /// How often each field stands there, and whether it is `null` once.
    pub(super) caps: [(u32, bool); CAP_FIELDS],
    /// Which fields have a number.
    pub(super) numbers: [bool; CAP_FIELDS],
    pub(super) form: BodyForm,
    pub(super) configs: u32,
    pub(super) answers: u64,
    pub(super) prompts: u64,
}

impl BodyCall {
    pub(super) fn add_cap(&mut self, field: CapField, amount: Amount) {
        match amount {
            Amount::Number(cap) => {
                self.largest = self.largest.max(cap);
                self.has_number = true;
                if let Some(has_number) = self.numbers.get_mut(field as usize) {
                    *has_number = true;
                }
            }
            Amount::Unsure(cap) => {
                self.largest = self.largest.max(cap);
                self.is_unsure = true;
            }
            Amount::Negative | Amount::Anything => self.is_unlimited = true,
            Amount::Null => {
                if let Some((_, has_null)) = self.caps.get_mut(field as usize) {
                    *has_null = true;
                }
            }
        }
    }

    /// Whether it has a cap that no origin reads as none.
    pub(super) fn is_capped(&self) -> bool {
        // Where a member stands twice, an origin may take the one that sets no cap.
        let [.., (caps_in_configs, _)] = self.caps;
        let is_ambiguous = self.caps.iter().any(|(count, has_null)| *count > 1 && *has_null)
            || (self.configs > 1 && caps_in_configs > 0);
        self.has_number && !self.is_unsure && !self.is_unlimited && !is_ambiguous
    }

    /// Whether it says anything of its own output.
    pub(super) fn says_output(&self) -> bool {
        self.form.has_contents || self.answers > 0 || self.caps.iter().any(|(count, _)| *count > 0)
    }

    /// Tokens of an answer at most.
    pub(super) fn output(&self, default_output: u64, max_output: u64) -> u64 {
        match self.is_unlimited {
            true => max_output,
            false if self.is_capped() => self.largest.min(max_output),
            false => self.largest.max(default_output).min(max_output),
        }
    }

    /// Answers that it asks for: so many for each prompt.
    pub(super) fn answers(&self) -> u64 {
        self.answers.max(1).saturating_mul(self.prompts.max(1))
    }
}
