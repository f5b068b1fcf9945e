//! Requests to the objects of keys, and their results.

use crate::gateway::outage::Outage;
use crate::gateway::outbox::queue::Receipt;
use crate::keys::profile::TierChange;
use crate::protocol::fan_out::{FanOut, FanOutResult};
use crate::protocol::hold_request::HoldRequest;
use crate::protocol::object_request::{AuditPage, ObjectRequest};
use crate::protocol::object_response::ObjectResponse;
use crate::runtime::error::Error;
use crate::runtime::gateway::authenticate::{Caller, Evidence};
use crate::runtime::gateway::in_flight::InFlight;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use js_sys::Promise;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// The result of a request.
pub(crate) enum Reply {
    Response(ObjectResponse),
    /// The connection broke, before or after the request arrived.
    Lost(Error),
    /// The object or the account is overloaded.
    Overloaded(Error),
    /// Any other failure. A retry does not help.
    Failed(Error),
}

impl Reply {
    /// The delivery state of the reports that the request carried.
    pub(crate) const fn receipt(&self) -> Receipt {
        match self {
            Self::Response(ObjectResponse::Failed) => Receipt::NotRecorded,
            Self::Response(_) => Receipt::Recorded,
            Self::Lost(_) | Self::Overloaded(_) | Self::Failed(_) => Receipt::Unknown,
        }
    }
}

/// Parses an object's response.
pub(crate) fn read(line: &str, id: &str) -> Reply {
    match ObjectResponse::parse(line) {
        Some(response) => Reply::Response(response),
        None => Reply::Failed(Error::new(format!("the object of key {id} answered `{line}`"))),
    }
}

/// Classifies a failure.
pub(crate) fn no_answer(is_retryable: bool, is_overloaded: bool, message: &str, id: &str) -> Reply {
    let error = Error::new(format!("the object of key {id} did not answer: {message}"));
    match Outage::read(is_retryable, is_overloaded, message) {
        Outage::Lost => Reply::Lost(error),
        Outage::Overloaded => Reply::Overloaded(error),
        Outage::Failed => Reply::Failed(error),
    }
}

/// Reads a key's usage, as JSON.
pub(crate) async fn usage(isolate: &Isolate, id: &str) -> Result<String, Error> {
    let url = ObjectRequest::Usage { id }.to_url();
    text(js::object::ask_text(&isolate.objects, id, &url, None)).await
}

/// Reads a page of a key's audit log, as JSON.
pub(crate) async fn audit(isolate: &Isolate, id: &str, page: AuditPage<'_>) -> Result<String, Error> {
    let url = ObjectRequest::Audit { id, page }.to_url();
    text(js::object::ask_text(&isolate.objects, id, &url, None)).await
}

/// Makes a key's object flush to D1, and returns the totals that D1 must have, as JSON.
pub(crate) async fn reconcile(isolate: &Isolate, id: &str) -> Result<String, Error> {
    let url = ObjectRequest::Reconcile { id }.to_url();
    text(js::object::ask_text(&isolate.objects, id, &url, None)).await
}

/// Reads the status of a key for the owner of this secret: a
/// [`KeyStatus`](crate::protocol::key_status::KeyStatus).
pub(crate) async fn key_status(isolate: &Isolate, caller: &Caller) -> Result<String, Error> {
    let Caller { id, secret_hash, evidence } = caller;
    let url = ObjectRequest::KeyStatus { id, secret_hash, is_found: *evidence == Evidence::Found }.to_url();
    text(js::object::ask_text(&isolate.objects, id, &url, None)).await
}

/// Sends a request about reservations. One that is lost is repeated once: the object carries it out
/// once.
pub(crate) async fn hold(isolate: &Isolate, id: &str, request: HoldRequest) -> Result<String, (Outage, Error)> {
    let in_flight = InFlight::join(id);
    let url = ObjectRequest::Hold { id, request, is_concurrent: in_flight.has_others }.to_url();
    let ask = || JsFuture::from(js::object::ask_text(&isolate.objects, id, &url, None));
    let mut answer = ask().await;
    if answer.as_ref().is_err_and(|error| outage(error) == Outage::Lost) {
        answer = ask().await;
    }
    let text = answer.map_err(|error| (outage(&error), Error::from(error)))?;
    text.as_string().ok_or_else(|| (Outage::Failed, Error::new("an answer that is no text")))
}

/// Classifies an exception of the platform.
fn outage(error: &JsValue) -> Outage {
    let has = |name: &str| js_sys::Reflect::get(error, &name.into()).is_ok_and(|value| value == JsValue::TRUE);
    let message = js_sys::Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
    Outage::read(has("retryable"), has("overloaded"), &message.unwrap_or_default())
}

/// Notifies a key's object that the key has changed in D1.
pub(crate) async fn refresh(isolate: &Isolate, id: &str) -> Result<(), Error> {
    let url = ObjectRequest::Refresh { id }.to_url();
    text(js::object::ask_text(&isolate.objects, id, &url, None)).await.map(drop)
}

/// Applies a change of their tier to the objects of these keys, through one object for each `size`
/// of them, all at once. Returns how many objects have applied it.
pub(crate) async fn fan_out(
    isolate: &Rc<Isolate>,
    ids: &[String],
    change: &TierChange,
    size: usize,
) -> Result<u64, Error> {
    let applied = Rc::new(Cell::new(0_u64));
    let pages: js_sys::Array = ids
        .chunks(size)
        .map(|page| {
            let (isolate, change, page) = (Rc::clone(isolate), change.clone(), page.to_vec());
            let applied = Rc::clone(&applied);
            wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(async move {
                let count = fan_out_page(&isolate, &change, &page).await;
                applied.set(applied.get().saturating_add(count));
                Ok(JsValue::UNDEFINED)
            }))
        })
        .collect();
    JsFuture::from(Promise::all(&pages)).await?;
    Ok(applied.get())
}

/// Sends one page. Logs each object that fails; if all of them do, no key of the page has the
/// change yet.
async fn fan_out_page(isolate: &Isolate, change: &TierChange, page: &[String]) -> u64 {
    for (id, body) in FanOut::tries(change, page) {
        match fan_out_through(isolate, id, &body).await {
            Ok(result) => return result.taken,
            Err(error) => worker::console_error!("tollgate: key {id} did not fan out a change of its tier: {error}"),
        }
    }
    0
}

async fn fan_out_through(isolate: &Isolate, id: &str, body: &FanOut) -> Result<FanOutResult, Error> {
    let (url, body) = (ObjectRequest::FanOut { id }.to_url(), serde_json::to_string(body).map_err(Error::new)?);
    let result = text(js::object::ask_text(&isolate.objects, id, &url, Some(&body))).await?;
    serde_json::from_str(&result).map_err(Error::new)
}

async fn text(promise: Promise) -> Result<String, Error> {
    JsFuture::from(promise).await?.as_string().ok_or_else(|| Error::new("an answer that is no text"))
}
