//! The lookup queue under requests that arrive, wait by their own timers, run queries and end at
//! any time: those that stay are answered, and D1 is not queried more often than documented.

use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::rc::Rc;
use tollgate::gateway::import_queue::{BATCH, LANES, LEASE, LookupBatch, LookupQueue, PAUSE, Ticket, Turn, Waited};
use tollgate::keys::key::ImportedKey;

/// The behaviour of a request.
#[derive(Debug, Clone)]
struct Plan {
    at: u64,
    text: u16,
    is_deferred: bool,
    /// When it ends, if its client leaves: milliseconds after its arrival.
    leaves_after: Option<u64>,
    /// Whether its query then ends with it.
    takes_its_query_along: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Come(usize),
    Leave(usize),
    /// The request's timer.
    Timer(usize),
    /// D1 answers the query of this request.
    ObjectResponse(usize, u64),
}

struct Request {
    plan: Plan,
    is_here: bool,
    ticket: Option<Ticket>,
    waited: Waited,
    answered_at: Option<u64>,
}

struct Query {
    began: u64,
    texts: Vec<String>,
}

struct World {
    queue: LookupQueue<usize>,
    requests: Vec<Request>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    latency: u64,
    now: u64,
    events_made: u64,
    /// In flight, by number.
    queries: HashMap<u64, Query>,
    query_count: usize,
    turns: usize,
    deferred_led_at: Option<u64>,
}

fn text(n: u16) -> Rc<[ImportedKey]> {
    Rc::from([ImportedKey { id: n.to_string(), secret_hash: String::new() }])
}

impl World {
    fn new(plans: Vec<Plan>, latency: u64) -> Self {
        let mut world = Self {
            queue: LookupQueue::default(),
            requests: Vec::new(),
            events: BinaryHeap::new(),
            latency,
            now: 0,
            events_made: 0,
            queries: HashMap::new(),
            query_count: 0,
            turns: 0,
            deferred_led_at: None,
        };
        for (n, plan) in plans.into_iter().enumerate() {
            world.push(plan.at, Event::Come(n));
            if let Some(after) = plan.leaves_after {
                world.push(plan.at + after, Event::Leave(n));
            }
            let request = Request { plan, is_here: false, ticket: None, waited: Waited::default(), answered_at: None };
            world.requests.push(request);
        }
        world
    }

    fn push(&mut self, at: u64, event: Event) {
        self.events_made += 1;
        self.events.push(Reverse((at, self.events_made, event)));
    }

    fn run(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Come(n) => self.come(n),
                Event::Leave(n) => self.requests[n].is_here = false,
                Event::Timer(n) => self.turn(n),
                Event::ObjectResponse(n, number) => self.answer(n, number),
            }
        }
    }

    fn come(&mut self, n: usize) {
        let Plan { text: of, is_deferred, .. } = self.requests[n].plan;
        let (ticket, gone) = self.queue.join(text(of), is_deferred, n, self.now).expect("there is room");
        assert!(gone.is_empty());
        self.requests[n].ticket = Some(ticket);
        self.requests[n].is_here = true;
        self.turn(n);
    }

    fn turn(&mut self, n: usize) {
        let request = &self.requests[n];
        let (Some(ticket), true, None) = (request.ticket, request.is_here, request.answered_at) else { return };
        self.turns += 1;
        match self.queue.turn(ticket, request.waited, self.now) {
            Turn::Over => panic!("request {n} is not answered"),
            Turn::Wait(pause, waited) => {
                self.requests[n].waited = waited;
                self.push(self.now + u64::from(pause), Event::Timer(n));
            }
            Turn::Query(batch) => {
                let of = self.requests[n].plan.text;
                let others = self.requests.iter().filter(|other| other.plan.text == of && other.ticket.is_some());
                let is_deferred =
                    others.filter(|other| other.answered_at.is_none()).all(|other| other.plan.is_deferred);
                self.run_query(n, &batch, is_deferred);
            }
        }
    }

    fn run_query(&mut self, n: usize, batch: &LookupBatch, is_led_by_deferred: bool) {
        self.query_count += 1;
        let texts: Vec<String> = batch.texts.iter().map(|keys| keys[0].id.clone()).collect();
        assert!((1..=BATCH).contains(&texts.len()));
        // Lost queries may no longer count.
        let under_way = || self.queries.values().filter(|query| self.now - query.began <= LEASE);
        assert!(under_way().count() < LANES);
        let asked: HashSet<&String> = under_way().flat_map(|query| &query.texts).collect();
        assert!(texts.iter().all(|text| !asked.contains(text)), "a text is queried twice at a time");
        if is_led_by_deferred {
            assert_eq!(under_way().count(), 0);
            assert!(self.deferred_led_at.is_none_or(|at| self.now - at >= u64::from(PAUSE)));
            self.deferred_led_at = Some(self.now);
        }
        self.queries.insert(batch.number, Query { began: self.now, texts });
        self.push(self.now + self.latency, Event::ObjectResponse(n, batch.number));
    }

    fn answer(&mut self, n: usize, number: u64) {
        let Request { plan, is_here, .. } = &self.requests[n];
        if !is_here && plan.takes_its_query_along {
            return;
        }
        self.queries.remove(&number);
        for waiter in self.queue.finish(number, self.now).into_iter().flat_map(|asked| asked.waiters) {
            let request = &mut self.requests[waiter];
            assert!(request.answered_at.is_none(), "request {waiter} is answered twice");
            request.answered_at = Some(self.now);
        }
        self.turn(n);
    }
}

fn plan(spread: u64, texts: u16, may_leave: bool) -> impl Strategy<Value = Plan> {
    let leaves = if may_leave { prop::option::of(0..400_u64).boxed() } else { Just(None).boxed() };
    (0..spread, 0..texts, any::<bool>(), leaves, any::<bool>()).prop_map(
        |(at, text, is_deferred, leaves_after, takes_its_query_along)| Plan {
            at,
            text,
            is_deferred,
            leaves_after,
            takes_its_query_along,
        },
    )
}

/// Honest requests, all at once, each for a distinct key.
fn honest(count: u16) -> Vec<Plan> {
    let of = |text| Plan { at: 0, text, is_deferred: false, leaves_after: None, takes_its_query_along: false };
    (0..count).map(of).collect()
}

#[test]
fn five_thousand_keys_at_once_are_twenty_two_queries() {
    for (count, most) in [(1, 1), (2, 2), (3, 3), (252, 3), (253, 4), (5_000, 22)] {
        let mut world = World::new(honest(count), 40);
        world.run();
        assert!(world.query_count <= most, "{count}: {}", world.query_count);
        let last = world.requests.iter().map(|request| request.answered_at.unwrap()).max().unwrap();
        // Two queries at a time.
        assert!(last <= 65 * u64::try_from(most.div_ceil(2) + 1).unwrap(), "{count}: {last}");
        // Polling is cheap, too.
        assert!(world.turns <= 12 * usize::from(count), "{count}: {} turns", world.turns);
    }
}

#[test]
fn a_flood_of_invented_texts_costs_four_queries_a_second_and_no_honest_one_waits_for_it() {
    let mut plans: Vec<Plan> = (0..8_000_u16)
        .map(|n| Plan {
            at: u64::from(n) * 5 / 2,
            text: n,
            is_deferred: true,
            leaves_after: None,
            takes_its_query_along: false,
        })
        .collect();
    plans.extend((0..20_u16).map(|n| Plan {
        at: 37 + u64::from(n) * 1_000,
        text: 10_000 + n,
        is_deferred: false,
        leaves_after: None,
        takes_its_query_along: false,
    }));
    let mut world = World::new(plans, 40);
    world.run();
    // 20 s, and one query per honest text.
    assert!(world.query_count <= 80 + 20 + 2, "{}", world.query_count);
    for request in &world.requests {
        let waited = request.answered_at.unwrap() - request.plan.at;
        assert!(waited <= if request.plan.is_deferred { 3 * u64::from(PAUSE) } else { 80 }, "{waited}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Requests that stay are answered, although any request may end at any time together with the
    /// query that it runs for others.
    #[test]
    fn whoever_stays_is_answered(plans in prop::collection::vec(plan(600, 40, true), 1..120), latency in 1..300_u64) {
        let mut world = World::new(plans, latency);
        world.run();
        let last_leave = 1_000;
        for request in world.requests.iter().filter(|request| request.plan.leaves_after.is_none()) {
            let answered_at = request.answered_at.expect("requests that stay are answered");
            prop_assert!(answered_at <= last_leave + LEASE + 750 + 3 * latency, "at {answered_at}");
        }
    }

    /// If no request ends with its query, no request waits for a lease.
    #[test]
    fn a_request_that_leaves_delays_no_other(mut plans in prop::collection::vec(plan(600, 400, true), 1..300), latency in 1..100_u64) {
        for plan in &mut plans {
            plan.takes_its_query_along = false;
        }
        let mut world = World::new(plans, latency);
        world.run();
        for request in world.requests.iter().filter(|request| request.plan.leaves_after.is_none()) {
            let waited = request.answered_at.expect("requests that stay are answered") - request.plan.at;
            let most = if request.plan.is_deferred { 4 * u64::from(PAUSE) + 4 * latency } else { 4 * latency + 4 };
            prop_assert!(waited <= most, "{waited}");
        }
    }
}
