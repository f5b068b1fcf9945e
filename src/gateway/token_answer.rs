//! What is charged of a call's hold, read from its answer while that passes.

use crate::keys::token_route::UsageFormat;
use crate::metering::call_outcome::UsedTokens;
use crate::tokens::answer_fields::TokenUsage;
use crate::tokens::request::TokenHold;
use crate::tokens::usage_reader::{DeliveredAnswer, Passed, UsageReader, reported_by_header};

/// How often the hold of a call is renewed while its answer passes, in milliseconds: a third of what
/// it stays open for, so that one renewal may be lost.
pub const RENEWAL: u64 = 200_000;

/// When the hold of a call is renewed: with bytes of its answer, at most once in [`RENEWAL`]. So an
/// answer that goes on keeps its hold, and one of which nothing comes does not.
#[derive(Debug)]
pub struct HoldRenewal {
    /// When the hold was made or renewed last, in milliseconds.
    since: u64,
}

impl HoldRenewal {
    /// Of a hold that was made at `now`.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { since: now }
    }

    /// Whether the hold is to be renewed with bytes that pass at `now`; it then counts as renewed. A
    /// clock that steps back delays no renewal.
    pub const fn is_due(&mut self, now: u64) -> bool {
        let is_due = now.abs_diff(self.since) >= RENEWAL;
        if is_due {
            self.since = now;
        }
        is_due
    }
}

/// Reads one answer.
#[derive(Debug)]
pub struct AnswerMeter {
    hold: TokenHold,
    format: UsageFormat,
    strips: bool,
    hides_output: bool,
    state: AnswerState,
}

#[derive(Debug)]
enum AnswerState {
    /// The origin has not responded.
    Waiting,
    Passing {
        status: u16,
        /// By the field of the format `header`.
        reported: Option<u64>,
        reader: Box<UsageReader>,
    },
    Ended {
        status: u16,
        reported: Option<u64>,
        usage: Option<TokenUsage>,
        /// What is charged if the usage is not that of all that was generated.
        cut: u64,
    },
}

impl AnswerMeter {
    /// Of an answer that has not begun. `strips` as in [`UsageReader::new`].
    #[must_use]
    pub const fn new(hold: TokenHold, format: UsageFormat, strips: bool) -> Self {
        Self { hold, format, strips, hides_output: false, state: AnswerState::Waiting }
    }

    /// Notes that its stream may generate what is not delivered, as
    /// [`hides_output`](crate::tokens::request::TokenRequest::hides_output) says.
    #[must_use]
    pub const fn hiding(mut self, hides_output: bool) -> Self {
        self.hides_output = hides_output;
        self
    }

    /// The answer has begun. `tokens` is its field `X-Tollgate-Tokens`.
    pub fn begin(&mut self, status: u16, content_type: Option<&str>, tokens: Option<&str>) {
        let reported = tokens.filter(|_| self.format == UsageFormat::Header).and_then(reported_by_header);
        let reader = Box::new(UsageReader::new(self.format, content_type, self.strips).expecting(self.hold.answers));
        self.state = AnswerState::Passing { status, reported, reader };
    }

    /// Reads on. Gives what of it the client gets.
    pub fn pass(&mut self, bytes: &[u8]) -> Passed {
        match &mut self.state {
            AnswerState::Passing { reader, .. } => reader.feed(bytes),
            AnswerState::Waiting | AnswerState::Ended { .. } => Passed::Unchanged,
        }
    }

    /// The answer has come to its end: what of it was held back.
    pub fn end(&mut self) -> Passed {
        match std::mem::replace(&mut self.state, AnswerState::Waiting) {
            AnswerState::Passing { status, reported, reader } => {
                let cut = self.charge_of_a_part(&reader.delivered(), reader.is_stream());
                let (passed, usage) = reader.finish();
                self.state = AnswerState::Ended { status, reported, usage, cut };
                passed
            }
            other => {
                self.state = other;
                Passed::Unchanged
            }
        }
    }

    /// The status of the answer; 0 if there is none.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self.state {
            AnswerState::Waiting => 0,
            AnswerState::Passing { status, .. } | AnswerState::Ended { status, .. } => status,
        }
    }

    /// What is charged if nothing more comes because the origin did not respond, or has ended.
    #[must_use]
    pub fn used(&self) -> UsedTokens {
        match &self.state {
            AnswerState::Ended { reported: Some(tokens), .. } => UsedTokens::Reported(*tokens),
            AnswerState::Ended { usage: Some(usage), .. } if usage.is_final => UsedTokens::Reported(usage.total),
            AnswerState::Ended { usage: Some(usage), cut, .. } => UsedTokens::Estimated(usage.total.max(*cut)),
            AnswerState::Ended { status, .. } if is_failure(*status) => UsedTokens::Reported(0),
            AnswerState::Ended { .. } => UsedTokens::Held,
            AnswerState::Waiting => UsedTokens::Reported(0),
            AnswerState::Passing { .. } => self.used_when_cut(),
        }
    }

    /// What is charged if nothing more comes because the client has left, or the answer broke off.
    #[must_use]
    pub fn used_when_cut(&self) -> UsedTokens {
        match &self.state {
            AnswerState::Passing { reported: Some(tokens), .. } => UsedTokens::Reported(*tokens),
            AnswerState::Passing { reader, status, .. } => {
                let delivered = reader.delivered();
                match reader.usage() {
                    Some(usage) if usage.is_final => UsedTokens::Reported(usage.total),
                    None if is_failure(*status) => UsedTokens::Reported(0),
                    _ => UsedTokens::Estimated(self.charge_of_a_part(&delivered, reader.is_stream())),
                }
            }
            // Nothing was delivered, but the origin may have begun.
            AnswerState::Waiting => UsedTokens::Estimated(self.hold.input.clamp(1, self.hold.total().max(1))),
            AnswerState::Ended { .. } => self.used(),
        }
    }

    /// What is charged of an answer that has not named all that it used: what was delivered, or the
    /// whole hold if more was generated than that.
    fn charge_of_a_part(&self, delivered: &DeliveredAnswer, is_stream: bool) -> u64 {
        if is_stream && !self.hides_output {
            return delivered.charge(&self.hold);
        }
        self.hold.total().max(delivered.counted).max(1)
    }
}

const fn is_failure(status: u16) -> bool {
    status >= 400
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: TokenHold = TokenHold { input: 50, output_per_answer: 100, answers: 1 };
    const USAGE: &[u8] = br#"{"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#;

    fn ended(format: UsageFormat, status: u16, tokens: Option<&str>, body: &[u8]) -> UsedTokens {
        let mut meter = AnswerMeter::new(HOLD, format, false);
        meter.begin(status, Some("application/json"), tokens);
        assert_eq!(meter.pass(body), Passed::Unchanged);
        assert_eq!(meter.end(), Passed::Unchanged);
        assert_eq!((meter.status(), meter.end()), (status, Passed::Unchanged));
        assert_eq!(meter.used(), meter.used_when_cut());
        meter.used()
    }

    #[test]
    fn a_hold_is_renewed_with_bytes_that_pass_and_not_more_often_than_needed() {
        let mut renewal = HoldRenewal::new(1_000_000);
        let due = |renewal: &mut HoldRenewal, times: &[u64]| -> Vec<bool> {
            times.iter().map(|now| renewal.is_due(1_000_000 + now)).collect()
        };
        assert_eq!(due(&mut renewal, &[0, 199_999, 200_000, 200_001, 399_999]), [false, false, true, false, false]);
        // Nothing has passed for a long time.
        assert_eq!(due(&mut renewal, &[900_000, 900_001]), [true, false]);
        // The clock steps back.
        assert_eq!(due(&mut renewal, &[800_000, 700_000, 899_000]), [false, true, false]);
    }

    #[test]
    fn what_an_answer_reports_is_charged_else_the_hold_and_nothing_of_a_failure() {
        use UsageFormat::{Header, OpenAi};
        use UsedTokens::{Held, Reported};
        for (format, status, tokens, body, used) in [
            (OpenAi, 200, None, USAGE, Reported(12)),
            (OpenAi, 200, Some("3"), USAGE, Reported(12)),
            (OpenAi, 200, None, b"{}", Held),
            (OpenAi, 200, Some("3"), b"{}", Held),
            (OpenAi, 500, None, b"{}", Reported(0)),
            (OpenAi, 400, None, b"", Reported(0)),
            (OpenAi, 429, None, USAGE, Reported(12)),
            (OpenAi, 302, None, b"", Held),
            (Header, 200, Some("3"), USAGE, Reported(3)),
            (Header, 200, Some("0"), b"", Reported(0)),
            (Header, 200, Some("3, 4"), USAGE, Held),
            (Header, 200, None, USAGE, Held),
            (Header, 503, None, b"", Reported(0)),
            (Header, 503, Some("9"), b"", Reported(9)),
        ] {
            assert_eq!(ended(format, status, tokens, body), used, "{format:?} {status} {tokens:?}");
        }
    }

    #[test]
    fn an_origin_that_does_not_answer_is_not_charged_but_a_client_that_leaves_before_is() {
        let meter = AnswerMeter::new(HOLD, UsageFormat::OpenAi, false);
        assert_eq!((meter.status(), meter.used()), (0, UsedTokens::Reported(0)));
        assert_eq!(meter.used_when_cut(), UsedTokens::Estimated(50));
        let nothing = TokenHold { input: 0, output_per_answer: 0, answers: 1 };
        let meter = AnswerMeter::new(nothing, UsageFormat::OpenAi, false);
        assert_eq!(meter.used_when_cut(), UsedTokens::Estimated(1));
    }

    #[test]
    fn an_answer_that_is_cut_is_charged_what_was_delivered() {
        let cut = |status, body: &[u8]| {
            let mut meter = AnswerMeter::new(HOLD, UsageFormat::Anthropic, false);
            meter.begin(status, Some("text/event-stream"), None);
            meter.pass(body);
            meter.used_when_cut()
        };
        let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n";
        let text = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"four\"}}\n\n";
        let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":6}}\n\n";
        assert_eq!(cut(200, b""), UsedTokens::Estimated(50));
        assert_eq!(cut(200, format!("{start}{text}").as_bytes()), UsedTokens::Estimated(14));
        assert_eq!(cut(200, format!("{start}{text}{end}").as_bytes()), UsedTokens::Reported(15));
        assert_eq!(cut(500, b"{"), UsedTokens::Reported(0));
    }
}
