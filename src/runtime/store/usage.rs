//! Usage: flushes of objects, and self-service.

use crate::metering::flush::{FlushTotals, UPSERT_HOURS, UPSERT_MONTHS};
use crate::runtime::error::Error;
use crate::runtime::store::database::{Database, Statement};
use crate::time::{Month, UnixMicros, rfc3339};

/// Writes absolute totals in one transaction, with one statement per table. Repeating or reordering
/// flushes changes nothing.
pub(crate) async fn flush(db: &Database, id: &str, totals: &FlushTotals, now: UnixMicros) -> Result<(), Error> {
    let upsert = |sql, is_empty: bool, rows: fn(&FlushTotals) -> String| {
        let values = || [id.into(), totals.epoch.as_str().into(), rfc3339(now).into(), rows(totals).into()];
        (!is_empty).then(|| Statement::new(sql, values()))
    };
    let months = upsert(UPSERT_MONTHS, totals.months.is_empty(), FlushTotals::months_json);
    let hours = upsert(UPSERT_HOURS, totals.hours.is_empty(), FlushTotals::hours_json);
    let statements: Vec<_> = months.into_iter().chain(hours).collect();
    if statements.is_empty() {
        return Ok(());
    }
    db.run(&statements).await.map(drop)
}

/// `?1` the key, `?2` the first month, `?3` the object's own row of the current month, `?4` the
/// first hour. The object's row replaces that of D1, which is older and may have more tokens.
const SELECT_SELF_SERVICE: &str = "
WITH totals AS (
  SELECT month, calls, denied, cost, tokens FROM usage_monthly WHERE key_id = ?1 AND month BETWEEN ?2 AND ?3 ->> 'month'
    AND (month, epoch) IS NOT (?3 ->> 'month', ?3 ->> 'epoch')
  UNION ALL SELECT ?3 ->> 'month', ?3 ->> 'calls', ?3 ->> 'denied', ?3 ->> 'cost', COALESCE(?3 ->> 'tokens', 0)
)
SELECT json_object('key_id', ?1,
  'months', json((SELECT json_group_array(json_object('month', month, 'calls', calls, 'denied', denied, 'cost', cost,
      'tokens', tokens))
    FROM (SELECT month, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost, SUM(tokens) AS tokens FROM totals
      GROUP BY month ORDER BY month))),
  'hours', json((SELECT json_group_array(json_object('hour', hour, 'class', class, 'calls', calls, 'denied', denied,
      'cost', cost, 'tokens', tokens))
    FROM (SELECT hour, class, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost, SUM(tokens) AS tokens
      FROM usage_hourly WHERE key_id = ?1 AND hour >= ?4 GROUP BY hour, class ORDER BY hour, class)))) AS row";

/// A key's usage as JSON: the months from `since` on and the hours from `hour` on. `month` is the
/// object's row of the current month.
pub(crate) async fn self_service_usage(
    db: &Database,
    id: &str,
    since: Month,
    month: &str,
    hour: &str,
) -> Result<String, Error> {
    let values = [id.into(), since.to_string().into(), month.into(), hour.into()];
    let row = db.text(Statement::new(SELECT_SELF_SERVICE, values)).await?;
    row.ok_or_else(|| Error::new("D1 gave no row"))
}
