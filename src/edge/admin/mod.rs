//! The admin API: who may, and commands to the key store and the keys' objects.

use super::clock;
use super::deployment::Deployment;
use super::http::{self, Answer, Incoming};
use super::js::{self, Fault};
use super::key_store::{self, KeyColumns, NewKey};
use super::object_client;
use crate::admin::{BODY_LIMIT, CreateKey, KeyView};
use crate::credential;
use crate::key::{self, ENTROPY_BYTES, is_key_id, same_secret};
use crate::profile::Status;
use crate::refusal::Refusal;
use crate::route::{Admin, Route, route};
use crate::time::rfc3339;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// Why a command has no success to show.
enum Failure {
    Refused(Refusal),
    Fault(Fault),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Answers a request to the admin API.
pub(crate) async fn answer(incoming: &Incoming, deployment: &Deployment, env: &Env) -> Answer {
    let cors = &deployment.config.cors_allow_origin;
    match run(incoming, deployment, env).await {
        Ok((status, body)) => http::json(status, &body, cors),
        Err(Failure::Refused(refusal)) => http::refuse(&refusal, cors, None),
        Err(Failure::Fault(fault)) => {
            worker::console_error!("tollgate: admin API: {fault}");
            http::refuse(&Refusal::Unavailable("the request could not be carried out now"), cors, None)
        }
    }
}

async fn run(incoming: &Incoming, deployment: &Deployment, env: &Env) -> Result<(u16, String), Failure> {
    authorize(incoming, deployment)?;
    match route(&incoming.method, incoming.target().path, false) {
        Route::Admin(Admin::CreateKey) => create_key(incoming, deployment, env).await,
        Route::Admin(Admin::ReadKey(id)) => read_key(id, env).await,
        Route::Admin(Admin::ReadUsage(id)) => {
            // An object must not be made for a key that was never issued, so D1 is asked first.
            find_key(id, env).await?;
            Ok((200, object_client::usage(deployment, id).await?))
        }
        _ => Err(Refusal::NotFound("there is nothing at this path".to_owned()).into()),
    }
}

fn authorize(incoming: &Incoming, deployment: &Deployment) -> Result<(), Refusal> {
    let Some(expected) = &deployment.config.admin_token else {
        return Err(Refusal::Unavailable("the admin API is off: ADMIN_TOKEN is not set"));
    };
    match credential::find(None, incoming.authorization.as_deref(), None) {
        Ok(presented) if same_secret(&presented.key, expected) => Ok(()),
        _ => Err(Refusal::InvalidAdminToken),
    }
}

async fn find_key(id: &str, env: &Env) -> Result<KeyColumns, Failure> {
    let row = if is_key_id(id) { key_store::key(&key_store::database(env)?, id).await? } else { None };
    row.ok_or_else(|| Refusal::NotFound("there is no key with this id".to_owned()).into())
}

async fn create_key(incoming: &Incoming, deployment: &Deployment, env: &Env) -> Result<(u16, String), Failure> {
    let body = JsFuture::from(js::read_body(&incoming.request, BODY_LIMIT)).await.map_err(Fault::from)?;
    let body = body.dyn_into::<js_sys::Uint8Array>().map_err(|_| Refusal::TooLarge(BODY_LIMIT))?;
    let create = CreateKey::parse(&body.to_vec())?;
    let Some(signer) = &deployment.config.signer else {
        return Err(Refusal::Unavailable("keys cannot be issued: KEY_SECRET is not set").into());
    };
    let mut entropy = [0; ENTROPY_BYTES];
    getrandom::fill(&mut entropy).map_err(Fault::new)?;
    let issued = key::issue(signer, &entropy);
    let created_at = rfc3339(clock::now());
    let row = NewKey {
        id: &issued.id,
        tier: &create.tier,
        name: &create.name,
        secret_hash: &issued.secret_hash,
        hint: &issued.hint,
        created_at: &created_at,
    };
    if !key_store::insert_key(&key_store::database(env)?, &row).await? {
        return Err(Refusal::Invalid("tier", format!("there is no tier `{}`", create.tier)).into());
    }
    let view = KeyView {
        id: issued.id,
        key: Some(issued.key),
        tier: create.tier,
        name: create.name,
        status: Status::Active,
        created_at,
    };
    json(201, &view)
}

async fn read_key(id: &str, env: &Env) -> Result<(u16, String), Failure> {
    let row = find_key(id, env).await?;
    let status = row.status.at(row.expires_at(), clock::now());
    json(200, &KeyView { id: row.id, key: None, tier: row.tier, name: row.name, status, created_at: row.created_at })
}

fn json(status: u16, view: &KeyView) -> Result<(u16, String), Failure> {
    Ok((status, serde_json::to_string(view).map_err(Fault::new)?))
}
