//! The accounts.

use super::{Database, Statement};
use crate::edge::js::Fault;
use crate::limit::MonthTotal;
use crate::time::{Month, UnixMicros, rfc3339};

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

/// What a key has used, as JSON: the months from `since` on, `month` being what the object says of the current one, and the hours
/// from `hour` on.
pub(crate) async fn usage_of_holder(
    db: &Database,
    id: &str,
    since: Month,
    month: &str,
    hour: &str,
) -> Result<String, Fault> {
    let select = "
WITH totals AS (
  SELECT month, epoch, calls, denied, cost FROM usage_monthly WHERE key_id = ?1 AND month BETWEEN ?2 AND ?3 ->> 'month'
  UNION ALL SELECT ?3 ->> 'month', ?3 ->> 'epoch', ?3 ->> 'calls', ?3 ->> 'denied', ?3 ->> 'cost'
), epochs AS (
  SELECT month, MAX(calls) AS calls, MAX(denied) AS denied, MAX(cost) AS cost FROM totals GROUP BY month, epoch
)
SELECT json_object('key_id', ?1,
  'months', json((SELECT json_group_array(json_object('month', month, 'calls', calls, 'denied', denied, 'cost', cost)) FROM (
    SELECT month, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost FROM epochs GROUP BY month ORDER BY month))),
  'hours', json((SELECT json_group_array(json_object('hour', hour, 'class', class, 'calls', calls, 'denied', denied, 'cost', cost))
    FROM (SELECT hour, class, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost FROM usage_hourly
      WHERE key_id = ?1 AND hour >= ?4 GROUP BY hour, class ORDER BY hour, class)))) AS row";
    let values = [id.into(), since.to_string().into(), month.into(), hour.into()];
    db.text(Statement::new(select, values)).await?.ok_or_else(|| Fault::new("D1 gave no row"))
}
