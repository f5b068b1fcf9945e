//! Amounts that are set aside before it is known what is used of them.

use crate::encoding::record::{Record, push_hex, push_number, push_text};
use crate::limiter::cost::{CALL_TOKENS_LIMIT, Cost};
use crate::limiter::decision::{Decision, UsageSnapshot};
use crate::limiter::policy::{Algorithm, Period};
use crate::limiter::sliding_log::MAX_MILLIS;
use crate::metering::hours::start_of_hour;
use crate::time::{HOUR, Month, UnixMicros};

/// Open holds of one key at most. Beyond that, holds are denied. As many more calls can be re-priced
/// at a time; beyond that, a call keeps its cost.
pub const MAX_OPEN_HOLDS: usize = 1_000;
/// The longest time to live of a hold, in microseconds: an hour.
pub const MAX_TTL: u64 = HOUR;
/// The name under which a hold is denied if [`MAX_OPEN_HOLDS`] are open.
pub const HOLDS_POLICY: &str = "reservations";

/// What a call sets aside in addition to its cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTerms {
    /// An upper bound of the tokens that the call uses. [`CALL_TOKENS_LIMIT`] are held at most.
    pub tokens: u64,
    /// For how many microseconds the hold stays open unless it is settled or renewed; 1 to
    /// [`MAX_TTL`].
    pub ttl: u64,
}

/// A hold for usage that does not pass the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Names the hold: one that is made twice is made once.
    pub id: u64,
    /// The amount.
    pub cost: Cost,
    /// As in [`HoldTerms`].
    pub ttl: u64,
}

/// What was used of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedAmount {
    /// Tokens. More than were held are charged, too.
    pub tokens: u64,
    /// Requests; `None` for as many as were held.
    pub requests: Option<u64>,
}

/// What an ended call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallUse {
    /// Tokens; `None` for as many as were held. More than were held are charged, too.
    pub tokens: Option<u64>,
    /// Its final cost in requests; `None` for what was charged, which is also the most.
    pub requests: Option<u64>,
}

/// A hold that is neither settled nor released nor expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHold {
    /// Its name.
    pub id: u64,
    /// The amount.
    pub cost: Cost,
    /// When it was made.
    pub at: UnixMicros,
    /// When it expires.
    pub expires_at: UnixMicros,
}

/// How a hold was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// What was used is charged.
    Settled,
    /// All of it is given back.
    Released,
    /// All of it is charged. A settle or release within 24 hours corrects that.
    Expired,
}

impl HoldState {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}

/// A hold that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldOutcome {
    /// Its name.
    pub id: u64,
    /// How it was closed.
    pub state: HoldState,
    /// What was charged in the end.
    pub charged: Cost,
    /// What was held.
    pub reserved: Cost,
    /// When it was closed.
    pub at: UnixMicros,
}

impl HoldOutcome {
    /// Tokens that were charged beyond the hold.
    #[must_use]
    pub const fn overdraft(&self) -> u64 {
        self.charged.tokens.saturating_sub(self.reserved.tokens)
    }
}

/// What became of a [`Reservation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReservationAnswer {
    /// The hold is open, now or since an earlier question. Every repeat must be written before it is
    /// answered: the first may not be.
    Open(OpenHold, UsageSnapshot),
    /// The hold was made and closed before.
    Closed(HoldOutcome, UsageSnapshot),
    /// Policies refused, or [`MAX_OPEN_HOLDS`] are open. The verdict is never
    /// [`Verdict::Admitted`](crate::limiter::decision::Verdict::Admitted).
    Refused(Decision),
}

/// Who made a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldKind {
    /// A call, whose nonce is the hold's id. Only one that expired is remembered once it is closed.
    Call,
    /// A [`Reservation`].
    Reservation,
}

/// Windows and logs that do not hold a hold's units any more, or never did: nothing of it may be
/// given back to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost(u64);

impl Lost {
    const fn bit(period: Period, algorithm: Algorithm) -> u64 {
        let period = match period {
            Period::Minute => 0,
            Period::Hour => 1,
            Period::Day => 2,
            Period::Month => return 0,
        };
        match algorithm {
            Algorithm::Fixed => 1 << period,
            Algorithm::Sliding => 8 << period,
            Algorithm::Bucket => 0,
        }
    }

    pub(super) const fn has(self, period: Period, algorithm: Algorithm) -> bool {
        self.0 & Self::bit(period, algorithm) != 0
    }

    pub(super) const fn add(&mut self, period: Period, algorithm: Algorithm) {
        self.0 |= Self::bit(period, algorithm);
    }
}

/// A hold as it is kept: open, or expired and not corrected yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) id: u64,
    pub(super) kind: HoldKind,
    pub(super) cost: Cost,
    /// Requests that its call was charged, and that are given back if the call turns out to be
    /// cheaper. They are spent and metered like those of any call, and are not held.
    pub(super) returnable: u64,
    /// The judged time when it was made: where it counts against policies.
    pub(super) at: UnixMicros,
    pub(super) ttl: u64,
    pub(super) expires_at: UnixMicros,
    /// The hour, in hours since 1970, in which it is metered; and so the month, for policies of
    /// months too.
    pub(super) hour: u64,
    pub(super) class: String,
    pub(super) lost: Lost,
    /// Whether the audit log has the call.
    pub(super) is_audited: bool,
}

/// The bit of [`Hold::is_audited`] in the number that rows have of [`Lost`].
const AUDITED: u64 = 1 << 6;

impl Hold {
    pub(super) fn month(&self) -> Month {
        Month::of(start_of_hour(self.hour))
    }

    pub(super) const fn view(&self) -> OpenHold {
        let &Self { id, cost, at, expires_at, .. } = self;
        OpenHold { id, cost, at, expires_at }
    }

    /// Whether it sets nothing aside and only waits for the final cost of its call.
    pub(super) fn is_for_price_alone(&self) -> bool {
        is_for_price_alone(self.cost, self.returnable)
    }

    /// What limits count because of it.
    pub(super) const fn counted(&self) -> Cost {
        self.cost.saturating_add(Cost { requests: self.returnable, tokens: 0 })
    }

    /// What is charged of it if this was used, and what its call gets back.
    pub(super) fn charged(&self, used: CallUse) -> (Cost, u64) {
        let tokens = used.tokens.unwrap_or(self.cost.tokens).min(CALL_TOKENS_LIMIT);
        match self.kind {
            HoldKind::Reservation => (Cost { requests: used.requests.unwrap_or(self.cost.requests), tokens }, 0),
            HoldKind::Call => {
                let back = used.requests.map_or(0, |requests| self.returnable.saturating_sub(requests));
                (Cost { tokens, ..self.cost }, back)
            }
        }
    }

    /// Whether policies of this period and algorithm count it at `now`.
    pub(super) fn counts(&self, period: Period, algorithm: Algorithm, now: UnixMicros) -> bool {
        let is_within = match (algorithm, period.micros()) {
            (Algorithm::Fixed, _) => period.window(self.at) == period.window(now),
            (Algorithm::Sliding, Some(span)) => {
                UnixMicros::from_millis(self.at.as_millis_ceil()).saturating_add(span) > now
            }
            _ => false,
        };
        is_within && !self.lost.has(period, algorithm)
    }

    /// Appends the fields of a record, of which the last ones are left out where they say nothing.
    pub(super) fn push(&self, out: &mut String) {
        push_hex(out, self.id);
        push_hex(out, self.at.as_micros());
        push_hex(out, self.ttl);
        push_number(out, self.cost.requests);
        push_number(out, self.cost.tokens);
        push_text(out, &self.class);
        push_number(out, u64::from(self.kind == HoldKind::Reservation));
        let hour = self.at.as_micros() / HOUR;
        let expiry = self.at.saturating_add(self.ttl);
        let flags = self.lost.0 | if self.is_audited { AUDITED } else { 0 };
        let rest =
            [(flags, 0), (self.hour, hour), (self.expires_at.as_micros(), expiry.as_micros()), (self.returnable, 0)];
        let said = rest.iter().rposition(|(value, default)| value != default).map_or(0, |last| last + 1);
        for (value, _) in rest.iter().take(said) {
            push_hex(out, *value);
        }
    }

    pub(super) fn read(record: &mut Record<'_>) -> Option<Self> {
        let (id, at, ttl) = (record.hex()?, record.hex()?, record.hex()?);
        let at = UnixMicros::from_micros(at).min(UnixMicros::from_millis(MAX_MILLIS));
        let cost = Cost { requests: record.number()?, tokens: record.number()? };
        let (class, kind) = (record.text()?, record.number()?);
        let kind = if kind == 0 { HoldKind::Call } else { HoldKind::Reservation };
        let flags = record.hex().unwrap_or_default();
        let (lost, is_audited) = (Lost(flags & !AUDITED), flags & AUDITED != 0);
        let hour = record.hex().unwrap_or(at.as_micros() / HOUR).min(MAX_MILLIS / (HOUR / 1000));
        let expires_at = record.hex().map_or(at.saturating_add(ttl), UnixMicros::from_micros);
        let expires_at = expires_at.min(UnixMicros::from_millis(MAX_MILLIS));
        let returnable = record.hex().unwrap_or_default();
        Some(Self { id, kind, cost, returnable, at, ttl, expires_at, hour, class, lost, is_audited })
    }
}

pub(super) fn is_for_price_alone(cost: Cost, returnable: u64) -> bool {
    cost == Cost::NONE && returnable > 0
}
