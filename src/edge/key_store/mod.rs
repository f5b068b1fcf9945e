//! D1: all SQL against it, and the forms of its rows. No rules.
//!
//! Reads go to the primary (no Sessions API), so they see every change that was committed before they began.

use super::js::Fault;
use crate::limit::MonthTotal;
use crate::policy::PolicyError;
use crate::profile::{PolicyRow, Profile, ProfileRow, Status};
use crate::time::{Month, UnixMicros, rfc3339};
use serde::Deserialize;
use worker::{D1Database, D1Type};

/// A key's profile and what other epochs of its storage have used of `month`.
pub(crate) struct StoredKey {
    pub(crate) profile: Profile,
    pub(crate) carried: u64,
}

#[derive(Deserialize)]
struct ProfileColumns {
    tier: String,
    status: Status,
    secret_hash: String,
    expires_at: Option<f64>,
    policies: String,
    routes: String,
    carried: f64,
}

const SELECT_PROFILE: &str = "
SELECT k.tier, k.status, k.secret_hash, unixepoch(k.expires_at, 'subsec') * 1000 AS expires_at,
  (SELECT json_group_array(json_object('policy', policy, 'unit', unit, 'quota', quota, 'period', period,
                                       'algorithm', algorithm, 'burst', burst))
     FROM (SELECT * FROM tier_limits WHERE tier = k.tier
           ORDER BY CASE period WHEN 'minute' THEN 0 WHEN 'hour' THEN 1 WHEN 'day' THEN 2 ELSE 3 END, policy)) AS policies,
  (SELECT json_group_array(json_object('pattern', pattern, 'method', method, 'cost', cost)) FROM route_costs) AS routes,
  (SELECT COALESCE(SUM(calls), 0) FROM usage_monthly WHERE key_id = k.id AND month = ?2 AND epoch <> ?3) AS carried
FROM keys k WHERE k.id = ?1";

/// Everything that an object needs to know of its key, in one round trip; `None` if there is no such key.
pub(crate) async fn profile(db: &D1Database, id: &str, month: Month, epoch: &str) -> Result<Option<StoredKey>, Fault> {
    let month = month.to_string();
    let values = [D1Type::Text(id), D1Type::Text(&month), D1Type::Text(epoch)];
    let Some(row) = db.prepare(SELECT_PROFILE).bind_refs(&values)?.first::<ProfileColumns>(None).await? else {
        return Ok(None);
    };
    let policies: Vec<PolicyRow> = serde_json::from_str(&row.policies).map_err(Fault::new)?;
    let row_of_profile = ProfileRow {
        id: id.to_owned(),
        tier: row.tier,
        status: row.status,
        secret_hash: row.secret_hash,
        expires_at: row.expires_at.map(whole),
        policies,
        routes: serde_json::from_str(&row.routes).map_err(Fault::new)?,
    };
    let profile =
        Profile::new(row_of_profile).map_err(|error: PolicyError| Fault::new(format!("tier_limits: {error}")))?;
    Ok(Some(StoredKey { profile, carried: whole(row.carried) }))
}

/// D1 gives numbers as f64; these are counts and times, far below 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and the columns hold whole numbers"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// And takes them so: its Integer is 32 bits wide.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn real(number: u64) -> D1Type<'static> {
    D1Type::Real(number as f64)
}

const UPSERT_USAGE: &str = "
INSERT INTO usage_monthly (key_id, month, epoch, calls, denied, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (key_id, month, epoch) DO UPDATE
  SET calls = MAX(calls, excluded.calls), denied = MAX(denied, excluded.denied), updated_at = excluded.updated_at
  WHERE excluded.calls > calls OR excluded.denied > denied";

/// Writes absolute totals, all or none. Repeating or reordering such writes changes nothing.
pub(crate) async fn flush(
    db: &D1Database,
    id: &str,
    epoch: &str,
    totals: &[MonthTotal],
    now: UnixMicros,
) -> Result<(), Fault> {
    let now = rfc3339(now);
    let mut statements = Vec::with_capacity(totals.len());
    for total in totals {
        let month = total.month.to_string();
        let values = [
            D1Type::Text(id),
            D1Type::Text(&month),
            D1Type::Text(epoch),
            real(total.calls),
            real(total.denied),
            D1Type::Text(&now),
        ];
        statements.push(db.prepare(UPSERT_USAGE).bind_refs(&values)?);
    }
    for result in db.batch(statements).await? {
        if let Some(error) = result.error() {
            return Err(Fault::new(error));
        }
    }
    Ok(())
}

/// A row of `keys`, as the admin API shows it.
#[derive(Deserialize)]
pub(crate) struct KeyColumns {
    pub(crate) id: String,
    pub(crate) tier: String,
    pub(crate) name: String,
    pub(crate) status: Status,
    pub(crate) created_at: String,
    pub(crate) expires_at: Option<f64>,
}

impl KeyColumns {
    pub(crate) fn expires_at(&self) -> Option<UnixMicros> {
        self.expires_at.map(|milliseconds| UnixMicros::from_millis(whole(milliseconds)))
    }
}

/// One key; `None` if there is no such key.
pub(crate) async fn key(db: &D1Database, id: &str) -> Result<Option<KeyColumns>, Fault> {
    let select = "SELECT id, tier, name, status, created_at, unixepoch(expires_at, 'subsec') * 1000 AS expires_at FROM keys WHERE id = ?1";
    Ok(db.prepare(select).bind_refs(&D1Type::Text(id))?.first(None).await?)
}

/// A new row of `keys`.
pub(crate) struct NewKey<'a> {
    pub(crate) id: &'a str,
    pub(crate) tier: &'a str,
    pub(crate) name: &'a str,
    pub(crate) secret_hash: &'a str,
    pub(crate) hint: &'a str,
    pub(crate) created_at: &'a str,
}

/// Adds a key; `false` if there is no such tier.
pub(crate) async fn insert_key(db: &D1Database, key: &NewKey<'_>) -> Result<bool, Fault> {
    // The tier is looked up by the statement itself, so that no other change can come between.
    let insert = "INSERT INTO keys (id, tier, name, secret_hash, hint, created_at)
                  SELECT ?1, name, ?3, ?4, ?5, ?6 FROM tiers WHERE name = ?2 RETURNING id";
    let values = [key.id, key.tier, key.name, key.secret_hash, key.hint, key.created_at].map(D1Type::Text);
    let inserted: Option<Row> = db.prepare(insert).bind_refs(&values)?.first(None).await?;
    Ok(inserted.is_some())
}

/// A row of which only its presence counts.
#[derive(Deserialize)]
struct Row {}

/// The binding of the database.
pub(crate) fn database(env: &worker::Env) -> Result<D1Database, Fault> {
    Ok(env.d1(super::deployment::DATABASE)?)
}
