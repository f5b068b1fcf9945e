//! The cron trigger: checks the totals of some keys, and deletes old rows.

use crate::encoding::base32;
use crate::runtime::admin::reconcile;
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::isolate::Isolate;
use crate::runtime::store;
use crate::runtime::store::database::Database;
use crate::time::{DAY, UnixMicros};
use wasm_bindgen::JsValue;
use worker::Env;

/// Number of keys that are checked per run.
const SAMPLE: usize = 20;
/// How long hours are kept. The API shows the last 100 days.
const KEPT: u64 = 100 * DAY;
/// Maximum number of rows per statement, and of statements per run. The next run continues.
const BATCH: u64 = 2_000;
const BATCHES: u32 = 50;

/// One run. Its parts are independent. It fails if any of them does, so that the platform reports
/// it.
pub(crate) async fn run(env: &Env) -> Result<(), Error> {
    let now = clock::now();
    let isolate = Isolate::get(env)?;
    let db = Database::of(env)?;
    let checked = check(&isolate, &db, now).await;
    let deleted = delete(&db, now).await;
    checked.and(deleted)
}

async fn check(isolate: &Isolate, db: &Database, now: UnixMicros) -> Result<(), Error> {
    let mut pivot = [0; 10];
    getrandom::fill(&mut pivot).map_err(Error::new)?;
    let mut failure = None;
    for id in store::reports::some_keys(db, &base32(&pivot), SAMPLE).await? {
        match reconcile::compare(isolate, db, &id).await {
            Ok((true, _)) => {}
            Ok((false, detail)) => {
                worker::console_error!("tollgate: D1 does not have what key {id} has counted: {detail}");
                store::reports::note_drift(db, &id, &detail, now).await?;
            }
            // An unreachable object must not hide the others.
            Err(error) => failure = Some(Error::new(format!("key {id} could not be reconciled: {error}"))),
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn delete(db: &Database, now: UnixMicros) -> Result<(), Error> {
    let until = now.saturating_sub(KEPT);
    for _ in 0..BATCHES {
        if !store::reports::delete_hours(db, until, BATCH).await? {
            break;
        }
    }
    Ok(())
}

/// Logs the error and fails the cron run, so that the platform reports it.
pub(crate) async fn answer(env: Env) -> Result<JsValue, JsValue> {
    match run(&env).await {
        Ok(()) => Ok(JsValue::UNDEFINED),
        Err(error) => {
            worker::console_error!("tollgate: cron: {error}");
            Err(wasm_bindgen::JsError::new(&error.to_string()).into())
        }
    }
}
