//! What a key's holder may ask with the key itself. It spends nothing, and nobody is told of another key.

use crate::admin::Parameters;
use crate::config::Config;
use crate::gateway::credential::{CredentialError, QUERY_NAME};
use crate::gateway::self_service::{self, Turn};
use crate::http::problem::Refusal;
use crate::keys::profile::Status;
use crate::limiter::decision::{Decision, Verdict};
use crate::protocol::key_status::{Holding, Me, month_json};
use crate::protocol::object_response;
use crate::protocol::object_response::{Known, Outcome, Pass};
use crate::protocol::usage::PolicyUsage;
use crate::router::Holder;
use crate::runtime::bindings::Deployment;
use crate::runtime::gateway::authenticate::{Caller, Presented, identify};
use crate::runtime::gateway::gate::find_credential;
use crate::runtime::gateway::import_lookup::NotAsked;
use crate::runtime::gateway::object_client;
use crate::runtime::http::{self, Answer, Incoming};
use crate::runtime::js::{self, Fault};
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
pub(crate) async fn answer(incoming: Incoming, deployment: Rc<Deployment>, context: JsValue, wanted: Holder) -> Answer {
    match find(&incoming, &deployment, &context, wanted).await {
        Ok((known, body)) => give(&deployment.config, &known, &body),
        Err((refusal, known)) => refuse(&deployment.config, &refusal, known.as_ref()),
    }
}

fn refuse(config: &Config, refusal: &Refusal, known: Option<&Known>) -> Answer {
    http::refuse(refusal, &config.cors_allow_origin, known.map(|known| (known, config.forms())))
}

fn give(config: &Config, known: &Known, body: &str) -> Answer {
    if let Outcome::Refused(status) = known.outcome {
        let refusal = Refusal::Forbidden(status.refusal().unwrap_or("the API key may not be used"));
        return refuse(config, &refusal, Some(known));
    }
    http::json_of_key(body, &config.cors_allow_origin, known, config.forms())
}

/// Where the presented key stands, and the body of the answer. A refusal says where it stands, too, if that is known.
async fn find(
    incoming: &Incoming,
    deployment: &Rc<Deployment>,
    context: &JsValue,
    wanted: Holder,
) -> Result<(Known, Rc<str>), (Refusal, Option<Known>)> {
    let caller = authenticate(incoming, deployment, context).await.map_err(|refusal| (refusal, None))?;
    let (id, secret_hash) = (caller.id.clone(), caller.secret_hash.clone());
    let asked_at = clock::now().as_millis();
    let turn = deployment.self_service.borrow_mut().begin(&id, &secret_hash, wanted, asked_at);
    let mark = match turn {
        Turn::Give(known, body) => return Ok((known, body)),
        Turn::Refuse { retry_after, known } => {
            let violated = vec![self_service::POLICY.to_owned()];
            return Err((Refusal::QuotaExceeded { violated, retry_after }, known));
        }
        Turn::Ask(mark) => mark,
    };
    let (known, me, month) = hold(incoming, deployment, context, caller).await.map_err(|refusal| (refusal, None))?;
    let body = match wanted {
        _ if matches!(known.outcome, Outcome::Refused(_)) => String::new(),
        Holder::Me => me,
        Holder::Usage => match usage(&deployment.env, &id, &known, &month).await {
            Ok(body) => body,
            Err(fault) => {
                worker::console_error!("tollgate: the usage of key {id} could not be read: {fault}");
                return Err((Refusal::Unavailable("the usage could not be read now"), Some(known)));
            }
        },
    };
    let answer = self_service::Answer::new(known, body, asked_at, clock::now().as_millis());
    deployment.self_service.borrow_mut().keep(&id, &secret_hash, wanted, mark, &answer);
    Ok((answer.known, answer.body))
}

/// Whose key is presented, as far as the isolate and D1 can tell.
async fn authenticate(incoming: &Incoming, deployment: &Rc<Deployment>, context: &JsValue) -> Result<Caller, Refusal> {
    let config = &deployment.config;
    let credential = find_credential(incoming, config).map_err(|error| match error {
        CredentialError::Missing => Refusal::NoCredential(error.to_string()),
        error => Refusal::BadRequest(error.to_string()),
    })?;
    let Some(signer) = &config.signer else {
        worker::console_error!("tollgate is not set up: KEY_SECRET is not set");
        return Err(Refusal::Unavailable("tollgate is not set up"));
    };
    let caller = match identify(&credential.key, signer, deployment, clock::now().as_millis()) {
        Presented::Known(caller) => caller,
        Presented::Nobody => return Err(Refusal::InvalidKey),
        Presented::Unheard(candidate) => match candidate.look_up(deployment, context, incoming.network()).await {
            Ok(caller) => caller.ok_or(Refusal::InvalidKey)?,
            Err(NotAsked) => return Err(Refusal::Unavailable("the API key could not be looked up")),
        },
    };
    let known_parameters: &[&str] = if config.allow_query_key { &[QUERY_NAME] } else { &[] };
    Parameters::parse(incoming.target().query(), known_parameters)?;
    Ok(caller)
}

/// What a key's object says: where the key stands, `GET /_tollgate/me`, and its current month.
type Held = (Known, String, String);

async fn hold(
    incoming: &Incoming,
    deployment: &Rc<Deployment>,
    context: &JsValue,
    caller: Caller,
) -> Result<Held, Refusal> {
    if let Some(held) = ask(deployment, &caller).await? {
        return Ok(held);
    }
    // The object has said that there is no such key: that holds while D1 says nothing else.
    let found = caller.look_again(deployment, context, incoming.network()).await.ok().flatten();
    ask(deployment, &found.ok_or(Refusal::InvalidKey)?).await?.ok_or(Refusal::InvalidKey)
}

/// Asks the object; nothing if it knows no such key.
async fn ask(deployment: &Deployment, caller: &Caller) -> Result<Option<Held>, Refusal> {
    let holding = object_client::holding(deployment, caller).await;
    let holding = holding.and_then(|text| match Holding::parse(&text) {
        Some((answer, me, month)) => Ok((answer, me.to_owned(), month.to_owned())),
        None => Err(Fault::new("the object's answer has another form")),
    });
    match holding {
        Ok((object_response::Answer::Known(known), me, month)) => Ok(Some((known, me, month))),
        Ok((object_response::Answer::Unknown, ..)) => Ok(None),
        Ok(_) => Err(Refusal::Unavailable("the key could not be looked up now")),
        Err(fault) => {
            worker::console_error!("tollgate: key {} could not be looked up: {fault}", caller.id);
            Err(Refusal::Unavailable("the key could not be looked up now"))
        }
    }
}

/// The body of `GET /_tollgate/me/usage`.
async fn usage(env: &Env, id: &str, known: &Known, month: &str) -> Result<String, Fault> {
    let now = UnixMicros::from_millis(known.now);
    let since = (0..MONTHS_BEFORE).fold(Month::of(now), |month, _| month.previous());
    let this_hour = now.as_micros() / HOUR * HOUR;
    let hour = rfc3339(UnixMicros::from_micros(this_hour.saturating_sub(HOURS_BEFORE * HOUR)));
    store::usage_of_holder(&store::database(env)?, id, since, month, &hour).await
}

impl Shared {
    /// Answers [`Question::Holder`](protocol::Question::Holder).
    pub(crate) async fn holding(self: &Rc<Self>, id: &str, secret_hash: &str, is_found: bool) -> Answer {
        let now = self.prepare_for(id, is_found.then_some(secret_hash)).await?;
        let mut memory = self.memory.borrow_mut();
        let unknown = object_response::Answer::Unknown.to_line();
        let text = match &mut *memory {
            Memory { ledger: Some(ledger), profile: Some(profile), .. } if profile.accepts(secret_hash, now) => {
                profile.turn_to(ledger.judged(now));
                let standings = ledger.standings(profile.schedule(), now);
                let status = profile.status(now);
                let me = Me {
                    key_id: id.to_owned(),
                    tier: profile.row.tier.clone(),
                    status,
                    expires_at: profile.row.expires_at.map(|at| rfc3339(UnixMicros::from_millis(at))),
                    policies: profile
                        .policies
                        .iter()
                        .zip(&standings)
                        .map(|(p, s)| PolicyUsage::new(p, s, now))
                        .collect(),
                };
                let outcome = if status == Status::Active {
                    Outcome::Admitted(Pass::default())
                } else {
                    Outcome::Refused(status)
                };
                let decision = Decision { verdict: Verdict::Admitted, standings, now };
                let known = Known::new(outcome, &profile.row.tier, profile.schedule(), &decision);
                let line = object_response::Answer::Known(known).to_line();
                let me = serde_json::to_string(&me).map_err(Fault::new)?;
                let month = month_json(&ledger.month(Month::of(now)), ledger.epoch());
                Holding { line: &line, me: &me, month: &month }.to_text()
            }
            Memory { ledger: Some(_), .. } => unknown,
            _ => return Err(Fault::new("storage has not been read")),
        };
        Ok(js::reply(200, Some(&text), "")?.into())
    }
}
