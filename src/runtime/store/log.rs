//! The admin log.

use crate::admin::parameters::Page;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Database, Statement};
use serde_json::Value;

/// A page of the log, newest first. `before` is the id of the last entry of the previous page.
pub(crate) async fn list_log(
    db: &Database,
    target: Option<&str>,
    actor: Option<&str>,
    before: Option<u64>,
    page: &Page,
) -> Result<String, Error> {
    let mut select = String::from(
        "SELECT json_object('id', id, 'at', at, 'actor', actor, 'action', action, 'target', target,
           'before', json(before), 'after', json(after)) AS row, CAST(id AS TEXT) AS position FROM admin_log WHERE 1",
    );
    let mut values: Vec<Value> = Vec::new();
    let conditions: [(&str, Value); 3] =
        [(" AND target = ?", target.into()), (" AND actor = ?", actor.into()), (" AND id < ?", before.into())];
    for (condition, value) in conditions {
        if !value.is_null() {
            select.push_str(condition);
            values.push(value);
        }
    }
    select.push_str(" ORDER BY id DESC LIMIT ?");
    values.push(page.rows().into());
    db.list(page, Statement::new(select, values)).await
}
