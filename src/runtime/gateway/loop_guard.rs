//! Checks, before a call is counted, whether the origin leads back to the gate.

use crate::gateway::loop_guard::{MARK, Place, ProbeResult, Way};
use crate::gateway::outbound::own_base;
use crate::http::problem::Problem;
use crate::runtime::handler::promise;
use crate::runtime::http::{self, HttpResult};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::{clock, js};
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;

/// A path that is never forwarded for clients, so they cannot choose the response to a probe.
const PROBED: &str = "/_tollgate/health";
/// Timeout of a probe, in milliseconds.
const PROBE_TIMEOUT: u32 = 2_000;

/// The response to a request that the gate sent to itself. `None` for any other request.
pub(crate) fn answer_own(incoming: &Incoming, isolate: &Isolate) -> Option<HttpResult> {
    let mark = incoming.mark.as_deref()?;
    let is_own = isolate.seal.verifies(mark, incoming.place()?, clock::now().as_millis());
    is_own.then(|| http::called_by_itself(&isolate.seal.proof(mark), &isolate.config.cors_allow_origin))
}

/// Passes a request on to `go_on`, or refuses it if it would return to the gate. `requested_at` is the
/// current time; `go_on` receives the time at which it is called.
pub(crate) fn unless_looping<R: AsRef<Incoming> + 'static>(
    request: R,
    isolate: Rc<Isolate>,
    requested_at: u64,
    go_on: impl FnOnce(R, Rc<Isolate>, u64) -> HttpResult + 'static,
) -> HttpResult {
    let way = place(request.as_ref(), &isolate).map_or(Way::Open, |place| {
        let mut loops = isolate.loops.borrow_mut();
        if js::origin::has_seen_loop() {
            loops.suspect(requested_at);
        }
        loops.way(place, requested_at)
    });
    let refuse = |isolate: &Isolate| http::refuse(&Problem::Loop, &isolate.config.cors_allow_origin, None);
    match way {
        Way::Open => go_on(request, isolate, requested_at),
        Way::Loop => refuse(&isolate),
        Way::Probe => {
            let work = async move {
                if leads_back(request.as_ref(), &isolate).await {
                    return refuse(&isolate);
                }
                go_on(request, isolate, clock::now().as_millis())
            };
            Ok(promise(work).into())
        }
    }
}

/// The mark for a request to a host that may be the gate itself.
pub(crate) fn mark(incoming: &Incoming, isolate: &Isolate) -> Option<String> {
    let place = place(incoming, isolate)?;
    let now = clock::now().as_millis();
    let mut loops = isolate.loops.borrow_mut();
    loops.mark(place, &isolate.seal, now, || isolate.nonce()).map(str::to_owned)
}

/// The host that the request would be forwarded to, if it may be the gate itself.
fn place<'a>(incoming: &'a Incoming, isolate: &'a Isolate) -> Option<Place<'a>> {
    let own = incoming.place()?;
    match &isolate.config.origin {
        None => Some(own),
        Some(origin) => Place::of(origin).filter(|origin| origin.may_be(own)),
    }
}

/// Probes a place and records the result.
async fn leads_back(incoming: &Incoming, isolate: &Isolate) -> bool {
    let Some(place) = place(incoming, isolate) else { return false };
    let mark = isolate.seal.mark(place, clock::now().as_millis(), isolate.nonce());
    let base = isolate.config.origin.as_deref().unwrap_or_else(|| own_base(&incoming.url));
    let url = format!("{base}{PROBED}");
    let response = JsFuture::from(js::origin::probe(&url, MARK, &mark, PROBE_TIMEOUT)).await.ok();
    let found = match response.and_then(|response| response.dyn_into::<web_sys::Response>().ok()) {
        Some(response) if is_proof(&response, &mark, isolate) => ProbeResult::Itself,
        Some(_) => ProbeResult::Other,
        None => ProbeResult::NoAnswer,
    };
    if found == ProbeResult::Itself {
        worker::console_error!("tollgate: {}", Problem::Loop.detail());
    }
    isolate.loops.borrow_mut().record(place, found, clock::now().as_millis());
    found == ProbeResult::Itself
}

/// Whether a gate of this deployment responded to a request with this mark.
fn is_proof(response: &web_sys::Response, mark: &str, isolate: &Isolate) -> bool {
    let proof = response.headers().get(MARK).ok().flatten();
    response.status() == Problem::Loop.status() && proof.is_some_and(|proof| isolate.seal.proves(mark, &proof))
}
