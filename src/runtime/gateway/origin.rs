//! Forwards requests to the origin.

use crate::gateway::credential::Credential;
use crate::gateway::credential_filter::CredentialFilter;
use crate::gateway::loop_guard::MARK;
use crate::gateway::outbound;
use crate::http::idempotency_key::Fingerprint;
use crate::http::preflight::is_forwarded;
use crate::runtime::clock;
use crate::runtime::gateway::authenticate::{Presented, identify};
use crate::runtime::gateway::loop_guard;
use crate::runtime::gateway::outbox::CallEnd;
use crate::runtime::gateway::token_call::HeldAnswer;
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::runtime::js::fields::FieldLines;
use js_sys::{Array, Promise};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/origin.js")]
extern "C" {
    #[wasm_bindgen(js_name = forward)]
    fn js_forward(
        request: &web_sys::Request,
        url: Option<&str>,
        dropped: &str,
        fields: &str,
        answer_fields: &str,
        call: Option<CallEnd>,
    ) -> Promise;
    #[wasm_bindgen(js_name = forwardRead)]
    fn js_forward_read(
        request: &web_sys::Request,
        url: Option<&str>,
        dropped: &str,
        fields: &str,
        answer_fields: &str,
        call: Option<CallEnd>,
        body: &Array,
        answer: Option<HeldAnswer>,
        context: &JsValue,
    ) -> Promise;
}

/// Forwards a request without its credential. Returns a promise of the origin's response. `fields`
/// are added to the request and the response.
pub(crate) fn forward(
    incoming: &Incoming,
    isolate: &Isolate,
    credential: Option<&Credential<'_>>,
    (request_fields, answer_fields): (&FieldLines, &FieldLines),
    end: Option<CallEnd>,
) -> JsValue {
    let mut out = Outbound::new(incoming, isolate, credential);
    out.fields.append(request_fields);
    // The outcome is delivered even if the client leaves early.
    let kept_alive = end.as_ref().filter(|end| end.is_awaited || end.is_repriced).map(|end| end.context.clone());
    let (url, fields) = (out.url.as_deref(), out.fields.as_str());
    let response = js_forward(&incoming.request, url, &out.dropped, fields, answer_fields.as_str(), end);
    if let Some(context) = kept_alive {
        js::timer::keep_alive(&context, &response);
    }
    response.into()
}

/// Forwards a request whose body has been read, as [`forward`] does. `answer` reads the response of
/// a call with a hold.
pub(crate) fn forward_read(
    incoming: &Incoming,
    isolate: &Isolate,
    credential: &Credential<'_>,
    (request_fields, answer_fields): (&FieldLines, &FieldLines),
    end: Option<CallEnd>,
    (body, answer): (&Array, Option<HeldAnswer>),
    context: &JsValue,
) -> JsValue {
    let mut out = Outbound::new(incoming, isolate, Some(credential));
    out.fields.append(request_fields);
    let is_kept_alive = end.as_ref().is_some_and(|end| end.is_awaited || end.is_repriced);
    let (url, fields) = (out.url.as_deref(), out.fields.as_str());
    let (request, answer_fields) = (&incoming.request, answer_fields.as_str());
    let response = js_forward_read(request, url, &out.dropped, fields, answer_fields, end, body, answer, context);
    if is_kept_alive {
        js::timer::keep_alive(context, &response);
    }
    response.into()
}

/// Forwards a request for a public path, without anything that could be a credential of tollgate.
pub(crate) fn forward_public(incoming: &Incoming, isolate: &Isolate) -> JsValue {
    let none = FieldLines::default();
    forward(incoming, isolate, None, (&none, &none), None)
}

/// Forwards a CORS preflight, with the fields of a preflight only.
pub(crate) fn forward_preflight(incoming: &Incoming, isolate: &Isolate) -> JsValue {
    let out = Outbound::new(incoming, isolate, None);
    let names = js::request::header_names(&incoming.request);
    let kept: Vec<&str> = names.split('\n').filter(|name| is_forwarded(name)).collect();
    js::origin::forward_preflight(&incoming.request, out.url.as_deref(), &kept.join("\n"), out.fields.as_str()).into()
}

/// The changes to a request that is forwarded.
struct Outbound {
    /// `None` forwards the request to its own URL, unchanged.
    url: Option<String>,
    /// Names of header fields to remove, one per line.
    dropped: String,
    /// Header fields to set.
    fields: FieldLines,
}

impl Outbound {
    fn new(incoming: &Incoming, isolate: &Isolate, credential: Option<&Credential<'_>>) -> Self {
        let mut fields = FieldLines::default();
        if let Some(secret) = &isolate.config.origin_secret {
            fields.set("X-Tollgate-Origin-Secret", secret);
        }
        if let Some(mark) = loop_guard::mark(incoming, isolate) {
            fields.set(MARK, &mark);
        }
        let (mut dropped, target) = (Vec::new(), incoming.target());
        let (url, config) = (&incoming.url, &isolate.config);
        let upstream = with_filter(isolate, credential, |filter| {
            if incoming.authorization.as_deref().is_some_and(|value| !filter.passes_authorization(value)) {
                dropped.push("authorization");
            }
            if config.allow_query_key
                && let Some(referer) = js::request::header(&incoming.request, "referer")
                && !filter.passes_referer(&referer)
            {
                dropped.push("referer");
            }
            outbound::upstream_url(config.origin.as_deref(), url, target, filter.forwarded_query(target).as_deref())
        });
        Self { url: upstream, dropped: dropped.join("\n"), fields }
    }
}

/// Calls `work` with the filter of credentials for a request with this credential.
fn with_filter<T>(
    isolate: &Isolate,
    presented: Option<&Credential<'_>>,
    work: impl FnOnce(&CredentialFilter<'_>) -> T,
) -> T {
    let config = &isolate.config;
    let is_known_key = |text: &str| {
        let now = clock::now().as_millis();
        let key = config.signer.as_ref().map(|signer| identify(text, signer, isolate, now));
        matches!(key, Some(Presented::Key(_)))
    };
    work(&CredentialFilter {
        presented,
        signer: config.signer.as_ref(),
        admin_token: config.admin_token.as_deref(),
        allow_query_key: config.allow_query_key,
        allow_imported_keys: config.allow_imported_keys,
        is_known_key: &is_known_key,
    })
}

/// The fingerprint of a call as it is forwarded.
pub(crate) fn fingerprint(incoming: &Incoming, isolate: &Isolate, credential: &Credential<'_>) -> Fingerprint {
    let target = incoming.target();
    let query = with_filter(isolate, Some(credential), |filter| filter.forwarded_query(target));
    Fingerprint::of(&incoming.method, target.path, query.as_deref())
}
