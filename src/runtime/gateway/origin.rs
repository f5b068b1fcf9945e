//! The way to the origin: what a forwarded request looks like.

use crate::gateway::credential::{Credential, QUERY_NAME, Source};
use crate::gateway::loop_guard::MARK;
use crate::gateway::outbound;
use crate::http::idempotency_key::Fingerprint;
use crate::http::preflight::is_forwarded;
use crate::http::target::{Target, percent_decode};
use crate::keys::key::{PresentedKey, is_importable, same_secret, token_id};
use crate::runtime::clock;
use crate::runtime::gateway::authenticate::{Presented, identify};
use crate::runtime::gateway::loop_guard;
use crate::runtime::gateway::outbox::CallEnd;
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::runtime::js::fields::FieldLines;
use js_sys::Promise;
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
}

/// Forwards a request less its credential; the promise of the origin's response. The fields are added to the request and to
/// the response.
pub(crate) fn forward(
    incoming: &Incoming,
    isolate: &Isolate,
    credential: Option<&Credential<'_>>,
    (request_fields, answer_fields): (&FieldLines, &FieldLines),
    end: Option<CallEnd>,
) -> JsValue {
    let mut out = Outbound::new(incoming, isolate, credential);
    out.fields.append(request_fields);
    // The outcome is delivered even if the client does not wait for the response.
    let kept_alive = end.as_ref().filter(|end| end.is_awaited).map(|end| end.context.clone());
    let (url, fields) = (out.url.as_deref(), out.fields.as_str());
    let response = js_forward(&incoming.request, url, &out.dropped, fields, answer_fields.as_str(), end);
    if let Some(context) = kept_alive {
        js::timer::keep_alive(&context, &response);
    }
    response.into()
}

/// Forwards a request for a public path, less whatever could be a credential of tollgate's.
pub(crate) fn forward_public(incoming: &Incoming, isolate: &Isolate) -> JsValue {
    let none = FieldLines::default();
    forward(incoming, isolate, None, (&none, &none), None)
}

/// Forwards a CORS preflight, with the fields of one and nothing else.
pub(crate) fn forward_preflight(incoming: &Incoming, isolate: &Isolate) -> JsValue {
    let out = Outbound::new(incoming, isolate, None);
    let names = js::request::header_names(&incoming.request);
    let kept: Vec<&str> = names.split('\n').filter(|name| is_forwarded(name)).collect();
    js::origin::forward_preflight(&incoming.request, out.url.as_deref(), &kept.join("\n"), out.fields.as_str()).into()
}

/// What becomes of a request on its way.
struct Outbound {
    /// `None` where the request's own URL serves as it is: then it is forwarded untouched.
    url: Option<String>,
    /// Names of header fields that stay behind, a line each.
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
        let credentials = Credentials { isolate, presented: credential };
        let mut dropped = Vec::new();
        if incoming.authorization.as_deref().is_some_and(|value| !credentials.may_pass(value)) {
            dropped.push("authorization");
        }
        // A page whose URL has the key in it is named in the requests for what it shows.
        if isolate.config.allow_query_key
            && let Some(page) = js::request::header(&incoming.request, "referer")
            && let Ok(target) = Target::parse(page.split('#').next().unwrap_or_default())
            && target.query.is_some_and(|query| credentials.query_without(target).as_deref() != Some(query))
        {
            dropped.push("referer");
        }
        let target = incoming.target();
        let query = credentials.forwarded_query(target);
        let base = isolate.config.origin.as_deref();
        let url = outbound::upstream_url(base, &incoming.url, target, query.as_deref());
        Self { url, dropped: dropped.join("\n"), fields }
    }
}

/// What of a request is a credential of tollgate's, and stays behind.
struct Credentials<'a> {
    isolate: &'a Isolate,
    /// The credential that the request presents; `None` if it needs none.
    presented: Option<&'a Credential<'a>>,
}

impl Credentials<'_> {
    /// Whether an `Authorization` may reach the origin.
    fn may_pass(&self, value: &str) -> bool {
        let Some(presented) = self.presented else {
            let is_ours = |text: &str| outbound::has_own_form(text) || self.is_ours(text);
            return !outbound::holds(value, is_ours) && !outbound::presents(value, |text| self.could_be_key(text));
        };
        presented.source != Source::Bearer && !outbound::holds(value, |text| self.is_ours(text))
    }

    /// Whether a text is known to be a key or an admin token.
    fn is_ours(&self, text: &str) -> bool {
        let Isolate { config, .. } = self.isolate;
        let is_key = || {
            let now = clock::now().as_millis();
            let key = config.signer.as_ref().map(|signer| identify(text, signer, self.isolate, now));
            matches!(key, Some(Presented::Key(_)))
        };
        self.presented.is_some_and(|presented| presented.key == text) || self.is_admin_token(text) || is_key()
    }

    fn is_admin_token(&self, text: &str) -> bool {
        let root = self.isolate.config.admin_token.as_deref();
        token_id(text).is_some() || root.is_some_and(|root| root.len() == text.len() && same_secret(root, text))
    }

    /// Whether a text may be a key that this isolate has not seen.
    fn could_be_key(&self, text: &str) -> bool {
        self.isolate.config.allow_imported_keys && is_importable(text)
    }

    /// The query as it is forwarded; `None` if there is none, or nothing is left of it.
    fn forwarded_query(&self, target: Target<'_>) -> Option<String> {
        target.query?;
        self.query_without(target)
    }

    /// The query as sent, less what carries a credential: the one that is presented wherever it stands, every parameter that is a genuine
    /// key or an admin token, and `api_key` where it is one or could be one that nobody looks at. (What was issued elsewhere can be told
    /// from other texts only when it is presented.)
    fn query_without(&self, target: Target<'_>) -> Option<String> {
        let config = &self.isolate.config;
        let is_credential = |text: &str| {
            self.presented.is_some_and(|presented| presented.key == text)
                || self.is_admin_token(text)
                || config.signer.as_ref().is_some_and(|signer| PresentedKey::verify(text, signer).is_some())
        };
        target.query().without(|pair| {
            let value = percent_decode(pair.value);
            let is_named = || {
                let could_be =
                    self.presented.is_none() && (outbound::has_own_form(&value) || self.could_be_key(&value));
                (config.allow_query_key || could_be) && pair.is_named(QUERY_NAME)
            };
            is_credential(&value) || is_credential(&percent_decode(pair.name)) || is_named()
        })
    }
}

/// The fingerprint of a call as it is forwarded.
pub(crate) fn fingerprint(incoming: &Incoming, isolate: &Isolate, credential: &Credential<'_>) -> Fingerprint {
    let target = incoming.target();
    let credentials = Credentials { isolate, presented: Some(credential) };
    Fingerprint::of(&incoming.method, target.path, credentials.forwarded_query(target).as_deref())
}
