//! The admin log.

use crate::http::problem::Problem;
use crate::runtime::admin::command::{Command, CommandResult, Success};
use crate::runtime::store;

pub(super) async fn read(command: &Command) -> CommandResult {
    let parameters = &command.parameters;
    let page = parameters.page("entries")?;
    let before = page.after.as_deref().map(str::parse).transpose();
    let before =
        before.map_err(|_| Problem::BadRequest("cursor: must be the next_cursor of a page of this list".to_owned()))?;
    let (target, actor) = (parameters.get("target"), parameters.get("actor"));
    Ok(Success::Json(200, store::log::list_log(&command.db, target, actor, before, &page).await?))
}
