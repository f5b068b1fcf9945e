//! Answers requests about calls: judged by [`judge`](crate::object::judge), and answered when what
//! was counted is written.

use crate::object::judge::{judge, record_outcomes, record_report, renew_hold};
use crate::protocol::object_request::{CallOutcomes, Check, ObjectRequest, PendingReport};
use crate::protocol::object_response::ObjectResponse;
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::runtime::object::parts::ObjectParts;
use crate::runtime::object::writer::Write;
use crate::time::UnixMicros;
use wasm_bindgen::JsValue;

/// The hash of the call's secret if its isolate has just found it in D1.
pub(super) fn found<'a>(check: &Check<'a>) -> Option<&'a str> {
    check.is_found.then_some(check.call.secret_hash)
}

/// Judges a call. Returns the line of the response, or its promise if it waits for a batch.
pub(super) fn answer(parts: &ObjectParts, check: &Check<'_>, now: UnixMicros) -> JsValue {
    let id = check.call.id;
    let judged = judge(&mut parts.context.memory.borrow_mut(), parts.context.settings(), check, now);
    let judged = match judged {
        Ok(judged) => judged,
        Err(error) => return failed(id, &Error::new(error)),
    };
    if let (true, Some(report)) = (judged.is_report_late, check.report) {
        log_late(report);
    }
    let line = judged.response.to_line();
    if !judged.needs_write {
        parts.writer.write_later(now);
        return line.into();
    }
    match parts.writer.write_or_join(now, check.is_concurrent) {
        Write::Done(Ok(())) => line.into(),
        Write::Done(Err(error)) => failed(id, &error),
        Write::Shared(batch) => js::writer::answer_with(&batch, &line).into(),
    }
}

/// Answers a request that may have to wait for D1 or storage first.
pub(super) async fn answer_later(parts: &ObjectParts, request: &str) -> JsValue {
    let (id, recorded) = match ObjectRequest::parse(request) {
        Some(ObjectRequest::Check(check)) => {
            return match parts.reader.prepare(check.call.id, found(&check)).await {
                Ok(now) => answer(parts, &check, now),
                Err(error) => failed(check.call.id, &error),
            };
        }
        Some(ObjectRequest::Report { id, report }) => (id, record(parts, id, report).await),
        Some(ObjectRequest::CallOutcomes { id, is_awaited, outcomes }) => {
            (id, complete(parts, id, is_awaited, outcomes).await)
        }
        Some(ObjectRequest::RenewHold { id, nonce }) => (id, renew(parts, id, nonce).await),
        _ => ("", Err(Error::new("not a request about calls"))),
    };
    recorded.map_or_else(|error| failed(id, &error), |()| ObjectResponse::Recorded.to_line().into())
}

async fn record(parts: &ObjectParts, id: &str, report: PendingReport<'_>) -> Result<(), Error> {
    let now = parts.reader.prepare(id, None).await?;
    let recorded = {
        let mut memory = parts.context.memory.borrow_mut();
        record_report(&mut memory, parts.context.settings(), report, now).map_err(Error::new)?
    };
    if recorded.is_late {
        log_late(report);
    }
    if recorded.needs_write {
        return parts.writer.commit(now).await;
    }
    parts.writer.write_later(now);
    Ok(())
}

/// The end of a call waits until it is written if others may repeat it, or if it closes a hold.
async fn complete(parts: &ObjectParts, id: &str, is_awaited: bool, outcomes: CallOutcomes<'_>) -> Result<(), Error> {
    let now = parts.reader.prepare(id, None).await?;
    let is_recorded = {
        let mut memory = parts.context.memory.borrow_mut();
        record_outcomes(&mut memory, parts.context.settings(), outcomes, now).map_err(Error::new)?
    };
    let must_wait = is_awaited || outcomes.close_holds();
    if is_recorded && must_wait { parts.writer.commit(now).await } else { Ok(()) }
}

/// A hold that is not open any more has expired: its call is charged when it ends, all the same.
async fn renew(parts: &ObjectParts, id: &str, nonce: u64) -> Result<(), Error> {
    let now = parts.reader.prepare(id, None).await?;
    let is_open = renew_hold(&mut parts.context.memory.borrow_mut(), nonce, now).map_err(Error::new)?;
    if is_open { parts.writer.commit(now).await } else { Ok(()) }
}

/// Nothing was counted: the cause is logged here alone.
fn failed(id: &str, error: &Error) -> JsValue {
    worker::console_error!("tollgate: key {id} could not be judged: {error}");
    ObjectResponse::Failed.to_line().into()
}

fn log_late(report: PendingReport<'_>) {
    let PendingReport { uncounted, denied, .. } = report;
    worker::console_error!(
        "tollgate: {uncounted} calls let through and {denied} denials may have been counted long ago; they are not counted again"
    );
}
