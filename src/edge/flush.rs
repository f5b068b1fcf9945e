//! Metering: an object's totals, carried to D1 by its alarm.
//!
//! The alarm is set when something is counted that D1 does not have, and re-armed before it works: a platform that gives up on an
//! alarm after six failures then never gets to. Totals are absolute, so a flush that is repeated, or whose acknowledgement was
//! lost, changes nothing; and what is marked as flushed is what was sent, so calls that arrive meanwhile stay due.

use super::clock;
use super::commit::is_unwritten;
use super::deployment::variable;
use super::js::Fault;
use super::key_object::{Alarm, Shared};
use super::key_store;
use super::timer::within;
use crate::config;
use crate::time::UnixMicros;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// How long a flush may take, in milliseconds. D1 itself gives up on a query after 30 s.
const FLUSH_DEADLINE: u32 = 30_000;
/// The longest pause between two attempts while D1 is out of reach, in seconds.
const LONGEST_PAUSE: u64 = 900;

impl Shared {
    /// `FLUSH_SECONDS`; its default, and a line in the log, if it is set to nonsense (the Worker then answers 503 to everything).
    pub(super) fn flush_seconds(&self) -> u64 {
        *self.flush_seconds.get_or_init(|| {
            config::flush_seconds(|name| variable(&self.env, name)).unwrap_or_else(|error| {
                worker::console_error!("tollgate: {error}");
                60
            })
        })
    }

    /// Sets the alarm, in this very turn; the future only tells whether that was confirmed.
    pub(super) fn set_alarm(self: &Rc<Self>, delay: Duration) -> impl Future<Output = ()> + use<> {
        let at = clock::now().saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)).as_millis();
        self.memory.borrow_mut().alarm = Alarm::Set(at);
        let shared = Rc::clone(self);
        let mut setting = Box::pin(async move {
            if let Err(error) = shared.state.storage().set_alarm(delay).await {
                worker::console_error!("tollgate: an alarm could not be set: {error}");
                shared.memory.borrow_mut().alarm = Alarm::Unknown;
            }
        });
        // Futures do nothing until they are polled.
        let _ = setting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        setting
    }
}

/// Sets the alarm if something is due and none is set.
pub(super) fn arm(shared: &Rc<Shared>, now: UnixMicros) {
    let is_due = {
        let memory = shared.memory.borrow();
        // An alarm beyond the longest pause was set by a clock that was ahead.
        let longest = LONGEST_PAUSE.max(shared.flush_seconds()).saturating_mul(1000);
        let last = now.as_millis().saturating_add(longest);
        let is_set = matches!(memory.alarm, Alarm::Set(at) if at <= last);
        !is_set && memory.ledger.as_ref().is_some_and(|ledger| !ledger.unflushed().is_empty())
    };
    if is_due {
        let setting = shared.set_alarm(jittered(shared.flush_seconds()));
        shared.state.wait_until(setting);
    }
}

/// Between half of `seconds` and all of them, so that keys that were called together do not flush together.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a random share of minutes"
)]
fn jittered(seconds: u64) -> Duration {
    Duration::from_millis((seconds as f64 * 500.0 * (1.0 + js_sys::Math::random())) as u64)
}

/// The alarm's work. Never fails: what it could not do now, the alarm that it set first will.
pub(super) async fn alarm(shared: &Rc<Shared>) {
    let pause = {
        let memory = shared.memory.borrow();
        let factor = 1u64.checked_shl(memory.failed_flushes).unwrap_or(u64::MAX);
        shared.flush_seconds().saturating_mul(factor).min(LONGEST_PAUSE.max(shared.flush_seconds()))
    };
    shared.set_alarm(jittered(pause)).await;
    let result = flush(shared).await;
    let is_done = {
        let mut memory = shared.memory.borrow_mut();
        memory.failed_flushes = if result.is_ok() { 0 } else { memory.failed_flushes.saturating_add(1) };
        memory.ledger.as_ref().is_some_and(|ledger| ledger.unflushed().is_empty())
    };
    match result {
        Err(fault) => worker::console_error!("tollgate: a flush to D1 failed and will be repeated: {fault}"),
        // An idle key costs nothing: no alarm without something to flush.
        Ok(()) if is_done => disarm(shared).await,
        Ok(()) => {}
    }
}

async fn disarm(shared: &Rc<Shared>) {
    shared.memory.borrow_mut().alarm = Alarm::Unset;
    if let Err(error) = shared.state.storage().delete_alarm().await {
        worker::console_error!("tollgate: an alarm could not be deleted: {error}");
        shared.memory.borrow_mut().alarm = Alarm::Unknown;
    }
    // A call that was counted during the deletion saw no alarm and set its own; one that came before it did not.
    arm(shared, clock::now());
}

async fn flush(shared: &Rc<Shared>) -> Result<(), Fault> {
    let now = clock::now();
    shared.load()?;
    let Some(id) = shared.key_id() else { return Ok(()) };
    // D1 must not learn of counts that a failing write could still take back.
    if shared.memory.borrow().ledger.as_ref().is_some_and(is_unwritten) {
        shared.commit(now).await?;
    }
    let (epoch, totals) = {
        let memory = shared.memory.borrow();
        let Some(ledger) = &memory.ledger else { return Ok(()) };
        (ledger.epoch().to_owned(), ledger.unflushed())
    };
    if !totals.is_empty() {
        let send = async {
            let db = key_store::database(&shared.env)?;
            key_store::flush(&db, &id, &epoch, &totals, now).await
        };
        within(FLUSH_DEADLINE, send).await?;
        shared.load()?;
        if let Some(ledger) = &mut shared.memory.borrow_mut().ledger {
            for total in &totals {
                ledger.mark_flushed(total.month, total.calls, total.denied);
            }
        }
        shared.commit(now).await?;
    }
    shared.forget_if_gone().await
}
