//! The Durable Object of one key: the only clock and the only judge.
//!
//! The runtime delivers a key's questions to one object, one event at a time, and Rust code between two awaits runs alone. So
//! reading, deciding and counting happen in one synchronous stretch on memory, and no lock is needed. What makes a count durable
//! is the row that follows: questions that arrive while one write is under way share the next, and none of them is answered before
//! it is issued; the runtime's output gate then holds the answers back until it is confirmed. If the write fails, memory is thrown away and read
//! again from storage, and every question that waited for it is answered "failed": nothing was counted.

use super::clock;
use super::deployment::variable;
use super::flush;
use super::http;
use super::js::{self, Fault};
use super::key_store::{self, StoredKey};
use super::storage::{Storage, Stored};
use super::{or_internal_error, promise};
use crate::config;
use crate::decision::Decision;
use crate::key::same_hash;
use crate::limit::{Cost, State as Ledger};
use crate::profile::{Profile, Status};
use crate::protocol::{Answer, Check, Debt, Known, Outcome, PolicyUsage, Question, Usage};
use crate::time::{Month, UnixMicros, rfc3339};
use js_sys::Promise;
use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::panic::RefUnwindSafe;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::worker_sys::DurableObjectState;
use worker::{Env, State};

/// How old a profile may be and still judge. Changes made in D1 by hand take effect within this time.
const PROFILE_LIFE: u64 = 60_000;
/// From this age on a profile is read again beside the request, so that a busy key never waits for D1.
const PROFILE_RENEWAL: u64 = 30_000;
/// How long not to ask D1 again after it failed, or after it said that there is no such key.
const PROFILE_RETRY: u64 = 5_000;
/// The same while nothing can be judged without it: no longer than clients are told to wait.
const FIRST_PROFILE_RETRY: u64 = 1_000;
/// How long a read of D1 may hold up a key's requests, in milliseconds.
const PROFILE_DEADLINE: u32 = 3_000;
/// How long counts of denials may wait for a call to ride along with. Less than the 10 s after which an idle object loses its memory.
const DENIALS_WAIT: u32 = 5_000;
/// A write that is not confirmed after this time no longer holds up the next one. In milliseconds.
const WRITE_OVERDUE: u64 = 1_000;

/// One key's object.
#[wasm_bindgen]
pub struct KeyObject {
    shared: Rc<Shared>,
}

/// What the object's tasks share. Storage is the truth, `memory` a copy of it that is ahead by the write under way.
pub(super) struct Shared {
    pub(super) state: State,
    pub(super) env: Env,
    pub(super) storage: Storage,
    pub(super) memory: RefCell<Memory>,
    /// The callback for confirmed writes, made once: it belongs to the object, not to the request that happens to write.
    on_confirmed: OnceCell<JsValue>,
}

// A panic unwinds out of one event; `memory` is then at worst ahead of storage, which the next failed write or reload sets right.
impl RefUnwindSafe for KeyObject {}

/// See [`Shared`].
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub(super) struct Memory {
    /// `None` until storage has been read, and again after a write has failed.
    pub(super) ledger: Option<Ledger>,
    pub(super) profile: Option<Profile>,
    /// Whether the tables exist, and `profile` is in them.
    pub(super) is_saved: bool,
    /// When D1 last confirmed the profile, in milliseconds.
    checked_at: u64,
    /// When to ask D1 again at the earliest, in milliseconds.
    retry_at: u64,
    /// Whether D1 said that there is no such key.
    is_unknown: bool,
    is_renewing: bool,
    pub(super) alarm: Alarm,
    /// Flushes that failed in a row.
    pub(super) failed_flushes: u32,
    /// When the write that is under way was issued, in milliseconds; `None` if all are confirmed.
    writing_since: Option<u64>,
    /// The questions that wait for the next write, if there are any.
    next_write: Option<JsValue>,
    is_denials_timer_set: bool,
    /// Rows written and writes issued since the object was started, for measurements.
    rows_written: f64,
    writes: u64,
}

/// What is known of the object's alarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Storage has not been asked yet.
    #[default]
    Unknown,
    /// None is set.
    Unset,
    /// One is set for this time, in milliseconds.
    Set(u64),
}

/// What became of a count.
enum Write {
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

/// Nothing was counted: logged here, with its cause.
fn failed(id: &str, fault: &Fault) -> http::Answer {
    worker::console_error!("tollgate: key {id} could not be judged: {fault}");
    Ok(js::answer(&Answer::Failed.to_line())?.into())
}

impl Memory {
    /// How old the profile is, in milliseconds; as good as new while D1 is not to be asked again. One from the future is as
    /// old as can be: the clock was wrong then or is now.
    const fn profile_age(&self, now: UnixMicros) -> u64 {
        match now.as_millis().checked_sub(self.checked_at) {
            _ if !self.may_ask_d1(now) => 0,
            Some(age) => age,
            None => u64::MAX,
        }
    }

    /// Whether D1 may be asked. A pause that is longer than any was set by a clock that was ahead.
    const fn may_ask_d1(&self, now: UnixMicros) -> bool {
        match self.retry_at.checked_sub(now.as_millis()) {
            Some(pause) => pause == 0 || pause > PROFILE_RETRY,
            None => true,
        }
    }

    /// Has storage read again before anything else is judged.
    fn distrust(&mut self) {
        self.ledger = None;
        self.alarm = Alarm::Unknown;
    }
}

/// The class that the runtime sees. Written out instead of by `worker`'s macro, which takes every request apart and puts every
/// response together again.
#[wasm_bindgen]
impl KeyObject {
    /// Does nothing that could fail: an object whose constructor throws is lost until it is made again.
    #[wasm_bindgen(constructor)]
    pub fn new(state: DurableObjectState, env: Env) -> Self {
        let state = State::from(state);
        let storage = Storage::new(AsRef::<JsValue>::as_ref(state.storage().as_raw()).clone());
        Self {
            shared: Rc::new(Shared { state, env, storage, memory: RefCell::default(), on_confirmed: OnceCell::new() }),
        }
    }

    /// Answers a question: with a response if nothing has to be waited for, otherwise with its promise.
    pub fn fetch(&self, request: &web_sys::Request) -> Result<JsValue, JsValue> {
        let url = request.url();
        let shared = &self.shared;
        let now = clock::now();
        match Question::parse(&url) {
            Some(Question::Check(check)) if shared.is_ready(check.call.id, now) => {
                or_internal_error(shared.answer(&check, now))
            }
            Some(_) => {
                let shared = Rc::clone(shared);
                Ok(promise(async move { shared.answer_later(&url).await }).into())
            }
            None => Err(JsError::new("no such question").into()),
        }
    }

    /// Flushes what D1 does not have.
    pub fn alarm(&self) -> Promise {
        let shared = Rc::clone(&self.shared);
        promise(async move {
            flush::alarm(&shared).await;
            Ok(JsValue::UNDEFINED)
        })
    }
}

impl Shared {
    /// Answers a question that D1 or storage has to be asked for first.
    async fn answer_later(self: Rc<Self>, url: &str) -> http::Answer {
        match Question::parse(url) {
            Some(Question::Check(check)) => match self.prepare(check.call.id).await {
                Ok(now) => self.answer(&check, now),
                Err(fault) => failed(check.call.id, &fault),
            },
            Some(Question::Settle { id, debt }) => {
                let now = self.prepare(id).await?;
                if self.settle(debt, now)? {
                    self.commit(now).await?;
                } else {
                    self.write_denials_later(now);
                }
                Ok(js::answer(&Answer::Settled.to_line())?.into())
            }
            Some(Question::Usage { id }) => self.usage(id).await,
            Some(Question::Refresh { id }) => self.refresh(id).await,
            Some(Question::Stats { .. }) => self.stats(),
            None => Err(Fault::new("no such question")),
        }
    }

    /// Judges a call and answers when its count is written.
    fn answer(self: &Rc<Self>, check: &Check<'_>, now: UnixMicros) -> http::Answer {
        let (answer, needs_write) = match self.judge(check, now) {
            Ok(judged) => judged,
            Err(fault) => return failed(check.call.id, &fault),
        };
        let line = answer.to_line();
        if !needs_write {
            self.write_denials_later(now);
            return Ok(js::answer(&line)?.into());
        }
        match self.write_or_join(now) {
            Write::Done(Ok(())) => Ok(js::answer(&line)?.into()),
            Write::Done(Err(fault)) => failed(check.call.id, &fault),
            Write::Shared(batch) => Ok(js::answer_with(&batch, &line).into()),
        }
    }

    /// The synchronous stretch: no await from the first look at memory to the last count.
    fn judge(&self, check: &Check<'_>, now: UnixMicros) -> Result<(Answer, bool), Fault> {
        let mut memory = self.memory.borrow_mut();
        let Memory { ledger: Some(ledger), profile, .. } = &mut *memory else {
            return Err(Fault::new("storage has not been read"));
        };
        let Some(profile) = profile else { return Ok((Answer::Unknown, false)) };
        if !same_hash(check.call.secret_hash, &profile.row.secret_hash) {
            return Ok((Answer::Unknown, false));
        }
        let mut needs_write = check.debt.is_some_and(|debt| add_debt(ledger, debt, now));
        let peek = |ledger: &mut Ledger, verdict| Decision {
            verdict,
            standings: ledger.standings(&profile.policies, now),
            now,
        };
        let status = profile.status(now);
        let (outcome, decision) = if status != Status::Active {
            (Outcome::Refused(status), peek(ledger, crate::decision::Verdict::Admitted))
        } else if check.is_repeat && ledger.recalls(check.nonce) {
            // Counted when it was first asked; but that write may still be under way.
            needs_write = true;
            (Outcome::Admitted, peek(ledger, crate::decision::Verdict::Admitted))
        } else {
            let cost = profile.cost(check.call.method, check.call.path);
            let decision = ledger.decide(&profile.policies, now, Cost { requests: cost, tokens: 0 });
            if decision.is_admitted() {
                ledger.remember(check.nonce);
                needs_write = true;
            }
            (Outcome::new(&decision, cost), decision)
        };
        let known = Known::new(outcome, &profile.row.tier, &profile.policies, &decision);
        Ok((Answer::Known(known), needs_write))
    }

    /// Adds what an isolate owes; whether that has to be written before it is acknowledged.
    fn settle(&self, debt: Debt, now: UnixMicros) -> Result<bool, Fault> {
        match &mut *self.memory.borrow_mut() {
            Memory { ledger: Some(ledger), profile: Some(_), .. } => Ok(add_debt(ledger, debt, now)),
            // What is owed to a key that is gone is owed to nobody.
            Memory { ledger: Some(_), .. } => Ok(false),
            _ => Err(Fault::new("storage has not been read")),
        }
    }

    /// Whether a call can be judged on memory alone. Sees to it that a profile which gets old is read again.
    fn is_ready(self: &Rc<Self>, id: &str, now: UnixMicros) -> bool {
        let memory = self.memory.borrow();
        if memory.ledger.is_none() || memory.alarm == Alarm::Unknown || memory.profile.is_none() {
            return false;
        }
        match memory.profile_age(now) {
            age if age >= PROFILE_LIFE => return false,
            age if age >= PROFILE_RENEWAL && !memory.is_renewing => {
                drop(memory);
                self.renew_beside(id);
            }
            _ => {}
        }
        true
    }

    fn renew_beside(self: &Rc<Self>, id: &str) {
        self.memory.borrow_mut().is_renewing = true;
        let (shared, id) = (Rc::clone(self), id.to_owned());
        self.state.wait_until(async move {
            shared.renew(&id).await;
            shared.memory.borrow_mut().is_renewing = false;
        });
    }

    /// Reads storage and, where that is needed, D1. Gives the one reading of the clock that judges this question.
    pub(super) async fn prepare(self: &Rc<Self>, id: &str) -> Result<UnixMicros, Fault> {
        let now = clock::now();
        self.load()?;
        self.look_for_alarm().await?;
        let needs_d1 = {
            let memory = self.memory.borrow();
            let may_ask = memory.may_ask_d1(now);
            match &memory.profile {
                Some(_) => memory.profile_age(now) >= PROFILE_LIFE,
                None if memory.is_unknown => may_ask,
                None if may_ask => true,
                None => return Err(Fault::new("D1 could not be asked a moment ago")),
            }
        };
        if !needs_d1 {
            return Ok(now);
        }
        // Other events wait, so that a thousand first calls ask D1 once.
        let (shared, id) = (Rc::clone(self), id.to_owned());
        let renewal = self.state.block_concurrency_while(async move {
            shared.renew(&id).await;
            Ok(())
        });
        renewal.await?;
        let memory = self.memory.borrow();
        if memory.profile.is_none() && !memory.is_unknown {
            return Err(Fault::new("D1 could not be asked about a key that is not known here yet"));
        }
        Ok(clock::now())
    }

    /// Reads storage into memory, once in the object's life and after every failed write.
    pub(super) fn load(&self) -> Result<(), Fault> {
        let mut memory = self.memory.borrow_mut();
        if memory.ledger.is_some() {
            return Ok(());
        }
        if let Some(Stored { state, profile, checked_at }) = self.storage.load()? {
            memory.ledger = Some(state);
            memory.is_saved = true;
            memory.checked_at = checked_at;
            memory.profile = profile;
        } else {
            memory.ledger = Some(Ledger::new(new_epoch()?));
            memory.is_saved = false;
            memory.alarm = Alarm::Unset;
        }
        Ok(())
    }

    /// Finds out, once, whether an alarm is set: counts that are not flushed must have one.
    async fn look_for_alarm(&self) -> Result<(), Fault> {
        if self.memory.borrow().alarm != Alarm::Unknown {
            return Ok(());
        }
        let found = self.state.storage().get_alarm().await?.and_then(|at| u64::try_from(at).ok());
        let mut memory = self.memory.borrow_mut();
        if memory.alarm == Alarm::Unknown {
            memory.alarm = found.map_or(Alarm::Unset, Alarm::Set);
        }
        Ok(())
    }

    /// Reads the key's row in D1. What fails here leaves everything as it was: the object goes on with what it knows.
    async fn renew(&self, id: &str) {
        let asked_at = clock::now();
        let epoch = self.memory.borrow().ledger.as_ref().map(|ledger| ledger.epoch().to_owned()).unwrap_or_default();
        let read = async {
            let db = key_store::database(&self.env)?;
            key_store::profile(&db, id, Month::of(asked_at), &epoch).await
        };
        let result = match within(PROFILE_DEADLINE, read).await {
            Ok(stored) => match self.adopt(stored, asked_at) {
                Ok(()) => self.forget_if_gone().await,
                Err(fault) => Err(fault),
            },
            Err(fault) => Err(fault),
        };
        if let Err(fault) = result {
            worker::console_error!("tollgate: key {id} could not be read from D1: {fault}");
            let mut memory = self.memory.borrow_mut();
            let pause = if memory.profile.is_some() { PROFILE_RETRY } else { FIRST_PROFILE_RETRY };
            memory.retry_at = asked_at.as_millis() + pause;
        }
    }

    /// Takes over what D1 said at `asked_at`.
    fn adopt(&self, stored: Option<StoredKey>, asked_at: UnixMicros) -> Result<(), Fault> {
        let mut memory = self.memory.borrow_mut();
        let Some(stored) = stored else {
            memory.profile = None;
            memory.is_unknown = true;
            memory.retry_at = asked_at.as_millis() + PROFILE_RETRY;
            if memory.is_saved {
                self.storage.delete_profile()?;
            }
            return Ok(());
        };
        let is_new = !memory.is_saved;
        let is_changed = memory.profile.as_ref() != Some(&stored.profile);
        if let (true, Some(ledger)) = (is_new, &mut memory.ledger) {
            // This storage has counted nothing yet: what D1 has of this month was counted by an earlier life of it.
            ledger.carry_over(Month::of(asked_at), stored.carried);
        }
        memory.is_unknown = false;
        memory.checked_at = asked_at.as_millis();
        memory.profile = Some(stored.profile);
        if is_changed
            && !is_new
            && let Some(profile) = &memory.profile
        {
            self.storage.save_profile(profile)?;
        }
        Ok(())
    }

    /// Deletes everything once its key is gone and D1 has all that it counted.
    pub(super) async fn forget_if_gone(&self) -> Result<(), Fault> {
        {
            let mut memory = self.memory.borrow_mut();
            let is_flushed = memory.ledger.as_ref().is_some_and(|ledger| ledger.unflushed().is_empty());
            if !memory.is_saved || memory.profile.is_some() || !is_flushed {
                return Ok(());
            }
            memory.ledger = None;
            memory.alarm = Alarm::Unknown;
        }
        Ok(self.state.storage().delete_all().await?)
    }

    /// The key's id, which is the object's name.
    pub(super) fn key_id(&self) -> Option<String> {
        self.state.id().name()
    }

    /// Sees to it that everything that has been counted so far is written.
    ///
    /// One write is under way at a time. Who comes while none is, writes at once; who comes while one is, joins the next, which is
    /// issued when that one is confirmed. So a call that comes alone waits for nothing but its own write, and the more calls come
    /// together, the more of them share a row.
    fn write_or_join(self: &Rc<Self>, now: UnixMicros) -> Write {
        {
            let mut memory = self.memory.borrow_mut();
            // One that is never confirmed must not keep the others waiting for ever.
            if memory.writing_since.is_some_and(|since| now.as_millis() <= since + WRITE_OVERDUE) {
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
        let waiting = self.memory.borrow_mut().next_write.take();
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
        memory.writing_since = Some(clock::now().as_millis());
        drop(memory);
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
    fn write_denials_later(self: &Rc<Self>, now: UnixMicros) {
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

    async fn usage(self: &Rc<Self>, id: &str) -> http::Answer {
        let now = self.prepare(id).await?;
        let mut memory = self.memory.borrow_mut();
        let Memory { ledger: Some(ledger), profile: Some(profile), .. } = &mut *memory else {
            return Err(Fault::new(format!("there is no key {id} in D1")));
        };
        let standings = ledger.standings(&profile.policies, now);
        let month = ledger.month(Month::of(now));
        let usage = Usage {
            key_id: id.to_owned(),
            tier: profile.row.tier.clone(),
            status: profile.status(now),
            as_of: rfc3339(now),
            policies: profile.policies.iter().zip(&standings).map(|(p, s)| PolicyUsage::new(p, s, now)).collect(),
            month: month.month.to_string(),
            calls: month.calls.saturating_add(month.carried),
        };
        json(&usage)
    }

    /// Reads the key's row in D1 now, because it has just been changed.
    async fn refresh(self: &Rc<Self>, id: &str) -> http::Answer {
        let (shared, owned) = (Rc::clone(self), id.to_owned());
        self.load()?;
        self.state
            .block_concurrency_while(async move {
                shared.renew(&owned).await;
                Ok(())
            })
            .await?;
        json(&())
    }

    fn stats(&self) -> http::Answer {
        let memory = self.memory.borrow();
        json(&serde_json::json!({ "rows_written": memory.rows_written, "writes": memory.writes }))
    }

    /// `FLUSH_SECONDS`; its default, and a line in the log, if it is set to nonsense (the Worker then answers 503 to everything).
    pub(super) fn flush_seconds(&self) -> u64 {
        config::flush_seconds(|name| variable(&self.env, name)).unwrap_or_else(|error| {
            worker::console_error!("tollgate: {error}");
            60
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

/// Adds a debt, unless it has been added; whether that has to be written before it is acknowledged.
fn add_debt(ledger: &mut Ledger, debt: Debt, now: UnixMicros) -> bool {
    if ledger.recalls(debt.nonce) {
        // Its first write may still be under way.
        return debt.uncounted > 0;
    }
    ledger.remember(debt.nonce);
    ledger.deny_elsewhere(now, debt.denied);
    if debt.uncounted > 0 {
        ledger.charge_calls(now, debt.uncounted, Cost { requests: debt.uncounted, tokens: 0 });
    }
    debt.uncounted > 0
}

fn json(value: &impl serde::Serialize) -> http::Answer {
    Ok(js::reply(200, Some(&serde_json::to_string(value).map_err(Fault::new)?), "")?.into())
}

/// Whether something is counted that no row holds.
pub(super) fn is_unwritten(ledger: &Ledger) -> bool {
    ledger.is_dirty() || ledger.has_uncommitted_denials()
}

/// Names one life of an object's storage: 64 random bits.
fn new_epoch() -> Result<String, Fault> {
    Ok(format!("{:016x}", getrandom::u64().map_err(Fault::new)?))
}

/// Gives up on `work` after that many milliseconds.
pub(super) async fn within<T>(milliseconds: u32, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let timer = Timer::start(milliseconds);
    match futures_util::future::select(std::pin::pin!(work), JsFuture::from(js::timer_promise(&timer.0))).await {
        futures_util::future::Either::Left((result, _)) => result,
        futures_util::future::Either::Right(_) => Err(Fault::new(format!("no answer within {milliseconds} ms"))),
    }
}

/// A timer that ends with its use: one that is still running keeps an idle object in memory, and billed.
struct Timer(JsValue);

impl Timer {
    fn start(milliseconds: u32) -> Self {
        Self(js::start_timer(milliseconds))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        js::clear_timer(&self.0);
    }
}
