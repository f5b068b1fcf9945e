//! Self-service endpoints, authenticated by the API key. Read-only; they never reveal another key.

use crate::admin::parameters::Parameters;
use crate::config::Config;
use crate::gateway::credential::QUERY_NAME;
use crate::gateway::self_service::{self, Permit};
use crate::http::problem::Problem;
use crate::protocol::key_status::KeyStatus;
use crate::protocol::object_response::{KeyResponse, KeyVerdict, ObjectResponse};
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

/// Number of months before the current one that are shown.
const MONTHS_BEFORE: usize = 11;
/// Number of hours before the current one that are shown.
const HOURS_BEFORE: u64 = 23;

/// Handles a self-service request.
pub(crate) async fn answer(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    context: JsValue,
    wanted: SelfServiceRoute,
) -> HttpResult {
    match find(&incoming, &isolate, &context, wanted).await {
        Ok((known, body)) => give(&isolate.config, &known, &body),
        Err((refusal, known)) => refuse(&isolate.config, &refusal, known.as_ref()),
    }
}

fn refuse(config: &Config, refusal: &Problem, known: Option<&KeyResponse>) -> HttpResult {
    http::refuse(refusal, &config.cors_allow_origin, known.map(|known| (known, config.forms())))
}

fn give(config: &Config, known: &KeyResponse, body: &str) -> HttpResult {
    if let KeyVerdict::Refused(status) = known.outcome {
        let refusal = Problem::Forbidden(status.refusal().unwrap_or("the API key may not be used"));
        return refuse(config, &refusal, Some(known));
    }
    http::json_of_key(body, &config.cors_allow_origin, known, config.forms())
}

/// The policy usage of the presented key and the body of the response. A refusal has the usage,
/// too, if it is known.
async fn find(
    incoming: &Incoming,
    isolate: &Rc<Isolate>,
    context: &JsValue,
    wanted: SelfServiceRoute,
) -> Result<(KeyResponse, Rc<str>), (Problem, Option<KeyResponse>)> {
    let caller = caller_of(incoming, isolate, context).await.map_err(|refusal| (refusal, None))?;
    let (id, secret_hash) = (caller.id.clone(), caller.secret_hash.clone());
    let asked_at = clock::now().as_millis();
    let turn = isolate.self_service.borrow_mut().begin(&id, &secret_hash, wanted, asked_at);
    let mark = match turn {
        Permit::Give(known, body) => return Ok((known, body)),
        Permit::Refuse { retry_after, known } => {
            let violated = vec![self_service::POLICY.to_owned()];
            return Err((Problem::QuotaExceeded { violated, retry_after }, known));
        }
        Permit::Ask(mark) => mark,
    };
    let (known, me, month) = status_of(incoming, isolate, context, caller).await.map_err(|refusal| (refusal, None))?;
    let body = match wanted {
        _ if matches!(known.outcome, KeyVerdict::Refused(_)) => String::new(),
        SelfServiceRoute::Me => me,
        SelfServiceRoute::MyUsage => match usage(&isolate.env, &id, &known, &month).await {
            Ok(body) => body,
            Err(error) => {
                worker::console_error!("tollgate: the usage of key {id} could not be read: {error}");
                return Err((Problem::Unavailable("the usage could not be read: try again"), Some(known)));
            }
        },
    };
    let answer = self_service::CachedAnswer::new(known, body, asked_at, clock::now().as_millis());
    isolate.self_service.borrow_mut().keep(&id, &secret_hash, wanted, mark, &answer);
    Ok((answer.known, answer.body))
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

/// The response of a key's object: policy usage, body of `GET /_tollgate/me`, and current month.
type StatusOfKey = (KeyResponse, String, String);

async fn status_of(
    incoming: &Incoming,
    isolate: &Rc<Isolate>,
    context: &JsValue,
    caller: Caller,
) -> Result<StatusOfKey, Problem> {
    if let Some(held) = ask(isolate, &caller).await? {
        return Ok(held);
    }
    // The key is unknown to the object. That holds unless D1 says otherwise.
    let found = caller.look_again(isolate, context, incoming.network()).await;
    ask(isolate, &found.ok_or(Problem::InvalidKey)?).await?.ok_or(Problem::InvalidKey)
}

/// Requests the status from the object. `None` if the key is unknown to it.
async fn ask(isolate: &Isolate, caller: &Caller) -> Result<Option<StatusOfKey>, Problem> {
    let status = object_client::key_status(isolate, caller).await;
    let status = status.and_then(|text| match KeyStatus::parse(&text) {
        Some((answer, me, month)) => Ok((answer, me.to_owned(), month.to_owned())),
        None => Err(Error::new("the object's answer has another form")),
    });
    match status {
        Ok((ObjectResponse::Key(known), me, month)) => Ok(Some((known, me, month))),
        Ok((ObjectResponse::Unknown, ..)) => Ok(None),
        Ok(_) => Err(Problem::Unavailable("the key could not be looked up: try again")),
        Err(error) => {
            worker::console_error!("tollgate: key {} could not be looked up: {error}", caller.id);
            Err(Problem::Unavailable("the key could not be looked up: try again"))
        }
    }
}

/// The body of `GET /_tollgate/me/usage`.
async fn usage(env: &Env, id: &str, known: &KeyResponse, month: &str) -> Result<String, Error> {
    let now = UnixMicros::from_millis(known.now);
    let since = (0..MONTHS_BEFORE).fold(Month::of(now), |month, _| month.previous());
    let this_hour = now.as_micros() / HOUR * HOUR;
    let hour = rfc3339(UnixMicros::from_micros(this_hour.saturating_sub(HOURS_BEFORE * HOUR)));
    store::usage::self_service_usage(&Database::of(env)?, id, since, month, &hour).await
}
