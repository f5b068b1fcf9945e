//! Operations on overrides.

use crate::admin::overrides::{OVERRIDES_LIMIT, PutOverride};
use crate::http::problem::Problem;
use crate::runtime::admin::command::{Command, CommandResult, Success, TRIES, contended, text};
use crate::runtime::admin::keys;
use crate::runtime::store;

pub(super) async fn list(command: &Command, id: &str) -> CommandResult {
    let page = command.parameters.page("overrides")?;
    keys::find(command, id).await?;
    Ok(Success::Json(200, store::overrides::list_overrides(&command.db, id, &page).await?))
}

pub(super) async fn put(command: &Command, id: &str, policy: &str) -> CommandResult {
    let new = command.body::<PutOverride>()?.named(policy)?;
    let view = text(&new)?;
    for _ in 0..TRIES {
        keys::find(command, id).await?;
        let stored = store::overrides::find_override(&command.db, id, policy).await?;
        let target = format!("keys/{id}/overrides/{policy}");
        let log = command.log("put", target, stored.clone(), Some(view.clone()));
        if store::overrides::put_override(&command.db, id, stored.as_deref(), &new, command.now, log).await? {
            command.refresh(id).await;
            return Ok(Success::Json(if stored.is_some() { 200 } else { 201 }, view));
        }
        if stored.is_none() && store::overrides::count_overrides(&command.db, id).await? >= OVERRIDES_LIMIT {
            return Err(
                Problem::Conflict(format!("a key has at most {OVERRIDES_LIMIT} overrides: delete one first")).into()
            );
        }
    }
    Err(contended())
}

pub(super) async fn delete(command: &Command, id: &str, policy: &str) -> CommandResult {
    for _ in 0..TRIES {
        keys::find(command, id).await?;
        let Some(stored) = store::overrides::find_override(&command.db, id, policy).await? else {
            return Err(Problem::NotFound("the key has no override with this name".to_owned()).into());
        };
        let target = format!("keys/{id}/overrides/{policy}");
        let log = command.log("delete", target, Some(stored.clone()), None);
        if store::overrides::delete_override(&command.db, id, policy, &stored, log).await? {
            command.refresh(id).await;
            return Ok(Success::NoContent);
        }
    }
    Err(contended())
}
