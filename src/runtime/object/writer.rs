//! Writes rows, as [`GroupCommit`] decides, and answers the calls that wait for them.

use crate::object::denials::Later;
use crate::object::group_commit::{Actions, Event, GroupCommit};
use crate::object::memory::{Memory, NotLoaded};
use crate::protocol::object_response::ObjectResponse;
use crate::runtime::clock;
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::runtime::object::alarm::Alarm;
use crate::runtime::object::context::ObjectContext;
use crate::time::UnixMicros;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// The outcome of a write.
pub(super) enum Write {
    /// It is written, or it failed.
    Done(Result<(), Error>),
    /// It is in this batch of `writer.js`.
    Shared(JsValue),
}

/// The writer of one object.
pub(super) struct Writer {
    context: Rc<ObjectContext>,
    alarm: Alarm,
    commits: RefCell<GroupCommit>,
    /// The calls that wait for the next write, if there are any.
    batch: RefCell<Option<JsValue>>,
    /// Rows written since the object was started, for measurements.
    rows_written: Cell<f64>,
    /// The callbacks for a confirmed write and for a turn of the event loop, made once.
    on_confirmed: OnceCell<JsValue>,
    on_turn: OnceCell<JsValue>,
}

impl Writer {
    pub(super) fn new(context: Rc<ObjectContext>, alarm: Alarm) -> Self {
        Self {
            context,
            alarm,
            commits: RefCell::default(),
            batch: RefCell::default(),
            rows_written: Cell::default(),
            on_confirmed: OnceCell::new(),
            on_turn: OnceCell::new(),
        }
    }

    pub(super) const fn rows_written(&self) -> f64 {
        self.rows_written.get()
    }

    /// Has everything written that has been counted so far. `is_concurrent` if the isolate of the
    /// call has other requests to the object in flight.
    pub(super) fn write_or_join(self: &Rc<Self>, now: UnixMicros, is_concurrent: bool) -> Write {
        let actions = self.step(Event::Call { is_concurrent }, now);
        let batch = actions.join.then(|| {
            let open = || self.context.storage.open_batch();
            self.batch.borrow_mut().get_or_insert_with(open).clone()
        });
        let written = self.carry_out(actions, now);
        match batch {
            Some(batch) => Write::Shared(batch),
            None => Write::Done(written),
        }
    }

    /// Resolves when everything that has been counted so far is written.
    pub(super) async fn commit(self: &Rc<Self>, now: UnixMicros) -> Result<(), Error> {
        self.commit_beside(now, false).await
    }

    /// The same. `is_concurrent` as for [`write_or_join`](Self::write_or_join).
    pub(super) async fn commit_beside(self: &Rc<Self>, now: UnixMicros, is_concurrent: bool) -> Result<(), Error> {
        match self.write_or_join(now, is_concurrent) {
            Write::Done(written) => written,
            Write::Shared(batch) if JsFuture::from(js::writer::batch_closed(&batch)).await?.is_undefined() => Ok(()),
            Write::Shared(_) => Err(Error::new("the write failed, so nothing was counted")),
        }
    }

    /// Bounds how long counts that no call waits for are in memory alone.
    pub(super) fn write_later(self: &Rc<Self>, now: UnixMicros) {
        // The row that a batch waits for holds these too.
        if self.batch.borrow().is_some() {
            return;
        }
        let later = self.context.memory.borrow_mut().counted(now);
        match later {
            Later::Wait => {}
            Later::Write => {
                // Nothing here waits for a batch that it has joined.
                if let Write::Done(Err(error)) = self.write_or_join(now, false) {
                    worker::console_error!("tollgate: counts of denials were lost: {error}");
                }
            }
            Later::SetAlarm(at) => self.alarm.set_beside(at),
        }
    }

    fn step(&self, event: Event, now: UnixMicros) -> Actions {
        self.commits.borrow_mut().step(event, now.as_millis())
    }

    /// The result is that of the write, if there is one.
    fn carry_out(self: &Rc<Self>, actions: Actions, now: UnixMicros) -> Result<(), Error> {
        let Actions { confirmed_but, discard_memory, join: _, write, turn, confirm } = actions;
        if let (Some(unconfirmed), Some(key_state)) = (confirmed_but, &mut self.context.memory.borrow_mut().key_state) {
            key_state.note_confirmed(unconfirmed);
        }
        if discard_memory {
            self.context.memory.borrow_mut().discard();
            self.close_batch(false);
        }
        let mut result = Ok(());
        if write {
            result = self.write();
            // In the turn of the write, so that a count and the alarm that flushes it are one
            // transaction.
            self.alarm.arm(now);
            self.close_batch(result.is_ok());
            let actions = self.step(if result.is_ok() { Event::Written } else { Event::Threw }, now);
            self.request(actions.turn, actions.confirm);
        }
        self.request(turn, confirm);
        result
    }

    /// Answers the calls that wait for a write.
    fn close_batch(&self, is_written: bool) {
        if let Some(batch) = self.batch.take() {
            let failure = ObjectResponse::Failed.to_line();
            js::writer::close_batch(&batch, (!is_written).then_some(failure.as_str()));
        }
    }

    fn request(self: &Rc<Self>, turn: bool, confirm: Option<u32>) {
        if turn {
            let on_turn = || self.callback(|writer, _, _| writer.handle(Event::Turn));
            self.context.storage.next_turn(self.on_turn.get_or_init(on_turn));
        }
        if let Some(number) = confirm {
            let on_confirmed = || self.callback(Self::confirmed);
            self.context.storage.when_confirmed(self.on_confirmed.get_or_init(on_confirmed), number);
        }
    }

    /// A callback that belongs to the object, not to the request that happens to write.
    fn callback(self: &Rc<Self>, then: fn(&Rc<Self>, u32, JsValue)) -> JsValue {
        let writer = Rc::downgrade(self);
        let call = move |number: u32, error: JsValue| {
            if let Some(writer) = writer.upgrade() {
                then(&writer, number, error);
            }
        };
        Closure::<dyn Fn(u32, JsValue)>::own_assert_unwind_safe(call).into_js_value()
    }

    /// The rows of the confirmation of this number are confirmed, or lost.
    fn confirmed(self: &Rc<Self>, number: u32, error: JsValue) {
        if error.is_undefined() {
            return self.handle(Event::Confirmed(number));
        }
        // The runtime resets the object. Should it go on all the same, its memory is wrong.
        worker::console_error!("tollgate: a write was not confirmed: {}", Error::from(error));
        self.handle(Event::Lost(number));
    }

    /// Handles an event that no Rust future awaits. Calls that share a write get its outcome.
    fn handle(self: &Rc<Self>, event: Event) {
        let now = clock::now();
        let actions = self.step(event, now);
        if let Err(error) = self.carry_out(actions, now) {
            worker::console_error!("tollgate: a write to an object's storage failed: {error}");
        }
    }

    /// Writes the state, and before its first time the tables and the profile, in one transaction:
    /// there is no await in here.
    fn write(&self) -> Result<(), Error> {
        let mut memory = self.context.memory.borrow_mut();
        let result = self.write_memory(&mut memory);
        if result.is_err() {
            // Nothing since the last row is durable.
            memory.discard();
        }
        result
    }

    fn write_memory(&self, memory: &mut Memory) -> Result<(), Error> {
        let storage = &self.context.storage;
        let key_state = memory.key_state.as_mut().ok_or(NotLoaded).map_err(Error::new)?;
        if !memory.is_saved {
            storage.create()?;
            if let Some(profile) = &memory.profile {
                storage.save_profile(profile)?;
            }
            memory.is_saved = true;
        }
        let rows = storage.save_state(key_state, memory.freshness.checked_at())?;
        self.rows_written.set(self.rows_written.get() + rows);
        Ok(())
    }
}
