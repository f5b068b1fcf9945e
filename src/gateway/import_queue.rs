//! Look-ups that wait for D1: which texts are asked about together, in which order, and by whom.
//!
//! A text that may be an imported key costs a query, and anybody can invent such texts. So texts
//! that wait together become one query of up to [`BATCH`], a text that is waiting is not asked
//! about twice, at most [`LANES`] queries are under way in an isolate, and texts from networks that
//! have just been refused wait behind all others and get a query of their own at most once in
//! [`PAUSE`], beside what room the others leave in theirs.
//!
//! Nobody's answer depends on another request. Each request that waits has a timer of its own, and
//! takes its turn when that ends; so if the request that runs a query ends and takes the query
//! along, the texts of that query wait again after [`LEASE`], and the next turn that anybody takes
//! asks about them.

use crate::keys::key::ImportedKey;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Texts of one query at most.
pub const BATCH: usize = 250;
/// Queries under way at most. One is never led by a deferred text, so an honest one does not wait
/// for those.
pub const LANES: usize = 2;
/// How long a request waits between its turns, in milliseconds: half of what the last query took,
/// and all of it for each round of full queries that go before its own; a quarter of the time since
/// a query has ended, if that is more.
pub const TURNS: RangeInclusive<u64> = 2..=250;
/// What the first query is expected to take.
const FIRST_GUESS: u64 = 20;
/// How long a deferred request waits between its turns, and so the time between the queries that
/// they may lead.
pub const PAUSE: u32 = 250;
/// How long a query may take, in milliseconds.
pub const DEADLINE: u32 = 5_000;
/// After this time a query is taken to have ended with its request, in milliseconds. Longer than
/// [`DEADLINE`].
pub const LEASE: u64 = 6_000;
/// How long a request waits in all, in milliseconds of its own timers. Longer than it takes to find
/// out that a query is lost, and to ask again.
pub const PATIENCE: u32 = 12_000;
/// Requests at most that wait; beyond it they are refused.
pub const WAITING: usize = 8_192;
/// Deferred ones among them.
pub const DEFERRED: usize = 1_024;
/// From this age on a text makes room for a newer one, in milliseconds. Where anybody waits for it,
/// it would have been asked about.
pub const STALE: u64 = 1_000;

/// The look-ups of one isolate. `W` is how a waiting request is told. Times are milliseconds on the
/// isolate's clock.
#[derive(Debug)]
pub struct LookupQueue<W> {
    /// Those that wait and those that are being asked about, in the order of their arrival.
    texts: BTreeMap<u64, Text<W>>,
    /// By the first id of each text, those that further requests may join.
    joinable: HashMap<String, u64>,
    /// Those that wait: `lines[1]` the deferred ones.
    lines: [BTreeSet<u64>; 2],
    /// When each query began.
    queries: BTreeMap<u64, u64>,
    /// Requests, in the same two kinds.
    waiting: [usize; 2],
    /// The last numbers of texts, and of requests and queries.
    text_numbers: u64,
    numbers: u64,
    /// Queries that a deferred text has led.
    paced: u64,
    /// How many queries have ended, and how long the last one took, in milliseconds.
    ended: u64,
    took: u64,
}

#[derive(Debug)]
struct Text<W> {
    keys: Rc<[ImportedKey]>,
    waiters: Vec<Waiter<W>>,
    is_deferred: bool,
    since: u64,
    /// The query that asks about it.
    query: Option<u64>,
}

#[derive(Debug)]
struct Waiter<W> {
    number: u64,
    is_deferred: bool,
    handle: W,
}

/// What D1 said of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupAnswer {
    /// Which of the text's ids is that of an imported key.
    Key(usize),
    /// It is no key.
    NoKey,
    /// D1 could not be asked, or too many wait.
    None,
}

/// Where a waiting request finds the answer.
#[derive(Debug, Default)]
pub struct AnswerSlot(Cell<Option<LookupAnswer>>);

impl AnswerSlot {
    /// Leaves an answer here.
    pub fn put(&self, answer: LookupAnswer) {
        self.0.set(Some(answer));
    }

    /// The answer, if there is one yet.
    pub fn take(&self) -> Option<LookupAnswer> {
        self.0.take()
    }
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    text: u64,
    waiter: u64,
}

/// What a request does in its turn.
#[derive(Debug)]
pub enum Turn {
    /// Run this query.
    Ask(LookupBatch),
    /// Wait so many milliseconds, and take the next turn with this.
    Wait(u32, Waited),
    /// Nothing: what became of the text has been told, or the request has waited for too long.
    Over,
}

/// How long a request has waited, by timers of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    milliseconds: u32,
    /// How much of that without a query that ended, and how many had ended before.
    in_vain: u32,
    ended: u64,
    /// How many queries deferred texts had led when the last of these timers was set.
    paced: Option<u64>,
}

/// Texts to ask D1 about, in one query: what each is under every secret.
#[derive(Debug)]
pub struct LookupBatch {
    /// Its number, for [`LookupQueue::finish`].
    pub number: u64,
    /// Never none.
    pub texts: Vec<Rc<[ImportedKey]>>,
}

/// Those who wait for a text.
#[derive(Debug)]
pub struct Asked<W> {
    /// The text.
    pub keys: Rc<[ImportedKey]>,
    /// Those to be told.
    pub waiters: Vec<W>,
}

impl<W> Default for LookupQueue<W> {
    fn default() -> Self {
        Self {
            texts: BTreeMap::new(),
            joinable: HashMap::new(),
            lines: [BTreeSet::new(), BTreeSet::new()],
            queries: BTreeMap::new(),
            waiting: [0; 2],
            text_numbers: 0,
            numbers: 0,
            paced: 0,
            ended: 0,
            took: FIRST_GUESS,
        }
    }
}

impl<W> LookupQueue<W> {
    /// Has a request wait for a text. Gives its place, and those who have to go for it; nothing if
    /// there is no room.
    pub fn join(
        &mut self,
        keys: Rc<[ImportedKey]>,
        is_deferred: bool,
        handle: W,
        now: u64,
    ) -> Option<(Ticket, Vec<W>)> {
        let id = keys.first()?.id.clone();
        let gone = self.make_room(is_deferred, now)?;
        let waiter = Waiter { number: self.number(), is_deferred, handle };
        let number = match self.joinable.get(&id) {
            Some(&number) if self.texts.contains_key(&number) => number,
            _ => {
                self.text_numbers = self.text_numbers.wrapping_add(1);
                let number = self.text_numbers;
                self.joinable.insert(id, number);
                line(&mut self.lines, is_deferred).insert(number);
                self.texts.insert(number, Text { keys, waiters: Vec::new(), is_deferred, since: now, query: None });
                number
            }
        };
        let ticket = Ticket { text: number, waiter: waiter.number };
        let waiting = line(&mut self.waiting, is_deferred);
        *waiting = waiting.saturating_add(1);
        if let Some(text) = self.texts.get_mut(&number) {
            text.waiters.push(waiter);
            if text.is_deferred && !is_deferred {
                text.is_deferred = false;
                if line(&mut self.lines, true).remove(&number) {
                    line(&mut self.lines, false).insert(number);
                }
            }
        }
        Some((ticket, gone))
    }

    /// What a request does now that it has waited so long.
    pub fn turn(&mut self, ticket: Ticket, waited: Waited, now: u64) -> Turn {
        self.give_up_on_the_lost(now);
        let Some(text) = self.texts.get(&ticket.text) else { return Turn::Over };
        let is_deferred = text.is_deferred;
        let may_ask = if is_deferred {
            self.queries.is_empty() && waited.paced == Some(self.paced)
        } else {
            self.queries.len() < LANES
        };
        if text.query.is_none() && may_ask {
            if is_deferred {
                self.paced = self.paced.wrapping_add(1);
            }
            return Turn::Ask(self.ask(ticket.text, now));
        }
        if waited.milliseconds >= PATIENCE {
            self.leave(ticket);
            return Turn::Over;
        }
        let in_vain = if waited.ended == self.ended { waited.in_vain } else { 0 };
        let pause = if is_deferred { PAUSE } else { self.pause(ticket.text, in_vain) };
        let next = Waited {
            milliseconds: waited.milliseconds.saturating_add(pause),
            in_vain: in_vain.saturating_add(pause),
            ended: self.ended,
            paced: Some(self.paced),
        };
        Turn::Wait(pause, next)
    }

    fn pause(&mut self, text: u64, in_vain: u32) -> u32 {
        let first = line(&mut self.lines, false).first().copied().unwrap_or(text);
        // Texts are numbered one by one, so there are no more before it.
        let rounds = text.saturating_sub(first) / (BATCH * LANES) as u64;
        let expected = (self.took / 2).saturating_add(rounds.saturating_mul(self.took));
        let (least, most) = TURNS.into_inner();
        u32::try_from(expected.max(u64::from(in_vain / 4)).clamp(least, most)).unwrap_or(PAUSE)
    }

    /// A query has its answer, or none to expect: those who wait for its texts.
    pub fn finish(&mut self, number: u64, now: u64) -> Vec<Asked<W>> {
        if let Some(since) = self.queries.remove(&number) {
            self.took = now.abs_diff(since);
            self.ended = self.ended.wrapping_add(1);
        }
        let of_it = self.texts.iter().filter(|(_, text)| text.query == Some(number)).map(|(&number, _)| number);
        let of_it: Vec<u64> = of_it.collect();
        of_it.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Keys were imported: what is being asked may not see them, so nobody joins it any more.
    pub fn imported(&mut self) {
        let texts = &self.texts;
        self.joinable.retain(|_, number| texts.get(number).is_some_and(|text| text.query.is_none()));
    }

    /// A request waits no longer.
    fn leave(&mut self, ticket: Ticket) {
        let Some(text) = self.texts.get_mut(&ticket.text) else { return };
        let Some(at) = text.waiters.iter().position(|waiter| waiter.number == ticket.waiter) else { return };
        let waiter = text.waiters.swap_remove(at);
        count_out(&mut self.waiting, waiter.is_deferred);
        if text.waiters.is_empty() && text.query.is_none() {
            self.remove(ticket.text);
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers = self.numbers.wrapping_add(1);
        self.numbers
    }

    /// Makes a query of a text and of what waits beside it, in the order of the lines.
    fn ask(&mut self, first: u64, now: u64) -> LookupBatch {
        let number = self.number();
        let [normal, deferred] = &self.lines;
        let others = normal.iter().chain(deferred).copied().filter(|&other| other != first);
        let asked: Vec<u64> = std::iter::once(first).chain(others).take(BATCH).collect();
        let mut texts = Vec::with_capacity(asked.len());
        for one in asked {
            if let Some(text) = self.texts.get_mut(&one) {
                text.query = Some(number);
                line(&mut self.lines, text.is_deferred).remove(&one);
                texts.push(Rc::clone(&text.keys));
            }
        }
        self.queries.insert(number, now);
        LookupBatch { number, texts }
    }

    /// Queries whose requests have ended without an answer: their texts wait again, before those
    /// that came later.
    fn give_up_on_the_lost(&mut self, now: u64) {
        if self.queries.values().all(|since| now.abs_diff(*since) <= LEASE) {
            return;
        }
        self.queries.retain(|_, since| now.abs_diff(*since) <= LEASE);
        for (&number, text) in &mut self.texts {
            if text.query.is_some_and(|query| !self.queries.contains_key(&query)) {
                text.query = None;
                line(&mut self.lines, text.is_deferred).insert(number);
            }
        }
    }

    /// Makes room for a request. Gives those who have to go for it; nothing if that is who asks.
    fn make_room(&mut self, is_deferred: bool, now: u64) -> Option<Vec<W>> {
        let limit = if is_deferred { DEFERRED } else { WAITING };
        if *line(&mut self.waiting, is_deferred) < limit {
            return Some(Vec::new());
        }
        let oldest = *line(&mut self.lines, is_deferred).first()?;
        let is_stale = self.texts.get(&oldest).is_some_and(|text| now.abs_diff(text.since) >= STALE);
        if is_stale { self.remove(oldest).map(|asked| asked.waiters) } else { None }
    }

    fn remove(&mut self, number: u64) -> Option<Asked<W>> {
        let Text { keys, waiters, is_deferred, .. } = self.texts.remove(&number)?;
        line(&mut self.lines, is_deferred).remove(&number);
        if let Some(key) = keys.first()
            && self.joinable.get(&key.id) == Some(&number)
        {
            self.joinable.remove(&key.id);
        }
        for waiter in &waiters {
            count_out(&mut self.waiting, waiter.is_deferred);
        }
        Some(Asked { keys, waiters: waiters.into_iter().map(|waiter| waiter.handle).collect() })
    }
}

fn count_out(waiting: &mut [usize; 2], is_deferred: bool) {
    let waiting = line(waiting, is_deferred);
    *waiting = waiting.saturating_sub(1);
}

/// That of two things which is for deferred ones, or the other.
const fn line<T>(lines: &mut [T; 2], is_deferred: bool) -> &mut T {
    let [normal, deferred] = lines;
    if is_deferred { deferred } else { normal }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queue = LookupQueue<u32>;

    fn text(n: usize) -> Rc<[ImportedKey]> {
        Rc::from([ImportedKey { id: format!("id {n}"), secret_hash: format!("hash {n}") }])
    }

    fn join(queue: &mut Queue, n: usize, is_deferred: bool) -> Ticket {
        let (ticket, gone) = queue.join(text(n), is_deferred, u32::try_from(n).unwrap(), 0).unwrap();
        assert!(gone.is_empty());
        ticket
    }

    fn ids(batch: &LookupBatch) -> Vec<&str> {
        batch.texts.iter().map(|keys| &keys[0].id[3..]).collect()
    }

    fn asks(queue: &mut Queue, ticket: Ticket, waited: Waited) -> LookupBatch {
        match queue.turn(ticket, waited, 0) {
            Turn::Ask(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    fn waits(queue: &mut Queue, ticket: Ticket, waited: Waited) -> (u32, Waited) {
        match queue.turn(ticket, waited, 0) {
            Turn::Wait(pause, waited) => (pause, waited),
            other => panic!("{other:?}"),
        }
    }

    const FRESH: Waited = Waited { milliseconds: 0, in_vain: 0, ended: 0, paced: None };

    /// The waiters, by number, whose text has been asked about.
    fn finish(queue: &mut Queue, batch: &LookupBatch) -> Vec<u32> {
        queue.finish(batch.number, 0).into_iter().flat_map(|asked| asked.waiters).collect()
    }

    #[test]
    fn what_waits_together_is_one_query() {
        let mut queue = Queue::default();
        let tickets: Vec<Ticket> = (0..600).map(|n| join(&mut queue, n, false)).collect();
        let first = asks(&mut queue, tickets[7], FRESH);
        assert_eq!(first.texts.len(), BATCH);
        assert_eq!(ids(&first)[..3], ["7", "0", "1"], "its own first, then in the order of arrival");
        let second = asks(&mut queue, tickets[599], FRESH);
        for one in [0, 7, 300, 550] {
            assert_eq!(waits(&mut queue, tickets[one], FRESH).0, 10, "no more than two lanes");
        }
        assert_eq!(finish(&mut queue, &first).len(), BATCH);
        assert!(matches!(queue.turn(tickets[7], FRESH, 0), Turn::Over));
        let third = asks(&mut queue, tickets[550], FRESH);
        assert_eq!(third.texts.len(), 100);
        for batch in [second, third] {
            finish(&mut queue, &batch);
        }
        assert!(queue.texts.is_empty() && queue.joinable.is_empty());
        assert_eq!(queue.waiting, [0, 0]);
    }

    #[test]
    fn the_same_text_is_asked_about_once() {
        let mut queue = Queue::default();
        let (a, b) = (join(&mut queue, 1, false), join(&mut queue, 1, false));
        let batch = asks(&mut queue, b, FRESH);
        let c = join(&mut queue, 1, true);
        for ticket in [a, c] {
            waits(&mut queue, ticket, FRESH);
        }
        assert_eq!(ids(&batch), ["1"]);
        assert_eq!(finish(&mut queue, &batch), [1, 1, 1]);
    }

    #[test]
    fn nobody_joins_a_query_from_before_an_import() {
        let mut queue = Queue::default();
        let (a, b) = (join(&mut queue, 1, false), join(&mut queue, 2, false));
        let first = asks(&mut queue, a, FRESH);
        queue.imported();
        let c = join(&mut queue, 1, false);
        join(&mut queue, 2, false);
        let second = asks(&mut queue, c, FRESH);
        assert_eq!(ids(&second), ["1", "2"]);
        assert_eq!(finish(&mut queue, &first), [1, 2]);
        assert!(matches!(queue.turn(b, FRESH, 0), Turn::Over));
        join(&mut queue, 1, false);
        assert_eq!(finish(&mut queue, &second), [1, 1, 2]);
    }

    #[test]
    fn deferred_texts_wait_for_a_pause_of_their_own() {
        let mut queue = Queue::default();
        let (a, b) = (join(&mut queue, 1, true), join(&mut queue, 2, true));
        let (pause, rest) = waits(&mut queue, a, FRESH);
        assert_eq!(pause, PAUSE);
        let (_, rest_of_b) = waits(&mut queue, b, FRESH);
        let batch = asks(&mut queue, a, rest);
        assert_eq!(ids(&batch), ["1", "2"]);
        let c = join(&mut queue, 3, true);
        let (_, rest_of_c) = waits(&mut queue, c, FRESH);
        assert_eq!(finish(&mut queue, &batch), [1, 2]);
        let d = join(&mut queue, 4, true);
        waits(&mut queue, d, rest_of_b);
        let batch = asks(&mut queue, c, rest_of_c);
        assert_eq!(ids(&batch), ["3", "4"]);
    }

    #[test]
    fn deferred_texts_never_hold_up_others_and_go_along_with_them() {
        let mut queue = Queue::default();
        let a = join(&mut queue, 1, true);
        let (_, rest) = waits(&mut queue, a, FRESH);
        let led_by_deferred = asks(&mut queue, a, rest);
        let b = join(&mut queue, 2, true);
        let (_, rest) = waits(&mut queue, b, FRESH);
        waits(&mut queue, b, rest);
        let normal = join(&mut queue, 3, false);
        let batch = asks(&mut queue, normal, FRESH);
        assert_eq!(ids(&batch), ["3", "2"]);
        finish(&mut queue, &led_by_deferred);
        let c = join(&mut queue, 4, true);
        let (_, rest) = waits(&mut queue, c, FRESH);
        waits(&mut queue, c, rest);
        finish(&mut queue, &batch);
        let mut tickets: Vec<Ticket> = (100..100 + BATCH).map(|n| join(&mut queue, n, false)).collect();
        let batch = asks(&mut queue, tickets.remove(0), FRESH);
        assert_eq!(batch.texts.len(), BATCH);
        assert!(!ids(&batch).contains(&"4"), "others go first");
    }

    #[test]
    fn a_text_that_anybody_else_asks_about_is_deferred_no_longer() {
        let mut queue = Queue::default();
        let a = join(&mut queue, 1, true);
        let b = join(&mut queue, 1, false);
        assert_eq!(a.text, b.text);
        let batch = asks(&mut queue, a, FRESH);
        assert_eq!(finish(&mut queue, &batch), [1, 1]);
        assert_eq!(queue.waiting, [0, 0]);
    }

    #[test]
    fn texts_of_a_lost_query_wait_again_before_those_that_came_later() {
        let mut queue = Queue::default();
        let (a, b) = (join(&mut queue, 1, false), join(&mut queue, 2, false));
        let lost = asks(&mut queue, a, FRESH);
        let c = join(&mut queue, 3, false);
        let other = asks(&mut queue, c, FRESH);
        let d = join(&mut queue, 4, false);
        assert!(matches!(queue.turn(d, FRESH, LEASE), Turn::Wait(..)));
        let Turn::Ask(batch) = queue.turn(d, FRESH, LEASE + 1) else { panic!("it is not given up") };
        assert_eq!(ids(&batch), ["4", "1", "2", "3"]);
        assert!(
            queue.finish(lost.number, LEASE + 2).is_empty() && queue.finish(other.number, LEASE + 2).is_empty(),
            "nobody waits for it any more"
        );
        assert!(matches!(queue.turn(b, FRESH, LEASE + 1), Turn::Wait(..)));
        assert_eq!(finish(&mut queue, &batch), [1, 2, 3, 4]);
    }

    #[test]
    fn who_leaves_takes_its_text_along_if_it_was_alone() {
        let mut queue = Queue::default();
        let (a, b, c) = (join(&mut queue, 1, false), join(&mut queue, 1, true), join(&mut queue, 2, false));
        for ticket in [a, a, c] {
            queue.leave(ticket);
        }
        assert_eq!(queue.waiting, [0, 1]);
        let batch = asks(&mut queue, b, FRESH);
        assert_eq!(ids(&batch), ["1"]);
        queue.leave(b);
        assert!(finish(&mut queue, &batch).is_empty());
        assert!(queue.texts.is_empty() && queue.joinable.is_empty());
    }

    #[test]
    fn when_it_is_full_the_newest_is_refused_unless_the_oldest_is_stale() {
        for (is_deferred, limit) in [(true, DEFERRED), (false, WAITING)] {
            let mut queue = Queue::default();
            let oldest = join(&mut queue, 0, is_deferred);
            for n in 1..limit {
                join(&mut queue, n, is_deferred);
            }
            assert!(queue.join(text(limit), is_deferred, 7, STALE - 1).is_none());
            assert!(queue.join(text(limit), !is_deferred, 7, 0).is_some(), "the others have room");
            let (_, gone) = queue.join(text(limit + 1), is_deferred, 8, STALE).unwrap();
            assert_eq!(gone, [0]);
            assert!(matches!(queue.turn(oldest, FRESH, STALE), Turn::Over));
            assert_eq!(queue.waiting[usize::from(is_deferred)], limit);
        }
        let mut queue = Queue::default();
        for _ in 0..WAITING {
            join(&mut queue, 1, false);
        }
        assert!(queue.join(text(1), false, 7, 0).is_none(), "requests are counted, not texts");
    }

    #[test]
    fn a_request_that_waits_looks_less_and_less_often_and_not_for_ever() {
        let mut queue = Queue::default();
        let [a, b, c] = [1, 2, 3].map(|n| join(&mut queue, n, false));
        let batch = asks(&mut queue, a, FRESH);
        let (mut waited, mut pauses) = (FRESH, Vec::new());
        loop {
            assert!(pauses.len() < 1_000, "it waits for ever");
            match queue.turn(a, waited, 0) {
                Turn::Wait(pause, next) => {
                    pauses.push(pause);
                    waited = next;
                }
                Turn::Over => break,
                Turn::Ask(_) => panic!("it is being asked about"),
            }
        }
        assert!(pauses.is_sorted() && pauses[0] == 10 && pauses.last() == Some(&250), "{pauses:?}");
        assert!((PATIENCE..PATIENCE + 250).contains(&pauses.iter().sum()) && pauses.len() < 100, "{pauses:?}");
        let mut in_vain = 0;
        for pause in pauses {
            assert_eq!(pause, (in_vain / 4).clamp(10, 250));
            in_vain += pause;
        }
        assert_eq!(finish(&mut queue, &batch), [2, 3]);
        for (took, pause) in [(0, 2), (9, 4), (100, 50), (900, 250)] {
            let ticket = join(&mut queue, 4, false);
            let batch = asks(&mut queue, ticket, FRESH);
            queue.finish(batch.number, took);
            let other = join(&mut queue, 5, false);
            let batch = asks(&mut queue, other, FRESH);
            assert_eq!(waits(&mut queue, other, FRESH).0, pause, "{took}");
            queue.finish(batch.number, took);
        }
        assert!([b, c].into_iter().all(|ticket| matches!(queue.turn(ticket, FRESH, 0), Turn::Over)));
    }

    /// 500 texts are asked about in a round of two queries, each of which is expected to take 20 ms.
    #[test]
    fn a_request_waits_longer_for_each_round_of_queries_that_goes_before_its_own() {
        let mut queue = Queue::default();
        for n in 0..2 {
            let ticket = join(&mut queue, n, false);
            asks(&mut queue, ticket, FRESH);
        }
        let tickets: Vec<Ticket> = (2..1_003).map(|n| join(&mut queue, n, false)).collect();
        let mut pause = |n: usize| waits(&mut queue, tickets[n], FRESH).0;
        assert_eq!([0, 499, 500, 999, 1_000].map(&mut pause), [10, 10, 30, 30, 50]);
    }

    #[test]
    fn times_fit_together() {
        assert!(LEASE > u64::from(DEADLINE));
        assert!(u64::from(PATIENCE) > LEASE + u64::from(DEADLINE) + TURNS.end());
    }
}
