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
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Keys at most for which an isolate remembers what it owes; beyond it, further keys' debts are dropped and logged.
const CAPACITY: usize = 10_000;

/// How long a debt waits for a question to ride along with, in milliseconds. A Worker may work for 30 s after its answer.
const PATIENCE: u32 = 5_000;
/// After this time in milliseconds a timer is taken to have died with its request.
const TIMER_LIFE: u64 = 30_000;

#[derive(Debug, Default)]
struct Account {
    /// Sent at least once, not acknowledged.
    sent: Option<Debt>,
    /// Since then.
    open: Debt,
    /// When the timer that will pay was set, in milliseconds.
    timer_since: Option<u64>,
}

thread_local! {
    static ACCOUNTS: RefCell<HashMap<String, Account>> = RefCell::default();
}

/// Notes one call that was forwarded uncounted.
pub(crate) fn add_uncounted(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64) {
    add(deployment, context, id, now, |debt| debt.uncounted += 1);
}

/// Notes one call that was denied without asking.
pub(crate) fn add_denied(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64) {
    add(deployment, context, id, now, |debt| debt.denied += 1);
}

fn add(deployment: &Rc<Deployment>, context: &JsValue, id: &str, now: u64, change: impl FnOnce(&mut Debt)) {
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
        change(&mut account.open);
        let is_timer_set = account.timer_since.is_some_and(|since| now.abs_diff(since) < TIMER_LIFE);
        if !is_timer_set {
            account.timer_since = Some(now);
        }
        !is_timer_set
    });
    if needs_timer {
        let payment = Payment { deployment: Rc::clone(deployment), id: id.to_owned(), debt: None };
        js::pay_later(context, PATIENCE, &deployment.objects, id, payment);
    }
}

/// A debt that is paid without a call to ride along with. JavaScript holds it until its time has come.
#[wasm_bindgen]
pub struct Payment {
    deployment: Rc<Deployment>,
    id: String,
    debt: Option<Debt>,
}

#[wasm_bindgen]
impl Payment {
    /// What to ask the object; nothing if another question has paid.
    pub fn url(&mut self) -> Option<String> {
        ACCOUNTS.with_borrow_mut(|accounts| {
            if let Some(account) = accounts.get_mut(&self.id) {
                account.timer_since = None;
            }
        });
        let Some(debt) = due(&self.id, self.deployment.nonce()) else {
            ACCOUNTS.with_borrow_mut(|accounts| accounts.remove(&self.id));
            return None;
        };
        self.debt = Some(debt);
        Some(Question::Settle { id: &self.id, debt }.to_url())
    }

    /// Takes note of the answer. Without one the debt stays, for the next question.
    pub fn resume(self, line: &str) {
        match (object_client::read(line, &self.id), self.debt) {
            (Reply::Answer(Answer::Settled), Some(debt)) => settle(&self.id, debt),
            (Reply::Lost(fault) | Reply::Failed(fault), _) => worker::console_error!("tollgate: {fault}"),
            _ => {}
        }
    }
}

/// What is to be sent along with a question about `id`, under `nonce` if it has not been sent before.
pub(crate) fn due(id: &str, nonce: u64) -> Option<Debt> {
    ACCOUNTS.with_borrow_mut(|accounts| {
        let account = accounts.get_mut(id)?;
        if account.sent.is_none() && account.open != Debt::default() {
            account.sent = Some(Debt { nonce, ..std::mem::take(&mut account.open) });
        }
        account.sent
    })
}

/// The object has `debt` on its books.
pub(crate) fn settle(id: &str, debt: Debt) {
    ACCOUNTS.with_borrow_mut(|accounts| {
        let Some(account) = accounts.get_mut(id) else { return };
        // Another question may have settled it already, and a newer debt may have been sent since.
        if account.sent == Some(debt) {
            account.sent = None;
        }
        if account.sent.is_none() && account.open == Debt::default() && account.timer_since.is_none() {
            accounts.remove(id);
        }
    });
}
