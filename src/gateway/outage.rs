//! Classifies failures to reach a key's object.
//!
//! With `FAIL_MODE=open`, calls pass while their object is unreachable. A client that could cause
//! this would have no limits. So a failure that a flood of calls can cause never lets calls pass.

/// Why an object did not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The connection broke, before or after the request arrived. A retry may succeed.
    Lost,
    /// The object or the account is overloaded. A retry would make it worse, and calls must not
    /// pass.
    Overloaded,
    /// Any other failure. A retry does not help.
    Failed,
}

/// Parts of the platform's messages about overload (Durable Objects documentation,
/// Troubleshooting). Most come with the property `overloaded`, but not all, and not for every kind
/// of call.
///
/// "Exceeded the account's spending cap" is not among them. It results from weeks of use and
/// affects all keys alike. `FAIL_MODE` decides whether no limits or no calls are preferred then.
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
    /// Classifies an exception of the platform by its properties `retryable` and `overloaded`, and
    /// its message.
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
    fn failures_that_a_flood_causes_are_overload_in_any_wording() {
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
    fn failures_that_no_caller_causes_are_lost_or_failed() {
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
