//! Keys.

use super::{Command, Failure, Nothing, Outcome, Success, TRIES, contended, json};
use crate::admin::keys::{ChangeKey, CreateKey, KeyList, KeyRow, RotateKey};
use crate::edge::js::Fault;
use crate::edge::key_store::{self, KeyFilter};
use crate::edge::object_client;
use crate::key::{self, ENTROPY_BYTES, Signer, is_key_id};
use crate::profile::Status;
use crate::refusal::Refusal;

pub(super) async fn find(command: &Command, id: &str) -> Result<(String, KeyRow), Failure> {
    let row = if is_key_id(id) { key_store::key(&command.db, id).await? } else { None };
    row.ok_or_else(|| Refusal::NotFound("there is no key with this id".to_owned()).into())
}

fn signer(command: &Command) -> Result<&Signer, Refusal> {
    let signer = command.deployment.config.signer.as_ref();
    signer.ok_or(Refusal::Unavailable("keys cannot be issued: KEY_SECRET is not set"))
}

pub(super) fn entropy() -> Result<[u8; ENTROPY_BYTES], Fault> {
    let mut entropy = [0; ENTROPY_BYTES];
    getrandom::fill(&mut entropy).map_err(Fault::new)?;
    Ok(entropy)
}

fn no_tier(name: &str) -> Refusal {
    Refusal::invalid("tier", format!("there is no tier `{name}`"))
}

pub(super) async fn create(command: &Command) -> Outcome {
    command.parameters(&[])?;
    let create: CreateKey = command.body().await?;
    let issued = key::issue(signer(command)?, &entropy()?);
    let row = create.into_row(&issued, command.now);
    let mut view = row.clone().view(None, command.now);
    let change = command.log("create", format!("keys/{}", row.id), None::<&Nothing>, Some(&view))?;
    if !key_store::create_key(&command.db, &row, change).await? {
        return Err(no_tier(&row.tier).into());
    }
    view.key = Some(issued.key);
    json(201, &view)
}

pub(super) async fn list(command: &Command) -> Outcome {
    let parameters = command.parameters(&["limit", "cursor", "tier", "status", "owner", "q"])?;
    let page = parameters.page("keys")?;
    let status = parameters.get("status");
    if status.is_some_and(|status| !matches!(status, "active" | "disabled" | "revoked" | "expired")) {
        return Err(Refusal::BadRequest("status: must be active, disabled, revoked or expired".to_owned()).into());
    }
    let filter = KeyFilter {
        tier: parameters.get("tier"),
        status,
        owner: parameters.get("owner"),
        name_part: parameters.get("q"),
    };
    let mut rows = key_store::keys(&command.db, &filter, &page, command.now).await??;
    let next_cursor = page.cut(&mut rows, |row| format!("{}\n{}", row.created_at, row.id));
    json(200, &KeyList { keys: rows.into_iter().map(|row| row.view(None, command.now)).collect(), next_cursor })
}

pub(super) async fn read(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    json(200, &find(command, id).await?.1.view(None, command.now))
}

pub(super) async fn usage(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    // An object must not be made for a key that was never issued, so D1 is asked first.
    find(command, id).await?;
    Ok(Success::Json(200, object_client::usage(&command.deployment, id).await?))
}

pub(super) async fn change(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    let change: ChangeKey = command.body().await?;
    let row = update(command, id, "change", |row| change.apply(row)).await?;
    json(200, &row.view(None, command.now))
}

pub(super) async fn rotate(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    let rotate: RotateKey = command.body().await?;
    let signer = signer(command)?;
    find(command, id).await?;
    let issued = key::reissue(id, signer, &entropy()?);
    let row = update(command, id, "rotate", |row| rotate.apply(row, &issued, command.now)).await?;
    json(200, &row.view(Some(issued.key), command.now))
}

pub(super) async fn revoke(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    let revoke = |row: &mut KeyRow| {
        row.status = Status::Revoked;
        Ok(())
    };
    json(200, &update(command, id, "revoke", revoke).await?.view(None, command.now))
}

/// Changes a key's row, whatever else is changing it.
async fn update(
    command: &Command,
    id: &str,
    action: &'static str,
    change: impl Fn(&mut KeyRow) -> Result<(), Refusal>,
) -> Result<KeyRow, Failure> {
    for _ in 0..TRIES {
        let (stored, before) = find(command, id).await?;
        let mut after = before.clone();
        change(&mut after)?;
        if after == before {
            return Ok(after);
        }
        let is_other_tier = after.tier != before.tier;
        let [was, is] = [before, after.clone()].map(|row| row.view(None, command.now));
        let log = command.log(action, format!("keys/{id}"), Some(&was), Some(&is))?;
        if key_store::update_key(&command.db, &stored, &after, log).await? {
            command.refresh(id).await;
            return Ok(after);
        }
        if is_other_tier && !key_store::has_tier(&command.db, &after.tier).await? {
            return Err(no_tier(&after.tier).into());
        }
    }
    Err(contended())
}

pub(super) async fn delete(command: &Command, id: &str) -> Outcome {
    command.parameters(&[])?;
    for _ in 0..TRIES {
        let (stored, before) = find(command, id).await?;
        let log =
            command.log("delete", format!("keys/{id}"), Some(&before.view(None, command.now)), None::<&Nothing>)?;
        if key_store::delete_key(&command.db, id, &stored, log).await? {
            command.refresh(id).await;
            return Ok(Success::NoContent);
        }
    }
    Err(contended())
}
