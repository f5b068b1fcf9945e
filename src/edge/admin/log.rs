//! The admin log.

use super::{Command, Outcome, json};
use crate::admin::log::LogPage;
use crate::edge::key_store;
use crate::refusal::Refusal;

pub(super) async fn read(command: &Command) -> Outcome {
    let parameters = command.parameters(&["limit", "cursor", "target", "actor"])?;
    let page = parameters.page("log")?;
    let before = page.after.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| Refusal::BadRequest("cursor: is not one that this list has given".to_owned()))?;
    let (target, actor) = (parameters.get("target"), parameters.get("actor"));
    let mut entries = key_store::log(&command.db, target, actor, before, &page).await?;
    let next_cursor = page.cut(&mut entries, |entry| entry.id.to_string());
    json(200, &LogPage { entries, next_cursor })
}
