//! Metering: an object's totals, carried to D1 by its alarm.
//!
//! The same alarm lets go of what is over: idempotency keys, and the audit log. It may come before its time for the sake of
//! denials that are in memory alone (see [`denials`](crate::object::denials)); then it only writes these. The alarm is set when something is counted that D1 does not have, and re-armed before it works: a platform that gives up on an
//! alarm after six failures then never gets to. Totals are absolute, so a flush that is repeated, or whose acknowledgement was
//! lost, changes nothing; and what is marked as flushed is what was sent, so calls that arrive meanwhile stay due.

use crate::config;
use crate::key_state::audit_log::retention::{audit_cutoff, next_audit_deletion};
use crate::key_state::state::KeyState;
use crate::object::denials::Wake;
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::isolate::variable;
use crate::runtime::object::alerts;
use crate::runtime::object::key_object::{Alarm, Memory, Shared};
use crate::runtime::object::writer::is_unwritten;
use crate::runtime::store::database::Database;
use crate::runtime::{clock, store};
use crate::time::UnixMicros;
use serde_json::Value;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;
use wasm_bindgen::JsValue;
use worker::ScheduledTime;

/// How long a flush may take, in milliseconds. D1 itself gives up on a query after 30 s.
const FLUSH_DEADLINE: u32 = 30_000;
/// The longest pause between two attempts while D1 is out of reach, in seconds.
const LONGEST_PAUSE: u64 = 900;

impl Shared {
    /// How long to wait for the next flush, in seconds: longer with each that failed.
    fn pause(&self, memory: &Memory) -> u64 {
        let factor = 1u64.checked_shl(memory.failed_flushes).unwrap_or(u64::MAX);
        self.flush_seconds().saturating_mul(factor).min(LONGEST_PAUSE.max(self.flush_seconds()))
    }

    /// `FLUSH_SECONDS`; its default, and a line in the log, if it is set to nonsense (the Worker then answers 503 to everything).
    pub(crate) fn flush_seconds(&self) -> u64 {
        *self.flush_seconds.get_or_init(|| {
            config::flush_seconds(|name| variable(&self.env, name)).unwrap_or_else(|error| {
                worker::console_error!("tollgate: {error}");
                60
            })
        })
    }

    /// Sets the alarm for its work, in this very turn; the future only tells whether that was confirmed.
    pub(crate) fn set_alarm(self: &Rc<Self>, delay: Duration) -> impl Future<Output = ()> + use<> {
        let now = clock::now();
        self.set_alarm_at(now.saturating_add(micros(delay)).as_millis(), now)
    }

    /// The same, for a time in milliseconds. One that is over comes at once.
    fn set_alarm_at(self: &Rc<Self>, at: u64, now: UnixMicros) -> impl Future<Output = ()> + use<> {
        {
            let mut memory = self.memory.borrow_mut();
            memory.denials.alarm_is_for_work();
            memory.alarm_set_at = now.as_millis();
        }
        self.place_alarm(at)
    }

    /// The same for counts in memory alone.
    pub(crate) fn bring_alarm_forward(self: &Rc<Self>, delay: Duration) -> impl Future<Output = ()> + use<> {
        self.place_alarm(clock::now().saturating_add(micros(delay)).as_millis())
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
    fn place_alarm(self: &Rc<Self>, at: u64) -> impl Future<Output = ()> + use<> {
        self.memory.borrow_mut().alarm = Alarm::Set(at);
        let shared = Rc::clone(self);
        let mut setting = Box::pin(async move {
            let time = ScheduledTime::new(js_sys::Date::new(&JsValue::from_f64(at as f64)));
            if let Err(error) = shared.state.storage().set_alarm(time).await {
                worker::console_error!("tollgate: an alarm could not be set: {error}");
                shared.memory.borrow_mut().alarm = Alarm::Unknown;
            }
        });
        // Futures do nothing until they are polled.
        let _ = setting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        setting
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)
}

/// Sets the alarm if something is due and none is set that comes in time.
///
/// A clock that leapt ahead would set an alarm that does not come for as long. So after a leap the alarm is set by the time
/// before it. If the clock is right, the key was idle and that time is over: the alarm comes at once, and so tells that it is.
pub(crate) fn arm(shared: &Rc<Shared>, now: UnixMicros) {
    let at = {
        let memory = shared.memory.borrow();
        let Some(key_state) = &memory.key_state else { return };
        let telling = alerts::next(&memory, key_state, now);
        let pause = shared.pause(&memory);
        let before = now.saturating_sub(key_state.lead(now)).as_millis();
        let flushing = (!key_state.meter().is_flushed()).then(|| before.saturating_add(pause.saturating_mul(1000)));
        let Some(latest) = telling.into_iter().chain(flushing).min() else { return };
        // One that is further off is for something else, or was set by a clock that was ahead.
        if matches!(memory.alarm, Alarm::Set(at) if at <= latest) {
            return;
        }
        match telling {
            Some(at) if at == latest => at,
            _ => before.saturating_add(jittered(pause)),
        }
    };
    let setting = shared.set_alarm_at(at, now);
    shared.state.wait_until(setting);
}

/// Milliseconds, between half of `seconds` and all of them, so that keys that were called together do not flush together.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a random share of minutes"
)]
fn jittered(seconds: u64) -> u64 {
    (seconds as f64 * 500.0 * (1.0 + js_sys::Math::random())) as u64
}

/// Writes what is in memory alone, if the alarm came for that before its time. False if it is time for its work.
async fn write_counts(shared: &Rc<Shared>) -> bool {
    let now = clock::now();
    let wake = {
        let mut memory = shared.memory.borrow_mut();
        let has_news = memory.has_news();
        memory.denials.woken(has_news, now.as_millis())
    };
    let Wake::Counts { alarm, write } = wake else { return false };
    shared.bring_alarm_forward(Duration::from_millis(alarm.saturating_sub(now.as_millis()))).await;
    if write && let Err(error) = shared.commit(now).await {
        worker::console_error!("tollgate: counts of denials were lost: {error}");
    }
    // Alerts may be due before.
    arm(shared, now);
    true
}

/// The alarm's work. Never fails: what it could not do now, the alarm that it set first will.
pub(crate) async fn alarm(shared: &Rc<Shared>) {
    if write_counts(shared).await {
        return;
    }
    let pause = shared.pause(&shared.memory.borrow());
    {
        let mut memory = shared.memory.borrow_mut();
        let waited = clock::now().as_millis().abs_diff(memory.alarm_set_at);
        // No alarm that was set for later than the time before a leap has come so soon.
        if let Some(key_state) = memory.key_state.as_mut().filter(|_| waited < pause.saturating_mul(500)) {
            key_state.trust_clock();
        }
    }
    shared.set_alarm(Duration::from_millis(jittered(pause))).await;
    let result = flush(shared, |_| Value::Null).await;
    {
        let mut memory = shared.memory.borrow_mut();
        memory.failed_flushes = if result.is_ok() { 0 } else { memory.failed_flushes.saturating_add(1) };
    }
    if let Err(error) = &result {
        worker::console_error!("tollgate: a flush to D1 failed and will be repeated: {error}");
    }
    // What no flush has to wait for.
    if shared.memory.borrow().has_news()
        && let Err(error) = shared.commit(clock::now()).await
    {
        worker::console_error!("tollgate: notes of the audit log were lost: {error}");
    }
    if let Err(error) = alerts::tell(shared).await {
        worker::console_error!("tollgate: alerts could not be told and will be repeated: {error}");
    }
    match expire(shared).await {
        Ok(expiry) if result.is_ok() => match shared.forget_if_gone().await {
            Ok(()) => sleep_until(shared, expiry).await,
            Err(error) => worker::console_error!("tollgate: a key's object could not be deleted: {error}"),
        },
        // The alarm that was set first comes again.
        Ok(_) => {}
        Err(error) => worker::console_error!("tollgate: what is over could not be deleted: {error}"),
    }
}

/// Sets the alarm for what comes next; none if nothing does, since an idle key costs nothing.
async fn sleep_until(shared: &Rc<Shared>, expiry: Option<UnixMicros>) {
    let now = clock::now();
    let next = {
        let memory = shared.memory.borrow();
        // What is counted and not in D1 has its alarm: it was set before the work.
        let Some(key_state) = memory.key_state.as_ref().filter(|key_state| key_state.meter().is_flushed()) else {
            return;
        };
        let expiry = expiry.map(UnixMicros::as_millis_ceil);
        alerts::next(&memory, key_state, now).into_iter().chain(expiry).min()
    };
    match next {
        Some(at) => {
            shared.set_alarm(Duration::from_millis(at.saturating_sub(now.as_millis()).max(alerts::DELAY))).await;
        }
        None => disarm(shared).await,
    }
}

async fn disarm(shared: &Rc<Shared>) {
    {
        let mut memory = shared.memory.borrow_mut();
        memory.alarm = Alarm::Unset;
        memory.denials.alarm_is_for_work();
    }
    if let Err(error) = shared.state.storage().delete_alarm().await {
        worker::console_error!("tollgate: an alarm could not be deleted: {error}");
        shared.memory.borrow_mut().alarm = Alarm::Unknown;
    }
    // A call that was counted during the deletion saw no alarm and set its own; one that came before it did not.
    arm(shared, clock::now());
}

/// Brings D1 up to what is counted now. Gives what `look` sees in the moment whose counts D1 then has.
pub(crate) async fn flush(shared: &Rc<Shared>, look: fn(&KeyState) -> Value) -> Result<Option<Value>, Error> {
    let now = clock::now();
    shared.load()?;
    let Some(id) = shared.key_id() else { return Ok(None) };
    // D1 must not learn of counts that a failing write could still take back.
    if shared.memory.borrow().key_state.as_ref().is_some_and(is_unwritten) {
        shared.commit(now).await?;
    }
    let (seen, totals) = {
        let memory = shared.memory.borrow();
        let Some(key_state) = &memory.key_state else { return Ok(None) };
        let (months, hours) = (key_state.meter().unflushed_months(), key_state.meter().unflushed_hours());
        (look(key_state), store::usage::FlushTotals { epoch: key_state.epoch().to_owned(), months, hours })
    };
    if totals.is_empty() {
        return Ok(Some(seen));
    }
    let send = async { store::usage::flush(&Database::of(&shared.env)?, &id, &totals, now).await };
    within(FLUSH_DEADLINE, send).await?;
    shared.load()?;
    if let Some(key_state) = &mut shared.memory.borrow_mut().key_state {
        for total in &totals.months {
            key_state.mark_flushed(total);
        }
        for total in &totals.hours {
            key_state.mark_hour_flushed(total);
        }
    }
    shared.commit(now).await?;
    Ok(Some(seen))
}

/// Deletes what is over. Gives when there will be more of it.
async fn expire(shared: &Rc<Shared>) -> Result<Option<UnixMicros>, Error> {
    let now = clock::now();
    shared.load()?;
    let (is_changed, next) = {
        let mut memory = shared.memory.borrow_mut();
        let Memory { key_state: Some(key_state), profile, is_saved: true, .. } = &mut *memory else { return Ok(None) };
        key_state.expire(now);
        // A key that D1 does not tell about keeps what it has.
        let audit = match profile {
            Some(profile) => {
                let days = u32::try_from(profile.row.audit_days).unwrap_or(u32::MAX);
                let over = audit_cutoff(now, days);
                key_state.forget_audit(over);
                let oldest = shared.storage.delete_audit_until(over)?;
                // How old the open end is nobody knows, but it is not younger than this.
                oldest
                    .or_else(|| key_state.audit_tail().iter().any(|(_, text)| !text.is_empty()).then_some(now))
                    .map(|oldest| next_audit_deletion(oldest, days))
            }
            None => None,
        };
        (key_state.is_dirty(), [key_state.next_expiry(), audit].into_iter().flatten().min())
    };
    if is_changed {
        shared.commit(now).await?;
    }
    Ok(next)
}
