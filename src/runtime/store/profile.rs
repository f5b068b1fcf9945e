//! The profile of a key, which its object reads.

use crate::keys::profile::{Profile, ProfileRow};
use crate::limiter::policy::PolicyError;
use crate::metering::months::Carried;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Database, Statement};
use crate::runtime::store::sql::millis;
use crate::runtime::store::token_routes::token_route;
use crate::time::Month;
use serde::Deserialize;

/// A key's profile, and the usage of `month` by other epochs of its storage.
pub(crate) struct StoredKey {
    pub(crate) profile: Profile,
    pub(crate) carried: Carried,
}

#[derive(Deserialize)]
struct StoredProfile {
    profile: ProfileRow,
    carried: Carried,
}

/// A policy as JSON.
macro_rules! policy {
    () => {
        "json_object('policy', policy, 'unit', unit, 'quota', quota, 'period', period, 'algorithm', algorithm, 'burst', burst)"
    };
}
pub(super) use policy;

/// The cost of a row `u` of `usage_monthly`. Versions before the column `cost` wrote neither cost
/// nor hours, and every call cost 1. A row with hours and cost 0 consists of free repeats.
macro_rules! cost {
    () => {
        "CASE WHEN u.cost = 0 AND u.tokens = 0 AND NOT EXISTS (SELECT 1 FROM usage_hourly h WHERE h.key_id = u.key_id
           AND h.hour >= u.month || '-01' AND h.hour < u.month || '-32' AND h.epoch = u.epoch) THEN u.calls ELSE u.cost END"
    };
}

const SELECT_PROFILE: &str = concat!(
    "SELECT json_object('profile', json_object('id', k.id, 'tier', k.tier, 'status', k.status, 'secret_hash', k.secret_hash,
       'expires_at', ", millis!("k.expires_at"), ",
       'previous_hash', k.previous_hash, 'previous_until', ", millis!("k.previous_until"), ",
       'tier_version', COALESCE(t.version, 0), 'audit_days', COALESCE(t.audit_days, 0),
       'idempotency', COALESCE(t.idempotency, 'on'),
       'policies', json((SELECT json_group_array(", policy!(), ") FROM (SELECT * FROM tier_limits WHERE tier = k.tier
         ORDER BY CASE period WHEN 'minute' THEN 0 WHEN 'hour' THEN 1 WHEN 'day' THEN 2 ELSE 3 END, policy))),
       'overrides', json((SELECT json_group_array(json_object('policy', ", policy!(), ",
           'from', ", millis!("from_at"), ", 'until', ", millis!("until_at"), ")) FROM overrides WHERE key_id = k.id)),
       'routes', json((SELECT json_group_array(json_object('pattern', pattern, 'method', method, 'cost', cost, 'reprice', reprice)) FROM route_costs)),
       'token_routes', json((SELECT json_group_array(", token_route!(), ") FROM token_routes))),
     'carried', (SELECT json_object('calls', COALESCE(SUM(calls), 0), 'cost', COALESCE(SUM(", cost!(), "), 0),
         'tokens', COALESCE(SUM(tokens), 0), 'overdraft', COALESCE(SUM(overdraft), 0))
       FROM usage_monthly u WHERE key_id = k.id AND month = ?2 AND epoch <> ?3)) AS row
     FROM keys k LEFT JOIN tiers t ON t.name = k.tier WHERE k.id = ?1"
);

/// The profile of a key, in one round trip; `None` if the key does not exist.
pub(crate) async fn read_profile(
    db: &Database,
    id: &str,
    month: Month,
    epoch: &str,
) -> Result<Option<StoredKey>, Error> {
    let values = [id.into(), month.to_string().into(), epoch.into()];
    let Some(stored) = db.text(Statement::new(SELECT_PROFILE, values)).await? else { return Ok(None) };
    let stored: StoredProfile = serde_json::from_str(&stored).map_err(Error::new)?;
    let profile =
        Profile::new(stored.profile).map_err(|error: PolicyError| Error::new(format!("policies in D1: {error}")))?;
    Ok(Some(StoredKey { profile, carried: stored.carried }))
}
