//! The totals of a flush, and the statements with which D1 merges them.
//!
//! Totals are absolute, and all but the net ones only grow. D1 takes the larger of each, so
//! repeating or reordering flushes changes nothing. The net ones, `cost` and `tokens`, are computed
//! from the merged `*_charged` and `*_returned` in the same statement.
//!
//! Earlier versions have no `*_charged` columns. They merge what was charged into `cost` by the
//! larger value. So the larger of `cost` and `cost_charged` is what was charged, whichever version
//! wrote last.

use crate::limiter::cost::Cost;
use crate::metering::hours::HourTotal;
use crate::metering::months::MonthTotal;
use crate::time::rfc3339;
use serde_json::{Value, json};

/// Merges months. `?1` the key, `?2` the epoch, `?3` the time, `?4` [`FlushTotals::months_json`].
pub const UPSERT_MONTHS: &str = "
INSERT INTO usage_monthly (key_id, epoch, updated_at, month, calls, denied, cost, tokens,
    cost_charged, cost_returned, tokens_charged, tokens_returned, overdraft)
  SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, (value ->> 3) - (value ->> 4), (value ->> 5) - (value ->> 6),
    value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7 FROM json_each(?4) WHERE 1
ON CONFLICT (key_id, month, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied),
    cost = MAX(cost, cost_charged, excluded.cost_charged) - MAX(cost_returned, excluded.cost_returned),
    tokens = MAX(tokens, tokens_charged, excluded.tokens_charged) - MAX(tokens_returned, excluded.tokens_returned),
    cost_charged = MAX(cost, cost_charged, excluded.cost_charged),
    cost_returned = MAX(cost_returned, excluded.cost_returned),
    tokens_charged = MAX(tokens, tokens_charged, excluded.tokens_charged),
    tokens_returned = MAX(tokens_returned, excluded.tokens_returned),
    overdraft = MAX(overdraft, excluded.overdraft), updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied
    OR excluded.cost_charged > cost_charged OR excluded.cost_returned > cost_returned
    OR excluded.tokens_charged > tokens_charged OR excluded.tokens_returned > tokens_returned
    OR excluded.overdraft > overdraft
    OR cost <> cost_charged - cost_returned OR tokens <> tokens_charged - tokens_returned";

/// Merges hours. The parameters are those of [`UPSERT_MONTHS`], with [`FlushTotals::hours_json`].
pub const UPSERT_HOURS: &str = "
INSERT INTO usage_hourly (key_id, epoch, updated_at, hour, class, calls, denied, cost, tokens,
    cost_charged, cost_returned, tokens_charged, tokens_returned)
  SELECT ?1, ?2, ?3, value ->> 0, value ->> 1, value ->> 2, value ->> 3, (value ->> 4) - (value ->> 5),
    (value ->> 6) - (value ->> 7), value ->> 4, value ->> 5, value ->> 6, value ->> 7 FROM json_each(?4) WHERE 1
ON CONFLICT (key_id, hour, class, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied),
    cost = MAX(cost, cost_charged, excluded.cost_charged) - MAX(cost_returned, excluded.cost_returned),
    tokens = MAX(tokens, tokens_charged, excluded.tokens_charged) - MAX(tokens_returned, excluded.tokens_returned),
    cost_charged = MAX(cost, cost_charged, excluded.cost_charged),
    cost_returned = MAX(cost_returned, excluded.cost_returned),
    tokens_charged = MAX(tokens, tokens_charged, excluded.tokens_charged),
    tokens_returned = MAX(tokens_returned, excluded.tokens_returned), updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied
    OR excluded.cost_charged > cost_charged OR excluded.cost_returned > cost_returned
    OR excluded.tokens_charged > tokens_charged OR excluded.tokens_returned > tokens_returned
    OR cost <> cost_charged - cost_returned OR tokens <> tokens_charged - tokens_returned";

/// Absolute totals of an object, for a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushTotals {
    /// The epoch whose totals they are.
    pub epoch: String,
    /// Months with counts that D1 does not have.
    pub months: Vec<MonthTotal>,
    /// Hours with counts that D1 does not have, by class.
    pub hours: Vec<HourTotal>,
}

impl FlushTotals {
    /// Whether D1 has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.months.is_empty() && self.hours.is_empty()
    }

    /// JSON rows: month, calls, denied, charged and returned requests, charged and returned tokens,
    /// overdraft.
    #[must_use]
    pub fn months_json(&self) -> String {
        let row = |total: &MonthTotal| {
            let MonthTotal { month, calls, denied, charged, returned, overdraft, .. } = total;
            let [spent, back, tokens, tokens_back] = amounts(*charged, *returned);
            json!([month, calls, denied, spent, back, tokens, tokens_back, overdraft])
        };
        self.months.iter().map(row).collect::<Value>().to_string()
    }

    /// JSON rows: hour, class, calls, denied, charged and returned requests, charged and returned
    /// tokens.
    #[must_use]
    pub fn hours_json(&self) -> String {
        let row = |total: &HourTotal| {
            let counts = total.counts;
            let [spent, back, tokens, tokens_back] = amounts(counts.charged, counts.returned);
            let hour = rfc3339(total.start());
            json!([hour, total.class, counts.calls, counts.denied, spent, back, tokens, tokens_back])
        };
        self.hours.iter().map(row).collect::<Value>().to_string()
    }
}

const fn amounts(charged: Cost, returned: Cost) -> [u64; 4] {
    [charged.requests, returned.requests, charged.tokens, returned.tokens]
}
