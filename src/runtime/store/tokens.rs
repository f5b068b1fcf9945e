//! Named admin tokens.

use crate::admin::parameters::Page;
use crate::admin::tokens::TokenView;
use crate::router::Scope;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Change, Database, Statement};

/// What a request's token is checked against.
pub(crate) struct StoredToken {
    pub(crate) name: String,
    /// The highest scope.
    pub(crate) scope: Scope,
    pub(crate) secret_hash: String,
}

/// A token as JSON, the body of its response.
macro_rules! token_row {
    () => {
        "json_object('id', id, 'name', name, 'scopes', json(scopes), 'hint', hint, 'created_at', created_at)"
    };
}

/// The stored token of this id.
pub(crate) async fn stored_token(db: &Database, id: &str) -> Result<Option<StoredToken>, Error> {
    let select = "SELECT name AS row, secret_hash || scopes AS position FROM admin_tokens WHERE id = ?";
    let token = db.run(&[Statement::new(select, [id.into()])]).await?.into_iter().next();
    Ok(token.and_then(|token| {
        let judged_by = token.position?;
        let (secret_hash, scopes) = judged_by.split_once('[')?;
        // The schema allows only three values.
        let scope = if scopes.contains("write") { Scope::Write } else { Scope::Read };
        Some(StoredToken { name: token.row, scope, secret_hash: secret_hash.to_owned() })
    }))
}

/// The hashes of the latest tokens, newest first.
pub(crate) async fn token_hashes(db: &Database, limit: usize) -> Result<Vec<String>, Error> {
    let select = "SELECT secret_hash AS row FROM admin_tokens ORDER BY created_at DESC LIMIT ?";
    db.texts(Statement::new(select, [limit.into()])).await
}

/// One token.
pub(crate) async fn find_token(db: &Database, id: &str) -> Result<Option<String>, Error> {
    let select = concat!("SELECT ", token_row!(), " AS row FROM admin_tokens WHERE id = ?");
    db.text(Statement::new(select, [id.into()])).await
}

/// A page of tokens by name.
pub(crate) async fn list_tokens(db: &Database, page: &Page) -> Result<String, Error> {
    let select = concat!(
        "SELECT ",
        token_row!(),
        " AS row, name AS position FROM admin_tokens WHERE name > ? ORDER BY name LIMIT ?"
    );
    let after = page.after.as_deref().unwrap_or_default();
    db.list(page, Statement::new(select, [after.into(), page.rows().into()])).await
}

/// Inserts a token; `false` if another token has its name.
pub(crate) async fn create_token(
    db: &Database,
    token: &TokenView,
    secret_hash: &str,
    change: Change<'_>,
) -> Result<bool, Error> {
    let insert = "INSERT INTO admin_tokens (id, name, scopes, secret_hash, hint, created_at) VALUES (?, ?, ?, ?, ?, ?)";
    let scopes = serde_json::to_string(&token.scopes).map_err(Error::new)?;
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

/// Deletes a token; `false` if none has this id.
pub(crate) async fn delete_token(db: &Database, id: &str, change: Change<'_>) -> Result<bool, Error> {
    let guard = Statement::new("EXISTS (SELECT 1 FROM admin_tokens WHERE id = ?)", [id.into()]);
    db.change(change, guard, vec![Statement::new("DELETE FROM admin_tokens WHERE id = ?", [id.into()])]).await
}
