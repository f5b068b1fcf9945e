//! The instance of the wasm that this is.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/instance.js")]
extern "C" {
    #[wasm_bindgen(js_name = markEnded)]
    fn mark_ended();
}

/// Ensures that pointers into a crashed wasm instance are never used by its replacement.
///
/// `worker` has the next call, whatever it is, put a new instance in place: even a call of an
/// object that the old one has left in JavaScript, which would then take its pointer along. So that
/// is left to those who begin something: see `entry.js`. To be called by them, because `worker`
/// sets its own hook when the instance starts, before or after the crate's start function.
pub(crate) fn install_abort_hook() {
    wasm_bindgen::handler::set_on_abort(on_abort);
}

/// Runs when a trap has ended this instance.
fn on_abort() {
    mark_ended();
}
