//! The handlers of the Worker: where requests and the cron trigger enter.
//!
//! # Panics
//! None are meant to happen, and lints keep panicking code out. One would end the instance of the
//! wasm, as every trap does: the next request gets a new one, which begins as after an eviction,
//! and calls that were in flight are answered 500 or 503.

use crate::http::problem::Problem;
use crate::router::{Operation, Public, Route, route};
use crate::runtime::gateway::{gate, loop_guard, self_service};
use crate::runtime::handler::{or_internal_error, promise};
use crate::runtime::http::HttpResult;
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::{admin, cron, http};
use js_sys::Promise;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use worker::{Env, event};

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// The Worker's `fetch` handler. Written out instead of by `worker`'s macro, which takes every
/// request apart and turns every answer into a promise.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn fetch(request: web_sys::Request, env: Env, context: JsValue) -> Result<JsValue, JsValue> {
    or_internal_error(answer(request, env, context))
}

/// The answer to a request that the crate could not end: for `entry.js`.
#[wasm_bindgen(js_name = internalError)]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn internal_error(env: &Env) -> Result<JsValue, JsValue> {
    // In a new instance nothing has been read yet.
    let isolate = Isolate::get(env);
    let cors = isolate.map_or_else(|_| Isolate::cors(), |isolate| Rc::clone(&isolate.config.cors_allow_origin));
    or_internal_error(http::refuse(&Problem::Internal, &cors, None))
}

/// The Worker's `scheduled` handler.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn scheduled(_event: JsValue, env: Env, _context: JsValue) -> Promise {
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(cron::answer(env)))
}

fn answer(request: web_sys::Request, env: Env, context: JsValue) -> HttpResult {
    let isolate = Isolate::get(&env);
    let cors = Isolate::cors();
    let refuse = |refusal: Problem| http::refuse(&refusal, &cors, None);
    let incoming = match Incoming::new(request) {
        Ok(incoming) => incoming,
        Err(error) => return refuse(Problem::BadRequest(error.to_string())),
    };
    if let Ok(isolate) = &isolate
        && let Some(answer) = loop_guard::answer_own(&incoming, isolate)
    {
        return answer;
    }
    let route = route(&incoming.method, incoming.target().path, incoming.preflight.is_some());
    if let Route::Endpoint(endpoint) = route
        && let Operation::Public(operation) = endpoint.operation
    {
        // Whatever is set up: health is asked to find that out.
        return answer_public(operation, &cors);
    }
    let isolate = match isolate {
        Ok(isolate) => isolate,
        Err(error) => {
            worker::console_error!("tollgate is not configured: {error}");
            return refuse(Problem::Unavailable("tollgate is not configured: the log of the Worker says why"));
        }
    };
    match route {
        Route::Gate => gate::enter(incoming, isolate, context),
        Route::Preflight => http::preflight(&cors),
        Route::Endpoint(endpoint) => match endpoint.operation {
            Operation::Public(operation) => answer_public(operation, &cors),
            Operation::SelfServiceRoute(operation) => {
                Ok(promise(self_service::answer(incoming, isolate, context, operation)).into())
            }
            Operation::Admin(operation) => {
                Ok(promise(admin::answer::answer(incoming, isolate, env, context, endpoint, operation)).into())
            }
        },
        Route::MethodNotAllowed(allow) => refuse(Problem::MethodNotAllowed(allow)),
        Route::NotFound => refuse(Problem::NotFound("tollgate has no endpoint at this path".to_owned())),
    }
}

fn answer_public(operation: Public, cors: &str) -> HttpResult {
    match operation {
        Public::Health => http::health(cors),
        Public::Openapi => http::openapi(cors),
    }
}
