//! The audit log of a key: parameters and responses.

use crate::admin::parameters::Parameters;
use crate::encoding::hex;
use crate::http::problem::Problem;
use crate::key_state::audit_log::entry::AuditEntry;
use crate::key_state::audit_log::reader::AuditCursor;
use crate::metering::call_outcome::ChargeBasis;
use crate::time::{UnixMicros, parse_rfc3339, rfc3339};
use serde::Serialize;

/// The name of the list in responses and cursors.
pub const LIST: &str = "entries";

/// A call of a key, or a run of equal refused calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = AuditEntry))]
pub struct EntryView {
    /// Time of the decision; of a run, of its first call.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub at: String,
    /// Method of the request.
    pub method: String,
    /// Route class: a pattern of `route_costs`, or the method and the first segment of the path.
    pub class: String,
    /// Status that the client received. Of a forwarded call: the origin's status, 200 while it is
    /// unknown, 502 if the origin did not respond. Of a refused call: tollgate's status.
    pub status: u16,
    /// The origin's status; `null` if the call was not forwarded, the origin did not respond, or
    /// the outcome is unknown.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub origin_status: Option<u16>,
    /// Milliseconds from forwarding the call to the origin's response; `null` if unknown.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub duration_ms: Option<u64>,
    /// Requests charged for the call; of a refused call, what it would have cost.
    pub cost: u64,
    /// `Idempotency-Key` of the call; `null` if it had none or the field did not apply. A long key
    /// is shown as its beginning, `…`, and the first 16 hexadecimal digits of its SHA-256.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub idempotency_key: Option<String>,
    /// Whether the call repeats an earlier one by its idempotency key.
    pub replay: bool,
    /// Number of calls in this entry: more than 1 only for refused calls.
    pub count: u64,
    /// Tokens that the call held; `null` if it held none.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub tokens_held: Option<u64>,
    /// Tokens charged for the call; `null` if it held none, has not ended, or ended more than 15
    /// minutes after it began.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub tokens: Option<u64>,
    /// What `tokens` is: the usage that the origin has `reported`; `estimated` from what was
    /// delivered of an answer that was cut off; all that was `held`, because the answer has no
    /// usage; or all of a hold that `expired` because nothing settled it. `null` like `tokens`.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true))]
    pub tokens_basis: Option<ChargeBasis>,
}

impl From<AuditEntry> for EntryView {
    fn from(entry: AuditEntry) -> Self {
        let origin_status = entry.end.map(|(status, _)| status).filter(|status| *status != 0);
        let status = match entry.end {
            None => entry.status,
            Some(_) => origin_status.unwrap_or(502),
        };
        Self {
            at: rfc3339(entry.at),
            method: entry.method,
            class: entry.class,
            status,
            origin_status,
            duration_ms: entry.end.map(|(_, duration)| duration),
            cost: entry.cost,
            idempotency_key: entry.idempotency_key,
            replay: entry.is_replay,
            count: entry.count,
            tokens_held: entry.held,
            tokens: entry.charge.map(|charge| charge.tokens),
            tokens_basis: entry.charge.map(|charge| charge.basis),
        }
    }
}

/// A page of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditView {
    /// Oldest first.
    pub entries: Vec<EntryView>,
    /// Cursor of the next page; `None` at the end.
    pub next_cursor: Option<String>,
}

impl AuditView {
    /// A page of these entries.
    #[must_use]
    pub fn new(entries: Vec<AuditEntry>, next: Option<AuditCursor>) -> Self {
        let next_cursor = next.map(|next| hex(format!("{LIST}:{next}").as_bytes()));
        Self { entries: entries.into_iter().map(EntryView::from).collect(), next_cursor }
    }
}

/// The time range of a request, in milliseconds. Default: from the oldest entry to `now`.
///
/// # Errors
/// 400 for an invalid time.
pub fn range(parameters: &Parameters, now: UnixMicros) -> Result<(u64, u64), Problem> {
    let time = |name: &'static str| match parameters.get(name) {
        None => Ok(None),
        Some(text) => parse_rfc3339(text).map(Some).ok_or_else(|| {
            Problem::BadRequest(format!("{name}: must be an RFC 3339 time such as 2026-01-31T12:00:00Z"))
        }),
    };
    let (from, to) = (time("from")?, time("to")?);
    let to = to.map_or(now.as_millis().saturating_add(1), UnixMicros::as_millis_ceil);
    Ok((from.map_or(0, UnixMicros::as_millis_ceil), to))
}
