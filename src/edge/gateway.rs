//! The request path: who is it, may it pass, where does it go.

use super::arrears;
use super::clock;
use super::deployment::Deployment;
use super::http::{self, Answer, Incoming};
use super::js::{Fault, Fields};
use super::object_client;
use super::origin::{self, Strip};
use crate::config::{Config, FailMode};
use crate::credential::{self, Credential, CredentialError, Source};
use crate::headers;
use crate::key::PresentedKey;
use crate::protocol::{self, Call, Known, Outcome};
use crate::refusal::Refusal;
use crate::target::Target;
use wasm_bindgen::JsValue;

/// Judges a request for the origin, and forwards it or answers it.
pub(crate) async fn gate(incoming: &Incoming, target: Target<'_>, deployment: &Deployment) -> Answer {
    let config = &deployment.config;
    if incoming.is_preflight || config.is_public(target.path) {
        return Ok(forward_unmetered(incoming, target, config));
    }
    let refuse = |refusal: Refusal| http::refuse(&refusal, &config.cors_allow_origin, None);
    let credential = match find_credential(incoming, target, config) {
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
    let strip = Strip { key: Some(&credential.key), source: Some(credential.source) };
    let secret_hash = key.secret_hash();
    let call = Call { id: key.id, secret_hash: &secret_hash, method: &incoming.method, path: target.path };
    let asked_at = clock::now().as_millis();
    let denial = deployment.denials.borrow_mut().find(call, asked_at);
    if let Some(known) = denial {
        arrears::add_denied(key.id);
        return pass_or_refuse(incoming, target, config, strip, key.id, &known);
    }
    let answer = object_client::check(deployment, call).await;
    if let Ok(protocol::Answer::Known(known)) = &answer {
        let cap = config.deny_cache_seconds.saturating_mul(1000);
        let answered_at = clock::now().as_millis();
        deployment.denials.borrow_mut().keep(call, known, asked_at..answered_at, cap);
    }
    match answer {
        Ok(protocol::Answer::Known(known)) => pass_or_refuse(incoming, target, config, strip, key.id, &known),
        Ok(protocol::Answer::Unknown) => refuse(Refusal::InvalidKey),
        // The object has logged why.
        Ok(protocol::Answer::Failed) => fail(incoming, target, config, strip, key.id, None),
        Err(fault) => fail(incoming, target, config, strip, key.id, Some(fault)),
    }
}

fn find_credential<'a>(
    incoming: &'a Incoming,
    target: Target<'a>,
    config: &Config,
) -> Result<Credential<'a>, CredentialError> {
    let query = config.allow_query_key.then(|| target.query());
    credential::find(incoming.api_key.as_deref(), incoming.authorization.as_deref(), query)
}

/// Public paths and preflights: forwarded without a key, and without the key that they may carry all the same.
fn forward_unmetered(incoming: &Incoming, target: Target<'_>, config: &Config) -> JsValue {
    let mut strip = Strip::default();
    let bearer = credential::find(None, incoming.authorization.as_deref(), None);
    if bearer.as_ref().is_ok_and(|found| {
        config.signer.as_ref().is_some_and(|signer| PresentedKey::verify(&found.key, signer).is_some())
    }) {
        strip.source = Some(Source::Bearer);
    }
    strip.key = incoming.api_key.as_deref();
    origin::forward(incoming, target, config, strip, &Fields::default(), &Fields::default())
}

fn pass_or_refuse(
    incoming: &Incoming,
    target: Target<'_>,
    config: &Config,
    strip: Strip<'_>,
    id: &str,
    known: &Known,
) -> Answer {
    let refuse =
        |refusal: Refusal| http::refuse(&refusal, &config.cors_allow_origin, Some((known, config.legacy_headers)));
    match &known.outcome {
        Outcome::Admitted => {
            let mut identity = Fields::default();
            identity.set("X-Tollgate-Key-Id", id);
            identity.set("X-Tollgate-Tier", &known.tier);
            let mut standing = Fields::default();
            standing.extend(headers::fields(known, config.legacy_headers));
            Ok(origin::forward(incoming, target, config, strip, &identity, &standing))
        }
        Outcome::Denied { retry_after, .. } => {
            let retry_after = retry_after.div_ceil(1000).max(1);
            refuse(Refusal::QuotaExceeded { violated: known.violated(), retry_after })
        }
        Outcome::CostExceedsQuota { policy, cost } => {
            let (name, quota) =
                known.standings.get(*policy).map_or(("", 0), |standing| (standing.name.as_str(), standing.quota));
            let detail = format!(
                "this call costs {cost}, more than the quota of {quota} of policy {name}: waiting does not help"
            );
            refuse(Refusal::BadRequest(detail))
        }
        Outcome::Refused(status) => {
            refuse(Refusal::Forbidden(status.refusal().unwrap_or("the API key may not be used")))
        }
    }
}

/// The object is out of reach: nothing passes, or everything with a well-signed key does, marked and owed.
fn fail(
    incoming: &Incoming,
    target: Target<'_>,
    config: &Config,
    strip: Strip<'_>,
    id: &str,
    fault: Option<Fault>,
) -> Answer {
    if let Some(fault) = fault {
        worker::console_error!("tollgate: {fault}");
    }
    match config.fail_mode {
        FailMode::Closed => {
            let refusal = Refusal::Unavailable("the call could not be counted, so it was not forwarded");
            http::refuse(&refusal, &config.cors_allow_origin, None)
        }
        FailMode::Open => {
            arrears::add_uncounted(id);
            let mut marked = Fields::default();
            marked.set("X-Tollgate-Key-Id", id);
            marked.set("X-Tollgate-Fail-Open", "1");
            let mut answer = Fields::default();
            answer.set("X-Tollgate-Fail-Open", "1");
            Ok(origin::forward(incoming, target, config, strip, &marked, &answer))
        }
    }
}
