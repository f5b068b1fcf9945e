//! What an isolate still owes to the counts of keys: calls that it let through while their object was out of reach, and
//! denials that it gave without asking.
//!
//! They ride along with the next question to the object, or go alone after some seconds if there is none. What has been sent keeps its nonce until an answer comes back, so
//! that a question which is asked again, or whose answer was lost, adds nothing twice.

use super::deployment::Deployment;
use super::js;
use super::object_client::{self, Reply};
use crate::protocol::{Answer, Debt, Question};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Keys at most for which an isolate remembers what it owes; beyond it, further keys' debts are dropped and logged.
const CAPACITY: usize = 10_000;

/// Doubtful calls of one key at most.
const DOUBTFUL: usize = 1_000;
/// How long a debt waits for a question to ride along with, in milliseconds. A Worker may work for 30 s after its answer.
const PATIENCE: u32 = 5_000;
/// After this time in milliseconds a timer is taken to have died with its request.
const TIMER_LIFE: u64 = 30_000;

/// A debt that questions carry.
#[derive(Debug)]
struct Sent {
    debt: Debt,
    /// How many questions with it have not been answered.
    under_way: usize,
    /// Whether one of them was lost: the object may have added it.
    may_be_added: bool,
}

#[derive(Debug, Default)]
struct Account {
    /// Sent at least once, not acknowledged.
    sent: Option<Sent>,
    /// Calls let through after a question that may have been counted. Each is owed under that question's own nonce.
    doubtful: VecDeque<Debt>,
    /// What is owed for certain, since the last was sent.
    open: Debt,
    /// When the timer that will pay was set, in milliseconds.
    timer_since: Option<u64>,
}

impl Account {
    fn is_settled(&self) -> bool {
        self.sent.is_none() && self.doubtful.is_empty() && self.open == Debt::default()
    }
}

thread_local! {
    static ACCOUNTS: RefCell<HashMap<String, Account>> = RefCell::default();
}

/// Notes one call that was forwarded uncounted; `doubt` is the nonce of its question, if that may have been counted all the same.
pub(crate) fn add_uncounted(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64, doubt: Option<u64>) {
    add(deployment, context, id, now, |account| match doubt {
        Some(nonce) if account.doubtful.len() < DOUBTFUL => {
            account.doubtful.push_back(Debt { nonce, uncounted: 1, denied: 0 });
        }
        Some(_) => {
            worker::console_error!("tollgate: more than {DOUBTFUL} doubtful calls of key {id}; one is not counted");
        }
        None => account.open.uncounted = account.open.uncounted.saturating_add(1),
    });
}

/// Notes one call that was denied without asking.
pub(crate) fn add_denied(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64) {
    add(deployment, context, id, now, |account| account.open.denied = account.open.denied.saturating_add(1));
}

fn add(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64, change: impl FnOnce(&mut Account)) {
    let needs_timer = ACCOUNTS.with_borrow_mut(|accounts| {
        if !accounts.contains_key(id) {
            if accounts.len() >= CAPACITY {
                worker::console_error!(
                    "tollgate: more than {CAPACITY} keys in arrears; one of key {id} is not counted"
                );
                return false;
            }
            accounts.insert(id.to_owned(), Account::default());
        }
        let Some(account) = accounts.get_mut(id) else { return false };
        change(account);
        let is_timer_set = account.timer_since.is_some_and(|since| now.abs_diff(since) < TIMER_LIFE);
        if !is_timer_set {
            account.timer_since = Some(now);
        }
        !is_timer_set
    });
    if needs_timer {
        let payment = Payment { deployment: Rc::clone(deployment), id: id.to_owned(), debt: None, has_failed: false };
        js::pay_later(context, PATIENCE, &deployment.objects, id, payment);
    }
}

/// A debt that is paid without a call to ride along with. JavaScript holds it until its time has come.
#[wasm_bindgen]
pub struct Payment {
    deployment: Rc<Deployment>,
    id: String,
    debt: Option<Debt>,
    has_failed: bool,
}

#[wasm_bindgen]
impl Payment {
    /// What to ask the object next; nothing once all is paid, or after a failure.
    pub fn url(&mut self) -> Option<String> {
        let debt = if self.has_failed { None } else { due(&self.id, self.deployment.nonce()) };
        if debt.is_none() {
            ACCOUNTS.with_borrow_mut(|accounts| {
                if let Some(account) = accounts.get_mut(&self.id) {
                    account.timer_since = None;
                    if account.is_settled() {
                        accounts.remove(&self.id);
                    }
                }
            });
        }
        self.debt = debt;
        debt.map(|debt| Question::Settle { id: &self.id, debt }.to_url())
    }

    /// Takes note of the answer. Without one the debt stays, for the next question.
    pub fn resume(&mut self, line: &str) {
        let Some(debt) = self.debt else { return };
        self.has_failed = true;
        match object_client::read(line, &self.id) {
            Reply::Answer(Answer::Failed) => take_back(&self.id, debt),
            Reply::Answer(_) => {
                self.has_failed = false;
                settle(&self.id, debt);
            }
            Reply::Lost(fault) | Reply::Overloaded(fault) | Reply::Failed(fault) => {
                worker::console_error!("tollgate: {fault}");
                doubt(&self.id, debt);
            }
        }
    }
}

/// What is to be sent along with a question about `id`, under `nonce` if it has not been sent before. Each answer is to be told to
/// one of [`settle`], [`take_back`] and [`doubt`].
pub(crate) fn due(id: &str, nonce: u64) -> Option<Debt> {
    ACCOUNTS.with_borrow_mut(|accounts| {
        let account = accounts.get_mut(id)?;
        if account.sent.is_none() {
            let debt = match account.doubtful.pop_front() {
                Some(debt) => debt,
                None if account.open == Debt::default() => return None,
                None => Debt { nonce, ..std::mem::take(&mut account.open) },
            };
            account.sent = Some(Sent { debt, under_way: 0, may_be_added: false });
        }
        let sent = account.sent.as_mut()?;
        sent.under_way = sent.under_way.saturating_add(1);
        Some(sent.debt)
    })
}

/// The object has `debt` on its books.
pub(crate) fn settle(id: &str, debt: Debt) {
    change(id, debt, |account, _| {
        account.sent = None;
    });
}

/// The object says that it has added nothing: the debt may grow again, unless another question may have brought it there.
pub(crate) fn take_back(id: &str, debt: Debt) {
    change(id, debt, |account, may_be_added| {
        if !may_be_added && account.doubtful.is_empty() {
            account.sent = None;
            account.open.uncounted = account.open.uncounted.saturating_add(debt.uncounted);
            account.open.denied = account.open.denied.saturating_add(debt.denied);
        }
    });
}

/// Nothing is known about what the object has done with `debt`: it stays as it is.
pub(crate) fn doubt(id: &str, debt: Debt) {
    change(id, debt, |account, _| {
        if let Some(sent) = &mut account.sent {
            sent.may_be_added = true;
        }
    });
}

/// Takes note of an answer to a question that carried `debt`.
fn change(id: &str, debt: Debt, change: impl FnOnce(&mut Account, bool)) {
    ACCOUNTS.with_borrow_mut(|accounts| {
        let Some(account) = accounts.get_mut(id) else { return };
        // Another question may have settled it already, and a newer debt may have been sent since.
        let Some(sent) = account.sent.as_mut().filter(|sent| sent.debt == debt) else { return };
        sent.under_way = sent.under_way.saturating_sub(1);
        let may_be_added = sent.may_be_added || sent.under_way > 0;
        change(account, may_be_added);
        if account.is_settled() && account.timer_since.is_none() {
            accounts.remove(id);
        }
    });
}
