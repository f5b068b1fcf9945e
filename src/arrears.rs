//! What an isolate owes to the counts of keys: calls that it let through while their object was out of reach, and denials that it
//! gave without asking.
//!
//! A debt rides along with the next question about its key, or goes alone after a while. It keeps its nonce until the object has
//! acknowledged it, so that the object counts it once however often it is sent. From the second time on it says since when the
//! object may have it: by then the object may have forgotten the nonce (see [`State::can_tell`](crate::limit::State::can_tell)).

use crate::protocol::Debt;
use std::collections::{HashMap, VecDeque};

/// Keys at most for which an isolate remembers what it owes.
pub const CAPACITY: usize = 10_000;
/// Calls of one key at most that were let through and may have been counted all the same.
pub const DOUBTFUL: usize = 1_000;
/// After this time in milliseconds a timer is taken to have died with its request. A Worker may work for 30 s after its answer.
const TIMER_LIFE: u64 = 30_000;

/// A call that was let through after a question that may have been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The question's nonce, under which the call is owed.
    pub nonce: u64,
    /// When it was first asked, in milliseconds.
    pub asked_at: u64,
}

/// Something was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Whether a timer is to be set that pays what no question takes along.
    pub needs_timer: bool,
}

/// A debt that questions carry.
#[derive(Debug)]
struct Sent {
    nonce: u64,
    uncounted: u64,
    denied: u64,
    /// When the object can have counted it first, in milliseconds. `None` until it is sent, if it is owed for certain.
    since: Option<u64>,
    /// Questions with it that have not been answered.
    under_way: usize,
    /// Whether the object may have it although no question is under way.
    may_be_counted: bool,
}

#[derive(Debug, Default)]
struct Account {
    /// Sent at least once, not acknowledged.
    sent: Option<Sent>,
    /// Each is owed by itself.
    doubtful: VecDeque<Doubt>,
    /// What is owed for certain and was not sent.
    uncounted: u64,
    denied: u64,
    /// When the timer that will pay was set, in milliseconds.
    timer_since: Option<u64>,
}

impl Account {
    fn is_settled(&self) -> bool {
        self.sent.is_none() && self.doubtful.is_empty() && self.uncounted == 0 && self.denied == 0
    }

    fn note(&mut self, now: u64) -> Noted {
        let is_timer_set = self.timer_since.is_some_and(|since| now.abs_diff(since) < TIMER_LIFE);
        if !is_timer_set {
            self.timer_since = Some(now);
        }
        Noted { needs_timer: !is_timer_set }
    }

    fn next(&mut self, nonce: u64) -> Option<Sent> {
        if let Some(Doubt { nonce, asked_at }) = self.doubtful.pop_front() {
            let since = Some(asked_at);
            return Some(Sent { nonce, uncounted: 1, denied: 0, since, under_way: 0, may_be_counted: true });
        }
        let (uncounted, denied) = (std::mem::take(&mut self.uncounted), std::mem::take(&mut self.denied));
        let is_owed = uncounted > 0 || denied > 0;
        is_owed.then_some(Sent { nonce, uncounted, denied, since: None, under_way: 0, may_be_counted: false })
    }
}

/// The debts of one isolate. All times are milliseconds on the isolate's own clock, of which only differences count.
#[derive(Debug, Default)]
pub struct Arrears {
    accounts: HashMap<String, Account>,
}

impl Arrears {
    /// Notes a call that is let through uncounted. `None` if there is no room to note it: then it must not be let through.
    pub fn add_call(&mut self, id: &str, now: u64, doubt: Option<Doubt>) -> Option<Noted> {
        let account = self.account(id)?;
        match doubt {
            Some(_) if account.doubtful.len() >= DOUBTFUL => return None,
            Some(doubt) => account.doubtful.push_back(doubt),
            None => account.uncounted = account.uncounted.saturating_add(1),
        }
        Some(account.note(now))
    }

    /// Notes a call that was denied without asking. `None` if there is no room to note it.
    pub fn add_denied(&mut self, id: &str, now: u64) -> Option<Noted> {
        let account = self.account(id)?;
        account.denied = account.denied.saturating_add(1);
        Some(account.note(now))
    }

    fn account(&mut self, id: &str) -> Option<&mut Account> {
        if !self.accounts.contains_key(id) {
            if self.accounts.len() >= CAPACITY {
                return None;
            }
            self.accounts.insert(id.to_owned(), Account::default());
        }
        self.accounts.get_mut(id)
    }

    /// What is to be sent along with a question about `id`, under `nonce` if it has none yet. Each answer is to be told to one of
    /// [`settle`](Self::settle), [`take_back`](Self::take_back) and [`doubt`](Self::doubt).
    pub fn due(&mut self, id: &str, now: u64, nonce: u64) -> Option<Debt> {
        let account = self.accounts.get_mut(id)?;
        if account.sent.is_none() {
            account.sent = account.next(nonce);
        }
        let sent = account.sent.as_mut()?;
        sent.under_way = sent.under_way.saturating_add(1);
        let since = sent.since.replace(sent.since.unwrap_or(now));
        // A clock that stepped back does not tell how long it was.
        let age = since.map(|since| now.checked_sub(since).unwrap_or(u64::MAX));
        Some(Debt { nonce: sent.nonce, uncounted: sent.uncounted, denied: sent.denied, age })
    }

    /// The object has the debt of this nonce on its books.
    pub fn settle(&mut self, id: &str, nonce: u64) {
        self.change(id, nonce, |account, _| account.sent = None);
    }

    /// The object says that it has not counted the debt of this nonce. It may grow again, unless another question may have brought
    /// it there.
    pub fn take_back(&mut self, id: &str, nonce: u64) {
        self.change(id, nonce, |account, may_be_counted| {
            if !may_be_counted && let Some(sent) = account.sent.take() {
                account.uncounted = account.uncounted.saturating_add(sent.uncounted);
                account.denied = account.denied.saturating_add(sent.denied);
            }
        });
    }

    /// Nothing is known about what the object has done with the debt of this nonce: it stays as it is.
    pub fn doubt(&mut self, id: &str, nonce: u64) {
        self.change(id, nonce, |account, _| {
            if let Some(sent) = &mut account.sent {
                sent.may_be_counted = true;
            }
        });
    }

    /// The timer that pays has come to its end.
    pub fn end_timer(&mut self, id: &str) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.timer_since = None;
            self.close(id);
        }
    }

    /// Takes note of an answer to a question that carried the debt of this nonce.
    fn change(&mut self, id: &str, nonce: u64, change: impl FnOnce(&mut Account, bool)) {
        let Some(account) = self.accounts.get_mut(id) else { return };
        // Another question may have settled it already, and a newer debt may have been sent since.
        let Some(sent) = account.sent.as_mut().filter(|sent| sent.nonce == nonce) else { return };
        sent.under_way = sent.under_way.saturating_sub(1);
        let may_be_counted = sent.may_be_counted || sent.under_way > 0;
        change(account, may_be_counted);
        self.close(id);
    }

    fn close(&mut self, id: &str) {
        if self.accounts.get(id).is_some_and(|account| account.is_settled() && account.timer_since.is_none()) {
            self.accounts.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debt(nonce: u64, uncounted: u64, denied: u64, age: Option<u64>) -> Debt {
        Debt { nonce, uncounted, denied, age }
    }

    #[test]
    fn what_is_owed_for_certain_is_sent_together_until_it_is_acknowledged() {
        let mut arrears = Arrears::default();
        assert_eq!(arrears.due("k", 0, 1), None);
        assert_eq!(arrears.add_call("k", 0, None), Some(Noted { needs_timer: true }));
        assert_eq!(arrears.add_denied("k", 1), Some(Noted { needs_timer: false }));
        assert_eq!(arrears.due("k", 5, 7), Some(debt(7, 1, 1, None)));
        assert_eq!(arrears.due("l", 5, 7), None);
        // Another question takes it along while the first is under way.
        arrears.add_call("k", 6, None);
        assert_eq!(arrears.due("k", 9, 8), Some(debt(7, 1, 1, Some(4))));
        arrears.settle("k", 7);
        arrears.settle("k", 7);
        assert_eq!(arrears.due("k", 9, 9), Some(debt(9, 1, 0, None)));
        arrears.settle("k", 9);
        assert_eq!(arrears.due("k", 9, 10), None);
        arrears.end_timer("k");
        assert!(arrears.accounts.is_empty());
    }

    #[test]
    fn what_the_object_did_not_count_may_grow_again() {
        let mut arrears = Arrears::default();
        arrears.add_call("k", 0, None);
        arrears.due("k", 0, 1);
        arrears.take_back("k", 1);
        arrears.add_call("k", 0, None);
        assert_eq!(arrears.due("k", 3, 2), Some(debt(2, 2, 0, None)));
        // Two questions carry it now: what one of them says is not all.
        arrears.due("k", 3, 3);
        arrears.take_back("k", 2);
        arrears.add_call("k", 3, None);
        assert_eq!(arrears.due("k", 4, 4), Some(debt(2, 2, 0, Some(1))));
        arrears.take_back("k", 2);
        arrears.take_back("k", 2);
        assert_eq!(arrears.due("k", 9, 5), Some(debt(5, 3, 0, None)));
        // An answer that was lost says nothing either.
        arrears.doubt("k", 5);
        arrears.due("k", 9, 6);
        arrears.take_back("k", 5);
        assert_eq!(arrears.due("k", 19, 6), Some(debt(5, 3, 0, Some(10))));
    }

    #[test]
    fn a_doubtful_call_stays_one_and_says_since_when() {
        let mut arrears = Arrears::default();
        arrears.add_call("k", 100, Some(Doubt { nonce: 71, asked_at: 90 }));
        arrears.add_call("k", 100, None);
        arrears.add_call("k", 200, Some(Doubt { nonce: 72, asked_at: 150 }));
        assert_eq!(arrears.due("k", 200, 1), Some(debt(71, 1, 0, Some(110))));
        arrears.take_back("k", 71);
        assert_eq!(arrears.due("k", 201, 2), Some(debt(71, 1, 0, Some(111))));
        arrears.settle("k", 71);
        assert_eq!(arrears.due("k", 149, 3), Some(debt(72, 1, 0, Some(u64::MAX))));
        arrears.settle("k", 72);
        assert_eq!(arrears.due("k", 210, 4), Some(debt(4, 1, 0, None)));
    }

    #[test]
    fn what_there_is_no_room_for_is_not_noted() {
        let mut arrears = Arrears::default();
        let doubt = |nonce| Some(Doubt { nonce, asked_at: 0 });
        for nonce in 0..DOUBTFUL {
            assert!(arrears.add_call("k", 0, doubt(nonce as u64)).is_some());
        }
        assert_eq!(arrears.add_call("k", 0, doubt(9999)), None);
        assert!(arrears.add_call("k", 0, None).is_some());
        arrears.due("k", 0, 0);
        assert!(arrears.add_call("k", 0, doubt(9999)).is_some());
        for key in 1..CAPACITY {
            assert!(arrears.add_denied(&key.to_string(), 0).is_some());
        }
        assert_eq!(arrears.add_call("l", 0, None), None);
        assert_eq!(arrears.add_denied("l", 0), None);
        assert!(arrears.add_denied("k", 0).is_some());
    }

    #[test]
    fn a_timer_is_set_again_when_it_has_ended_or_died() {
        let mut arrears = Arrears::default();
        let mut needs_timer = |now| arrears.add_denied("k", now).unwrap().needs_timer;
        assert_eq!([0, TIMER_LIFE - 1, TIMER_LIFE, TIMER_LIFE + 1].map(&mut needs_timer), [true, false, true, false]);
        arrears.end_timer("k");
        assert!(arrears.add_denied("k", TIMER_LIFE + 2).unwrap().needs_timer);
    }
}
