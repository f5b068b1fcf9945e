//! Dispatches requests to operations and turns their results into responses.

use crate::admin::parameters::Parameters;
use crate::gateway::ratelimit_headers::RateLimits;
use crate::http::problem::Problem;
use crate::router::{Admin, Endpoint, Scope};
use crate::runtime::admin::authorize::authorize;
use crate::runtime::admin::command::{Command, CommandResult, Failure, Success};
use crate::runtime::admin::{
    audit, imports, keys, log, overrides, reports, reservations, route_costs, tiers, token_routes, tokens,
};
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::http::{self, HttpResult};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::runtime::store::database::Database;
use std::rc::Rc;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// Handles a request to the admin API.
pub(crate) async fn answer(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    env: Env,
    context: JsValue,
    endpoint: &'static Endpoint,
    operation: Admin,
) -> HttpResult {
    let (cors, forms) = (Rc::clone(&isolate.config.cors_allow_origin), isolate.config.forms());
    match run(incoming, isolate, &env, context, endpoint, operation).await {
        Ok(Success::Json(status, body)) => http::json(status, &body, &cors),
        Ok(Success::OfKey(status, body, known)) => {
            http::json_of_key(status, &body, &cors, RateLimits::of_call(&known, forms))
        }
        Ok(Success::Lines(lines, media_type)) => http::lines(&lines, media_type, &cors),
        Ok(Success::NoContent) => http::no_content(&cors),
        Ok(Success::Csv(rows, name)) => http::csv(&rows, &name, &cors),
        Err(Failure::Refused(refusal)) => http::refuse(&refusal, &cors, None),
        Err(Failure::OfKey(refusal, known)) => http::refuse(&refusal, &cors, Some(RateLimits::of_call(&known, forms))),
        Err(Failure::Error(error)) => {
            worker::console_error!("tollgate: admin API: {error}");
            http::refuse(&Problem::Unavailable("the request could not be completed: try again"), &cors, None)
        }
    }
}

async fn run(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    env: &Env,
    context: JsValue,
    endpoint: &Endpoint,
    operation: Admin,
) -> CommandResult {
    let now = clock::now();
    let db = Database::of(env)?;
    let actor = authorize(&incoming, &isolate, &db, &context, endpoint.scope.unwrap_or(Scope::Root), now).await?;
    let parameters = Parameters::parse(incoming.target().query(), endpoint.parameters)?;
    let body = match endpoint.body_limit {
        0 => Vec::new(),
        limit => read_body(&incoming, limit).await?,
    };
    let header = |name| incoming.request.headers().get(name).ok().flatten();
    let (accept, idempotency_key) = (header("accept"), header("idempotency-key"));
    let path = incoming.target().path;
    let command = Command { isolate, db, context, actor, now, parameters, body, accept, idempotency_key };
    dispatch(&command, operation, endpoint.captures(path).unwrap_or_default()).await
}

/// Runs an operation. The path parameters are as sent; `id` is the name for tiers, `part` a policy or
/// reservation.
async fn dispatch(command: &Command, operation: Admin, [id, part]: [&str; 2]) -> CommandResult {
    match operation {
        Admin::CreateKey => keys::create(command).await,
        Admin::ImportKeys => imports::import(command).await,
        Admin::ListKeys => keys::list(command).await,
        Admin::ReadKey => keys::read(command, id).await,
        Admin::ChangeKey => keys::change(command, id).await,
        Admin::DeleteKey => keys::delete(command, id).await,
        Admin::RotateKey => keys::rotate(command, id).await,
        Admin::RevokeKey => keys::revoke(command, id).await,
        Admin::ReadUsage => keys::usage(command, id).await,
        Admin::ReadAudit => audit::read(command, id).await,
        Admin::ListOverrides => overrides::list(command, id).await,
        Admin::PutOverride => overrides::put(command, id, part).await,
        Admin::DeleteOverride => overrides::delete(command, id, part).await,
        Admin::ListReservations => reservations::list(command, id).await,
        Admin::CreateReservation => reservations::create(command, id).await,
        Admin::SettleReservation => reservations::settle(command, id, part).await,
        Admin::ReleaseReservation => reservations::release(command, id, part).await,
        Admin::ListTiers => tiers::list(command).await,
        Admin::ReadTier => tiers::read(command, id).await,
        Admin::PutTier => tiers::put(command, id).await,
        Admin::DeleteTier => tiers::delete(command, id).await,
        Admin::ListRouteCosts => route_costs::list(command).await,
        Admin::PutRouteCost => route_costs::put(command).await,
        Admin::DeleteRouteCost => route_costs::delete(command).await,
        Admin::ListTokenRoutes => token_routes::list(command).await,
        Admin::PutTokenRoute => token_routes::put(command).await,
        Admin::DeleteTokenRoute => token_routes::delete(command).await,
        Admin::ListTokens => tokens::list(command).await,
        Admin::CreateToken => tokens::create(command).await,
        Admin::DeleteToken => tokens::delete(command, id).await,
        Admin::ReadLog => log::read(command).await,
        Admin::Reconcile => reports::reconciled(command, id).await,
        Admin::Report => reports::report(command).await,
        Admin::ReadHours => reports::hours(command, id).await,
        Admin::ReadDays => reports::days(command, id).await,
        Admin::ReadHistory => reports::history(command, id).await,
        Admin::ListAlerts => reports::alerts(command).await,
        Admin::ListDeliveries => reports::deliveries(command).await,
        Admin::ListDrift => reports::drift(command).await,
    }
}

async fn read_body(incoming: &Incoming, limit: usize) -> Result<Vec<u8>, Failure> {
    let body = JsFuture::from(js::request::read_body(&incoming.request, limit)).await.map_err(Error::from)?;
    let body = body.dyn_into::<js_sys::Uint8Array>().map_err(|_| Problem::TooLarge(limit))?;
    Ok(body.to_vec())
}
