//! Usage that an isolate has not yet reported: calls that it let through while their object was
//! unreachable, and denials from its cache.
//!
//! A report keeps its nonce until the object has acknowledged it, so the object counts it once
//! however often it is sent. From the second time on it has the age of the first attempt, because
//! the object may have forgotten the nonce by then (see
//! [`KeyState::can_deduplicate`](crate::key_state::state::KeyState::can_deduplicate)).

use crate::gateway::outbox::delivery_timer::DeliveryTimer;
use crate::protocol::object_request::{PendingReport, UncheckedCalls};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

/// Maximum number of keys with usage to report.
pub const CAPACITY: usize = 10_000;
/// Maximum size of what is kept per key, in bytes: methods and paths, with [`ENTRY`] for each
/// different one and for each call that may have been counted. That is about a thousand of the
/// latter, and any number of the others if they are alike.
pub const KEY_BYTES: usize = 1 << 16;
/// Maximum size of what is kept of all keys, in bytes.
pub const ALL_BYTES: usize = 1 << 23;
/// The size of an entry besides its text, in bytes.
pub const ENTRY: usize = 32;
/// The size at which a report is cut, in bytes.
const REPORT_BYTES: usize = 1 << 13;

/// The request for a call that was let through uncounted, but may have been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaybeCounted {
    /// The request's nonce, under which the call is reported.
    pub nonce: u64,
    /// When the request was first sent, in milliseconds.
    pub requested_at: u64,
}

/// A [`PendingReport`] in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentReport {
    /// Names the report.
    pub nonce: u64,
    uncounted: u64,
    denied: u64,
    age: Option<u64>,
    unchecked: Rc<str>,
}

impl SentReport {
    /// In the form of the request.
    #[must_use]
    pub fn report(&self) -> PendingReport<'_> {
        let &Self { nonce, uncounted, denied, age, .. } = self;
        PendingReport { nonce, uncounted, denied, age, unchecked: UncheckedCalls(&self.unchecked) }
    }
}

/// A report that requests carry.
#[derive(Debug)]
struct InFlightReport {
    nonce: u64,
    /// The targets of the calls, and their number.
    calls: Vec<(String, u64)>,
    unchecked: Rc<str>,
    denied: u64,
    /// The earliest time at which the object may have counted it, in milliseconds. `None` until it
    /// is sent, if certainly no request has been counted.
    since: Option<u64>,
    /// Number of unanswered requests that carry it.
    in_flight: usize,
    /// Whether the object may have it although no request is in flight.
    is_maybe_counted: bool,
}

impl InFlightReport {
    fn new(nonce: u64, calls: Vec<(String, u64)>, denied: u64, since: Option<u64>) -> Self {
        let unchecked: Vec<String> = calls.iter().map(|(target, count)| format!("{count}:{target}")).collect();
        let unchecked = unchecked.join(",").into();
        Self { nonce, calls, unchecked, denied, since, in_flight: 0, is_maybe_counted: since.is_some() }
    }
}

#[derive(Debug, Default)]
struct KeyReports {
    /// The report that was sent at least once and is not acknowledged.
    sent: Option<InFlightReport>,
    /// Calls that may have been counted, and their targets. Each is a separate report.
    maybe_counted: VecDeque<(MaybeCounted, String)>,
    /// Targets and number of the calls that are certainly uncounted and not yet sent.
    calls: BTreeMap<String, u64>,
    denied: u64,
    /// Size of what is kept of calls, in bytes.
    bytes: usize,
    timer: DeliveryTimer,
}

impl KeyReports {
    fn is_empty(&self) -> bool {
        self.sent.is_none() && self.maybe_counted.is_empty() && self.calls.is_empty() && self.denied == 0
    }

    fn next(&mut self, nonce: u64) -> Option<InFlightReport> {
        if let Some((MaybeCounted { nonce, requested_at }, target)) = self.maybe_counted.pop_front() {
            return Some(InFlightReport::new(nonce, vec![(target, 1)], 0, Some(requested_at)));
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
        let has_usage = !calls.is_empty() || denied > 0;
        has_usage.then(|| InFlightReport::new(nonce, calls, denied, None))
    }
}

/// The unreported usage of one isolate. Times are milliseconds on its clock; only differences
/// matter.
#[derive(Debug, Default)]
pub struct UsageReports {
    accounts: HashMap<String, KeyReports>,
    /// Of all keys.
    bytes: usize,
}

impl UsageReports {
    /// Adds a call that is let through uncounted. Returns whether a timer must be set, or `None` if
    /// there is no room: the call must then be refused.
    pub fn add_call(
        &mut self,
        id: &str,
        now: u64,
        (method, path): (&str, &str),
        maybe_counted: Option<MaybeCounted>,
    ) -> Option<bool> {
        let target = UncheckedCalls::target(method, path);
        let all_bytes = self.bytes;
        let account = self.account(id)?;
        let is_known = maybe_counted.is_none() && account.calls.contains_key(&target);
        let bytes = if is_known { 0 } else { target.len() + ENTRY };
        if account.bytes + bytes > KEY_BYTES || all_bytes + bytes > ALL_BYTES {
            self.close(id);
            return None;
        }
        account.bytes += bytes;
        match maybe_counted {
            Some(maybe_counted) => account.maybe_counted.push_back((maybe_counted, target)),
            None => add_to(&mut account.calls, target, 1),
        }
        let needs_timer = account.timer.start(now);
        self.bytes += bytes;
        Some(needs_timer)
    }

    /// Adds a call that was denied from the cache. Returns whether a timer must be set, or `None` if
    /// there is no room.
    pub fn add_denied(&mut self, id: &str, now: u64) -> Option<bool> {
        let account = self.account(id)?;
        account.denied = account.denied.saturating_add(1);
        Some(account.timer.start(now))
    }

    fn account(&mut self, id: &str) -> Option<&mut KeyReports> {
        if !self.accounts.contains_key(id) {
            if self.accounts.len() >= CAPACITY {
                return None;
            }
            self.accounts.insert(id.to_owned(), KeyReports::default());
        }
        self.accounts.get_mut(id)
    }

    /// The report that a request about `id` carries, under `nonce` if it has none yet. The result
    /// of each request goes to one of [`acknowledge`](Self::acknowledge),
    /// [`requeue`](Self::requeue) and [`mark_maybe_counted`](Self::mark_maybe_counted).
    pub fn next_report(&mut self, id: &str, now: u64, nonce: u64) -> Option<SentReport> {
        let account = self.accounts.get_mut(id)?;
        if account.sent.is_none() {
            account.sent = account.next(nonce);
        }
        let sent = account.sent.as_mut()?;
        sent.in_flight = sent.in_flight.saturating_add(1);
        let since = sent.since.replace(sent.since.unwrap_or(now));
        // The clock has stepped back: the age is unknown.
        let age = since.map(|since| now.checked_sub(since).unwrap_or(u64::MAX));
        let uncounted = sent.calls.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        Some(SentReport {
            nonce: sent.nonce,
            uncounted,
            denied: sent.denied,
            age,
            unchecked: Rc::clone(&sent.unchecked),
        })
    }

    /// The object has recorded the report of this nonce.
    pub fn acknowledge(&mut self, id: &str, nonce: u64) {
        let mut freed = 0;
        self.change(id, nonce, |account, _| {
            let sent = account.sent.take();
            freed = sent.iter().flat_map(|sent| &sent.calls).map(|(target, _)| target.len() + ENTRY).sum();
            account.bytes = account.bytes.saturating_sub(freed);
        });
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// The object has not recorded the report of this nonce. The report may grow again, unless
    /// another request may have delivered it.
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

    /// It is unknown whether the object has recorded the report of this nonce. It stays as it is.
    pub fn mark_maybe_counted(&mut self, id: &str, nonce: u64) {
        self.change(id, nonce, |account, _| {
            if let Some(sent) = &mut account.sent {
                sent.is_maybe_counted = true;
            }
        });
    }

    /// The timer of the delivery has ended.
    pub fn end_timer(&mut self, id: &str) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.timer.end();
            self.close(id);
        }
    }

    /// Handles the result of a request that carried the report of this nonce.
    fn change(&mut self, id: &str, nonce: u64, change: impl FnOnce(&mut KeyReports, bool)) {
        let Some(account) = self.accounts.get_mut(id) else { return };
        // Another request may have delivered it, and a newer report may have been sent since.
        let Some(sent) = account.sent.as_mut().filter(|sent| sent.nonce == nonce) else { return };
        sent.in_flight = sent.in_flight.saturating_sub(1);
        let is_maybe_counted = sent.is_maybe_counted || sent.in_flight > 0;
        change(account, is_maybe_counted);
        self.close(id);
    }

    fn close(&mut self, id: &str) {
        if self.accounts.get(id).is_some_and(|account| account.is_empty() && !account.timer.is_set()) {
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
    use crate::gateway::outbox::delivery_timer::TIMER_LIFE;

    const GET: (&str, &str) = ("GET", "/a");

    /// Nonce, calls, denials, age and targets.
    type Expected = (u64, u64, u64, Option<u64>, String);

    fn report(nonce: u64, uncounted: u64, denied: u64, age: Option<u64>) -> Expected {
        let unchecked = if uncounted > 0 { format!("{uncounted}:GET:/a") } else { String::new() };
        (nonce, uncounted, denied, age, unchecked)
    }

    fn next_report(reports: &mut UsageReports, now: u64, nonce: u64) -> Option<Expected> {
        let report = reports.next_report("k", now, nonce)?;
        let PendingReport { nonce, uncounted, denied, age, unchecked } = report.report();
        Some((nonce, uncounted, denied, age, unchecked.0.to_owned()))
    }

    #[test]
    fn certainly_uncounted_calls_are_one_report_until_it_is_acknowledged() {
        let mut reports = UsageReports::default();
        assert_eq!(next_report(&mut reports, 0, 1), None);
        assert_eq!(reports.add_call("k", 0, GET, None), Some(true));
        assert_eq!(reports.add_denied("k", 1), Some(false));
        assert_eq!(next_report(&mut reports, 5, 7), Some(report(7, 1, 1, None)));
        assert_eq!(reports.next_report("l", 5, 7), None);
        // Another request carries it while the first is in flight.
        reports.add_call("k", 6, GET, None);
        assert_eq!(next_report(&mut reports, 9, 8), Some(report(7, 1, 1, Some(4))));
        reports.acknowledge("k", 7);
        reports.acknowledge("k", 7);
        assert_eq!(next_report(&mut reports, 9, 9), Some(report(9, 1, 0, None)));
        reports.acknowledge("k", 9);
        reports.add_denied("k", 9);
        assert_eq!(next_report(&mut reports, 9, 10), Some(report(10, 0, 1, None)));
        reports.acknowledge("k", 10);
        assert_eq!(next_report(&mut reports, 9, 11), None);
        reports.end_timer("k");
        assert!(reports.accounts.is_empty() && reports.bytes == 0);
    }

    #[test]
    fn a_report_that_was_not_recorded_may_grow_again() {
        let mut reports = UsageReports::default();
        reports.add_call("k", 0, GET, None);
        next_report(&mut reports, 0, 1);
        reports.requeue("k", 1);
        reports.add_call("k", 0, GET, None);
        assert_eq!(next_report(&mut reports, 3, 2), Some(report(2, 2, 0, None)));
        // Two requests carry it: the response to one of them does not decide.
        next_report(&mut reports, 3, 3);
        reports.requeue("k", 2);
        reports.add_call("k", 3, GET, None);
        assert_eq!(next_report(&mut reports, 4, 4), Some(report(2, 2, 0, Some(1))));
        reports.requeue("k", 2);
        reports.requeue("k", 2);
        assert_eq!((reports.bytes, reports.accounts["k"].bytes), (38, 38), "one entry, of 6 bytes and 32");
        assert_eq!(next_report(&mut reports, 9, 5), Some(report(5, 3, 0, None)));
        // Nor does a lost response.
        reports.mark_maybe_counted("k", 5);
        next_report(&mut reports, 9, 6);
        reports.requeue("k", 5);
        assert_eq!(next_report(&mut reports, 19, 6), Some(report(5, 3, 0, Some(10))));
        reports.acknowledge("k", 5);
        assert_eq!((reports.bytes, reports.accounts["k"].bytes), (0, 0));
    }

    #[test]
    fn a_maybe_counted_call_is_a_report_of_its_own_with_its_age() {
        let mut reports = UsageReports::default();
        reports.add_call("k", 100, GET, Some(MaybeCounted { nonce: 71, requested_at: 90 }));
        reports.add_call("k", 100, GET, None);
        reports.add_call("k", 200, GET, Some(MaybeCounted { nonce: 72, requested_at: 150 }));
        assert_eq!(next_report(&mut reports, 200, 1), Some(report(71, 1, 0, Some(110))));
        reports.requeue("k", 71);
        assert_eq!(next_report(&mut reports, 201, 2), Some(report(71, 1, 0, Some(111))));
        reports.acknowledge("k", 71);
        assert_eq!(next_report(&mut reports, 149, 3), Some(report(72, 1, 0, Some(u64::MAX))));
        reports.acknowledge("k", 72);
        assert_eq!(next_report(&mut reports, 210, 4), Some(report(4, 1, 0, None)));
    }

    #[test]
    fn calls_are_grouped_by_target() {
        let mut reports = UsageReports::default();
        for target in [GET, ("POST", "/a"), ("GET", "/b,c"), GET] {
            reports.add_call("k", 0, target, None);
        }
        reports.add_call("k", 0, ("PUT", "/d"), Some(MaybeCounted { nonce: 9, requested_at: 0 }));
        assert_eq!(next_report(&mut reports, 1, 1), Some((9, 1, 0, Some(1), "1:PUT:/d".to_owned())));
        reports.acknowledge("k", 9);
        let expected = "2:GET:/a,1:GET:/b%2Cc,1:POST:/a".to_owned();
        assert_eq!(next_report(&mut reports, 1, 2), Some((2, 4, 0, None, expected)));
    }

    #[test]
    fn a_long_report_is_sent_in_parts() {
        let mut reports = UsageReports::default();
        for call in 0..1000 {
            assert!(reports.add_call("k", 0, ("GET", &format!("/{call}")), None).is_some());
        }
        let (mut nonce, mut calls) = (0, 0);
        while let Some((report, uncounted, _, _, unchecked)) = next_report(&mut reports, 0, nonce) {
            assert!(unchecked.len() < REPORT_BYTES && unchecked.split(',').count() as u64 == uncounted);
            reports.acknowledge("k", report);
            (nonce, calls) = (nonce + 1, calls + uncounted);
        }
        assert_eq!((nonce, calls, reports.bytes), (5, 1000, 0));
        // 128 entries of 64 bytes fill a report.
        for call in 0..200 {
            reports.add_call("k", 0, ("GET", &format!("/{call:027}")), None);
        }
        assert_eq!(next_report(&mut reports, 0, 1).map(|report| report.1), Some(128));
    }

    #[test]
    fn bytes_are_limited_exactly() {
        let mut reports = UsageReports::default();
        let path = format!("/{}", "x".repeat(27));
        let add = |reports: &mut UsageReports, nonce| {
            reports.add_call("k", 0, ("GET", &path), Some(MaybeCounted { nonce, requested_at: 0 })).is_some()
        };
        assert_eq!((0..2_000).take_while(|nonce| add(&mut reports, *nonce)).count(), KEY_BYTES / 64);
        let mut reports = UsageReports::default();
        let path = "/".repeat(KEY_BYTES - ENTRY - "GET:".len());
        let keys = (0..1_000).take_while(|key| reports.add_call(&key.to_string(), 0, ("GET", &path), None).is_some());
        assert_eq!(keys.count(), ALL_BYTES / KEY_BYTES);
    }

    #[test]
    fn usage_outlives_its_timer() {
        let maybe_counted = Some(MaybeCounted { nonce: 9, requested_at: 0 });
        for (calls, doubtful, denied, is_sent) in
            [(1, 0, 0, false), (0, 1, 0, false), (0, 0, 1, false), (1, 0, 0, true)]
        {
            let mut reports = UsageReports::default();
            assert!((0..calls).all(|_| reports.add_call("k", 0, GET, None).is_some()));
            assert!((0..doubtful).all(|_| reports.add_call("k", 0, GET, maybe_counted).is_some()));
            assert!((0..denied).all(|_| reports.add_denied("k", 0).is_some()));
            if is_sent {
                reports.next_report("k", 0, 1);
            }
            reports.end_timer("k");
            let (_, uncounted, denials, ..) = next_report(&mut reports, 0, 2).unwrap();
            assert_eq!((uncounted, denials), (calls + doubtful, denied));
        }
    }

    #[test]
    fn a_full_outbox_adds_nothing() {
        let mut reports = UsageReports::default();
        let maybe_counted = |nonce| Some(MaybeCounted { nonce, requested_at: 0 });
        let most = KEY_BYTES / ("GET:/a".len() + ENTRY);
        for nonce in 0..most {
            assert!(reports.add_call("k", 0, GET, maybe_counted(nonce as u64)).is_some());
        }
        assert_eq!(reports.add_call("k", 0, GET, maybe_counted(9999)), None);
        assert_eq!(reports.add_call("k", 0, GET, None), None);
        let (nonce, ..) = next_report(&mut reports, 0, 0).unwrap();
        assert_eq!(reports.add_call("k", 0, GET, None), None);
        reports.acknowledge("k", nonce);
        // Equal calls need room once.
        assert!((0..5000).all(|_| reports.add_call("k", 0, GET, None).is_some()));
        assert_eq!(reports.add_call("k", 0, ("GET", "/b"), None), None);
        assert_eq!(reports.add_call("l", 0, ("GET", &"/".repeat(KEY_BYTES)), None), None);
        assert!(!reports.accounts.contains_key("l"));

        let path = "/".repeat(KEY_BYTES / 2);
        let keys = (0..CAPACITY)
            .take_while(|key| reports.add_call(&key.to_string(), 0, ("GET", &path), None).is_some())
            .count();
        assert!((250..256).contains(&keys), "{keys}");
        for key in reports.accounts.len()..CAPACITY {
            assert!(reports.add_denied(&format!("d{key}"), 0).is_some());
        }
        assert_eq!(reports.add_denied("l", 0), None);
        assert!(reports.add_denied("k", 0).is_some());
        reports.next_report("0", 0, 1);
        reports.acknowledge("0", 1);
        reports.end_timer("0");
        assert!(reports.add_call("l", 0, GET, None).is_some());
    }

    #[test]
    fn a_timer_is_set_again_when_it_has_ended_or_expired() {
        let mut reports = UsageReports::default();
        let mut needs_timer = |now| reports.add_denied("k", now).unwrap();
        assert_eq!([0, TIMER_LIFE - 1, TIMER_LIFE, TIMER_LIFE + 1].map(&mut needs_timer), [true, false, true, false]);
        reports.end_timer("k");
        assert!(reports.add_denied("k", TIMER_LIFE + 2).unwrap());
    }
}
