//! The thin shell around the core: requests, objects, storage. It fetches facts and carries out verdicts.
//!
//! # Panics
//! None are meant to happen, and lints keep panicking code out. One would end the instance of the wasm, as every trap does: the next
//! request or question gets a new one, which begins as after an eviction, and calls that were under way are answered 500 or 503.

mod admin;
mod bindings;
mod clock;
mod cron;
mod deadline;
mod gateway;
mod http;
mod js;
mod object;
mod store;

use crate::http::problem::Refusal;
use crate::router::{Route, route};
use crate::runtime::bindings::Deployment;
use crate::runtime::http::{Answer, Incoming};
use js_sys::Promise;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use worker::{Env, event};

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// Ensures that pointers into a crashed wasm instance are never used by its replacement.
///
/// `worker` has the next call, whatever it is, put a new instance in place: even a call of an object that the old one has left in
/// JavaScript, which would then take its pointer along. So that is left to those who begin something: see `entry.js`. To be called
/// by them, because `worker` sets its own hook when the instance starts, before or after [`start`].
fn mind_traps() {
    wasm_bindgen::handler::set_on_abort(js::note_end);
}

/// The Worker's `fetch` handler. Written out instead of by `worker`'s macro, which takes every request apart and turns every
/// answer into a promise.
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
    let deployment = Deployment::get(env);
    let cors =
        deployment.map_or_else(|_| Deployment::cors(), |deployment| Rc::clone(&deployment.config.cors_allow_origin));
    or_internal_error(http::refuse(&Refusal::Internal, &cors, None))
}

/// The Worker's `scheduled` handler.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn scheduled(_event: JsValue, env: Env, _context: JsValue) -> Promise {
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(cron::answer(env)))
}

/// A fault that nothing else has taken care of: logged, and opaque to the client.
fn or_internal_error(answer: Answer) -> Result<JsValue, JsValue> {
    let answer = answer.or_else(|fault| {
        worker::console_error!("tollgate: {fault}");
        http::refuse(&Refusal::Internal, &Deployment::cors(), None)
    });
    answer.map_err(|fault| JsError::new(&fault.to_string()).into())
}

fn promise(work: impl Future<Output = Answer> + 'static) -> Promise {
    // Boxed, so that what makes a promise of it is compiled once and not for each kind of work.
    let work: Pin<Box<dyn Future<Output = Answer>>> = Box::pin(work);
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(async move { or_internal_error(work.await) }))
}

fn answer(request: web_sys::Request, env: Env, context: JsValue) -> Answer {
    let deployment = Deployment::get(&env);
    let cors = Deployment::cors();
    let refuse = |refusal: Refusal| http::refuse(&refusal, &cors, None);
    let incoming = match Incoming::new(request) {
        Ok(incoming) => incoming,
        Err(error) => return refuse(Refusal::BadRequest(error.to_string())),
    };
    if let Ok(deployment) = &deployment
        && let Some(answer) = gateway::loop_guard::answer_own(&incoming, deployment)
    {
        return answer;
    }
    let route = route(&incoming.method, incoming.target().path, incoming.preflight.is_some());
    if route == Route::Health {
        // Whatever is set up: it is asked to find that out.
        return http::health(&cors);
    }
    if route == Route::OpenApi {
        return http::openapi(&cors);
    }
    let deployment = match deployment {
        Ok(deployment) => deployment,
        Err(fault) => {
            worker::console_error!("tollgate is not set up: {fault}");
            return refuse(Refusal::Unavailable("tollgate is not set up"));
        }
    };
    match route {
        Route::Gate => gateway::gate::gate(incoming, deployment, context),
        Route::Preflight => http::preflight(&cors),
        Route::Admin(_) => Ok(promise(admin::answer(incoming, deployment, env, context)).into()),
        Route::MethodNotAllowed(allow) => refuse(Refusal::MethodNotAllowed(allow)),
        Route::NotFound => refuse(Refusal::NotFound("there is nothing at this path".to_owned())),
        Route::Holder(wanted) => {
            Ok(promise(gateway::self_service::answer(incoming, deployment, context, wanted)).into())
        }
        Route::Health => http::health(&cors),
        Route::OpenApi => http::openapi(&cors),
    }
}
