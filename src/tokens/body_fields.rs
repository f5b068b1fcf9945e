//! What a request's body says about its output: caps, numbers of answers, whether it streams.
//!
//! Origins do not agree on what an odd body says: of a repeated member some take the first and some
//! the last, some take `"5"`, `5.0` or `null` for a number and some do not, some compare names
//! without regard to case. So a value that some may read otherwise never makes a hold smaller.

use crate::keys::token_route::{TokenTerms, UsageFormat};
use crate::tokens::json::{JsonContainer, JsonNumber, JsonPlace, JsonScanner, JsonSink, JsonToken, NUMBER_LIMIT};
use crate::tokens::names::JsonStep as S;
use std::ops::Range;

/// Places in a body at most that are noted to be changed. A body with more is not changed.
const PLACES_LIMIT: usize = 64;
/// Fields that cap the output.
const CAP_FIELDS: usize = 4;

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
    fn of(token: &JsonToken<'_>) -> Self {
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
    const fn answers(self) -> u64 {
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
    fn at(path: &[S]) -> Option<Self> {
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

    const fn note(&mut self, name: S) {
        match name {
            S::Messages => self.has_messages = true,
            S::Prompt => self.has_prompt = true,
            S::Input => self.has_input = true,
            S::Contents => self.has_contents = true,
            _ => {}
        }
    }

    /// Whether an origin of a format has no number in a field that caps the output in this form.
    const fn lacks_cap(self, format: UsageFormat, numbers: [bool; CAP_FIELDS]) -> bool {
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
struct BodyCall {
    /// Whether anything of it was read.
    is_begun: bool,
    largest: u64,
    has_number: bool,
    is_unsure: bool,
    is_unlimited: bool,
    /// How often each field stands there, and whether it is `null` once.
    caps: [(u32, bool); CAP_FIELDS],
    /// Which fields have a number.
    numbers: [bool; CAP_FIELDS],
    form: BodyForm,
    configs: u32,
    answers: u64,
    prompts: u64,
}

impl BodyCall {
    fn add_cap(&mut self, field: CapField, amount: Amount) {
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
    fn is_capped(&self) -> bool {
        // Where a member stands twice, an origin may take the one that sets no cap.
        let [.., (caps_in_configs, _)] = self.caps;
        let is_ambiguous = self.caps.iter().any(|(count, has_null)| *count > 1 && *has_null)
            || (self.configs > 1 && caps_in_configs > 0);
        self.has_number && !self.is_unsure && !self.is_unlimited && !is_ambiguous
    }

    /// Whether it says anything of its own output.
    fn says_output(&self) -> bool {
        self.form.has_contents || self.answers > 0 || self.caps.iter().any(|(count, _)| *count > 0)
    }

    /// Tokens of an answer at most.
    fn output(&self, default_output: u64, max_output: u64) -> u64 {
        match self.is_unlimited {
            true => max_output,
            false if self.is_capped() => self.largest.min(max_output),
            false => self.largest.max(default_output).min(max_output),
        }
    }

    /// Answers that it asks for: so many for each prompt.
    fn answers(&self) -> u64 {
        self.answers.max(1).saturating_mul(self.prompts.max(1))
    }
}

/// A cap that stands in a body.
#[derive(Debug, Clone)]
pub struct BodyCap {
    /// The bytes of its value.
    pub span: Range<u64>,
    /// What it says.
    pub amount: Amount,
}

/// An object that stands in a body, or a value where one should be.
#[derive(Debug, Clone)]
pub enum BodyObject {
    /// An object.
    Object {
        /// The offset after its `{`.
        inside: u64,
        /// Whether it has no members.
        is_empty: bool,
        /// Whether it has the member that is looked for.
        has_member: bool,
    },
    /// Something else: its bytes.
    Other(Range<u64>),
}

/// What a body says.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct BodyFields {
    format: UsageFormat,
    default_output: u64,
    max_output: u64,
    /// Tokens of each answer at most.
    pub output: u64,
    /// Answers that it asks for, at least 1.
    pub answers: u64,
    /// The offset after the `{` of the whole body, if it is an object.
    pub root: Option<u64>,
    /// The caps that stand in it.
    pub caps: Vec<BodyCap>,
    /// The values of `generationConfig`; the member is a cap.
    pub configs: Vec<BodyObject>,
    /// The values of `stream_options`; the member is `include_usage`.
    pub stream_options: Vec<BodyObject>,
    /// Whether one of them stands under its exact name.
    pub has_own_config: bool,
    /// Whether one of `stream_options` does.
    pub has_own_stream_options: bool,
    /// The values of `include_usage` other than `true`.
    pub unasked: Vec<Range<u64>>,
    /// Whether the answer is to be streamed.
    pub streams: bool,
    /// What shows the protocol that it is written in.
    pub form: BodyForm,
    /// Whether it has caps, but none in a field that its origin knows.
    pub lacks_own_cap: bool,
    /// Whether it asks a model to reason.
    pub asks_reasoning: bool,
    /// Whether its model takes no `max_tokens`: see [`is_reasoning_model`].
    pub is_reasoning: bool,
    /// Whether something stands in it that cannot be changed, or too much.
    pub is_rigid: bool,
    exact_caps: [bool; CAP_FIELDS],
    has_asked: bool,
    call: BodyCall,
    /// The whole body, while an item of its list is read.
    outer: Option<BodyCall>,
    /// Whether a list of calls stands within it.
    has_list: bool,
}

impl BodyFields {
    /// Reads a body whose first byte has the offset `at`.
    #[must_use]
    pub fn read(terms: TokenTerms, at: u64, body: &[u8]) -> Self {
        let mut fields = Self {
            format: terms.format,
            default_output: terms.default_output,
            max_output: terms.max_output,
            output: 0,
            answers: 0,
            root: None,
            caps: Vec::new(),
            configs: Vec::new(),
            stream_options: Vec::new(),
            has_own_config: false,
            has_own_stream_options: false,
            unasked: Vec::new(),
            streams: false,
            form: BodyForm::default(),
            lacks_own_cap: false,
            asks_reasoning: false,
            is_reasoning: false,
            is_rigid: false,
            exact_caps: [false; CAP_FIELDS],
            has_asked: false,
            call: BodyCall::default(),
            outer: None,
            has_list: false,
        };
        let mut scanner = JsonScanner::without_case();
        scanner.feed(at, body, &mut fields);
        scanner.finish(&mut fields);
        fields.end_item();
        if fields.call.is_begun || fields.answers == 0 {
            fields.end_call(false);
        }
        if fields.lacks_own_cap && (fields.is_rigid || fields.root.is_none()) {
            // The cap cannot be written where the origin looks for it.
            fields.lacks_own_cap = false;
            fields.output = fields.output.max(fields.default_output).min(fields.max_output);
        }
        fields
    }

    /// Whether a field is there, spelled as it should be.
    #[must_use]
    pub fn has_cap(&self, field: CapField) -> bool {
        self.exact_caps.get(field as usize) == Some(&true)
    }

    /// Whether the client has asked for the usage itself, and not also for none.
    #[must_use]
    pub fn asks_usage(&self) -> bool {
        self.has_asked && self.unasked.is_empty() && self.stream_options.len() == 1
    }

    fn end_call(&mut self, is_item: bool) {
        let call = std::mem::take(&mut self.call);
        if !is_item && self.has_list && !call.says_output() {
            // A list of calls, and nothing else.
            return;
        }
        let mut output = call.output(self.default_output, self.max_output);
        if call.is_capped() && call.form.lacks_cap(self.format, call.numbers) {
            if is_item {
                output = output.max(self.default_output).min(self.max_output);
            } else {
                self.lacks_own_cap = true;
            }
        }
        self.output = self.output.max(output);
        self.answers = self.answers.saturating_add(call.answers());
    }

    /// An item of a list within the body begins.
    fn begin_item(&mut self) {
        self.end_item();
        self.outer = Some(std::mem::take(&mut self.call));
        self.call.is_begun = true;
        self.has_list = true;
        self.is_rigid = true;
    }

    fn end_item(&mut self) {
        if let Some(outer) = self.outer.take() {
            self.end_call(true);
            self.call = outer;
        }
    }

    fn read_name(&mut self, path: &[S], is_exact: bool) {
        if let Some(field) = CapField::at(path) {
            if let Some((count, _)) = self.call.caps.get_mut(field as usize) {
                *count = count.saturating_add(1);
            }
            // In other letters it is a cap to some and not to others.
            self.call.is_unsure |= !is_exact;
            if let Some(has_exact) = self.exact_caps.get_mut(field as usize) {
                *has_exact |= is_exact;
            }
        }
        match path {
            [S::GenerationConfig] => self.call.configs = self.call.configs.saturating_add(1),
            [S::Reasoning] => self.asks_reasoning = true,
            [name @ (S::Messages | S::Prompt | S::Input | S::Contents)] => {
                self.form.note(*name);
                self.call.form.note(*name);
            }
            [S::GenerationConfig, S::MaxOutputTokens | S::MaxOutputTokensCamel] if is_exact => mark(&mut self.configs),
            [S::StreamOptions, S::IncludeUsage] if is_exact => mark(&mut self.stream_options),
            _ => {}
        }
    }

    fn read_value(&mut self, path: &[S], place: &JsonPlace<'_>, token: &JsonToken<'_>) {
        let span = place.start..place.end;
        let is_container = matches!(token, JsonToken::Open(_));
        if let Some(field) = CapField::at(path) {
            let amount = Amount::of(token);
            self.call.add_cap(field, amount);
            self.is_rigid |= is_container || self.caps.len() >= PLACES_LIMIT;
            if !self.is_rigid {
                self.caps.push(BodyCap { span, amount });
            }
            return;
        }
        match path {
            [S::N | S::BestOf | S::CandidateCount] | [S::GenerationConfig, S::CandidateCount] => {
                self.call.answers = self.call.answers.max(Amount::of(token).answers());
            }
            [S::Prompt, S::Item] if is_container || matches!(token, JsonToken::Text(_)) => {
                self.call.prompts = self.call.prompts.saturating_add(1);
            }
            [S::Model] => {
                if let JsonToken::Text(text) = token {
                    self.is_reasoning |= is_reasoning_model(text.start());
                }
            }
            [S::Stream] => self.streams |= is_on(token),
            [S::GenerationConfig] => {
                self.has_own_config |= place.is_exact;
                self.is_rigid |= !note(&mut self.configs, span, token);
            }
            [S::StreamOptions] => {
                self.has_own_stream_options |= place.is_exact;
                self.is_rigid |= !note(&mut self.stream_options, span, token);
            }
            [S::StreamOptions, S::IncludeUsage] if matches!(token, JsonToken::True) => {
                self.has_asked |= place.is_exact;
            }
            [S::StreamOptions, S::IncludeUsage] => {
                self.is_rigid |= is_container || self.unasked.len() >= PLACES_LIMIT;
                if !self.is_rigid {
                    self.unasked.push(span);
                }
            }
            _ => {}
        }
    }

    fn read_end(&mut self, path: &[S], is_empty: bool) {
        let objects = match path {
            [S::GenerationConfig] => &mut self.configs,
            [S::StreamOptions] => &mut self.stream_options,
            _ => return,
        };
        if let Some(BodyObject::Object { is_empty: found, .. }) = objects.last_mut() {
            *found = is_empty;
        }
    }
}

impl JsonSink for BodyFields {
    fn token(&mut self, place: &JsonPlace<'_>, token: &JsonToken<'_>) {
        let (path, is_root, is_within) = match place.path {
            [S::Item, rest @ ..] => (rest, false, false),
            [S::Requests, S::Item, rest @ ..] if self.format == UsageFormat::Gemini => (rest, false, true),
            path => (path, true, false),
        };
        match (path, token) {
            ([], JsonToken::Open(JsonContainer::Object)) if is_within => self.begin_item(),
            ([], JsonToken::Close { .. }) if is_within => self.end_item(),
            ([], JsonToken::Open(JsonContainer::Object)) => {
                self.call.is_begun = true;
                self.root = self.root.or(is_root.then_some(place.end));
            }
            ([], JsonToken::Close { is_empty }) if self.call.is_begun => {
                // What is written into an object is followed by a comma.
                self.is_rigid |= is_empty;
                self.end_call(!is_root);
            }
            ([], _) => {}
            (_, JsonToken::Key) => self.read_name(path, place.is_exact),
            (_, JsonToken::Close { is_empty }) => self.read_end(path, *is_empty),
            _ => self.read_value(path, place, token),
        }
    }
}

/// Notes the value of a member that should be an object; `false` if there are too many.
fn note(objects: &mut Vec<BodyObject>, span: Range<u64>, token: &JsonToken<'_>) -> bool {
    let object = match token {
        JsonToken::Open(JsonContainer::Object) => {
            BodyObject::Object { inside: span.end, is_empty: false, has_member: false }
        }
        // Its end is not noted.
        JsonToken::Open(JsonContainer::Array) => return false,
        _ => BodyObject::Other(span),
    };
    let has_room = objects.len() < PLACES_LIMIT;
    if has_room {
        objects.push(object);
    }
    has_room
}

fn mark(objects: &mut [BodyObject]) {
    if let Some(BodyObject::Object { has_member, .. }) = objects.last_mut() {
        *has_member = true;
    }
}

/// Whether a value of `stream` is taken for `true` anywhere.
fn is_on(token: &JsonToken<'_>) -> bool {
    match token {
        JsonToken::False | JsonToken::Null => false,
        JsonToken::Number(number) => number.ceiling() > 0,
        _ => true,
    }
}

/// Whether a model takes `max_completion_tokens` only: the reasoning models of OpenAI (`o1`,
/// `o3-mini`, `gpt-5`, …) refuse `max_tokens`, and are the only ones that do.
#[must_use]
pub fn is_reasoning_model(name: &[u8]) -> bool {
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let starts_with_digit = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_digit);
    let generation = |rest: &[u8]| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    };
    name.strip_prefix(b"o").is_some_and(starts_with_digit)
        || name.strip_prefix(b"gpt-").is_some_and(|rest| generation(rest) >= 5)
}
