//! The way to the origin: what a forwarded request looks like.

use super::gateway;
use super::http::Incoming;
use super::js::{self, Fields};
use crate::config::Config;
use crate::credential::{QUERY_NAME, Source};
use crate::idempotency::Fingerprint;
use crate::key::PresentedKey;
use crate::target::{Target, percent_decode};
use wasm_bindgen::JsValue;

/// Forwards a request whose key stood at `key_source`; the promise of the origin's answer with `answer_fields` added.
pub(crate) fn forward(
    incoming: &Incoming,
    config: &Config,
    key_source: Option<Source>,
    request_fields: &Fields,
    answer_fields: &Fields,
) -> JsValue {
    let url = upstream_url(incoming, config, key_source.is_some());
    let drop_authorization = key_source == Some(Source::Bearer);
    let (request_fields, answer_fields) = (request_fields.as_str(), answer_fields.as_str());
    js::forward(&incoming.request, url.as_deref(), drop_authorization, request_fields, answer_fields).into()
}

/// Forwards a call of which the object wants to know how it ended: see `forwardCall` in `glue.js`.
pub(crate) fn forward_call(
    call: &Gated<'_>,
    config: &Config,
    request_fields: &Fields,
    answer_fields: &Fields,
) -> JsValue {
    let url = upstream_url(call.incoming, config, true);
    js::forward_call(
        &call.incoming.request,
        url.as_deref(),
        call.source == Source::Bearer,
        request_fields.as_str(),
        answer_fields.as_str(),
        call.context,
        call.objects,
        call.id,
        &call.nonce.to_string(),
        call.is_awaited,
    )
    .into()
}

/// What names such a call.
pub(crate) struct Gated<'a> {
    pub(crate) incoming: &'a Incoming,
    /// Where the key stood.
    pub(crate) source: Source,
    /// The request's `ExecutionContext`.
    pub(crate) context: &'a JsValue,
    pub(crate) objects: &'a JsValue,
    pub(crate) id: &'a str,
    pub(crate) nonce: u64,
    /// Whether others may repeat it: then its answer waits until the object knows that it has ended.
    pub(crate) is_awaited: bool,
}

/// The fingerprint of a call as it is forwarded.
pub(crate) fn fingerprint(incoming: &Incoming, config: &Config) -> Fingerprint {
    let target = incoming.target();
    Fingerprint::of(&incoming.method, target.path, forwarded_query(incoming, config, true).as_deref())
}

/// The query as it is forwarded; `None` if there is none, or nothing is left of it.
fn forwarded_query(incoming: &Incoming, config: &Config, has_key: bool) -> Option<String> {
    let target = incoming.target();
    target.query?;
    let credential = if has_key { gateway::find_credential(incoming, config).ok() } else { None };
    query_without_key(target, config, credential.as_ref().map(|credential| &*credential.key))
}

/// `None` where the request's own URL serves as it is: then it is forwarded untouched.
fn upstream_url(incoming: &Incoming, config: &Config, has_key: bool) -> Option<String> {
    let target = incoming.target();
    let query = forwarded_query(incoming, config, has_key);
    let changed = query.as_deref() != target.query;
    let base = match &config.origin {
        Some(origin) => origin.as_str(),
        None if !changed => return None,
        None => own_base(&incoming.url),
    };
    let mut url = String::with_capacity(base.len() + incoming.url.len());
    url.push_str(base);
    url.push_str(target.path);
    if let Some(query) = query {
        url.push('?');
        url.push_str(&query);
    }
    Some(url)
}

/// The query as sent, less what carries a key: the credential itself wherever it stands, and every parameter that is a genuine
/// key. (What was issued elsewhere can be told from other texts only when it is the credential.)
fn query_without_key(target: Target<'_>, config: &Config, credential: Option<&str>) -> Option<String> {
    target.query().without(|pair| {
        let is_key = |text| {
            let text = percent_decode(text);
            credential == Some(&*text)
                || config.signer.as_ref().is_some_and(|signer| PresentedKey::verify(&text, signer).is_some())
        };
        config.allow_query_key && pair.is_named(QUERY_NAME) || is_key(pair.value) || is_key(pair.name)
    })
}

/// Scheme and authority of a request's own URL.
fn own_base(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(authority..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| authority + at);
    url.get(..end).unwrap_or(url)
}
