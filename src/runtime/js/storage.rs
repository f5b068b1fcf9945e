//! An object's own storage.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/storage.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    pub(crate) fn query(storage: &JsValue, sql: &str) -> Result<String, JsValue>;
    #[wasm_bindgen(catch)]
    pub(crate) fn write(storage: &JsValue, sql: &str, values: Vec<JsValue>) -> Result<f64, JsValue>;
    #[wasm_bindgen(catch, js_name = writeAll)]
    pub(crate) fn write_all(storage: &JsValue, statements: &js_sys::Array) -> Result<f64, JsValue>;
    #[wasm_bindgen(js_name = databaseSize)]
    pub(crate) fn database_size(storage: &JsValue) -> f64;
}
