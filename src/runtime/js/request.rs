//! Properties of client requests.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/request.js")]
extern "C" {
    pub(crate) fn facts(request: &web_sys::Request) -> String;
    pub(crate) fn header(request: &web_sys::Request, name: &str) -> Option<String>;
    #[wasm_bindgen(js_name = headerNames)]
    pub(crate) fn header_names(request: &web_sys::Request) -> String;
    #[wasm_bindgen(js_name = readBody)]
    pub(crate) fn read_body(request: &web_sys::Request, limit: usize) -> Promise;
}
