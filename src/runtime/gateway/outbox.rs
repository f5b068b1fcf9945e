//! The isolate's [`Outbox`]: kept between requests, and paid by a timer if no question takes them along.

use crate::gateway::outbox::{CAPACITY, MaybeCounted, Outbox, Report};
use crate::protocol::object_request::{Call, ObjectRequest};
use crate::protocol::object_response::ObjectResponse;
use crate::runtime::gateway::object_client::{self, Reply};
use crate::runtime::isolate::Isolate;
use crate::runtime::{clock, js};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// How long a report waits for a question to ride along with, in milliseconds.
const PATIENCE: u32 = 5_000;

thread_local! {
    static ARREARS: RefCell<Outbox> = RefCell::default();
}

/// Notes one call that is to be forwarded uncounted. False if there is no room: then it must not be.
pub(crate) fn add_call(isolate: &Rc<Isolate>, context: &JsValue, call: Call<'_>, doubt: Option<MaybeCounted>) -> bool {
    let (now, target) = (clock::now().as_millis(), (call.method, call.path));
    let noted = ARREARS.with_borrow_mut(|outbox| outbox.add_call(call.id, now, target, doubt));
    if noted.is_some_and(|noted| noted.needs_timer) {
        pay_later(isolate, context, call.id);
    }
    noted.is_some()
}

/// Notes one call that was denied without asking.
pub(crate) fn add_denied(isolate: &Rc<Isolate>, context: &JsValue, id: &str, now: u64) {
    match ARREARS.with_borrow_mut(|outbox| outbox.add_denied(id, now)) {
        Some(noted) if noted.needs_timer => pay_later(isolate, context, id),
        Some(_) => {}
        None => {
            worker::console_error!(
                "tollgate: more than {CAPACITY} keys in outbox; a denial of key {id} is not counted"
            );
        }
    }
}

fn pay_later(isolate: &Rc<Isolate>, context: &JsValue, id: &str) {
    let payment = ReportDelivery { isolate: Rc::clone(isolate), id: id.to_owned(), report: None, has_failed: false };
    js::pay_later(context, PATIENCE, &isolate.objects, id, payment);
}

/// What to send along with a question about `id`. See [`Outbox::next_report`].
pub(crate) fn next_report(isolate: &Isolate, id: &str) -> Option<Report> {
    let now = clock::now().as_millis();
    ARREARS.with_borrow_mut(|outbox| outbox.next_report(id, now, isolate.nonce()))
}

/// Takes note of what became of a question that carried the report of this nonce.
pub(crate) fn note_reply(id: &str, nonce: u64, reply: &Reply) {
    ARREARS.with_borrow_mut(|outbox| match reply {
        Reply::Response(ObjectResponse::Failed) => outbox.requeue(id, nonce),
        Reply::Response(_) => outbox.acknowledge(id, nonce),
        Reply::Lost(_) | Reply::Overloaded(_) | Reply::Failed(_) => outbox.mark_maybe_counted(id, nonce),
    });
}

/// A report that is paid without a call to ride along with. JavaScript holds it until its time has come.
#[wasm_bindgen]
pub struct ReportDelivery {
    isolate: Rc<Isolate>,
    id: String,
    report: Option<Report>,
    has_failed: bool,
}

#[wasm_bindgen]
impl ReportDelivery {
    /// What to ask the object next; nothing once all is paid, or after a failure.
    pub fn url(&mut self) -> Option<String> {
        self.report = if self.has_failed { None } else { next_report(&self.isolate, &self.id) };
        if self.report.is_none() {
            ARREARS.with_borrow_mut(|outbox| outbox.end_timer(&self.id));
        }
        self.report.as_ref().map(|report| ObjectRequest::Report { id: &self.id, report: report.report() }.to_url())
    }

    /// Takes note of the answer. Without one the report stays, for the next question.
    pub fn resume(&mut self, line: &str) {
        let Some(report) = &self.report else { return };
        let reply = object_client::read(line, &self.id);
        self.has_failed = !matches!(reply, Reply::Response(ref answer) if *answer != ObjectResponse::Failed);
        if let Reply::Lost(error) | Reply::Overloaded(error) | Reply::Failed(error) = &reply {
            worker::console_error!("tollgate: {error}");
        }
        note_reply(&self.id, report.nonce, &reply);
    }
}
