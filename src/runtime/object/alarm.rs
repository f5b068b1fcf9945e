//! Sets and deletes the object's alarm, as
//! [`alarm_schedule`](crate::object::alarm_schedule) decides.

use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::object::context::ObjectContext;
use crate::time::UnixMicros;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Waker};
use wasm_bindgen::JsValue;
use worker::ScheduledTime;

/// The alarm of one object.
#[derive(Clone)]
pub(super) struct Alarm {
    context: Rc<ObjectContext>,
}

impl Alarm {
    pub(super) const fn new(context: Rc<ObjectContext>) -> Self {
        Self { context }
    }

    /// Reads the alarm from storage, unless it is known.
    pub(super) async fn find(&self) -> Result<(), Error> {
        if !self.context.memory.borrow().alarm.is_unknown() {
            return Ok(());
        }
        let found = self.context.state.storage().get_alarm().await?.and_then(|at| u64::try_from(at).ok());
        self.context.memory.borrow_mut().alarm.found(found);
        Ok(())
    }

    /// Sets the alarm if something is due and none is set that comes in time.
    pub(super) fn arm(&self, now: UnixMicros) {
        let flush_seconds = self.context.settings().flush_seconds;
        let at = self.context.memory.borrow_mut().arm(flush_seconds, now, js_sys::Math::random);
        if let Some(at) = at {
            self.set_beside(at);
        }
    }

    /// Sets the alarm in this very turn of the event loop, so that it is in one transaction with
    /// the turn's row.
    pub(super) fn set_beside(&self, at: u64) {
        let setting = self.set(at);
        self.context.state.wait_until(setting);
    }

    /// The same; the future resolves when the setting is confirmed. `at` is in milliseconds since
    /// 1970. One that is over comes at once.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
    pub(super) fn set(&self, at: u64) -> impl Future<Output = ()> + use<> {
        let context = Rc::clone(&self.context);
        let mut setting = Box::pin(async move {
            let time = ScheduledTime::new(js_sys::Date::new(&JsValue::from_f64(at as f64)));
            if let Err(error) = context.state.storage().set_alarm(time).await {
                worker::console_error!("tollgate: an alarm could not be set: {error}");
                context.memory.borrow_mut().alarm.discard();
            }
        });
        // Futures do nothing until they are polled.
        let _ = setting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        setting
    }

    pub(super) async fn delete(&self) {
        if let Err(error) = self.context.state.storage().delete_alarm().await {
            worker::console_error!("tollgate: an alarm could not be deleted: {error}");
            self.context.memory.borrow_mut().alarm.discard();
        }
        // A call that was counted during the deletion has set an alarm. One that was counted before
        // it relied on the alarm that is deleted.
        self.arm(clock::now());
    }
}
