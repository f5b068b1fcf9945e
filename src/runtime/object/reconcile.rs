//! Whether D1 has what an object has counted.

use crate::key_state::state::KeyState;
use crate::runtime::error::Error;
use crate::runtime::gateway::object_client;
use crate::runtime::isolate::Isolate;
use crate::runtime::object::flush;
use crate::runtime::object::key_object::{Shared, json};
use crate::runtime::store;
use crate::runtime::store::database::Database;
use crate::runtime::{clock, http};
use crate::time::rfc3339;
use serde_json::{Value, json};
use std::rc::Rc;

/// How often they are compared before a difference counts: another flush may come between the question and D1's answer.
const TRIES: u32 = 3;

/// The object's side: flushes, and tells what D1 has then. Each count is its month or hour, its class, calls, denied, cost, tokens.
pub(crate) async fn counted(shared: &Rc<Shared>) -> http::HttpResult {
    let counts = flush::flush(shared, look).await?;
    json(&counts.ok_or_else(|| Error::new("an object without a name"))?)
}

fn look(key_state: &KeyState) -> Value {
    let months = key_state.meter().kept_months().into_iter().filter(|total| total.calls > 0 || total.denied > 0);
    let months = months.map(|total| json!([total.month, "", total.calls, total.denied, total.cost, total.tokens]));
    let hours = key_state.meter().kept_hours();
    let hours = hours.iter().map(|total| {
        let counts = total.counts;
        json!([rfc3339(total.start()), total.class, counts.calls, counts.denied, counts.cost, 0])
    });
    json!({ "epoch": key_state.epoch(), "counts": months.chain(hours).collect::<Value>() })
}

/// The Worker's side: asks the key's object and D1. True if they agree, and what they say, as JSON.
pub(crate) async fn compare(isolate: &Isolate, db: &Database, id: &str) -> Result<(bool, String), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let counted = object_client::reconcile(isolate, id).await?;
        let compared = store::reports::reconcile(db, id, &counted, clock::now()).await?;
        if compared.0 || tries >= TRIES {
            return Ok(compared);
        }
    }
}
