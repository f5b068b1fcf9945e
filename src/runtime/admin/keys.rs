//! Operations on keys.

use crate::admin::keys::{ChangeKey, CreateKey, KeyRow, KeyView, RotateKey};
use crate::http::problem::Problem;
use crate::keys::key::{self, ENTROPY_BYTES, Signer, is_key_id};
use crate::keys::profile::Status;
use crate::runtime::admin::command::{Command, CommandResult, Failure, Success, TRIES, Work, contended, text};
use crate::runtime::error::Error;
use crate::runtime::gateway::object_client;
use crate::runtime::store;
use crate::runtime::store::keys::KeyFilter;

/// A key's row, as stored text and parsed; 404 if there is none.
pub(super) fn find<'a>(command: &'a Command, id: &'a str) -> Work<'a, Result<(String, KeyRow), Failure>> {
    Box::pin(async move {
        let row = if is_key_id(id) { store::keys::find_key(&command.db, id).await? } else { None };
        row.ok_or_else(|| Problem::NotFound("there is no key with this id".to_owned()).into())
    })
}

pub(super) fn signer(command: &Command) -> Result<&Signer, Problem> {
    let signer = command.isolate.config.signer.as_ref();
    signer.ok_or(Problem::Unavailable("keys cannot be issued: KEY_SECRET is not set"))
}

pub(super) fn entropy() -> Result<[u8; ENTROPY_BYTES], Error> {
    let mut entropy = [0; ENTROPY_BYTES];
    getrandom::fill(&mut entropy).map_err(Error::new)?;
    Ok(entropy)
}

fn no_tier(name: &str) -> Problem {
    Problem::invalid("tier", format!("there is no tier `{name}`"))
}

pub(super) async fn create(command: &Command) -> CommandResult {
    let create: CreateKey = command.body()?;
    let issued = key::issue(signer(command)?, &entropy()?);
    let row = create.into_row(&issued, command.now);
    let mut view = row.clone().view(None, command.now);
    let change = command.log("create", format!("keys/{}", row.id), None, Some(text(&view)?));
    if !store::keys::create_key(&command.db, &row, change).await? {
        return Err(no_tier(&row.tier).into());
    }
    view.key = Some(issued.key);
    show(201, &view)
}

pub(super) async fn list(command: &Command) -> CommandResult {
    let parameters = &command.parameters;
    let page = parameters.page("keys")?;
    let status = parameters.get("status");
    if status.is_some_and(|status| !matches!(status, "active" | "disabled" | "revoked" | "expired")) {
        return Err(Problem::BadRequest("status: must be active, disabled, revoked or expired".to_owned()).into());
    }
    let filter = KeyFilter {
        tier: parameters.get("tier"),
        status,
        owner: parameters.get("owner"),
        name_part: parameters.get("q"),
    };
    let (rows, last) = store::keys::list_keys(&command.db, &filter, &page, command.now).await??;
    let keys = rows.into_iter().map(|row| text(&row.view(None, command.now))).collect::<Result<Vec<_>, _>>()?;
    Ok(Success::Json(200, page.show(&keys, last.as_deref())))
}

fn show(status: u16, view: &KeyView) -> CommandResult {
    Ok(Success::Json(status, text(view)?))
}

pub(super) async fn read(command: &Command, id: &str) -> CommandResult {
    show(200, &find(command, id).await?.1.view(None, command.now))
}

pub(super) async fn usage(command: &Command, id: &str) -> CommandResult {
    // D1 first: a request must not create the object of a key that was never issued.
    find(command, id).await?;
    Ok(Success::Json(200, object_client::usage(&command.isolate, id).await?))
}

pub(super) async fn change(command: &Command, id: &str) -> CommandResult {
    let change: ChangeKey = command.body()?;
    let row = update(command, id, "change", &|row| change.apply(row)).await?;
    show(200, &row.view(None, command.now))
}

pub(super) async fn rotate(command: &Command, id: &str) -> CommandResult {
    let rotate: RotateKey = command.body()?;
    let signer = signer(command)?;
    find(command, id).await?;
    let issued = key::reissue(id, signer, &entropy()?);
    let row = update(command, id, "rotate", &|row| rotate.apply(row, &issued, command.now)).await?;
    show(200, &row.view(Some(issued.key), command.now))
}

pub(super) async fn revoke(command: &Command, id: &str) -> CommandResult {
    let revoke = |row: &mut KeyRow| {
        row.status = Status::Revoked;
        Ok(())
    };
    show(200, &update(command, id, "revoke", &revoke).await?.view(None, command.now))
}

/// Changes a key's row. Retries if another request changes it in between.
fn update<'a>(
    command: &'a Command,
    id: &'a str,
    action: &'static str,
    change: &'a dyn Fn(&mut KeyRow) -> Result<(), Problem>,
) -> Work<'a, Result<KeyRow, Failure>> {
    Box::pin(async move {
        for _ in 0..TRIES {
            let (stored, before) = find(command, id).await?;
            let mut after = before.clone();
            change(&mut after)?;
            if after == before {
                return Ok(after);
            }
            let is_other_tier = after.tier != before.tier;
            let [was, is] = [before, after.clone()].map(|row| text(&row.view(None, command.now)));
            let log = command.log(action, format!("keys/{id}"), Some(was?), Some(is?));
            if store::keys::update_key(&command.db, &stored, &after, log).await? {
                command.refresh(id).await;
                return Ok(after);
            }
            if is_other_tier && !store::tiers::has_tier(&command.db, &after.tier).await? {
                return Err(no_tier(&after.tier).into());
            }
        }
        Err(contended())
    })
}

pub(super) async fn delete(command: &Command, id: &str) -> CommandResult {
    for _ in 0..TRIES {
        let (stored, before) = find(command, id).await?;
        let before = text(&before.view(None, command.now))?;
        let log = command.log("delete", format!("keys/{id}"), Some(before), None);
        if store::keys::delete_key(&command.db, id, &stored, log).await? {
            command.refresh(id).await;
            return Ok(Success::NoContent);
        }
    }
    Err(contended())
}
