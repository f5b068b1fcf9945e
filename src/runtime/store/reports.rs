//! Reports of usage, summed over epochs, and comparisons with objects.

use crate::admin::parameters::Page;
use crate::admin::reports::{Span, TOP_LIMIT};
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::runtime::store::database::{Database, Statement};
use crate::runtime::store::sql::millis;
use crate::time::{Month, UnixMicros, rfc3339};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// A page of a key's usage by part of a span and route class, after `(part, class)`.
macro_rules! parts {
    ($name:literal, $part:literal) => {
        concat!(
            "SELECT json_object('",
            $name,
            "', ",
            $part,
            ", 'class', class, 'calls', SUM(calls), 'denied', SUM(denied),
               'cost', SUM(cost), 'tokens', SUM(tokens)) AS row, ",
            $part,
            " || char(10) || class AS position FROM usage_hourly
             WHERE key_id = ? AND hour >= ? AND hour < ? AND (",
            $part,
            ", class) > (?, ?)
             GROUP BY ",
            $part,
            ", class ORDER BY ",
            $part,
            ", class LIMIT ?"
        )
    };
}

/// The length of the parts of a span.
#[derive(Clone, Copy)]
pub(crate) enum Granularity {
    Hour,
    Day,
}

/// A page of a key's usage by hour or day and route class.
pub(crate) fn parts(id: &str, part: Granularity, span: Span, (after, class): (&str, &str), page: &Page) -> Statement {
    let select = match part {
        Granularity::Hour => parts!("hour", "hour"),
        Granularity::Day => parts!("day", "substr(hour, 1, 10)"),
    };
    let (from, until) = (rfc3339(span.from), rfc3339(span.until));
    Statement::new(select, [id.into(), from.into(), until.into(), after.into(), class.into(), page.rows().into()])
}

/// `?1` the key, `?2` the current month, `?3` the number of months. One more month is read, for the
/// growth of the first.
const SELECT_HISTORY: &str = "
WITH RECURSIVE
  used AS (SELECT month, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost, SUM(tokens) AS tokens,
      SUM(overdraft) AS overdraft FROM usage_monthly
    WHERE key_id = ?1 AND month <= ?2 GROUP BY month),
  born(first) AS (SELECT MIN(month) FROM (SELECT substr(created_at, 1, 7) AS month FROM keys WHERE id = ?1
    UNION ALL SELECT month FROM used)),
  span(month, n) AS (SELECT ?2, 1 UNION ALL
    SELECT strftime('%Y-%m', month || '-01', '-1 month'), n + 1 FROM span, born WHERE n <= ?3 AND month > first),
  filled AS (SELECT span.month AS month, n, COALESCE(calls, 0) AS calls, COALESCE(denied, 0) AS denied,
      COALESCE(cost, 0) AS cost, COALESCE(tokens, 0) AS tokens, COALESCE(overdraft, 0) AS overdraft,
      LAG(COALESCE(calls, 0)) OVER (ORDER BY span.month) AS before
    FROM span LEFT JOIN used ON used.month = span.month),
  shown AS (SELECT * FROM filled WHERE n <= ?3 ORDER BY month),
  past AS (SELECT calls, n FROM shown WHERE n > 1),
  ends AS (SELECT (SELECT calls FROM past WHERE n = 2) AS last, (SELECT AVG(calls) FROM past WHERE n BETWEEN 3 AND 5) AS base)
SELECT json_object('key_id', ?1, 'months', json((SELECT json_group_array(json_object('month', month, 'calls', calls,
    'denied', denied, 'cost', cost, 'tokens', tokens, 'overdraft', overdraft,
    'is_complete', json(CASE WHEN n > 1 THEN 'true' ELSE 'false' END),
    'growth_percent', CASE WHEN before > 0 THEN ROUND((calls - before) * 100.0 / before, 1) END)) FROM shown)),
  'average', (SELECT ROUND(AVG(calls), 1) FROM past),
  'trend', CASE WHEN last > base * 1.1 THEN 'up' WHEN last < base * 0.9 THEN 'down' ELSE 'flat' END) AS row FROM ends";

/// A key's usage in each of the last `months`.
pub(crate) fn history(id: &str, current: Month, months: usize) -> Statement {
    Statement::new(SELECT_HISTORY, [id.into(), current.to_string().into(), months.into()])
}

/// Usage is grouped by the current tier of its key. Usage of deleted keys has tier NULL, so that
/// the groups add up to the total.
const SELECT_TOTALS: &str = "
WITH used AS (SELECT key_id, SUM(calls) AS calls, SUM(denied) AS denied, SUM(cost) AS cost, SUM(tokens) AS tokens,
      SUM(overdraft) AS overdraft FROM usage_monthly WHERE month = ?1 GROUP BY key_id),
  known AS (SELECT key_id, k.name AS name, k.tier AS tier, calls, tokens FROM used LEFT JOIN keys k ON k.id = key_id),
  of_tiers AS (SELECT tier, COUNT(*) AS keys, SUM(calls) AS calls, SUM(tokens) AS tokens FROM known GROUP BY tier),
  by_tier AS (SELECT name AS tier, (SELECT COUNT(*) FROM keys WHERE tier = tiers.name) AS keys,
      COALESCE(calls, 0) AS calls, COALESCE(tokens, 0) AS tokens FROM tiers LEFT JOIN of_tiers ON tier = name
    UNION ALL SELECT NULL, keys, calls, tokens FROM of_tiers WHERE tier IS NULL),
  largest AS (SELECT * FROM known WHERE calls > 0 OR tokens > 0 ORDER BY calls DESC, tokens DESC, key_id LIMIT ?2)
SELECT json_object('month', ?1,
  'tiers', json((SELECT json_group_array(json_object('tier', tier, 'keys', keys, 'calls', calls, 'tokens', tokens)) FROM
    (SELECT * FROM by_tier ORDER BY tier IS NULL, tier))),
  'top', json((SELECT json_group_array(json_object('key_id', key_id, 'name', name, 'tier', tier, 'calls', calls,
    'tokens', tokens)) FROM largest)),
  'calls', COALESCE(SUM(calls), 0), 'denied', COALESCE(SUM(denied), 0), 'tokens', COALESCE(SUM(tokens), 0),
  'totals', json_object('keys', COUNT(*), 'calls', COALESCE(SUM(calls), 0), 'denied', COALESCE(SUM(denied), 0),
    'cost', COALESCE(SUM(cost), 0), 'tokens', COALESCE(SUM(tokens), 0), 'overdraft', COALESCE(SUM(overdraft), 0))) AS row
  FROM used";

/// Usage of all keys in a month: totals, by tier, and the keys with the most calls.
pub(crate) fn report_totals(month: Month) -> Statement {
    Statement::new(SELECT_TOTALS, [month.to_string().into(), TOP_LIMIT.into()])
}

/// A page of each key's usage in a month.
pub(crate) fn report(month: Month, page: &Page) -> Statement {
    let select =
        "SELECT json_object('key_id', key_id, 'name', k.name, 'owner', k.owner, 'tier', k.tier, 'calls', SUM(calls),
        'denied', SUM(denied), 'cost', SUM(cost), 'tokens', SUM(tokens), 'overdraft', SUM(overdraft)) AS row,
        key_id AS position
      FROM usage_monthly LEFT JOIN keys k ON k.id = key_id WHERE month = ? AND key_id > ?
      GROUP BY key_id ORDER BY key_id LIMIT ?";
    let after = page.after.as_deref().unwrap_or_default();
    Statement::new(select, [month.to_string().into(), after.into(), page.rows().into()])
}

/// A column as a CSV cell (RFC 4180). Text that a spreadsheet would evaluate as a formula is
/// prefixed with an apostrophe.
macro_rules! cell {
    ($column:literal) => {
        concat!(
            "(SELECT CASE WHEN cell GLOB '*[\",' || char(10, 13) || ']*' THEN '\"' || replace(cell, '\"', '\"\"') || '\"' ELSE cell END
              FROM (SELECT CASE WHEN substr(text, 1, 1) IN ('=', '+', '-', '@', char(9), char(13)) THEN '''' ELSE '' END || text AS cell
                FROM (SELECT COALESCE(", $column, ", '') AS text)))"
        )
    };
}

const CSV_HEAD: &str = "month,key_id,name,owner,tier,calls,denied,cost,tokens,overdraft\r\n";
const SELECT_CSV: &str = concat!(
    "SELECT month || ',' || ", cell!("key_id"), " || ',' || ", cell!("name"), " || ',' || ", cell!("owner"), " || ',' || ",
    cell!("tier"), " || ',' || calls || ',' || denied || ',' || cost || ',' || tokens || ',' || overdraft || char(13, 10) AS row,
      key_id AS position
    FROM (SELECT month, key_id, k.name AS name, k.owner AS owner, k.tier AS tier, SUM(calls) AS calls, SUM(denied) AS denied,
        SUM(cost) AS cost, SUM(tokens) AS tokens, SUM(overdraft) AS overdraft
      FROM usage_monthly LEFT JOIN keys k ON k.id = key_id WHERE month = ? AND key_id > ?
      GROUP BY key_id ORDER BY key_id LIMIT 1000)"
);

/// The whole report as a stream of CSV. Resolves after the first query has succeeded.
pub(crate) async fn report_csv(db: &Database, month: Month) -> Result<JsValue, Error> {
    Ok(JsFuture::from(js::d1::stream_rows(db.binding(), SELECT_CSV, &month.to_string(), CSV_HEAD)).await?)
}

/// Fields of one kind of usage as JSON.
macro_rules! counts {
    ($table:literal) => {
        concat!(
            "json_object('period', period, 'class', NULLIF(class, ''), 'calls', ",
            $table,
            ".calls, 'denied', ",
            $table,
            ".denied, 'cost', ",
            $table,
            ".cost, 'tokens', ",
            $table,
            ".tokens)"
        )
    };
}

/// Sums over the months, which have an empty class.
macro_rules! sums {
    () => {
        "'calls', COALESCE(SUM(calls) FILTER (WHERE class = ''), 0), 'denied', COALESCE(SUM(denied) FILTER (WHERE class = ''), 0),
          'cost', COALESCE(SUM(cost) FILTER (WHERE class = ''), 0), 'tokens', COALESCE(SUM(tokens) FILTER (WHERE class = ''), 0)"
    };
}

/// `?1` the key, `?2` the counts of its object as JSON, `?3` the time. The class of a month is
/// empty.
const SELECT_RECONCILED: &str = concat!(
    "WITH o AS (SELECT value ->> 0 AS period, value ->> 1 AS class, value ->> 2 AS calls, value ->> 3 AS denied,
      value ->> 4 AS cost, value ->> 5 AS tokens FROM json_each(?2, '$.counts')),
  d AS (SELECT month AS period, '' AS class, calls, denied, cost, tokens FROM usage_monthly
      WHERE key_id = ?1 AND epoch = ?2 ->> 'epoch' AND month IN (SELECT period FROM o)
    UNION ALL SELECT hour, class, calls, denied, cost, tokens FROM usage_hourly
      WHERE key_id = ?1 AND epoch = ?2 ->> 'epoch' AND hour IN (SELECT period FROM o)),
  differences AS (SELECT json_object('object', json(", counts!("o"), "), 'd1',
      json(CASE WHEN d.calls IS NOT NULL THEN ", counts!("d"), " END)) AS difference
    FROM o LEFT JOIN d USING (period, class)
    WHERE (o.calls, o.denied, o.cost, o.tokens) IS NOT (d.calls, d.denied, d.cost, d.tokens)
    UNION ALL SELECT json_object('object', NULL, 'd1', json(", counts!("d"), ")) FROM d
    WHERE NOT EXISTS (SELECT 1 FROM o WHERE o.period = d.period AND o.class = d.class)),
  result AS (SELECT CASE WHEN EXISTS (SELECT 1 FROM differences) THEN 'drift' ELSE 'exact' END AS state)
SELECT json_object('key_id', ?1, 'state', state, 'at', ?3, 'epoch', ?2 ->> 'epoch',
    'object', json((SELECT json_object(", sums!(), ", 'counts', json_group_array(json(", counts!("o"), "))) FROM o)),
    'd1', json((SELECT json_object(", sums!(), ", 'counts', json_group_array(json(", counts!("d"), "))) FROM d)),
    'differences', json((SELECT json_group_array(json(difference)) FROM differences))) AS row, state AS position FROM result"
);

/// Compares the counts of an object with D1. Returns whether they are equal, and the JSON of the
/// comparison.
pub(crate) async fn reconcile(
    db: &Database,
    id: &str,
    counted: &str,
    now: UnixMicros,
) -> Result<(bool, String), Error> {
    let values = [id.into(), counted.into(), rfc3339(now).into()];
    let row = db.run(&[Statement::new(SELECT_RECONCILED, values)]).await?.into_iter().next();
    let row = row.ok_or_else(|| Error::new("the comparison returned no row"))?;
    Ok((row.position.as_deref() == Some("exact"), row.row))
}

/// Records that D1 differs from a key's object.
pub(crate) async fn note_drift(db: &Database, id: &str, detail: &str, now: UnixMicros) -> Result<(), Error> {
    let insert = "INSERT INTO drift (key_id, found_at, detail) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    db.run(&[Statement::new(insert, [id.into(), rfc3339(now).into(), detail.into()])]).await.map(drop)
}

/// A page of recorded drift, newest first, from before `(found_at, key_id)`.
pub(crate) fn drift((at, id): (&str, &str), page: &Page) -> Statement {
    let select = "SELECT json_object('key_id', key_id, 'found_at', found_at, 'detail', json(detail)) AS row,
        found_at || char(10) || key_id AS position FROM drift WHERE (found_at, key_id) < (?, ?)
      ORDER BY found_at DESC, key_id DESC LIMIT ?";
    Statement::new(select, [at.into(), id.into(), page.rows().into()])
}

/// Up to `count` ids of keys from `pivot` on, wrapping around. Ids are random, hence so is the
/// sample.
pub(crate) async fn some_keys(db: &Database, pivot: &str, count: usize) -> Result<Vec<String>, Error> {
    let select = "SELECT id AS row FROM (SELECT id, 0 AS lap FROM keys WHERE id >= ?1 UNION ALL SELECT id, 1 FROM keys WHERE id < ?1)
      ORDER BY lap, id LIMIT ?2";
    db.texts(Statement::new(select, [pivot.into(), count.into()])).await
}

/// Visits the keys one by one by the primary key. An index on the hour would cost one more written
/// row per row of usage.
const DELETE_HOURS: &str = "
WITH RECURSIVE known(id) AS (SELECT MIN(key_id) FROM usage_hourly UNION ALL
  SELECT (SELECT MIN(key_id) FROM usage_hourly WHERE key_id > id) FROM known WHERE id IS NOT NULL)
DELETE FROM usage_hourly WHERE (key_id, hour, class, epoch) IN
  (SELECT key_id, hour, class, epoch FROM known CROSS JOIN usage_hourly ON key_id = id AND hour < ?1 LIMIT ?2)";

/// Deletes up to `most` hours before `until`, and drift of that age. True if more may remain.
pub(crate) async fn delete_hours(db: &Database, until: UnixMicros, most: u64) -> Result<bool, Error> {
    let until = rfc3339(until);
    let drift = Statement::new("DELETE FROM drift WHERE found_at < ?", [until.as_str().into()]);
    let hours = Statement::new(DELETE_HOURS, [until.as_str().into(), most.into()]);
    let deleted = Statement::new("SELECT CAST(changes() AS TEXT) AS row", []);
    let deleted = db.run(&[drift, hours, deleted]).await?;
    Ok(deleted.first().is_some_and(|deleted| deleted.row.parse() == Ok(most)))
}

/// Usage of the month policies in force. `?1` the month, `?2` now, in milliseconds, `?3`
/// millionths, `?4`, `?5` the key and policy before the page, `?6` the number of rows.
const SELECT_NEAR: &str = concat!(
    "WITH used AS (SELECT key_id, SUM(cost) AS cost, SUM(tokens) AS tokens, MAX(updated_at) AS updated_at FROM usage_monthly
      WHERE month = ?1 AND key_id >= ?4 GROUP BY key_id),
  own AS (SELECT * FROM overrides WHERE (from_at IS NULL OR ", millis!("from_at"), " <= ?2)
    AND (until_at IS NULL OR ", millis!("until_at"), " > ?2)),
  policies AS (SELECT k.id AS key_id, policy, unit, quota, period FROM keys k JOIN tier_limits t ON t.tier = k.tier
      WHERE NOT EXISTS (SELECT 1 FROM own WHERE own.key_id = k.id AND own.policy = t.policy)
    UNION ALL SELECT key_id, policy, unit, quota, period FROM own),
  standing AS (SELECT key_id, policy, unit, quota, CASE unit WHEN 'tokens' THEN tokens ELSE cost END AS used, updated_at
    FROM used JOIN policies USING (key_id) WHERE period = 'month')
SELECT json_object('key_id', key_id, 'name', k.name, 'owner', k.owner, 'tier', k.tier, 'policy', s.policy, 'unit', unit,
    'quota', s.quota, 'used', s.used, 'share', ROUND(s.used * 1.0 / s.quota, 4), 'threshold', ?3 / 1e6,
    'month', ?1,
    'at', COALESCE((SELECT a.at FROM alerts a WHERE a.key_id = s.key_id AND a.policy = s.policy AND a.month = ?1
      AND a.quota = s.quota AND ABS(a.threshold * 1e6 - ?3) < 0.5), updated_at)) AS row,
  key_id || char(10) || s.policy AS position
FROM standing s JOIN keys k ON k.id = key_id
WHERE s.used > 0 AND s.used * 1000000 >= s.quota * ?3 AND (key_id, s.policy) > (?4, ?5)
ORDER BY key_id, s.policy LIMIT ?6"
);

/// A page of the keys that have used at least this share of a month policy.
pub(crate) fn near_quota(millionths: u64, (id, policy): (&str, &str), now: UnixMicros, page: &Page) -> Statement {
    let month = Month::of(now).to_string();
    let now = now.as_millis();
    let values = [month.into(), now.into(), millionths.into(), id.into(), policy.into(), page.rows().into()];
    Statement::new(SELECT_NEAR, values)
}
