//! How a key's object answers a request about a call. Responses are lines of text.

use crate::key_state::hold::HOLDS_POLICY;
use crate::keys::profile::Status;
use crate::keys::token_route::TokenTerms;
use crate::limiter::decision::{UsageSnapshot, Verdict};
use crate::limiter::policy::{Period, Unit};
use crate::limiter::schedule::Schedule;
use crate::protocol::held_call::{parse_terms, write_terms};
use std::fmt::Write as _;

/// The first word of every line.
pub(super) const VERSION: &str = "1";

/// An object's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectResponse {
    /// The key exists and the presented secret is its own.
    Key(KeyResponse),
    /// The report or the outcomes of calls are recorded.
    Recorded,
    /// No such key, or not its secret.
    Unknown,
    /// The object could not decide, or not store what it decided; nothing was counted.
    Failed,
}

/// The verdict on a call, and the key's usage after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyResponse {
    /// The verdict.
    pub verdict: KeyVerdict,
    /// The usage.
    pub usage: KeyUsage,
}

/// A key's tier, and its usage of each policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsage {
    /// The key's tier.
    pub tier: String,
    /// The object's clock, in milliseconds since the Unix epoch.
    pub now: u64,
    /// In the order of the policies.
    pub policies: Vec<PolicyStatus>,
    /// Milliseconds until other policies hold, rounded down, if that is known. It is a field of the
    /// first policy in the line, which earlier versions ignore.
    pub changes_after: Option<u64>,
}

/// The verdict on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyVerdict {
    /// The call is counted: forward it.
    Admitted(Admission),
    /// Policies refuse it.
    Denied {
        /// The policies that refused, as indices into [`KeyUsage::policies`].
        violated: Vec<usize>,
        /// Milliseconds until the call would fit, rounded up.
        retry_after: u64,
        /// The cost of the call.
        cost: u64,
        /// Which other calls it is true for.
        extent: Extent,
        /// Whether the maximum number of holds is open. Sent only for what needs a hold.
        lacks_hold: bool,
        /// Whether what is missing may be given back at any time, before the wait is over.
        may_end_early: bool,
    },
    /// The cost is above what one policy can ever admit.
    CostExceedsQuota {
        /// That policy, as an index into [`KeyUsage::policies`].
        policy: usize,
        /// The cost of the call.
        cost: u64,
    },
    /// Its route spends tokens, and the request names no hold, or one by other terms. Nothing is
    /// counted: ask again with a hold by these terms. Earlier versions do not read this, and handle
    /// it as a failure.
    LacksHold(TokenTerms),
    /// It repeats a call, by its idempotency key, that is still in flight.
    Conflict,
    /// Its idempotency key was used for another request.
    Mismatch,
    /// Its `Idempotency-Key` is malformed.
    Malformed,
    /// The key may not be used.
    Refused(Status),
}

/// Marks a denial for want of a hold.
const LACKS_HOLD: &str = "h";
/// Marks a denial that may end early. Earlier versions take it for an unknown extent, so it precedes
/// the extent.
const MAY_END_EARLY: &str = "f";

/// For which calls a denial is true, beside those of the same key without an `Idempotency-Key`.
/// Sent only for calls that have one, to isolates that can read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extent {
    /// Not sent.
    #[default]
    Unsaid,
    /// For all: a replay would be denied by the same policies for as long.
    All,
    /// For new calls: replays may pass earlier.
    New,
    /// For replays that are free, of which this is one, and for nothing else.
    Replays,
}

impl Extent {
    const fn letter(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::All => Some("a"),
            Self::New => Some("n"),
            Self::Replays => Some("r"),
        }
    }

    fn of_letter(letter: &str) -> Self {
        [Self::All, Self::New, Self::Replays]
            .into_iter()
            .find(|extent| extent.letter() == Some(letter))
            .unwrap_or_default()
    }
}

/// How to forward an admitted call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct Admission {
    /// Whether it repeats an earlier call by its idempotency key. It is marked, and not charged to
    /// months or tokens.
    pub is_replay: bool,
    /// Whether to report its outcome to the object.
    pub wants_outcome: bool,
    /// Whether the call's tier ignores idempotency keys. Earlier versions never send this.
    pub ignores_key: bool,
    /// Whether the call has a hold: its outcome must say what was used.
    pub has_hold: bool,
    /// Whether the origin may lower its cost: its outcome must say what it costs in the end.
    pub is_repriced: bool,
    /// The output that is held for each answer, if it is less than the request asks for: the cap to
    /// write into it.
    pub cap: Option<u64>,
}

/// The usage of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The policy's name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Its period.
    pub period: Period,
    /// Units per window, never fewer than can be spent at once. See
    /// [`Policy::terms`](crate::limiter::policy::Policy::terms).
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

impl KeyResponse {
    /// The same some milliseconds later, if nothing else happens until then.
    #[must_use]
    pub fn later(&self, milliseconds: u64) -> Self {
        let mut verdict = self.verdict.clone();
        if let KeyVerdict::Denied { retry_after, .. } = &mut verdict {
            *retry_after = retry_after.saturating_sub(milliseconds);
        }
        Self { verdict, usage: self.usage.later(milliseconds) }
    }

    /// Whether a policy of this unit refused.
    #[must_use]
    pub fn is_violated(&self, unit: Unit) -> bool {
        let KeyVerdict::Denied { violated, .. } = &self.verdict else { return false };
        violated.iter().filter_map(|&i| self.usage.policies.get(i)).any(|policy| policy.unit == unit)
    }

    /// The names of the policies that refused.
    #[must_use]
    pub fn violated(&self) -> Vec<String> {
        let KeyVerdict::Denied { violated, lacks_hold, .. } = &self.verdict else { return Vec::new() };
        let policies = violated.iter().filter_map(|&i| self.usage.policies.get(i));
        let holds = lacks_hold.then(|| HOLDS_POLICY.to_owned());
        policies.map(|policy| policy.name.clone()).chain(holds).collect()
    }
}

impl KeyUsage {
    /// The usage of all policies, in the form that is sent.
    #[must_use]
    pub fn new<'a>(tier: &str, policies: impl Into<Schedule<'a>>, usage: &UsageSnapshot) -> Self {
        let schedule = policies.into();
        let changes_after = schedule.until().map(|until| until.since(usage.now) / 1000);
        let policies = schedule.policies().iter().zip(&usage.policies).map(|(policy, used)| {
            let (quota, window) = policy.terms(usage.now);
            PolicyStatus {
                name: policy.name().to_owned(),
                unit: policy.unit(),
                period: policy.period(),
                quota,
                window,
                remaining: used.remaining,
                reset_after: used.reset_after.div_ceil(1000),
            }
        });
        Self { tier: tier.to_owned(), now: usage.now.as_millis(), policies: policies.collect(), changes_after }
    }

    /// The same some milliseconds later, if nothing else happens until then.
    #[must_use]
    pub fn later(&self, milliseconds: u64) -> Self {
        let mut later = self.clone();
        later.now = later.now.saturating_add(milliseconds);
        for policy in &mut later.policies {
            policy.reset_after = policy.reset_after.saturating_sub(milliseconds);
        }
        later.changes_after = later.changes_after.map(|after| after.saturating_sub(milliseconds));
        later
    }

    /// Appends the part of a line that follows the verdict.
    pub(super) fn write(&self, line: &mut String) -> std::fmt::Result {
        write!(line, " {} {}", self.tier, self.now)?;
        for (index, policy) in self.policies.iter().enumerate() {
            policy.write(line)?;
            if let (0, Some(after)) = (index, self.changes_after) {
                write!(line, ":{after}")?;
            }
        }
        Ok(())
    }

    /// Reads that part, as words.
    pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let (tier, now) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let changes_after = words.clone().next().and_then(|first| first.split(':').nth(6)?.parse().ok());
        let policies = words.map(PolicyStatus::parse).collect::<Option<_>>()?;
        Some(Self { tier, now, policies, changes_after })
    }
}

impl KeyVerdict {
    /// The verdict of the policies on a call of this cost.
    #[must_use]
    pub fn new(verdict: &Verdict, cost: u64) -> Self {
        match verdict {
            Verdict::Admitted => Self::Admitted(Admission::default()),
            Verdict::Denied { violated, retry_after } | Verdict::TooManyHolds { violated, retry_after } => {
                let lacks_hold = matches!(verdict, Verdict::TooManyHolds { .. });
                let (violated, retry_after) = (violated.clone(), retry_after.div_ceil(1000));
                let extent = Extent::Unsaid;
                Self::Denied { violated, retry_after, cost, extent, lacks_hold, may_end_early: false }
            }
            Verdict::CostExceedsQuota { policy } => Self::CostExceedsQuota { policy: *policy, cost },
        }
    }
}

impl ObjectResponse {
    /// The line that is sent.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = String::with_capacity(128);
        match self {
            Self::Recorded => line.push_str("1 settled"),
            Self::Unknown => line.push_str("1 unknown"),
            Self::Failed => line.push_str("1 failed"),
            // Writing to a String cannot fail.
            Self::Key(KeyResponse { verdict, usage }) => {
                line.push_str("1 ");
                let _ = verdict.write(&mut line).and_then(|()| usage.write(&mut line));
            }
        }
        line
    }

    /// Reads a line; `None` if it is of a version that this one does not know.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        if words.next() != Some(VERSION) {
            return None;
        }
        let verdict = match words.next()? {
            "settled" => return Some(Self::Recorded),
            "unknown" => return Some(Self::Unknown),
            "failed" => return Some(Self::Failed),
            verdict => KeyVerdict::parse(verdict)?,
        };
        Some(Self::Key(KeyResponse { verdict, usage: KeyUsage::parse(words)? }))
    }
}

/// The word of a verdict on a key that may not be used.
pub(super) fn refused_word(status: Status) -> String {
    format!("refused:{}", status.as_str())
}

/// Reads what follows `refused:`.
pub(super) fn parse_refused(status: &str) -> Option<Status> {
    [Status::Disabled, Status::Revoked, Status::Expired].into_iter().find(|refused| refused.as_str() == status)
}

impl KeyVerdict {
    fn write(&self, line: &mut String) -> std::fmt::Result {
        match self {
            Self::Admitted(Admission { is_replay, wants_outcome, ignores_key, has_hold, is_repriced, cap }) => {
                line.push_str("admitted");
                let letters = [
                    (":r", is_replay),
                    (":e", wants_outcome),
                    (":u", ignores_key),
                    (":h", has_hold),
                    (":p", is_repriced),
                ];
                for (letter, holds) in letters {
                    line.push_str(if *holds { letter } else { "" });
                }
                cap.map_or(Ok(()), |cap| write!(line, ":c{cap}"))
            }
            Self::LacksHold(terms) => {
                line.push_str("spends:");
                write_terms(*terms, line)
            }
            Self::Conflict => line.write_str("conflict"),
            Self::Mismatch => line.write_str("mismatch"),
            Self::Malformed => line.write_str("malformed"),
            Self::Denied { violated, retry_after, cost, extent, lacks_hold, may_end_early } => {
                write!(line, "denied:{retry_after}:{cost}")?;
                violated.iter().try_for_each(|i| write!(line, ":{i}"))?;
                let (early, hold) = (may_end_early.then_some(MAY_END_EARLY), lacks_hold.then_some(LACKS_HOLD));
                early.into_iter().chain(extent.letter()).chain(hold).try_for_each(|letter| write!(line, ":{letter}"))
            }
            Self::CostExceedsQuota { policy, cost } => write!(line, "cost:{policy}:{cost}"),
            Self::Refused(status) => line.write_str(&refused_word(*status)),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let (name, mut values) = match word.split_once(':') {
            Some((name, values)) => (name, values.split(':')),
            None => (word, "".split(':')),
        };
        match name {
            // Unknown letters do not change the verdict.
            "admitted" => {
                let has = |letter| word.split(':').skip(1).any(|value| value == letter);
                Some(Self::Admitted(Admission {
                    is_replay: has("r"),
                    wants_outcome: has("e"),
                    ignores_key: has("u"),
                    has_hold: has("h"),
                    is_repriced: has("p"),
                    cap: values.find_map(|value| value.strip_prefix('c')?.parse().ok()),
                }))
            }
            "spends" => parse_terms(&mut values).map(Self::LacksHold),
            "conflict" => Some(Self::Conflict),
            "mismatch" => Some(Self::Mismatch),
            "malformed" => Some(Self::Malformed),
            "denied" => {
                let (retry_after, cost) = (values.next()?.parse().ok()?, values.next()?.parse().ok()?);
                let (mut violated, mut extent) = (Vec::new(), Extent::Unsaid);
                let (mut lacks_hold, mut may_end_early) = (false, false);
                for value in values {
                    if value.starts_with(|first: char| first.is_ascii_digit()) {
                        violated.push(value.parse().ok()?);
                    } else if value == LACKS_HOLD {
                        lacks_hold = true;
                    } else if value == MAY_END_EARLY {
                        may_end_early = true;
                    } else {
                        extent = Extent::of_letter(value);
                    }
                }
                Some(Self::Denied { violated, retry_after, cost, extent, lacks_hold, may_end_early })
            }
            "cost" => Some(Self::CostExceedsQuota {
                policy: values.next()?.parse().ok()?,
                cost: values.next()?.parse().ok()?,
            }),
            "refused" => parse_refused(values.next()?).map(Self::Refused),
            _ => None,
        }
    }
}

impl PolicyStatus {
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

#[cfg(test)]
mod tests;
