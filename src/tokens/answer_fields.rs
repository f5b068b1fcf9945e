//! Where each protocol says how many tokens a call has used, and where its text stands.

use crate::keys::token_route::UsageFormat;
use crate::tokens::json::{JsonContainer, JsonNumber, JsonPlace, JsonSink, JsonToken};
use crate::tokens::names::JsonStep as S;
use std::ops::Range;

/// The latest counts that an answer has named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct NamedCounts {
    input: Option<u64>,
    /// Input that is counted beside `input`: read from a cache or by tools.
    more_input: [Option<u64>; 2],
    output: Option<u64>,
    thoughts: Option<u64>,
    total: Option<u64>,
}

/// How many tokens a call has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// The input, with what was read from caches or by tools.
    pub input: Option<u64>,
    /// The output, with the model's thoughts.
    pub output: Option<u64>,
    /// Both together: what the answer says, or their sum if that is more.
    pub total: u64,
    /// Whether these are the counts of all that was generated. Others are a part of the truth.
    pub is_final: bool,
}

/// What one event, or the whole of an answer that is no stream, has said so far.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
struct EventFields {
    has_usage: bool,
    /// A member `usage` that is `null`.
    null_usage: Option<Range<u64>>,
    /// Whether that member is the first one, and so ends where the next one begins.
    is_null_usage_first: bool,
    choices: Choices,
    has_count: bool,
    has_output_count: bool,
    /// Whether it has a count of the output, or one that includes it.
    has_all: bool,
    has_text: bool,
    /// Whether a choice has finished in it.
    has_finish: bool,
    /// Whether it says that the answer is complete.
    has_end: bool,
    has_response_usage: bool,
    /// Whether it is of a response that has only begun.
    is_progress: bool,
}

/// The choices or candidates of a stream, by their index.
#[derive(Debug, Clone, Copy, Default)]
struct ChoiceSet {
    seen: u128,
    finished: u128,
    /// The one that is being read, and whether it has finished.
    current: (u64, bool),
}

impl ChoiceSet {
    fn end_current(&mut self) -> bool {
        let (index, has_finished) = std::mem::take(&mut self.current);
        // One that is too far is never noted as finished.
        let bit = u32::try_from(index).ok().and_then(|index| 1_u128.checked_shl(index));
        self.seen |= bit.unwrap_or(1 << 127);
        if has_finished {
            self.finished |= bit.unwrap_or_default();
        }
        has_finished
    }

    /// Whether all have finished, and at least so many.
    fn are_finished(&self, least: u64) -> bool {
        self.seen & !self.finished == 0 && u64::from(self.finished.count_ones()) >= least.max(1)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Choices {
    #[default]
    Absent,
    Empty,
    Filled,
}

/// What is to be done with an event of an answer whose usage the gate asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFate {
    /// It is passed as it is.
    Pass,
    /// It is there because the usage was asked for.
    Drop,
    /// These bytes of it are there because the usage was asked for.
    Cut(Range<u64>),
}

/// What an answer has said so far.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct AnswerFields {
    format: UsageFormat,
    is_stream: bool,
    /// Whether the root is an array: the parts of a stream too.
    is_array: bool,
    counts: NamedCounts,
    event: EventFields,
    /// Answers that were asked for.
    answers: u64,
    choices: ChoiceSet,
    /// Whether a stream has said that it is complete, or another answer has named all its counts.
    has_ended: bool,
    /// Whether nothing more comes.
    is_over: bool,
    /// Whether text has come since the last count that includes the output.
    is_stale: bool,
    /// Whether nothing but counts has come since the last counts.
    is_counted_last: bool,
    /// Whether it has the form that its format has.
    is_recognised: bool,
    /// Bytes of text since the last count of the output.
    text: u64,
}

impl AnswerFields {
    /// Of an answer that has not begun.
    #[must_use]
    pub fn new(format: UsageFormat, is_stream: bool) -> Self {
        Self {
            format,
            is_stream,
            is_array: false,
            counts: NamedCounts::default(),
            event: EventFields::default(),
            answers: 1,
            choices: ChoiceSet::default(),
            has_ended: false,
            is_over: false,
            is_stale: false,
            is_counted_last: false,
            is_recognised: false,
            text: 0,
        }
    }

    /// Notes how many answers were asked for: before all of them are there, none is the last.
    pub const fn expect(&mut self, answers: u64) {
        self.answers = answers;
    }

    /// Where it says what was used.
    #[must_use]
    pub const fn format(&self) -> UsageFormat {
        self.format
    }

    /// Ends the answer.
    pub const fn end_answer(&mut self) {
        self.is_over = true;
    }

    /// Whether this is a stream.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        self.is_stream || self.is_list()
    }

    /// Whether it is a stream of Gemini's as a list.
    const fn is_list(&self) -> bool {
        self.is_array && matches!(self.format, UsageFormat::Gemini)
    }

    /// Ends an event.
    pub fn end_event(&mut self) -> EventFate {
        let event = std::mem::take(&mut self.event);
        if event.has_output_count {
            self.text = 0;
        }
        self.is_stale &= !event.has_all;
        if event.has_count || event.has_text || event.has_finish {
            self.is_counted_last = event.has_count;
        }
        self.has_ended |= event.has_end || event.has_response_usage && !event.is_progress;
        let is_usage_event = event.has_usage && event.choices != Choices::Filled;
        match event.null_usage {
            _ if is_usage_event => EventFate::Drop,
            Some(member) if !event.has_usage => EventFate::Cut(member),
            _ => EventFate::Pass,
        }
    }

    /// The counts, if there are any.
    #[must_use]
    pub fn usage(&self) -> Option<TokenUsage> {
        let counts = self.counts;
        let input = sum(&[counts.input, counts.more_input[0], counts.more_input[1]]);
        let output = sum(&[counts.output, counts.thoughts]);
        let total = counts.total.max(sum(&[input, output]))?;
        Some(TokenUsage { input, output, total, is_final: self.is_final() })
    }

    /// Whether the counts are those of all that was generated.
    fn is_final(&self) -> bool {
        if !self.is_stream && !self.is_array {
            return self.has_ended;
        }
        // In a stream each event is all there or not at all.
        let is_end = match (self.is_over, self.format) {
            (false, _) => self.is_counted_last && self.choices.are_finished(self.answers),
            (true, UsageFormat::OpenAi) => self.is_counted_last,
            (true, _) => self.is_counted_last && self.choices.are_finished(1),
        };
        (self.has_ended || is_end) && !self.is_stale && !self.event.has_count
    }

    /// Tokens of the output that was read, as far as it can be said: the latest count, and a token
    /// for each byte of text after it. `None` if the answer has not the form of its format.
    #[must_use]
    pub fn delivered_output(&self) -> Option<u64> {
        let counted = sum(&[self.counts.output, self.counts.thoughts]);
        match counted {
            Some(counted) if !self.is_stream && !self.is_array => Some(counted),
            _ if self.is_recognised => Some(counted.unwrap_or(0).saturating_add(self.text)),
            _ => None,
        }
    }

    fn count(&mut self, path: &[S], number: &JsonNumber) {
        if number.is_negative() {
            return;
        }
        let count = Some(number.ceiling());
        let counts = &mut self.counts;
        match (self.format, path) {
            (UsageFormat::OpenAi, [S::Usage, name]) => counts.read_openai(*name, count),
            (UsageFormat::OpenAi, [S::Response, S::Usage, name]) if self.is_stream => {
                counts.read_openai(*name, count);
                self.event.has_response_usage = true;
            }
            (UsageFormat::Anthropic, [S::Usage, name]) => counts.read_anthropic(*name, count),
            (UsageFormat::Anthropic, [S::Message, S::Usage, name]) if self.is_stream => {
                counts.read_anthropic(*name, count);
            }
            (UsageFormat::Gemini, [S::UsageMetadata, name]) => counts.read_gemini(*name, count),
            _ => return,
        }
        self.event.has_count = true;
        self.event.has_all |= matches!(
            path.last(),
            Some(
                S::CompletionTokens
                    | S::OutputTokens
                    | S::TotalTokens
                    | S::CandidatesTokenCount
                    | S::ThoughtsTokenCount
                    | S::TotalTokenCount
            )
        );
        if matches!(
            path.last(),
            Some(S::CompletionTokens | S::OutputTokens | S::CandidatesTokenCount | S::ThoughtsTokenCount)
        ) {
            self.text = 0;
            self.event.has_output_count = true;
        }
    }

    /// Whether texts at a path are the model's.
    fn is_output(&self, path: &[S]) -> bool {
        let is_label = matches!(path.last(), Some(S::Label | S::Type | S::FinishReason | S::StopReason));
        let is_there = match self.format {
            UsageFormat::OpenAi => matches!(path.first(), Some(S::Choices | S::Delta | S::Output)),
            UsageFormat::Anthropic => matches!(path.first(), Some(S::Delta | S::ContentBlock | S::Content)),
            UsageFormat::Gemini => matches!(path.first(), Some(S::Candidates)),
            UsageFormat::Header => false,
        };
        is_there && !is_label
    }

    fn recognise(&mut self, name: S) {
        self.is_recognised |= match self.format {
            UsageFormat::OpenAi => {
                matches!(name, S::Choices | S::Delta | S::Output | S::Response | S::Usage)
            }
            UsageFormat::Anthropic => {
                matches!(name, S::Message | S::Delta | S::ContentBlock | S::Content | S::Usage)
            }
            UsageFormat::Gemini => matches!(name, S::Candidates | S::UsageMetadata),
            UsageFormat::Header => false,
        };
    }

    /// Notes what ends an answer.
    fn note_end(&mut self, path: &[S], token: &JsonToken<'_>) {
        let text = match token {
            JsonToken::Text(text) | JsonToken::Word(text) => text.whole().unwrap_or_default(),
            _ => return,
        };
        let event = &mut self.event;
        match (self.format, path) {
            (UsageFormat::OpenAi, []) => event.has_end |= text == b"DONE",
            (UsageFormat::OpenAi, [S::Type]) => {
                event.is_progress |= matches!(text, b"response.created" | b"response.queued" | b"response.in_progress");
            }
            (UsageFormat::Anthropic, [S::Type]) => event.has_end |= text == b"message_stop",
            (UsageFormat::Anthropic, [S::Delta, S::StopReason]) => event.has_end = true,
            (UsageFormat::OpenAi, [S::Choices, S::Item, S::FinishReason])
            | (UsageFormat::Gemini, [S::Candidates, S::Item, S::FinishReason]) => self.choices.current.1 = true,
            _ => {}
        }
    }

    /// Notes which choices have finished.
    fn note_choice(&mut self, path: &[S], token: &JsonToken<'_>) {
        match (path, token) {
            ([S::Choices | S::Candidates, S::Item], JsonToken::Open(_)) => self.choices.current = (0, false),
            ([S::Choices | S::Candidates, S::Item, S::Index], JsonToken::Number(number)) => {
                self.choices.current.0 = number.ceiling();
            }
            ([S::Choices | S::Candidates, S::Item], JsonToken::Close { .. }) => {
                self.event.has_finish |= self.choices.end_current();
            }
            _ => {}
        }
    }

    /// Notes what shows whether an event of a stream is there because the usage was asked for.
    fn note_event(&mut self, path: &[S], place: &JsonPlace<'_>, token: &JsonToken<'_>) {
        let event = &mut self.event;
        match (path, token) {
            ([_], JsonToken::Key) if event.is_null_usage_first => {
                event.is_null_usage_first = false;
                if let (Some(member), Some(next)) = (&mut event.null_usage, place.key) {
                    member.end = next.start;
                }
            }
            ([S::Usage], JsonToken::Open(JsonContainer::Object)) => event.has_usage = true,
            ([S::Usage], JsonToken::Null) => {
                event.is_null_usage_first = place.key.is_some_and(|key| key.separator.is_none());
                event.null_usage = place.key.map(|key| key.separator.unwrap_or(key.start)..place.end);
            }
            ([S::Choices], JsonToken::Close { is_empty: true }) => event.choices = Choices::Empty,
            ([S::Choices], JsonToken::Close { is_empty: false }) => event.choices = Choices::Filled,
            _ => {}
        }
    }
}

impl NamedCounts {
    fn read_openai(&mut self, name: S, count: Option<u64>) {
        match name {
            S::PromptTokens | S::InputTokens => self.input = count,
            S::CompletionTokens | S::OutputTokens => self.output = count,
            S::TotalTokens => self.total = count,
            _ => {}
        }
    }

    fn read_anthropic(&mut self, name: S, count: Option<u64>) {
        let [creation, read] = &mut self.more_input;
        match name {
            S::InputTokens => self.input = count,
            S::CacheCreationInputTokens => *creation = count,
            S::CacheReadInputTokens => *read = count,
            S::OutputTokens => self.output = count,
            _ => {}
        }
    }

    fn read_gemini(&mut self, name: S, count: Option<u64>) {
        let [tools, _] = &mut self.more_input;
        match name {
            S::PromptTokenCount => self.input = count,
            S::ToolUsePromptTokenCount => *tools = count,
            S::CandidatesTokenCount => self.output = count,
            S::ThoughtsTokenCount => self.thoughts = count,
            S::TotalTokenCount => self.total = count,
            _ => {}
        }
    }
}

/// The sum of those that are there.
fn sum(counts: &[Option<u64>]) -> Option<u64> {
    counts.iter().flatten().copied().reduce(u64::saturating_add)
}

/// A path without the step into an array of answers.
fn within_answer(path: &[S]) -> &[S] {
    match path {
        [S::Item, rest @ ..] => rest,
        path => path,
    }
}

impl JsonSink for AnswerFields {
    fn token(&mut self, place: &JsonPlace<'_>, token: &JsonToken<'_>) {
        let path = within_answer(place.path);
        match (path, token) {
            ([_, ..], JsonToken::Number(number)) => self.count(path, number),
            ([name], JsonToken::Key) => self.recognise(*name),
            ([], JsonToken::Open(JsonContainer::Array)) if place.path.is_empty() => self.is_array = true,
            ([], JsonToken::Close { .. }) if !self.is_stream => {
                // What was counted is all of this part, whatever comes first in it.
                self.end_event();
                self.has_ended |= place.path.is_empty();
            }
            // Without a stream all has been generated before its first byte.
            ([S::Usage | S::UsageMetadata], JsonToken::Open(_)) if !self.is_stream() => self.has_ended = false,
            ([S::Usage | S::UsageMetadata], JsonToken::Close { .. }) if !self.is_stream() => self.has_ended = true,
            _ => {}
        }
        if self.is_stream() {
            self.note_end(path, token);
            self.note_choice(path, token);
        }
        if self.is_stream {
            self.note_event(path, place, token);
        }
    }

    fn text(&mut self, path: &[S], bytes: usize) {
        if self.is_output(within_answer(path)) {
            self.text = self.text.saturating_add(bytes as u64);
            self.event.has_text = true;
            self.is_stale = true;
            // What was taken for the end was none.
            self.has_ended &= !self.is_stream();
        }
    }
}
