//! The isolate's [`Outbox`], kept between requests, and its deliveries.

use crate::gateway::final_cost::final_cost;
use crate::gateway::outbox::queue::{Attachment, Delivery, DeliveryKind, LONGEST_WAIT, Outbox, Receipt};
use crate::gateway::outbox::usage_reports::{CAPACITY, MaybeCounted};
use crate::metering::call_outcome::{CallOutcome, FinalCost};
use crate::protocol::object_request::Call;
use crate::runtime::clock;
use crate::runtime::gateway::object_client::{self, Reply};
use crate::runtime::isolate::Isolate;
use js_sys::Promise;
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/object.js")]
extern "C" {
    #[wasm_bindgen(js_name = deliverLater)]
    fn deliver_later(context: &JsValue, milliseconds: u32, namespace: &JsValue, name: &str, delivery: OutboxDelivery);
    #[wasm_bindgen(js_name = deliverNow)]
    pub(crate) fn deliver_now(namespace: &JsValue, name: &str, delivery: OutboxDelivery, milliseconds: u32) -> Promise;
}

thread_local! {
    static OUTBOX: RefCell<Outbox> = RefCell::default();
}

/// Adds a call that is to be forwarded uncounted. Returns `false` if the outbox is full: the call
/// must then be refused.
pub(crate) fn add_call(
    isolate: &Rc<Isolate>,
    context: &JsValue,
    call: Call<'_>,
    maybe_counted: Option<MaybeCounted>,
) -> bool {
    let now = clock::now().as_millis();
    let needs_timer = OUTBOX.with_borrow_mut(|outbox| outbox.add_call(call, now, maybe_counted));
    if needs_timer == Some(true) {
        OutboxDelivery::later(isolate, context, call.id, DeliveryKind::Usage);
    }
    needs_timer.is_some()
}

/// Adds a call that was denied from the cache.
pub(crate) fn add_denied(isolate: &Rc<Isolate>, context: &JsValue, id: &str, now: u64) {
    match OUTBOX.with_borrow_mut(|outbox| outbox.add_denied(id, now)) {
        Some(true) => OutboxDelivery::later(isolate, context, id, DeliveryKind::Usage),
        Some(false) => {}
        None => {
            worker::console_error!(
                "tollgate: more than {CAPACITY} keys in outbox; a denial of key {id} is not counted"
            );
        }
    }
}

/// The part of the outbox that a request about a call carries. See [`Outbox::attach`].
pub(crate) fn attach(isolate: &Isolate, id: &str, now: u64) -> Attachment {
    OUTBOX.with_borrow_mut(|outbox| outbox.attach(id, now, isolate.nonce()))
}

/// Handles the result of a request that carried a part of the outbox.
pub(crate) fn handle_receipt(id: &str, attachment: Attachment, receipt: Receipt) {
    OUTBOX.with_borrow_mut(|outbox| outbox.handle_receipt(id, attachment, receipt));
}

/// A forwarded call whose outcome the object needs. JavaScript holds it until the origin responds.
#[wasm_bindgen]
pub struct CallEnd {
    pub(crate) isolate: Rc<Isolate>,
    /// The request's `ExecutionContext`.
    pub(crate) context: JsValue,
    pub(crate) id: String,
    pub(crate) nonce: u64,
    /// Whether the call may be repeated under its idempotency key. If so, its response waits until
    /// the object has the outcome, so that a repeat is never refused as in flight after a response.
    pub(crate) is_awaited: bool,
    /// Whether the response may lower the cost of the call.
    pub(crate) is_repriced: bool,
}

#[wasm_bindgen]
impl CallEnd {
    /// Adds the outcome to the outbox. `begun` and `now` are milliseconds; the status is 0 if the
    /// origin did not respond; `cost` is the field `X-Tollgate-Cost` of its response. Returns the
    /// promise that the response must wait for, if any.
    #[expect(clippy::needless_pass_by_value, reason = "wasm-bindgen passes optional texts by value")]
    pub fn ended(self, status: u16, begun: f64, now: f64, cost: Option<String>) -> Option<Promise> {
        let Self { isolate, context, id, nonce, is_awaited, is_repriced } = self;
        let cost = is_repriced.then(|| final_cost(cost.as_deref()));
        let outcome = CallOutcome { nonce, status, duration_ms: whole_number(now - begun), used: None, cost };
        // The client's next call finds what is given back.
        if is_awaited || matches!(cost, Some(FinalCost::Requests(_))) {
            let delivery = OutboxDelivery::new(&isolate, &context, &id, DeliveryKind::Awaited(outcome));
            return Some(deliver_now(&isolate.objects, &id, delivery, LONGEST_WAIT));
        }
        if OUTBOX.with_borrow_mut(|outbox| outbox.add_outcome(&id, whole_number(now), outcome)) {
            OutboxDelivery::later(&isolate, &context, &id, DeliveryKind::Outcomes);
        }
        None
    }
}

/// Milliseconds or bytes from JavaScript. Negative values, as after a step back of the clock, become 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers, below 2^53")]
pub(crate) fn whole_number(value: f64) -> u64 {
    value as u64
}

/// A delivery of the outbox without a call to carry it. JavaScript holds it until it is due.
#[wasm_bindgen]
pub struct OutboxDelivery {
    isolate: Rc<Isolate>,
    context: JsValue,
    run: Delivery,
}

impl OutboxDelivery {
    pub(crate) fn new(isolate: &Rc<Isolate>, context: &JsValue, id: &str, kind: DeliveryKind) -> Self {
        Self { isolate: Rc::clone(isolate), context: context.clone(), run: Delivery::new(id, kind) }
    }

    fn later(isolate: &Rc<Isolate>, context: &JsValue, id: &str, kind: DeliveryKind) {
        deliver_later(context, kind.delay(), &isolate.objects, id, Self::new(isolate, context, id, kind));
    }

    fn handle_reply(&mut self, reply: &Reply) {
        if let Reply::Lost(error) | Reply::Overloaded(error) | Reply::Failed(error) = reply {
            worker::console_error!("tollgate: {error}");
        }
        let now = clock::now().as_millis();
        if OUTBOX.with_borrow_mut(|outbox| self.run.handle_receipt(outbox, now, reply.receipt())) {
            Self::later(&self.isolate, &self.context, self.run.id(), DeliveryKind::Outcomes);
        }
    }
}

#[wasm_bindgen]
impl OutboxDelivery {
    /// The next request to the object. `None` when the delivery has ended.
    pub fn next(&mut self) -> Option<String> {
        let (now, nonce) = (clock::now().as_millis(), self.isolate.nonce());
        OUTBOX.with_borrow_mut(|outbox| self.run.next(outbox, now, nonce))
    }

    /// Handles the object's response.
    pub fn resume(&mut self, line: &str) {
        let reply = object_client::read(line, self.run.id());
        self.handle_reply(&reply);
    }

    /// Continues without a response.
    pub fn fail(&mut self, is_retryable: bool, is_overloaded: bool, message: &str) {
        let reply = object_client::no_answer(is_retryable, is_overloaded, message, self.run.id());
        self.handle_reply(&reply);
    }
}
