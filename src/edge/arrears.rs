//! What an isolate still owes to the counts of keys: calls that it let through while their object was out of reach, and
//! denials that it gave without asking.
//!
//! They ride along with the next question to the object. What has been sent keeps its nonce until an answer comes back, so
//! that a question which is asked again, or whose answer was lost, adds nothing twice.

use crate::protocol::Debt;
use std::cell::RefCell;
use std::collections::HashMap;

/// Keys at most for which an isolate remembers what it owes; beyond it, further keys' debts are dropped and logged.
const CAPACITY: usize = 10_000;

#[derive(Debug, Default)]
struct Account {
    /// Sent at least once, not acknowledged.
    sent: Option<Debt>,
    /// Since then.
    open: Debt,
}

thread_local! {
    static ACCOUNTS: RefCell<HashMap<String, Account>> = RefCell::default();
}

/// Notes one call that was forwarded uncounted.
pub(crate) fn add_uncounted(id: &str) {
    add(id, |debt| debt.uncounted += 1);
}

/// Notes one call that was denied without asking.
pub(crate) fn add_denied(id: &str) {
    add(id, |debt| debt.denied += 1);
}

fn add(id: &str, change: impl FnOnce(&mut Debt)) {
    ACCOUNTS.with_borrow_mut(|accounts| {
        if let Some(account) = accounts.get_mut(id) {
            change(&mut account.open);
        } else if accounts.len() < CAPACITY {
            change(&mut accounts.entry(id.to_owned()).or_default().open);
        } else {
            worker::console_error!("tollgate: more than {CAPACITY} keys in arrears; one of key {id} is not counted");
        }
    });
}

/// What is to be sent along with a question about `id`, under `nonce` if it has not been sent before.
pub(crate) fn due(id: &str, nonce: u64) -> Option<Debt> {
    ACCOUNTS.with_borrow_mut(|accounts| {
        let account = accounts.get_mut(id)?;
        if account.sent.is_none() {
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
        if account.sent.is_none() && account.open == Debt::default() {
            accounts.remove(id);
        }
    });
}
