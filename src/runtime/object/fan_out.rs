//! The object's side of a change of a tier: taking it over, and passing it on.

use crate::protocol::fan_out::{FanOut, FanOutResult};
use crate::protocol::object_request::ObjectRequest;
use crate::runtime::error::Error;
use crate::runtime::http;
use crate::runtime::isolate::OBJECTS;
use crate::runtime::js;
use crate::runtime::object::key_object::{Shared, json};
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;

/// The largest body that is read, in bytes: a tier and some thousand ids.
const PUSH_LIMIT: usize = 256 * 1024;
/// The most objects that are sent the change at the same time.
const WIDTH: u32 = 50;

impl Shared {
    /// Answers the questions that have a body.
    pub(crate) async fn take_push(self: Rc<Self>, request: &web_sys::Request) -> http::HttpResult {
        let body = JsFuture::from(js::request::read_body(request, PUSH_LIMIT)).await?;
        let body = body.dyn_into::<js_sys::Uint8Array>().map_err(|_| Error::new("the push is too large"))?.to_vec();
        let body = str::from_utf8(&body).map_err(Error::new)?;
        let url = request.url();
        match ObjectRequest::parse(&url) {
            Some(ObjectRequest::ApplyTier { .. }) => {
                self.apply_tier(&serde_json::from_str(body).map_err(Error::new)?)?;
                json(&())
            }
            Some(ObjectRequest::FanOut { .. }) => {
                let fan_out: FanOut = serde_json::from_str(body).map_err(Error::new)?;
                self.apply_tier(&fan_out.change)?;
                json(&FanOutResult { taken: 1 + self.pass_on(&fan_out).await? })
            }
            _ => Err(Error::new("no such question")),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of at most some thousands")]
    async fn pass_on(&self, fan_out: &FanOut) -> Result<u64, Error> {
        let objects = js_sys::Reflect::get(&self.env, &OBJECTS.into())?;
        let targets = fan_out.ids.iter().map(|id| (id.as_str(), ObjectRequest::ApplyTier { id }.to_url()));
        let targets = serde_json::to_string(&targets.collect::<Vec<_>>()).map_err(Error::new)?;
        let body = serde_json::to_string(&fan_out.change).map_err(Error::new)?;
        let taken = JsFuture::from(js::object::post_to_all(&objects, &targets, &body, WIDTH)).await?;
        Ok(taken.as_f64().unwrap_or_default() as u64)
    }
}
