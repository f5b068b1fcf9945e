//! What a request's body says about its output: caps, numbers of answers, whether it streams.
//!
//! Origins do not agree on what an odd body says: of a repeated member some take the first and some
//! the last, some take `"5"`, `5.0` or `null` for a number and some do not, some compare names
//! without regard to case. So a value that some may read otherwise never makes a hold smaller.

use crate::keys::token_route::{TokenTerms, UsageFormat};
use crate::tokens::body_call::{Amount, BodyCall, BodyForm, CAP_FIELDS, CapField};
use crate::tokens::json::{JsonContainer, JsonPlace, JsonScanner, JsonSink, JsonToken};
use crate::tokens::names::JsonStep as S;
use std::ops::Range;

/// Places in a body at most that are noted to be changed. A body with more is not changed.
const PLACES_LIMIT: usize = 64;
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
