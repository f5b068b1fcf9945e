//! What a key's holder may ask with the key itself. It spends nothing, and nobody is told of another key.

use super::caller::{Presented, identify};
use super::clock;
use super::deployment::Deployment;
use super::gateway::find_credential;
use super::http::{self, Answer, Incoming};
use super::js::{self, Fault};
use super::key_object::{Memory, Shared};
use super::key_store;
use super::object_client;
use crate::admin::Parameters;
use crate::credential::{CredentialError, QUERY_NAME};
use crate::decision::{Decision, Verdict};
use crate::profile::Status;
use crate::protocol::{self, Holding, Known, Me, Outcome, Pass, PolicyUsage, month_json};
use crate::refusal::Refusal;
use crate::route::Holder;
use crate::time::{HOUR, Month, UnixMicros, rfc3339};
use std::rc::Rc;
use worker::Env;

/// The current month and so many before it.
const MONTHS_BEFORE: usize = 11;
/// The current hour and so many before it.
const HOURS_BEFORE: u64 = 23;

/// Answers a request of a key's holder.
pub(super) async fn answer(incoming: Incoming, deployment: Rc<Deployment>, env: Env, wanted: Holder) -> Answer {
    let config = &deployment.config;
    match find(&incoming, &deployment, &env).await {
        Ok((id, known, me, month)) => {
            let fields = Some((&known, config.forms()));
            if let Outcome::Refused(status) = known.outcome {
                let refusal = Refusal::Forbidden(status.refusal().unwrap_or("the API key may not be used"));
                return http::refuse(&refusal, &config.cors_allow_origin, fields);
            }
            let body = match wanted {
                Holder::Me => Ok(me),
                Holder::Usage => usage(&env, &id, &known, &month).await,
            };
            match body {
                Ok(body) => http::json_of_key(&body, &config.cors_allow_origin, &known, config.forms()),
                Err(fault) => {
                    worker::console_error!("tollgate: the usage of key {id} could not be read: {fault}");
                    http::refuse(
                        &Refusal::Unavailable("the usage could not be read now"),
                        &config.cors_allow_origin,
                        fields,
                    )
                }
            }
        }
        Err(refusal) => http::refuse(&refusal, &config.cors_allow_origin, None),
    }
}

/// The id of the key that is presented, and what its object says of it.
async fn find(
    incoming: &Incoming,
    deployment: &Deployment,
    env: &Env,
) -> Result<(String, Known, String, String), Refusal> {
    let config = &deployment.config;
    let credential = find_credential(incoming, config).map_err(|error| match error {
        CredentialError::Missing => Refusal::NoCredential(error.to_string()),
        error => Refusal::BadRequest(error.to_string()),
    })?;
    let Some(signer) = &config.signer else {
        worker::console_error!("tollgate is not set up: KEY_SECRET is not set");
        return Err(Refusal::Unavailable("tollgate is not set up"));
    };
    let key = match identify(&credential.key, signer, deployment, clock::now().as_millis()) {
        Presented::Known(caller) => caller,
        Presented::Nobody => return Err(Refusal::InvalidKey),
        Presented::Unheard(candidate) => match candidate.look_up(deployment, env).await {
            Ok(caller) => caller.ok_or(Refusal::InvalidKey)?,
            Err(fault) => {
                worker::console_error!("tollgate: {fault}");
                return Err(Refusal::Unavailable("the API key could not be looked up"));
            }
        },
    };
    let known_parameters: &[&str] = if config.allow_query_key { &[QUERY_NAME] } else { &[] };
    Parameters::parse(incoming.target().query(), known_parameters)?;
    let holding = object_client::holding(deployment, &key.id, &key.secret_hash).await;
    let holding = holding.and_then(|text| match Holding::parse(&text) {
        Some((answer, me, month)) => Ok((answer, me.to_owned(), month.to_owned())),
        None => Err(Fault::new("the object's answer has another form")),
    });
    match holding {
        Ok((protocol::Answer::Known(known), me, month)) => Ok((key.id, known, me, month)),
        Ok((protocol::Answer::Unknown, ..)) => Err(Refusal::InvalidKey),
        Ok(_) => Err(Refusal::Unavailable("the key could not be looked up now")),
        Err(fault) => {
            worker::console_error!("tollgate: key {} could not be looked up: {fault}", key.id);
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
    key_store::usage_of_holder(&key_store::database(env)?, id, since, month, &hour).await
}

impl Shared {
    /// Answers [`Question::Holder`](protocol::Question::Holder).
    pub(super) async fn holding(self: &Rc<Self>, id: &str, secret_hash: &str) -> Answer {
        let now = self.prepare(id).await?;
        let mut memory = self.memory.borrow_mut();
        let unknown = protocol::Answer::Unknown.to_line();
        let text = match &mut *memory {
            Memory { ledger: Some(ledger), profile: Some(profile), .. } if profile.accepts(secret_hash, now) => {
                profile.turn_to(now);
                let standings = ledger.standings(&profile.policies, now);
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
                let known = Known::new(outcome, &profile.row.tier, &profile.policies, &decision);
                let line = protocol::Answer::Known(known).to_line();
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
