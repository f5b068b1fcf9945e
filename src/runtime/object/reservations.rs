//! Answers requests about reservations, as [`reservations`](crate::object::reservations) decides.

use crate::object::reservations;
use crate::protocol::hold_request::HoldRequest;
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::http::HttpResult;
use crate::runtime::object::parts::ObjectParts;
use crate::runtime::object::reply;

/// Carries out a request. The response waits until what it changed is written; `is_concurrent` if
/// the isolate has other requests to the object in flight.
pub(super) async fn answer(parts: &ObjectParts, id: &str, request: &HoldRequest, is_concurrent: bool) -> HttpResult {
    let mut now = clock::now();
    if !parts.reader.is_ready(id, None, now) {
        now = parts.reader.prepare(id, None).await?;
    }
    let answer = {
        let mut memory = parts.context.memory.borrow_mut();
        reservations::answer(&mut memory, parts.context.settings(), request, now).map_err(Error::new)?
    };
    if answer.needs_write {
        parts.writer.commit_beside(now, is_concurrent).await?;
    } else {
        parts.writer.write_later(now);
    }
    reply::text(&answer.text)
}
