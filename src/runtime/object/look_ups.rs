//! Answers look-ups of a key, as [`look_up`](crate::object::look_up) decides.

use crate::admin::audit::AuditView;
use crate::key_state::audit_log::reader::AuditQuery;
use crate::object::look_up;
use crate::object::memory::NotLoaded;
use crate::protocol::object_request::AuditPage;
use crate::runtime::error::Error;
use crate::runtime::http::HttpResult;
use crate::runtime::object::flush::flush;
use crate::runtime::object::parts::ObjectParts;
use crate::runtime::object::reply;
use crate::time::UnixMicros;

pub(super) async fn usage(parts: &ObjectParts, id: &str) -> HttpResult {
    let now = parts.reader.prepare(id, None).await?;
    let usage = look_up::usage(&mut parts.context.memory.borrow_mut(), id, now).map_err(Error::new)?;
    reply::json(&usage.ok_or_else(|| Error::new(format!("D1 has no key {id}")))?)
}

pub(super) async fn key_status(parts: &ObjectParts, id: &str, secret_hash: &str, is_found: bool) -> HttpResult {
    let now = parts.reader.prepare(id, is_found.then_some(secret_hash)).await?;
    let status = look_up::key_status(&mut parts.context.memory.borrow_mut(), id, secret_hash, now);
    reply::text(&status.map_err(Error::new)?)
}

pub(super) async fn audit(parts: &ObjectParts, id: &str, page: AuditPage<'_>) -> HttpResult {
    parts.reader.prepare(id, None).await?;
    let memory = parts.context.memory.borrow();
    let key_state = memory.key_state.as_ref().ok_or(NotLoaded).map_err(Error::new)?;
    let query = AuditQuery {
        from: UnixMicros::from_millis(page.from),
        to: UnixMicros::from_millis(page.to),
        cursor: if page.cursor.is_empty() { None } else { Some(page.cursor.parse().map_err(Error::new)?) },
        limit: page.limit,
    };
    let (entries, next) = parts.context.storage.read_audit(key_state, query)?;
    reply::json(&AuditView::new(entries, next))
}

/// Flushes to D1, and returns what D1 should have then.
pub(super) async fn counts(parts: &ObjectParts) -> HttpResult {
    let counts = flush(&parts.context, &parts.writer, look_up::counts).await?;
    reply::json(&counts.ok_or_else(|| Error::new("an object without a name"))?)
}

/// For measurements.
pub(super) fn stats(parts: &ObjectParts) -> HttpResult {
    let d1_reads = parts.context.memory.borrow().freshness.reads();
    reply::json(&serde_json::json!({ "rows_written": parts.writer.rows_written(), "d1_reads": d1_reads }))
}
