//! What the Worker and a key's object say to each other.
//!
//! A question is a URL and an answer one header value: both are lines of text, so that neither side reads a body or builds
//! a map for a message of a hundred bytes. A new Worker may talk to an old object, and the other way round, for seconds to
//! minutes of a deployment: so each line has a version, unknown parameters are ignored, and new ones must be optional.

use crate::decision::{Decision, Verdict};
use crate::policy::{Period, Policy, Unit};
use crate::profile::Status;
use crate::time::UnixMicros;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The header that an object answers in.
pub const ANSWER_HEADER: &str = "x-tollgate-answer";
/// An object's address is its name; the host only makes the URL a URL.
const BASE: &str = "https://key.object/v1/";

/// A question to a key's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question<'a> {
    /// May this call pass? If so, count it.
    Check(Check<'a>),
    /// Add what an isolate owes, without a call to judge.
    Settle {
        /// The key's id.
        id: &'a str,
        /// What is owed.
        debt: Debt,
    },
    /// What has the key used? Answered in JSON, as [`Usage`].
    Usage {
        /// The key's id.
        id: &'a str,
    },
    /// Read the key's row in D1 again, now.
    Refresh {
        /// The key's id.
        id: &'a str,
    },
    /// How many rows has the object written? For measurements.
    Stats {
        /// The key's id.
        id: &'a str,
    },
}

/// A call of a key, as far as it matters to the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The key's id.
    pub id: &'a str,
    /// Hash of the presented secret.
    pub secret_hash: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's path, as sent; method and path make the cost.
    pub path: &'a str,
}

/// One call to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Names this call: a repeat of the question with the same nonce is not counted again.
    pub nonce: u64,
    /// Whether this is such a repeat.
    pub is_repeat: bool,
    /// What the asking isolate owes to the key's counts.
    pub debt: Option<Debt>,
}

/// What an isolate owes to the counts of a key, under a nonce of its own: the object adds it once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Debt {
    /// Names the debt.
    pub nonce: u64,
    /// Calls that were let through while the object was out of reach.
    pub uncounted: u64,
    /// Calls that were denied without asking the object.
    pub denied: u64,
}

impl Question<'_> {
    /// The URL to fetch from the object.
    #[must_use]
    pub fn to_url(&self) -> String {
        let mut url = String::with_capacity(192);
        url.push_str(BASE);
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Check(check) => check.write(&mut url),
            Self::Settle { id, debt } => write!(url, "settle?id={id}").and_then(|()| debt.write(&mut url)),
            Self::Usage { id } => write!(url, "usage?id={id}"),
            Self::Refresh { id } => write!(url, "refresh?id={id}"),
            Self::Stats { id } => write!(url, "stats?id={id}"),
        };
        url
    }
}

impl Check<'_> {
    fn write(&self, url: &mut String) -> std::fmt::Result {
        let Call { id, secret_hash, method, path } = self.call;
        write!(url, "check?id={id}&h={secret_hash}&n={}", self.nonce)?;
        if self.is_repeat {
            url.push_str("&r=1");
        }
        if let Some(debt) = self.debt {
            debt.write(url)?;
        }
        // Last, because a path may hold everything but `?` and `#`: it needs no escapes here.
        write!(url, "&m={method}&p={path}")
    }
}

impl<'a> Question<'a> {
    /// Reads a question; `None` if it is none of ours.
    #[must_use]
    pub fn parse(url: &'a str) -> Option<Self> {
        let (name, query) = url.strip_prefix(BASE)?.split_once('?')?;
        let (query, path) = query.split_once("&p=").unwrap_or((query, "/"));
        let call = Call { id: "", secret_hash: "", method: "", path };
        let mut check = Check { call, nonce: 0, is_repeat: false, debt: None };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            match name {
                "id" => check.call.id = value,
                "h" => check.call.secret_hash = value,
                "n" => check.nonce = value.parse().ok()?,
                "r" => check.is_repeat = value == "1",
                "o" => check.debt = Some(Debt::parse(value)?),
                "m" => check.call.method = value,
                _ => {}
            }
        }
        let id = check.call.id;
        match name {
            _ if id.is_empty() => None,
            "check" if !check.call.secret_hash.is_empty() => Some(Self::Check(check)),
            "settle" => Some(Self::Settle { id, debt: check.debt? }),
            "usage" => Some(Self::Usage { id }),
            "refresh" => Some(Self::Refresh { id }),
            "stats" => Some(Self::Stats { id }),
            _ => None,
        }
    }
}

impl Debt {
    fn write(self, url: &mut String) -> std::fmt::Result {
        let Self { nonce, uncounted, denied } = self;
        write!(url, "&o={nonce}:{uncounted}:{denied}")
    }

    fn parse(value: &str) -> Option<Self> {
        let mut numbers = value.split(':').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        Some(Self { nonce: number()?, uncounted: number()?, denied: number()? })
    }
}

/// An object's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// About a key that exists and whose secret was presented.
    Known(Known),
    /// The debt is on the key's books.
    Settled,
    /// No such key, or not its secret.
    Unknown,
    /// The object could not decide, or not store what it decided; nothing was counted.
    Failed,
}

/// What an object says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The outcome.
    pub outcome: Outcome,
    /// The key's tier.
    pub tier: String,
    /// The object's clock, in milliseconds since the Unix epoch.
    pub now: u64,
    /// Where the key stands with each of its policies.
    pub standings: Vec<PolicyStanding>,
}

/// The outcome of a call of a known key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Counted; forward it.
    Admitted,
    /// No room.
    Denied {
        /// Which of the standings refused.
        violated: Vec<usize>,
        /// Milliseconds until the call would fit, rounded up.
        retry_after: u64,
        /// What the call costs.
        cost: u64,
    },
    /// The cost is above what one policy can ever admit.
    CostExceedsQuota {
        /// Which of the standings that is.
        policy: usize,
        /// What the call costs.
        cost: u64,
    },
    /// The key may not be used.
    Refused(Status),
}

/// Where a key stands with one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStanding {
    /// The policy's name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Its period.
    pub period: Period,
    /// Units per window.
    pub quota: u64,
    /// The window's length in seconds; a month has its real one.
    pub window: u64,
    /// Units left.
    pub remaining: u64,
    /// Milliseconds until the reset.
    pub reset_after: u64,
}

const fn unit_letter(unit: Unit) -> char {
    match unit {
        Unit::Requests => 'r',
        Unit::Tokens => 't',
    }
}

const fn period_letter(period: Period) -> char {
    match period {
        Period::Minute => 'm',
        Period::Hour => 'h',
        Period::Day => 'd',
        Period::Month => 'M',
    }
}

impl Known {
    /// What a decision says, in the form that travels.
    #[must_use]
    pub fn new(outcome: Outcome, tier: &str, policies: &[Policy], decision: &Decision) -> Self {
        let standings = policies.iter().zip(&decision.standings).map(|(policy, standing)| PolicyStanding {
            name: policy.name().to_owned(),
            unit: policy.unit(),
            period: policy.period(),
            quota: policy.quota(),
            window: policy.window_seconds(decision.now),
            remaining: standing.remaining,
            reset_after: standing.reset_after.div_ceil(1000),
        });
        Self { outcome, tier: tier.to_owned(), now: decision.now.as_millis(), standings: standings.collect() }
    }

    /// The same some milliseconds later, if nothing else happens until then.
    #[must_use]
    pub fn later(&self, milliseconds: u64) -> Self {
        let mut later = self.clone();
        later.now = later.now.saturating_add(milliseconds);
        for standing in &mut later.standings {
            standing.reset_after = standing.reset_after.saturating_sub(milliseconds);
        }
        if let Outcome::Denied { retry_after, .. } = &mut later.outcome {
            *retry_after = retry_after.saturating_sub(milliseconds);
        }
        later
    }

    /// The names of the policies that refused.
    #[must_use]
    pub fn violated(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Denied { violated, .. } => {
                violated.iter().filter_map(|&i| self.standings.get(i)).map(|standing| standing.name.clone()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Outcome {
    /// What a decision says about a call of this cost.
    #[must_use]
    pub fn new(decision: &Decision, cost: u64) -> Self {
        match &decision.verdict {
            Verdict::Admitted => Self::Admitted,
            Verdict::Denied { violated, retry_after } => {
                Self::Denied { violated: violated.clone(), retry_after: retry_after.div_ceil(1000), cost }
            }
            Verdict::CostExceedsQuota { policy } => Self::CostExceedsQuota { policy: *policy, cost },
        }
    }
}

impl Answer {
    /// The header value.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = String::with_capacity(128);
        match self {
            Self::Settled => line.push_str("1 settled"),
            Self::Unknown => line.push_str("1 unknown"),
            Self::Failed => line.push_str("1 failed"),
            // Writing to a String cannot fail.
            Self::Known(known) => drop(known.write(&mut line)),
        }
        line
    }

    /// Reads a header value; `None` if it is of no version that is known here.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        if words.next() != Some("1") {
            return None;
        }
        let outcome = match words.next()? {
            "settled" => return Some(Self::Settled),
            "unknown" => return Some(Self::Unknown),
            "failed" => return Some(Self::Failed),
            outcome => Outcome::parse(outcome)?,
        };
        Some(Self::Known(Known {
            outcome,
            tier: words.next()?.to_owned(),
            now: words.next()?.parse().ok()?,
            standings: words.map(PolicyStanding::parse).collect::<Option<_>>()?,
        }))
    }
}

impl Known {
    fn write(&self, line: &mut String) -> std::fmt::Result {
        line.push_str("1 ");
        match &self.outcome {
            Outcome::Admitted => line.push_str("admitted"),
            Outcome::Denied { violated, retry_after, cost } => {
                write!(line, "denied:{retry_after}:{cost}")?;
                violated.iter().try_for_each(|i| write!(line, ":{i}"))?;
            }
            Outcome::CostExceedsQuota { policy, cost } => write!(line, "cost:{policy}:{cost}")?,
            Outcome::Refused(status) => write!(line, "refused:{}", status.as_str())?,
        }
        write!(line, " {} {}", self.tier, self.now)?;
        self.standings.iter().try_for_each(|standing| standing.write(line))
    }
}

impl Outcome {
    fn parse(word: &str) -> Option<Self> {
        let (name, mut values) = match word.split_once(':') {
            Some((name, values)) => (name, values.split(':')),
            None => return (word == "admitted").then_some(Self::Admitted),
        };
        match name {
            "denied" => Some(Self::Denied {
                retry_after: values.next()?.parse().ok()?,
                cost: values.next()?.parse().ok()?,
                violated: values.map(|value| value.parse().ok()).collect::<Option<_>>()?,
            }),
            "cost" => Some(Self::CostExceedsQuota {
                policy: values.next()?.parse().ok()?,
                cost: values.next()?.parse().ok()?,
            }),
            "refused" => match values.next()? {
                "disabled" => Some(Self::Refused(Status::Disabled)),
                "revoked" => Some(Self::Refused(Status::Revoked)),
                "expired" => Some(Self::Refused(Status::Expired)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl PolicyStanding {
    fn write(&self, line: &mut String) -> std::fmt::Result {
        let Self { name, unit, period, quota, window, remaining, reset_after } = self;
        let (unit, period) = (unit_letter(*unit), period_letter(*period));
        write!(line, " {name}:{unit}{period}:{quota}:{window}:{remaining}:{reset_after}")
    }

    fn parse(word: &str) -> Option<Self> {
        let mut fields = word.split(':');
        let name = fields.next()?.to_owned();
        let mut letters = fields.next()?.chars();
        let unit = match letters.next()? {
            'r' => Unit::Requests,
            't' => Unit::Tokens,
            _ => return None,
        };
        let period = match letters.next()? {
            'm' => Period::Minute,
            'h' => Period::Hour,
            'd' => Period::Day,
            'M' => Period::Month,
            _ => return None,
        };
        let mut number = || fields.next()?.parse().ok();
        Some(Self {
            name,
            unit,
            period,
            quota: number()?,
            window: number()?,
            remaining: number()?,
            reset_after: number()?,
        })
    }
}

/// The answer to [`Question::Usage`], and the body of `GET /_tollgate/keys/{id}/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The key's id.
    pub key_id: String,
    /// Its tier.
    pub tier: String,
    /// Its status.
    pub status: Status,
    /// When this was read, RFC 3339.
    pub as_of: String,
    /// Where it stands with each policy.
    pub policies: Vec<PolicyUsage>,
    /// The current UTC month.
    pub month: String,
    /// Calls admitted in it.
    pub calls: u64,
}

/// Where a key stands with one policy, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyUsage {
    /// Its name.
    pub policy: String,
    /// Its unit.
    pub unit: Unit,
    /// Units per period.
    pub quota: u64,
    /// Units that count against it now.
    pub used: u64,
    /// Units left.
    pub remaining: u64,
    /// Its period.
    pub period: Period,
    /// How it counts.
    pub algorithm: crate::policy::Algorithm,
    /// When it resets, RFC 3339.
    pub reset_at: String,
}

impl PolicyUsage {
    /// Joins a policy and where a key stands with it at `now`.
    #[must_use]
    pub fn new(policy: &Policy, standing: &crate::decision::Standing, now: UnixMicros) -> Self {
        Self {
            policy: policy.name().to_owned(),
            unit: policy.unit(),
            quota: policy.quota(),
            used: standing.used,
            remaining: standing.remaining,
            period: policy.period(),
            algorithm: policy.algorithm(),
            reset_at: crate::time::rfc3339(now.saturating_add(standing.reset_after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00ff";

    /// Old and new versions of these lines meet during every deployment.
    #[test]
    fn questions_are_frozen() {
        let call = Call { id: "abc", secret_hash: HASH, method: "GET", path: "/a&p=b%2F" };
        let plain = Check { call, nonce: 7, is_repeat: false, debt: None };
        let debt = Debt { nonce: 9, uncounted: 2, denied: 3 };
        let full = Check { is_repeat: true, debt: Some(debt), ..plain.clone() };
        for (question, url) in [
            (Question::Check(plain), "https://key.object/v1/check?id=abc&h=00ff&n=7&m=GET&p=/a&p=b%2F"),
            (Question::Check(full), "https://key.object/v1/check?id=abc&h=00ff&n=7&r=1&o=9:2:3&m=GET&p=/a&p=b%2F"),
            (Question::Settle { id: "abc", debt }, "https://key.object/v1/settle?id=abc&o=9:2:3"),
            (Question::Usage { id: "abc" }, "https://key.object/v1/usage?id=abc"),
            (Question::Refresh { id: "abc" }, "https://key.object/v1/refresh?id=abc"),
            (Question::Stats { id: "abc" }, "https://key.object/v1/stats?id=abc"),
        ] {
            assert_eq!(question.to_url(), url);
            assert_eq!(Question::parse(url), Some(question));
        }
        let newer = Question::parse("https://key.object/v1/usage?id=abc&new=1");
        assert_eq!(newer, Some(Question::Usage { id: "abc" }));
        for wrong in [
            "",
            "https://key.object/v2/usage?id=a",
            "https://key.object/v1/usage?",
            "https://key.object/v1/check?id=a",
            "https://key.object/v1/x?id=a",
        ] {
            assert_eq!(Question::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn answers_are_frozen() {
        let standing = |name: &str, period, window| PolicyStanding {
            name: name.to_owned(),
            unit: Unit::Requests,
            period,
            quota: 10,
            window,
            remaining: 9,
            reset_after: 41_877,
        };
        let known = |outcome| {
            Answer::Known(Known {
                outcome,
                tier: "free".to_owned(),
                now: 1_763_624_894_123,
                standings: vec![standing("minute", Period::Minute, 60), standing("month", Period::Month, 2_592_000)],
            })
        };
        let rest = "free 1763624894123 minute:rm:10:60:9:41877 month:rM:10:2592000:9:41877";
        for (answer, line) in [
            (known(Outcome::Admitted), format!("1 admitted {rest}")),
            (
                known(Outcome::Denied { violated: vec![0, 1], retry_after: 41_877, cost: 5 }),
                format!("1 denied:41877:5:0:1 {rest}"),
            ),
            (known(Outcome::CostExceedsQuota { policy: 1, cost: 11 }), format!("1 cost:1:11 {rest}")),
            (known(Outcome::Refused(Status::Disabled)), format!("1 refused:disabled {rest}")),
            (known(Outcome::Refused(Status::Revoked)), format!("1 refused:revoked {rest}")),
            (known(Outcome::Refused(Status::Expired)), format!("1 refused:expired {rest}")),
            (Answer::Settled, "1 settled".to_owned()),
            (Answer::Unknown, "1 unknown".to_owned()),
            (Answer::Failed, "1 failed".to_owned()),
        ] {
            assert_eq!(answer.to_line(), line);
            assert_eq!(Answer::parse(&line), Some(answer));
        }
        for wrong in ["", "2 admitted free 1", "1 maybe free 1", "1 admitted free", "1 admitted free 1 minute:rm:10"] {
            assert_eq!(Answer::parse(wrong), None, "{wrong}");
        }
    }
}
