//! The audit log of a key.

use crate::admin::audit::{LIST, range};
use crate::http::problem::Refusal;
use crate::key_state::audit_log::AuditCursor;
use crate::protocol::object_request::AuditPage;
use crate::runtime::admin::{Command, Outcome, Success, keys};
use crate::runtime::gateway::object_client;

pub(super) async fn read(command: &Command, id: &str) -> Outcome {
    let page = command.parameters.page(LIST)?;
    let cursor = page.after.as_deref().unwrap_or_default();
    if !cursor.is_empty() && cursor.parse::<AuditCursor>().is_err() {
        return Err(Refusal::BadRequest("cursor: is not one that this list has given".to_owned()).into());
    }
    let (from, to) = range(&command.parameters, command.now)?;
    keys::find(command, id).await?;
    let page = AuditPage { from, to, cursor, limit: page.limit };
    Ok(Success::Json(200, object_client::audit(&command.deployment, id, page).await?))
}
