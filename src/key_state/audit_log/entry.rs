//! Entries of the audit log, and the records that store them.
//!
//! A chunk is a text of records that end with `;`. The first is the base, in milliseconds since
//! 1970. All times are offsets from it in milliseconds.
//!
//! ```text
//! 1795160894000;                      base
//! a|120|GET|~/v1|1|order-7|9f3;       admitted: time, method, class, cost, key, nonce; of a call
//!                                     with a hold, the tokens held
//! r|130|GET|/v1/*|0||9f4;             admitted as a replay: the same fields
//! c|310|9f3|201|190;                  outcome: time, nonce, origin's status, duration in ms; of a
//!                                     call with a hold, how and what was charged: r42, e42, h42;
//!                                     of one that got requests back, how many: b4
//! c|900|9f5|0|0|x300;                 a hold that expired
//! d|500|GET|~/v1|1||429|17|2|980;     refused: as admitted up to the key, then status, count,
//!                                     calls admitted before it in this chunk, last time
//! ```
//!
//! A class that begins with `~` stands for the method, a space and the rest. An idempotency key of
//! more than `MAX_KEY` bytes is stored as its beginning, `~` and a hash of all of it.

use sha2::{Digest, Sha256};

use crate::encoding::hex;
use crate::encoding::record::{self, Record, decode, encode, push_hex, push_number, push_raw, push_text};
use crate::metering::call_outcome::{ChargeBasis, TokenCharge};
use crate::metering::cut;
use crate::time::UnixMicros;

/// Maximum stored size of an idempotency key, in bytes.
const MAX_KEY: usize = 64;
/// Hexadecimal digits of the hash that ends a shortened key.
const KEY_DIGITS: usize = 16;
const MAX_METHOD: usize = 16;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AuditEntry {
    /// The time of the judgement, in whole milliseconds.
    pub at: UnixMicros,
    pub method: String,
    pub class: String,
    /// The gate's status: 200 for admitted calls.
    pub status: u16,
    pub is_replay: bool,
    /// The requests charged in the end, or for a refused call those that it would have cost.
    pub cost: u64,
    /// A key that takes more than 64 bytes in storage is shown as its beginning, an ellipsis and
    /// the first 16 hexadecimal digits of its SHA-256.
    pub idempotency_key: Option<String>,
    /// The number of calls that this entry stands for. Above 1 only for refused calls.
    pub count: u64,
    /// The origin's status and the duration in milliseconds, if known.
    pub end: Option<(u16, u64)>,
    /// The tokens that the call held.
    pub held: Option<u64>,
    /// The tokens that were charged for it, if known.
    pub charge: Option<TokenCharge>,
    /// Set for admitted calls only.
    pub(super) nonce: Option<u64>,
}

/// How a call ended, or that its hold expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedCall {
    pub(crate) nonce: u64,
    /// The origin's status and the duration in milliseconds.
    pub(crate) end: Option<(u16, u64)>,
    pub(crate) charge: Option<TokenCharge>,
    /// How many requests the call got back.
    pub(crate) returned: u64,
}

impl EndedCall {
    pub(super) fn push(&self, out: &mut String) {
        let (status, duration_ms) = self.end.unwrap_or_default();
        push_hex(out, self.nonce);
        push_number(out, status.into());
        push_number(out, duration_ms);
        if let Some(TokenCharge { tokens, basis }) = self.charge {
            out.push(basis_to_row(basis));
            push_number(out, tokens);
        }
        if self.returned > 0 {
            out.push('b');
            push_number(out, self.returned);
        }
    }

    fn read(record: &mut Record<'_>) -> Option<Self> {
        let nonce = record.hex()?;
        let end = (record.number()?.try_into().ok()?, record.number()?);
        let (mut charge, mut returned) = (None, 0);
        while let Some(field) = record.raw() {
            match field.strip_prefix('b') {
                Some(requests) => returned = requests.parse().unwrap_or_default(),
                None => charge = read_charge(field).or(charge),
            }
        }
        let is_expired = charge.is_some_and(|charge| charge.basis == ChargeBasis::Expired);
        Some(Self { nonce, end: (!is_expired).then_some(end), charge, returned })
    }
}

const fn basis_to_row(basis: ChargeBasis) -> char {
    match basis {
        ChargeBasis::Reported => 'r',
        ChargeBasis::Estimated => 'e',
        ChargeBasis::Held => 'h',
        ChargeBasis::Expired => 'x',
    }
}

fn read_charge(field: &str) -> Option<TokenCharge> {
    let (kind, tokens) = field.split_at_checked(1)?;
    let basis = match kind {
        "r" => ChargeBasis::Reported,
        "e" => ChargeBasis::Estimated,
        "h" => ChargeBasis::Held,
        "x" => ChargeBasis::Expired,
        _ => return None,
    };
    Some(TokenCharge { tokens: tokens.parse().ok()?, basis })
}

/// Refused calls that share one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusalRun {
    /// Milliseconds since 1970, like `last`.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) method: String,
    pub(super) class: String,
    pub(super) status: u16,
    pub(super) cost: u64,
    /// In its stored form.
    pub(super) key: Option<String>,
    pub(super) count: u64,
    /// The number of calls admitted before the first of these, in this chunk.
    pub(super) after: u64,
}

pub(super) fn cut_method(method: &str) -> &str {
    method.get(..method.floor_char_boundary(MAX_METHOD)).unwrap_or(method)
}

/// The stored form of an idempotency key: escaped, and shortened to [`MAX_KEY`] bytes.
pub(super) fn stored_key(key: &str) -> String {
    let whole = encode(key);
    if whole.len() <= MAX_KEY {
        return whole;
    }
    let beginning = whole.get(..MAX_KEY - 1 - KEY_DIGITS).unwrap_or_default();
    // An escape is three bytes. One that the cut would split is left out.
    let is_cut = |at: &usize| beginning.len() - at < 3;
    let beginning = beginning.get(..beginning.rfind('%').filter(is_cut).unwrap_or(beginning.len())).unwrap_or_default();
    let hash = hex(&Sha256::digest(key));
    [beginning, "~", hash.get(..KEY_DIGITS).unwrap_or_default()].concat()
}

/// The form in which reports show a stored idempotency key.
fn shown_key(stored: &str) -> String {
    match stored.split_once('~') {
        Some((beginning, hash)) => [&decode(beginning), "…", hash].concat(),
        None => decode(stored),
    }
}

pub(super) fn push_base(out: &mut String, base: u64) {
    push_number(out, base);
    record::end(out);
}

/// Reads a base. One beyond `i64` is refused, because times are signed offsets from it.
pub(super) fn read_base(record: &mut Record<'_>) -> Option<u64> {
    record.number().filter(|base| i64::try_from(*base).is_ok())
}

pub(super) fn push_head(out: &mut String, kind: &str, at: u64, base: u64) {
    push_text(out, kind);
    push_time(out, at, base);
}

/// Writes a time as an offset from the base, negative if the clock stepped back.
pub(super) fn push_time(out: &mut String, at: u64, base: u64) {
    if at < base {
        out.push('-');
    }
    push_number(out, at.abs_diff(base));
}

/// Writes method, class, cost and key. `key` is in its stored form; an empty field means no key.
pub(super) fn push_subject(out: &mut String, method: &str, class: &str, cost: u64, key: Option<&str>) {
    let (method, class) = (cut_method(method), cut(class));
    push_text(out, method);
    let rest = class.strip_prefix(method).and_then(|rest| rest.strip_prefix(' '));
    if rest.is_some() {
        out.push('~');
    }
    push_text(out, rest.unwrap_or(class));
    push_number(out, cost);
    push_raw(out, key.unwrap_or_default());
}

/// One record of a chunk.
#[derive(Debug)]
pub(super) enum AuditLine {
    Admitted { at: u64, entry: AuditEntry },
    Refused(RefusalRun),
    Ended { at: u64, ended: EndedCall },
}

impl AuditLine {
    pub(super) fn parse(base: u64, mut record: Record<'_>) -> Option<Self> {
        let kind = record.raw()?;
        let time = |record: &mut Record<'_>| base.checked_add_signed(record.raw()?.parse().ok()?);
        let at = time(&mut record)?;
        if kind == "c" {
            return Some(Self::Ended { at, ended: EndedCall::read(&mut record)? });
        }
        let method = record.text()?;
        let class = record.raw()?;
        let class = match class.strip_prefix('~') {
            Some(rest) => [&method, " ", &decode(rest)].concat(),
            None => decode(class),
        };
        let cost = record.number()?;
        let key = record.raw().filter(|key| !key.is_empty());
        if kind == "d" {
            let status = record.number()?.try_into().ok()?;
            let (count, after) = (record.number()?, record.number()?);
            let last = time(&mut record)?;
            let key = key.map(str::to_owned);
            return Some(Self::Refused(RefusalRun { first: at, last, method, class, status, cost, key, count, after }));
        }
        let entry = AuditEntry {
            at: UnixMicros::from_millis(at),
            method,
            class,
            status: 200,
            is_replay: kind == "r",
            cost,
            idempotency_key: key.map(shown_key),
            count: 1,
            end: None,
            nonce: Some(record.hex()?),
            held: record.number(),
            charge: None,
        };
        matches!(kind, "a" | "r").then_some(Self::Admitted { at, entry })
    }

    /// The earliest and the latest time in the record, in milliseconds since 1970.
    pub(super) const fn times(&self) -> (u64, u64) {
        match self {
            Self::Admitted { at, .. } | Self::Ended { at, .. } => (*at, *at),
            Self::Refused(run) => (run.first, run.last),
        }
    }
}

impl RefusalRun {
    pub(super) fn into_entry(self) -> AuditEntry {
        AuditEntry {
            at: UnixMicros::from_millis(self.first),
            method: self.method,
            class: self.class,
            status: self.status,
            is_replay: false,
            cost: self.cost,
            idempotency_key: self.key.as_deref().map(shown_key),
            count: self.count,
            end: None,
            held: None,
            charge: None,
            nonce: None,
        }
    }
}
