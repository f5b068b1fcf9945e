//! The audit log of a key.

use crate::admin::audit::{LIST, range};
use crate::http::problem::Problem;
use crate::key_state::audit_log::reader::AuditCursor;
use crate::protocol::object_request::AuditPage;
use crate::runtime::admin::command::{Command, CommandResult, Success};
use crate::runtime::admin::keys;
use crate::runtime::gateway::object_client;

pub(super) async fn read(command: &Command, id: &str) -> CommandResult {
    let page = command.parameters.page(LIST)?;
    let cursor = page.after.as_deref().unwrap_or_default();
    if !cursor.is_empty() && cursor.parse::<AuditCursor>().is_err() {
        return Err(Problem::BadRequest("cursor: must be the next_cursor of a page of this list".to_owned()).into());
    }
    let (from, to) = range(&command.parameters, command.now)?;
    keys::find(command, id).await?;
    let page = AuditPage { from, to, cursor, limit: page.limit };
    Ok(Success::Json(200, object_client::audit(&command.isolate, id, page).await?))
}
