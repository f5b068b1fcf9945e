//! Carries out what [`GroupCommit`](crate::object::group_commit::GroupCommit) decides: writes rows, answers those who wait for
//! them, and asks the runtime for turns and confirmations.

use crate::key_state::state::KeyState;
use crate::object::denials::Later;
use crate::object::group_commit::{Actions, Event};
use crate::protocol::object_response::ObjectResponse;
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::runtime::object::flush;
use crate::runtime::object::key_object::{Memory, Shared};
use crate::time::UnixMicros;
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// What became of a count.
pub(crate) enum Write {
    /// It is written, or it failed.
    Done(Result<(), Error>),
    /// It is in this batch of `writer.js`.
    Shared(JsValue),
}

/// Tells those who wait for a write how it went.
fn close(batch: &JsValue, is_written: bool) {
    let failure = ObjectResponse::Failed.to_line();
    js::writer::close_batch(batch, (!is_written).then_some(failure.as_str()));
}

/// A callback that belongs to the object, not to the request that happens to write.
fn callback(shared: &Rc<Shared>, then: fn(&Rc<Shared>, u32, JsValue)) -> JsValue {
    let shared = Rc::downgrade(shared);
    let call = move |number: u32, error: JsValue| {
        if let Some(shared) = shared.upgrade() {
            then(&shared, number, error);
        }
    };
    Closure::<dyn Fn(u32, JsValue)>::own_assert_unwind_safe(call).into_js_value()
}

impl Shared {
    /// Has everything that has been counted so far written. `is_concurrent` is what the asking isolate knows of other calls.
    pub(crate) fn write_or_join(self: &Rc<Self>, now: UnixMicros, is_concurrent: bool) -> Write {
        let actions = self.memory.borrow_mut().commits.step(Event::Call { is_concurrent }, now.as_millis());
        let batch = actions.join.then(|| self.memory.borrow_mut().join(&self.storage));
        let written = self.carry_out(actions, now);
        match batch {
            Some(batch) => Write::Shared(batch),
            None => Write::Done(written),
        }
    }

    /// Waits until everything that has been counted so far is written.
    pub(crate) async fn commit(self: &Rc<Self>, now: UnixMicros) -> Result<(), Error> {
        match self.write_or_join(now, false) {
            Write::Done(written) => written,
            Write::Shared(batch) if JsFuture::from(js::writer::batch_closed(&batch)).await?.is_undefined() => Ok(()),
            Write::Shared(_) => Err(Error::new("the write failed, so nothing was counted")),
        }
    }

    /// Does what an event asks for. The result is that of the write, if there is one.
    fn carry_out(self: &Rc<Self>, actions: Actions, now: UnixMicros) -> Result<(), Error> {
        let Actions { confirmed_but, discard_memory, join: _, write, turn, confirm } = actions;
        if let (Some(rest), Some(key_state)) = (confirmed_but, &mut self.memory.borrow_mut().key_state) {
            key_state.note_confirmed(rest);
        }
        if discard_memory {
            let mut memory = self.memory.borrow_mut();
            memory.distrust();
            if let Some(batch) = memory.batch.take() {
                close(&batch, false);
            }
        }
        let mut result = Ok(());
        if write {
            result = self.write_for_all(now);
            let event = if result.is_ok() { Event::Written } else { Event::Threw };
            let actions = self.memory.borrow_mut().commits.step(event, now.as_millis());
            self.ask_for(actions.turn, actions.confirm);
        }
        self.ask_for(turn, confirm);
        result
    }

    /// Writes what has been counted, and tells those who wait for it.
    fn write_for_all(self: &Rc<Self>, now: UnixMicros) -> Result<(), Error> {
        let waiting = self.memory.borrow_mut().batch.take();
        let written = self.write();
        // In the turn of the write, so that a count and the alarm that flushes it are one transaction.
        flush::arm(self, now);
        if let Some(batch) = waiting {
            close(&batch, written.is_ok());
        }
        written
    }

    fn ask_for(self: &Rc<Self>, turn: bool, question: Option<u32>) {
        if turn {
            let on_turn = || callback(self, |shared, _, _| shared.happened(Event::Turn));
            self.storage.next_turn(self.on_turn.get_or_init(on_turn));
        }
        if let Some(number) = question {
            self.storage.when_confirmed(self.on_confirmed.get_or_init(|| callback(self, Self::confirmed)), number);
        }
    }

    /// What was written when the question of this number was asked is confirmed, or is lost.
    fn confirmed(self: &Rc<Self>, number: u32, error: JsValue) {
        if error.is_undefined() {
            return self.happened(Event::Confirmed(number));
        }
        // The runtime resets the object; should it go on all the same, it must not believe its memory.
        worker::console_error!("tollgate: a write was not confirmed: {}", Error::from(error));
        self.happened(Event::Lost(number));
    }

    /// Handles an event that no Rust future awaits. Calls that share a write get its outcome.
    fn happened(self: &Rc<Self>, event: Event) {
        let now = clock::now();
        let actions = self.memory.borrow_mut().commits.step(event, now.as_millis());
        if let Err(error) = self.carry_out(actions, now) {
            worker::console_error!("tollgate: a write to an object's storage failed: {error}");
        }
    }

    /// Writes the state, and before its first time the tables and the profile, in one transaction: there is no await in here.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        let result = self.write_memory(&mut memory);
        if result.is_err() {
            // What was counted since the last write is not in storage, and those who asked for it are told so.
            memory.distrust();
        }
        result
    }

    fn write_memory(&self, memory: &mut Memory) -> Result<(), Error> {
        let Some(key_state) = &mut memory.key_state else { return Err(Error::new("storage has not been read")) };
        if !memory.is_saved {
            self.storage.create()?;
            if let Some(profile) = &memory.profile {
                self.storage.save_profile(profile)?;
            }
            memory.is_saved = true;
        }
        memory.rows_written += self.storage.save_state(key_state, memory.checked_at)?;
        memory.writes += 1;
        Ok(())
    }

    /// Bounds how long counts that no call waits for are in memory only.
    pub(crate) fn write_later(self: &Rc<Self>, now: UnixMicros) {
        let later = {
            let mut memory = self.memory.borrow_mut();
            // The row that a batch waits for holds these too.
            if memory.batch.is_some() || !memory.has_news() {
                return;
            }
            let alarm = memory.alarm.at();
            memory.denials.counted(alarm, now.as_millis())
        };
        match later {
            Later::Wait => {}
            Later::Write => {
                // Nobody waits for it: the batch that it may have joined is nobody's here.
                if let Write::Done(Err(error)) = self.write_or_join(now, false) {
                    worker::console_error!("tollgate: counts of denials were lost: {error}");
                }
            }
            Later::SetAlarm(at) => {
                let setting = self.bring_alarm_forward(Duration::from_millis(at.saturating_sub(now.as_millis())));
                self.state.wait_until(setting);
            }
        }
    }
}

impl Memory {
    /// Whether something is counted or noted that no row holds.
    pub(crate) fn has_news(&self) -> bool {
        self.key_state.as_ref().is_some_and(|key_state| is_unwritten(key_state) || key_state.has_uncommitted_notes())
    }
}

/// Whether something is counted that no row holds.
pub(crate) fn is_unwritten(key_state: &KeyState) -> bool {
    key_state.is_dirty() || key_state.has_uncommitted_denials()
}
