//! The request path: who is it, may it pass, where does it go.

use crate::config::{Config, FailMode, Preflight};
use crate::gateway::credential::{self, Credential, CredentialError};
use crate::gateway::deny_cache::{Generation, Keyed};
use crate::gateway::outbox::{MaybeCounted, Report};
use crate::gateway::ratelimit_headers;
use crate::http::idempotency_key::{Field, Fingerprint, MAX_KEY};
use crate::http::problem::Problem;
use crate::protocol::object_request::{Call, CallOutcomes, Check};
use crate::protocol::object_response;
use crate::protocol::object_response::{Admission, KeyResponse, KeyVerdict};
use crate::runtime::gateway::authenticate::{Caller, Evidence, Presented, identify};
use crate::runtime::gateway::import_lookup::NotAsked;
use crate::runtime::gateway::in_flight::InFlight;
use crate::runtime::gateway::loop_guard::unless_looping;
use crate::runtime::gateway::object_client::{self, Reply};
use crate::runtime::gateway::{origin, outbox};
use crate::runtime::http::{self, HttpResult, Incoming};
use crate::runtime::isolate::{Isolate, RENDERED};
use crate::runtime::js::Fields;
use crate::runtime::{clock, or_internal_error, promise};
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Judges a request for the origin, and forwards it or answers it.
pub(crate) fn gate(incoming: Incoming, isolate: Rc<Isolate>, context: JsValue) -> HttpResult {
    let config = &isolate.config;
    let refuse = |refusal: Problem| http::refuse(&refusal, &config.cors_allow_origin, None);
    if let Err(error) = incoming.framing {
        return refuse(Problem::BadRequest(error.to_string()));
    }
    if let Some(asked) = &incoming.preflight {
        return match config.preflight {
            Preflight::Answer => http::grant(asked, &config.cors_allow_origin),
            Preflight::Forward => forward_unmetered(incoming, isolate, origin::forward_preflight),
        };
    }
    if config.is_public(incoming.target().path) {
        return forward_unmetered(incoming, isolate, origin::forward_public);
    }
    let credential = match find_credential(&incoming, config) {
        Ok(credential) => credential,
        Err(error @ CredentialError::Missing) => return refuse(Problem::NoCredential(error.to_string())),
        Err(error) => return refuse(Problem::BadRequest(error.to_string())),
    };
    let Some(signer) = &config.signer else {
        worker::console_error!("tollgate is not set up: KEY_SECRET is not set");
        return refuse(Problem::Unavailable("tollgate is not set up"));
    };
    let now = clock::now().as_millis();
    match identify(&credential.key, signer, &isolate, now) {
        Presented::Known(caller) => judge(incoming, isolate, context, caller, now),
        Presented::Nobody => refuse(Problem::InvalidKey),
        Presented::Unheard(candidate) => {
            let work = async move {
                let refuse = |refusal: Problem| http::refuse(&refusal, &Isolate::cors(), None);
                match candidate.look_up(&isolate, &context, incoming.network()).await {
                    Ok(Some(caller)) => judge(incoming, isolate, context, caller, clock::now().as_millis()),
                    Ok(None) => refuse(Problem::InvalidKey),
                    // In every fail mode: what may be no key at all does not pass.
                    Err(NotAsked) => refuse(Problem::Unavailable("the API key could not be looked up")),
                }
            };
            Ok(promise(work).into())
        }
    }
}

/// Judges a call whose key is ours, if the origin can be reached at all.
fn judge(incoming: Incoming, isolate: Rc<Isolate>, context: JsValue, caller: Caller, now: u64) -> HttpResult {
    unless_looping(incoming, isolate, now, |incoming, isolate, asked_at| {
        judge_call(incoming, isolate, context, caller, asked_at)
    })
}

fn judge_call(incoming: Incoming, isolate: Rc<Isolate>, context: JsValue, caller: Caller, asked_at: u64) -> HttpResult {
    let Caller { id, secret_hash, evidence } = caller;
    let call = Call { id: &id, secret_hash: &secret_hash, method: &incoming.method, path: incoming.target().path };
    let (keyed, fingerprint) = match incoming.idempotency() {
        Field::Absent => (Keyed::No, None),
        Field::Key(key) => {
            let fingerprint = origin::fingerprint(&incoming, &isolate);
            (Keyed::Key(fingerprint.with_key(key)), Some(fingerprint))
        }
        Field::Malformed => (Keyed::Malformed, None),
    };
    if let Some(answer) = refuse_at_once(&isolate, &context, call, keyed, asked_at) {
        return answer;
    }
    let generation = isolate.denials.borrow().generation();
    let (nonce, is_repeat) = (isolate.nonce(), false);
    let report = outbox::next_report(&isolate, &id);
    let company = InFlight::join(&id);
    object_client::check(GatedCall {
        incoming,
        context,
        isolate,
        id,
        secret_hash,
        evidence,
        asked_at,
        nonce,
        report,
        is_repeat,
        company,
        keyed,
        fingerprint,
        generation,
    })
}

/// The refusal of a call that is known to be refused, without asking the object.
fn refuse_at_once(
    isolate: &Rc<Isolate>,
    context: &JsValue,
    call: Call<'_>,
    keyed: Keyed,
    now: u64,
) -> Option<HttpResult> {
    let mut denials = isolate.denials.borrow_mut();
    let denial = denials.find(call, keyed, now)?;
    let (number, until) = (denial.number(), now.saturating_add(denial.unchanged_for(now)));
    let mut rendered = isolate.rendered.borrow_mut();
    if let Some(rendered) = rendered.get(call.id).filter(|rendered| rendered.number == number && now < rendered.until) {
        // Other refusals are owed to nobody.
        if rendered.status == 429 {
            outbox::add_denied(isolate, context, call.id, now);
        }
        return Some(http::give(rendered));
    }
    let config = &isolate.config;
    let known = denial.at(now);
    if let KeyVerdict::Denied { .. } = known.outcome {
        outbox::add_denied(isolate, context, call.id, now);
    }
    let refusal = refusal_of(&known)?;
    let fresh = match http::render(&refusal, &config.cors_allow_origin, (&known, config.forms()), number, until) {
        Ok(fresh) => fresh,
        Err(error) => return Some(Err(error)),
    };
    let answer = http::give(&fresh);
    if rendered.len() >= RENDERED {
        rendered.clear();
    }
    rendered.insert(call.id.to_owned(), fresh);
    Some(answer)
}

/// How a call is refused that is not admitted.
fn refusal_of(known: &KeyResponse) -> Option<Problem> {
    Some(match &known.outcome {
        KeyVerdict::Admitted(_) => return None,
        KeyVerdict::Denied { .. } => http::quota_exceeded(known)?,
        KeyVerdict::CostExceedsQuota { policy, cost } => {
            let (name, quota) =
                known.standings.get(*policy).map_or(("", 0), |standing| (standing.name.as_str(), standing.quota));
            Problem::BadRequest(format!(
                "this call costs {cost}, more than policy {name} with its quota of {quota} can ever admit: waiting does not help"
            ))
        }
        KeyVerdict::Conflict => Problem::InFlight,
        KeyVerdict::Mismatch => Problem::OtherRequest,
        KeyVerdict::Malformed => Problem::BadRequest(format!(
            "Idempotency-Key must be 1 to {MAX_KEY} characters of visible ASCII and spaces"
        )),
        KeyVerdict::Refused(status) => Problem::Forbidden(status.refusal().unwrap_or("the API key may not be used")),
    })
}

/// A call with a genuine key, on its way through the gate. JavaScript holds it while the object is asked.
#[wasm_bindgen]
pub struct GatedCall {
    incoming: Incoming,
    /// The request's `ExecutionContext`.
    context: JsValue,
    pub(crate) isolate: Rc<Isolate>,
    pub(crate) id: String,
    secret_hash: String,
    evidence: Evidence,
    asked_at: u64,
    nonce: u64,
    report: Option<Report>,
    is_repeat: bool,
    company: InFlight,
    keyed: Keyed,
    fingerprint: Option<Fingerprint>,
    /// Of the deny cache, when the object was asked.
    generation: Generation,
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
    pub(crate) fn check(&self) -> Check<'_> {
        let check = Check {
            call: self.call(),
            nonce: self.nonce,
            is_repeat: self.is_repeat,
            age: self.is_repeat.then(|| self.age()),
            is_concurrent: self.company.is_there,
            is_found: self.evidence == Evidence::Found,
            report: self.report.as_ref().map(Report::report),
            idempotency_key: None,
            fingerprint: None,
            has_malformed_key: false,
            // `glue.js` adds them.
            ends: CallOutcomes::default(),
        };
        check.with_field(self.incoming.idempotency(), self.fingerprint)
    }

    /// For how many milliseconds the object has been asked. A clock that stepped back does not tell.
    fn age(&self) -> u64 {
        clock::now().as_millis().checked_sub(self.asked_at).unwrap_or(u64::MAX)
    }

    fn go_on(mut self, line: &str) -> HttpResult {
        let reply = object_client::read(line, &self.id);
        if let Some(report) = &self.report {
            outbox::note_reply(&self.id, report.nonce, &reply);
        }
        if matches!(reply, Reply::Lost(_)) && !self.is_repeat {
            // Asked once more under the same nonce, which the object counts once.
            self.is_repeat = true;
            self.report = outbox::next_report(&self.isolate, &self.id);
            return object_client::check(self);
        }
        match reply {
            Reply::Response(object_response::ObjectResponse::Key(known)) => {
                let cap = self.isolate.config.deny_cache_seconds.saturating_mul(1000);
                let asked = self.asked_at..clock::now().as_millis();
                let mut denials = self.isolate.denials.borrow_mut();
                denials.keep(self.call(), self.keyed, &known, asked, cap, self.generation);
                drop(denials);
                self.isolate.self_service.borrow_mut().forget(Some(&self.id));
                self.pass_or_refuse(&known)
            }
            Reply::Response(object_response::ObjectResponse::Unknown) if self.evidence == Evidence::Tag => {
                self.refuse_key()
            }
            Reply::Response(object_response::ObjectResponse::Unknown) => Ok(promise(self.look_again()).into()),
            Reply::Overloaded(error) => {
                // In every fail mode: the key's own calls cause an overload, so it must not let them through.
                worker::console_error!("tollgate: {error}");
                let refusal =
                    Problem::Unavailable("the API key is called too often at once: the call was not forwarded");
                http::refuse(&refusal, &self.isolate.config.cors_allow_origin, None)
            }
            // The object has logged why. (It does not answer "settled" to this question.) What it did not count now it may have
            // counted when it was asked first.
            Reply::Response(object_response::ObjectResponse::Failed | object_response::ObjectResponse::Recorded) => {
                self.fail(self.is_repeat)
            }
            Reply::Lost(error) | Reply::Failed(error) => {
                worker::console_error!("tollgate: {error}");
                self.fail(true)
            }
        }
    }

    fn refuse_key(&self) -> HttpResult {
        http::refuse(&Problem::InvalidKey, &self.isolate.config.cors_allow_origin, None)
    }

    /// The object knows no such imported key. It is asked once more if D1 has it; nothing has been counted.
    async fn look_again(mut self) -> HttpResult {
        let Self { id, secret_hash, evidence, .. } = &self;
        let caller = Caller { id: id.clone(), secret_hash: secret_hash.clone(), evidence: *evidence };
        match caller.look_again(&self.isolate, &self.context, self.incoming.network()).await {
            Ok(Some(_)) => {
                self.evidence = Evidence::Found;
                object_client::check(self)
            }
            // The object has said that there is no such key: that holds while D1 says nothing else.
            Ok(None) | Err(NotAsked) => self.refuse_key(),
        }
    }

    fn pass_or_refuse(&self, known: &KeyResponse) -> HttpResult {
        let config = &self.isolate.config;
        match &known.outcome {
            KeyVerdict::Admitted(pass) => {
                let mut identity = Fields::default();
                identity.set("X-Tollgate-Key-Id", &self.id);
                identity.set("X-Tollgate-Tier", &known.tier);
                let mut standing = Fields::default();
                standing.extend(ratelimit_headers::fields(known, config.forms()));
                if pass.is_replay {
                    identity.set(ratelimit_headers::REPLAY, "1");
                    standing.set(ratelimit_headers::REPLAY, "1");
                }
                if !pass.wants_outcome {
                    return Ok(self.forward(&identity, &standing));
                }
                let gated = origin::Gated {
                    incoming: &self.incoming,
                    context: &self.context,
                    id: &self.id,
                    nonce: self.nonce,
                    is_awaited: self.is_repeatable(*pass),
                };
                Ok(origin::forward_call(&gated, &self.isolate, &identity, &standing))
            }
            KeyVerdict::Denied { .. }
            | KeyVerdict::CostExceedsQuota { .. }
            | KeyVerdict::Conflict
            | KeyVerdict::Mismatch
            | KeyVerdict::Malformed
            | KeyVerdict::Refused(_) => {
                let refusal = refusal_of(known).unwrap_or(Problem::Internal);
                http::refuse(&refusal, &config.cors_allow_origin, Some((known, config.forms())))
            }
        }
    }

    /// Whether the object has this call in flight, and refuses others with its idempotency key until it has ended.
    const fn is_repeatable(&self, pass: Admission) -> bool {
        matches!(self.keyed, Keyed::Key(_)) && !pass.is_replay && !pass.ignores_key
    }

    /// The object is out of reach: nothing passes, or everything with a well-signed key does, marked and owed, as long as there is
    /// room to note it.
    fn fail(&self, is_maybe_counted: bool) -> HttpResult {
        let config = &self.isolate.config;
        let doubt = is_maybe_counted.then_some(MaybeCounted { nonce: self.nonce, asked_at: self.asked_at });
        let owe = || outbox::add_call(&self.isolate, &self.context, self.call(), doubt);
        match config.fail_mode {
            FailMode::Open if owe() => {
                let mut marked = Fields::default();
                marked.set("X-Tollgate-Key-Id", &self.id);
                marked.set("X-Tollgate-Fail-Open", "1");
                let mut answer = Fields::default();
                answer.set("X-Tollgate-Fail-Open", "1");
                Ok(self.forward(&marked, &answer))
            }
            FailMode::Open | FailMode::Closed => {
                let refusal = Problem::Unavailable("the call could not be counted, so it was not forwarded");
                http::refuse(&refusal, &config.cors_allow_origin, None)
            }
        }
    }

    fn forward(&self, request_fields: &Fields, answer_fields: &Fields) -> JsValue {
        origin::forward(&self.incoming, &self.isolate, request_fields, answer_fields)
    }
}

/// The credential of a request, from where the configuration allows it to stand.
pub(crate) fn find_credential<'a>(incoming: &'a Incoming, config: &Config) -> Result<Credential<'a>, CredentialError> {
    let query = config.allow_query_key.then(|| incoming.target().query());
    credential::find(incoming.api_key.as_deref(), incoming.authorization.as_deref(), query)
}

/// Public paths and preflights: forwarded without a key, if the origin can be reached at all.
fn forward_unmetered(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    forward: fn(&Incoming, &Isolate) -> JsValue,
) -> HttpResult {
    let now = clock::now().as_millis();
    unless_looping(incoming, isolate, now, move |incoming, isolate, _| Ok(forward(&incoming, &isolate)))
}
