//! Queries of D1.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/d1.js")]
extern "C" {
    #[wasm_bindgen(js_name = runSql)]
    pub(crate) fn run_sql(database: &JsValue, statements: &str) -> Promise;
    #[wasm_bindgen(js_name = streamRows)]
    pub(crate) fn stream_rows(database: &JsValue, sql: &str, value: &str, head: &str) -> Promise;
}
