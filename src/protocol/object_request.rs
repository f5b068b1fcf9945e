//! Requests of the Worker to a key's object.

use crate::http::idempotency_key::{Field, Fingerprint};
use crate::http::target::percent_decode;
use crate::metering::call_outcome::{CallOutcome, FinalCost, UsedTokens};
use crate::protocol::held_call::HeldCall;
use crate::protocol::hold_request::HoldRequest;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Objects are addressed by name. The host only makes the URL valid.
const BASE: &str = "https://key.object/v1/";
const FOUND: &str = "&found=1";
const CONCURRENT: &str = "&g=1";

/// A request to a key's object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ObjectRequest<'a> {
    /// Judge a call, and count it if it is admitted.
    Check(Check<'a>),
    /// Count a report of an isolate, without a call to judge.
    Report { id: &'a str, report: PendingReport<'a> },
    /// Record how calls ended, without a call to judge.
    CallOutcomes {
        id: &'a str,
        /// Whether to respond only once the outcomes are durable.
        is_awaited: bool,
        outcomes: CallOutcomes<'a>,
    },
    /// Keep the hold of the call of this nonce open.
    RenewHold { id: &'a str, nonce: u64 },
    /// Read a page of the audit log. The response is JSON.
    Audit { id: &'a str, page: AuditPage<'a> },
    /// Read the key's usage. The response is JSON, a [`Usage`](crate::protocol::usage::Usage).
    Usage { id: &'a str },
    /// Read the key's row in D1 again, immediately.
    Refresh { id: &'a str },
    /// Apply the [`TierChange`](crate::keys::profile::TierChange) in the body.
    ApplyTier { id: &'a str },
    /// Apply the tier's change in the body, and forward it to the other objects that the body
    /// names.
    FanOut { id: &'a str },
    /// Flush to D1, then return the totals that D1 must have. The response is JSON.
    Reconcile { id: &'a str },
    /// Read the status of a key for self-service. The response has several lines: an
    /// [`ObjectResponse`](crate::protocol::object_response::ObjectResponse), and for a known key
    /// its [`KeyStatus`](crate::protocol::key_status::KeyStatus).
    KeyStatus {
        id: &'a str,
        /// The hash of the presented secret.
        secret_hash: &'a str,
        /// See [`Check::is_found`].
        is_found: bool,
    },
    /// Make, settle, release or list reservations. The response is described at
    /// [`HoldRequest`].
    Hold {
        id: &'a str,
        request: HoldRequest,
        /// See [`Check::is_concurrent`].
        is_concurrent: bool,
    },
    /// Return the number of rows that the object has written, for measurements.
    Stats { id: &'a str },
}

/// The properties of a call that decide its judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Call<'a> {
    pub id: &'a str,
    /// The hash of the presented secret.
    pub secret_hash: &'a str,
    pub method: &'a str,
    /// As sent. Method and path decide the cost.
    pub path: &'a str,
}

/// One call to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct Check<'a> {
    pub call: Call<'a>,
    /// Identifies the call: a retry with the same nonce is not counted again.
    pub nonce: u64,
    /// Whether this request is a retry.
    pub is_repeat: bool,
    /// For a retry, milliseconds since the first attempt.
    pub age: Option<u64>,
    /// Whether the isolate has other requests about calls of the key in flight.
    pub is_concurrent: bool,
    /// Whether the isolate has just found the key in D1: an object to which the key is unknown must
    /// read D1 again.
    pub is_found: bool,
    /// A report of the isolate that travels with the call.
    pub report: Option<PendingReport<'a>>,
    pub idempotency_key: Option<Cow<'a, str>>,
    /// The request's fingerprint, sent with an idempotency key. Earlier versions do not send it.
    pub fingerprint: Option<Fingerprint>,
    /// Whether the call has an invalid `Idempotency-Key`. The tier decides whether that matters.
    pub has_malformed_key: bool,
    /// What the call holds, once its isolate knows that its route spends tokens.
    pub held: Option<Box<HeldCall>>,
    /// Outcomes of other calls of the key.
    pub outcomes: CallOutcomes<'a>,
}

/// How calls ended: `nonce.status.milliseconds`, separated by commas. Sent after a `#` at the end
/// of a request. The status is 0 if the origin did not respond. The outcome of a call with a hold
/// has one more field, which earlier versions ignore: `r` and the tokens that were reported, `e`
/// and those that were estimated, or `h` for the whole hold. That of a call whose cost may be lowered
/// has another: `c` and its final cost in requests, or `c` alone for what it was charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallOutcomes<'a>(pub &'a str);

impl<'a> CallOutcomes<'a> {
    /// Formats outcomes.
    #[must_use]
    pub fn text(outcomes: &[CallOutcome]) -> String {
        let mut text = String::new();
        for CallOutcome { nonce, status, duration_ms, used, cost } in outcomes {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{nonce}.{status}.{duration_ms}");
            let _ = match used {
                None => Ok(()),
                Some(UsedTokens::Reported(tokens)) => write!(text, ".r{tokens}"),
                Some(UsedTokens::Estimated(tokens)) => write!(text, ".e{tokens}"),
                Some(UsedTokens::Held) => write!(text, ".h"),
            };
            let _ = match cost {
                None => Ok(()),
                Some(FinalCost::AsCharged) => write!(text, ".c"),
                Some(FinalCost::Requests(requests)) => write!(text, ".c{requests}"),
            };
        }
        text
    }

    /// The outcomes. Malformed ones are skipped.
    pub fn iter(self) -> impl Iterator<Item = CallOutcome> + use<'a> {
        self.0.split(',').filter_map(|outcome| {
            let mut numbers = outcome.split('.');
            let (nonce, status, duration) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(CallOutcome {
                nonce: nonce.parse().ok()?,
                status: status.parse().ok()?,
                duration_ms: duration.parse().ok()?,
                used: numbers.clone().find_map(used_tokens),
                cost: numbers.find_map(final_cost),
            })
        })
    }

    /// Whether they close a hold, or lower the cost of a call. If one is lost that does neither,
    /// nothing but the audit log depends on it.
    #[must_use]
    pub fn close_holds(self) -> bool {
        self.iter().any(|outcome| outcome.used.is_some() || matches!(outcome.cost, Some(FinalCost::Requests(_))))
    }
}

/// Reads what was used. `None` if a later version sends something else: the hold then expires.
fn used_tokens(field: &str) -> Option<UsedTokens> {
    let (kind, tokens) = field.split_at_checked(1)?;
    match kind {
        "r" => tokens.parse().ok().map(UsedTokens::Reported),
        "e" => tokens.parse().ok().map(UsedTokens::Estimated),
        "h" => Some(UsedTokens::Held),
        _ => None,
    }
}

/// Reads a final cost. `None` if the field says something else.
fn final_cost(field: &str) -> Option<FinalCost> {
    match field.strip_prefix('c')? {
        "" => Some(FinalCost::AsCharged),
        requests => requests.parse().ok().map(FinalCost::Requests),
    }
}

/// A page of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPage<'a> {
    /// Inclusive, in milliseconds since 1970.
    pub from: u64,
    /// Exclusive, in milliseconds since 1970.
    pub to: u64,
    /// The end of the previous page. Empty for the first page.
    pub cursor: &'a str,
    /// Maximum number of entries.
    pub limit: usize,
}

/// A report of an isolate. The object counts it once, by its nonce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PendingReport<'a> {
    pub nonce: u64,
    /// Calls that were let through while the object was unreachable.
    pub uncounted: u64,
    /// Calls that were denied from the isolate's cache.
    pub denied: u64,
    /// Milliseconds since the first attempt that the object may have received. `None` for a first
    /// attempt.
    pub age: Option<u64>,
    /// The targets of the calls that were let through. Calls without a target cost 1.
    pub unchecked: UncheckedCalls<'a>,
}

/// Calls that were let through: `count:method:path`, separated by commas. The object prices them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UncheckedCalls<'a>(pub &'a str);

/// Characters with a meaning in a request or in [`UncheckedCalls`].
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'&').add(b'#').add(b',').add(b':').add(b'%');

impl<'a> UncheckedCalls<'a> {
    /// The escaped form of `method:path`.
    #[must_use]
    pub fn target(method: &str, path: &str) -> String {
        let escape = |text| utf8_percent_encode(text, ESCAPED);
        format!("{}:{}", escape(method), escape(path))
    }

    /// The calls as count, method and path. Malformed ones are skipped.
    pub fn iter(self) -> impl Iterator<Item = (u64, Cow<'a, str>, Cow<'a, str>)> {
        self.0.split(',').filter_map(|call| {
            let mut fields = call.split(':');
            let count = fields.next()?.parse().ok()?;
            Some((count, percent_decode(fields.next()?), percent_decode(fields.next()?)))
        })
    }
}

impl ObjectRequest<'_> {
    /// The URL of the request.
    #[must_use]
    pub fn to_url(&self) -> String {
        let mut url = String::with_capacity(192);
        url.push_str(BASE);
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Check(check) => check.write(&mut url),
            Self::Report { id, report } => write!(url, "settle?id={id}").and_then(|()| report.write(&mut url)),
            Self::CallOutcomes { id, is_awaited, outcomes } => {
                let awaited = if *is_awaited { "&w=1" } else { "" };
                write!(url, "end?id={id}{awaited}#{}", outcomes.0)
            }
            Self::RenewHold { id, nonce } => write!(url, "renew?id={id}&n={nonce}"),
            Self::Audit { id, page: AuditPage { from, to, cursor, limit } } => {
                write!(url, "audit?id={id}&f={from}&t={to}&c={cursor}&l={limit}")
            }
            Self::Usage { id } => write!(url, "usage?id={id}"),
            Self::Refresh { id } => write!(url, "refresh?id={id}"),
            Self::ApplyTier { id } => write!(url, "adopt?id={id}"),
            Self::FanOut { id } => write!(url, "fan_out?id={id}"),
            Self::Reconcile { id } => write!(url, "reconcile?id={id}"),
            Self::Stats { id } => write!(url, "stats?id={id}"),
            Self::Hold { id, request, is_concurrent } => {
                let concurrent = if *is_concurrent { CONCURRENT } else { "" };
                write!(url, "{}?id={id}{concurrent}", request.name()).and_then(|()| request.write(&mut url))
            }
            Self::KeyStatus { id, secret_hash, is_found } => {
                let found = if *is_found { FOUND } else { "" };
                write!(url, "holder?id={id}&h={secret_hash}{found}")
            }
        };
        url
    }
}

impl<'a> Check<'a> {
    /// Sets the call's `Idempotency-Key`.
    #[must_use]
    pub fn with_field(mut self, field: Field<'a>, fingerprint: Option<Fingerprint>) -> Self {
        match field {
            Field::Absent => {}
            Field::Key(key) => {
                self.idempotency_key = Some(Cow::Borrowed(key));
                self.fingerprint = fingerprint;
            }
            Field::Malformed => self.has_malformed_key = true,
        }
        self
    }
}

impl Check<'_> {
    fn write(&self, url: &mut String) -> std::fmt::Result {
        let Call { id, secret_hash, method, path } = self.call;
        write!(url, "check?id={id}&h={secret_hash}&n={}", self.nonce)?;
        if self.is_repeat {
            url.push_str("&r=1");
        }
        if let Some(age) = self.age {
            write!(url, "&a={age}")?;
        }
        if self.is_concurrent {
            url.push_str(CONCURRENT);
        }
        if self.is_found {
            url.push_str(FOUND);
        }
        if let Some(report) = self.report {
            report.write(url)?;
        }
        if let Some(key) = &self.idempotency_key {
            write!(url, "&i={}", utf8_percent_encode(key, NON_ALPHANUMERIC))?;
        }
        if let Some(fingerprint) = self.fingerprint {
            write!(url, "&q={fingerprint}")?;
        }
        if self.has_malformed_key {
            url.push_str("&b=1");
        }
        if let Some(held) = &self.held {
            url.push_str("&k=");
            held.write(url)?;
        }
        // The path is last and needs no escapes, because it can contain any character except `?`
        // and `#`.
        write!(url, "&m={method}&p={path}")?;
        if !self.outcomes.0.is_empty() {
            write!(url, "#{}", self.outcomes.0)?;
        }
        Ok(())
    }
}

impl<'a> ObjectRequest<'a> {
    /// Parses a request. `None` if it is malformed or unknown.
    #[must_use]
    pub fn parse(url: &'a str) -> Option<Self> {
        let (url, outcomes) = url.split_once('#').unwrap_or((url, ""));
        let (name, query) = url.strip_prefix(BASE)?.split_once('?')?;
        let (query, path) = query.split_once("&p=").unwrap_or((query, "/"));
        let call = Call { id: "", secret_hash: "", method: "", path };
        let mut check = Check {
            call,
            nonce: 0,
            is_repeat: false,
            age: None,
            is_concurrent: false,
            is_found: false,
            report: None,
            idempotency_key: None,
            fingerprint: None,
            has_malformed_key: false,
            held: None,
            outcomes: CallOutcomes(outcomes),
        };
        let mut page = AuditPage { from: 0, to: 0, cursor: "", limit: 0 };
        let mut is_awaited = false;
        let mut unchecked = UncheckedCalls::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            match name {
                "id" => check.call.id = value,
                "h" => check.call.secret_hash = value,
                "n" => check.nonce = value.parse().ok()?,
                "r" => check.is_repeat = value == "1",
                "a" => check.age = Some(value.parse().ok()?),
                "g" => check.is_concurrent = value == "1",
                "found" => check.is_found = value == "1",
                "o" => check.report = Some(PendingReport::parse(value)?),
                "u" => unchecked = UncheckedCalls(value),
                "i" => check.idempotency_key = Some(percent_decode(value)),
                "q" => check.fingerprint = Fingerprint::parse(value),
                "b" => check.has_malformed_key = value == "1",
                // Terms of a later version are as none: the object says its own.
                "k" => check.held = HeldCall::parse(value).map(Box::new),
                "m" => check.call.method = value,
                "w" => is_awaited = value == "1",
                "f" => page.from = value.parse().ok()?,
                "t" => page.to = value.parse().ok()?,
                "c" => page.cursor = value,
                "l" => page.limit = value.parse().ok()?,
                _ => {}
            }
        }
        check.report = check.report.map(|report| PendingReport { unchecked, ..report });
        let id = check.call.id;
        match name {
            _ if id.is_empty() => None,
            "check" if !check.call.secret_hash.is_empty() => Some(Self::Check(check)),
            "settle" => Some(Self::Report { id, report: check.report? }),
            "end" => Some(Self::CallOutcomes { id, is_awaited, outcomes: check.outcomes }),
            "renew" => Some(Self::RenewHold { id, nonce: check.nonce }),
            "audit" => Some(Self::Audit { id, page }),
            "usage" => Some(Self::Usage { id }),
            "refresh" => Some(Self::Refresh { id }),
            "adopt" => Some(Self::ApplyTier { id }),
            "fan_out" => Some(Self::FanOut { id }),
            "reconcile" => Some(Self::Reconcile { id }),
            "stats" => Some(Self::Stats { id }),
            "holder" if !check.call.secret_hash.is_empty() => {
                Some(Self::KeyStatus { id, secret_hash: check.call.secret_hash, is_found: check.is_found })
            }
            _ => {
                let request = HoldRequest::parse(name, query)?;
                Some(Self::Hold { id, request, is_concurrent: check.is_concurrent })
            }
        }
    }
}

impl PendingReport<'_> {
    fn write(self, url: &mut String) -> std::fmt::Result {
        let Self { nonce, uncounted, denied, age, unchecked } = self;
        write!(url, "&o={nonce}:{uncounted}:{denied}")?;
        if let Some(age) = age {
            write!(url, ":{age}")?;
        }
        if !unchecked.0.is_empty() {
            write!(url, "&u={}", unchecked.0)?;
        }
        Ok(())
    }

    fn parse(value: &str) -> Option<Self> {
        let mut numbers = value.split(':').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        let (nonce, uncounted, denied) = (number()?, number()?, number()?);
        Some(Self { nonce, uncounted, denied, age: number(), unchecked: UncheckedCalls::default() })
    }
}

#[cfg(test)]
mod tests;
