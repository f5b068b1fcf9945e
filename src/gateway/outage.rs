//! What it means that a key's object could not be asked.
//!
//! `FAIL_MODE=open` lets calls through when their object cannot be asked. Whoever can bring that about would have no limits, so
//! nothing that a flood of calls does to its own object counts as such.

/// Why an object gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The connection broke, before or after the question arrived: worth asking again.
    Lost,
    /// More was asked than the object, or the account, can take. Asking again makes that worse, and nobody is let through.
    Overloaded,
    /// Something else: asking again does not help.
    Failed,
}

/// Parts of the messages of the platform that tell of too much load (Durable Objects documentation, Troubleshooting). Most come with
/// `overloaded`, but not all, and not over every kind of call.
///
/// "Exceeded the account's spending cap" is not among them: it comes from the account's use of weeks and ends all keys' answers alike,
/// and which of the two is wanted then, no limits or no calls, is what `FAIL_MODE` says.
const OVERLOADED: [&str; 8] = [
    "is overloaded",
    "too many requests queued",
    "too much data queued",
    "requests queued for too long",
    "within a 10 second window",
    "generating too much load",
    "exceeded its memory limit",
    "exceeded its cpu time limit",
];

impl Outage {
    /// Reads an exception of the platform: its properties `retryable` and `overloaded`, and its message.
    #[must_use]
    pub fn read(is_retryable: bool, is_overloaded: bool, message: &str) -> Self {
        let message = message.to_ascii_lowercase();
        if is_overloaded || OVERLOADED.iter().any(|part| message.contains(part)) {
            Self::Overloaded
        } else if is_retryable {
            Self::Lost
        } else {
            Self::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flood_does_is_overload_however_it_is_told() {
        for message in [
            "Durable Object is overloaded. Too many requests queued.",
            "Durable Object is overloaded. Too much data queued.",
            "Durable Object is overloaded. Requests queued for too long.",
            "Durable Object is overloaded. Too many requests for the same object within a 10 second window.",
            "Too many requests queued.",
            "Your account is generating too much load on Durable Objects. Please back off and try again later.",
            "Durable Object's isolate exceeded its memory limit and was reset.",
            "Durable Object exceeded its CPU time limit and was reset.",
        ] {
            for is_retryable in [false, true] {
                assert_eq!(Outage::read(is_retryable, false, message), Outage::Overloaded, "{message}");
            }
        }
        for is_retryable in [false, true] {
            assert_eq!(Outage::read(is_retryable, true, "anything"), Outage::Overloaded);
        }
    }

    #[test]
    fn what_no_caller_does_is_lost_or_failed() {
        for message in [
            "Network connection lost.",
            "Durable Object reset because its code was updated.",
            "Durable Object storage operation exceeded timeout which caused object to be reset.",
            "Exceeded the account's spending cap for Durable Objects",
            "internal error; reference = 0123456789",
            "",
        ] {
            assert_eq!(Outage::read(true, false, message), Outage::Lost, "{message}");
            assert_eq!(Outage::read(false, false, message), Outage::Failed, "{message}");
        }
    }
}
