//! The isolate's [`Arrears`]: kept between requests, and paid by a timer if no question takes them along.

use crate::gateway::outbox::{Arrears, CAPACITY, Doubt, Report};
use crate::protocol::object_request::{Call, Question};
use crate::protocol::object_response::Answer;
use crate::runtime::bindings::Deployment;
use crate::runtime::gateway::object_client::{self, Reply};
use crate::runtime::{clock, js};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// How long a debt waits for a question to ride along with, in milliseconds.
const PATIENCE: u32 = 5_000;

thread_local! {
    static ARREARS: RefCell<Arrears> = RefCell::default();
}

/// Notes one call that is to be forwarded uncounted. False if there is no room: then it must not be.
pub(crate) fn add_call(deployment: &Rc<Deployment>, context: &JsValue, call: Call<'_>, doubt: Option<Doubt>) -> bool {
    let (now, target) = (clock::now().as_millis(), (call.method, call.path));
    let noted = ARREARS.with_borrow_mut(|arrears| arrears.add_call(call.id, now, target, doubt));
    if noted.is_some_and(|noted| noted.needs_timer) {
        pay_later(deployment, context, call.id);
    }
    noted.is_some()
}

/// Notes one call that was denied without asking.
pub(crate) fn add_denied(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64) {
    match ARREARS.with_borrow_mut(|arrears| arrears.add_denied(id, now)) {
        Some(noted) if noted.needs_timer => pay_later(deployment, context, id),
        Some(_) => {}
        None => {
            worker::console_error!(
                "tollgate: more than {CAPACITY} keys in arrears; a denial of key {id} is not counted"
            );
        }
    }
}

fn pay_later(deployment: &Rc<Deployment>, context: &JsValue, id: &str) {
    let payment = Payment { deployment: Rc::clone(deployment), id: id.to_owned(), debt: None, has_failed: false };
    js::pay_later(context, PATIENCE, &deployment.objects, id, payment);
}

/// What to send along with a question about `id`. See [`Arrears::due`].
pub(crate) fn due(deployment: &Deployment, id: &str) -> Option<Report> {
    let now = clock::now().as_millis();
    ARREARS.with_borrow_mut(|arrears| arrears.due(id, now, deployment.nonce()))
}

/// Takes note of what became of a question that carried the debt of this nonce.
pub(crate) fn note_reply(id: &str, nonce: u64, reply: &Reply) {
    ARREARS.with_borrow_mut(|arrears| match reply {
        Reply::Answer(Answer::Failed) => arrears.take_back(id, nonce),
        Reply::Answer(_) => arrears.settle(id, nonce),
        Reply::Lost(_) | Reply::Overloaded(_) | Reply::Failed(_) => arrears.doubt(id, nonce),
    });
}

/// A debt that is paid without a call to ride along with. JavaScript holds it until its time has come.
#[wasm_bindgen]
pub struct Payment {
    deployment: Rc<Deployment>,
    id: String,
    debt: Option<Report>,
    has_failed: bool,
}

#[wasm_bindgen]
impl Payment {
    /// What to ask the object next; nothing once all is paid, or after a failure.
    pub fn url(&mut self) -> Option<String> {
        self.debt = if self.has_failed { None } else { due(&self.deployment, &self.id) };
        if self.debt.is_none() {
            ARREARS.with_borrow_mut(|arrears| arrears.end_timer(&self.id));
        }
        self.debt.as_ref().map(|debt| Question::Settle { id: &self.id, debt: debt.debt() }.to_url())
    }

    /// Takes note of the answer. Without one the debt stays, for the next question.
    pub fn resume(&mut self, line: &str) {
        let Some(debt) = &self.debt else { return };
        let reply = object_client::read(line, &self.id);
        self.has_failed = !matches!(reply, Reply::Answer(ref answer) if *answer != Answer::Failed);
        if let Reply::Lost(fault) | Reply::Overloaded(fault) | Reply::Failed(fault) = &reply {
            worker::console_error!("tollgate: {fault}");
        }
        note_reply(&self.id, debt.nonce, &reply);
    }
}
