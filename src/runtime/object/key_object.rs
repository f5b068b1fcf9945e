//! The Durable Object of one key: the only clock and the only judge.
//!
//! The runtime delivers a key's questions to one object, one event at a time, and Rust code between two awaits runs alone. So
//! reading, deciding and counting happen in one synchronous stretch on memory, and no lock is needed. What makes a count durable
//! is the row that follows: questions that arrive while one write is under way share the next, and none of them is answered before
//! it is issued; the runtime's output gate then holds the answers back until it is confirmed. If the write fails, memory is thrown away and read
//! again from storage, and every question that waited for it is answered "failed": nothing was counted.

use crate::admin::audit::AuditView;
use crate::config;
use crate::key_state::audit_log::reader::AuditQuery;
use crate::key_state::state::KeyState;
use crate::key_state::state::judging::{CallToJudge, ReportOutcome, ReportedUsage};
use crate::keys::profile::{Profile, Status};
use crate::keys::route_pattern::RouteCase;
use crate::limiter::cost::Cost;
use crate::limiter::decision::Judgement;
use crate::metering::alerts::Alert;
use crate::object::denials::Denials;
use crate::object::group_commit::GroupCommit;
use crate::protocol::object_request::{AuditPage, CallOutcomes, Check, ObjectRequest, PendingReport};
use crate::protocol::object_response::{Admission, Extent, KeyResponse, KeyVerdict, ObjectResponse};
use crate::protocol::usage::{PolicyUsageBody, Usage};
use crate::runtime::error::Error;
use crate::runtime::handler::promise;
use crate::runtime::isolate::variable;
use crate::runtime::js;
use crate::runtime::object::storage::Storage;
use crate::runtime::object::writer::Write;
use crate::runtime::object::{flush, reconcile};
use crate::runtime::{clock, http};
use crate::time::{Month, UnixMicros, rfc3339};
use js_sys::Promise;
use std::cell::{OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, RefUnwindSafe};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use worker::worker_sys::DurableObjectState;
use worker::{Env, State};

/// One key's object.
#[wasm_bindgen]
pub struct KeyObject {
    shared: Rc<Shared>,
}

/// What the object's tasks share. Storage is the truth, `memory` a copy of it that is ahead by the write under way.
pub(crate) struct Shared {
    pub(crate) state: State,
    pub(crate) env: Env,
    pub(crate) storage: Storage,
    pub(crate) memory: RefCell<Memory>,
    /// The callbacks for a confirmed write and for a turn of the event loop, made once.
    pub(crate) on_confirmed: OnceCell<JsValue>,
    pub(crate) on_turn: OnceCell<JsValue>,
    pub(crate) flush_seconds: OnceCell<u64>,
    thresholds: OnceCell<Vec<u16>>,
    route_case: OnceCell<RouteCase>,
}

// A panic ends the instance of the wasm; the next event gets a new one, which reads storage.
impl RefUnwindSafe for KeyObject {}

/// See [`Shared`].
#[derive(Default)]
pub(crate) struct Memory {
    /// `None` until storage has been read, and again after a write has failed.
    pub(crate) key_state: Option<KeyState>,
    pub(crate) profile: Option<Profile>,
    /// Whether the tables exist, and `profile` is in them.
    pub(crate) is_saved: bool,
    /// When D1 last confirmed the profile, in milliseconds.
    pub(crate) checked_at: u64,
    /// When to ask D1 again at the earliest, in milliseconds.
    pub(crate) retry_at: u64,
    /// Whether D1 said that there is no such key.
    pub(crate) is_unknown: bool,
    pub(crate) is_renewing: bool,
    /// Numbers reads of D1 by when they began, and the latest that was adopted: an answer that comes late is not news.
    pub(crate) reads: u64,
    pub(crate) adopted: u64,
    pub(crate) alarm: Alarm,
    /// When it was set, in milliseconds.
    pub(crate) alarm_set_at: u64,
    /// Alerts that could not be told, and when to try again, in milliseconds.
    pub(crate) undelivered: Vec<(Alert, u64)>,
    /// Flushes that failed in a row.
    pub(crate) failed_flushes: u32,
    /// Decides when to write.
    pub(crate) commits: GroupCommit,
    /// The calls that wait for the next write, if there are any.
    pub(crate) batch: Option<JsValue>,
    /// Decides when counts are written that no call waits for.
    pub(crate) denials: Denials,
    /// Rows written and writes issued since the object was started, for measurements.
    pub(crate) rows_written: f64,
    pub(crate) writes: u64,
}

/// What is known of the object's alarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Storage has not been asked yet.
    #[default]
    Unknown,
    /// None is set.
    Unset,
    /// One is set for this time, in milliseconds.
    Set(u64),
}

impl Alarm {
    /// When it is set for, in milliseconds.
    pub(crate) const fn at(self) -> Option<u64> {
        match self {
            Self::Set(at) => Some(at),
            Self::Unknown | Self::Unset => None,
        }
    }
}

/// Nothing was counted: logged here, with its cause.
fn failed(id: &str, error: &Error) -> JsValue {
    worker::console_error!("tollgate: key {id} could not be judged: {error}");
    ObjectResponse::Failed.to_line().into()
}

impl Memory {
    /// Has storage read again before anything else is judged.
    pub(crate) fn distrust(&mut self) {
        self.key_state = None;
        self.alarm = Alarm::Unknown;
    }

    /// The batch of those who wait for the next write.
    pub(crate) fn join(&mut self, storage: &Storage) -> JsValue {
        self.batch.get_or_insert_with(|| storage.open_batch()).clone()
    }
}

/// The class that the runtime sees. Written out instead of by `worker`'s macro, which takes every request apart and puts every
/// response together again.
#[wasm_bindgen]
impl KeyObject {
    /// Does nothing that could fail: an object whose constructor throws is lost until it is made again.
    #[wasm_bindgen(constructor)]
    pub fn new(state: DurableObjectState, env: Env) -> Self {
        crate::runtime::js::instance::install_abort_hook();
        let state = State::from(state);
        let storage = Storage::new(AsRef::<JsValue>::as_ref(state.storage().as_raw()).clone());
        Self {
            shared: Rc::new(Shared {
                state,
                env,
                storage,
                memory: RefCell::default(),
                on_confirmed: OnceCell::new(),
                on_turn: OnceCell::new(),
                flush_seconds: OnceCell::new(),
                thresholds: OnceCell::new(),
                route_case: OnceCell::new(),
            }),
        }
    }

    /// Answers a question about a call: with a line if nothing has to be waited for, otherwise with its promise.
    pub fn ask(&self, question: String) -> Result<JsValue, JsValue> {
        let shared = &self.shared;
        let now = clock::now();
        match ObjectRequest::parse(&question) {
            Some(ObjectRequest::Check(check)) if shared.is_ready(&check, now) => Ok(shared.answer(&check, now)),
            Some(ObjectRequest::Check(_) | ObjectRequest::Report { .. } | ObjectRequest::CallOutcomes { .. }) => {
                let shared = Rc::clone(shared);
                let line = async move { Ok(shared.answer_later(&question).await) };
                Ok(wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(line)).into())
            }
            _ => Err(JsError::new("no such question").into()),
        }
    }

    /// Answers a question about the key with JSON.
    pub fn fetch(&self, request: web_sys::Request) -> Promise {
        let (shared, url) = (Rc::clone(&self.shared), request.url());
        promise(async move {
            match ObjectRequest::parse(&url) {
                Some(ObjectRequest::ApplyTier { .. } | ObjectRequest::FanOut { .. }) => {
                    shared.take_push(&request).await
                }
                Some(ObjectRequest::Usage { id }) => shared.usage(id).await,
                Some(ObjectRequest::Audit { id, page }) => shared.audit(id, page).await,
                Some(ObjectRequest::Refresh { id }) => shared.refresh(id).await,
                Some(ObjectRequest::Stats { .. }) => shared.stats(),
                Some(ObjectRequest::Reconcile { .. }) => reconcile::counted(&shared).await,
                Some(ObjectRequest::KeyStatus { id, secret_hash, is_found }) => {
                    shared.key_status(id, secret_hash, is_found).await
                }
                _ => Err(Error::new("no such question")),
            }
        })
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
    async fn answer_later(self: Rc<Self>, question: &str) -> JsValue {
        match ObjectRequest::parse(question) {
            Some(ObjectRequest::Check(check)) => {
                let found = check.is_found.then_some(check.call.secret_hash);
                match self.prepare_for(check.call.id, found).await {
                    Ok(now) => self.answer(&check, now),
                    Err(error) => failed(check.call.id, &error),
                }
            }
            Some(ObjectRequest::Report { id, report }) => {
                let settled = self.settle_later(id, report).await;
                settled.map_or_else(|error| failed(id, &error), |()| ObjectResponse::Recorded.to_line().into())
            }
            Some(ObjectRequest::CallOutcomes { id, is_awaited, outcomes }) => {
                let noted = self.record_outcomes(id, is_awaited, outcomes).await;
                noted.map_or_else(|error| failed(id, &error), |()| ObjectResponse::Recorded.to_line().into())
            }
            _ => failed("", &Error::new("no such question")),
        }
    }

    /// Notes how calls ended. Only a call that others may repeat has to wait until that is written.
    async fn record_outcomes(
        self: &Rc<Self>,
        id: &str,
        is_awaited: bool,
        outcomes: CallOutcomes<'_>,
    ) -> Result<(), Error> {
        let now = self.prepare(id).await?;
        {
            let mut memory = self.memory.borrow_mut();
            let Memory { key_state: Some(key_state), profile: Some(profile), .. } = &mut *memory else { return Ok(()) };
            record_outcomes(key_state, profile, outcomes, now);
        }
        if is_awaited {
            self.commit(now).await?;
        }
        Ok(())
    }

    async fn settle_later(self: &Rc<Self>, id: &str, report: PendingReport<'_>) -> Result<(), Error> {
        let now = self.prepare(id).await?;
        if self.settle(report, now)? {
            self.commit(now).await?;
        } else {
            self.write_later(now);
        }
        Ok(())
    }

    /// Judges a call and answers when its count is written.
    fn answer(self: &Rc<Self>, check: &Check<'_>, now: UnixMicros) -> JsValue {
        let (answer, needs_write) = match self.judge(check, now) {
            Ok(judged) => judged,
            Err(error) => return failed(check.call.id, &error),
        };
        let line = answer.to_line();
        if !needs_write {
            self.write_later(now);
            return line.into();
        }
        match self.write_or_join(now, check.is_concurrent) {
            Write::Done(Ok(())) => line.into(),
            Write::Done(Err(error)) => failed(check.call.id, &error),
            Write::Shared(batch) => js::writer::answer_with(&batch, &line).into(),
        }
    }

    /// The synchronous stretch: no await from the first look at memory to the last count.
    fn judge(&self, check: &Check<'_>, now: UnixMicros) -> Result<(ObjectResponse, bool), Error> {
        let mut memory = self.memory.borrow_mut();
        let Memory { key_state: Some(key_state), profile, .. } = &mut *memory else {
            return Err(Error::new("storage has not been read"));
        };
        let Some(profile) = profile else { return Ok((ObjectResponse::Unknown, false)) };
        profile.turn_to(key_state.effective_time(now));
        if !profile.accepts(check.call.secret_hash, now) {
            return Ok((ObjectResponse::Unknown, false));
        }
        // Before anything is counted: the answer says that nothing is.
        if !key_state.can_deduplicate(now, check.nonce, check.age.map(micros)) {
            return Err(Error::new("it was asked again so late that it is not known whether it was counted"));
        }
        let owed = check.report.is_some_and(|report| apply_report(key_state, profile, self.route_case(), report, now));
        record_outcomes(key_state, profile, check.outcomes, now);
        let (method, path) = (check.call.method, check.call.path);
        let price = profile.price(method, path, self.route_case());
        let cost = price.cost;
        let applies = profile.row.idempotency.applies_to(method);
        let key = check.idempotency_key.as_deref().filter(|_| applies);
        let call = CallToJudge {
            cost: Cost { requests: cost, tokens: 0 },
            method,
            class: &price.class,
            nonce: check.nonce,
            idempotency_key: key,
            fingerprint: check.fingerprint,
            is_audited: profile.row.audit_days > 0,
            thresholds: self.thresholds(),
            hold: None,
        };
        let schedule = profile.schedule();
        let status = profile.status(now);
        if status != Status::Active {
            key_state.refuse_call(now, &call, 403);
            let usage = key_state.usage(schedule, now);
            let known = KeyResponse::new(KeyVerdict::Refused(status), &profile.row.tier, schedule, &usage);
            return Ok((ObjectResponse::Key(known), owed));
        }
        if check.has_malformed_key && applies {
            key_state.refuse_call(now, &call, 400);
            let usage = key_state.usage(schedule, now);
            let known = KeyResponse::new(KeyVerdict::Malformed, &profile.row.tier, schedule, &usage);
            return Ok((ObjectResponse::Key(known), owed));
        }
        // A repeat may overtake the question that it repeats. What is known by then needs a write too: the first may be under way.
        let judgement = key_state.judge_once(schedule, now, &call);
        let needs_write = owed || judgement.is_admitted();
        let replay = match judgement {
            Judgement::Replay { is_free, .. } => Some(is_free),
            _ => None,
        };
        let admission = |is_replay: bool| Admission {
            is_replay,
            // The end of a replay opens nothing: it is for the audit log alone.
            wants_outcome: call.is_audited || (key.is_some() && !is_replay),
            ignores_key: check.fingerprint.is_some() && key.is_none(),
        };
        let (outcome, usage) = match judgement {
            Judgement::Conflict(usage) => (KeyVerdict::Conflict, usage),
            Judgement::Mismatch(usage) => (KeyVerdict::Mismatch, usage),
            Judgement::Recalled { is_replay, usage } => (KeyVerdict::Admitted(admission(is_replay)), usage),
            Judgement::Decided(decision) | Judgement::Replay { decision, .. } => {
                let mut outcome = KeyVerdict::new(&decision.verdict, cost);
                match &mut outcome {
                    KeyVerdict::Admitted(admitted) => *admitted = admission(replay.is_some()),
                    KeyVerdict::Denied { extent, .. } if check.fingerprint.is_some() || check.has_malformed_key => {
                        *extent = match replay {
                            Some(true) => Extent::Replays,
                            _ if key.is_none() => Extent::All,
                            _ if key_state.judges_replays_alike(schedule, now, call.cost, &decision.verdict) => {
                                Extent::All
                            }
                            _ => Extent::New,
                        };
                    }
                    _ => {}
                }
                (outcome, decision.usage)
            }
        };
        let known = KeyResponse::new(outcome, &profile.row.tier, schedule, &usage);
        Ok((ObjectResponse::Key(known), needs_write))
    }

    /// Percentages of a month's quota at which there is to be an alert.
    fn thresholds(&self) -> &[u16] {
        self.thresholds.get_or_init(|| {
            config::alert_thresholds(|name| variable(&self.env, name)).unwrap_or_else(|error| {
                // The Worker answers 503 to everything then.
                worker::console_error!("tollgate: {error}");
                Vec::new()
            })
        })
    }

    fn route_case(&self) -> RouteCase {
        *self.route_case.get_or_init(|| {
            config::route_case(|name| variable(&self.env, name)).unwrap_or_else(|error| {
                // The Worker answers 503 to everything then.
                worker::console_error!("tollgate: {error}");
                RouteCase::default()
            })
        })
    }

    /// Adds what an isolate owes; whether that has to be written before it is acknowledged.
    fn settle(&self, report: PendingReport<'_>, now: UnixMicros) -> Result<bool, Error> {
        match &mut *self.memory.borrow_mut() {
            Memory { key_state: Some(key_state), profile: Some(profile), .. } => {
                Ok(apply_report(key_state, profile, self.route_case(), report, now))
            }
            // What is owed to a key that is gone is owed to nobody.
            Memory { key_state: Some(_), .. } => Ok(false),
            _ => Err(Error::new("storage has not been read")),
        }
    }

    async fn usage(self: &Rc<Self>, id: &str) -> http::HttpResult {
        let now = self.prepare(id).await?;
        let mut memory = self.memory.borrow_mut();
        let Memory { key_state: Some(key_state), profile: Some(profile), .. } = &mut *memory else {
            return Err(Error::new(format!("there is no key {id} in D1")));
        };
        profile.turn_to(key_state.effective_time(now));
        let snapshot = key_state.usage(profile.schedule(), now);
        let month = key_state.month(Month::of(now));
        let usage = Usage {
            key_id: id.to_owned(),
            tier: profile.row.tier.clone(),
            status: profile.status(now),
            as_of: rfc3339(now),
            policies: profile
                .policies
                .iter()
                .zip(&snapshot.policies)
                .map(|(p, s)| PolicyUsageBody::new(p, s, now))
                .collect(),
            month: month.month.to_string(),
            calls: month.calls.saturating_add(month.carried.calls),
        };
        json(&usage)
    }

    async fn audit(self: &Rc<Self>, id: &str, page: AuditPage<'_>) -> http::HttpResult {
        self.prepare(id).await?;
        let memory = self.memory.borrow();
        let Some(key_state) = &memory.key_state else { return Err(Error::new("storage has not been read")) };
        let query = AuditQuery {
            from: UnixMicros::from_millis(page.from),
            to: UnixMicros::from_millis(page.to),
            cursor: if page.cursor.is_empty() { None } else { Some(page.cursor.parse().map_err(Error::new)?) },
            limit: page.limit,
        };
        let (entries, next) = self.storage.read_audit(key_state, query)?;
        json(&AuditView::new(entries, next))
    }

    fn stats(&self) -> http::HttpResult {
        let memory = self.memory.borrow();
        let Memory { rows_written, writes, reads, .. } = *memory;
        json(&serde_json::json!({ "rows_written": rows_written, "writes": writes, "d1_reads": reads }))
    }
}

/// Adds a report, unless it has been added; whether that has to be written before it is acknowledged.
fn apply_report(
    key_state: &mut KeyState,
    profile: &mut Profile,
    case: RouteCase,
    report: PendingReport<'_>,
    now: UnixMicros,
) -> bool {
    profile.turn_to(key_state.effective_time(now));
    let PendingReport { nonce, uncounted, denied, age, .. } = report;
    let cost = Cost { requests: profile.cost_of(report, case), tokens: 0 };
    let report = ReportedUsage { nonce, age: age.map(micros), calls: uncounted, cost, denied };
    match key_state.apply_report(profile.schedule(), now, &report) {
        // The first write of what was added before may still be under way.
        ReportOutcome::Counted | ReportOutcome::Duplicate => uncounted > 0,
        ReportOutcome::TooLate => {
            worker::console_error!(
                "tollgate: {uncounted} calls let through and {denied} denials may have been counted long ago; they are not counted again"
            );
            false
        }
    }
}

/// Microseconds from milliseconds.
const fn micros(milliseconds: u64) -> u64 {
    UnixMicros::from_millis(milliseconds).as_micros()
}

fn record_outcomes(key_state: &mut KeyState, profile: &Profile, outcomes: CallOutcomes<'_>, now: UnixMicros) {
    for outcome in outcomes.iter() {
        key_state.complete(now, outcome, profile.row.audit_days > 0);
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> http::HttpResult {
    Ok(js::response::reply(200, Some(&serde_json::to_string(value).map_err(Error::new)?), "")?.into())
}
