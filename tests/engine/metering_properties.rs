//! Accounts that add up, whatever calls, clocks, crashes and flushes come together.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Decide;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::http::idempotency_key::{FREE_REPEATS, Fingerprint};
use tollgate::key_state::audit_log::{AuditEntry, AuditQuery, AuditReader, MAX_DURATION};
use tollgate::key_state::clock::MAX_SKEW;
use tollgate::key_state::idempotency::{MAX_FLIGHT, REPLAY_SECONDS};
use tollgate::key_state::row::StateRow;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::decision::{Decision, Judgement, Verdict};
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::metering::hours::{Counts, MAX_CLASSES};
use tollgate::time::{DAY, HOUR, MINUTE, Month, SECOND, UnixMicros};

/// 2026-11-30T22:30:00Z: the month ends soon.
const START: u64 = 1_796_077_800 * SECOND;

const CALL: CallToJudge<'_> = CallToJudge {
    cost: Cost { requests: 1, tokens: 0 },
    method: "GET",
    class: "GET /",
    nonce: 7,
    idempotency_key: None,
    fingerprint: None,
    is_audited: false,
    thresholds: &[],
    hold: None,
};

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let algorithms = select(&[Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket][..]);
    (algorithms, 1..20_u64, 5..200_u64, 10..100_u64).prop_map(|(algorithm, minute, month, tokens)| {
        vec![
            Policy::new("minute", Unit::Requests, minute, Period::Minute, algorithm, None).unwrap(),
            Policy::new("month", Unit::Requests, month, Period::Month, Algorithm::Fixed, None).unwrap(),
            Policy::new("tokens", Unit::Tokens, tokens, Period::Hour, Algorithm::Fixed, None).unwrap(),
        ]
    })
}

/// A step of the clock in microseconds.
fn step() -> impl Strategy<Value = i64> {
    let micros = |span: u64| i64::try_from(span).unwrap();
    prop_oneof![
        8 => 0..micros(5 * SECOND),
        4 => 0..micros(5 * MINUTE),
        2 => 0..micros(3 * HOUR),
        1 => 0..micros(40 * DAY),
        1 => -micros(MINUTE)..0,
        1 => -micros(3 * HOUR)..0,
        1 => -micros(20 * DAY)..0,
        1 => -micros(400 * DAY)..micros(400 * DAY),
    ]
}

#[derive(Debug, Clone)]
enum Action {
    Call {
        class: usize,
        cost: u64,
        tokens: u64,
    },
    Uncounted(u64),
    DeniedElsewhere(u64),
    Commit,
    /// What no row holds is lost.
    Crash,
    Flush {
        is_acknowledged: bool,
    },
    /// The acknowledgement of the flush before comes only now.
    LateAcknowledgement,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (0..4_usize, 1..4_u64, 0..9_u64).prop_map(|(class, cost, tokens)| Action::Call { class, cost, tokens }),
        4 => (0..50_usize).prop_map(|class| Action::Call { class, cost: 1, tokens: 0 }),
        1 => (1..5_u64).prop_map(Action::Uncounted),
        1 => (0..5_u64).prop_map(Action::DeniedElsewhere),
        6 => Just(Action::Commit),
        2 => Just(Action::Crash),
        2 => any::<bool>().prop_map(|is_acknowledged| Action::Flush { is_acknowledged }),
        1 => Just(Action::LateAcknowledgement),
    ]
}

/// A table of absolute totals in D1, merged by MAX.
type Table<K> = BTreeMap<K, [u64; 3]>;

fn merge<K: Ord>(table: &mut Table<K>, key: K, counts: [u64; 3]) {
    let row = table.entry(key).or_default();
    for (kept, new) in row.iter_mut().zip(counts) {
        *kept = (*kept).max(new);
    }
}

fn sum(counts: impl IntoIterator<Item = [u64; 3]>) -> [u64; 3] {
    counts.into_iter().fold([0; 3], |sum, counts| [0, 1, 2].map(|i| sum[i] + counts[i]))
}

struct World {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    clock: u64,
    months: Table<Month>,
    hours: Table<(u64, String)>,
    sent: (Vec<tollgate::metering::months::MonthTotal>, Vec<tollgate::metering::hours::HourTotal>),
    /// What was admitted, denied and charged: in rows, and since the last row.
    counted: [u64; 3],
    uncommitted: [u64; 3],
    nonce: u64,
}

impl World {
    fn new() -> Self {
        let state = KeyState::new("e".into());
        let mut world = Self {
            state,
            rows: BTreeMap::new(),
            clock: START,
            months: BTreeMap::new(),
            hours: BTreeMap::new(),
            sent: (Vec::new(), Vec::new()),
            counted: [0; 3],
            uncommitted: [0; 3],
            nonce: 0,
        };
        world.commit();
        world
    }

    fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    fn step(&mut self, step: i64) {
        self.clock = self.clock.saturating_add_signed(step);
    }

    fn count(&mut self, counts: [u64; 3]) {
        self.uncommitted = sum([self.uncommitted, counts]);
    }

    fn commit(&mut self) {
        let StateRow { slot, body } = self.state.to_row();
        self.rows.insert(slot, body);
        self.state.committed();
        self.counted = sum([self.counted, self.uncommitted]);
        self.uncommitted = [0; 3];
    }

    fn crash(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
        self.uncommitted = [0; 3];
    }

    fn flush(&mut self) {
        self.commit();
        self.sent = (self.state.meter().unflushed_months(), self.state.meter().unflushed_hours());
        for total in &self.sent.0 {
            merge(&mut self.months, total.month, [total.calls, total.denied, total.cost]);
        }
        for total in &self.sent.1 {
            let Counts { calls, denied, cost, .. } = total.counts;
            merge(&mut self.hours, (total.hour, total.class.clone()), [calls, denied, cost]);
        }
    }

    fn acknowledge(&mut self) {
        for total in &self.sent.0 {
            self.state.mark_flushed(&total);
        }
        for total in &self.sent.1 {
            self.state.mark_hour_flushed(total);
        }
    }

    fn call(&mut self, policies: &[Policy], class: usize, cost: Cost) {
        self.nonce += 1;
        let class = format!("GET /{class}");
        let call = CallToJudge { cost, class: &class, nonce: self.nonce, ..CALL };
        match self.state.judge_call(policies, self.now(), &call) {
            Judgement::Decided(decision) if decision.is_admitted() => self.count([1, 0, cost.requests]),
            Judgement::Decided(Decision { verdict: Verdict::Denied { .. }, .. }) => self.count([0, 1, 0]),
            _ => {}
        }
    }

    fn act(&mut self, policies: &[Policy], action: &Action) {
        match *action {
            Action::Call { class, cost, tokens } => self.call(policies, class, Cost { requests: cost, tokens }),
            Action::Uncounted(calls) => {
                self.state.charge_calls(self.now(), calls, Cost { requests: 2 * calls, tokens: 0 });
                self.count([calls, 0, 2 * calls]);
            }
            Action::DeniedElsewhere(denied) => {
                self.state.deny_elsewhere(self.now(), denied);
                self.count([0, denied, 0]);
            }
            Action::Commit => self.commit(),
            Action::Crash => self.crash(),
            Action::Flush { is_acknowledged } => {
                self.flush();
                if is_acknowledged {
                    self.acknowledge();
                }
            }
            Action::LateAcknowledgement => self.acknowledge(),
        }
    }
}

/// `PROPTEST_CASES` sets how many cases; without it, as many as a debug build runs in some seconds.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 96, ..config } }
}

proptest! {
    #![proptest_config(config())]

    /// The hours of a month sum up to the month, and the months to what was counted and not lost.
    #[test]
    fn hours_sum_up_to_months(policies in policies(), steps in vec((step(), action()), 1..300)) {
        let mut world = World::new();
        for (step, action) in &steps {
            world.step(*step);
            world.act(&policies, action);
            let is_flushed = world.state.meter().unflushed_months().is_empty() && world.state.meter().unflushed_hours().is_empty();
            prop_assert_eq!(world.state.meter().is_flushed(), is_flushed);
        }
        world.flush();
        for (month, counts) in &world.months {
            let of_month = |hour: u64| Month::of(UnixMicros::from_micros(hour * HOUR)) == *month;
            let hours = world.hours.iter().filter(|((hour, _), _)| of_month(*hour));
            prop_assert_eq!(sum(hours.map(|(_, counts)| *counts)), *counts, "{}", month);
        }
        prop_assert_eq!(sum(world.months.values().copied()), world.counted);
        prop_assert_eq!(sum(world.hours.values().copied()), world.counted);
        let mut classes = BTreeMap::<u64, usize>::new();
        for (hour, class) in world.hours.keys() {
            *classes.entry(*hour).or_default() += usize::from(class.starts_with("GET"));
        }
        prop_assert!(classes.values().all(|classes| *classes <= MAX_CLASSES));
        // With all of it acknowledged, no more is kept than the last hour of each month that is.
        world.acknowledge();
        prop_assert!(world.state.meter().is_flushed());
        let body = world.state.to_row().body;
        let hours = body.split_once(r#""h":"#).unwrap().1.trim_matches('"').split(';');
        let hours: BTreeSet<_> = hours.filter_map(|hour| hour.split_once('|')).map(|(hour, _)| hour).collect();
        prop_assert!(hours.len() <= world.state.meter().kept_months().len(), "{}", body);
    }

    /// A state that was read from its rows counts on as the one that wrote them.
    #[test]
    fn a_state_that_was_read_counts_on(policies in policies(), steps in vec((step(), action()), 1..120)) {
        let mut world = World::new();
        for (step, action) in &steps {
            world.step(*step);
            world.act(&policies, action);
            if world.uncommitted != [0; 3] || world.state.is_dirty() {
                continue;
            }
            let mut read = KeyState::from_rows(world.rows.clone()).unwrap();
            let mut kept = world.state.clone();
            let call = CallToJudge { class: "GET /7", ..CALL };
            read.judge_call(&policies, world.now(), &call);
            kept.judge_call(&policies, world.now(), &call);
            prop_assert_eq!(read.meter().unflushed_hours(), kept.meter().unflushed_hours());
            prop_assert_eq!(read.meter().unflushed_months(), kept.meter().unflushed_months());
        }
    }
}

/// One call that was admitted under an idempotency key.
#[derive(Debug, Clone)]
struct First {
    key: u64,
    nonce: u64,
    at: u64,
    is_complete: bool,
    /// What it asked for; 0 if that was not said.
    request: u64,
    /// How many of its repeats were free.
    repeats: u32,
}

/// All that was admitted, as a plain list.
#[derive(Debug, Clone, Default)]
struct Book {
    firsts: Vec<First>,
    /// The judged time of the last admission.
    last: u64,
    /// The latest judged time: what was over then may have been let go of.
    latest: u64,
    /// Calls and cost.
    months: BTreeMap<Month, [u64; 2]>,
}

impl Book {
    fn acknowledge(&mut self, clock: u64) -> u64 {
        let now = if clock + MAX_SKEW < self.last { clock } else { clock.max(self.last) };
        if now < self.last {
            self.last = now;
            self.firsts.iter_mut().for_each(|first| first.at = first.at.min(now));
        }
        self.latest = self.latest.max(now);
        now
    }

    fn until(first: &First) -> u64 {
        (first.at.div_ceil(SECOND) + REPLAY_SECONDS) * SECOND
    }

    /// The first call of a key that is remembered.
    fn first(&mut self, key: u64, now: u64) -> Option<&mut First> {
        self.firsts.iter_mut().rev().find(|first| first.key == key && now < Self::until(first))
    }

    /// What a call with this key must be, and whether that is certain: new, another request, in
    /// conflict, a repeat that is free or one that is charged.
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
                // Once taken as complete, a call stays so, whatever the clock says then.
                let open = self.firsts.iter_mut().filter(|first| !first.is_complete);
                for first in open.take_while(|first| now.saturating_sub(first.at / 1000 * 1000) >= MAX_FLIGHT) {
                    first.is_complete = true;
                }
                self.firsts.push(First { key, nonce, at: now, is_complete: false, request, repeats: 0 });
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone)]
enum Move {
    Call {
        key: u64,
        request: u64,
        cost: u64,
        tokens: u64,
    },
    /// Many calls with keys of their own.
    Burst(u64),
    Complete(usize),
    Expire,
    Commit,
    /// The chunks are written and the row is not: an earlier version stored them one by one.
    FailToCommit,
    Crash,
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        20 => (0..6_u64, select(&[0, 1, 1, 1, 1, 1, 1, 1, 1, 2][..]), 1..4_u64, 0..9_u64)
            .prop_map(|(key, request, cost, tokens)| Move::Call { key, request, cost, tokens }),
        1 => (100..700_u64).prop_map(Move::Burst),
        6 => (0..8_usize).prop_map(Move::Complete),
        1 => Just(Move::Expire),
        6 => Just(Move::Commit),
        1 => Just(Move::FailToCommit),
        2 => Just(Move::Crash),
    ]
}

struct Shop {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    replays: BTreeMap<u32, String>,
    written: usize,
    book: Book,
    stored: Book,
    clock: u64,
    nonce: u64,
}

impl Shop {
    fn new() -> Self {
        let mut shop = Self {
            state: KeyState::new("e".into()),
            rows: BTreeMap::new(),
            replays: BTreeMap::new(),
            written: 0,
            book: Book::default(),
            stored: Book::default(),
            clock: START,
            nonce: 0,
        };
        shop.commit();
        shop
    }

    fn commit(&mut self) {
        let rows = self.state.to_rows();
        self.rows.insert(rows.row.slot, rows.row.body);
        self.written += rows.replays.len() + rows.replays_over.len();
        for id in rows.replays_over {
            self.replays.remove(&id);
        }
        self.replays.extend(rows.replays.into_iter().map(|row| (row.id, row.body)));
        self.state.committed();
        self.stored = self.book.clone();
    }

    fn crash(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
        self.state.load_replays(self.replays.clone()).unwrap();
        self.book = Book { latest: self.book.latest, ..self.stored.clone() };
    }

    fn call(&mut self, policies: &[Policy], key: u64, request: u64, cost: Cost) -> Result<(), TestCaseError> {
        self.nonce += 1;
        let clock = UnixMicros::from_micros(self.clock);
        let now = self.book.acknowledge(self.clock);
        let (expected, is_certain) = self.book.expect(key, request, now);
        let before = self.state.clone();
        let text = format!("key {key}");
        let fingerprint = (request > 0).then(|| Fingerprint::of("POST", &format!("/{request}"), None));
        let call = CallToJudge { cost, nonce: self.nonce, idempotency_key: Some(&text), fingerprint, ..CALL };
        let judgement = self.state.judge_call(policies, clock, &call);
        let (kind, decision) = match &judgement {
            Judgement::Recalled { .. } => unreachable!("not asked about twice"),
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
            self.book.admit(kind, key, request, self.nonce, now, cost.requests);
        }
        Ok(())
    }

    fn act(&mut self, policies: &[Policy], action: &Move) -> Result<(), TestCaseError> {
        match *action {
            Move::Call { key, request, cost, tokens } => {
                self.call(policies, key, request, Cost { requests: cost, tokens })?;
            }
            Move::Burst(calls) => {
                let clock = UnixMicros::from_micros(self.clock);
                for _ in 0..calls {
                    self.nonce += 1;
                    let (now, nonce) = (self.book.acknowledge(self.clock), self.nonce);
                    let text = format!("key {}", 1000 + nonce);
                    let call = CallToJudge { nonce, idempotency_key: Some(&text), ..CALL };
                    prop_assert!(matches!(self.state.judge_call(&[], clock, &call), Judgement::Decided(_)));
                    self.book.admit('n', 1000 + nonce, 0, nonce, now, 1);
                    self.state.complete(clock, CallOutcome { nonce, status: 200, duration_ms: 1 }, false);
                    self.book.firsts.last_mut().unwrap().is_complete = true;
                }
            }
            Move::Complete(back) => {
                self.book.acknowledge(self.clock);
                let clock = UnixMicros::from_micros(self.clock);
                if let Some(first) = self.book.firsts.iter_mut().rev().nth(back) {
                    first.is_complete = true;
                    self.state.complete(clock, CallOutcome { nonce: first.nonce, status: 200, duration_ms: 1 }, false);
                } else {
                    self.state.expire(clock);
                }
            }
            Move::Expire => {
                self.book.acknowledge(self.clock);
                self.state.expire(UnixMicros::from_micros(self.clock));
            }
            Move::Commit => self.commit(),
            Move::FailToCommit => {
                self.replays.extend(self.state.to_rows().replays.into_iter().map(|row| (row.id, row.body)));
                self.crash();
            }
            Move::Crash => self.crash(),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    /// Every call with an idempotency key is taken as the plain list of admissions says, and
    /// charged accordingly.
    #[test]
    fn repeats_are_known_by_the_list(policies in policies(), steps in vec((step(), a_move()), 1..150)) {
        let mut shop = Shop::new();
        for (step, action) in &steps {
            shop.clock = shop.clock.saturating_add_signed(*step).max(START - 25 * DAY);
            shop.act(&policies, action)?;
        }
        for (month, [calls, cost]) in &shop.book.months {
            let total = shop.state.month(*month);
            prop_assert_eq!((total.calls, total.cost), (*calls, *cost));
        }
        let calls = usize::try_from(shop.nonce).unwrap();
        let back = steps.iter().filter(|(step, _)| *step < 0).count();
        // A clock that stepped back has chunks written again.
        prop_assert!(shop.written <= (2 + back) * (calls / 512 + 1), "{} of {}", shop.written, calls);
    }
}

/// Nonce, when, and how long it took.
type Admitted = (u64, u64, Option<u64>);

/// A key whose calls are all in the audit log.
struct Logged {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    chunks: BTreeMap<u64, String>,
    clock: u64,
    nonce: u64,
    /// What was admitted, as rows have it and as it is.
    admitted: [Vec<Admitted>; 2],
    /// How often each was refused, by status and class.
    refused: [BTreeMap<(u16, String), u64>; 2],
}

impl Logged {
    fn new() -> Self {
        let mut logged = Self {
            state: KeyState::new("e".into()),
            rows: BTreeMap::new(),
            chunks: BTreeMap::new(),
            clock: START,
            nonce: 0,
            admitted: Default::default(),
            refused: Default::default(),
        };
        logged.commit();
        logged
    }

    fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    fn commit(&mut self) {
        let rows = self.state.to_rows();
        self.rows.insert(rows.row.slot, rows.row.body);
        self.chunks.extend(rows.audit.into_iter().map(|row| (row.seq, row.body)));
        self.state.committed();
        let ([stored, now], [stored_refusals, refusals]) = (&mut self.admitted, &mut self.refused);
        stored.clone_from(now);
        stored_refusals.clone_from(refusals);
    }

    fn crash(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
        let ([stored, now], [stored_refusals, refusals]) = (&mut self.admitted, &mut self.refused);
        now.clone_from(stored);
        refusals.clone_from(stored_refusals);
    }

    fn call(&mut self, policies: &[Policy], class: &str) {
        self.nonce += 1;
        let key = format!("{:x}", self.nonce);
        let idempotency_key = self.nonce.is_multiple_of(3).then_some(key.as_str());
        let call = CallToJudge { class, nonce: self.nonce, idempotency_key, is_audited: true, ..CALL };
        if self.state.judge_call(policies, self.now(), &call).is_admitted() {
            self.admitted[1].push((self.nonce, self.clock / 1000, None));
        } else {
            self.count_refusal(429, class);
        }
    }

    fn count_refusal(&mut self, status: u16, class: &str) {
        *self.refused[1].entry((status, class.to_owned())).or_default() += 1;
    }

    fn end(&mut self, back: usize) {
        let (clock, now) = (self.clock, self.now());
        let Some((nonce, at, end)) = self.admitted[1].iter_mut().rev().nth(back) else { return };
        let duration_ms = clock / 1000 - *at;
        // An end that comes later than that is not looked for.
        if duration_ms <= MAX_DURATION / 1000 {
            end.get_or_insert(duration_ms);
        }
        self.state.complete(now, CallOutcome { nonce: *nonce, status: 204, duration_ms }, true);
    }

    fn read(&self, limit: usize) -> Vec<AuditEntry> {
        let tail = self.state.audit_tail();
        // What a row does not know came with one that was not written.
        let mut chunks: BTreeMap<_, _> =
            self.chunks.range(..tail[0].0).map(|(seq, body)| (*seq, body.clone())).collect();
        chunks.extend(tail.into_iter().map(|(seq, text)| (seq, text.into_owned())));
        let (mut entries, mut cursor) = (Vec::new(), None);
        loop {
            let (from, to) = (UnixMicros::default(), UnixMicros::from_micros(u64::MAX));
            let mut reader = AuditReader::new(AuditQuery { from, to, cursor, limit });
            for (seq, body) in chunks.range(cursor.map_or(0, |cursor| cursor.seq)..) {
                if !reader.feed(*seq, body).unwrap() {
                    break;
                }
            }
            let (page, next) = reader.finish();
            entries.extend(page);
            cursor = next;
            if cursor.is_none() {
                return entries;
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// All that was judged is in the audit log, once, in order, with its end; whatever is read
    /// stays in its place.
    #[test]
    fn the_audit_log_is_complete(
        minute in 1..60_u64,
        limit in 1..90_usize,
        steps in vec((0..30_000_000_u64, 0..12_u8, 1..60_usize), 1..120),
    ) {
        let policies = [Policy::new("minute", Unit::Requests, minute, Period::Minute, Algorithm::Fixed, None).unwrap()];
        let mut logged = Logged::new();
        let mut before: Vec<(UnixMicros, u16, String)> = Vec::new();
        for (step, action, count) in steps {
            logged.clock += step / u64::from(action + 1);
            let class = format!("GET /{}", count % 5);
            match action {
                0..5 => (0..count).for_each(|_| logged.call(&policies, &class)),
                5 => {
                    let call = CallToJudge { class: &class, is_audited: true, ..CALL };
                    logged.state.refuse_call(logged.now(), &call, 403);
                    logged.count_refusal(403, &class);
                }
                6..9 => (0..count).for_each(|back| logged.end(back)),
                9 => {
                    if count % 2 == 0 {
                        // The chunks are written and the row is not.
                        logged.chunks.extend(logged.state.to_rows().audit.into_iter().map(|row| (row.seq, row.body)));
                    }
                    logged.crash();
                }
                10 => logged.clock += MAX_DURATION * u64::try_from(count % 3).unwrap(),
                _ => {
                    logged.commit();
                    let read = logged.read(limit).into_iter().map(|entry| (entry.at, entry.status, entry.class));
                    let read: Vec<_> = read.collect();
                    prop_assert!(read.starts_with(&before));
                    before = read;
                }
            }
        }
        let entries = logged.read(limit);
        let admitted: Vec<_> = entries.iter().filter(|entry| entry.status == 200).collect();
        prop_assert_eq!(admitted.len(), logged.admitted[1].len());
        for (entry, (nonce, at, end)) in admitted.iter().zip(&logged.admitted[1]) {
            prop_assert_eq!((entry.at.as_millis(), entry.count), (*at, 1));
            prop_assert_eq!(entry.end, end.map(|duration| (204, duration)));
            prop_assert_eq!(entry.idempotency_key.clone(), nonce.is_multiple_of(3).then(|| format!("{nonce:x}")));
        }
        let mut refused = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.status != 200) {
            *refused.entry((entry.status, entry.class.clone())).or_default() += entry.count;
        }
        prop_assert_eq!(&refused, &logged.refused[1]);
    }

    /// With a row for each admitted call, nothing shared: all that is written and deleted is 1.1
    /// rows for each at most.
    #[test]
    fn a_call_costs_little_more_than_a_row(
        refused in 0..20_u32,
        classes in 1..200_u32,
        key_length in prop_oneof![Just(0_usize), 1..400_usize],
        gap in prop_oneof![0..2_u64, 0..2_000_u64],
        ends in 0..3_u32,
        calls in 200..700_u32,
    ) {
        let mut state = KeyState::new("e".into());
        let (mut admits, mut rows, mut clock) = (0_u64, 0, START);
        for number in 0..calls {
            clock += gap * 1000;
            let (now, nonce) = (UnixMicros::from_micros(clock), u64::from(number));
            let (class, key) = (format!("GET /{}", number % classes), format!("{nonce:0key_length$}"));
            let idempotency_key = (key_length > 0).then_some(key.as_str());
            let call = CallToJudge { class: &class, nonce, idempotency_key, is_audited: true, ..CALL };
            for _ in 0..refused {
                state.refuse_call(now, &call, 403);
            }
            if state.judge_call(&[], now, &call).is_admitted() {
                admits += 1;
                let written = state.to_rows();
                state.committed();
                // Each chunk is deleted one day.
                rows += 1 + 2 * written.replays.len() + 2 * written.audit.len();
                prop_assert!(written.row.body.len() < 90_000, "{}", written.row.body.len());
            }
            for _ in 0..ends {
                state.complete(now, CallOutcome { nonce, status: 200, duration_ms: 7 }, true);
            }
        }
        let rows = u64::try_from(rows).unwrap();
        prop_assert!(rows * 10 <= admits * 11, "{rows} rows for {admits} calls");
    }
}

proptest! {
    #![proptest_config(config())]

    /// Each crossing of a threshold is told once, whatever was lost in between.
    #[test]
    fn alerts_follow_the_plain_rule(
        steps in vec((step(), 1..40_u64, select(&[10_u64, 20, 40, 80][..]), 0..10_u8), 1..120),
    ) {
        const THRESHOLDS: [u16; 3] = [50, 80, 100];
        let mut world = World::new();
        // The months' thresholds that are reached, as rows have them and as they are.
        let mut reached: [BTreeMap<(Month, u16), bool>; 2] = Default::default();
        for (step, cost, quota, action) in steps {
            world.step(step.abs());
            let policies = [Policy::new("month", Unit::Requests, quota, Period::Month, Algorithm::Fixed, None).unwrap()];
            let call = CallToJudge { cost: Cost { requests: cost, tokens: 0 }, thresholds: &THRESHOLDS, ..CALL };
            world.state.judge_call(&policies, world.now(), &call);
            let month = Month::of(world.now());
            let used = world.state.month(month).cost;
            let mut expected = Vec::new();
            for threshold in THRESHOLDS {
                let is_reached = used > 0 && used * 100 >= quota * u64::from(threshold);
                let before = reached[1].insert((month, threshold), is_reached).unwrap_or_default();
                if is_reached && !before {
                    expected.push((threshold, quota, used));
                }
            }
            let told = world.state.pending_alerts().to_vec();
            for alert in &told {
                world.state.mark_alerted(alert);
            }
            let told: Vec<_> = told.iter().map(|alert| (alert.threshold, alert.quota, alert.used)).collect();
            prop_assert_eq!(told, expected);
            let [stored, now] = &mut reached;
            match action {
                0 => {
                    world.crash();
                    now.clone_from(stored);
                }
                1..6 => {
                    world.commit();
                    stored.clone_from(now);
                }
                _ => {}
            }
        }
    }
}
