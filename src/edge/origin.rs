//! The way to the origin: what a forwarded request looks like.

use super::http::Incoming;
use super::js::{self, Fields};
use crate::config::Config;
use crate::credential::{QUERY_NAME, Source};
use crate::target::{Target, percent_decode};
use wasm_bindgen::JsValue;

/// What of a request must not reach the origin.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Strip<'a> {
    /// The presented key, wherever else it may stand in the query.
    pub(crate) key: Option<&'a str>,
    /// Where it stood.
    pub(crate) source: Option<Source>,
}

/// Forwards a request; the promise of the origin's answer with `answer_fields` added.
pub(crate) fn forward(
    incoming: &Incoming,
    config: &Config,
    strip: Strip<'_>,
    request_fields: &Fields,
    answer_fields: &Fields,
) -> JsValue {
    let url = upstream_url(incoming, config, strip);
    let drop_authorization = strip.source == Some(Source::Bearer);
    let (request_fields, answer_fields) = (request_fields.as_str(), answer_fields.as_str());
    js::forward(&incoming.request, url.as_deref(), drop_authorization, request_fields, answer_fields).into()
}

/// `None` where the request's own URL serves as it is: then it is forwarded untouched.
fn upstream_url(incoming: &Incoming, config: &Config, strip: Strip<'_>) -> Option<String> {
    let target = incoming.target();
    let query = target.query.map(|_| query_without_key(target, config, strip));
    let changed = query.as_ref().is_some_and(|query| query.as_deref() != target.query);
    let base = match &config.origin {
        Some(origin) => origin.as_str(),
        None if !changed => return None,
        None => own_base(&incoming.url),
    };
    let mut url = String::with_capacity(base.len() + incoming.url.len());
    url.push_str(base);
    url.push_str(target.path);
    if let Some(Some(query)) = query {
        url.push('?');
        url.push_str(&query);
    }
    Some(url)
}

/// The query as sent, less what carries the key: the credential itself, and every parameter of its name that repeats it.
fn query_without_key(target: Target<'_>, config: &Config, strip: Strip<'_>) -> Option<String> {
    target.query().without(|pair| {
        pair.is_named(QUERY_NAME)
            && (config.allow_query_key || strip.key.is_some_and(|key| percent_decode(pair.value) == key))
    })
}

/// Scheme and authority of a request's own URL.
fn own_base(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(authority..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| authority + at);
    url.get(..end).unwrap_or(url)
}
