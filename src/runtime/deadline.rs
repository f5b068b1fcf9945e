//! Deadlines for operations that an object waits for.

use crate::runtime::error::Error;
use crate::runtime::js;
use std::future::Future;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// Fails if `work` takes longer than so many milliseconds.
pub(crate) async fn within<T>(milliseconds: u32, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let timer = Timer::start(milliseconds);
    match futures_util::future::select(std::pin::pin!(work), JsFuture::from(js::timer::timer_promise(&timer.0))).await {
        futures_util::future::Either::Left((result, _)) => result,
        futures_util::future::Either::Right(_) => Err(Error::new(format!("no answer within {milliseconds} ms"))),
    }
}

/// A timer that is cleared when it is dropped. A pending timer would keep an idle object in memory,
/// and billed.
struct Timer(JsValue);

impl Timer {
    fn start(milliseconds: u32) -> Self {
        Self(js::timer::start_timer(milliseconds))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        js::timer::clear_timer(&self.0);
    }
}
