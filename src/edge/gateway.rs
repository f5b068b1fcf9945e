//! The request path: who is it, may it pass, where does it go.

use super::arrears;
use super::clock;
use super::deployment::{Deployment, RENDERED};
use super::http::{self, Answer, Incoming};
use super::js::Fields;
use super::object_client::{self, Reply};
use super::or_internal_error;
use super::origin;
use crate::config::{Config, FailMode};
use crate::credential::{self, Credential, CredentialError, Source};
use crate::headers;
use crate::key::PresentedKey;
use crate::protocol::{self, Call, Check, Debt, Known, Outcome};
use crate::refusal::Refusal;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Judges a request for the origin, and forwards it or answers it.
pub(crate) fn gate(incoming: Incoming, deployment: Rc<Deployment>, context: JsValue) -> Answer {
    let config = &deployment.config;
    let target = incoming.target();
    if incoming.is_preflight || config.is_public(target.path) {
        return Ok(forward_unmetered(&incoming, config));
    }
    let refuse = |refusal: Refusal| http::refuse(&refusal, &config.cors_allow_origin, None);
    let credential = match find_credential(&incoming, config) {
        Ok(credential) => credential,
        Err(error @ CredentialError::Missing) => return refuse(Refusal::NoCredential(error.to_string())),
        Err(error) => return refuse(Refusal::BadRequest(error.to_string())),
    };
    let Some(signer) = &config.signer else {
        worker::console_error!("tollgate is not set up: KEY_SECRET is not set");
        return refuse(Refusal::Unavailable("tollgate is not set up"));
    };
    let Some(key) = PresentedKey::verify(&credential.key, signer) else {
        return refuse(Refusal::InvalidKey);
    };
    let asked_at = clock::now().as_millis();
    let secret_hash = key.secret_hash();
    let call = Call { id: key.id, secret_hash: &secret_hash, method: &incoming.method, path: target.path };
    if let Some(answer) = deny_at_once(&deployment, &context, call, asked_at) {
        return answer;
    }
    let (id, nonce) = (key.id.to_owned(), deployment.nonce());
    let debt = arrears::due(&id, deployment.nonce());
    let (source, is_repeat) = (credential.source, false);
    object_client::check(GatedCall {
        incoming,
        context,
        deployment,
        id,
        secret_hash,
        source,
        asked_at,
        nonce,
        debt,
        is_repeat,
    })
}

/// The 429 of a call that is known to be denied, without asking the object.
fn deny_at_once(deployment: &Rc<Deployment>, context: &JsValue, call: Call<'_>, now: u64) -> Option<Answer> {
    let mut denials = deployment.denials.borrow_mut();
    let denial = denials.find(call, now)?;
    arrears::add_denied(deployment, context, call.id, now);
    let mut rendered = deployment.rendered.borrow_mut();
    if let Some(rendered) = rendered.get(call.id).filter(|rendered| now < rendered.until) {
        return Some(http::give(rendered));
    }
    let config = &deployment.config;
    let known = denial.at(now);
    let refusal = http::quota_exceeded(&known)?;
    let until = now.saturating_add(denial.unchanged_for(now));
    let fresh = match http::render(&refusal, &config.cors_allow_origin, (&known, config.legacy_headers), until) {
        Ok(fresh) => fresh,
        Err(fault) => return Some(Err(fault)),
    };
    let answer = http::give(&fresh);
    if rendered.len() >= RENDERED {
        rendered.clear();
    }
    rendered.insert(call.id.to_owned(), fresh);
    Some(answer)
}

/// A call with a genuine key, on its way through the gate. JavaScript holds it while the object is asked.
#[wasm_bindgen]
pub struct GatedCall {
    incoming: Incoming,
    /// The request's `ExecutionContext`.
    context: JsValue,
    pub(super) deployment: Rc<Deployment>,
    pub(super) id: String,
    secret_hash: String,
    /// Where the key stood: it must not reach the origin.
    source: Source,
    asked_at: u64,
    nonce: u64,
    debt: Option<Debt>,
    is_repeat: bool,
}

#[wasm_bindgen]
impl GatedCall {
    /// Goes on with what the object said: the response or its promise.
    ///
    /// # Errors
    /// Only if no response can be built at all.
    pub fn resume(self, line: &str) -> Result<JsValue, JsValue> {
        or_internal_error(self.go_on(line))
    }
}

impl GatedCall {
    fn call(&self) -> Call<'_> {
        let Self { incoming, id, secret_hash, .. } = self;
        Call { id, secret_hash, method: &incoming.method, path: incoming.target().path }
    }

    /// The question to the object.
    pub(super) fn check(&self) -> Check<'_> {
        Check { call: self.call(), nonce: self.nonce, is_repeat: self.is_repeat, debt: self.debt }
    }

    fn go_on(mut self, line: &str) -> Answer {
        let reply = object_client::read(line, &self.id);
        if matches!(reply, Reply::Lost(_)) && !self.is_repeat {
            // Asked once more under the same nonce, which the object counts once.
            self.is_repeat = true;
            return object_client::check(self);
        }
        if let Some(debt) = self.debt {
            match reply {
                Reply::Answer(protocol::Answer::Failed) => arrears::take_back(&self.id, debt),
                Reply::Answer(_) => arrears::settle(&self.id, debt),
                Reply::Lost(_) | Reply::Failed(_) => arrears::doubt(&self.id, debt),
            }
        }
        match reply {
            Reply::Answer(protocol::Answer::Known(known)) => {
                let cap = self.deployment.config.deny_cache_seconds.saturating_mul(1000);
                let asked = self.asked_at..clock::now().as_millis();
                self.deployment.denials.borrow_mut().keep(self.call(), &known, asked, cap);
                self.pass_or_refuse(&known)
            }
            Reply::Answer(protocol::Answer::Unknown) => {
                http::refuse(&Refusal::InvalidKey, &self.deployment.config.cors_allow_origin, None)
            }
            // The object has logged why. (It does not answer "settled" to this question.)
            Reply::Answer(protocol::Answer::Failed | protocol::Answer::Settled) => self.fail(None),
            Reply::Lost(fault) | Reply::Failed(fault) => {
                worker::console_error!("tollgate: {fault}");
                self.fail(Some(self.nonce))
            }
        }
    }

    fn pass_or_refuse(&self, known: &Known) -> Answer {
        let config = &self.deployment.config;
        let refuse =
            |refusal: Refusal| http::refuse(&refusal, &config.cors_allow_origin, Some((known, config.legacy_headers)));
        match &known.outcome {
            Outcome::Admitted => {
                let mut identity = Fields::default();
                identity.set("X-Tollgate-Key-Id", &self.id);
                identity.set("X-Tollgate-Tier", &known.tier);
                let mut standing = Fields::default();
                standing.extend(headers::fields(known, config.legacy_headers));
                Ok(self.forward(&identity, &standing))
            }
            Outcome::Denied { .. } => refuse(http::quota_exceeded(known).unwrap_or(Refusal::Internal)),
            Outcome::CostExceedsQuota { policy, cost } => {
                let (name, quota) =
                    known.standings.get(*policy).map_or(("", 0), |standing| (standing.name.as_str(), standing.quota));
                refuse(Refusal::BadRequest(format!(
                    "this call costs {cost}, more than policy {name} with its quota of {quota} can ever admit: waiting does not help"
                )))
            }
            Outcome::Refused(status) => {
                refuse(Refusal::Forbidden(status.refusal().unwrap_or("the API key may not be used")))
            }
        }
    }

    /// The object is out of reach: nothing passes, or everything with a well-signed key does, marked and owed. `doubt` is the
    /// call's nonce if the object may have counted it.
    fn fail(&self, doubt: Option<u64>) -> Answer {
        let config = &self.deployment.config;
        match config.fail_mode {
            FailMode::Closed => {
                let refusal = Refusal::Unavailable("the call could not be counted, so it was not forwarded");
                http::refuse(&refusal, &config.cors_allow_origin, None)
            }
            FailMode::Open => {
                arrears::add_uncounted(&self.deployment, &self.context, &self.id, self.asked_at, doubt);
                let mut marked = Fields::default();
                marked.set("X-Tollgate-Key-Id", &self.id);
                marked.set("X-Tollgate-Fail-Open", "1");
                let mut answer = Fields::default();
                answer.set("X-Tollgate-Fail-Open", "1");
                Ok(self.forward(&marked, &answer))
            }
        }
    }

    fn forward(&self, request_fields: &Fields, answer_fields: &Fields) -> JsValue {
        origin::forward(&self.incoming, &self.deployment.config, Some(self.source), request_fields, answer_fields)
    }
}

pub(super) fn find_credential<'a>(incoming: &'a Incoming, config: &Config) -> Result<Credential<'a>, CredentialError> {
    let query = config.allow_query_key.then(|| incoming.target().query());
    credential::find(incoming.api_key.as_deref(), incoming.authorization.as_deref(), query)
}

/// Public paths and preflights: forwarded without a key, and without the key that they may carry all the same.
fn forward_unmetered(incoming: &Incoming, config: &Config) -> JsValue {
    let bearer = credential::find(None, incoming.authorization.as_deref(), None);
    let is_key = |text: &str| config.signer.as_ref().is_some_and(|signer| PresentedKey::verify(text, signer).is_some());
    let source = bearer.ok().filter(|found| is_key(&found.key)).map(|found| found.source);
    origin::forward(incoming, config, source, &Fields::default(), &Fields::default())
}
