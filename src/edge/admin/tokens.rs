//! Named tokens of the admin API.

use super::{Command, Nothing, Outcome, Success, json, keys};
use crate::admin::tokens::{CreateToken, TokenList, TokenView};
use crate::edge::key_store;
use crate::key::{is_key_id, issue_token};
use crate::refusal::Refusal;
use crate::time::rfc3339;

pub(super) async fn list(command: &Command) -> Outcome {
    let page = command.parameters(&["limit", "cursor"])?.page("tokens")?;
    let mut tokens = key_store::tokens(&command.db, &page).await?;
    let next_cursor = page.cut(&mut tokens, |token| token.name.clone());
    json(200, &TokenList { tokens, next_cursor })
}

pub(super) async fn create(command: &Command) -> Outcome {
    command.parameters(&[])?;
    let create: CreateToken = command.body().await?;
    let scopes = create.scopes()?;
    let issued = issue_token(&keys::entropy()?);
    let mut view = TokenView {
        id: issued.id,
        token: None,
        name: create.name.0,
        scopes,
        hint: issued.hint,
        created_at: rfc3339(command.now),
    };
    let log = command.log("create", format!("tokens/{}", view.id), None::<&Nothing>, Some(&view))?;
    if !key_store::create_token(&command.db, &view, &issued.secret_hash, log).await? {
        return Err(Refusal::Conflict("there is a token of this name".to_owned()).into());
    }
    view.token = Some(issued.key);
    json(201, &view)
}

pub(super) async fn delete(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    let missing = || Refusal::NotFound("there is no token with this id".to_owned());
    let token = if is_key_id(id) { key_store::token_by_id(&command.db, id).await? } else { None };
    let log = command.log("delete", format!("tokens/{id}"), Some(&token.ok_or_else(missing)?), None::<&Nothing>)?;
    // A token never changes, so it is as it was read or gone.
    if !key_store::delete_token(&command.db, id, log).await? {
        return Err(missing().into());
    }
    Ok(Success::NoContent)
}
