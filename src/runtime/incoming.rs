//! A client's request.

use crate::gateway::credential::{self, Credential, CredentialError};
use crate::gateway::loop_guard::Place;
use crate::http::address::Network;
use crate::http::framing::{self, FramingError};
use crate::http::idempotency_key::Field;
use crate::http::preflight::PreflightRequest;
use crate::http::target::{Target, TargetError};
use crate::runtime::js;

/// A request, with the properties that the gateway's rules need.
pub(crate) struct Incoming {
    pub(crate) request: web_sys::Request,
    pub(crate) method: String,
    /// As sent, neither resolved nor decoded.
    pub(crate) url: String,
    path: String,
    query: Option<String>,
    api_key: Option<String>,
    pub(crate) authorization: Option<String>,
    idempotency_key: Option<String>,
    /// `X-Tollgate-Loop`, which any client may send.
    pub(crate) mark: Option<String>,
    pub(crate) has_body: bool,
    /// Set if the request is a CORS preflight.
    pub(crate) preflight: Option<PreflightRequest>,
    /// Whether it can be forwarded unchanged.
    pub(crate) framing: Result<(), FramingError>,
}

impl Incoming {
    pub(crate) fn new(request: web_sys::Request) -> Result<Self, TargetError> {
        let facts = js::request::facts(&request);
        let mut lines = facts.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let (method, url) = (line(), line());
        let mut header = || line().strip_prefix('+').map(str::to_owned);
        let (api_key, authorization, idempotency_key, mark) = (header(), header(), header(), header());
        let (body, upgrade) = (header(), header());
        let framing = framing::check(method, body.as_deref(), upgrade.as_deref());
        let preflight = if method == "OPTIONS" {
            let (origin, asked_method, asked_fields) = (header(), header(), header());
            PreflightRequest::read(origin.as_deref(), asked_method.as_deref(), asked_fields.as_deref())
        } else {
            None
        };
        let Target { path, query } = Target::parse(url)?;
        Ok(Self {
            request,
            method: method.to_owned(),
            url: url.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            api_key,
            authorization,
            idempotency_key,
            mark,
            has_body: body.is_some(),
            preflight,
            framing,
        })
    }

    /// The URL at which the request reached the gate.
    pub(crate) fn place(&self) -> Option<Place<'_>> {
        Place::of(&self.url)
    }

    /// The client's network, as Cloudflare reports it.
    pub(crate) fn network(&self) -> Network {
        Network::of(self.request.headers().get("cf-connecting-ip").ok().flatten().as_deref())
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target { path: &self.path, query: self.query.as_deref() }
    }

    /// The credential, from a place that the configuration allows.
    pub(crate) fn credential(&self, allow_query_key: bool) -> Result<Credential<'_>, CredentialError> {
        let query = allow_query_key.then(|| self.target().query());
        credential::find(self.api_key.as_deref(), self.authorization.as_deref(), query)
    }

    pub(crate) fn idempotency(&self) -> Field<'_> {
        Field::read(&self.method, self.idempotency_key.as_deref())
    }
}

impl AsRef<Self> for Incoming {
    fn as_ref(&self) -> &Self {
        self
    }
}
