//! How a count becomes durable: one row for all that is counted since the last, one write under way at a time.

use super::clock;
use super::flush;
use super::js::{self, Fault};
use super::key_object::{Memory, Shared};
use crate::limit::State as Ledger;
use crate::protocol::Answer;
use crate::time::UnixMicros;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// How long counts of denials may wait for a call to ride along with. Less than the 10 s after which an idle object loses its memory.
const DENIALS_WAIT: u32 = 5_000;
/// From this many calls waiting for a write on, it is put off to the next turn of the event loop, about a millisecond: where so
/// many come, more are on their way.
const COMPANY: u32 = 2;
/// A write that is not confirmed after this time no longer holds up the next one. In milliseconds.
const WRITE_OVERDUE: u64 = 1_000;

/// What became of a count.
pub(super) enum Write {
    /// It is written, or it failed.
    Done(Result<(), Fault>),
    /// It is in this batch of `glue.js`.
    Shared(JsValue),
}

/// Tells those who wait for a write how it went.
fn close(batch: &JsValue, is_written: bool) {
    let failure = Answer::Failed.to_line();
    js::close_batch(batch, (!is_written).then_some(failure.as_str()));
}

impl Shared {
    /// Sees to it that everything that has been counted so far is written.
    ///
    /// One write is under way at a time. Who comes while none is, writes at once; who comes while one is, joins the next, which is
    /// issued when that one is confirmed. So a call that comes alone waits for nothing but its own write, and the more calls come
    /// together, the more of them share a row.
    pub(super) fn write_or_join(self: &Rc<Self>, now: UnixMicros) -> Write {
        {
            let mut memory = self.memory.borrow_mut();
            // One that is never confirmed must not keep the others waiting for ever.
            if memory.writing_since.is_some_and(|since| now.as_millis() <= since + WRITE_OVERDUE) {
                memory.waiting += 1;
                return Write::Shared(memory.next_write.get_or_insert_with(js::open_batch).clone());
            }
            memory.writing_since = Some(now.as_millis());
        }
        let written = self.write_for_all();
        self.follow_write();
        Write::Done(written)
    }

    /// Waits until everything that has been counted so far is written.
    pub(super) async fn commit(self: &Rc<Self>, now: UnixMicros) -> Result<(), Fault> {
        match self.write_or_join(now) {
            Write::Done(written) => written,
            Write::Shared(batch) if JsFuture::from(js::batch_closed(&batch)).await?.is_undefined() => Ok(()),
            Write::Shared(_) => Err(Fault::new("the write failed, so nothing was counted")),
        }
    }

    /// Writes what has been counted, and tells those who wait for it.
    fn write_for_all(&self) -> Result<(), Fault> {
        let waiting = {
            let mut memory = self.memory.borrow_mut();
            memory.waiting = 0;
            memory.next_write.take()
        };
        let written = self.write();
        if let Some(batch) = waiting {
            close(&batch, written.is_ok());
        }
        written
    }

    /// Has the next write, if anybody waits for one, follow the one that has just been issued.
    fn follow_write(self: &Rc<Self>) {
        // In the turn of the write, so that a count and the alarm that flushes it are one transaction.
        flush::arm(self);
        let callback = self.on_confirmed.get_or_init(|| {
            let shared = Rc::downgrade(self);
            let confirmed = move |error: JsValue| {
                if let Some(shared) = shared.upgrade() {
                    shared.confirmed(error);
                }
            };
            Closure::<dyn Fn(JsValue)>::own_assert_unwind_safe(confirmed).into_js_value()
        });
        self.storage.when_confirmed(callback);
    }

    fn confirmed(self: &Rc<Self>, error: JsValue) {
        let mut memory = self.memory.borrow_mut();
        if !error.is_undefined() {
            // The runtime resets the object; should it go on all the same, it must not believe its memory.
            worker::console_error!("tollgate: a write was not confirmed: {}", Fault::from(error));
            memory.distrust();
            if let Some(batch) = memory.next_write.take() {
                close(&batch, false);
            }
        }
        if memory.next_write.is_none() {
            memory.writing_since = None;
            return;
        }
        let is_company = memory.waiting >= COMPANY;
        drop(memory);
        if !is_company {
            self.write_next();
            return;
        }
        let shared = Rc::clone(self);
        self.state.wait_until(async move {
            // Its failure would only mean that the write comes now.
            let _ = JsFuture::from(js::after(0)).await;
            shared.write_next();
        });
    }

    fn write_next(self: &Rc<Self>) {
        self.memory.borrow_mut().writing_since = Some(clock::now().as_millis());
        if let Err(fault) = self.write_for_all() {
            worker::console_error!("tollgate: a write to an object's storage failed: {fault}");
        }
        self.follow_write();
    }

    /// Writes the state, and before its first time the tables and the profile, in one transaction: there is no await in here.
    pub(super) fn write(&self) -> Result<(), Fault> {
        let mut memory = self.memory.borrow_mut();
        let result = self.write_memory(&mut memory);
        if result.is_err() {
            // What was counted since the last write is not in storage, and those who asked for it are told so.
            memory.distrust();
        }
        result
    }

    fn write_memory(&self, memory: &mut Memory) -> Result<(), Fault> {
        let Some(ledger) = &mut memory.ledger else { return Err(Fault::new("storage has not been read")) };
        if !memory.is_saved {
            self.storage.create()?;
            if let Some(profile) = &memory.profile {
                self.storage.save_profile(profile)?;
            }
            memory.is_saved = true;
        }
        memory.rows_written += self.storage.save_state(ledger, memory.checked_at)?;
        memory.writes += 1;
        Ok(())
    }

    /// Denials write nothing themselves. Their counts ride along with the next call, or after some seconds go alone: one row for
    /// however many there were.
    pub(super) fn write_denials_later(self: &Rc<Self>, now: UnixMicros) {
        let mut memory = self.memory.borrow_mut();
        let has_denials = memory.ledger.as_ref().is_some_and(is_unwritten);
        if !has_denials || std::mem::replace(&mut memory.is_denials_timer_set, true) {
            return;
        }
        drop(memory);
        let shared = Rc::clone(self);
        self.state.wait_until(async move {
            let _ = JsFuture::from(js::after(DENIALS_WAIT)).await;
            let is_dirty = {
                let mut memory = shared.memory.borrow_mut();
                memory.is_denials_timer_set = false;
                memory.ledger.as_ref().is_some_and(is_unwritten)
            };
            if is_dirty && let Err(fault) = shared.commit(now).await {
                worker::console_error!("tollgate: counts of denials were lost: {fault}");
            }
        });
    }
}

/// Whether something is counted that no row holds.
pub(super) fn is_unwritten(ledger: &Ledger) -> bool {
    ledger.is_dirty() || ledger.has_uncommitted_denials()
}
