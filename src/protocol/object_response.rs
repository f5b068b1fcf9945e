//! What a key's object answers.

use crate::keys::profile::Status;
use crate::limiter::decision::{UsageSnapshot, Verdict};
use crate::limiter::policy::{Period, Unit};
use crate::limiter::schedule::Schedule;
use std::fmt::Write as _;

/// An object's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectResponse {
    /// About a key that exists and whose secret was presented.
    Key(KeyResponse),
    /// The report is on the key's books.
    Recorded,
    /// No such key, or not its secret.
    Unknown,
    /// The object could not decide, or not store what it decided; nothing was counted.
    Failed,
}

/// What an object says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyResponse {
    /// The outcome.
    pub outcome: KeyVerdict,
    /// The key's tier.
    pub tier: String,
    /// The object's clock, in milliseconds since the Unix epoch.
    pub now: u64,
    /// Where the key stands with each of its policies.
    pub standings: Vec<PolicyStatus>,
    /// Milliseconds until other policies hold, rounded down, if that is known. Travels with the first standing, where code that
    /// does not know it finds nothing that it reads.
    pub changes_after: Option<u64>,
}

/// The outcome of a call of a known key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyVerdict {
    /// Counted; forward it.
    Admitted(Admission),
    /// No room.
    Denied {
        /// Which of the standings refused.
        violated: Vec<usize>,
        /// Milliseconds until the call would fit, rounded up.
        retry_after: u64,
        /// What the call costs.
        cost: u64,
        /// Which other calls it is true for.
        extent: Extent,
    },
    /// The cost is above what one policy can ever admit.
    CostExceedsQuota {
        /// Which of the standings that is.
        policy: usize,
        /// What the call costs.
        cost: u64,
    },
    /// It repeats a call, by its idempotency key, that is still in flight.
    Conflict,
    /// Its idempotency key was used for another request.
    Mismatch,
    /// Its `Idempotency-Key` is none.
    Malformed,
    /// The key may not be used.
    Refused(Status),
}

/// For which calls a denial is true, beside those of the same key without an `Idempotency-Key`. Said only of calls that have one,
/// to isolates that can read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extent {
    /// Not said.
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

/// What is to be known of an admitted call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admission {
    /// Whether it repeats an earlier call by its idempotency key: marked, and not charged to what is paid for.
    pub is_replay: bool,
    /// Whether the object wants to be told how it ended.
    pub wants_outcome: bool,
    /// Whether the call's tier ignores idempotency keys. An earlier version never says so.
    pub ignores_key: bool,
}

/// Where a key stands with one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The policy's name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Its period.
    pub period: Period,
    /// Units per window, never fewer than can be spent at once. See [`Policy::terms`](crate::limiter::policy::Policy::terms).
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
    /// An outcome and the usage of all policies, in the form that travels.
    #[must_use]
    pub fn new<'a>(outcome: KeyVerdict, tier: &str, policies: impl Into<Schedule<'a>>, usage: &UsageSnapshot) -> Self {
        let schedule = policies.into();
        let changes_after = schedule.until().map(|until| until.since(usage.now) / 1000);
        let standings = schedule.policies().iter().zip(&usage.policies).map(|(policy, standing)| {
            let (quota, window) = policy.terms(usage.now);
            PolicyStatus {
                name: policy.name().to_owned(),
                unit: policy.unit(),
                period: policy.period(),
                quota,
                window,
                remaining: standing.remaining,
                reset_after: standing.reset_after.div_ceil(1000),
            }
        });
        let (tier, now) = (tier.to_owned(), usage.now.as_millis());
        Self { outcome, tier, now, standings: standings.collect(), changes_after }
    }

    /// The same some milliseconds later, if nothing else happens until then.
    #[must_use]
    pub fn later(&self, milliseconds: u64) -> Self {
        let mut later = self.clone();
        later.now = later.now.saturating_add(milliseconds);
        for standing in &mut later.standings {
            standing.reset_after = standing.reset_after.saturating_sub(milliseconds);
        }
        if let KeyVerdict::Denied { retry_after, .. } = &mut later.outcome {
            *retry_after = retry_after.saturating_sub(milliseconds);
        }
        later.changes_after = later.changes_after.map(|after| after.saturating_sub(milliseconds));
        later
    }

    /// The names of the policies that refused.
    #[must_use]
    pub fn violated(&self) -> Vec<String> {
        match &self.outcome {
            KeyVerdict::Denied { violated, .. } => {
                violated.iter().filter_map(|&i| self.standings.get(i)).map(|standing| standing.name.clone()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl KeyVerdict {
    /// What a verdict says about a call of this cost.
    #[must_use]
    pub fn new(verdict: &Verdict, cost: u64) -> Self {
        match verdict {
            Verdict::Admitted => Self::Admitted(Admission::default()),
            Verdict::Denied { violated, retry_after } | Verdict::TooManyHolds { violated, retry_after } => {
                let (violated, retry_after) = (violated.clone(), retry_after.div_ceil(1000));
                Self::Denied { violated, retry_after, cost, extent: Extent::Unsaid }
            }
            Verdict::CostExceedsQuota { policy } => Self::CostExceedsQuota { policy: *policy, cost },
        }
    }
}

impl ObjectResponse {
    /// The header value.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = String::with_capacity(128);
        match self {
            Self::Recorded => line.push_str("1 settled"),
            Self::Unknown => line.push_str("1 unknown"),
            Self::Failed => line.push_str("1 failed"),
            // Writing to a String cannot fail.
            Self::Key(known) => drop(known.write(&mut line)),
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
            "settled" => return Some(Self::Recorded),
            "unknown" => return Some(Self::Unknown),
            "failed" => return Some(Self::Failed),
            outcome => KeyVerdict::parse(outcome)?,
        };
        let (tier, now) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let changes_after = words.clone().next().and_then(|first| first.split(':').nth(6)?.parse().ok());
        let standings = words.map(PolicyStatus::parse).collect::<Option<_>>()?;
        Some(Self::Key(KeyResponse { outcome, tier, now, standings, changes_after }))
    }
}

impl KeyResponse {
    fn write(&self, line: &mut String) -> std::fmt::Result {
        line.push_str("1 ");
        match &self.outcome {
            KeyVerdict::Admitted(pass) => {
                line.push_str("admitted");
                for (letter, holds) in [(":r", pass.is_replay), (":e", pass.wants_outcome), (":u", pass.ignores_key)] {
                    line.push_str(if holds { letter } else { "" });
                }
            }
            KeyVerdict::Conflict => line.push_str("conflict"),
            KeyVerdict::Mismatch => line.push_str("mismatch"),
            KeyVerdict::Malformed => line.push_str("malformed"),
            KeyVerdict::Denied { violated, retry_after, cost, extent } => {
                write!(line, "denied:{retry_after}:{cost}")?;
                violated.iter().try_for_each(|i| write!(line, ":{i}"))?;
                extent.letter().map_or(Ok(()), |letter| write!(line, ":{letter}"))?;
            }
            KeyVerdict::CostExceedsQuota { policy, cost } => write!(line, "cost:{policy}:{cost}")?,
            KeyVerdict::Refused(status) => write!(line, "refused:{}", status.as_str())?,
        }
        write!(line, " {} {}", self.tier, self.now)?;
        for (index, standing) in self.standings.iter().enumerate() {
            standing.write(line)?;
            if let (0, Some(after)) = (index, self.changes_after) {
                write!(line, ":{after}")?;
            }
        }
        Ok(())
    }
}

impl KeyVerdict {
    fn parse(word: &str) -> Option<Self> {
        let (name, mut values) = match word.split_once(':') {
            Some((name, values)) => (name, values.split(':')),
            None => (word, "".split(':')),
        };
        match name {
            // Letters that are not known here are no reason to refuse the call.
            "admitted" => {
                let has = |letter| word.split(':').skip(1).any(|value| value == letter);
                Some(Self::Admitted(Admission { is_replay: has("r"), wants_outcome: has("e"), ignores_key: has("u") }))
            }
            "conflict" => Some(Self::Conflict),
            "mismatch" => Some(Self::Mismatch),
            "malformed" => Some(Self::Malformed),
            "denied" => {
                let (retry_after, cost) = (values.next()?.parse().ok()?, values.next()?.parse().ok()?);
                let (mut violated, mut extent) = (Vec::new(), Extent::Unsaid);
                for value in values {
                    if value.starts_with(|first: char| first.is_ascii_digit()) {
                        violated.push(value.parse().ok()?);
                    } else {
                        extent = Extent::of_letter(value);
                    }
                }
                Some(Self::Denied { violated, retry_after, cost, extent })
            }
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
mod tests {
    use super::*;

    /// Old and new versions of these lines meet during every deployment.
    #[test]
    fn answers_are_frozen() {
        let standing = |name: &str, period, window| PolicyStatus {
            name: name.to_owned(),
            unit: Unit::Requests,
            period,
            quota: 10,
            window,
            remaining: 9,
            reset_after: 41_877,
        };
        let changing = |outcome, changes_after| {
            ObjectResponse::Key(KeyResponse {
                outcome,
                tier: "free".to_owned(),
                now: 1_763_624_894_123,
                standings: vec![standing("minute", Period::Minute, 60), standing("month", Period::Month, 2_592_000)],
                changes_after,
            })
        };
        let known = |outcome| changing(outcome, None);
        let denied = |extent| known(KeyVerdict::Denied { violated: vec![0, 1], retry_after: 41_877, cost: 5, extent });
        let rest = "free 1763624894123 minute:rm:10:60:9:41877 month:rM:10:2592000:9:41877";
        for (answer, line) in [
            (known(KeyVerdict::Admitted(Admission::default())), format!("1 admitted {rest}")),
            (
                known(KeyVerdict::Admitted(Admission { is_replay: true, ..Admission::default() })),
                format!("1 admitted:r {rest}"),
            ),
            (
                changing(KeyVerdict::Conflict, Some(1500)),
                format!("1 conflict {}", rest.replace("41877 month", "41877:1500 month")),
            ),
            (
                known(KeyVerdict::Admitted(Admission { is_replay: true, wants_outcome: true, ignores_key: false })),
                format!("1 admitted:r:e {rest}"),
            ),
            (
                known(KeyVerdict::Admitted(Admission { is_replay: false, wants_outcome: true, ignores_key: true })),
                format!("1 admitted:e:u {rest}"),
            ),
            (known(KeyVerdict::Conflict), format!("1 conflict {rest}")),
            (known(KeyVerdict::Mismatch), format!("1 mismatch {rest}")),
            (known(KeyVerdict::Malformed), format!("1 malformed {rest}")),
            (denied(Extent::Unsaid), format!("1 denied:41877:5:0:1 {rest}")),
            (denied(Extent::All), format!("1 denied:41877:5:0:1:a {rest}")),
            (denied(Extent::New), format!("1 denied:41877:5:0:1:n {rest}")),
            (denied(Extent::Replays), format!("1 denied:41877:5:0:1:r {rest}")),
            (known(KeyVerdict::CostExceedsQuota { policy: 1, cost: 11 }), format!("1 cost:1:11 {rest}")),
            (known(KeyVerdict::Refused(Status::Disabled)), format!("1 refused:disabled {rest}")),
            (known(KeyVerdict::Refused(Status::Revoked)), format!("1 refused:revoked {rest}")),
            (known(KeyVerdict::Refused(Status::Expired)), format!("1 refused:expired {rest}")),
            (ObjectResponse::Recorded, "1 settled".to_owned()),
            (ObjectResponse::Unknown, "1 unknown".to_owned()),
            (ObjectResponse::Failed, "1 failed".to_owned()),
        ] {
            assert_eq!(answer.to_line(), line);
            assert_eq!(ObjectResponse::parse(&line), Some(answer));
        }
        let newer = ObjectResponse::parse(&format!("1 denied:41877:5:0:1:z9 {rest}"));
        assert_eq!(newer, Some(denied(Extent::Unsaid)), "what is not known here is no reason to admit");
        for wrong in ["", "2 admitted free 1", "1 maybe free 1", "1 admitted free", "1 admitted free 1 minute:rm:10"] {
            assert_eq!(ObjectResponse::parse(wrong), None, "{wrong}");
        }
    }
}
