//! Policies of single keys.

use super::{Command, Nothing, Outcome, Success, TRIES, contended, json, keys};
use crate::admin::overrides::{OVERRIDES_LIMIT, OverrideList, OverrideView, PutOverride};
use crate::edge::key_store;
use crate::refusal::Refusal;

pub(super) async fn list(command: &Command, id: &str) -> Outcome {
    let page = command.parameters(&["limit", "cursor"])?.page("overrides")?;
    keys::find(command, id).await?;
    let mut rows = key_store::overrides(&command.db, id, &page).await?;
    let next_cursor = page.cut(&mut rows, |row| row.policy.policy.clone());
    json(200, &OverrideList { overrides: rows.into_iter().map(OverrideView::from).collect(), next_cursor })
}

pub(super) async fn put(command: &Command, id: &str, policy: &str) -> Outcome {
    command.parameters(&[])?;
    let row = command.body::<PutOverride>().await?.into_row(policy)?;
    let view = OverrideView::from(row.clone());
    for _ in 0..TRIES {
        keys::find(command, id).await?;
        let found = key_store::policy_override(&command.db, id, policy).await?;
        let (stored, before) = found.map(|(stored, before)| (stored, OverrideView::from(before))).unzip();
        let log = command.log("put", format!("keys/{id}/overrides/{policy}"), before.as_ref(), Some(&view))?;
        if key_store::put_override(&command.db, id, stored.as_deref(), &row, command.now, log).await? {
            command.refresh(id).await;
            return json(if stored.is_some() { 200 } else { 201 }, &view);
        }
        if stored.is_none() && key_store::count_overrides(&command.db, id).await? >= OVERRIDES_LIMIT {
            return Err(Refusal::Conflict(format!("a key has at most {OVERRIDES_LIMIT} overrides")).into());
        }
    }
    Err(contended())
}

pub(super) async fn delete(command: &Command, id: &str, policy: &str) -> Outcome {
    command.parameters(&[])?;
    for _ in 0..TRIES {
        keys::find(command, id).await?;
        let Some((stored, before)) = key_store::policy_override(&command.db, id, policy).await? else {
            return Err(Refusal::NotFound("the key has no override of this name".to_owned()).into());
        };
        let before = OverrideView::from(before);
        let target = format!("keys/{id}/overrides/{policy}");
        let log = command.log("delete", target, Some(&before), None::<&Nothing>)?;
        if key_store::delete_override(&command.db, id, policy, &stored, log).await? {
            command.refresh(id).await;
            return Ok(Success::NoContent);
        }
    }
    Err(contended())
}
