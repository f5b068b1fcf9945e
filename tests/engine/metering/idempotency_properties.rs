//! Properties of idempotency keys, against a model.

use std::collections::BTreeMap;

use crate::metering::strategies::{CALL, START, policies, step};
use crate::support::{Decide, config};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::idempotency::{MAX_FLIGHT, REPLAY_SECONDS};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::Judgement;
use tollgate::limiter::policy::Policy;
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::time::{DAY, Month, SECOND, UnixMicros};

/// An admitted first call under an idempotency key.
#[derive(Debug, Clone)]
struct FirstCall {
    key: u64,
    nonce: u64,
    at: u64,
    is_complete: bool,
    /// Its request. 0 if it was not sent.
    request: u64,
    /// Number of free repeats.
    repeats: u32,
}

/// The model: a plain list of admissions.
#[derive(Debug, Clone, Default)]
struct RepeatModel {
    firsts: Vec<FirstCall>,
    /// The judged time of the last admission.
    last: u64,
    /// The latest judged time: calls that had expired then may have been dropped.
    latest: u64,
    /// Calls and cost.
    months: BTreeMap<Month, [u64; 2]>,
}

impl RepeatModel {
    fn acknowledge(&mut self, clock: u64) -> u64 {
        let now = if clock + MAX_SKEW < self.last { clock } else { clock.max(self.last) };
        if now < self.last {
            self.last = now;
            self.firsts.iter_mut().for_each(|first| first.at = first.at.min(now));
        }
        self.latest = self.latest.max(now);
        now
    }

    fn until(first: &FirstCall) -> u64 {
        (first.at.div_ceil(SECOND) + REPLAY_SECONDS) * SECOND
    }

    /// The first call of a key that is still remembered.
    fn first(&mut self, key: u64, now: u64) -> Option<&mut FirstCall> {
        self.firsts.iter_mut().rev().find(|first| first.key == key && now < Self::until(first))
    }

    /// The expected outcome of a call with this key, and whether it is certain: new, different
    /// request, conflict, free or charged repeat.
    fn expect(&mut self, key: u64, request: u64, now: u64) -> (char, bool) {
        let latest = self.latest;
        let Some(first) = self.first(key, now) else { return ('n', true) };
        let are_known = request != 0 && first.request != 0;
        let expected = if are_known && request != first.request {
            'x'
        } else if !first.is_complete && now.saturating_sub(first.at / 1000 * 1000) < MAX_FLIGHT {
            'c'
        } else if are_known && first.repeats < FREE_REPEATS {
            'r'
        } else {
            'R'
        };
        (expected, Self::until(first) > latest)
    }

    fn admit(&mut self, kind: char, key: u64, request: u64, nonce: u64, now: u64, cost: u64) {
        self.last = now;
        let month = self.months.entry(Month::of(UnixMicros::from_micros(now))).or_default();
        month[0] += 1;
        month[1] += if kind == 'r' { 0 } else { cost };
        match (kind, self.first(key, now)) {
            ('r', Some(first)) => first.repeats += 1,
            ('R', Some(first)) if first.request == 0 => first.request = request,
            ('n', _) => {
                // Once complete, a call stays so, whatever the clock does.
                let open = self.firsts.iter_mut().filter(|first| !first.is_complete);
                for first in open.take_while(|first| now.saturating_sub(first.at / 1000 * 1000) >= MAX_FLIGHT) {
                    first.is_complete = true;
                }
                self.firsts.push(FirstCall { key, nonce, at: now, is_complete: false, request, repeats: 0 });
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone)]
enum RepeatAction {
    Call {
        key: u64,
        request: u64,
        cost: u64,
        tokens: u64,
    },
    /// Many calls with distinct keys.
    Burst(u64),
    Complete(usize),
    Expire,
    Commit,
    /// The chunks are stored and the row is not: an earlier version stored them one by one.
    FailToCommit,
    Crash,
}

fn repeat_action() -> impl Strategy<Value = RepeatAction> {
    prop_oneof![
        20 => (0..6_u64, select(&[0, 1, 1, 1, 1, 1, 1, 1, 1, 2][..]), 1..4_u64, 0..9_u64)
            .prop_map(|(key, request, cost, tokens)| RepeatAction::Call { key, request, cost, tokens }),
        1 => (100..700_u64).prop_map(RepeatAction::Burst),
        6 => (0..8_usize).prop_map(RepeatAction::Complete),
        1 => Just(RepeatAction::Expire),
        6 => Just(RepeatAction::Commit),
        1 => Just(RepeatAction::FailToCommit),
        2 => Just(RepeatAction::Crash),
    ]
}

struct RepeatWorld {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    replays: BTreeMap<u32, String>,
    written: usize,
    model: RepeatModel,
    stored: RepeatModel,
    clock: u64,
    nonce: u64,
}

impl RepeatWorld {
    fn new() -> Self {
        let mut world = Self {
            state: KeyState::new("e".into()),
            rows: BTreeMap::new(),
            replays: BTreeMap::new(),
            written: 0,
            model: RepeatModel::default(),
            stored: RepeatModel::default(),
            clock: START,
            nonce: 0,
        };
        world.commit();
        world
    }

    fn commit(&mut self) {
        let rows = self.state.to_rows();
        self.rows.insert(rows.row.slot, rows.row.body);
        self.written += rows.replays.len() + rows.expired_replays.len();
        for id in rows.expired_replays {
            self.replays.remove(&id);
        }
        self.replays.extend(rows.replays.into_iter().map(|row| (row.id, row.body)));
        self.state.committed();
        self.stored = self.model.clone();
    }

    fn crash(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
        self.state.load_replays(self.replays.clone()).unwrap();
        self.model = RepeatModel { latest: self.model.latest, ..self.stored.clone() };
    }

    fn call(&mut self, policies: &[Policy], key: u64, request: u64, cost: Cost) -> Result<(), TestCaseError> {
        self.nonce += 1;
        let clock = UnixMicros::from_micros(self.clock);
        let now = self.model.acknowledge(self.clock);
        let (expected, is_certain) = self.model.expect(key, request, now);
        let before = self.state.clone();
        let text = format!("key {key}");
        let fingerprint = (request > 0).then(|| Fingerprint::of("POST", &format!("/{request}"), None));
        let call = CallToJudge { cost, nonce: self.nonce, idempotency_key: Some(&text), fingerprint, ..CALL };
        let judgement = self.state.judge_call(policies, clock, &call);
        let (kind, decision) = match &judgement {
            Judgement::Recalled { .. } => unreachable!("no nonce is reused"),
            Judgement::Conflict(usage) | Judgement::Mismatch(usage) => {
                prop_assert_eq!(usage, &before.clone().usage(policies, clock));
                prop_assert_eq!(self.state.month(Month::of(clock)), before.month(Month::of(clock)));
                (if matches!(judgement, Judgement::Conflict(_)) { 'c' } else { 'x' }, None)
            }
            Judgement::Replay { decision, is_free } => (if *is_free { 'r' } else { 'R' }, Some(decision)),
            Judgement::Decided(decision) => ('n', Some(decision)),
        };
        prop_assert!(kind == expected || (kind == 'n' && !is_certain), "{judgement:?} instead of {expected}");
        let Some(decision) = decision else { return Ok(()) };
        if kind == 'r' {
            let due = Cost { tokens: 0, ..cost };
            prop_assert_eq!(&decision.verdict, &before.clone().decide(&policies[..1], clock, due).verdict);
        } else {
            prop_assert_eq!(decision, &before.clone().decide(policies, clock, cost));
        }
        if decision.is_admitted() {
            self.model.admit(kind, key, request, self.nonce, now, cost.requests);
        }
        Ok(())
    }

    fn act(&mut self, policies: &[Policy], action: &RepeatAction) -> Result<(), TestCaseError> {
        match *action {
            RepeatAction::Call { key, request, cost, tokens } => {
                self.call(policies, key, request, Cost { requests: cost, tokens })?;
            }
            RepeatAction::Burst(calls) => {
                let clock = UnixMicros::from_micros(self.clock);
                for _ in 0..calls {
                    self.nonce += 1;
                    let (now, nonce) = (self.model.acknowledge(self.clock), self.nonce);
                    let text = format!("key {}", 1000 + nonce);
                    let call = CallToJudge { nonce, idempotency_key: Some(&text), ..CALL };
                    prop_assert!(matches!(self.state.judge_call(&[], clock, &call), Judgement::Decided(_)));
                    self.model.admit('n', 1000 + nonce, 0, nonce, now, 1);
                    self.state.complete(
                        clock,
                        CallOutcome { nonce, status: 200, duration_ms: 1, used: None, cost: None },
                        None,
                        false,
                    );
                    self.model.firsts.last_mut().unwrap().is_complete = true;
                }
            }
            RepeatAction::Complete(back) => {
                self.model.acknowledge(self.clock);
                let clock = UnixMicros::from_micros(self.clock);
                if let Some(first) = self.model.firsts.iter_mut().rev().nth(back) {
                    first.is_complete = true;
                    self.state.complete(
                        clock,
                        CallOutcome { nonce: first.nonce, status: 200, duration_ms: 1, used: None, cost: None },
                        None,
                        false,
                    );
                } else {
                    self.state.expire(clock);
                }
            }
            RepeatAction::Expire => {
                self.model.acknowledge(self.clock);
                self.state.expire(UnixMicros::from_micros(self.clock));
            }
            RepeatAction::Commit => self.commit(),
            RepeatAction::FailToCommit => {
                self.replays.extend(self.state.to_rows().replays.into_iter().map(|row| (row.id, row.body)));
                self.crash();
            }
            RepeatAction::Crash => self.crash(),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    /// Each call with an idempotency key has the outcome of the model, and is charged accordingly.
    #[test]
    fn repeats_match_the_model(policies in policies(), steps in vec((step(), repeat_action()), 1..150)) {
        let mut world = RepeatWorld::new();
        for (step, action) in &steps {
            world.clock = world.clock.saturating_add_signed(*step).max(START - 25 * DAY);
            world.act(&policies, action)?;
        }
        for (month, [calls, cost]) in &world.model.months {
            let total = world.state.month(*month);
            prop_assert_eq!((total.calls, total.cost), (*calls, *cost));
        }
        let calls = usize::try_from(world.nonce).unwrap();
        let back = steps.iter().filter(|(step, _)| *step < 0).count();
        // After a step back, chunks are written again.
        prop_assert!(world.written <= (2 + back) * (calls / 512 + 1), "{} of {}", world.written, calls);
    }
}
