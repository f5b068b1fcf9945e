//! Alerts and their webhook deliveries.

use crate::admin::alerts::DeliveryState;
use crate::admin::parameters::Page;
use crate::metering::alerts::Alert;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Database, Statement};
use crate::runtime::store::sql::millis;
use crate::time::{UnixMicros, rfc3339};
use serde::Deserialize;
use serde_json::Value;

/// The state of the delivery of an alert.
#[derive(Debug, Deserialize)]
pub(crate) struct DeliveryProgress {
    pub(crate) state: DeliveryState,
    pub(crate) attempts: u32,
    /// Milliseconds since the Unix epoch; `None` if there is no further attempt.
    pub(crate) next_attempt_at: Option<u64>,
}

/// The primary key of an alert.
fn name(id: &str, alert: &Alert) -> [Value; 5] {
    let month = alert.month.to_string();
    [id.into(), alert.policy.as_str().into(), alert.share().into(), month.into(), alert.quota.into()]
}

/// Inserts an alert unless it exists. A pending alert becomes `none` if no webhook is configured
/// any more. Returns the state of its delivery.
pub(crate) async fn put_alert(
    db: &Database,
    id: &str,
    alert: &Alert,
    has_receiver: bool,
) -> Result<DeliveryProgress, Error> {
    let insert = "INSERT INTO alerts (key_id, policy, threshold, month, quota, used, at, state, unit)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET state = excluded.state WHERE state = 'pending' AND excluded.state = 'none'";
    let state = if has_receiver { DeliveryState::Pending } else { DeliveryState::None };
    let mut values = name(id, alert).to_vec();
    values.extend([alert.used.into(), rfc3339(alert.at).into(), state.as_str().into(), alert.unit.as_str().into()]);
    let select = concat!(
        "SELECT json_object('state', state, 'attempts', attempts, 'next_attempt_at', ",
        millis!("next_attempt_at"),
        ") AS row FROM alerts WHERE key_id = ? AND policy = ? AND threshold = ? AND month = ? AND quota = ?"
    );
    let rows = db.run(&[Statement::new(insert, values), Statement::new(select, name(id, alert))]).await?;
    let row = rows.first().ok_or_else(|| Error::new("D1 has no row of the alert that was just inserted"))?;
    serde_json::from_str(&row.row).map_err(Error::new)
}

/// Records an attempt to deliver an alert.
pub(crate) async fn note_attempt(
    db: &Database,
    id: &str,
    alert: &Alert,
    state: DeliveryState,
    next: Option<UnixMicros>,
    error: Option<&str>,
) -> Result<(), Error> {
    let update = "UPDATE alerts SET attempts = attempts + 1, state = ?, next_attempt_at = ?, last_error = ?
      WHERE key_id = ? AND policy = ? AND threshold = ? AND month = ? AND quota = ?";
    let mut values: Vec<Value> = vec![state.as_str().into(), next.map(rfc3339).into(), error.into()];
    values.extend(name(id, alert));
    db.run(&[Statement::new(update, values)]).await.map(drop)
}

/// A page of alerts, newest first, optionally only those in one state; `None` for an invalid
/// cursor.
pub(crate) fn deliveries(state: Option<&str>, page: &Page) -> Option<Statement> {
    let mut select = String::from(
        "SELECT json_object('key_id', key_id, 'policy', policy, 'threshold', threshold, 'month', month, 'unit', unit,
           'quota', quota, 'used', used, 'at', at, 'state', state, 'attempts', attempts, 'next_attempt_at', next_attempt_at,
           'last_error', last_error) AS row,
           json_array(at, key_id, policy, threshold, month, quota) AS position FROM alerts WHERE 1",
    );
    let mut values: Vec<Value> = Vec::new();
    if let Some(state) = state {
        select.push_str(" AND state = ?");
        values.push(state.into());
    }
    if let Some(after) = &page.after {
        let Ok(after) = serde_json::from_str::<Vec<Value>>(after) else { return None };
        if after.len() != 6 || after.iter().any(|value| !(value.is_string() || value.is_number())) {
            return None;
        }
        select.push_str(" AND (at, key_id, policy, threshold, month, quota) < (?, ?, ?, ?, ?, ?)");
        values.extend(after);
    }
    select.push_str(" ORDER BY at DESC, key_id DESC, policy DESC, threshold DESC, month DESC, quota DESC LIMIT ?");
    values.push(page.rows().into());
    Some(Statement::new(select, values))
}
