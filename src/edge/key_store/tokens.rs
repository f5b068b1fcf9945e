//! Tokens of the admin API.

use super::{Change, Database, Statement};
use crate::admin::Page;
use crate::admin::tokens::{Scope, TokenView};
use crate::edge::js::Fault;
use serde::Deserialize;

/// What a presented token is judged by.
#[derive(Deserialize)]
pub(crate) struct StoredToken {
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) secret_hash: String,
}

/// A token as JSON.
macro_rules! token_row {
    () => {
        "json_object('id', id, 'name', name, 'scopes', json(scopes), 'hint', hint, 'created_at', created_at)"
    };
}

/// The token of this id.
pub(crate) async fn token(db: &Database, id: &str) -> Result<Option<StoredToken>, Fault> {
    let select = "SELECT json_object('name', name, 'scopes', json(scopes), 'secret_hash', secret_hash) AS row
                  FROM admin_tokens WHERE id = ?";
    Ok(db.rows(Statement::new(select, [id.into()])).await?.pop())
}

/// The same, as the admin API shows it.
pub(crate) async fn token_by_id(db: &Database, id: &str) -> Result<Option<TokenView>, Fault> {
    let select = concat!("SELECT ", token_row!(), " AS row FROM admin_tokens WHERE id = ?");
    Ok(db.rows(Statement::new(select, [id.into()])).await?.pop())
}

/// A page of tokens by name, and one more if there is one.
pub(crate) async fn tokens(db: &Database, page: &Page) -> Result<Vec<TokenView>, Fault> {
    let select = concat!("SELECT ", token_row!(), " AS row FROM admin_tokens WHERE name > ? ORDER BY name LIMIT ?");
    let after = page.after.as_deref().unwrap_or_default();
    db.rows(Statement::new(select, [after.into(), page.rows().into()])).await
}

/// Adds a token; `false` if there is one of this name.
pub(crate) async fn create_token(
    db: &Database,
    token: &TokenView,
    secret_hash: &str,
    change: Change<'_>,
) -> Result<bool, Fault> {
    let insert = "INSERT INTO admin_tokens (id, name, scopes, secret_hash, hint, created_at) VALUES (?, ?, ?, ?, ?, ?)";
    let scopes = serde_json::to_string(&token.scopes).map_err(Fault::new)?;
    let values = [
        token.id.as_str().into(),
        token.name.as_str().into(),
        scopes.into(),
        secret_hash.into(),
        token.hint.as_str().into(),
        token.created_at.as_str().into(),
    ];
    let guard = "NOT EXISTS (SELECT 1 FROM admin_tokens WHERE name = ?)";
    let guard = Statement::new(guard, [token.name.as_str().into()]);
    db.change(change, guard, vec![Statement::new(insert, values)]).await
}

/// Deletes a token; `false` if there is none of this id.
pub(crate) async fn delete_token(db: &Database, id: &str, change: Change<'_>) -> Result<bool, Fault> {
    let guard = Statement::new("EXISTS (SELECT 1 FROM admin_tokens WHERE id = ?)", [id.into()]);
    db.change(change, guard, vec![Statement::new("DELETE FROM admin_tokens WHERE id = ?", [id.into()])]).await
}
