//! Applies a change of a tier, and fans it out to other objects.

use crate::protocol::fan_out::{FanOut, FanOutResult};
use crate::protocol::object_request::ObjectRequest;
use crate::runtime::error::Error;
use crate::runtime::http::HttpResult;
use crate::runtime::isolate::OBJECTS;
use crate::runtime::js;
use crate::runtime::object::parts::ObjectParts;
use crate::runtime::object::reply;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// The largest body that is read, in bytes: a tier and some thousand ids.
const BODY_LIMIT: usize = 256 * 1024;
/// The most objects that are sent the change at the same time.
const WIDTH: u32 = 50;

/// Applies the change in the body.
pub(super) async fn apply(parts: &ObjectParts, request: &web_sys::Request) -> HttpResult {
    let body = read_body(request).await?;
    parts.reader.apply_tier(&serde_json::from_str(&body).map_err(Error::new)?)?;
    reply::json(&())
}

/// Applies the change in the body, and sends it to the objects that it names.
pub(super) async fn fan_out(parts: &ObjectParts, request: &web_sys::Request) -> HttpResult {
    let fan_out: FanOut = serde_json::from_str(&read_body(request).await?).map_err(Error::new)?;
    parts.reader.apply_tier(&fan_out.change)?;
    reply::json(&FanOutResult { taken: 1 + send(&parts.context.env, &fan_out).await? })
}

async fn read_body(request: &web_sys::Request) -> Result<String, Error> {
    let body = JsFuture::from(js::request::read_body(request, BODY_LIMIT)).await?;
    let body = body.dyn_into::<js_sys::Uint8Array>().map_err(|_| Error::new("the body is too large"))?.to_vec();
    String::from_utf8(body).map_err(Error::new)
}

/// Returns how many objects have applied the change.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of at most some thousands")]
async fn send(env: &Env, fan_out: &FanOut) -> Result<u64, Error> {
    let objects = js_sys::Reflect::get(env, &OBJECTS.into())?;
    let targets = fan_out.ids.iter().map(|id| (id.as_str(), ObjectRequest::ApplyTier { id }.to_url()));
    let targets = serde_json::to_string(&targets.collect::<Vec<_>>()).map_err(Error::new)?;
    let body = serde_json::to_string(&fan_out.change).map_err(Error::new)?;
    let applied = JsFuture::from(js::object::post_to_all(&objects, &targets, &body, WIDTH)).await?;
    Ok(applied.as_f64().unwrap_or_default() as u64)
}
