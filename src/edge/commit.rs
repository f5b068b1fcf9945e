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
/// From this many calls that share a write on, the object is busy: its writes come once a turn of the event loop, about a
/// millisecond apart, for all who came in between.
const COMPANY: u32 = 2;
/// A write that is not confirmed after this time, or a turn that does not come, no longer holds up the next write. In milliseconds.
const OVERDUE: u64 = 1_000;
/// Writes of a busy object that may wait for their confirmation together. Each row names the calls of all of them, so that one
/// that is asked again after a crash is known.
const UNCONFIRMED: usize = 8;

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

/// When the next write comes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Pace {
    /// With the next call.
    #[default]
    Idle,
    /// When the one that was issued at `since` (in milliseconds) is confirmed.
    Confirming { since: u64 },
    /// With the next turn, which was asked for at `since`.
    Gathering { since: u64 },
    /// One turn after the next call, since the last was shared by many.
    Busy,
}

/// A callback that belongs to the object, not to the request that happens to write.
fn callback(shared: &Rc<Shared>, then: fn(&Rc<Shared>, JsValue)) -> JsValue {
    let shared = Rc::downgrade(shared);
    let call = move |value: JsValue| {
        if let Some(shared) = shared.upgrade() {
            then(&shared, value);
        }
    };
    Closure::<dyn Fn(JsValue)>::own_assert_unwind_safe(call).into_js_value()
}

/// For a write that nobody waits for in Rust; those who share it have been told.
fn logged(written: Result<(), Fault>) {
    if let Err(fault) = written {
        worker::console_error!("tollgate: a write to an object's storage failed: {fault}");
    }
}

impl Shared {
    /// Sees to it that everything that has been counted so far is written.
    ///
    /// Who comes alone writes at once, and waits for nothing but its own write. Who comes while it is asked whether a write is
    /// confirmed joins the next. If that is shared by few, it is issued when the one before is confirmed. If it is shared by many,
    /// the object is busy: then writes come once a turn, confirmed or not (the output gate holds the answers back).
    ///
    /// To ask for a confirmation costs about a tenth of a call, so nobody asks for the sake of calls that come one by one, up to the
    /// number of writes that may be unconfirmed. `has_company` is what the asking isolate knows of it.
    pub(super) fn write_or_join(self: &Rc<Self>, now: UnixMicros, has_company: bool) -> Write {
        let mut memory = self.memory.borrow_mut();
        match memory.pace {
            Pace::Idle if has_company && memory.unconfirmed() > 0 => {
                // The others' write may still be under way.
                memory.pace = Pace::Confirming { since: now.as_millis() };
                let batch = memory.join(&self.storage);
                drop(memory);
                self.follow();
                return Write::Shared(batch);
            }
            Pace::Confirming { since } | Pace::Gathering { since }
                if now.as_millis() <= since.saturating_add(OVERDUE) =>
            {
                return Write::Shared(memory.join(&self.storage));
            }
            Pace::Busy => {
                let batch = memory.join(&self.storage);
                self.gather(&mut memory, now);
                return Write::Shared(batch);
            }
            Pace::Idle | Pace::Confirming { .. } | Pace::Gathering { .. } => {}
        }
        let is_alone = matches!(memory.pace, Pace::Idle) && !has_company;
        if is_alone && memory.unconfirmed() + 1 < UNCONFIRMED {
            drop(memory);
            return Write::Done(self.write_for_all(now));
        }
        drop(memory);
        Write::Done(self.write_and_follow(now))
    }

    /// Waits until everything that has been counted so far is written.
    pub(super) async fn commit(self: &Rc<Self>, now: UnixMicros) -> Result<(), Fault> {
        match self.write_or_join(now, false) {
            Write::Done(written) => written,
            Write::Shared(batch) if JsFuture::from(js::batch_closed(&batch)).await?.is_undefined() => Ok(()),
            Write::Shared(_) => Err(Fault::new("the write failed, so nothing was counted")),
        }
    }

    /// Writes what has been counted; who comes next waits until it is confirmed.
    fn write_and_follow(self: &Rc<Self>, now: UnixMicros) -> Result<(), Fault> {
        self.memory.borrow_mut().pace = Pace::Confirming { since: now.as_millis() };
        let written = self.write_for_all(now);
        self.follow();
        written
    }

    /// Writes what has been counted, and tells those who wait for it.
    fn write_for_all(self: &Rc<Self>, now: UnixMicros) -> Result<(), Fault> {
        let waiting = {
            let mut memory = self.memory.borrow_mut();
            memory.waiting = 0;
            memory.next_write.take()
        };
        let written = self.write();
        // In the turn of the write, so that a count and the alarm that flushes it are one transaction.
        flush::arm(self, now);
        if let Some(batch) = waiting {
            close(&batch, written.is_ok());
        }
        written
    }

    /// Asks when what is written so far is confirmed, unless that question is still open.
    fn follow(self: &Rc<Self>) {
        let mut memory = self.memory.borrow_mut();
        if memory.confirming.is_some() {
            return;
        }
        memory.confirming = Some(memory.ledger.as_ref().map_or(0, Ledger::last_commit));
        drop(memory);
        self.storage.when_confirmed(self.on_confirmed.get_or_init(|| callback(self, Self::confirmed)));
    }

    /// Has the next write come in a turn of the event loop.
    fn gather(self: &Rc<Self>, memory: &mut Memory, now: UnixMicros) {
        memory.pace = Pace::Gathering { since: now.as_millis() };
        self.storage.next_turn(self.on_turn.get_or_init(|| callback(self, |shared, _| shared.turn())));
    }

    /// What was written when it was asked is confirmed, or has failed.
    fn confirmed(self: &Rc<Self>, error: JsValue) {
        let now = clock::now();
        let mut memory = self.memory.borrow_mut();
        let confirmed = memory.confirming.take();
        if let (Some(ledger), Some(confirmed)) = (&mut memory.ledger, confirmed) {
            ledger.confirmed(confirmed);
        }
        if !error.is_undefined() {
            // The runtime resets the object; should it go on all the same, it must not believe its memory.
            worker::console_error!("tollgate: a write was not confirmed: {}", Fault::from(error));
            memory.distrust();
            if let Some(batch) = memory.next_write.take() {
                close(&batch, false);
            }
        }
        if !matches!(memory.pace, Pace::Confirming { .. }) {
            return;
        }
        if memory.unconfirmed() > 0 {
            // It was asked before the last write.
            drop(memory);
            self.follow();
            return;
        }
        if memory.next_write.is_none() {
            memory.pace = Pace::Idle;
        } else if memory.waiting >= COMPANY {
            self.gather(&mut memory, now);
        } else {
            drop(memory);
            logged(self.write_and_follow(now));
        }
    }

    /// The turn of a busy object: writes for all who came since the last. It goes on so until hardly anybody comes.
    fn turn(self: &Rc<Self>) {
        let now = clock::now();
        let is_busy = {
            let mut memory = self.memory.borrow_mut();
            if !matches!(memory.pace, Pace::Gathering { .. }) {
                return;
            }
            if memory.unconfirmed() >= UNCONFIRMED {
                // Storage does not keep up: the next write waits for it.
                memory.pace = Pace::Confirming { since: now.as_millis() };
                return;
            }
            let is_busy = memory.waiting >= COMPANY;
            if is_busy {
                memory.pace = Pace::Busy;
            }
            is_busy
        };
        if !is_busy {
            return logged(self.write_and_follow(now));
        }
        logged(self.write_for_all(now));
        self.follow();
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
        let has_denials = memory.ledger.as_ref().is_some_and(has_news);
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
                memory.ledger.as_ref().is_some_and(has_news)
            };
            if is_dirty && let Err(fault) = shared.commit(now).await {
                worker::console_error!("tollgate: counts of denials were lost: {fault}");
            }
        });
    }
}

/// Whether something is counted or noted that no row holds.
fn has_news(ledger: &Ledger) -> bool {
    is_unwritten(ledger) || ledger.has_uncommitted_notes()
}

/// Whether something is counted that no row holds.
pub(super) fn is_unwritten(ledger: &Ledger) -> bool {
    ledger.is_dirty() || ledger.has_uncommitted_denials()
}
