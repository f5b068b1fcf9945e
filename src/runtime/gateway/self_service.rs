//! What a key's holder may ask with the key itself. It spends nothing, and nobody is told of another key.

use crate::admin::Parameters;
use crate::config::Config;
use crate::gateway::credential::{CredentialError, QUERY_NAME};
use crate::gateway::self_service::{self, Permit};
use crate::http::problem::Problem;
use crate::keys::profile::Status;
use crate::protocol::key_status::{KeyStatus, Me, month_json};
use crate::protocol::object_response;
use crate::protocol::object_response::{Admission, KeyResponse, KeyVerdict};
use crate::protocol::usage::PolicyUsageBody;
use crate::router::SelfServiceRoute;
use crate::runtime::gateway::authenticate::{Caller, Presented, identify};
use crate::runtime::gateway::gate::find_credential;
use crate::runtime::gateway::import_lookup::NotAsked;
use crate::runtime::gateway::object_client;
use crate::runtime::http::{self, HttpResult, Incoming};
use crate::runtime::isolate::Isolate;
use crate::runtime::js::{self, Error};
use crate::runtime::object::key_object::{Memory, Shared};
use crate::runtime::{clock, store};
use crate::time::{HOUR, Month, UnixMicros, rfc3339};
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::Env;

/// The current month and so many before it.
const MONTHS_BEFORE: usize = 11;
/// The current hour and so many before it.
const HOURS_BEFORE: u64 = 23;

/// Answers a request of a key's holder.
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

/// Where the presented key stands, and the body of the answer. A refusal says where it stands, too, if that is known.
async fn find(
    incoming: &Incoming,
    isolate: &Rc<Isolate>,
    context: &JsValue,
    wanted: SelfServiceRoute,
) -> Result<(KeyResponse, Rc<str>), (Problem, Option<KeyResponse>)> {
    let caller = authenticate(incoming, isolate, context).await.map_err(|refusal| (refusal, None))?;
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
    let (known, me, month) = hold(incoming, isolate, context, caller).await.map_err(|refusal| (refusal, None))?;
    let body = match wanted {
        _ if matches!(known.outcome, KeyVerdict::Refused(_)) => String::new(),
        SelfServiceRoute::Me => me,
        SelfServiceRoute::Usage => match usage(&isolate.env, &id, &known, &month).await {
            Ok(body) => body,
            Err(error) => {
                worker::console_error!("tollgate: the usage of key {id} could not be read: {error}");
                return Err((Problem::Unavailable("the usage could not be read now"), Some(known)));
            }
        },
    };
    let answer = self_service::CachedAnswer::new(known, body, asked_at, clock::now().as_millis());
    isolate.self_service.borrow_mut().keep(&id, &secret_hash, wanted, mark, &answer);
    Ok((answer.known, answer.body))
}

/// Whose key is presented, as far as the isolate and D1 can tell.
async fn authenticate(incoming: &Incoming, isolate: &Rc<Isolate>, context: &JsValue) -> Result<Caller, Problem> {
    let config = &isolate.config;
    let credential = find_credential(incoming, config).map_err(|error| match error {
        CredentialError::Missing => Problem::NoCredential(error.to_string()),
        error => Problem::BadRequest(error.to_string()),
    })?;
    let Some(signer) = &config.signer else {
        worker::console_error!("tollgate is not set up: KEY_SECRET is not set");
        return Err(Problem::Unavailable("tollgate is not set up"));
    };
    let caller = match identify(&credential.key, signer, isolate, clock::now().as_millis()) {
        Presented::Known(caller) => caller,
        Presented::Nobody => return Err(Problem::InvalidKey),
        Presented::Unheard(candidate) => match candidate.look_up(isolate, context, incoming.network()).await {
            Ok(caller) => caller.ok_or(Problem::InvalidKey)?,
            Err(NotAsked) => return Err(Problem::Unavailable("the API key could not be looked up")),
        },
    };
    let known_parameters: &[&str] = if config.allow_query_key { &[QUERY_NAME] } else { &[] };
    Parameters::parse(incoming.target().query(), known_parameters)?;
    Ok(caller)
}

/// What a key's object says: where the key stands, `GET /_tollgate/me`, and its current month.
type Held = (KeyResponse, String, String);

async fn hold(incoming: &Incoming, isolate: &Rc<Isolate>, context: &JsValue, caller: Caller) -> Result<Held, Problem> {
    if let Some(held) = ask(isolate, &caller).await? {
        return Ok(held);
    }
    // The object has said that there is no such key: that holds while D1 says nothing else.
    let found = caller.look_again(isolate, context, incoming.network()).await.ok().flatten();
    ask(isolate, &found.ok_or(Problem::InvalidKey)?).await?.ok_or(Problem::InvalidKey)
}

/// Asks the object; nothing if it knows no such key.
async fn ask(isolate: &Isolate, caller: &Caller) -> Result<Option<Held>, Problem> {
    let holding = object_client::holding(isolate, caller).await;
    let holding = holding.and_then(|text| match KeyStatus::parse(&text) {
        Some((answer, me, month)) => Ok((answer, me.to_owned(), month.to_owned())),
        None => Err(Error::new("the object's answer has another form")),
    });
    match holding {
        Ok((object_response::ObjectResponse::Key(known), me, month)) => Ok(Some((known, me, month))),
        Ok((object_response::ObjectResponse::Unknown, ..)) => Ok(None),
        Ok(_) => Err(Problem::Unavailable("the key could not be looked up now")),
        Err(error) => {
            worker::console_error!("tollgate: key {} could not be looked up: {error}", caller.id);
            Err(Problem::Unavailable("the key could not be looked up now"))
        }
    }
}

/// The body of `GET /_tollgate/me/usage`.
async fn usage(env: &Env, id: &str, known: &KeyResponse, month: &str) -> Result<String, Error> {
    let now = UnixMicros::from_millis(known.now);
    let since = (0..MONTHS_BEFORE).fold(Month::of(now), |month, _| month.previous());
    let this_hour = now.as_micros() / HOUR * HOUR;
    let hour = rfc3339(UnixMicros::from_micros(this_hour.saturating_sub(HOURS_BEFORE * HOUR)));
    store::usage_of_holder(&store::database(env)?, id, since, month, &hour).await
}

impl Shared {
    /// Answers [`ObjectRequest::KeyStatus`](protocol::ObjectRequest::KeyStatus).
    pub(crate) async fn holding(self: &Rc<Self>, id: &str, secret_hash: &str, is_found: bool) -> HttpResult {
        let now = self.prepare_for(id, is_found.then_some(secret_hash)).await?;
        let mut memory = self.memory.borrow_mut();
        let unknown = object_response::ObjectResponse::Unknown.to_line();
        let text = match &mut *memory {
            Memory { key_state: Some(key_state), profile: Some(profile), .. } if profile.accepts(secret_hash, now) => {
                profile.turn_to(key_state.effective_time(now));
                let usage = key_state.usage(profile.schedule(), now);
                let status = profile.status(now);
                let me = Me {
                    key_id: id.to_owned(),
                    tier: profile.row.tier.clone(),
                    status,
                    expires_at: profile.row.expires_at.map(|at| rfc3339(UnixMicros::from_millis(at))),
                    policies: profile
                        .policies
                        .iter()
                        .zip(&usage.policies)
                        .map(|(p, s)| PolicyUsageBody::new(p, s, now))
                        .collect(),
                };
                let outcome = if status == Status::Active {
                    KeyVerdict::Admitted(Admission::default())
                } else {
                    KeyVerdict::Refused(status)
                };
                let known = KeyResponse::new(outcome, &profile.row.tier, profile.schedule(), &usage);
                let line = object_response::ObjectResponse::Key(known).to_line();
                let me = serde_json::to_string(&me).map_err(Error::new)?;
                let month = month_json(&key_state.month(Month::of(now)), key_state.epoch());
                KeyStatus { line: &line, me: &me, month: &month }.to_text()
            }
            Memory { key_state: Some(_), .. } => unknown,
            _ => return Err(Error::new("storage has not been read")),
        };
        Ok(js::reply(200, Some(&text), "")?.into())
    }
}
