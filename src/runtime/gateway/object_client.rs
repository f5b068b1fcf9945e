//! Asking a key's object: the only caller of the namespace.

use crate::gateway::outage::Outage;
use crate::protocol::object_request::{AuditPage, ObjectRequest};
use crate::protocol::object_response;
use crate::runtime::gateway::authenticate::{Caller, Evidence};
use crate::runtime::gateway::gate::GatedCall;
use crate::runtime::http::HttpResult;
use crate::runtime::isolate::Isolate;
use crate::runtime::js::{self, Error};
use js_sys::Promise;
use wasm_bindgen_futures::JsFuture;

/// Asks whether a call may pass; `call` goes on with the answer.
pub(crate) fn check(call: GatedCall) -> HttpResult {
    let url = ObjectRequest::Check(call.check()).to_url();
    let (objects, id) = (call.isolate.objects.clone(), call.id.clone());
    Ok(js::ask(&objects, &id, &url, call)?.into())
}

/// What came back.
pub(crate) enum Reply {
    Response(object_response::ObjectResponse),
    /// The connection broke, before or after the question arrived.
    Lost(Error),
    /// It, or the account, is asked too much.
    Overloaded(Error),
    /// It failed otherwise: asking again does not help.
    Failed(Error),
}

/// Reads what [`js::ask`] resolves to.
pub(crate) fn read(line: &str, id: &str) -> Reply {
    let Some(failure) = line.strip_prefix('!') else {
        return match object_response::ObjectResponse::parse(line) {
            Some(answer) => Reply::Response(answer),
            None => Reply::Failed(Error::new(format!("the object of key {id} answered `{line}`"))),
        };
    };
    let (flags, message) = failure.split_once(' ').unwrap_or((failure, ""));
    let error = Error::new(format!("the object of key {id} did not answer: {message}"));
    match Outage::read(flags.contains('r'), flags.contains('o'), message) {
        Outage::Lost => Reply::Lost(error),
        Outage::Overloaded => Reply::Overloaded(error),
        Outage::Failed => Reply::Failed(error),
    }
}

/// Asks for a key's usage, as JSON.
pub(crate) async fn usage(isolate: &Isolate, id: &str) -> Result<String, Error> {
    let url = ObjectRequest::Usage { id }.to_url();
    text(js::ask_text(&isolate.objects, id, &url)).await
}

/// Asks for a page of a key's audit log, as JSON.
pub(crate) async fn audit(isolate: &Isolate, id: &str, page: AuditPage<'_>) -> Result<String, Error> {
    let url = ObjectRequest::Audit { id, page }.to_url();
    text(js::ask_text(&isolate.objects, id, &url)).await
}

/// Has a key's object bring D1 up to date, and asks what D1 should have then, as JSON.
pub(crate) async fn reconcile(isolate: &Isolate, id: &str) -> Result<String, Error> {
    let url = ObjectRequest::Reconcile { id }.to_url();
    text(js::ask_text(&isolate.objects, id, &url)).await
}

/// Asks how a key stands, for whoever presents this secret: a [`protocol::KeyStatus`].
pub(crate) async fn holding(isolate: &Isolate, caller: &Caller) -> Result<String, Error> {
    let Caller { id, secret_hash, evidence } = caller;
    let url = ObjectRequest::KeyStatus { id, secret_hash, is_found: *evidence == Evidence::Found }.to_url();
    text(js::ask_text(&isolate.objects, id, &url)).await
}

/// Tells a key's object that the key has changed in D1.
pub(crate) async fn refresh(isolate: &Isolate, id: &str) -> Result<(), Error> {
    let url = ObjectRequest::Refresh { id }.to_url();
    text(js::ask_text(&isolate.objects, id, &url)).await.map(drop)
}

/// Has the objects of these keys take over a change of their tier, `size` of them through one. Gives how many took it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of at most some thousands")]
pub(crate) async fn fan_out(isolate: &Isolate, ids: &[String], change: &str, size: usize) -> Result<u64, Error> {
    let names = serde_json::to_string(ids).map_err(Error::new)?;
    let url = ObjectRequest::FanOut { id: "" }.to_url();
    let taken = JsFuture::from(js::relay_to_all(&isolate.objects, &names, &url, change, size)).await?;
    Ok(taken.as_f64().unwrap_or_default() as u64)
}

async fn text(promise: Promise) -> Result<String, Error> {
    JsFuture::from(promise).await?.as_string().ok_or_else(|| Error::new("an answer that is no text"))
}
