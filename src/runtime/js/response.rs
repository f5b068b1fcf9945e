//! Responses.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/response.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    pub(crate) fn reply(status: u16, body: Option<&str>, fields: &str) -> Result<web_sys::Response, JsValue>;
    #[wasm_bindgen(catch, js_name = replyShared)]
    pub(crate) fn reply_shared(status: u16, body: &JsValue, headers: &JsValue) -> Result<web_sys::Response, JsValue>;
}
