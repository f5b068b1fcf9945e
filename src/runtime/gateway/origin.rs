//! The way to the origin: what a forwarded request looks like.

use crate::config::Config;
use crate::gateway::credential::{Credential, QUERY_NAME, Source};
use crate::gateway::outbound;
use crate::http::idempotency_key::Fingerprint;
use crate::http::target::{Target, percent_decode};
use crate::keys::key::{PresentedKey, is_importable, same_secret, token_id};
use crate::runtime::clock;
use crate::runtime::gateway::authenticate::{Presented, identify};
use crate::runtime::gateway::{gate, loop_guard};
use crate::runtime::http::{Incoming, MARK};
use crate::runtime::isolate::Isolate;
use crate::runtime::js::{self, Fields};
use wasm_bindgen::JsValue;

/// Forwards a call; the promise of the origin's answer with `answer_fields` added.
pub(crate) fn forward(
    incoming: &Incoming,
    isolate: &Isolate,
    request_fields: &Fields,
    answer_fields: &Fields,
) -> JsValue {
    let call = Outbound::of_call(incoming, isolate, request_fields);
    js::forward(&incoming.request, call.url.as_deref(), &call.dropped, call.fields.as_str(), answer_fields.as_str())
        .into()
}

/// Forwards a call of which the object wants to know how it ended: see `forwardCall` in `glue.js`.
pub(crate) fn forward_call(
    gated: &Gated<'_>,
    isolate: &Isolate,
    request_fields: &Fields,
    answer_fields: &Fields,
) -> JsValue {
    let call = Outbound::of_call(gated.incoming, isolate, request_fields);
    js::forward_call(
        &gated.incoming.request,
        call.url.as_deref(),
        &call.dropped,
        call.fields.as_str(),
        answer_fields.as_str(),
        gated.context,
        &isolate.objects,
        gated.id,
        &gated.nonce.to_string(),
        gated.is_awaited,
    )
    .into()
}

/// Forwards a request for a public path, less whatever could be a credential of tollgate's.
pub(crate) fn forward_public(incoming: &Incoming, isolate: &Isolate) -> JsValue {
    let out = Outbound::unmetered(incoming, isolate);
    js::forward(&incoming.request, out.url.as_deref(), &out.dropped, out.fields.as_str(), "").into()
}

/// Forwards a CORS preflight, with the fields of one and nothing else.
pub(crate) fn forward_preflight(incoming: &Incoming, isolate: &Isolate) -> JsValue {
    let out = Outbound::unmetered(incoming, isolate);
    js::forward_preflight(&incoming.request, out.url.as_deref(), out.fields.as_str()).into()
}

/// What becomes of a request on its way.
struct Outbound {
    /// `None` where the request's own URL serves as it is: then it is forwarded untouched.
    url: Option<String>,
    /// Names of header fields that stay behind, a line each.
    dropped: String,
    /// Header fields to set.
    fields: Fields,
}

impl Outbound {
    fn of_call(incoming: &Incoming, isolate: &Isolate, request_fields: &Fields) -> Self {
        let credential = gate::find_credential(incoming, &isolate.config).ok();
        let mut out = Self::new(incoming, isolate, credential.as_ref());
        out.fields.append(request_fields);
        out
    }

    fn unmetered(incoming: &Incoming, isolate: &Isolate) -> Self {
        Self::new(incoming, isolate, None)
    }

    fn new(incoming: &Incoming, isolate: &Isolate, credential: Option<&Credential<'_>>) -> Self {
        let mut fields = Fields::default();
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
            && let Some(page) = js::header(&incoming.request, "referer")
            && let Ok(target) = Target::parse(page.split('#').next().unwrap_or_default())
            && target.query.is_some_and(|query| credentials.query_without(target).as_deref() != Some(query))
        {
            dropped.push("referer");
        }
        Self { url: upstream_url(incoming, &isolate.config, &credentials), dropped: dropped.join("\n"), fields }
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
            matches!(key, Some(Presented::Known(_)))
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

/// What names such a call.
pub(crate) struct Gated<'a> {
    pub(crate) incoming: &'a Incoming,
    /// The request's `ExecutionContext`.
    pub(crate) context: &'a JsValue,
    pub(crate) id: &'a str,
    pub(crate) nonce: u64,
    /// Whether others may repeat it: then its answer waits until the object knows that it has ended.
    pub(crate) is_awaited: bool,
}

/// The fingerprint of a call as it is forwarded.
pub(crate) fn fingerprint(incoming: &Incoming, isolate: &Isolate) -> Fingerprint {
    let target = incoming.target();
    let credential = gate::find_credential(incoming, &isolate.config).ok();
    let credentials = Credentials { isolate, presented: credential.as_ref() };
    Fingerprint::of(&incoming.method, target.path, credentials.forwarded_query(target).as_deref())
}

fn upstream_url(incoming: &Incoming, config: &Config, credentials: &Credentials<'_>) -> Option<String> {
    let target = incoming.target();
    let query = credentials.forwarded_query(target);
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

/// Scheme and authority of a request's own URL.
pub(crate) fn own_base(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(authority..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| authority + at);
    url.get(..end).unwrap_or(url)
}
