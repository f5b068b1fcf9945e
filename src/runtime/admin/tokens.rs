//! Operations on named admin tokens.

use crate::admin::tokens::{CreateToken, TokenView};
use crate::http::problem::Problem;
use crate::keys::key::{is_key_id, issue_token};
use crate::runtime::admin::command::{Command, CommandResult, Success, text};
use crate::runtime::admin::keys;
use crate::runtime::store;
use crate::time::rfc3339;

pub(super) async fn list(command: &Command) -> CommandResult {
    let page = command.parameters.page("tokens")?;
    Ok(Success::Json(200, store::tokens::list_tokens(&command.db, &page).await?))
}

pub(super) async fn create(command: &Command) -> CommandResult {
    let create: CreateToken = command.body()?;
    let issued = issue_token(&keys::entropy()?);
    let mut view = TokenView {
        id: issued.id,
        token: None,
        name: create.name,
        scopes: create.scopes,
        hint: issued.hint,
        created_at: rfc3339(command.now),
    };
    let log = command.log("create", format!("tokens/{}", view.id), None, Some(text(&view)?));
    if !store::tokens::create_token(&command.db, &view, &issued.secret_hash, log).await? {
        return Err(Problem::Conflict("another token has this name".to_owned()).into());
    }
    crate::runtime::admin::authorize::TOKENS.with_borrow_mut(|tokens| tokens.add(&issued.secret_hash));
    view.token = Some(issued.key);
    Ok(Success::Json(201, text(&view)?))
}

pub(super) async fn delete(command: &Command, id: &str) -> CommandResult {
    let missing = || Problem::NotFound("there is no token with this id".to_owned());
    let token = if is_key_id(id) { store::tokens::find_token(&command.db, id).await? } else { None };
    let log = command.log("delete", format!("tokens/{id}"), Some(token.ok_or_else(missing)?), None);
    // Tokens never change: the row is as it was read, or deleted.
    if !store::tokens::delete_token(&command.db, id, log).await? {
        return Err(missing().into());
    }
    Ok(Success::NoContent)
}
