//! Telling that a quota is nearly used up. An alert is a part of the object's state until it was told, or given up: the alarm sends
//! it, and again after each failure. What became of it is in D1, where an object that has lost its memory finds it.

use crate::admin::alerts::DeliveryState;
use crate::config::{self, Webhook};
use crate::key_state::state::KeyState;
use crate::metering::alerts::{Alert, signature};
use crate::runtime::clock;
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::isolate::variable;
use crate::runtime::js;
use crate::runtime::js::fields::FieldLines;
use crate::runtime::object::key_object::{Memory, Shared};
use crate::runtime::store;
use crate::runtime::store::database::Database;
use crate::time::{SECOND, UnixMicros};
use std::rc::Rc;
use wasm_bindgen_futures::JsFuture;

/// How long after it was raised an alert is told, in milliseconds.
pub(crate) const DELAY: u64 = 1_000;
/// How long the receiver may take, in milliseconds.
const DEADLINE: u32 = 10_000;
/// How long D1 may take, in milliseconds.
const STORE_DEADLINE: u32 = 10_000;

/// When the next alert is to be told, in milliseconds.
pub(crate) fn next(memory: &Memory, key_state: &KeyState, now: UnixMicros) -> Option<u64> {
    let due = |alert: &Alert| due(memory, alert).unwrap_or(now.as_millis().saturating_add(DELAY));
    key_state.pending_alerts().iter().map(due).min()
}

/// When an alert that was not told is tried again.
fn due(memory: &Memory, alert: &Alert) -> Option<u64> {
    memory.undelivered.iter().find(|(undelivered, _)| undelivered == alert).map(|(_, at)| *at)
}

/// Tells all alerts that are due. Fails if D1 cannot be asked; then they are due again later.
pub(crate) async fn tell(shared: &Rc<Shared>) -> Result<(), Error> {
    let now = clock::now();
    shared.load()?;
    let pending: Vec<Alert> = {
        let memory = shared.memory.borrow();
        let Some(key_state) = &memory.key_state else { return Ok(()) };
        let is_due = |alert: &&Alert| due(&memory, alert).is_none_or(|at| at <= now.as_millis());
        key_state.pending_alerts().iter().filter(is_due).cloned().collect()
    };
    let Some(id) = shared.key_id().filter(|_| !pending.is_empty()) else { return Ok(()) };
    let webhook = config::webhook(|name| variable(&shared.env, name)).map_err(Error::new);
    let mut result = Ok(());
    for alert in pending {
        let next = match &webhook {
            Ok(webhook) => tell_one(shared, &id, &alert, webhook.as_ref()).await,
            Err(error) => Err(error.clone()),
        };
        let later = |seconds: u64| Some(clock::now().saturating_add(seconds * SECOND));
        let next = next.unwrap_or_else(|error| {
            result = Err(error);
            later(Alert::pause_after(1).unwrap_or_default())
        });
        let mut memory = shared.memory.borrow_mut();
        memory.undelivered.retain(|(undelivered, _)| *undelivered != alert);
        match (next, &mut memory.key_state) {
            (Some(at), _) => memory.undelivered.push((alert, at.as_millis())),
            (None, Some(key_state)) => key_state.mark_alerted(&alert),
            (None, None) => {}
        }
    }
    if shared.memory.borrow().key_state.as_ref().is_some_and(crate::runtime::object::writer::is_unwritten) {
        shared.commit(clock::now()).await?;
    }
    result
}

/// Tells one alert; gives when to try again, if that has to be.
async fn tell_one(
    shared: &Rc<Shared>,
    id: &str,
    alert: &Alert,
    webhook: Option<&Webhook>,
) -> Result<Option<UnixMicros>, Error> {
    let db: Database = Database::of(&shared.env)?;
    let delivery = within(STORE_DEADLINE, store::alerts::put_alert(&db, id, alert, webhook.is_some())).await?;
    let Some(webhook) = webhook.filter(|_| delivery.state == DeliveryState::Pending) else { return Ok(None) };
    let now = clock::now();
    // One that is further off than any pause was set by a clock that was ahead.
    let is_to_come = |next: &UnixMicros| (1..=Alert::LONGEST_PAUSE * SECOND).contains(&next.since(now));
    if let Some(next) = delivery.next_attempt_at.map(UnixMicros::from_millis).filter(is_to_come) {
        return Ok(Some(next));
    }
    let body = alert.body(id);
    let timestamp = now.as_seconds().to_string();
    let mut fields = FieldLines::default();
    fields.set("Content-Type", "application/json");
    fields.set("X-Tollgate-Signature", &signature(&webhook.secret, &timestamp, &body));
    fields.set("X-Tollgate-Timestamp", &timestamp);
    let error = JsFuture::from(js::webhook::post(&webhook.url, fields.as_str(), &body, DEADLINE)).await?.as_string();
    let pause = Alert::pause_after(delivery.attempts.saturating_add(1)).filter(|_| error.is_some());
    let next = pause.map(|seconds| clock::now().saturating_add(seconds * SECOND));
    let state = match (&error, next) {
        (None, _) => DeliveryState::Delivered,
        (Some(_), Some(_)) => DeliveryState::Pending,
        (Some(error), None) => {
            worker::console_error!("tollgate: an alert of key {id} was given up: {error}");
            DeliveryState::Dead
        }
    };
    within(STORE_DEADLINE, store::alerts::note_attempt(&db, id, alert, state, next, error.as_deref())).await?;
    Ok(next)
}
