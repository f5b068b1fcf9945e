//! Requests to the operator's webhook.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/webhook.js")]
extern "C" {
    pub(crate) fn post(url: &str, fields: &str, body: &str, milliseconds: u32) -> Promise;
}
