//! Looks imported keys up in D1, as [`LookupQueue`](crate::gateway::import_queue::LookupQueue)
//! decides.
//!
//! No request awaits a promise of another one. When a client leaves, its request ends and its
//! promises never settle. When a request settles a promise of another one, the runtime continues in
//! the wrong request unless it is started with `handle_cross_request_promise_resolution`, which the
//! test runner lacks. So each request polls its answer in memory by its own timers. The request
//! that runs a query uses `waitUntil`, so that the others are answered even if its client leaves.
//! `tests/http/lookups.test.mjs` covers clients that leave during a query.

use crate::gateway::import_cache::Found;
use crate::gateway::import_queue::{AnswerSlot, DEADLINE, LookupAnswer, LookupBatch, QueriedText, Turn, Waited};
use crate::http::address::Network;
use crate::keys::key::ImportedKey;
use crate::runtime::deadline::within;
use crate::runtime::isolate::Isolate;
use crate::runtime::store;
use crate::runtime::store::database::Database;
use crate::runtime::store::imports::FoundKeys;
use crate::runtime::{clock, js};
use js_sys::Promise;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// The lookup failed, or the queue is full. An error has been logged.
#[derive(Debug)]
pub(crate) struct NotLookedUp;

/// Returns the index of the imported key's id, if any. Waits for its turn and caches the answer.
pub(crate) async fn look_up(
    isolate: &Rc<Isolate>,
    context: &JsValue,
    keys: Vec<ImportedKey>,
    network: Network,
) -> Result<Option<ImportedKey>, NotLookedUp> {
    let keys: Rc<[ImportedKey]> = keys.into();
    let slot = Rc::new(AnswerSlot::default());
    let now = clock::now().as_millis();
    let is_deferred = isolate.refusals.borrow_mut().defers(network, now);
    let joined = isolate.queue.borrow_mut().join(Rc::clone(&keys), is_deferred, Rc::clone(&slot), now);
    let (ticket, gone) = joined.ok_or(NotLookedUp)?;
    for other in gone {
        other.put(LookupAnswer::None);
    }
    let mut waited = Waited::default();
    let answer = loop {
        if let Some(answer) = slot.take() {
            break answer;
        }
        let turn = isolate.queue.borrow_mut().turn(ticket, waited, clock::now().as_millis());
        match turn {
            Turn::Over => break LookupAnswer::None,
            Turn::Wait(milliseconds, next) => {
                drop(JsFuture::from(js::timer::after(milliseconds)).await);
                waited = next;
            }
            Turn::Query(batch) => {
                let query = run_query(Rc::clone(isolate), batch);
                js::timer::keep_alive(context, &query);
                drop(JsFuture::from(query).await);
            }
        }
    };
    let is_key = match answer {
        LookupAnswer::None => return Err(NotLookedUp),
        LookupAnswer::Key(_) => true,
        LookupAnswer::NoKey => false,
    };
    isolate.refusals.borrow_mut().note(network, is_key, clock::now().as_millis());
    Ok(if let LookupAnswer::Key(at) = answer { keys.get(at).cloned() } else { None })
}

/// Runs a query and stores the answers for the waiting requests.
fn run_query(isolate: Rc<Isolate>, batch: LookupBatch) -> Promise {
    wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(async move {
        run(&isolate, batch).await;
        Ok(JsValue::UNDEFINED)
    }))
}

async fn run(isolate: &Isolate, batch: LookupBatch) {
    let mark = isolate.lookups.borrow().mark();
    let started_at = clock::now().as_millis();
    let found =
        within(DEADLINE, async { store::imports::find_imported(&Database::of(&isolate.env)?, &batch.texts).await })
            .await;
    let found = found.inspect_err(|error| {
        let count = batch.texts.len();
        worker::console_error!("tollgate: {count} possible imported keys could not be looked up in D1: {error}");
    });
    if let Ok(found) = &found {
        let mut lookups = isolate.lookups.borrow_mut();
        for keys in &batch.texts {
            let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
            let found = match (found, own(keys, found)) {
                (_, Some((_, key))) => Found::Imported(&key.id),
                (FoundKeys::NoneAtAll, None) => Found::Nothing,
                (FoundKeys::Ids(_), None) => Found::Unknown,
            };
            lookups.keep(&ids, found, mark, started_at);
        }
    }
    let finished = isolate.queue.borrow_mut().finish(batch.number, clock::now().as_millis());
    for QueriedText { keys, waiters } in finished {
        let answer = match &found {
            Ok(found) => own(&keys, found).map_or(LookupAnswer::NoKey, |(at, _)| LookupAnswer::Key(at)),
            Err(_) => LookupAnswer::None,
        };
        for waiter in waiters {
            waiter.put(answer);
        }
    }
}

/// The index of a text's id that D1 has.
fn own<'a>(keys: &'a [ImportedKey], found: &FoundKeys) -> Option<(usize, &'a ImportedKey)> {
    let FoundKeys::Ids(ids) = found else { return None };
    keys.iter().enumerate().find(|(_, key)| ids.contains(&key.id))
}
