//! What look-ups of a key return. They count nothing.

use crate::key_state::state::KeyState;
use crate::metering::months::MonthTotal;
use crate::object::memory::{Memory, NotLoaded};
use crate::protocol::key_status::{KeyStatus, KeyStatusResponse, Me, StatusAndUsage, month_json};
use crate::protocol::object_response::KeyUsage;
use crate::protocol::usage::{PolicyUsageBody, Usage};
use crate::time::{Month, UnixMicros, rfc3339};
use serde_json::{Value, json};

/// The usage of a key, for the admin API; `None` if D1 has no such key.
///
/// # Errors
/// [`NotLoaded`].
pub fn usage(memory: &mut Memory, id: &str, now: UnixMicros) -> Result<Option<Usage>, NotLoaded> {
    let Some((key_state, profile)) = memory.key(now)? else { return Ok(None) };
    let snapshot = key_state.usage(profile.schedule(), now);
    let month = key_state.month(Month::of(now));
    let marks = key_state.meter().marks(month.month);
    let policies = profile.policies.iter().zip(&snapshot.policies);
    Ok(Some(Usage {
        key_id: id.to_owned(),
        tier: profile.row.tier.clone(),
        status: profile.status(now),
        as_of: rfc3339(now),
        policies: policies.map(|(policy, usage)| PolicyUsageBody::new(policy, usage, now)).collect(),
        month: month.month.to_string(),
        calls: month.calls.saturating_add(month.carried.calls),
        tokens: month.tokens.saturating_add(month.carried.tokens),
        overdraft: month.overdraft.saturating_add(month.carried.overdraft),
        tokens_estimated: marks.estimated,
        tokens_expired: marks.expired,
    }))
}

/// The status of a key, for a request that presents this secret: the text of a
/// [`KeyStatusResponse`].
///
/// # Errors
/// [`NotLoaded`].
pub fn key_status(memory: &mut Memory, id: &str, secret_hash: &str, now: UnixMicros) -> Result<String, NotLoaded> {
    let key = memory.key(now)?.filter(|(_, profile)| profile.accepts(secret_hash, now));
    let Some((key_state, profile)) = key else { return Ok(KeyStatusResponse::Unknown.to_text()) };
    let snapshot = key_state.usage(profile.schedule(), now);
    let policies = profile.policies.iter().zip(&snapshot.policies);
    let me = Me {
        key_id: id.to_owned(),
        tier: profile.row.tier.clone(),
        status: profile.status(now),
        expires_at: profile.row.expires_at.map(|at| rfc3339(UnixMicros::from_millis(at))),
        policies: policies.map(|(policy, usage)| PolicyUsageBody::new(policy, usage, now)).collect(),
    };
    let usage = KeyUsage::new(&profile.row.tier, profile.schedule(), &snapshot);
    let month = month_json(&key_state.month(Month::of(now)), key_state.epoch());
    let key = StatusAndUsage { status: me.status, usage };
    // Plain texts and integers: there is nothing in it that JSON cannot say.
    let me = serde_json::to_string(&me).unwrap_or_default();
    Ok(KeyStatusResponse::Known(KeyStatus { key, me: &me, month: &month }).to_text())
}

/// What D1 should have once everything is flushed. A count is a month or hour, its class, calls,
/// denied, cost and tokens.
#[must_use]
pub fn counts(key_state: &KeyState) -> Value {
    let meter = key_state.meter();
    let months = meter.kept_months().into_iter().filter(MonthTotal::has_counts);
    let months = months.map(|total| json!([total.month, "", total.calls, total.denied, total.cost, total.tokens]));
    let hours = meter.kept_hours();
    let hours = hours.iter().map(|total| {
        let counts = total.counts;
        json!([rfc3339(total.start()), total.class, counts.calls, counts.denied, counts.cost, counts.tokens])
    });
    json!({ "epoch": key_state.epoch(), "counts": months.chain(hours).collect::<Value>() })
}

#[cfg(test)]
mod tests;
