//! Timers, and work that outlives the response.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/timer.js")]
extern "C" {
    pub(crate) fn after(milliseconds: u32) -> Promise;
    #[wasm_bindgen(js_name = startTimer)]
    pub(crate) fn start_timer(milliseconds: u32) -> JsValue;
    #[wasm_bindgen(js_name = timerPromise)]
    pub(crate) fn timer_promise(timer: &JsValue) -> Promise;
    #[wasm_bindgen(js_name = clearTimer)]
    pub(crate) fn clear_timer(timer: &JsValue);
    #[wasm_bindgen(js_name = keepAlive)]
    pub(crate) fn keep_alive(context: &JsValue, work: &Promise);
}
