//! Turns the results of handlers into responses.

use crate::http::problem::Problem;
use crate::runtime::http::{self, HttpResult};
use crate::runtime::isolate::Isolate;
use js_sys::Promise;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use wasm_bindgen::prelude::*;

/// Turns an error into a 500, which is logged and opaque to the client.
pub(crate) fn or_internal_error(answer: HttpResult) -> Result<JsValue, JsValue> {
    let answer = answer.or_else(|error| {
        worker::console_error!("tollgate: {error}");
        http::refuse(&Problem::Internal, &Isolate::cors(), None)
    });
    answer.map_err(|error| JsError::new(&error.to_string()).into())
}

pub(crate) fn promise(work: impl Future<Output = HttpResult> + 'static) -> Promise {
    // Boxed, so that the conversion to a promise is compiled once and not per type of future.
    let work: Pin<Box<dyn Future<Output = HttpResult>>> = Box::pin(work);
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(async move { or_internal_error(work.await) }))
}
