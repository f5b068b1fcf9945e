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
use worker::{Context, Env, event};

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

#[event(fetch)]
async fn fetch(request: Incoming, env: Env, _context: Context) -> worker::Result<web_sys::Response> {
    let answer = answer(&request, &env).await.or_else(|fault| {
        worker::console_error!("tollgate: {fault}");
        http::refuse(&Refusal::Internal, "*", None)
    });
    answer.map_err(|fault| worker::Error::RustError(fault.to_string()))
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
