//! Tiers.

use crate::admin::parameters::Page;
use crate::admin::tiers::Tier;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Change, Database, Statement};
use crate::runtime::store::profile::policy;

/// A tier as JSON, the body of its response. A change compares it with the row that it was computed
/// from.
macro_rules! tier_row {
    () => {
        concat!(
            "json_object('name', name, 'description', description, 'audit_days', audit_days, 'idempotency', idempotency,
               'policies', json((
               SELECT json_group_array(", policy!(), ") FROM (SELECT * FROM tier_limits WHERE tier = name
                 ORDER BY CASE period WHEN 'minute' THEN 0 WHEN 'hour' THEN 1 WHEN 'day' THEN 2 ELSE 3 END, policy))))"
        )
    };
}

/// A page of tiers by name.
pub(crate) async fn list_tiers(db: &Database, page: &Page) -> Result<String, Error> {
    let select =
        concat!("SELECT ", tier_row!(), " AS row, name AS position FROM tiers WHERE name > ? ORDER BY name LIMIT ?");
    let after = page.after.as_deref().unwrap_or_default();
    db.list(page, Statement::new(select, [after.into(), page.rows().into()])).await
}

/// One tier.
pub(crate) async fn find_tier(db: &Database, name: &str) -> Result<Option<String>, Error> {
    let select = concat!("SELECT ", tier_row!(), " AS row FROM tiers WHERE name = ?");
    db.text(Statement::new(select, [name.into()])).await
}

/// Whether a tier exists.
pub(crate) async fn has_tier(db: &Database, name: &str) -> Result<bool, Error> {
    let select = "SELECT name AS row FROM tiers WHERE name = ?";
    Ok(db.text(Statement::new(select, [name.into()])).await?.is_some())
}

/// The number of keys of a tier, whatever their status.
pub(crate) async fn keys_of_tier(db: &Database, name: &str) -> Result<u64, Error> {
    let count =
        db.one(Statement::new("SELECT CAST(COUNT(*) AS TEXT) AS row FROM keys WHERE tier = ?", [name.into()])).await?;
    count.parse().map_err(Error::new)
}

/// Deletes a tier and its policies; `false` if it is no longer `stored`, or if a key has it.
pub(crate) async fn delete_tier(db: &Database, name: &str, stored: &str, change: Change<'_>) -> Result<bool, Error> {
    let guard = concat!(
        "(SELECT ",
        tier_row!(),
        " FROM tiers WHERE name = ?1) IS ?2 AND NOT EXISTS (SELECT 1 FROM keys WHERE tier = ?1)"
    );
    let changes = ["DELETE FROM tier_limits WHERE tier = ?", "DELETE FROM tiers WHERE name = ?"];
    let changes = changes.map(|delete| Statement::new(delete, [name.into()])).into();
    db.change(change, Statement::new(guard, [name.into(), stored.into()]), changes).await
}

/// What the push of a changed tier needs.
pub(crate) struct Pushed {
    pub(crate) version: u64,
    /// The number of keys of the tier.
    pub(crate) keys: u64,
}

/// Creates or replaces a tier; `None` if it is no longer `stored`.
pub(crate) async fn put_tier(
    db: &Database,
    stored: Option<&str>,
    tier: &Tier,
    change: Change<'_>,
) -> Result<Option<Pushed>, Error> {
    let name = tier.name.as_str();
    // The first version is the id of the log entry, which grows with each change: greater than
    // every version of an earlier tier of this name, whose last push may still be in flight.
    let upsert =
        "INSERT INTO tiers (name, description, audit_days, idempotency, version) VALUES (?, ?, ?, ?, (SELECT MAX(id) FROM admin_log))
                  ON CONFLICT (name) DO UPDATE SET description = excluded.description, audit_days = excluded.audit_days,
                    idempotency = excluded.idempotency, version = version + 1";
    let insert = "INSERT INTO tier_limits (tier, policy, unit, quota, period, algorithm, burst)
                  SELECT ?, value ->> 'policy', value ->> 'unit', value ->> 'quota', value ->> 'period', value ->> 'algorithm',
                    value ->> 'burst' FROM json_each(?)";
    // Read in the same transaction: the version must belong to these policies.
    let select =
        "SELECT CAST(version AS TEXT) AS row, CAST((SELECT COUNT(*) FROM keys WHERE tier = ?1) AS TEXT) AS position
                  FROM tiers WHERE name = ?1";
    let policies = serde_json::to_string(&tier.policies).map_err(Error::new)?;
    let changes = vec![
        Statement::new(
            upsert,
            [name.into(), tier.description.as_str().into(), tier.audit_days.into(), tier.idempotency.as_str().into()],
        ),
        Statement::new("DELETE FROM tier_limits WHERE tier = ?", [name.into()]),
        Statement::new(insert, [name.into(), policies.into()]),
        Statement::new(select, [name.into()]),
    ];
    let guard = concat!("(SELECT ", tier_row!(), " FROM tiers WHERE name = ?) IS ?");
    let guard = Statement::new(guard, [name.into(), stored.into()]);
    let Some(rows) = db.change_and_read(change, guard, changes).await? else { return Ok(None) };
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(rows.first().map(|row| Pushed { version: number(Some(&row.row)), keys: number(row.position.as_deref()) }))
}

/// The ids of up to `limit` keys of a tier after `after`.
pub(crate) async fn ids_of_tier(db: &Database, tier: &str, after: &str, limit: usize) -> Result<Vec<String>, Error> {
    let select = "SELECT id AS row FROM keys WHERE tier = ? AND id > ? ORDER BY id LIMIT ?";
    db.texts(Statement::new(select, [tier.into(), after.into(), limit.into()])).await
}
