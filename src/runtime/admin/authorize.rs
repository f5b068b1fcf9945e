//! Admin tokens: `ADMIN_TOKEN`, named tokens and their scopes.

use crate::admin::attempts::{Attempts, KNOWN, KnownTokens, Reading};
use crate::admin::tokens::ROOT;
use crate::gateway::credential;
use crate::http::problem::Problem;
use crate::keys::key::{same_hash, same_secret, token_hash, token_id};
use crate::router::Scope;
use crate::runtime::admin::command::Failure;
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::runtime::store;
use crate::runtime::store::database::Database;
use crate::time::UnixMicros;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// How often a request checks whether another one has read the tokens.
const LOOKS: u32 = 100;
/// Milliseconds between two checks.
const LOOK_INTERVAL: u32 = 20;

thread_local! {
    static ATTEMPTS: RefCell<Attempts> = RefCell::default();
    pub(super) static TOKENS: RefCell<KnownTokens> = RefCell::default();
}

/// Checks the request's admin token for the scope and returns the token's name. `ADMIN_TOKEN` has
/// every scope.
pub(super) async fn authorize(
    incoming: &Incoming,
    isolate: &Isolate,
    db: &Database,
    context: &JsValue,
    needed: Scope,
    now: UnixMicros,
) -> Result<String, Failure> {
    let Some(root) = &isolate.config.admin_token else {
        return Err(Problem::Unavailable("the admin API is off because ADMIN_TOKEN is not set").into());
    };
    let Ok(presented) = credential::find(None, incoming.authorization.as_deref(), None) else {
        return Err(Problem::NoAdminToken.into());
    };
    // Compared before attempts are counted, so that wrong tokens never lock out ADMIN_TOKEN.
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
            // A deleted token. Its attempt was not counted, because the token was known.
            drop(begin());
        }
        return Err(Problem::InvalidAdminToken.into());
    };
    TOKENS.with_borrow_mut(|tokens| tokens.add(&hash));
    if token.scope >= needed {
        Ok(token.name)
    } else {
        Err(Problem::Forbidden("the scopes of this admin token do not allow the request").into())
    }
}

/// Reads the hashes of the latest tokens into the isolate's memory, unless they are at most a
/// minute old. One request reads them. The others poll, because a promise of another request may
/// never settle once that request has ended.
async fn read_tokens(db: &Database, context: &JsValue, now: UnixMicros) {
    for _ in 0..LOOKS {
        match TOKENS.with_borrow_mut(|tokens| tokens.begin(now.as_millis())) {
            Reading::NotYet => return,
            Reading::UnderWay => drop(JsFuture::from(js::timer::after(LOOK_INTERVAL)).await),
            Reading::Begin => {
                let db = db.clone();
                let read = wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(async move {
                    let hashes = store::tokens::token_hashes(&db, KNOWN).await;
                    let hashes = hashes.inspect_err(|error| {
                        worker::console_error!(
                            "tollgate: admin API: the hashes of the tokens could not be read: {error}"
                        );
                    });
                    TOKENS.with_borrow_mut(|tokens| tokens.end(hashes.ok(), now.as_millis()));
                    Ok(JsValue::UNDEFINED)
                }));
                // Completes even if the client disconnects.
                js::timer::keep_alive(context, &read);
                drop(JsFuture::from(read).await);
                return;
            }
        }
    }
    TOKENS.with_borrow_mut(KnownTokens::give_up);
}
