//! Asking a key's object: the only caller of the namespace.

use crate::gateway::outage::Outage;
use crate::protocol::object_request::{AuditPage, Question};
use crate::protocol::object_response;
use crate::runtime::bindings::Deployment;
use crate::runtime::gateway::authenticate::{Caller, Evidence};
use crate::runtime::gateway::gate::GatedCall;
use crate::runtime::http::Answer;
use crate::runtime::js::{self, Fault};
use js_sys::Promise;
use wasm_bindgen_futures::JsFuture;

/// Asks whether a call may pass; `call` goes on with the answer.
pub(crate) fn check(call: GatedCall) -> Answer {
    let url = Question::Check(call.check()).to_url();
    let (objects, id) = (call.deployment.objects.clone(), call.id.clone());
    Ok(js::ask(&objects, &id, &url, call)?.into())
}

/// What came back.
pub(crate) enum Reply {
    Answer(object_response::Answer),
    /// The connection broke, before or after the question arrived.
    Lost(Fault),
    /// It, or the account, is asked too much.
    Overloaded(Fault),
    /// It failed otherwise: asking again does not help.
    Failed(Fault),
}

/// Reads what [`js::ask`] resolves to.
pub(crate) fn read(line: &str, id: &str) -> Reply {
    let Some(failure) = line.strip_prefix('!') else {
        return match object_response::Answer::parse(line) {
            Some(answer) => Reply::Answer(answer),
            None => Reply::Failed(Fault::new(format!("the object of key {id} answered `{line}`"))),
        };
    };
    let (flags, message) = failure.split_once(' ').unwrap_or((failure, ""));
    let fault = Fault::new(format!("the object of key {id} did not answer: {message}"));
    match Outage::read(flags.contains('r'), flags.contains('o'), message) {
        Outage::Lost => Reply::Lost(fault),
        Outage::Overloaded => Reply::Overloaded(fault),
        Outage::Failed => Reply::Failed(fault),
    }
}

/// Asks for a key's usage, as JSON.
pub(crate) async fn usage(deployment: &Deployment, id: &str) -> Result<String, Fault> {
    let url = Question::Usage { id }.to_url();
    text(js::ask_text(&deployment.objects, id, &url)).await
}

/// Asks for a page of a key's audit log, as JSON.
pub(crate) async fn audit(deployment: &Deployment, id: &str, page: AuditPage<'_>) -> Result<String, Fault> {
    let url = Question::Audit { id, page }.to_url();
    text(js::ask_text(&deployment.objects, id, &url)).await
}

/// Has a key's object bring D1 up to date, and asks what D1 should have then, as JSON.
pub(crate) async fn reconcile(deployment: &Deployment, id: &str) -> Result<String, Fault> {
    let url = Question::Reconcile { id }.to_url();
    text(js::ask_text(&deployment.objects, id, &url)).await
}

/// Asks how a key stands, for whoever presents this secret: a [`protocol::Holding`].
pub(crate) async fn holding(deployment: &Deployment, caller: &Caller) -> Result<String, Fault> {
    let Caller { id, secret_hash, evidence } = caller;
    let url = Question::Holder { id, secret_hash, is_found: *evidence == Evidence::Found }.to_url();
    text(js::ask_text(&deployment.objects, id, &url)).await
}

/// Tells a key's object that the key has changed in D1.
pub(crate) async fn refresh(deployment: &Deployment, id: &str) -> Result<(), Fault> {
    let url = Question::Refresh { id }.to_url();
    text(js::ask_text(&deployment.objects, id, &url)).await.map(drop)
}

/// Has the objects of these keys take over a change of their tier, `size` of them through one. Gives how many took it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of at most some thousands")]
pub(crate) async fn relay(deployment: &Deployment, ids: &[String], change: &str, size: usize) -> Result<u64, Fault> {
    let names = serde_json::to_string(ids).map_err(Fault::new)?;
    let url = Question::Relay { id: "" }.to_url();
    let taken = JsFuture::from(js::relay_to_all(&deployment.objects, &names, &url, change, size)).await?;
    Ok(taken.as_f64().unwrap_or_default() as u64)
}

async fn text(promise: Promise) -> Result<String, Fault> {
    JsFuture::from(promise).await?.as_string().ok_or_else(|| Fault::new("an answer that is no text"))
}
