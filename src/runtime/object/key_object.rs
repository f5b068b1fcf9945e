//! The Durable Object of one key. All calls of a key are judged here, by one clock.
//!
//! The runtime delivers a key's requests to one object, one event at a time, and Rust code between
//! two awaits runs alone. So reading, deciding and counting are one synchronous step in memory that
//! needs no lock. A row then makes the count durable. Requests that arrive while a write is pending
//! share the next one. None of them is answered before its row is written, and the runtime's output
//! gate holds the responses back until the row is confirmed. If the write fails, memory is
//! discarded and read again from storage, and every request that waited for the write fails:
//! nothing was counted.

use crate::protocol::object_request::ObjectRequest;
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::handler::promise;
use crate::runtime::js::instance::install_abort_hook;
use crate::runtime::object::parts::ObjectParts;
use crate::runtime::object::{alarm_work, calls, look_ups, reply, reservations, tier_changes};
use js_sys::Promise;
use std::panic::{AssertUnwindSafe, RefUnwindSafe};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use worker::worker_sys::DurableObjectState;
use worker::{Env, State};

/// The class that the runtime instantiates. It only dispatches events. It is not made by `worker`'s
/// macro, which would convert every request and response.
#[wasm_bindgen]
pub struct KeyObject {
    parts: Rc<ObjectParts>,
}

// A panic ends the wasm instance; the next event gets a new one, which reads storage.
impl RefUnwindSafe for KeyObject {}

#[wasm_bindgen]
impl KeyObject {
    /// Does nothing that could fail: an object whose constructor throws fails until it is
    /// constructed again.
    #[wasm_bindgen(constructor)]
    pub fn new(state: DurableObjectState, env: Env) -> Self {
        install_abort_hook();
        Self { parts: Rc::new(ObjectParts::new(State::from(state), env)) }
    }

    /// Answers a request about calls: with a line, or with its promise if it has to wait.
    ///
    /// # Errors
    /// If it is not such a request.
    pub fn ask(&self, request: String) -> Result<JsValue, JsValue> {
        let (parts, now) = (&self.parts, clock::now());
        match ObjectRequest::parse(&request) {
            Some(ObjectRequest::Check(check)) if parts.reader.is_ready(check.call.id, calls::found(&check), now) => {
                Ok(calls::answer(parts, &check, now))
            }
            Some(
                ObjectRequest::Check(_)
                | ObjectRequest::Report { .. }
                | ObjectRequest::CallOutcomes { .. }
                | ObjectRequest::RenewHold { .. },
            ) => {
                let parts = Rc::clone(parts);
                let line = async move { Ok(calls::answer_later(&parts, &request).await) };
                Ok(wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(line)).into())
            }
            _ => Err(JsError::new("not a request about calls").into()),
        }
    }

    /// Answers the other requests, most of them with JSON.
    pub fn fetch(&self, request: web_sys::Request) -> Promise {
        let (parts, url) = (Rc::clone(&self.parts), request.url());
        promise(async move {
            match ObjectRequest::parse(&url) {
                Some(ObjectRequest::ApplyTier { .. }) => tier_changes::apply(&parts, &request).await,
                Some(ObjectRequest::FanOut { .. }) => tier_changes::fan_out(&parts, &request).await,
                Some(ObjectRequest::Usage { id }) => look_ups::usage(&parts, id).await,
                Some(ObjectRequest::Audit { id, page }) => look_ups::audit(&parts, id, page).await,
                Some(ObjectRequest::Refresh { id }) => {
                    parts.reader.refresh(id).await?;
                    reply::json(&())
                }
                Some(ObjectRequest::Stats { .. }) => look_ups::stats(&parts),
                Some(ObjectRequest::Reconcile { .. }) => look_ups::counts(&parts).await,
                Some(ObjectRequest::KeyStatus { id, secret_hash, is_found }) => {
                    look_ups::key_status(&parts, id, secret_hash, is_found).await
                }
                Some(ObjectRequest::Hold { id, request, is_concurrent }) => {
                    reservations::answer(&parts, id, &request, is_concurrent).await
                }
                _ => Err(Error::new("not a request to a key's object")),
            }
        })
    }

    /// Handles the alarm.
    pub fn alarm(&self) -> Promise {
        let parts = Rc::clone(&self.parts);
        promise(async move {
            alarm_work::run(&parts).await;
            Ok(JsValue::UNDEFINED)
        })
    }
}
