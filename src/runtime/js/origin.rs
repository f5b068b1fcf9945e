//! Requests to the origin. `forward` is declared beside the type that it reports to.

use js_sys::Promise;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/origin.js")]
extern "C" {
    #[wasm_bindgen(js_name = setForwardingRules)]
    pub(crate) fn set_forwarding_rules(
        bad_gateway_status: u16,
        bad_gateway_body: &str,
        bad_gateway_fields: &str,
        loop_status: u16,
        reserved: &str,
        reserved_in_responses: &str,
    );
    #[wasm_bindgen(js_name = forwardPreflight)]
    pub(crate) fn forward_preflight(request: &web_sys::Request, url: Option<&str>, kept: &str, fields: &str)
    -> Promise;
    #[wasm_bindgen(js_name = hasSeenLoop)]
    pub(crate) fn has_seen_loop() -> bool;
    pub(crate) fn probe(url: &str, name: &str, value: &str, milliseconds: u32) -> Promise;
}
