//! Responses of an object to the Worker.

use crate::runtime::error::Error;
use crate::runtime::http::HttpResult;
use crate::runtime::js;
use serde::Serialize;

pub(super) fn json(value: &impl Serialize) -> HttpResult {
    text(&serde_json::to_string(value).map_err(Error::new)?)
}

pub(super) fn text(body: &str) -> HttpResult {
    Ok(js::response::reply(200, Some(body), "")?.into())
}
