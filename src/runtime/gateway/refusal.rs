//! Responses to calls that are not admitted.

use crate::gateway::deny_cache::Keyed;
use crate::gateway::ratelimit_headers::RateLimits;
use crate::http::idempotency_key::MAX_KEY;
use crate::http::problem::Problem;
use crate::limiter::policy::Unit;
use crate::protocol::object_request::Call;
use crate::protocol::object_response::{KeyResponse, KeyVerdict};
use crate::runtime::gateway::outbox;
use crate::runtime::http::{self, HttpResult};
use crate::runtime::isolate::{Isolate, RENDERED};
use std::rc::Rc;
use wasm_bindgen::JsValue;

/// The cached refusal of a call, if one applies.
pub(super) fn refuse_at_once(
    isolate: &Rc<Isolate>,
    (context, call): (&JsValue, Call<'_>),
    keyed: Keyed,
    now: u64,
) -> Option<HttpResult> {
    let mut denials = isolate.denials.borrow_mut();
    let denial = denials.find(call, keyed, now)?;
    let (number, until) = (denial.number(), now.saturating_add(denial.unchanged_for(now)));
    let mut rendered = isolate.rendered.borrow_mut();
    if let Some(rendered) = rendered.get(call.id).filter(|rendered| rendered.number == number && now < rendered.until) {
        // Other refusals are not counted.
        if rendered.status == 429 {
            outbox::add_denied(isolate, context, call.id, now);
        }
        return Some(http::give(rendered));
    }
    let config = &isolate.config;
    let known = denial.at(now);
    if let KeyVerdict::Denied { .. } = known.verdict {
        outbox::add_denied(isolate, context, call.id, now);
    }
    let refusal = refusal_of(&known)?;
    let fresh = match http::render(
        &refusal,
        &config.cors_allow_origin,
        RateLimits::of_call(&known, config.forms()),
        number,
        until,
    ) {
        Ok(fresh) => fresh,
        Err(error) => return Some(Err(error)),
    };
    let answer = http::give(&fresh);
    if rendered.len() >= RENDERED {
        rendered.clear();
    }
    rendered.insert(call.id.to_owned(), fresh);
    Some(answer)
}

/// The response to a call that is not admitted.
pub(super) fn refusal_of(known: &KeyResponse) -> Option<Problem> {
    Some(match &known.verdict {
        KeyVerdict::Admitted(_) => return None,
        KeyVerdict::Denied { .. } => http::quota_exceeded(known)?,
        KeyVerdict::CostExceedsQuota { policy, cost } => {
            let (name, quota, unit) = known
                .usage
                .policies
                .get(*policy)
                .map_or(("", 0, Unit::Requests), |policy| (policy.name.as_str(), policy.quota, policy.unit));
            let costs = match unit {
                Unit::Requests => format!("costs {cost}"),
                Unit::Tokens => format!("may use {cost} tokens"),
            };
            Problem::BadRequest(format!(
                "this call {costs}, more than the quota of {quota} of policy {name}: it can never be admitted"
            ))
        }
        // The request named no hold by the object's own terms, so nothing is counted.
        KeyVerdict::LacksHold(_) => {
            Problem::Unavailable("the tokens of the call could not be counted, so it was not forwarded: try again")
        }
        KeyVerdict::Conflict => Problem::InFlight,
        KeyVerdict::Mismatch => Problem::OtherRequest,
        KeyVerdict::Malformed => Problem::BadRequest(format!(
            "Idempotency-Key must be 1 to {MAX_KEY} characters of visible ASCII and spaces"
        )),
        KeyVerdict::Refused(status) => Problem::Forbidden(status.refusal().unwrap_or("the API key may not be used")),
    })
}
