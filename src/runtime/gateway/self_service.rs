//! Self-service endpoints, authenticated by the API key. Read-only; they never reveal another key.

use crate::admin::parameters::Parameters;
use crate::config::Config;
use crate::gateway::credential::QUERY_NAME;
use crate::gateway::ratelimit_headers::RateLimits;
use crate::gateway::self_service::{self, Permit};
use crate::http::problem::Problem;
use crate::keys::profile::Status;
use crate::protocol::key_status::{KeyStatus, KeyStatusResponse, StatusAndUsage};
use crate::router::SelfServiceRoute;
use crate::runtime::error::Error;
use crate::runtime::gateway::authenticate::{Caller, Presented, authenticate};
use crate::runtime::gateway::object_client;
use crate::runtime::http::{self, HttpResult};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::store::database::Database;
use crate::runtime::{clock, store};
use crate::time::{HOUR, Month, UnixMicros, rfc3339};
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::Env;

/// Number of hours before the current one that are shown.
const HOURS_BEFORE: u64 = 23;

/// Answers a request.
pub(crate) async fn answer(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    context: JsValue,
    wanted: SelfServiceRoute,
) -> HttpResult {
    match find(&incoming, &isolate, &context, wanted).await {
        Ok((key, body)) => give(&isolate.config, &key, &body),
        Err((refusal, key)) => refuse(&isolate.config, &refusal, key.as_ref()),
    }
}

fn refuse(config: &Config, refusal: &Problem, key: Option<&StatusAndUsage>) -> HttpResult {
    let limits = key.map(|key| RateLimits::of_key(&key.usage, config.forms()));
    http::refuse(refusal, &config.cors_allow_origin, limits)
}

fn give(config: &Config, key: &StatusAndUsage, body: &str) -> HttpResult {
    match key.status.refusal() {
        Some(reason) => refuse(config, &Problem::Forbidden(reason), Some(key)),
        None => http::json_of_key(200, body, &config.cors_allow_origin, RateLimits::of_key(&key.usage, config.forms())),
    }
}

/// The status and usage of the presented key, and the body of the response. A refusal comes with
/// them too, if they are known.
async fn find(
    incoming: &Incoming,
    isolate: &Rc<Isolate>,
    context: &JsValue,
    wanted: SelfServiceRoute,
) -> Result<(StatusAndUsage, Rc<str>), (Problem, Option<StatusAndUsage>)> {
    let caller = caller_of(incoming, isolate, context).await.map_err(|refusal| (refusal, None))?;
    let (id, secret_hash) = (caller.id.clone(), caller.secret_hash.clone());
    let requested_at = clock::now().as_millis();
    let turn = isolate.self_service.borrow_mut().begin(&id, &secret_hash, wanted, requested_at);
    let mark = match turn {
        Permit::Cached(key, body) => return Ok((key, body)),
        Permit::Refuse { retry_after, key } => {
            let violated = vec![self_service::POLICY.to_owned()];
            return Err((Problem::QuotaExceeded { violated, retry_after }, key));
        }
        Permit::LookUp(mark) => mark,
    };
    let (key, me, month) = status_of(incoming, isolate, context, caller).await.map_err(|refusal| (refusal, None))?;
    let body = match wanted {
        _ if key.status != Status::Active => String::new(),
        SelfServiceRoute::Me => me,
        SelfServiceRoute::MyUsage => match usage(&isolate.env, &id, key.usage.now, &month).await {
            Ok(body) => body,
            Err(error) => {
                worker::console_error!("tollgate: the usage of key {id} could not be read: {error}");
                return Err((Problem::Unavailable("the usage could not be read: try again"), Some(key)));
            }
        },
    };
    let answer = self_service::CachedResponse::new(key, body, requested_at, clock::now().as_millis());
    isolate.self_service.borrow_mut().keep(&id, &secret_hash, wanted, mark, &answer);
    Ok((answer.key, answer.body))
}

/// The caller whose key a request presents.
async fn caller_of(incoming: &Incoming, isolate: &Rc<Isolate>, context: &JsValue) -> Result<Caller, Problem> {
    let (_, presented) = authenticate(incoming, isolate, clock::now().as_millis())?;
    let caller = match presented {
        Presented::Key(caller) => caller,
        Presented::Invalid => return Err(Problem::InvalidKey),
        Presented::NeedsLookup(candidate) => candidate.look_up(isolate, context, incoming.network()).await?,
    };
    let known_parameters: &[&str] = if isolate.config.allow_query_key { &[QUERY_NAME] } else { &[] };
    Parameters::parse(incoming.target().query(), known_parameters)?;
    Ok(caller)
}

/// What a key's object has: its status and usage, `GET /_tollgate/me`, and its current month.
type StatusOfKey = (StatusAndUsage, String, String);

async fn status_of(
    incoming: &Incoming,
    isolate: &Rc<Isolate>,
    context: &JsValue,
    caller: Caller,
) -> Result<StatusOfKey, Problem> {
    if let Some(status) = request(isolate, &caller).await? {
        return Ok(status);
    }
    // The key is unknown to the object. It is refused unless D1 has it.
    let found = caller.look_again(isolate, context, incoming.network()).await;
    request(isolate, &found.ok_or(Problem::InvalidKey)?).await?.ok_or(Problem::InvalidKey)
}

/// Requests the status from the object. `None` if the key is unknown to it.
async fn request(isolate: &Isolate, caller: &Caller) -> Result<Option<StatusOfKey>, Problem> {
    let status = object_client::key_status(isolate, caller).await;
    let status = status.and_then(|text| match KeyStatusResponse::parse(&text) {
        Some(KeyStatusResponse::Known(KeyStatus { key, me, month })) => {
            Ok(Some((key, me.to_owned(), month.to_owned())))
        }
        Some(KeyStatusResponse::Unknown) => Ok(None),
        None => Err(Error::new("the object's response has another form")),
    });
    status.map_err(|error| {
        worker::console_error!("tollgate: key {} could not be looked up: {error}", caller.id);
        Problem::Unavailable("the key could not be looked up: try again")
    })
}

/// The body of `GET /_tollgate/me/usage`. `now` is the object's clock.
async fn usage(env: &Env, id: &str, now: u64, month: &str) -> Result<String, Error> {
    let now = UnixMicros::from_millis(now);
    let since = (1..self_service::MONTHS_SHOWN).fold(Month::of(now), |month, _| month.previous());
    let this_hour = now.as_micros() / HOUR * HOUR;
    let hour = rfc3339(UnixMicros::from_micros(this_hour.saturating_sub(HOURS_BEFORE * HOUR)));
    store::usage::self_service_usage(&Database::of(env)?, id, since, month, &hour).await
}
