//! The admin API: who may, and commands to the key store and the keys' objects.

mod audit;
mod imports;
mod keys;
mod log;
mod overrides;
mod reports;
mod route_costs;
mod tiers;
mod tokens;

use crate::admin::Parameters;
use crate::admin::attempts::{Attempts, KNOWN, KnownTokens, Reading};
use crate::admin::body::{FromFields, parse};
use crate::admin::tokens::{ROOT, Scope};
use crate::gateway::credential;
use crate::http::problem::Problem;
use crate::keys::key::{same_hash, same_secret, token_hash, token_id};
use crate::router::{Admin, Endpoint};
use crate::runtime::clock;
use crate::runtime::gateway::object_client;
use crate::runtime::http::{self, HttpResult, Incoming};
use crate::runtime::isolate::Isolate;
use crate::runtime::js::{self, Error};
use crate::runtime::store;
use crate::runtime::store::database::{Change, Database};
use crate::time::UnixMicros;
use serde::Serialize;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// How often a change is tried that finds something else than was read.
const TRIES: u32 = 3;
/// How often, and after how many milliseconds each time, a request looks whether another one has read the tokens.
const LOOKS: u32 = 100;
const LOOK_INTERVAL: u32 = 20;

thread_local! {
    static ATTEMPTS: RefCell<Attempts> = RefCell::default();
    static TOKENS: RefCell<KnownTokens> = RefCell::default();
}

/// Why a command has no success to show.
enum Failure {
    Refused(Problem),
    Error(Error),
}

impl From<Problem> for Failure {
    fn from(refusal: Problem) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A success: the status and the JSON to answer, or lines of it and their media type, or nothing to tell (204).
enum Success {
    Json(u16, String),
    Lines(String, &'static str),
    NoContent,
    /// A stream of CSV, and the name of the file.
    Csv(JsValue, String),
}

type CommandResult = Result<Success, Failure>;

/// A request that may do what it asks for.
struct Command {
    isolate: Rc<Isolate>,
    db: Database,
    /// The request's `ExecutionContext`.
    context: JsValue,
    /// The name of the token.
    actor: String,
    /// The one reading of the clock.
    now: UnixMicros,
    parameters: Parameters,
    body: Vec<u8>,
    /// The request's `Accept`.
    accept: Option<String>,
}

/// Work that several commands do. Boxed, so that it is compiled once and not into each of them.
type Work<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Answers a request to the admin API.
pub(crate) async fn answer(
    incoming: Incoming,
    isolate: Rc<Isolate>,
    env: Env,
    context: JsValue,
    endpoint: &'static Endpoint,
    operation: Admin,
) -> HttpResult {
    let cors = Rc::clone(&isolate.config.cors_allow_origin);
    match run(incoming, isolate, &env, context, endpoint, operation).await {
        Ok(Success::Json(status, body)) => http::json(status, &body, &cors),
        Ok(Success::Lines(lines, media_type)) => http::lines(&lines, media_type, &cors),
        Ok(Success::NoContent) => http::no_content(&cors),
        Ok(Success::Csv(rows, name)) => http::csv(&rows, &name, &cors),
        Err(Failure::Refused(refusal)) => http::refuse(&refusal, &cors, None),
        Err(Failure::Error(error)) => {
            worker::console_error!("tollgate: admin API: {error}");
            http::refuse(&Problem::Unavailable("the request could not be carried out now"), &cors, None)
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
    let accept = incoming.request.headers().get("accept").ok().flatten();
    let path = incoming.target().path;
    let command = Command { isolate, db, context, actor, now, parameters, body, accept };
    dispatch(&command, operation, endpoint.captures(path).unwrap_or_default()).await
}

/// Carries out an operation; `id` and `policy` are the path parameters, as sent.
async fn dispatch(command: &Command, operation: Admin, [id, policy]: [&str; 2]) -> CommandResult {
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
        Admin::PutOverride => overrides::put(command, id, policy).await,
        Admin::DeleteOverride => overrides::delete(command, id, policy).await,
        Admin::ListTiers => tiers::list(command).await,
        Admin::ReadTier => tiers::read(command, id).await,
        Admin::PutTier => tiers::put(command, id).await,
        Admin::DeleteTier => tiers::delete(command, id).await,
        Admin::ListRouteCosts => route_costs::list(command).await,
        Admin::PutRouteCost => route_costs::put(command).await,
        Admin::DeleteRouteCost => route_costs::delete(command).await,
        Admin::ListTokens => tokens::list(command).await,
        Admin::CreateToken => tokens::create(command).await,
        Admin::DeleteToken => tokens::delete(command, id).await,
        Admin::ReadLog => log::read(command).await,
        Admin::Reconcile => reports::reconciled(command, id).await,
        Admin::Report => reports::report(command).await,
        Admin::ReadHours
        | Admin::ReadDays
        | Admin::ReadHistory
        | Admin::ListAlerts
        | Admin::ListDeliveries
        | Admin::ListDrift => reports::read(command, operation, id).await,
    }
}

/// Who asks. `ADMIN_TOKEN` may do everything; a named token what its scopes say.
async fn authorize(
    incoming: &Incoming,
    isolate: &Isolate,
    db: &Database,
    context: &JsValue,
    needed: Scope,
    now: UnixMicros,
) -> Result<String, Failure> {
    let Some(root) = &isolate.config.admin_token else {
        return Err(Problem::Unavailable("the admin API is off: ADMIN_TOKEN is not set").into());
    };
    let Ok(presented) = credential::find(None, incoming.authorization.as_deref(), None) else {
        return Err(Problem::NoAdminToken.into());
    };
    // Before anything is counted or asked: nobody can keep the holder of ADMIN_TOKEN out.
    if same_secret(&presented.key, root) {
        return Ok(ROOT.to_owned());
    }
    let network = incoming.network();
    let begin = || ATTEMPTS.with_borrow_mut(|attempts| attempts.begin(network, now.as_millis()));
    let Some(id) = token_id(&presented.key) else {
        return Err(begin().map_or_else(Problem::TooManyAttempts, |_| Problem::InvalidAdminToken).into());
    };
    let hash = token_hash(&presented.key);
    let is_known = || TOKENS.with_borrow(|tokens| tokens.has(&hash));
    let attempt = if is_known() {
        None
    } else {
        match begin() {
            Ok(attempt) => Some(attempt),
            Err(seconds) => {
                read_tokens(db, context, now).await;
                if !is_known() {
                    return Err(Problem::TooManyAttempts(seconds).into());
                }
                None
            }
        }
    };
    let stored = store::tokens::stored_token(db, id).await;
    let stored = stored.map(|stored| stored.filter(|stored| same_hash(&hash, &stored.secret_hash)));
    if !matches!(stored, Ok(None))
        && let Some(attempt) = attempt
    {
        ATTEMPTS.with_borrow_mut(|attempts| attempts.give_back(attempt));
    }
    let Some(token) = stored? else {
        if TOKENS.with_borrow_mut(|tokens| tokens.remove(&hash)) {
            // It has been deleted, and was not counted. Where there is no attempt left, there is none to take.
            drop(begin());
        }
        return Err(Problem::InvalidAdminToken.into());
    };
    TOKENS.with_borrow_mut(|tokens| tokens.add(&hash));
    if token.scope >= needed {
        Ok(token.name)
    } else {
        Err(Problem::Forbidden("this admin token is not allowed to do that").into())
    }
}

/// Ensures that this isolate knows which tokens exist, as of at most a minute ago. One request reads them; others look again by timers
/// of their own, because what another request waits for may end with that request.
async fn read_tokens(db: &Database, context: &JsValue, now: UnixMicros) {
    for _ in 0..LOOKS {
        match TOKENS.with_borrow_mut(|tokens| tokens.begin(now.as_millis())) {
            Reading::NotYet => return,
            Reading::UnderWay => drop(JsFuture::from(js::after(LOOK_INTERVAL)).await),
            Reading::Begin => {
                let db = db.clone();
                let read = wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(async move {
                    let hashes = store::tokens::token_hashes(&db, KNOWN).await;
                    let hashes = hashes.inspect_err(|error| {
                        worker::console_error!("tollgate: admin API: the tokens could not be read: {error}");
                    });
                    TOKENS.with_borrow_mut(|tokens| tokens.end(hashes.ok(), now.as_millis()));
                    Ok(JsValue::UNDEFINED)
                }));
                // It is done even if its client goes away.
                js::keep_alive(context, &read);
                drop(JsFuture::from(read).await);
                return;
            }
        }
    }
    TOKENS.with_borrow_mut(KnownTokens::give_up);
}

async fn read_body(incoming: &Incoming, limit: usize) -> Result<Vec<u8>, Failure> {
    let body = JsFuture::from(js::read_body(&incoming.request, limit)).await.map_err(Error::from)?;
    let body = body.dyn_into::<js_sys::Uint8Array>().map_err(|_| Problem::TooLarge(limit))?;
    Ok(body.to_vec())
}

impl Command {
    /// The body, read and checked.
    fn body<T: FromFields>(&self) -> Result<T, Problem> {
        parse(&self.body)
    }

    /// What the admin log is to tell of a change: the thing before and after, as JSON.
    fn log(&self, action: &'static str, target: String, before: Option<String>, after: Option<String>) -> Change<'_> {
        Change { at: self.now, actor: &self.actor, action, target, before, after }
    }

    /// Tells a key's object that the key has changed. Where that fails the change stands: the object finds out by itself.
    fn refresh<'a>(&'a self, id: &'a str) -> Work<'a, ()> {
        Box::pin(async move {
            if let Err(error) = object_client::refresh(&self.isolate, id).await {
                worker::console_error!("tollgate: the object of key {id} was not told of a change: {error}");
            }
            self.isolate.forget_denials(Some(id));
        })
    }
}

fn text(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(Error::new)
}

/// A change found something else than was read, again and again.
fn contended() -> Failure {
    Problem::Conflict("somebody else is changing this: try again".to_owned()).into()
}
