//! Types that all operations share: the authorised request, results, errors.

use crate::admin::body::{FromFields, parse};
use crate::admin::parameters::Parameters;
use crate::http::problem::Problem;
use crate::protocol::object_response::KeyResponse;
use crate::runtime::error::Error;
use crate::runtime::gateway::object_client;
use crate::runtime::isolate::Isolate;
use crate::runtime::store::database::{Change, Database};
use crate::time::UnixMicros;
use serde::Serialize;
use std::pin::Pin;
use std::rc::Rc;
use wasm_bindgen::JsValue;

/// How often a change is tried while other requests change the same row.
pub(super) const TRIES: u32 = 3;

/// Why an operation failed.
pub(super) enum Failure {
    Refused(Problem),
    /// The key's object refused, and its response has the usage.
    OfKey(Problem, Box<KeyResponse>),
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

/// The response of an operation: status and JSON, the same with the usage of a key, lines of JSON
/// and their media type, nothing (204), or CSV.
pub(super) enum Success {
    Json(u16, String),
    OfKey(u16, String, Box<KeyResponse>),
    Lines(String, &'static str),
    NoContent,
    /// A stream of CSV, and the name of the file.
    Csv(JsValue, String),
}

pub(super) type CommandResult = Result<Success, Failure>;

/// An authorised request.
pub(super) struct Command {
    pub(super) isolate: Rc<Isolate>,
    pub(super) db: Database,
    /// The request's `ExecutionContext`.
    pub(super) context: JsValue,
    /// The name of the token.
    pub(super) actor: String,
    /// The time of the request; the clock is read once.
    pub(super) now: UnixMicros,
    pub(super) parameters: Parameters,
    pub(super) body: Vec<u8>,
    /// The request's `Accept`.
    pub(super) accept: Option<String>,
    /// The request's `Idempotency-Key`.
    pub(super) idempotency_key: Option<String>,
}

/// Work that several operations share. Boxed, so that it is compiled once and not into each of
/// them.
pub(super) type Work<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

impl Command {
    /// The body, read and checked.
    pub(super) fn body<T: FromFields>(&self) -> Result<T, Problem> {
        parse(&self.body)
    }

    /// The entry of the admin log for a change. `before` and `after` are the JSON of the target.
    pub(super) fn log(
        &self,
        action: &'static str,
        target: String,
        before: Option<String>,
        after: Option<String>,
    ) -> Change<'_> {
        Change { at: self.now, actor: &self.actor, action, target, before, after }
    }

    /// Makes the key's object read its row now. A failure is only logged: the object reads the row
    /// within 60 seconds anyway.
    pub(super) fn refresh<'a>(&'a self, id: &'a str) -> Work<'a, ()> {
        Box::pin(async move {
            if let Err(error) = object_client::refresh(&self.isolate, id).await {
                worker::console_error!(
                    "tollgate: a change of key {id} takes effect within 60 s, because its object was not refreshed: {error}"
                );
            }
            self.isolate.forget_denials(Some(id));
        })
    }
}

pub(super) fn text(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(Error::new)
}

/// 409: other requests changed the row at each of [`TRIES`].
pub(super) fn contended() -> Failure {
    Problem::Conflict("other requests changed this at the same time: try again".to_owned()).into()
}
