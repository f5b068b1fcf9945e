//! Keys.

use crate::admin::body::read_row;
use crate::admin::keys::KeyRow;
use crate::admin::parameters::Page;
use crate::http::problem::Problem;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Change, Database, Statement, time};
use crate::runtime::store::sql::millis;
use crate::time::UnixMicros;
use serde_json::Value;

/// A key's row as JSON: what is read, and what a change must find unchanged.
macro_rules! key_row {
    () => {
        concat!(
            "json_object('id', id, 'tier', tier, 'name', name, 'owner', owner, 'status', status, 'hint', hint,
             'metadata', json(metadata), 'created_at', created_at, 'expires_at', ",
            millis!("expires_at"),
            ",
             'secret_hash', secret_hash, 'previous_hash', previous_hash, 'previous_until', ",
            millis!("previous_until"),
            ")"
        )
    };
}
pub(super) use key_row;

pub(super) fn read(row: &str) -> Result<KeyRow, Error> {
    read_row(row).map_err(|refusal| Error::new(format!("a row of keys: {}", refusal.body())))
}

/// The row of a key, as text and as it is read.
pub(crate) async fn find_key(db: &Database, id: &str) -> Result<Option<(String, KeyRow)>, Error> {
    let select = concat!("SELECT ", key_row!(), " AS row FROM keys WHERE id = ?");
    let Some(stored) = db.text(Statement::new(select, [id.into()])).await? else { return Ok(None) };
    let row = read(&stored)?;
    Ok(Some((stored, row)))
}

/// Which keys to list.
#[derive(Default)]
pub(crate) struct KeyFilter<'a> {
    pub(crate) tier: Option<&'a str>,
    pub(crate) status: Option<&'a str>,
    pub(crate) owner: Option<&'a str>,
    pub(crate) name_part: Option<&'a str>,
}

/// A page of keys in the order of issue and, if there are more, the position of the last.
pub(crate) async fn list_keys(
    db: &Database,
    filter: &KeyFilter<'_>,
    page: &Page,
    now: UnixMicros,
) -> Result<Result<(Vec<KeyRow>, Option<String>), Problem>, Error> {
    let mut select = String::from(concat!(
        "SELECT ",
        key_row!(),
        " AS row, created_at || char(10) || id AS position FROM keys WHERE 1"
    ));
    let mut values: Vec<Value> = Vec::new();
    let mut add = |condition: &str, new: &[Value]| {
        select.push_str(" AND ");
        select.push_str(condition);
        values.extend_from_slice(new);
    };
    if let Some(tier) = filter.tier {
        add("tier = ?", &[tier.into()]);
    }
    if let Some(status) = filter.status {
        let condition = concat!(
            "CASE WHEN status = 'active' AND ",
            millis!("expires_at"),
            " <= ? THEN 'expired' ELSE status END = ?"
        );
        add(condition, &[now.as_millis().into(), status.into()]);
    }
    if let Some(owner) = filter.owner {
        add("owner = ?", &[owner.into()]);
    }
    if let Some(part) = filter.name_part {
        // Not LIKE: no character is special.
        add("instr(lower(name), lower(?)) > 0", &[part.into()]);
    }
    if let Some(after) = &page.after {
        let Some((created_at, id)) = after.split_once('\n') else {
            return Ok(Err(Problem::BadRequest("cursor: is not one that this list has given".to_owned())));
        };
        add("(created_at, id) > (?, ?)", &[created_at.into(), id.into()]);
    }
    select.push_str(" ORDER BY created_at, id LIMIT ?");
    values.push(page.rows().into());
    let (rows, last) = db.page(page, Statement::new(select, values)).await?;
    let rows = rows.iter().map(|row| read(row)).collect::<Result<_, _>>()?;
    Ok(Ok((rows, last)))
}

/// Adds a key; `false` if there is no such tier.
pub(crate) async fn create_key(db: &Database, row: &KeyRow, change: Change<'_>) -> Result<bool, Error> {
    let insert = "INSERT INTO keys (tier, name, owner, status, metadata, expires_at, hint, secret_hash, created_at, id)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = [
        row.tier.as_str().into(),
        row.name.as_str().into(),
        row.owner.as_str().into(),
        row.status.as_str().into(),
        row.metadata.to_text().into(),
        time(row.expires_at),
        row.hint.as_str().into(),
        row.secret_hash.as_str().into(),
        row.created_at.as_str().into(),
        row.id.as_str().into(),
    ];
    let guard = Statement::new("EXISTS (SELECT 1 FROM tiers WHERE name = ?)", [row.tier.as_str().into()]);
    db.change(change, guard, vec![Statement::new(insert, values)]).await
}

/// Replaces a key's row; `false` if it is no longer `stored`, or if there is no such tier.
pub(crate) async fn update_key(db: &Database, stored: &str, row: &KeyRow, change: Change<'_>) -> Result<bool, Error> {
    let update = "UPDATE keys SET tier = ?, name = ?, owner = ?, status = ?, metadata = ?, expires_at = ?, hint = ?,
                  secret_hash = ?, previous_hash = ?, previous_until = ? WHERE id = ?";
    let values = [
        row.tier.as_str().into(),
        row.name.as_str().into(),
        row.owner.as_str().into(),
        row.status.as_str().into(),
        row.metadata.to_text().into(),
        time(row.expires_at),
        row.hint.as_str().into(),
        row.secret_hash.as_str().into(),
        row.previous_hash.as_deref().into(),
        time(row.previous_until),
        row.id.as_str().into(),
    ];
    let guard = concat!(
        "(SELECT ",
        key_row!(),
        " FROM keys WHERE id = ?) IS ? AND EXISTS (SELECT 1 FROM tiers WHERE name = ?)"
    );
    let guard = Statement::new(guard, [row.id.as_str().into(), stored.into(), row.tier.as_str().into()]);
    db.change(change, guard, vec![Statement::new(update, values)]).await
}

/// Deletes a key and its overrides; `false` if its row is no longer `stored`.
pub(crate) async fn delete_key(db: &Database, id: &str, stored: &str, change: Change<'_>) -> Result<bool, Error> {
    let guard = concat!("(SELECT ", key_row!(), " FROM keys WHERE id = ?) IS ?");
    let delete = |sql| Statement::new(sql, [id.into()]);
    let changes = vec![delete("DELETE FROM overrides WHERE key_id = ?"), delete("DELETE FROM keys WHERE id = ?")];
    db.change(change, Statement::new(guard, [id.into(), stored.into()]), changes).await
}
