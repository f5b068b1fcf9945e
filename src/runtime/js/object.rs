//! Requests to the objects of keys. `ask`, `deliverLater` and `deliverNow` are declared beside the
//! types that they resume.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/object.js")]
extern "C" {
    #[wasm_bindgen(js_name = askText)]
    pub(crate) fn ask_text(namespace: &JsValue, name: &str, url: &str, body: Option<&str>) -> Promise;
    #[wasm_bindgen(js_name = sendOnce)]
    pub(crate) fn send_once(namespace: &JsValue, name: &str, line: &str);
    #[wasm_bindgen(js_name = postToAll)]
    pub(crate) fn post_to_all(namespace: &JsValue, targets: &str, body: &str, width: u32) -> Promise;
}
