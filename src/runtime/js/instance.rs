//! The current wasm instance.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/instance.js")]
extern "C" {
    #[wasm_bindgen(js_name = markEnded)]
    fn mark_ended();
}

/// Ensures that pointers into a crashed wasm instance are never used by its replacement.
///
/// `worker` replaces a crashed instance at the next call of any kind. That may be a call on an
/// object that the old instance left in JavaScript, which would pass its pointer to the new one. So
/// this hook leaves the replacement to the entry points in `entry.js`. They must install it,
/// because `worker` sets its own hook when an instance starts, before or after the crate's start
/// function.
pub(crate) fn install_abort_hook() {
    wasm_bindgen::handler::set_on_abort(on_abort);
}

/// Runs when a trap ends this instance.
fn on_abort() {
    mark_ended();
}
