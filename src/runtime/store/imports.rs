//! Keys that were issued elsewhere.

use crate::admin::keys::KeyRow;
use crate::keys::key::ImportedKey;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Database, Statement};
use crate::runtime::store::keys::{key_row, read};
use crate::runtime::store::sql::millis;
use crate::time::{UnixMicros, rfc3339};
use serde_json::Value;
use std::collections::HashSet;
use std::rc::Rc;

/// The result of a look-up of imported keys.
pub(crate) enum FoundKeys {
    /// Ids of imported keys whose hash matches.
    Ids(HashSet<String>),
    /// No key was ever imported.
    NoneAtAll,
}

/// Looks up presented texts among the imported keys, in one query.
pub(crate) async fn find_imported(db: &Database, texts: &[Rc<[ImportedKey]>]) -> Result<FoundKeys, Error> {
    // CROSS JOIN keeps the order, so that each id is looked up in the index.
    let select =
        "SELECT CASE WHEN ids = '[]' AND NOT EXISTS (SELECT 1 FROM keys WHERE imported = 1) THEN '' ELSE ids END AS row
        FROM (SELECT json_group_array(k.id) AS ids FROM json_each(?) AS c CROSS JOIN keys AS k ON k.id = c.value ->> 0
          WHERE k.imported = 1 AND c.value ->> 1 IN (k.secret_hash, k.previous_hash))";
    let keys = texts.iter().flat_map(|keys| keys.iter());
    let pairs: Vec<Value> = keys.map(|key| [key.id.as_str(), key.secret_hash.as_str()].as_slice().into()).collect();
    let row = db.one(Statement::new(select, [Value::Array(pairs).to_string().into()])).await?;
    if row.is_empty() {
        return Ok(FoundKeys::NoneAtAll);
    }
    serde_json::from_str(&row).map(FoundKeys::Ids).map_err(Error::new)
}

/// The rows to insert: their tier exists, and the key is not stored under any secret.
macro_rules! new_rows {
    () => {
        " FROM json_each(?1) AS r WHERE EXISTS (SELECT 1 FROM tiers WHERE name = r.value ->> '$.key.tier')
          AND NOT EXISTS (SELECT 1 FROM keys WHERE id IN (SELECT i.value FROM json_each(r.value, '$.ids') AS i))"
    };
}

/// Inserts the keys that are not stored yet and logs each, in one transaction. `rows` is a JSON
/// list of `{key, hash, ids}`, as [`crate::admin::imports`] makes it. Returns the rows of `ids`
/// (JSON) afterwards, in the order of ids.
pub(crate) async fn import_keys(
    db: &Database,
    rows: &str,
    ids: &str,
    actor: &str,
    now: UnixMicros,
) -> Result<Vec<KeyRow>, Error> {
    let log = concat!(
        "INSERT INTO admin_log (at, actor, action, target, after)
         SELECT ?2, ?3, 'import', 'keys/' || (r.value ->> '$.key.id'), r.value -> '$.key'",
        new_rows!()
    );
    let insert = concat!(
        "INSERT INTO keys (imported, status, id, tier, name, owner, hint, metadata, created_at, expires_at, secret_hash)
         SELECT 1, 'active', r.value ->> '$.key.id', r.value ->> '$.key.tier', r.value ->> '$.key.name',
           r.value ->> '$.key.owner', r.value ->> '$.key.hint', r.value -> '$.key.metadata', r.value ->> '$.key.created_at',
           r.value ->> '$.key.expires_at', r.value ->> '$.hash'",
        new_rows!()
    );
    let select = concat!(
        "SELECT ",
        key_row!(),
        " AS row FROM keys WHERE imported = 1 AND id IN (SELECT value FROM json_each(?)) ORDER BY id"
    );
    let statements = [
        Statement::new(log, [rows.into(), rfc3339(now).into(), actor.into()]),
        Statement::new(insert, [rows.into()]),
        Statement::new(select, [ids.into()]),
    ];
    db.run(&statements).await?.iter().map(|row| read(&row.row)).collect()
}
