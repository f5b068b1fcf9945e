//! Compares what a key's object has counted with D1.

use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::gateway::object_client;
use crate::runtime::isolate::Isolate;
use crate::runtime::store;
use crate::runtime::store::database::Database;

/// How often they are compared before a difference counts: another flush may come between the
/// object's response and D1's.
const TRIES: u32 = 3;

/// Returns whether object and D1 agree, and the counts of both as JSON.
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
