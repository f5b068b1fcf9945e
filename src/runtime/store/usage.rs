//! Usage, as objects flush it and self-service reads it.

use crate::metering::hours::HourTotal;
use crate::metering::months::MonthTotal;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Database, Statement};
use crate::time::{Month, UnixMicros, rfc3339};
use serde_json::json;

const UPSERT_MONTHS: &str = "
INSERT INTO usage_monthly (key_id, epoch, updated_at, month, calls, denied, cost, tokens)
  SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4) WHERE 1
ON CONFLICT (key_id, month, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), cost = MAX(cost, excluded.cost),
    tokens = MAX(tokens, excluded.tokens), updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied OR excluded.cost > cost OR excluded.tokens > tokens";

const UPSERT_HOURS: &str = "
INSERT INTO usage_hourly (key_id, epoch, updated_at, hour, class, calls, denied, cost)
  SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4) WHERE 1
ON CONFLICT (key_id, hour, class, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), cost = MAX(cost, excluded.cost),
    updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied OR excluded.cost > cost";

/// Absolute totals of an object, to be flushed to D1.
pub(crate) struct FlushTotals {
    pub(crate) epoch: String,
    pub(crate) months: Vec<MonthTotal>,
    pub(crate) hours: Vec<HourTotal>,
}

impl FlushTotals {
    pub(crate) fn is_empty(&self) -> bool {
        self.months.is_empty() && self.hours.is_empty()
    }

    /// Rows of JSON: month, calls, denied, cost, tokens.
    fn months(&self) -> String {
        let row = |total: &MonthTotal| json!([total.month, total.calls, total.denied, total.cost, total.tokens]);
        self.months.iter().map(row).collect::<serde_json::Value>().to_string()
    }

    /// Rows of JSON: hour, class, calls, denied, cost.
    fn hours(&self) -> String {
        let row = |total: &HourTotal| {
            let counts = total.counts;
            json!([rfc3339(total.start()), total.class, counts.calls, counts.denied, counts.cost])
        };
        self.hours.iter().map(row).collect::<serde_json::Value>().to_string()
    }
}

/// Writes absolute totals, all or none, with one statement for each table. Repeating or reordering
/// flushes changes nothing.
pub(crate) async fn flush(db: &Database, id: &str, totals: &FlushTotals, now: UnixMicros) -> Result<(), Error> {
    let upsert = |sql, is_empty: bool, rows: fn(&FlushTotals) -> String| {
        let values = || [id.into(), totals.epoch.as_str().into(), rfc3339(now).into(), rows(totals).into()];
        (!is_empty).then(|| Statement::new(sql, values()))
    };
    let months = upsert(UPSERT_MONTHS, totals.months.is_empty(), FlushTotals::months);
    let hours = upsert(UPSERT_HOURS, totals.hours.is_empty(), FlushTotals::hours);
    let statements: Vec<_> = months.into_iter().chain(hours).collect();
    if statements.is_empty() {
        return Ok(());
    }
    db.run(&statements).await.map(drop)
}

/// What a key has used, as JSON: the months from `since` on, `month` being what the object says of
/// the current one, and the hours from `hour` on.
pub(crate) async fn self_service_usage(
    db: &Database,
    id: &str,
    since: Month,
    month: &str,
    hour: &str,
) -> Result<String, Error> {
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
    db.text(Statement::new(select, values)).await?.ok_or_else(|| Error::new("D1 gave no row"))
}
