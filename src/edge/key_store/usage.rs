//! The accounts.

use super::{Database, Statement};
use crate::edge::js::Fault;
use crate::limit::MonthTotal;
use crate::time::{UnixMicros, rfc3339};

const UPSERT_USAGE: &str = "
INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (key_id, month, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied";

/// Writes absolute totals, all or none. Repeating or reordering such writes changes nothing.
pub(crate) async fn flush(
    db: &Database,
    id: &str,
    epoch: &str,
    totals: &[MonthTotal],
    now: UnixMicros,
) -> Result<(), Fault> {
    let now = rfc3339(now);
    let upsert = |total: &MonthTotal| {
        let month = total.month.to_string();
        let values =
            [id.into(), month.into(), epoch.into(), total.calls.into(), total.denied.into(), now.as_str().into()];
        Statement::new(UPSERT_USAGE, values)
    };
    db.run(&totals.iter().map(upsert).collect::<Vec<_>>()).await.map(drop)
}
