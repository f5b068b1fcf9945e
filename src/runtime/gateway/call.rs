//! A call with a valid key, from the deny cache to the origin.
//!
//! 1. [`begin`] refuses it if a cached denial applies. Otherwise it sends a request to the key's
//!    object.
//! 2. JavaScript passes the object's response to [`GatedCall::resume`], or the failure to
//!    [`GatedCall::fail`].
//! 3. The call is refused, or forwarded by [`origin`].
//!
//! A lost request is repeated once. So is a request for an imported key that is unknown to the
//! object, if D1 has the key.

use crate::config::FailMode;
use crate::gateway::credential::Credential;
use crate::gateway::deny_cache::{Generation, Keyed};
use crate::gateway::outbox::queue::Attachment;
use crate::gateway::outbox::usage_reports::MaybeCounted;
use crate::gateway::ratelimit_headers::{REPLAY, RateLimits, TOKEN_CAP};
use crate::gateway::token_answer::HoldRenewal;
use crate::http::idempotency_key::{Field, Fingerprint};
use crate::http::problem::Problem;
use crate::keys::token_route::TokenTerms;
use crate::metering::call_outcome::FinalCost;
use crate::protocol::object_request::{Call, Check, ObjectRequest};
use crate::protocol::object_response::{Admission, KeyResponse, KeyVerdict, ObjectResponse};
use crate::runtime::clock;
use crate::runtime::gateway::authenticate::{Caller, Evidence};
use crate::runtime::gateway::in_flight::InFlight;
use crate::runtime::gateway::object_client::{self, Reply};
use crate::runtime::gateway::outbox::CallEnd;
use crate::runtime::gateway::refusal::{refusal_of, refuse_at_once};
use crate::runtime::gateway::token_call::{HeldAnswer, TokenCall};
use crate::runtime::gateway::{origin, outbox};
use crate::runtime::handler::{or_internal_error, promise};
use crate::runtime::http::{self, HttpResult};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::runtime::js::fields::FieldLines;
use js_sys::Promise;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/object.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn ask(namespace: &JsValue, name: &str, line: &str, request: GatedCall) -> Result<Promise, JsValue>;
}

/// How often a call is sent to its object again because that holds it by other terms. They change
/// with a row of `token_routes`, so that twice is once too many.
const SENT_BACK: u8 = 2;

/// A request with a valid key.
pub(crate) struct Authenticated {
    pub(crate) incoming: Incoming,
    /// The request's `ExecutionContext`.
    pub(crate) context: JsValue,
    pub(crate) credential: Credential<'static>,
    pub(crate) caller: Caller,
}

impl AsRef<Incoming> for Authenticated {
    fn as_ref(&self) -> &Incoming {
        &self.incoming
    }
}

impl Authenticated {
    fn call(&self) -> Call<'_> {
        let Caller { id, secret_hash, .. } = &self.caller;
        Call { id, secret_hash, method: &self.incoming.method, path: self.incoming.target().path }
    }
}

/// Refuses the call at once, or sends a request to its object.
pub(crate) fn begin(request: Authenticated, isolate: Rc<Isolate>, requested_at: u64) -> HttpResult {
    let (keyed, fingerprint) = match request.incoming.idempotency() {
        Field::Absent => (Keyed::No, None),
        Field::Key(key) => {
            let fingerprint = origin::fingerprint(&request.incoming, &isolate, &request.credential);
            (Keyed::Key(fingerprint.with_key(key)), Some(fingerprint))
        }
        Field::Malformed => (Keyed::Malformed, None),
    };
    if let Some(answer) = refuse_at_once(&isolate, (&request.context, request.call()), keyed, requested_at) {
        return answer;
    }
    let generation = isolate.denials.borrow().generation();
    let nonce = isolate.nonce();
    let in_flight = InFlight::join(&request.caller.id);
    let call = request.call();
    let terms = isolate.token_terms.borrow_mut().find(call.method, call.path);
    let attachment = match terms {
        None => outbox::attach(&isolate, call.id, requested_at),
        // The body is read first.
        Some(_) => Attachment::default(),
    };
    let call = GatedCall {
        request,
        isolate,
        requested_at,
        nonce,
        attachment,
        is_repeat: false,
        in_flight,
        keyed,
        fingerprint,
        generation,
        tokens: None,
        sent_back: 0,
    };
    match terms {
        None => call.send(),
        Some(terms) => Ok(promise(call.send_with_hold(terms)).into()),
    }
}

/// A call whose request to the object is in flight. JavaScript holds it until the response arrives.
#[wasm_bindgen]
pub struct GatedCall {
    request: Authenticated,
    isolate: Rc<Isolate>,
    requested_at: u64,
    nonce: u64,
    /// The part of the outbox that the request carries.
    attachment: Attachment,
    is_repeat: bool,
    in_flight: InFlight,
    keyed: Keyed,
    fingerprint: Option<Fingerprint>,
    /// The generation of the deny cache when the request was sent.
    generation: Generation,
    /// The body, once it is known that the call spends tokens.
    tokens: Option<TokenCall>,
    /// How often the object has sent the call back for its hold.
    sent_back: u8,
}

#[wasm_bindgen]
impl GatedCall {
    /// Continues with the object's response. Returns the response or a promise of it.
    ///
    /// # Errors
    /// Only if no response can be built.
    pub fn resume(self, line: &str) -> Result<JsValue, JsValue> {
        let reply = object_client::read(line, &self.request.caller.id);
        or_internal_error(self.go_on(reply))
    }

    /// Continues without a response of the object.
    ///
    /// # Errors
    /// As [`GatedCall::resume`].
    pub fn fail(self, is_retryable: bool, is_overloaded: bool, message: &str) -> Result<JsValue, JsValue> {
        let reply = object_client::no_answer(is_retryable, is_overloaded, message, &self.request.caller.id);
        or_internal_error(self.go_on(reply))
    }
}

impl GatedCall {
    fn send(self) -> HttpResult {
        let line = ObjectRequest::Check(self.check()).to_url();
        // JavaScript takes ownership of the call.
        let (objects, id) = (self.isolate.objects.clone(), self.request.caller.id.clone());
        Ok(ask(&objects, &id, &line, self)?.into())
    }

    /// Sends the request with the hold of the call, by these terms.
    async fn send_with_hold(mut self, terms: TokenTerms) -> HttpResult {
        let Authenticated { incoming, context, caller, .. } = &self.request;
        let limit = self.isolate.config.token_body_bytes;
        let read = match self.tokens.take() {
            Some(tokens) => tokens.read_again(&incoming.request, terms, limit),
            None => TokenCall::read(incoming, (context, &caller.id), terms, limit).await,
        };
        match read {
            Ok(tokens) => self.tokens = Some(tokens),
            Err(problem) => return self.refuse(&problem),
        }
        // The body may have taken its time.
        self.requested_at = clock::now().as_millis();
        self.attachment = outbox::attach(&self.isolate, &self.request.caller.id, self.requested_at);
        self.generation = self.isolate.denials.borrow().generation();
        self.send()
    }

    fn check(&self) -> Check<'_> {
        let check = Check {
            call: self.request.call(),
            nonce: self.nonce,
            is_repeat: self.is_repeat,
            age: self.is_repeat.then(|| self.age()),
            is_concurrent: self.in_flight.has_others,
            is_found: self.request.caller.evidence == Evidence::Found,
            report: self.attachment.report(),
            idempotency_key: None,
            fingerprint: None,
            has_malformed_key: false,
            held: self.tokens.as_ref().map(|tokens| Box::new(tokens.held(self.isolate.config.token_clamp))),
            outcomes: self.attachment.outcomes(),
        };
        let fingerprint = self.fingerprint.map(|request| match &self.tokens {
            Some(tokens) => tokens.fingerprint(request),
            None => request,
        });
        check.with_field(self.request.incoming.idempotency(), fingerprint)
    }

    /// Milliseconds since the first request. `u64::MAX` if the clock has stepped back.
    fn age(&self) -> u64 {
        clock::now().as_millis().checked_sub(self.requested_at).unwrap_or(u64::MAX)
    }

    fn go_on(mut self, reply: Reply) -> HttpResult {
        let id = &self.request.caller.id;
        outbox::handle_receipt(id, std::mem::take(&mut self.attachment), reply.receipt());
        if matches!(reply, Reply::Lost(_)) && !self.is_repeat {
            // Repeated under the same nonce, which the object counts once.
            self.is_repeat = true;
            self.attachment = outbox::attach(&self.isolate, id, clock::now().as_millis());
            return self.send();
        }
        match reply {
            Reply::Response(ObjectResponse::Key(KeyResponse { verdict: KeyVerdict::LacksHold(terms), .. }))
                if self.sent_back < SENT_BACK =>
            {
                self.sent_back += 1;
                let Call { method, path, .. } = self.request.call();
                let mut known = self.isolate.token_terms.borrow_mut();
                known.note(method, path, Some(terms));
                known.note_key(id);
                drop(known);
                Ok(promise(self.send_with_hold(terms)).into())
            }
            Reply::Response(ObjectResponse::Key(known)) => {
                if self.is_repeat && matches!(known.verdict, KeyVerdict::LacksHold(_)) {
                    self.give_up_hold();
                }
                self.remember(&known);
                self.forward_or_refuse(&known)
            }
            Reply::Response(ObjectResponse::Unknown) if self.request.caller.evidence == Evidence::Tag => {
                self.refuse(&Problem::InvalidKey)
            }
            Reply::Response(ObjectResponse::Unknown) => Ok(promise(self.look_again()).into()),
            Reply::Overloaded(error) => {
                // In every fail mode: the key's own calls cause an overload, so they must not pass
                // because of it.
                worker::console_error!("tollgate: {error}");
                // The first request may have been counted.
                if self.is_repeat {
                    self.give_up_hold();
                }
                self.refuse(&Problem::Unavailable(
                    "too many calls of this API key at once: the call was not forwarded, try again",
                ))
            }
            // The object has logged the cause. (It does not answer "recorded" to this request.) It
            // may have counted the call at the first request.
            Reply::Response(ObjectResponse::Failed | ObjectResponse::Recorded) => self.go_on_uncounted(self.is_repeat),
            Reply::Lost(error) | Reply::Failed(error) => {
                worker::console_error!("tollgate: {error}");
                self.go_on_uncounted(true)
            }
        }
    }

    fn refuse(&self, problem: &Problem) -> HttpResult {
        http::refuse(problem, &self.isolate.config.cors_allow_origin, None)
    }

    /// Keeps a denial, and drops self-service responses from before this call.
    fn remember(&self, known: &KeyResponse) {
        let isolate = &self.isolate;
        let cap = isolate.config.deny_cache_seconds.saturating_mul(1000);
        let span = self.requested_at..clock::now().as_millis();
        isolate.denials.borrow_mut().keep(self.request.call(), self.keyed, known, span, cap, self.generation);
        isolate.self_service.borrow_mut().forget(Some(&self.request.caller.id));
    }

    /// Handles an object to which the imported key is unknown. Repeats the request if D1 has the
    /// key. Nothing has been counted.
    async fn look_again(mut self) -> HttpResult {
        let Authenticated { incoming, context, caller, .. } = &self.request;
        match caller.clone().look_again(&self.isolate, context, incoming.network()).await {
            Some(_) => {
                self.request.caller.evidence = Evidence::Found;
                self.send()
            }
            // The key is unknown to the object. It is refused unless D1 has it.
            None => self.refuse(&Problem::InvalidKey),
        }
    }

    fn forward_or_refuse(&self, known: &KeyResponse) -> HttpResult {
        let config = &self.isolate.config;
        match &known.verdict {
            KeyVerdict::Admitted(admission) => Ok(self.forward_admitted(known, *admission)),
            KeyVerdict::Denied { .. }
            | KeyVerdict::CostExceedsQuota { .. }
            | KeyVerdict::LacksHold(_)
            | KeyVerdict::Conflict
            | KeyVerdict::Mismatch
            | KeyVerdict::Malformed
            | KeyVerdict::Refused(_) => {
                let refusal = refusal_of(known).unwrap_or(Problem::Internal);
                http::refuse(&refusal, &config.cors_allow_origin, Some(RateLimits::of_call(known, config.forms())))
            }
        }
    }

    fn forward_admitted(&self, known: &KeyResponse, admission: Admission) -> JsValue {
        let Authenticated { context, caller, .. } = &self.request;
        let mut request_fields = FieldLines::default();
        request_fields.set("X-Tollgate-Key-Id", &caller.id);
        request_fields.set("X-Tollgate-Tier", &known.usage.tier);
        let mut answer_fields = FieldLines::default();
        answer_fields.extend(RateLimits::of_call(known, self.isolate.config.forms()).fields());
        if let Some(cap) = admission.cap {
            answer_fields.set(TOKEN_CAP, &cap.to_string());
        }
        if admission.is_replay {
            request_fields.set(REPLAY, "1");
            answer_fields.set(REPLAY, "1");
        }
        let is_awaited = self.is_repeatable(admission);
        // The settle of a hold says how the call ended, but only after the last byte.
        let wants_end = admission.wants_outcome && (is_awaited || !admission.has_hold);
        // It has the cost, too.
        let is_repriced = admission.is_repriced && !admission.has_hold;
        let end = (wants_end || is_repriced).then(|| CallEnd {
            isolate: Rc::clone(&self.isolate),
            context: context.clone(),
            id: caller.id.clone(),
            nonce: self.nonce,
            is_awaited: admission.wants_outcome && is_awaited,
            is_repriced,
        });
        if let Some(tokens) = &self.tokens {
            return self.forward_read(tokens, admission, (&mut request_fields, &answer_fields), end);
        }
        self.forward(&request_fields, &answer_fields, end)
    }

    /// Forwards a call whose body has been read. If it has a hold, its answer settles it.
    fn forward_read(
        &self,
        tokens: &TokenCall,
        admission: Admission,
        (request_fields, answer_fields): (&mut FieldLines, &FieldLines),
        end: Option<CallEnd>,
    ) -> JsValue {
        let Authenticated { incoming, context, credential, .. } = &self.request;
        let (body, answer) = if admission.has_hold {
            // What is compressed cannot be read.
            request_fields.set("Accept-Encoding", "identity");
            self.isolate.token_terms.borrow_mut().note_key(&self.request.caller.id);
            (tokens.rewritten(admission.cap), Some(self.held_answer(tokens, admission)))
        } else {
            if !admission.is_replay {
                let Call { method, path, .. } = self.request.call();
                self.isolate.token_terms.borrow_mut().note(method, path, None);
            }
            (tokens.body().clone(), None)
        };
        let fields = (&*request_fields, answer_fields);
        origin::forward_read(incoming, &self.isolate, credential, fields, end, (&body, answer), context)
    }

    fn held_answer(&self, tokens: &TokenCall, admission: Admission) -> HeldAnswer {
        let begun = clock::now().as_millis();
        HeldAnswer {
            isolate: Rc::clone(&self.isolate),
            context: self.request.context.clone(),
            id: self.request.caller.id.clone(),
            nonce: self.nonce,
            begun,
            responded: None,
            renewal: HoldRenewal::new(begun),
            meter: tokens.meter(admission.cap),
            cost: admission.is_repriced.then_some(FinalCost::AsCharged),
            changes_length: tokens.request.needs_usage(),
        }
    }

    /// Whether the object holds this call in flight, and refuses others with its idempotency key
    /// until it ends.
    const fn is_repeatable(&self, admission: Admission) -> bool {
        matches!(self.keyed, Keyed::Key(_)) && !admission.is_replay && !admission.ignores_key
    }

    /// Handles an unreachable object. Depending on `FAIL_MODE`, the call is refused, or forwarded
    /// with a mark and reported later if the outbox has room.
    fn go_on_uncounted(&self, is_maybe_counted: bool) -> HttpResult {
        let Authenticated { context, caller, .. } = &self.request;
        let maybe_counted =
            is_maybe_counted.then_some(MaybeCounted { nonce: self.nonce, requested_at: self.requested_at });
        if is_maybe_counted {
            self.give_up_hold();
        }
        let has_room = || outbox::add_call(&self.isolate, context, self.request.call(), maybe_counted);
        match self.isolate.config.fail_mode {
            // Tokens that nobody holds cannot be counted later.
            FailMode::Open if !self.may_spend_tokens() && has_room() => {
                let mut request_fields = FieldLines::default();
                request_fields.set("X-Tollgate-Key-Id", &caller.id);
                request_fields.set("X-Tollgate-Fail-Open", "1");
                let mut answer_fields = FieldLines::default();
                answer_fields.set("X-Tollgate-Fail-Open", "1");
                Ok(self.forward(&request_fields, &answer_fields, None))
            }
            FailMode::Open | FailMode::Closed => {
                self.refuse(&Problem::Unavailable("the call could not be counted, so it was not forwarded: try again"))
            }
        }
    }

    fn may_spend_tokens(&self) -> bool {
        let Authenticated { incoming, caller, .. } = &self.request;
        self.tokens.is_some() || self.isolate.token_terms.borrow_mut().may_spend(&caller.id, incoming.has_body)
    }

    /// Gives back the hold of a call that is not made, if it has one.
    fn give_up_hold(&self) {
        if let Some(tokens) = &self.tokens {
            let given_up = self.held_answer(tokens, Admission::default()).give_up();
            js::timer::keep_alive(&self.request.context, &given_up);
        }
    }

    fn forward(&self, request_fields: &FieldLines, answer_fields: &FieldLines, end: Option<CallEnd>) -> JsValue {
        let Authenticated { incoming, credential, .. } = &self.request;
        origin::forward(incoming, &self.isolate, Some(credential), (request_fields, answer_fields), end)
    }
}
