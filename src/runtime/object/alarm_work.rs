//! What the alarm does when it comes: it charges holds that have expired, flushes counts to D1,
//! delivers alerts, and deletes what has expired, as [`alarm_schedule`](crate::object::alarm_schedule) decides. It may come early for
//! denials that are in memory alone; then it only writes these.

use crate::key_state::state::KeyState;
use crate::object::alarm_schedule::NextAlarm;
use crate::object::denials::Wake;
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::object::alerts;
use crate::runtime::object::flush::flush;
use crate::runtime::object::parts::ObjectParts;
use crate::time::UnixMicros;

/// Does the alarm's work. Never fails: an alarm that is set first repeats what could not be done.
pub(super) async fn run(parts: &ObjectParts) {
    if write_denials(parts).await {
        return;
    }
    let flush_seconds = parts.context.settings().flush_seconds;
    let at = parts.context.memory.borrow_mut().begin_work(flush_seconds, clock::now(), js_sys::Math::random);
    parts.alarm.set(at).await;
    expire_holds(parts);
    let flushed = flush(&parts.context, &parts.writer, |_| ()).await;
    parts.context.memory.borrow_mut().alarm.flush_ended(flushed.is_ok());
    if let Err(error) = &flushed {
        worker::console_error!("tollgate: a flush to D1 failed and will be repeated: {error}");
    }
    // Notes of the audit log, which a flush does not need written.
    let has_unwritten = parts.context.memory.borrow().has_unwritten();
    if has_unwritten && let Err(error) = parts.writer.commit(clock::now()).await {
        worker::console_error!("tollgate: notes of the audit log were lost: {error}");
    }
    if let Err(error) = alerts::deliver(&parts.context, &parts.writer).await {
        worker::console_error!("tollgate: alerts could not be delivered and will be repeated: {error}");
    }
    match expire(parts).await {
        Ok(expiry) if flushed.is_ok() => match parts.reader.delete_if_done().await {
            Ok(()) => end(parts, expiry).await,
            Err(error) => worker::console_error!("tollgate: a key's object could not be deleted: {error}"),
        },
        // The alarm that was set first comes again.
        Ok(_) => {}
        Err(error) => worker::console_error!("tollgate: what has expired could not be deleted: {error}"),
    }
}

/// Writes denials, if the alarm came early for them. `false` if it came for its work.
async fn write_denials(parts: &ObjectParts) -> bool {
    let now = clock::now();
    let wake = {
        let mut memory = parts.context.memory.borrow_mut();
        let has_unwritten = memory.has_unwritten();
        memory.alarm.woken(has_unwritten, now.as_millis())
    };
    let Wake::Counts { alarm, write } = wake else { return false };
    parts.alarm.set(alarm).await;
    if write && let Err(error) = parts.writer.commit(now).await {
        worker::console_error!("tollgate: counts of denials were lost: {error}");
    }
    // Alerts may be due before.
    parts.alarm.arm(now);
    true
}

/// Charges holds that have expired, before the flush that brings this to D1. If storage cannot be
/// read, the flush fails too.
fn expire_holds(parts: &ObjectParts) {
    if parts.context.load().is_ok() {
        let thresholds = &parts.context.settings().thresholds;
        parts.context.memory.borrow_mut().expire_holds(thresholds, clock::now());
    }
}

/// Deletes what has expired. Returns when something next expires.
async fn expire(parts: &ObjectParts) -> Result<Option<UnixMicros>, Error> {
    let now = clock::now();
    parts.context.load()?;
    let (is_changed, next) = {
        let mut memory = parts.context.memory.borrow_mut();
        if !memory.is_saved {
            return Ok(None);
        }
        let oldest = match memory.expire(now) {
            Some(over) => parts.context.storage.delete_audit_until(over)?,
            None => None,
        };
        let is_changed = memory.key_state.as_ref().is_some_and(KeyState::is_dirty);
        (is_changed, memory.next_expiry(oldest, now))
    };
    if is_changed {
        parts.writer.commit(now).await?;
    }
    Ok(next)
}

/// Sets the alarm for what comes next, or deletes it.
async fn end(parts: &ObjectParts, expiry: Option<UnixMicros>) {
    let next = parts.context.memory.borrow_mut().end_work(expiry, clock::now());
    match next {
        NextAlarm::Keep => {}
        NextAlarm::Set(at) => parts.alarm.set(at).await,
        NextAlarm::Delete => parts.alarm.delete().await,
    }
}
