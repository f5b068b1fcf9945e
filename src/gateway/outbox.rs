//! What an isolate owes to the counts of keys: calls that it let through while their object was out of reach, and denials that it
//! gave without asking.
//!
//! A report rides along with the next question about its key, or goes alone after a while. It keeps its nonce until the object has
//! acknowledged it, so that the object counts it once however often it is sent. From the second time on it says since when the
//! object may have it: by then the object may have forgotten the nonce (see [`KeyState::can_tell`](crate::key_state::state::KeyState::can_tell)).

use crate::protocol::object_request::{PendingReport, UncheckedCalls};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

/// Keys at most for which an isolate remembers what it owes.
pub const CAPACITY: usize = 10_000;
/// What may be noted of one key: bytes of methods and paths, with [`ENTRY`] for each different one and for each call that may have
/// been counted. So much is a thousand calls or so of the latter, and any number of the others if they are alike.
pub const KEY_BYTES: usize = 1 << 16;
/// What may be noted of all keys.
pub const ALL_BYTES: usize = 1 << 23;
/// What an entry counts for beside its text, in bytes.
pub const ENTRY: usize = 32;
/// A report is cut when it has so many bytes.
const REPORT_BYTES: usize = 1 << 13;
/// After this time in milliseconds a timer is taken to have died with its request. A Worker may work for 30 s after its answer.
const TIMER_LIFE: u64 = 30_000;

/// A call was let through after a question that may have been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaybeCounted {
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

/// A [`PendingReport`] that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Names the report.
    pub nonce: u64,
    uncounted: u64,
    denied: u64,
    age: Option<u64>,
    unchecked: Rc<str>,
}

impl Report {
    /// As it travels.
    #[must_use]
    pub fn report(&self) -> PendingReport<'_> {
        let &Self { nonce, uncounted, denied, age, .. } = self;
        PendingReport { nonce, uncounted, denied, age, unchecked: UncheckedCalls(&self.unchecked) }
    }
}

/// A report that questions carry.
#[derive(Debug)]
struct Sent {
    nonce: u64,
    /// What the calls asked for, and how many there are.
    calls: Vec<(String, u64)>,
    unchecked: Rc<str>,
    denied: u64,
    /// When the object can have counted it first, in milliseconds. `None` until it is sent, if it is owed for certain.
    since: Option<u64>,
    /// Questions with it that have not been answered.
    under_way: usize,
    /// Whether the object may have it although no question is under way.
    is_maybe_counted: bool,
}

impl Sent {
    fn new(nonce: u64, calls: Vec<(String, u64)>, denied: u64, since: Option<u64>) -> Self {
        let unchecked: Vec<String> = calls.iter().map(|(target, count)| format!("{count}:{target}")).collect();
        let unchecked = unchecked.join(",").into();
        Self { nonce, calls, unchecked, denied, since, under_way: 0, is_maybe_counted: since.is_some() }
    }
}

#[derive(Debug, Default)]
struct Account {
    /// Sent at least once, not acknowledged.
    sent: Option<Sent>,
    /// Calls that may have been counted, and what they asked for. Each is owed by itself.
    maybe_counted: VecDeque<(MaybeCounted, String)>,
    /// What calls asked for that are owed for certain and were not sent, and how many there are.
    calls: BTreeMap<String, u64>,
    denied: u64,
    /// What is noted of calls, in bytes.
    bytes: usize,
    /// When the timer that will pay was set, in milliseconds.
    timer_since: Option<u64>,
}

impl Account {
    fn is_empty(&self) -> bool {
        self.sent.is_none() && self.maybe_counted.is_empty() && self.calls.is_empty() && self.denied == 0
    }

    fn note(&mut self, now: u64) -> Noted {
        let is_timer_set = self.timer_since.is_some_and(|since| now.abs_diff(since) < TIMER_LIFE);
        if !is_timer_set {
            self.timer_since = Some(now);
        }
        Noted { needs_timer: !is_timer_set }
    }

    fn next(&mut self, nonce: u64) -> Option<Sent> {
        if let Some((MaybeCounted { nonce, asked_at }, target)) = self.maybe_counted.pop_front() {
            return Some(Sent::new(nonce, vec![(target, 1)], 0, Some(asked_at)));
        }
        let mut calls = Vec::new();
        let mut bytes = 0;
        while bytes < REPORT_BYTES
            && let Some((target, count)) = self.calls.pop_first()
        {
            bytes += target.len() + ENTRY;
            calls.push((target, count));
        }
        let denied = std::mem::take(&mut self.denied);
        let is_owed = !calls.is_empty() || denied > 0;
        is_owed.then(|| Sent::new(nonce, calls, denied, None))
    }
}

/// The debts of one isolate. All times are milliseconds on the isolate's own clock, of which only differences count.
#[derive(Debug, Default)]
pub struct Outbox {
    accounts: HashMap<String, Account>,
    /// Of all accounts.
    bytes: usize,
}

impl Outbox {
    /// Notes a call that is let through uncounted. `None` if there is no room to note it: then it must not be let through.
    pub fn add_call(
        &mut self,
        id: &str,
        now: u64,
        (method, path): (&str, &str),
        doubt: Option<MaybeCounted>,
    ) -> Option<Noted> {
        let target = UncheckedCalls::target(method, path);
        let all_bytes = self.bytes;
        let account = self.account(id)?;
        let is_known = doubt.is_none() && account.calls.contains_key(&target);
        let bytes = if is_known { 0 } else { target.len() + ENTRY };
        if account.bytes + bytes > KEY_BYTES || all_bytes + bytes > ALL_BYTES {
            self.close(id);
            return None;
        }
        account.bytes += bytes;
        match doubt {
            Some(doubt) => account.maybe_counted.push_back((doubt, target)),
            None => add_to(&mut account.calls, target, 1),
        }
        let noted = account.note(now);
        self.bytes += bytes;
        Some(noted)
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
    /// [`acknowledge`](Self::acknowledge), [`requeue`](Self::requeue) and [`mark_maybe_counted`](Self::mark_maybe_counted).
    pub fn next_report(&mut self, id: &str, now: u64, nonce: u64) -> Option<Report> {
        let account = self.accounts.get_mut(id)?;
        if account.sent.is_none() {
            account.sent = account.next(nonce);
        }
        let sent = account.sent.as_mut()?;
        sent.under_way = sent.under_way.saturating_add(1);
        let since = sent.since.replace(sent.since.unwrap_or(now));
        // A clock that stepped back does not tell how long it was.
        let age = since.map(|since| now.checked_sub(since).unwrap_or(u64::MAX));
        let uncounted = sent.calls.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        Some(Report { nonce: sent.nonce, uncounted, denied: sent.denied, age, unchecked: Rc::clone(&sent.unchecked) })
    }

    /// The object has the report of this nonce on its books.
    pub fn acknowledge(&mut self, id: &str, nonce: u64) {
        let mut freed = 0;
        self.change(id, nonce, |account, _| {
            let sent = account.sent.take();
            freed = sent.iter().flat_map(|sent| &sent.calls).map(|(target, _)| target.len() + ENTRY).sum();
            account.bytes = account.bytes.saturating_sub(freed);
        });
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// The object says that it has not counted the report of this nonce. It may grow again, unless another question may have brought
    /// it there.
    pub fn requeue(&mut self, id: &str, nonce: u64) {
        let mut freed = 0;
        self.change(id, nonce, |account, is_maybe_counted| {
            if !is_maybe_counted && let Some(sent) = account.sent.take() {
                account.denied = account.denied.saturating_add(sent.denied);
                for (target, count) in sent.calls {
                    freed += if account.calls.contains_key(&target) { target.len() + ENTRY } else { 0 };
                    add_to(&mut account.calls, target, count);
                }
                account.bytes = account.bytes.saturating_sub(freed);
            }
        });
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// Nothing is known about what the object has done with the report of this nonce: it stays as it is.
    pub fn mark_maybe_counted(&mut self, id: &str, nonce: u64) {
        self.change(id, nonce, |account, _| {
            if let Some(sent) = &mut account.sent {
                sent.is_maybe_counted = true;
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

    /// Takes note of an answer to a question that carried the report of this nonce.
    fn change(&mut self, id: &str, nonce: u64, change: impl FnOnce(&mut Account, bool)) {
        let Some(account) = self.accounts.get_mut(id) else { return };
        // Another question may have settled it already, and a newer report may have been sent since.
        let Some(sent) = account.sent.as_mut().filter(|sent| sent.nonce == nonce) else { return };
        sent.under_way = sent.under_way.saturating_sub(1);
        let is_maybe_counted = sent.is_maybe_counted || sent.under_way > 0;
        change(account, is_maybe_counted);
        self.close(id);
    }

    fn close(&mut self, id: &str) {
        if self.accounts.get(id).is_some_and(|account| account.is_empty() && account.timer_since.is_none()) {
            self.accounts.remove(id);
        }
    }
}

fn add_to(calls: &mut BTreeMap<String, u64>, target: String, count: u64) {
    let known = calls.entry(target).or_default();
    *known = known.saturating_add(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: (&str, &str) = ("GET", "/a");

    /// Nonce, calls, denials, age and what the calls asked for.
    type Owed = (u64, u64, u64, Option<u64>, String);

    fn owed(nonce: u64, uncounted: u64, denied: u64, age: Option<u64>) -> Owed {
        let unchecked = if uncounted > 0 { format!("{uncounted}:GET:/a") } else { String::new() };
        (nonce, uncounted, denied, age, unchecked)
    }

    fn next_report(outbox: &mut Outbox, now: u64, nonce: u64) -> Option<Owed> {
        let report = outbox.next_report("k", now, nonce)?;
        let PendingReport { nonce, uncounted, denied, age, unchecked } = report.report();
        Some((nonce, uncounted, denied, age, unchecked.0.to_owned()))
    }

    #[test]
    fn what_is_owed_for_certain_is_sent_together_until_it_is_acknowledged() {
        let mut outbox = Outbox::default();
        assert_eq!(next_report(&mut outbox, 0, 1), None);
        assert_eq!(outbox.add_call("k", 0, GET, None), Some(Noted { needs_timer: true }));
        assert_eq!(outbox.add_denied("k", 1), Some(Noted { needs_timer: false }));
        assert_eq!(next_report(&mut outbox, 5, 7), Some(owed(7, 1, 1, None)));
        assert_eq!(outbox.next_report("l", 5, 7), None);
        // Another question takes it along while the first is under way.
        outbox.add_call("k", 6, GET, None);
        assert_eq!(next_report(&mut outbox, 9, 8), Some(owed(7, 1, 1, Some(4))));
        outbox.acknowledge("k", 7);
        outbox.acknowledge("k", 7);
        assert_eq!(next_report(&mut outbox, 9, 9), Some(owed(9, 1, 0, None)));
        outbox.acknowledge("k", 9);
        outbox.add_denied("k", 9);
        assert_eq!(next_report(&mut outbox, 9, 10), Some(owed(10, 0, 1, None)));
        outbox.acknowledge("k", 10);
        assert_eq!(next_report(&mut outbox, 9, 11), None);
        outbox.end_timer("k");
        assert!(outbox.accounts.is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn what_the_object_did_not_count_may_grow_again() {
        let mut outbox = Outbox::default();
        outbox.add_call("k", 0, GET, None);
        next_report(&mut outbox, 0, 1);
        outbox.requeue("k", 1);
        outbox.add_call("k", 0, GET, None);
        assert_eq!(next_report(&mut outbox, 3, 2), Some(owed(2, 2, 0, None)));
        // Two questions carry it now: what one of them says is not all.
        next_report(&mut outbox, 3, 3);
        outbox.requeue("k", 2);
        outbox.add_call("k", 3, GET, None);
        assert_eq!(next_report(&mut outbox, 4, 4), Some(owed(2, 2, 0, Some(1))));
        outbox.requeue("k", 2);
        outbox.requeue("k", 2);
        assert_eq!(next_report(&mut outbox, 9, 5), Some(owed(5, 3, 0, None)));
        // An answer that was lost says nothing either.
        outbox.mark_maybe_counted("k", 5);
        next_report(&mut outbox, 9, 6);
        outbox.requeue("k", 5);
        assert_eq!(next_report(&mut outbox, 19, 6), Some(owed(5, 3, 0, Some(10))));
        outbox.acknowledge("k", 5);
        assert_eq!((outbox.bytes, outbox.accounts["k"].bytes), (0, 0));
    }

    #[test]
    fn a_doubtful_call_stays_one_and_says_since_when() {
        let mut outbox = Outbox::default();
        outbox.add_call("k", 100, GET, Some(MaybeCounted { nonce: 71, asked_at: 90 }));
        outbox.add_call("k", 100, GET, None);
        outbox.add_call("k", 200, GET, Some(MaybeCounted { nonce: 72, asked_at: 150 }));
        assert_eq!(next_report(&mut outbox, 200, 1), Some(owed(71, 1, 0, Some(110))));
        outbox.requeue("k", 71);
        assert_eq!(next_report(&mut outbox, 201, 2), Some(owed(71, 1, 0, Some(111))));
        outbox.acknowledge("k", 71);
        assert_eq!(next_report(&mut outbox, 149, 3), Some(owed(72, 1, 0, Some(u64::MAX))));
        outbox.acknowledge("k", 72);
        assert_eq!(next_report(&mut outbox, 210, 4), Some(owed(4, 1, 0, None)));
    }

    #[test]
    fn calls_are_told_by_what_they_asked_for() {
        let mut outbox = Outbox::default();
        for target in [GET, ("POST", "/a"), ("GET", "/b,c"), GET] {
            outbox.add_call("k", 0, target, None);
        }
        outbox.add_call("k", 0, ("PUT", "/d"), Some(MaybeCounted { nonce: 9, asked_at: 0 }));
        assert_eq!(next_report(&mut outbox, 1, 1), Some((9, 1, 0, Some(1), "1:PUT:/d".to_owned())));
        outbox.acknowledge("k", 9);
        let expected = "2:GET:/a,1:GET:/b%2Cc,1:POST:/a".to_owned();
        assert_eq!(next_report(&mut outbox, 1, 2), Some((2, 4, 0, None, expected)));
    }

    #[test]
    fn a_long_report_is_sent_in_parts() {
        let mut outbox = Outbox::default();
        for call in 0..1000 {
            assert!(outbox.add_call("k", 0, ("GET", &format!("/{call}")), None).is_some());
        }
        let (mut nonce, mut calls) = (0, 0);
        while let Some((report, uncounted, _, _, unchecked)) = next_report(&mut outbox, 0, nonce) {
            assert!(unchecked.len() < REPORT_BYTES && unchecked.split(',').count() as u64 == uncounted);
            outbox.acknowledge("k", report);
            (nonce, calls) = (nonce + 1, calls + uncounted);
        }
        assert_eq!((nonce, calls, outbox.bytes), (5, 1000, 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_not_noted() {
        let mut outbox = Outbox::default();
        let doubt = |nonce| Some(MaybeCounted { nonce, asked_at: 0 });
        let most = KEY_BYTES / ("GET:/a".len() + ENTRY);
        for nonce in 0..most {
            assert!(outbox.add_call("k", 0, GET, doubt(nonce as u64)).is_some());
        }
        assert_eq!(outbox.add_call("k", 0, GET, doubt(9999)), None);
        assert_eq!(outbox.add_call("k", 0, GET, None), None);
        let (nonce, ..) = next_report(&mut outbox, 0, 0).unwrap();
        assert_eq!(outbox.add_call("k", 0, GET, None), None);
        outbox.acknowledge("k", nonce);
        // One kind of call needs room once, however many there are.
        assert!((0..5000).all(|_| outbox.add_call("k", 0, GET, None).is_some()));
        assert_eq!(outbox.add_call("k", 0, ("GET", "/b"), None), None);
        assert_eq!(outbox.add_call("l", 0, ("GET", &"/".repeat(KEY_BYTES)), None), None);
        assert!(!outbox.accounts.contains_key("l"));

        let path = "/".repeat(KEY_BYTES / 2);
        let keys = (0..CAPACITY)
            .take_while(|key| outbox.add_call(&key.to_string(), 0, ("GET", &path), None).is_some())
            .count();
        assert!((250..256).contains(&keys), "{keys}");
        for key in outbox.accounts.len()..CAPACITY {
            assert!(outbox.add_denied(&format!("d{key}"), 0).is_some());
        }
        assert_eq!(outbox.add_denied("l", 0), None);
        assert!(outbox.add_denied("k", 0).is_some());
        outbox.next_report("0", 0, 1);
        outbox.acknowledge("0", 1);
        outbox.end_timer("0");
        assert!(outbox.add_call("l", 0, GET, None).is_some());
    }

    #[test]
    fn a_timer_is_set_again_when_it_has_ended_or_died() {
        let mut outbox = Outbox::default();
        let mut needs_timer = |now| outbox.add_denied("k", now).unwrap().needs_timer;
        assert_eq!([0, TIMER_LIFE - 1, TIMER_LIFE, TIMER_LIFE + 1].map(&mut needs_timer), [true, false, true, false]);
        outbox.end_timer("k");
        assert!(outbox.add_denied("k", TIMER_LIFE + 2).unwrap().needs_timer);
    }
}
