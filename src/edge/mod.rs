//! The thin shell around the core: requests, objects, storage. It fetches facts and carries out verdicts.
//!
//! # Panics
//! None are meant to happen, and lints keep panicking code out; the build unwinds all the same, so that one would cost one request.

mod admin_api;
mod arrears;
mod clock;
mod deployment;
mod flush;
mod gateway;
mod http;
mod js;
mod key_object;
mod key_store;
mod object_client;
mod origin;
mod storage;

use self::deployment::Deployment;
use self::http::{Answer, Incoming};
use crate::refusal::Refusal;
use crate::route::{Route, route};
use crate::target::Target;
use js_sys::Promise;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll, Waker};
use wasm_bindgen::prelude::*;
use worker::{Env, event};

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// The Worker's `fetch` handler. Written out instead of by `worker`'s macro, which turns every request into a promise: most
/// refusals need none.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "exported to JavaScript, not to other crates")]
pub fn fetch(request: web_sys::Request, env: Env, _context: JsValue) -> Result<JsValue, JsValue> {
    now_or_later(async move {
        let request = Incoming::new(request);
        let answer = answer(&request, &env).await.or_else(|fault| {
            worker::console_error!("tollgate: {fault}");
            http::refuse(&Refusal::Internal, "*", None)
        });
        answer.map_err(|fault| JsError::new(&fault.to_string()).into())
    })
}

/// Runs `work` until it has to wait: what is done by then is returned as it is, the rest as a promise.
fn now_or_later<F>(work: F) -> Result<JsValue, JsValue>
where
    F: Future<Output = Result<JsValue, JsValue>> + 'static,
{
    let mut work = Box::pin(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        // What it waits for is a promise, which is asked again when the task is first run, with a waker that wakes.
        Poll::Pending => Ok(promise(work).into()),
    }
}

fn promise(work: impl Future<Output = Result<JsValue, JsValue>> + 'static) -> Promise {
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(work))
}

async fn answer(request: &Incoming, env: &Env) -> Answer {
    let target = match Target::parse(&request.url) {
        Ok(target) => target,
        Err(error) => return http::refuse(&Refusal::BadRequest(error.to_string()), "*", None),
    };
    let route = route(&request.method, target.path, request.is_preflight);
    if route == Route::Health {
        // Before anything is set up: it is asked to find that out.
        return http::health();
    }
    let deployment = match Deployment::get(env) {
        Ok(deployment) => deployment,
        Err(fault) => {
            worker::console_error!("tollgate is not set up: {fault}");
            return http::refuse(&Refusal::Unavailable("tollgate is not set up"), "*", None);
        }
    };
    let cors = &deployment.config.cors_allow_origin;
    let refuse = |refusal: Refusal| http::refuse(&refusal, cors, None);
    match route {
        Route::Gate => gateway::gate(request, target, &deployment).await,
        Route::Preflight => http::preflight(cors),
        Route::Admin(admin) => admin_api::answer(request, admin, &deployment, env).await,
        Route::MethodNotAllowed(allow) => refuse(Refusal::MethodNotAllowed(allow)),
        Route::NotFound => refuse(Refusal::NotFound("there is nothing at this path".to_owned())),
        Route::Health => http::health(),
    }
}
