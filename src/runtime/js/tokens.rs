//! Bodies of calls that spend tokens.

use js_sys::{Array, Promise};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/tokens.js")]
extern "C" {
    #[wasm_bindgen(js_name = readTokenBody)]
    pub(crate) fn read_token_body(request: &web_sys::Request, limit: usize, milliseconds: u32) -> Promise;
    #[wasm_bindgen(js_name = cancelTokenBody)]
    pub(crate) fn cancel_token_body(body: &Array);
}
