//! Writes that several calls await.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/writer.js")]
extern "C" {
    #[wasm_bindgen(js_name = openBatch)]
    pub(crate) fn open_batch(writer: &JsValue) -> JsValue;
    #[wasm_bindgen(js_name = closeBatch)]
    pub(crate) fn close_batch(batch: &JsValue, failure: Option<&str>);
    #[wasm_bindgen(js_name = answerWith)]
    pub(crate) fn answer_with(batch: &JsValue, line: &str) -> Promise;
    #[wasm_bindgen(js_name = batchClosed)]
    pub(crate) fn batch_closed(batch: &JsValue) -> Promise;
    #[wasm_bindgen(js_name = nextTurn)]
    pub(crate) fn next_turn(writer: &JsValue, callback: &JsValue);
    #[wasm_bindgen(js_name = whenConfirmed)]
    pub(crate) fn when_confirmed(storage: &JsValue, writer: &JsValue, callback: &JsValue, number: u32);
}
