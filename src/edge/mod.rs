//! The thin shell around the core: requests, objects, storage. It fetches facts and carries out verdicts.
//!
//! # Panics
//! None are meant to happen, and lints keep panicking code out. One would end the instance of the wasm: `worker-build` puts a new one
//! in its place, which begins as after an eviction.

mod admin;
mod alerts;
mod arrears;
mod caller;
mod clock;
mod commit;
mod company;
mod deployment;
mod flush;
mod gateway;
mod holder;
mod http;
mod js;
mod key_object;
mod key_store;
mod object_client;
mod origin;
mod push;
mod reconcile;
mod renewal;
mod storage;
mod timer;
mod upkeep;

use self::deployment::Deployment;
use self::http::{Answer, Incoming};
use crate::refusal::Refusal;
use crate::route::{Route, route};
use js_sys::Promise;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use wasm_bindgen::prelude::*;
use worker::{Env, event};

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// The Worker's `fetch` handler. Written out instead of by `worker`'s macro, which takes every request apart and turns every
/// answer into a promise.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn fetch(request: web_sys::Request, env: Env, context: JsValue) -> Result<JsValue, JsValue> {
    or_internal_error(answer(request, env, context))
}

/// The Worker's `scheduled` handler.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn scheduled(_event: JsValue, env: Env, _context: JsValue) -> Promise {
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(upkeep::answer(env)))
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
    let route = route(&incoming.method, incoming.target().path, incoming.is_preflight);
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
        Route::Gate => gateway::gate(incoming, deployment, env, context),
        Route::Preflight => http::preflight(&cors),
        Route::Admin(_) => Ok(promise(admin::answer(incoming, deployment, env, context)).into()),
        Route::MethodNotAllowed(allow) => refuse(Refusal::MethodNotAllowed(allow)),
        Route::NotFound => refuse(Refusal::NotFound("there is nothing at this path".to_owned())),
        Route::Holder(wanted) => Ok(promise(holder::answer(incoming, deployment, env, wanted)).into()),
        Route::Health => http::health(&cors),
        Route::OpenApi => http::openapi(&cors),
    }
}
