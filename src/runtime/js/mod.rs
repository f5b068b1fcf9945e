//! The JavaScript that [`glue.js`](../../../src/runtime/js/glue.js) gives, and what belongs to it.

use crate::runtime::gateway::gate::GatedCall;
use crate::runtime::gateway::outbox::ReportDelivery;
use js_sys::Promise;
use std::fmt;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/glue.js")]
extern "C" {
    pub(crate) fn facts(request: &web_sys::Request) -> String;
    #[wasm_bindgen(js_name = hasSeenLoop)]
    pub(crate) fn has_seen_loop() -> bool;
    #[wasm_bindgen(js_name = askItself)]
    pub(crate) fn ask_itself(url: &str, mark: &str) -> Promise;
    pub(crate) fn header(request: &web_sys::Request, name: &str) -> Option<String>;
    pub(crate) fn forward(
        request: &web_sys::Request,
        url: Option<&str>,
        dropped: &str,
        fields: &str,
        answer_fields: &str,
    ) -> Promise;
    #[wasm_bindgen(js_name = forwardPreflight)]
    pub(crate) fn forward_preflight(request: &web_sys::Request, url: Option<&str>, fields: &str) -> Promise;
    #[wasm_bindgen(js_name = forwardCall)]
    pub(crate) fn forward_call(
        request: &web_sys::Request,
        url: Option<&str>,
        dropped: &str,
        fields: &str,
        answer_fields: &str,
        context: &JsValue,
        namespace: &JsValue,
        name: &str,
        nonce: &str,
        is_awaited: bool,
    ) -> Promise;
    #[wasm_bindgen(js_name = setBadGateway)]
    pub(crate) fn set_bad_gateway(body: &str, fields: &str);
    #[wasm_bindgen(catch)]
    pub(crate) fn reply(status: u16, body: Option<&str>, fields: &str) -> Result<web_sys::Response, JsValue>;
    #[wasm_bindgen(catch, js_name = shareFields)]
    pub(crate) fn share_fields(fields: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(catch, js_name = replyShared)]
    pub(crate) fn reply_shared(status: u16, body: &JsValue, headers: &JsValue) -> Result<web_sys::Response, JsValue>;
    #[wasm_bindgen(js_name = readBody)]
    pub(crate) fn read_body(request: &web_sys::Request, limit: usize) -> Promise;
    #[wasm_bindgen(catch)]
    pub(crate) fn ask(namespace: &JsValue, name: &str, question: &str, call: GatedCall) -> Result<Promise, JsValue>;
    #[wasm_bindgen(js_name = payLater)]
    pub(crate) fn pay_later(
        context: &JsValue,
        milliseconds: u32,
        namespace: &JsValue,
        name: &str,
        delivery: ReportDelivery,
    );
    #[wasm_bindgen(js_name = askText)]
    pub(crate) fn ask_text(namespace: &JsValue, name: &str, url: &str) -> Promise;
    #[wasm_bindgen(js_name = openBatch)]
    pub(crate) fn open_batch(desk: &JsValue) -> JsValue;
    #[wasm_bindgen(js_name = closeBatch)]
    pub(crate) fn close_batch(batch: &JsValue, failure: Option<&str>);
    #[wasm_bindgen(js_name = answerWith)]
    pub(crate) fn answer_with(batch: &JsValue, line: &str) -> Promise;
    #[wasm_bindgen(js_name = batchClosed)]
    pub(crate) fn batch_closed(batch: &JsValue) -> Promise;
    pub(crate) fn after(milliseconds: u32) -> Promise;
    #[wasm_bindgen(js_name = startTimer)]
    pub(crate) fn start_timer(milliseconds: u32) -> JsValue;
    #[wasm_bindgen(js_name = timerPromise)]
    pub(crate) fn timer_promise(timer: &JsValue) -> Promise;
    #[wasm_bindgen(js_name = clearTimer)]
    pub(crate) fn clear_timer(timer: &JsValue);
    #[wasm_bindgen(js_name = nextTurn)]
    pub(crate) fn next_turn(desk: &JsValue, callback: &JsValue);
    #[wasm_bindgen(js_name = whenConfirmed)]
    pub(crate) fn when_confirmed(storage: &JsValue, desk: &JsValue, callback: &JsValue, number: u32);
    #[wasm_bindgen(catch)]
    pub(crate) fn query(storage: &JsValue, sql: &str) -> Result<String, JsValue>;
    #[wasm_bindgen(catch)]
    pub(crate) fn write(storage: &JsValue, sql: &str, values: Vec<JsValue>) -> Result<f64, JsValue>;
    #[wasm_bindgen(catch, js_name = writeAll)]
    pub(crate) fn write_all(storage: &JsValue, statements: &js_sys::Array) -> Result<f64, JsValue>;
    #[wasm_bindgen(js_name = databaseSize)]
    pub(crate) fn database_size(storage: &JsValue) -> f64;
    #[wasm_bindgen(js_name = runSql)]
    pub(crate) fn run_sql(database: &JsValue, statements: &str) -> Promise;
    #[wasm_bindgen(js_name = streamRows)]
    pub(crate) fn stream_rows(database: &JsValue, sql: &str, value: &str, head: &str) -> Promise;
    #[wasm_bindgen(js_name = postOut)]
    pub(crate) fn post_out(url: &str, fields: &str, body: &str, milliseconds: u32) -> Promise;
    #[wasm_bindgen(js_name = postToAll)]
    pub(crate) fn post_to_all(namespace: &JsValue, names: &str, url: &str, body: &str, width: u32) -> Promise;
    #[wasm_bindgen(js_name = relayToAll)]
    pub(crate) fn relay_to_all(namespace: &JsValue, names: &str, url_of: &str, change: &str, size: usize) -> Promise;
    #[wasm_bindgen(js_name = noteEnd)]
    fn js_note_end();
    #[wasm_bindgen(js_name = keepAlive)]
    pub(crate) fn keep_alive(context: &JsValue, work: &Promise);
}

/// Runs when a trap has ended this instance of the wasm.
pub(crate) fn on_abort() {
    js_note_end();
}

/// An error of ours or of the platform, with its cause for the log. Never shown to a client.
#[derive(Debug, Clone)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<JsValue> for Error {
    fn from(value: JsValue) -> Self {
        match value.dyn_ref::<js_sys::Error>() {
            Some(error) => Self(String::from(error.message())),
            None => Self(format!("{value:?}")),
        }
    }
}

impl From<worker::Error> for Error {
    fn from(error: worker::Error) -> Self {
        Self::new(error)
    }
}

/// Header fields in the form that `glue.js` takes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(String);

impl Fields {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        for text in [name, "\n", value, "\n"] {
            self.0.push_str(text);
        }
    }

    pub(crate) fn append(&mut self, others: &Self) {
        self.0.push_str(&others.0);
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Extend<(&'static str, String)> for Fields {
    fn extend<I: IntoIterator<Item = (&'static str, String)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.set(name, &value);
        }
    }
}
