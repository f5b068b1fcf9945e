//! Policies of single keys.

use crate::admin::overrides::{OVERRIDES_LIMIT, OverrideView};
use crate::admin::parameters::Page;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Change, Database, Statement};
use crate::runtime::store::sql::rfc;
use crate::time::{UnixMicros, rfc3339};

/// An override as the admin API shows it: what is read, and what a change must find unchanged.
macro_rules! override_row {
    () => {
        concat!(
            "json_object('policy', policy, 'unit', unit, 'quota', quota, 'period', period, 'algorithm', algorithm,
             'burst', burst, 'from', ",
            rfc!("from_at"),
            ", 'until', ",
            rfc!("until_at"),
            ")"
        )
    };
}

/// A page of a key's overrides by name.
pub(crate) async fn list_overrides(db: &Database, id: &str, page: &Page) -> Result<String, Error> {
    let select = concat!(
        "SELECT ",
        override_row!(),
        " AS row, policy AS position FROM overrides WHERE key_id = ? AND policy > ?
         ORDER BY policy LIMIT ?"
    );
    let after = page.after.as_deref().unwrap_or_default();
    db.list(page, Statement::new(select, [id.into(), after.into(), page.rows().into()])).await
}

/// One override.
pub(crate) async fn find_override(db: &Database, id: &str, policy: &str) -> Result<Option<String>, Error> {
    let select = concat!("SELECT ", override_row!(), " AS row FROM overrides WHERE key_id = ? AND policy = ?");
    db.text(Statement::new(select, [id.into(), policy.into()])).await
}

/// Puts an override in the place of what is `stored`; `false` if that is no longer so, or if the
/// key is gone or has too many.
pub(crate) async fn put_override(
    db: &Database,
    id: &str,
    stored: Option<&str>,
    row: &OverrideView,
    now: UnixMicros,
    change: Change<'_>,
) -> Result<bool, Error> {
    let upsert =
        "INSERT INTO overrides (key_id, policy, unit, quota, period, algorithm, burst, from_at, until_at, created_at)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                  ON CONFLICT (key_id, policy) DO UPDATE SET unit = excluded.unit, quota = excluded.quota,
                    period = excluded.period, algorithm = excluded.algorithm, burst = excluded.burst,
                    from_at = excluded.from_at, until_at = excluded.until_at";
    let values = [
        id.into(),
        row.policy.as_str().into(),
        row.unit.as_str().into(),
        row.quota.into(),
        row.period.as_str().into(),
        row.algorithm.as_str().into(),
        row.burst.into(),
        row.from.as_deref().into(),
        row.until.as_deref().into(),
        rfc3339(now).into(),
    ];
    let guard = concat!(
        "EXISTS (SELECT 1 FROM keys WHERE id = ?1) AND (SELECT ",
        override_row!(),
        " FROM overrides
           WHERE key_id = ?1 AND policy = ?2) IS ?3
         AND (SELECT COUNT(*) FROM overrides WHERE key_id = ?1 AND policy <> ?2) < ?4"
    );
    let guard_values = [id.into(), row.policy.as_str().into(), stored.into(), OVERRIDES_LIMIT.into()];
    db.change(change, Statement::new(guard, guard_values), vec![Statement::new(upsert, values)]).await
}

/// How many overrides a key has.
pub(crate) async fn count_overrides(db: &Database, id: &str) -> Result<usize, Error> {
    let select = "SELECT policy AS row FROM overrides WHERE key_id = ?";
    Ok(db.texts(Statement::new(select, [id.into()])).await?.len())
}

/// Deletes an override; `false` if it is no longer as `stored`.
pub(crate) async fn delete_override(
    db: &Database,
    id: &str,
    policy: &str,
    stored: &str,
    change: Change<'_>,
) -> Result<bool, Error> {
    let guard = concat!("(SELECT ", override_row!(), " FROM overrides WHERE key_id = ? AND policy = ?) IS ?");
    let guard = Statement::new(guard, [id.into(), policy.into(), stored.into()]);
    let delete = Statement::new("DELETE FROM overrides WHERE key_id = ? AND policy = ?", [id.into(), policy.into()]);
    db.change(change, guard, vec![delete]).await
}
