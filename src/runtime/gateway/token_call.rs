//! Calls that spend tokens: their bodies, and what their answers are charged.

use crate::gateway::body_budget::{BodyBudget, READ_DEADLINE, room_of};
use crate::gateway::final_cost::final_cost;
use crate::gateway::outbox::queue::{DeliveryKind, LONGEST_WAIT};
use crate::gateway::token_answer::{AnswerMeter, HoldRenewal};
use crate::http::idempotency_key::Fingerprint;
use crate::http::problem::Problem;
use crate::keys::token_route::TokenTerms;
use crate::metering::call_outcome::{CallOutcome, FinalCost, UsedTokens};
use crate::protocol::held_call::HeldCall;
use crate::protocol::object_request::ObjectRequest;
use crate::runtime::clock;
use crate::runtime::gateway::outbox::{OutboxDelivery, deliver_now, whole_number};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::tokens::request::{BodyHead, RequestBody, TokenHold, TokenRequest, UnboundedBody};
use crate::tokens::usage_reader::Passed;
use js_sys::{Array, Promise, Uint8Array};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

thread_local! {
    static BUDGET: RefCell<BodyBudget> = RefCell::default();
}

/// Room for a body in the isolate's memory, which is released when this is dropped.
struct BodyRoom(u64);

impl BodyRoom {
    fn reserve(id: &str, bytes: usize) -> Result<Self, Problem> {
        let now = clock::now().as_millis();
        BUDGET.with_borrow_mut(|budget| budget.reserve(id, bytes, now)).map(Self).ok_or(Problem::Unavailable(
            "too many bodies of calls are being read at once: the call was not forwarded, try again",
        ))
    }

    /// The body has only so many bytes.
    fn shrink(&self, bytes: usize) {
        BUDGET.with_borrow_mut(|budget| budget.shrink(self.0, bytes));
    }
}

impl Drop for BodyRoom {
    fn drop(&mut self) {
        BUDGET.with_borrow_mut(|budget| budget.release(self.0));
    }
}

/// A body that has been read, of a call that may spend tokens.
pub(crate) struct TokenCall {
    pub(crate) terms: TokenTerms,
    pub(crate) request: TokenRequest,
    /// The bytes, the length and the reader of the rest, as `tokens.js` has them.
    body: Array,
    extent: BodyExtent,
    room: BodyRoom,
}

/// How much of a body has been read.
#[derive(Debug, Clone, Copy)]
enum BodyExtent {
    Whole,
    /// The beginning of one of this length.
    Longer(u64),
    /// The beginning of one whose length is unknown, of which so many bytes have come.
    Unmeasured(u64),
}

impl BodyExtent {
    const fn of(self, start: Vec<u8>) -> RequestBody {
        match self {
            Self::Whole => RequestBody::Whole(start),
            Self::Longer(length) => RequestBody::Longer { start, length },
            Self::Unmeasured(received) => RequestBody::Unmeasured { start, received },
        }
    }
}

/// The header fields of a request that say how its body is read.
pub(crate) struct BodyFields {
    content_type: Option<String>,
    content_encoding: Option<String>,
}

impl BodyFields {
    pub(crate) fn of(request: &web_sys::Request) -> Self {
        let field = |name| js::request::header(request, name);
        Self { content_type: field("content-type"), content_encoding: field("content-encoding") }
    }

    fn head(&self) -> BodyHead<'_> {
        BodyHead { content_type: self.content_type.as_deref(), content_encoding: self.content_encoding.as_deref() }
    }
}

impl TokenCall {
    /// Reads the body of a request of this key.
    pub(crate) async fn read(
        incoming: &Incoming,
        (context, id): (&JsValue, &str),
        terms: TokenTerms,
        limit: usize,
    ) -> Result<Self, Problem> {
        let request = &incoming.request;
        let declared = || js::request::header(request, "content-length").and_then(|length| length.parse().ok());
        let room = BodyRoom::reserve(id, if incoming.has_body { room_of(declared(), limit) } else { 0 })?;
        let reading = js::tokens::read_token_body(request, limit, READ_DEADLINE);
        // If the client leaves, reading fails, and the room is released.
        js::timer::keep_alive(context, &reading);
        let broken = || Problem::BadRequest("the body ended before its end".to_owned());
        let body = JsFuture::from(reading).await.map_err(|_| broken())?;
        if body.is_undefined() {
            return Err(Problem::BodyTimeout(READ_DEADLINE / 1000));
        }
        let body = body.dyn_into::<Array>().map_err(|_| Problem::Internal)?;
        let bytes = body.get(0).dyn_into::<Uint8Array>().map_err(|_| Problem::Internal)?;
        room.shrink(usize::try_from(bytes.length()).unwrap_or(usize::MAX));
        let length = body.get(1).as_f64().unwrap_or(-1.0);
        let extent = if body.get(2).is_undefined() {
            BodyExtent::Whole
        } else if length < 0.0 {
            BodyExtent::Unmeasured(bytes.length().into())
        } else {
            BodyExtent::Longer(whole_number(length))
        };
        let start = match extent {
            BodyExtent::Whole => bytes.to_vec(),
            _ => bytes.subarray(0, u32::try_from(limit).unwrap_or(u32::MAX)).to_vec(),
        };
        Self::of(request, terms, start, (body, extent, room), limit)
    }

    /// Reads it again, by other terms.
    pub(crate) fn read_again(
        self,
        request: &web_sys::Request,
        terms: TokenTerms,
        limit: usize,
    ) -> Result<Self, Problem> {
        let Self { request: TokenRequest { body: start, .. }, body, extent, room, .. } = self;
        Self::of(request, terms, start, (body, extent, room), limit)
    }

    fn of(
        request: &web_sys::Request,
        terms: TokenTerms,
        start: Vec<u8>,
        (body, extent, room): (Array, BodyExtent, BodyRoom),
        limit: usize,
    ) -> Result<Self, Problem> {
        match TokenRequest::read(terms, BodyFields::of(request).head(), extent.of(start)) {
            Ok(request) => Ok(Self { terms, request, body, extent, room }),
            Err(error) => {
                js::tokens::cancel_token_body(&body);
                Err(match error {
                    UnboundedBody::Unmeasured => Problem::LengthRequired(limit),
                    error => Problem::UnsupportedMedia(error.to_string()),
                })
            }
        }
    }

    pub(crate) fn held(&self, clamps: bool) -> HeldCall {
        let can_be_clamped = clamps && self.request.can_be_clamped();
        HeldCall { hold: self.request.hold, terms: self.terms, can_be_clamped }
    }

    /// The fingerprint of this request and its body.
    pub(crate) fn fingerprint(&self, request: Fingerprint) -> Fingerprint {
        let body = &self.request.body;
        let length = match self.extent {
            BodyExtent::Whole => Some(body.len() as u64),
            BodyExtent::Longer(length) => Some(length),
            // How much has come by now is chance.
            BodyExtent::Unmeasured(_) => None,
        };
        request.with_body(body, length)
    }

    /// The body as it came.
    pub(crate) const fn body(&self) -> &Array {
        &self.body
    }

    /// The body that is sent for a call with a hold.
    pub(crate) fn rewritten(&self, cap: Option<u64>) -> Array {
        match self.request.rewritten(cap) {
            None => self.body.clone(),
            Some(bytes) => {
                let bytes = Uint8Array::from(bytes.as_slice());
                Array::of3(&bytes, &bytes.length().into(), &JsValue::UNDEFINED)
            }
        }
    }

    /// The meter of the answer to a call with a hold.
    pub(crate) fn meter(&self, cap: Option<u64>) -> AnswerMeter {
        let requested = self.request.hold;
        let hold = TokenHold { output_per_answer: cap.unwrap_or(requested.output_per_answer), ..requested };
        AnswerMeter::new(hold, self.terms.format, self.request.needs_usage()).hiding(self.request.hides_output())
    }
}

/// The answer of a call with a hold. JavaScript holds it until the hold is settled.
#[wasm_bindgen]
pub struct HeldAnswer {
    pub(crate) isolate: Rc<Isolate>,
    /// The request's `ExecutionContext`.
    pub(crate) context: JsValue,
    pub(crate) id: String,
    pub(crate) nonce: u64,
    pub(crate) begun: u64,
    /// When the response began.
    pub(crate) responded: Option<u64>,
    pub(crate) renewal: HoldRenewal,
    pub(crate) meter: AnswerMeter,
    /// What the call costs in the end, if its answer may lower that.
    pub(crate) cost: Option<FinalCost>,
    pub(crate) changes_length: bool,
}

#[wasm_bindgen]
#[expect(clippy::needless_pass_by_value, reason = "wasm-bindgen passes optional texts by value")]
impl HeldAnswer {
    /// The response has begun. `tokens` is its field `X-Tollgate-Tokens`, `cost` `X-Tollgate-Cost`.
    pub fn begin(
        &mut self,
        status: u16,
        content_type: Option<String>,
        tokens: Option<String>,
        cost: Option<String>,
        now: f64,
    ) {
        self.responded = Some(whole_number(now));
        self.cost = self.cost.map(|_| final_cost(cost.as_deref()));
        self.meter.begin(status, content_type.as_deref(), tokens.as_deref());
    }

    /// Whether the client may get fewer bytes than the origin sends.
    pub fn changes_length(&self) -> bool {
        self.changes_length
    }

    /// Reads bytes of the answer, and renews its hold if that is due. Returns those that the client
    /// gets, unless it gets these.
    pub fn pass(&mut self, bytes: &[u8], now: f64) -> Option<Vec<u8>> {
        if self.renewal.is_due(whole_number(now)) {
            let line = ObjectRequest::RenewHold { id: &self.id, nonce: self.nonce }.to_url();
            js::object::send_once(&self.isolate.objects, &self.id, &line);
        }
        replaced(self.meter.pass(bytes))
    }

    /// Ends the answer. Returns bytes that were held back.
    pub fn last(&mut self) -> Option<Vec<u8>> {
        replaced(self.meter.end())
    }

    /// Settles the hold after the end of the answer, or without one. The promise resolves when that is durable.
    pub fn end(self, now: f64) -> Promise {
        let used = self.meter.used();
        self.settle(used, whole_number(now))
    }

    /// Settles the hold of an answer that was cut off.
    pub fn cut(self, now: f64) -> Promise {
        let used = self.meter.used_when_cut();
        self.settle(used, whole_number(now))
    }
}

impl HeldAnswer {
    /// Gives the hold back, if there is one, of a call that is not made.
    pub(crate) fn give_up(self) -> Promise {
        let begun = self.begun;
        self.settle(UsedTokens::Reported(0), begun)
    }

    fn settle(self, used: UsedTokens, now: u64) -> Promise {
        let Self { isolate, context, id, nonce, begun, responded, meter, cost, .. } = self;
        let duration_ms = responded.unwrap_or(now).saturating_sub(begun);
        let outcome = CallOutcome { nonce, status: meter.status(), duration_ms, used: Some(used), cost };
        let delivery = OutboxDelivery::new(&isolate, &context, &id, DeliveryKind::Awaited(outcome));
        deliver_now(&isolate.objects, &id, delivery, LONGEST_WAIT)
    }
}

fn replaced(passed: Passed) -> Option<Vec<u8>> {
    match passed {
        Passed::Unchanged => None,
        Passed::Replaced(bytes) => Some(bytes),
    }
}
