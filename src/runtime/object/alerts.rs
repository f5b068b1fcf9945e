//! Delivers alerts to the operator's webhook, as
//! [`alert_delivery`](crate::object::alert_delivery) decides.

use crate::admin::alerts::DeliveryState;
use crate::config::{self, Webhook};
use crate::key_state::state::KeyState;
use crate::metering::alerts::{Alert, signature};
use crate::object::alert_delivery::{AlertRecord, AttemptResult, NextAttempt};
use crate::runtime::clock;
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::isolate::variable;
use crate::runtime::js;
use crate::runtime::js::fields::FieldLines;
use crate::runtime::object::context::ObjectContext;
use crate::runtime::object::writer::Writer;
use crate::runtime::store;
use crate::time::UnixMicros;
use std::rc::Rc;
use wasm_bindgen_futures::JsFuture;

/// How long the receiver may take, in milliseconds.
const DEADLINE: u32 = 10_000;
/// How long D1 may take, in milliseconds.
const STORE_DEADLINE: u32 = 10_000;

/// Delivers all alerts that are due. Fails if a record in D1 cannot be read or written; its alert
/// is then due again later.
pub(super) async fn deliver(context: &ObjectContext, writer: &Rc<Writer>) -> Result<(), Error> {
    let now = clock::now();
    context.load()?;
    let due: Vec<Alert> = {
        let memory = context.memory.borrow();
        let pending = memory.key_state.as_ref().map(KeyState::pending_alerts).unwrap_or_default();
        memory.alarm.delivery().due(pending, now.as_millis())
    };
    let Some(id) = context.key_id().filter(|_| !due.is_empty()) else { return Ok(()) };
    let webhook = config::webhook(|name| variable(&context.env, name)).map_err(Error::new);
    let mut result = Ok(());
    for alert in due {
        let retry_at = match &webhook {
            Ok(webhook) => attempt(context, &id, &alert, webhook.as_ref()).await,
            Err(error) => Err(error.clone()),
        };
        let mut memory = context.memory.borrow_mut();
        match retry_at {
            Ok(retry_at) => {
                memory.alarm.delivery_mut().attempted(&alert, retry_at);
                if let (None, Some(key_state)) = (retry_at, &mut memory.key_state) {
                    key_state.mark_alerted(&alert);
                }
            }
            Err(error) => {
                memory.alarm.delivery_mut().failed(&alert, clock::now().as_millis());
                result = Err(error);
            }
        }
    }
    if context.memory.borrow().has_unwritten_counts() {
        writer.commit(clock::now()).await?;
    }
    result
}

/// Sends an alert, unless it is settled or has to wait. Returns when it is due again, in
/// milliseconds; `None` if it is settled.
async fn attempt(
    context: &ObjectContext,
    id: &str,
    alert: &Alert,
    webhook: Option<&Webhook>,
) -> Result<Option<u64>, Error> {
    let db = context.database()?;
    let progress = within(STORE_DEADLINE, store::alerts::put_alert(&db, id, alert, webhook.is_some())).await?;
    let record = AlertRecord {
        is_pending: progress.state == DeliveryState::Pending,
        attempts: progress.attempts,
        next_attempt_at: progress.next_attempt_at,
    };
    let now = clock::now();
    let webhook = match (record.next_attempt(webhook.is_some(), now.as_millis()), webhook) {
        (NextAttempt::Send, Some(webhook)) => webhook,
        (NextAttempt::Wait(at), _) => return Ok(Some(at)),
        (NextAttempt::Send | NextAttempt::Settled, _) => return Ok(None),
    };
    let error = send(webhook, id, alert, now).await?;
    let result = record.attempted(error.is_none(), clock::now().as_millis());
    let state = match result {
        AttemptResult::Delivered => DeliveryState::Delivered,
        AttemptResult::Retry(_) => DeliveryState::Pending,
        AttemptResult::GivenUp => {
            let error = error.as_deref().unwrap_or_default();
            worker::console_error!("tollgate: an alert of key {id} was given up: {error}");
            DeliveryState::Dead
        }
    };
    let next = result.retry_at().map(UnixMicros::from_millis);
    within(STORE_DEADLINE, store::alerts::note_attempt(&db, id, alert, state, next, error.as_deref())).await?;
    Ok(result.retry_at())
}

/// Posts an alert. Returns why the receiver has not accepted it, or `None` if it has.
async fn send(webhook: &Webhook, id: &str, alert: &Alert, now: UnixMicros) -> Result<Option<String>, Error> {
    let body = alert.body(id);
    let timestamp = now.as_seconds().to_string();
    let mut fields = FieldLines::default();
    fields.set("Content-Type", "application/json");
    fields.set("X-Tollgate-Signature", &signature(&webhook.secret, &timestamp, &body));
    fields.set("X-Tollgate-Timestamp", &timestamp);
    Ok(JsFuture::from(js::webhook::post(&webhook.url, fields.as_str(), &body, DEADLINE)).await?.as_string())
}
