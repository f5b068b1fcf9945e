//! Operations on reservations. They are requests to the key's object alone: D1 is not read for a
//! key that the object has.

use crate::admin::reservations::{CreateReservation, SettleReservation, id_in_path, id_of, no_reservation};
use crate::gateway::outage::Outage;
use crate::http::idempotency_key::{Field, MAX_KEY};
use crate::http::problem::Problem;
use crate::key_state::hold::UsedAmount;
use crate::keys::key::is_key_id;
use crate::protocol::hold_request::HoldRequest;
use crate::protocol::object_response::{KeyResponse, KeyVerdict, ObjectResponse};
use crate::protocol::reservation::{HoldResponse, ReserveResponse};
use crate::runtime::admin::command::{Command, CommandResult, Failure, Success, Work};
use crate::runtime::admin::keys;
use crate::runtime::error::Error;
use crate::runtime::gateway::object_client;
use crate::runtime::http;

pub(super) async fn create(command: &Command, id: &str) -> CommandResult {
    let create: CreateReservation = command.body()?;
    let hold = match Field::read("POST", command.idempotency_key.as_deref()) {
        Field::Absent => getrandom::u64().map_err(Error::new)?,
        Field::Key(key) => id_of(&command.actor, id, key),
        Field::Malformed => {
            let reason = format!("Idempotency-Key must be 1 to {MAX_KEY} characters of visible ASCII and spaces");
            return Err(Problem::BadRequest(reason).into());
        }
    };
    let text = send(command, id, HoldRequest::Reserve(create.named(hold))).await?;
    let ReserveResponse { response, reservation } = ReserveResponse::parse(&text).ok_or_else(other_form)?;
    let ObjectResponse::Key(known) = response else { return Err(no_key()) };
    command.isolate.self_service.borrow_mut().forget(Some(id));
    match refusal_of(&create, &known) {
        None => Ok(Success::OfKey(201, reservation.to_owned(), Box::new(known))),
        Some(problem) => Err(Failure::OfKey(problem, Box::new(known))),
    }
}

/// The response to a reservation that is not made.
fn refusal_of(create: &CreateReservation, known: &KeyResponse) -> Option<Problem> {
    Some(match &known.verdict {
        KeyVerdict::Admitted(_) => return None,
        KeyVerdict::Denied { .. } => http::quota_exceeded(known)?,
        KeyVerdict::CostExceedsQuota { policy, cost } => {
            let policy = known.usage.policies.get(*policy);
            let (name, quota) = policy.map_or(("", 0), |policy| (policy.name.as_str(), policy.quota));
            let field = if *cost == create.tokens { "tokens" } else { "requests" };
            Problem::BadRequest(format!(
                "{field}: {cost} is more than the quota of {quota} of policy {name}: it can never be reserved"
            ))
        }
        KeyVerdict::Refused(status) => Problem::Forbidden(status.refusal().unwrap_or("the API key may not be used")),
        KeyVerdict::Mismatch => {
            Problem::invalid("Idempotency-Key", "was used for a reservation of another amount: use a new key")
        }
        // Of calls only.
        KeyVerdict::LacksHold(_) => Problem::Internal,
        KeyVerdict::Conflict | KeyVerdict::Malformed => Problem::Conflict(
            "the reservation of this Idempotency-Key is settled or released: use a new key".to_owned(),
        ),
    })
}

pub(super) async fn list(command: &Command, id: &str) -> CommandResult {
    found(&send(command, id, HoldRequest::List).await?)
}

pub(super) async fn settle(command: &Command, id: &str, hold: &str) -> CommandResult {
    let used: UsedAmount = command.body::<SettleReservation>()?.used();
    let text = send(command, id, HoldRequest::Settle(id_in_path(hold)?, used)).await?;
    let settled = found(&text)?;
    command.isolate.forget_denials(Some(id));
    Ok(settled)
}

pub(super) async fn release(command: &Command, id: &str, hold: &str) -> CommandResult {
    found(&send(command, id, HoldRequest::Release(id_in_path(hold)?)).await?)?;
    command.isolate.forget_denials(Some(id));
    Ok(Success::NoContent)
}

fn found(text: &str) -> CommandResult {
    match HoldResponse::parse(text).ok_or_else(other_form)? {
        HoldResponse::Found(json) => Ok(Success::Json(200, json.to_owned())),
        HoldResponse::NoReservation => Err(no_reservation().into()),
        HoldResponse::NoKey => Err(no_key()),
    }
}

fn no_key() -> Failure {
    Problem::NotFound("there is no key with this id".to_owned()).into()
}

fn other_form() -> Error {
    Error::new("the object's response about a reservation has another form")
}

/// Sends a request to the key's object. An object that has not found its key in D1 does not look
/// again for some seconds, so it is made to if D1 has the key.
fn send<'a>(command: &'a Command, id: &'a str, request: HoldRequest) -> Work<'a, Result<String, Failure>> {
    Box::pin(async move {
        if !is_key_id(id) {
            return Err(no_key());
        }
        let text = ask(command, id, request).await?;
        if !is_of_no_key(&text) {
            return Ok(text);
        }
        keys::find(command, id).await?;
        object_client::refresh(&command.isolate, id).await?;
        ask(command, id, request).await
    })
}

fn is_of_no_key(text: &str) -> bool {
    ObjectResponse::parse(text.split('\n').next().unwrap_or_default()) == Some(ObjectResponse::Unknown)
}

async fn ask(command: &Command, id: &str, request: HoldRequest) -> Result<String, Failure> {
    object_client::hold(&command.isolate, id, request).await.map_err(|(outage, error)| {
        worker::console_error!("tollgate: admin API: reservations of key {id}: {error}");
        match outage {
            Outage::Overloaded => Problem::Unavailable("too many requests for this API key at once: try again"),
            Outage::Lost | Outage::Failed => Problem::Unavailable("the request could not be completed: try again"),
        }
        .into()
    })
}
