//! Retried requests and reports: nothing is counted twice, and while nonces are kept nothing is
//! lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::support::{self, known_nonces, knows, knows_all};
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate::gateway::outbox::usage_reports::{MaybeCounted, SentReport, UsageReports};
use tollgate::key_state::call_memory::MAX_DELAY;
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::{CallToJudge, ReportOutcome, ReportedUsage};
use tollgate::limiter::cost::Cost;
use tollgate::protocol::object_request::PendingReport;
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-20T07:48:14Z.
const START: u64 = 1_795_160_894 * SECOND;
/// The number of nonces per row, and the maximum that is kept.
const RUN: u64 = 64;
const MOST: u64 = 16_384;

fn at(micros: u64) -> UnixMicros {
    UnixMicros::from_micros(micros)
}

fn call(nonce: u64) -> CallToJudge<'static> {
    support::call(nonce, Cost::default())
}

/// A key's object: its state and its rows.
struct Object {
    state: KeyState,
    rows: BTreeMap<u32, String>,
}

impl Object {
    fn new() -> Self {
        Self { state: KeyState::new("e".into()), rows: BTreeMap::new() }
    }

    fn judge(&mut self, clock: u64, nonce: u64) {
        assert!(self.state.judge_once(&[], at(clock), &call(nonce)).is_admitted());
    }

    fn commit(&mut self) {
        let StateRow { slot, body } = self.state.to_row();
        self.rows.insert(slot, body);
        self.state.committed();
        self.state.confirmed(self.state.last_commit());
    }

    /// Uncommitted changes are lost.
    fn restart(&mut self) {
        self.state = match KeyState::from_rows(self.rows.clone()) {
            Ok(state) => state,
            Err(_) => KeyState::new("e".into()),
        };
    }

    fn calls(&self) -> u64 {
        self.state.meter().kept_months().iter().map(|month| month.calls).sum()
    }
}

/// The report of a call that an isolate let through `age` ago and that may have been counted.
fn maybe_counted(nonce: u64, age: u64) -> ReportedUsage {
    ReportedUsage { nonce, age: Some(age), calls: 1, cost: Cost::default(), denied: 0 }
}

#[test]
fn a_nonce_is_kept_for_a_minute_at_any_rate() {
    for restarts in [false, true] {
        let mut object = Object::new();
        // Of two nonces one is counted, the other was lost before it arrived.
        for nonce in 0..3000 {
            let clock = START + nonce * 19_000;
            object.judge(clock, 2 * nonce);
            object.commit();
            if restarts && nonce % 7 == 0 {
                object.restart();
            }
        }
        let now = START + 3000 * 19_000;
        for nonce in (0..3000).rev() {
            let age = (3000 - nonce) * 19_000;
            assert_eq!(
                object.state.apply_report(&[], at(now), &maybe_counted(2 * nonce, age)),
                ReportOutcome::Duplicate
            );
            assert_eq!(
                object.state.apply_report(&[], at(now), &maybe_counted(2 * nonce + 1, age)),
                ReportOutcome::Counted
            );
        }
        assert_eq!(object.calls(), 6000);
        assert!(object.rows.len() <= 3000 / 64 + 2, "{}", object.rows.len());
        assert!(object.rows.values().all(|row| row.len() < 2000));
    }
}

#[test]
fn dropped_nonces_are_never_counted_twice() {
    let mut object = Object::new();
    // Two runs in the first minute, then one call per second.
    for nonce in 0..2 * RUN {
        object.judge(START + nonce * SECOND / 10, nonce);
        object.commit();
    }
    let first_of_second = START + RUN * SECOND / 10;
    for nonce in 2 * RUN..3 * RUN + 5 {
        object.judge(START + (nonce - 2 * RUN) * SECOND, nonce);
        object.commit();
    }
    let now = START + (RUN + 5) * SECOND;
    let calls = object.calls();
    let mut read = KeyState::from_rows(object.rows.clone()).unwrap();
    for state in [&mut object.state, &mut read] {
        assert!(knows_all(state, RUN..3 * RUN + 5) && known_nonces(state, 0..RUN).is_empty());
        // First sent before the oldest kept nonce was admitted, or possibly before.
        for asked in [START, START + SECOND, first_of_second + MAX_DELAY - 1] {
            assert_eq!(state.apply_report(&[], at(now), &maybe_counted(0, now - asked)), ReportOutcome::TooLate);
            assert!(!state.can_deduplicate(at(now), 0, Some(now - asked)));
        }
        assert_eq!(state.month(Month::of(at(now))).calls, calls);
        // What is report for the first time needs no memory; what was asked after all that is
        // forgotten needs none either.
        assert!(state.can_deduplicate(at(now), 0, None));
        assert!(state.can_deduplicate(at(now), RUN, Some(now - START)));
        assert_eq!(
            state.apply_report(&[], at(now), &maybe_counted(9000, now - first_of_second - MAX_DELAY)),
            ReportOutcome::Counted
        );
        let report = ReportedUsage { nonce: 9001, calls: 2, denied: 3, ..ReportedUsage::default() };
        assert_eq!(
            [0, 1].map(|_| state.apply_report(&[], at(now), &report)),
            [ReportOutcome::Counted, ReportOutcome::Duplicate]
        );
        let total = state.month(Month::of(at(now)));
        assert_eq!((total.calls, total.denied), (calls + 3, 3));
    }
}

#[test]
fn a_flood_keeps_a_bounded_number_of_nonces() {
    let mut object = Object::new();
    for nonce in 0..20_000 {
        object.judge(START + nonce * 500, nonce);
        if nonce % 10 == 9 {
            object.commit();
        }
    }
    object.commit();
    assert!(object.rows.len() <= 260, "{}", object.rows.len());
    let known = |state: &KeyState| known_nonces(state, 0..20_000).len() as u64;
    assert!((MOST..MOST + 2 * RUN).contains(&known(&object.state)));
    object.restart();
    assert!((MOST..MOST + 2 * RUN).contains(&known(&object.state)));
    let now = START + 20_000 * 500;
    assert_eq!(object.state.apply_report(&[], at(now), &maybe_counted(0, 10 * SECOND)), ReportOutcome::TooLate);
    assert_eq!(
        object.state.apply_report(&[], at(now + 15 * SECOND), &maybe_counted(20_001, 3 * SECOND)),
        ReportOutcome::Counted
    );
}

/// Few rows are used, and the newest nonces are kept however old they are.
#[test]
fn a_key_that_is_called_now_and_then_needs_few_rows() {
    let mut object = Object::new();
    for nonce in 0..1000 {
        object.judge(START + nonce * HOUR, nonce);
        for total in object.state.meter().unflushed_hours() {
            object.state.mark_hour_flushed(&total);
        }
        object.commit();
        object.restart();
        assert!(knows_all(&object.state, nonce.saturating_sub(RUN - 1)..=nonce), "{nonce}");
    }
    assert!(object.rows.len() <= 3, "{}", object.rows.len());
    assert!(object.rows.values().all(|row| row.len() < 1000));
    // No other call for days: a request from then that did not arrive is counted.
    let now = START + 1000 * HOUR + 3 * DAY;
    assert_eq!(object.state.apply_report(&[], at(now), &maybe_counted(5000, 3 * DAY)), ReportOutcome::Counted);
    assert_eq!(object.state.apply_report(&[], at(now), &maybe_counted(999, 3 * DAY)), ReportOutcome::Duplicate);
}

/// Debts come when the object is back, also if it was gone for longer than nonces are known
/// otherwise.
#[test]
fn nonces_from_before_an_outage_are_kept_after_it() {
    let mut object = Object::new();
    for nonce in 0..1000 {
        object.judge(START + nonce * 1000, nonce);
        object.commit();
    }
    object.restart();
    let back = START + HOUR;
    for second in 0..50 {
        for nonce in 0..100 {
            object.judge(back + second * SECOND, 10_000 + second * 100 + nonce);
        }
        object.commit();
    }
    let now = back + 50 * SECOND;
    assert!(knows_all(&object.state, 0..1000));
    assert_eq!(object.state.apply_report(&[], at(now), &maybe_counted(7, now - START)), ReportOutcome::Duplicate);
    assert_eq!(object.state.apply_report(&[], at(now), &maybe_counted(5000, now - START)), ReportOutcome::Counted);
}

/// Code older than runs wrote at least eight nonces per row, and dropped others without a record.
#[test]
fn old_rows_without_times_claim_the_least() {
    let row = |count: u64| {
        let nonces: Vec<u64> = (0..count).collect();
        format!(r#"{{"v":1,"seq":1,"e":"e","t":{START},"n":{nonces:?}}}"#)
    };
    let state = |count| KeyState::from_rows([(0, row(count))]).unwrap();
    let now = at(START + MINUTE);
    assert!(state(7).can_deduplicate(now, 50, Some(DAY)));
    assert!(knows(&state(8), 7));
    assert!(!state(8).can_deduplicate(now, 50, Some(MINUTE)));
    assert!(!state(8).can_deduplicate(now, 50, Some(MINUTE - MAX_DELAY + 1)));
    assert!(state(8).can_deduplicate(now, 50, Some(MINUTE - MAX_DELAY)));
    // A request may be under way for ten seconds.
    assert_eq!([50 * SECOND, 50 * SECOND + 1].map(|age| state(8).can_deduplicate(now, 50, Some(age))), [true, false]);
}

#[test]
fn a_clock_that_falls_back_makes_no_nonce_new() {
    let mut object = Object::new();
    for nonce in 0..5 * RUN {
        object.judge(START + 2 * DAY + nonce * SECOND, nonce);
        object.commit();
    }
    for nonce in 5 * RUN..6 * RUN {
        object.judge(START, nonce);
        object.commit();
    }
    object.restart();
    for nonce in 0..6 * RUN {
        let outcome = object.state.apply_report(&[], at(START), &maybe_counted(nonce, HOUR));
        assert!(matches!(outcome, ReportOutcome::Duplicate | ReportOutcome::TooLate), "{nonce} {outcome:?}");
    }
}

/// Nonces dropped while the clock was ahead do not affect later requests.
#[test]
fn requests_after_a_step_back_can_be_deduplicated() {
    let mut object = Object::new();
    for nonce in 0..200 {
        object.judge(START + 2 * DAY + nonce * SECOND, nonce);
        object.commit();
    }
    assert!(!knows(&object.state, 0));
    object.judge(START, 1000);
    assert!(object.state.can_deduplicate(at(START + 30 * SECOND), 5000, Some(10 * SECOND)));
}

/// The responses to calls of the last confirmed commit and later ones may be lost with the object.
#[test]
fn nonces_of_unconfirmed_commits_are_kept() {
    for (confirmed, is_known) in [(64, true), (65, false)] {
        let mut state = KeyState::new("e".into());
        for nonce in 1..=200 {
            assert!(state.judge_once(&[], at(START + nonce * SECOND), &call(nonce)).is_admitted());
            state.committed();
            if nonce == confirmed {
                state.confirmed(state.last_commit());
            }
        }
        // A run of 64 is dropped as a whole, a minute after its last nonce.
        assert_eq!(knows(&state, 1), is_known, "{confirmed}");
    }
}

/// A request under way.
#[derive(Debug, Clone)]
struct ObjectRequest {
    isolate: usize,
    nonce: u64,
    /// When it was asked first, if it is asked again.
    age: Option<u64>,
    report: Option<SentReport>,
    /// When it was sent.
    sent: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It arrives, and its response is lost.
    Counted,
    /// The answer says that nothing was counted.
    Failed,
    /// It arrives after the isolate has given up.
    Late,
    Lost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Answered), 3 => Just(Fate::Counted), 1 => Just(Fate::Failed), 1 => Just(Fate::Late), 2 => Just(Fate::Lost),
    ]
}

#[derive(Debug, Clone)]
enum Action {
    /// A call through this isolate; what becomes of its request, and of the request that is asked
    /// again.
    Call(usize, Fate, Fate),
    /// So many successful calls through another isolate.
    Others(u64),
    /// This isolate delivers its report without a call.
    Report(usize, Fate),
    Wait(u64),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (0..2_usize, fate(), fate()).prop_map(|(isolate, first, second)| Action::Call(isolate, first, second)),
        3 => (1..200_u64).prop_map(Action::Others),
        3 => (0..2_usize, fate()).prop_map(|(isolate, fate)| Action::Report(isolate, fate)),
        5 => (0..8_000_u64).prop_map(Action::Wait),
        1 => (0..90_000_u64).prop_map(Action::Wait),
        2 => Just(Action::Restart),
    ]
}

/// Two isolates and an object between which requests and answers are lost, doubled and late. Times
/// are milliseconds.
struct World {
    object: Object,
    isolates: Vec<UsageReports>,
    late: VecDeque<ObjectRequest>,
    now: u64,
    nonce: u64,
    /// Calls that were let through, judged or not.
    let_through: u64,
    /// Calls that were reported too late.
    given_up: u64,
}

impl World {
    fn new() -> Self {
        let isolates = vec![UsageReports::default(), UsageReports::default()];
        let (now, late) = (START / 1000, VecDeque::new());
        Self { object: Object::new(), isolates, late, now, nonce: 0, let_through: 0, given_up: 0 }
    }

    fn nonce(&mut self) -> u64 {
        self.nonce += 1;
        self.nonce
    }

    fn next_report(&mut self, isolate: usize) -> Option<SentReport> {
        let nonce = self.nonce();
        self.isolates[isolate].next_report("k", self.now, nonce)
    }

    fn arrive(&mut self, request: &ObjectRequest) -> bool {
        let clock = at(self.now * 1000);
        let state = &mut self.object.state;
        if !state.can_deduplicate(clock, request.nonce, request.age.map(|age| age * 1000)) {
            return false;
        }
        if let Some(PendingReport { nonce, uncounted, denied, age, .. }) =
            request.report.as_ref().map(SentReport::report)
        {
            let age = age.map(|age| age.saturating_mul(1000));
            let cost = Cost { requests: uncounted, tokens: 0 };
            if state.apply_report(&[], clock, &ReportedUsage { nonce, age, calls: uncounted, cost, denied })
                == ReportOutcome::TooLate
            {
                self.given_up += uncounted;
            }
        }
        // A delivery is no call.
        if request.nonce > 0 {
            self.object.judge(self.now * 1000, request.nonce);
        }
        self.object.commit();
        true
    }

    /// Sends a request. True if it is answered and counted, `None` if nothing is known.
    fn send(&mut self, request: &ObjectRequest, fate: Fate) -> Option<bool> {
        let answer = match fate {
            Fate::Answered => Some(self.arrive(request)),
            Fate::Counted => {
                self.arrive(request);
                None
            }
            Fate::Failed => {
                self.object.restart();
                Some(false)
            }
            Fate::Late => {
                self.late.push_back(request.clone());
                None
            }
            Fate::Lost => None,
        };
        if let Some(report) = &request.report {
            let outbox = &mut self.isolates[request.isolate];
            match answer {
                Some(true) => outbox.acknowledge("k", report.nonce),
                Some(false) => outbox.requeue("k", report.nonce),
                None => outbox.mark_maybe_counted("k", report.nonce),
            }
        }
        answer
    }

    fn call(&mut self, isolate: usize, first: Fate, second: Fate) {
        let (nonce, requested_at) = (self.nonce(), self.now);
        let report = self.next_report(isolate);
        let mut answer = self.send(&ObjectRequest { isolate, nonce, age: None, report, sent: self.now }, first);
        let mut is_repeat = false;
        if answer.is_none() {
            is_repeat = true;
            let report = self.next_report(isolate);
            answer = self.send(&ObjectRequest { isolate, nonce, age: Some(0), report, sent: self.now }, second);
        }
        self.let_through += 1;
        if answer != Some(true) {
            let doubt = (answer.is_none() || is_repeat).then_some(MaybeCounted { nonce, requested_at });
            self.isolates[isolate].add_call("k", self.now, ("GET", "/"), doubt).unwrap();
        }
    }

    fn report(&mut self, isolate: usize, fate: Fate) -> bool {
        let Some(report) = self.next_report(isolate) else { return false };
        self.send(&ObjectRequest { isolate, nonce: 0, age: None, report: Some(report), sent: self.now }, fate);
        true
    }

    fn deliver_late(&mut self) {
        while let Some(request) = self.late.pop_front() {
            // A request does not arrive after more than that.
            if self.now - request.sent <= MAX_DELAY / 1000 {
                self.arrive(&request);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is lost, late, repeated or dropped: each call that was let through is counted once,
    /// or is among those that were too late.
    #[test]
    fn each_call_that_is_let_through_is_counted_once(actions in vec(action(), 1..120)) {
        let mut world = World::new();
        for action in actions {
            match action {
                Action::Call(isolate, first, second) => world.call(isolate, first, second),
                Action::Others(count) => {
                    for _ in 0..count {
                        let nonce = world.nonce();
                        world.object.judge(world.now * 1000, nonce);
                    }
                    world.object.commit();
                    world.let_through += count;
                }
                Action::Report(isolate, fate) => drop(world.report(isolate, fate)),
                Action::Wait(millis) => {
                    world.now += millis / 2;
                    world.deliver_late();
                    world.now += millis / 2;
                }
                Action::Restart => world.object.restart(),
            }
            prop_assert!(world.object.calls() <= world.let_through);
        }
        world.deliver_late();
        for isolate in 0..2 {
            let reports = (0..1000).take_while(|_| world.report(isolate, Fate::Answered)).count();
            prop_assert!(reports < 1000, "what is report does not become less");
        }
        prop_assert!(world.object.calls() <= world.let_through);
        prop_assert!(world.object.calls() + world.given_up >= world.let_through);
    }

    /// Kept nonces and requests that can be deduplicated, against a list of all admissions.
    #[test]
    fn no_answer_is_given_without_knowledge(
        bursts in vec((0..40_000_u64, 1..200_u64, 0..6_u8), 1..30), asked in vec(0..200_000_u64, 1..8),
    ) {
        let mut object = Object::new();
        let mut admitted = Vec::new();
        let (mut now, mut nonce, mut is_restarted) = (START / 1000, 0, false);
        for (wait, count, action) in bursts {
            now += wait;
            for _ in 0..count {
                nonce += 1;
                object.judge(now * 1000, nonce);
                admitted.push((now, nonce));
            }
            object.commit();
            if action == 0 {
                object.restart();
                is_restarted = true;
            }
            let newer = |index: usize| admitted.len() - 1 - index;
            let known = BTreeSet::from_iter(known_nonces(&object.state, 1..=nonce));
            for (index, (time, nonce)) in admitted.iter().enumerate().rev() {
                let is_recent = now - time < 60_000 && newer(index) < usize::try_from(MOST).unwrap();
                let is_known = known.contains(nonce);
                prop_assert!(is_known || !(is_recent || newer(index) < usize::try_from(RUN).unwrap()));
                // First sent before it was admitted, with an age a little below the real one.
                if !is_known {
                    for before in [0, 1, 5_000, 200_000] {
                        let age = (now - time + before).saturating_sub(MAX_DELAY / 1000) * 1000;
                        prop_assert!(!object.state.can_deduplicate(at(now * 1000), *nonce, Some(age)));
                    }
                    break;
                }
            }
        }
        // Recent requests can be deduplicated.
        if !is_restarted && admitted.len() < usize::try_from(MOST).unwrap() {
            for age in asked.into_iter().filter(|age| *age < 40_000) {
                prop_assert!(object.state.can_deduplicate(at(now * 1000), 0, Some(age * 1000)));
            }
        }
    }
}
