//! The entry of requests for the origin. Requests that need no key are forwarded, those without a
//! valid key refused. All others become a [`call`].

use crate::config::Preflight;
use crate::http::problem::Problem;
use crate::runtime::clock;
use crate::runtime::gateway::authenticate::{Presented, authenticate};
use crate::runtime::gateway::call::{self, Authenticated};
use crate::runtime::gateway::loop_guard::unless_looping;
use crate::runtime::gateway::origin;
use crate::runtime::handler::promise;
use crate::runtime::http::{self, HttpResult};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use std::rc::Rc;
use wasm_bindgen::JsValue;

/// Handles a request for the origin.
pub(crate) fn enter(incoming: Incoming, isolate: Rc<Isolate>, context: JsValue) -> HttpResult {
    let config = &isolate.config;
    let refuse = |problem: Problem| http::refuse(&problem, &config.cors_allow_origin, None);
    if let Err(error) = incoming.framing {
        return refuse(Problem::BadRequest(error.to_string()));
    }
    if let Some(asked) = &incoming.preflight {
        return match config.preflight {
            Preflight::Answer => http::grant(asked, &config.cors_allow_origin),
            Preflight::Forward => forward_unmetered(incoming, isolate, origin::forward_preflight),
        };
    }
    if config.is_public(incoming.target().path) {
        return forward_unmetered(incoming, isolate, origin::forward_public);
    }
    let now = clock::now().as_millis();
    let (credential, presented) = match authenticate(&incoming, &isolate, now) {
        Ok((credential, presented)) => (credential.into_owned(), presented),
        Err(problem) => return refuse(problem),
    };
    match presented {
        Presented::Key(caller) => meter(Authenticated { incoming, context, credential, caller }, isolate, now),
        Presented::Invalid => refuse(Problem::InvalidKey),
        Presented::NeedsLookup(candidate) => {
            let work = async move {
                match candidate.look_up(&isolate, &context, incoming.network()).await {
                    Ok(caller) => {
                        let request = Authenticated { incoming, context, credential, caller };
                        meter(request, isolate, clock::now().as_millis())
                    }
                    Err(problem) => http::refuse(&problem, &isolate.config.cors_allow_origin, None),
                }
            };
            Ok(promise(work).into())
        }
    }
}

/// Judges a request with a valid key, unless the origin leads back to the gate.
fn meter(request: Authenticated, isolate: Rc<Isolate>, now: u64) -> HttpResult {
    unless_looping(request, isolate, now, call::begin)
}

/// Forwards a preflight or a request for a public path, unless the origin leads back to the gate.
fn forward_unmetered(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    forward: fn(&Incoming, &Isolate) -> JsValue,
) -> HttpResult {
    let now = clock::now().as_millis();
    unless_looping(incoming, isolate, now, move |incoming, isolate, _| Ok(forward(&incoming, &isolate)))
}
