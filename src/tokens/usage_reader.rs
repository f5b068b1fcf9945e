//! Reads an origin's answer while it passes: how many tokens it says were used, and how much was
//! delivered.
//!
//! Bytes are taken in pieces of any size. What is kept is at most one event of [`EVENT_LIMIT`]
//! bytes, and that only where an event may have to be taken out; otherwise it is a few counters.

use crate::keys::token_route::UsageFormat;
use crate::tokens::answer_fields::{AnswerFields, EventFate, TokenUsage};
use crate::tokens::event_lines::{EventLines, EventPiece};
use crate::tokens::json::{JsonScanner, NUMBER_LIMIT};
use crate::tokens::request::TokenHold;
use std::ops::Range;

/// Bytes of an event that is taken out or changed at most; a longer one passes as it is.
pub const EVENT_LIMIT: usize = 64 * 1024;

/// What the client gets of bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// These bytes, all of them.
    Unchanged,
    /// Other bytes instead, perhaps none.
    Replaced(Vec<u8>),
}

/// How much of an answer was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveredAnswer {
    /// Bytes of the answer.
    pub bytes: u64,
    /// Tokens of the input, if the answer has said so already.
    pub input: Option<u64>,
    /// Tokens of the output at most: what the answer has counted itself, and one for each byte of
    /// the model's text since.
    pub output: u64,
    /// Tokens that the answer has counted itself.
    pub counted: u64,
}

impl DeliveredAnswer {
    /// What a call is charged whose answer was cut off: its input, and the output that was
    /// delivered. Estimates do not go beyond the hold; what the origin has counted does. Never 0.
    #[must_use]
    pub fn charge(&self, hold: &TokenHold) -> u64 {
        let input = self.input.unwrap_or(hold.input);
        input.saturating_add(self.output).min(hold.total()).max(self.counted).max(1)
    }
}

/// The value of an origin's `X-Tollgate-Tokens`; `None` if it is not a number, or more than one.
#[must_use]
pub fn reported_by_header(value: &str) -> Option<u64> {
    let digits = value.trim_matches([' ', '\t']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let read = |count: u64, digit: u8| count.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.bytes().fold(0, read).min(NUMBER_LIMIT))
}

#[derive(Debug)]
enum AnswerForm {
    /// Nothing but space has come.
    Undecided,
    Json,
    Events(EventLines),
    /// Neither: there is nothing to read in it.
    Opaque,
}

/// The reader of one answer. It takes the bytes as the client's program sees them, without a
/// content coding.
#[derive(Debug)]
pub struct UsageReader {
    form: AnswerForm,
    scanner: JsonScanner,
    fields: AnswerFields,
    bytes: u64,
    /// Offset in the event of the next byte.
    at: u64,
    /// Of an answer whose usage the gate has asked for.
    filter: Option<EventFilter>,
}

impl UsageReader {
    /// Of an answer that has not begun. `strips` says that the gate asked for the usage of a stream
    /// ([`needs_usage`](crate::tokens::request::TokenRequest::needs_usage)) and the client did not.
    #[must_use]
    pub fn new(format: UsageFormat, content_type: Option<&str>, strips: bool) -> Self {
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        let is_stream = media_type.trim().eq_ignore_ascii_case("text/event-stream");
        let form = match format {
            UsageFormat::Header => AnswerForm::Opaque,
            _ if is_stream => AnswerForm::Events(EventLines::new()),
            _ => AnswerForm::Undecided,
        };
        Self {
            form,
            scanner: JsonScanner::new(),
            fields: AnswerFields::new(format, is_stream),
            bytes: 0,
            at: 0,
            filter: (strips && is_stream && format == UsageFormat::OpenAi).then(EventFilter::default),
        }
    }

    /// Of an answer to a request for so many.
    #[must_use]
    pub fn expecting(mut self, answers: u64) -> Self {
        self.fields.expect(answers);
        self
    }

    /// Whether what was read may be a part of what was generated so far: of a stream of events, or
    /// of one of Gemini's as a list. Any other answer is generated before its first byte.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        let may_be_list =
            matches!(self.form, AnswerForm::Undecided) && matches!(self.fields.format(), UsageFormat::Gemini);
        self.fields.is_stream() || may_be_list
    }

    /// Reads on, and says what of it the client gets.
    pub fn feed(&mut self, bytes: &[u8]) -> Passed {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if matches!(self.form, AnswerForm::Undecided) {
            let is_space = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf);
            match bytes.iter().find(|byte| !is_space(byte)) {
                None => {}
                Some(b'{' | b'[') => self.form = AnswerForm::Json,
                Some(_) => self.form = AnswerForm::Opaque,
            }
        }
        match &mut self.form {
            AnswerForm::Undecided | AnswerForm::Opaque => Passed::Unchanged,
            AnswerForm::Json => {
                self.scanner.feed(0, bytes, &mut self.fields);
                Passed::Unchanged
            }
            AnswerForm::Events(_) => self.feed_events(bytes),
        }
    }

    /// How much was read so far: what a client that leaves now is charged for.
    #[must_use]
    pub fn delivered(&self) -> DeliveredAnswer {
        let usage = self.fields.usage();
        let output = self.fields.delivered_output().unwrap_or(self.bytes);
        DeliveredAnswer {
            bytes: self.bytes,
            input: usage.and_then(|usage| usage.input),
            output: output.max(u64::from(self.bytes > 0)),
            counted: usage.map_or(0, |usage| usage.total),
        }
    }

    /// What the answer has said so far.
    #[must_use]
    pub fn usage(&self) -> Option<TokenUsage> {
        self.fields.usage()
    }

    /// Ends the answer: what of it was held back, and what it says was used.
    #[must_use]
    pub fn finish(mut self) -> (Passed, Option<TokenUsage>) {
        let is_stream = matches!(self.form, AnswerForm::Events(_));
        if is_stream || matches!(self.form, AnswerForm::Json) {
            self.scanner.finish(&mut self.fields);
        }
        let mut passed = Passed::Unchanged;
        if is_stream {
            let fate = self.fields.end_event();
            if let Some(filter) = &mut self.filter {
                let mut out = Vec::new();
                filter.end_event(&[], &fate, &mut out);
                if !out.is_empty() {
                    passed = Passed::Replaced(out);
                }
            }
        }
        self.fields.end_answer();
        (passed, self.fields.usage())
    }

    fn feed_events(&mut self, bytes: &[u8]) -> Passed {
        let mut batch = self.filter.as_ref().map(EventFilter::begin);
        let mut rest = bytes;
        let mut event = bytes;
        let mut event_length = 0;
        while let AnswerForm::Events(lines) = &mut self.form
            && let Some((length, piece)) = lines.next(rest)
        {
            let (taken, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            event_length += length;
            match piece {
                EventPiece::Data => self.scanner.feed(self.at, taken, &mut self.fields),
                EventPiece::DataEnd => self.scanner.feed(self.at, b"\n", &mut self.fields),
                EventPiece::Blank | EventPiece::BlankRest | EventPiece::Other => {}
            }
            self.at = self.at.saturating_add(length as u64);
            let is_rest = piece == EventPiece::BlankRest;
            if piece != EventPiece::Blank && !is_rest {
                continue;
            }
            let fate = if is_rest { EventFate::Pass } else { self.fields.end_event() };
            if let (Some(filter), Some(batch)) = (&mut self.filter, &mut batch) {
                let raw = event.get(..event_length).unwrap_or_default();
                batch.is_changed |= if is_rest {
                    filter.end_blank(raw, &mut batch.out)
                } else {
                    filter.end_event(raw, &fate, &mut batch.out)
                };
            }
            self.scanner.reset();
            self.at = 0;
            event = rest;
            event_length = 0;
        }
        match (&mut self.filter, batch) {
            (Some(filter), Some(batch)) => filter.end(event, batch),
            _ => Passed::Unchanged,
        }
    }

    /// Bytes of memory that it has reserved, itself excluded.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.held.capacity())
    }
}

/// What becomes of the bytes of one call of [`UsageReader::feed`].
struct FilterBatch {
    out: Vec<u8>,
    /// Whether `out` is more than the bytes that were fed.
    has_held: bool,
    /// Whether something was taken out of them.
    is_changed: bool,
}

/// Holds events back until they are complete, and takes out what is there only because the gate
/// asked for it.
#[derive(Debug, Default)]
struct EventFilter {
    held: Vec<u8>,
    /// Whether the event is too long to be held back, and passes.
    is_passing: bool,
    /// Whether the last event was taken out.
    has_dropped: bool,
}

impl EventFilter {
    fn begin(&self) -> FilterBatch {
        FilterBatch { out: Vec::new(), has_held: !self.held.is_empty(), is_changed: false }
    }

    /// Ends an event with its last bytes; `true` if it does not pass as it is.
    fn end_event(&mut self, last: &[u8], fate: &EventFate, out: &mut Vec<u8>) -> bool {
        let is_long = std::mem::take(&mut self.is_passing) || self.held.len().saturating_add(last.len()) > EVENT_LIMIT;
        let fate = if is_long { &EventFate::Pass } else { fate };
        let event = out.len();
        self.has_dropped = *fate == EventFate::Drop;
        if !self.has_dropped {
            out.extend_from_slice(&self.held);
            out.extend_from_slice(last);
        }
        self.held.clear();
        if let EventFate::Cut(member) = fate {
            cut(out, event, member);
        }
        *fate != EventFate::Pass
    }

    /// The line feed after the carriage return that has ended an event; `true` if it does not pass.
    fn end_blank(&mut self, last: &[u8], out: &mut Vec<u8>) -> bool {
        if !self.has_dropped {
            out.extend_from_slice(last);
        }
        self.has_dropped
    }

    /// Ends a piece of the answer with the beginning of an event.
    fn end(&mut self, begun: &[u8], mut batch: FilterBatch) -> Passed {
        let mut is_held = false;
        if self.is_passing {
            batch.out.extend_from_slice(begun);
        } else if self.held.len().saturating_add(begun.len()) > EVENT_LIMIT {
            batch.out.append(&mut self.held);
            batch.out.extend_from_slice(begun);
            self.is_passing = true;
        } else if !begun.is_empty() {
            self.held.extend_from_slice(begun);
            is_held = true;
        }
        if batch.has_held || batch.is_changed || is_held { Passed::Replaced(batch.out) } else { Passed::Unchanged }
    }
}

/// Takes a range out of the event that begins at `event`.
fn cut(bytes: &mut Vec<u8>, event: usize, member: &Range<u64>) {
    let offset = |at: u64| usize::try_from(at).ok().and_then(|at| event.checked_add(at));
    if let (Some(start), Some(end)) = (offset(member.start), offset(member.end))
        && start <= end
        && end <= bytes.len()
    {
        bytes.drain(start..end);
    }
}
