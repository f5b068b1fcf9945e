//! Queues lookups of imported keys in D1, and batches them into queries.
//!
//! A text that may be an imported key costs a query, and anyone can invent such texts. So the queue
//! bounds their cost:
//!
//! - Texts that wait together become one query of up to [`BATCH`].
//! - A text that is already waiting is not queried twice.
//! - At most [`LANES`] queries are in flight per isolate.
//! - Texts from networks with recent refusals are *deferred*: they wait behind all others. They use
//!   the room that others leave in their queries, and lead a query of their own at most once per
//!   [`PAUSE`].
//!
//! No response depends on the life of another request. Each waiting request has its own timer and
//! takes a turn when it fires. If the request that runs a query ends and the query with it, the
//! texts wait again after [`LEASE`], and the next turn of any request queries them.

use crate::keys::key::ImportedKey;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Maximum number of texts per query.
pub const BATCH: usize = 250;
/// Maximum number of queries in flight. Deferred texts lead a query only if there is none, so other
/// texts never wait for theirs.
pub const LANES: usize = 2;
/// The time between turns of a request, in milliseconds: half the duration of the last query, plus
/// its full duration for each round of full queries ahead; or a quarter of the time since a query
/// ended, if that is longer.
pub const TURNS: RangeInclusive<u64> = 2..=250;
/// The expected duration of the first query.
const FIRST_GUESS: u64 = 20;
/// The time between turns of a deferred request, and so between the queries that these lead.
pub const PAUSE: u32 = 250;
/// Timeout of a query, in milliseconds.
pub const DEADLINE: u32 = 5_000;
/// A query that has not ended after this time was lost with its request, in milliseconds. Longer
/// than [`DEADLINE`].
pub const LEASE: u64 = 6_000;
/// Maximum total wait of a request, in milliseconds of its own timers. Long enough to detect a lost
/// query and repeat it.
pub const PATIENCE: u32 = 12_000;
/// Maximum number of waiting requests. Further ones are refused.
pub const WAITING: usize = 8_192;
/// Maximum number of deferred ones among them.
pub const DEFERRED: usize = 1_024;
/// Age from which a text makes room for a newer one, in milliseconds. If its requests were still
/// waiting, it would have been queried by then.
pub const STALE: u64 = 1_000;

/// The lookups of one isolate. `W` is the handle by which the caller wakes a waiting request. Times
/// are milliseconds on the isolate's clock.
#[derive(Debug)]
pub struct LookupQueue<W> {
    /// Waiting and queried texts, in the order of arrival.
    texts: BTreeMap<u64, Text<W>>,
    /// Texts that further requests may join, by their first id.
    joinable: HashMap<String, u64>,
    /// Waiting texts. `lines[1]` holds the deferred ones.
    lines: [BTreeSet<u64>; 2],
    /// The start of each query in flight.
    queries: BTreeMap<u64, u64>,
    /// Number of waiting requests, in the same two classes.
    waiting: [usize; 2],
    /// The last number of a text, and of a request or query.
    text_numbers: u64,
    numbers: u64,
    /// Number of queries that deferred texts have led.
    paced: u64,
    /// Number of ended queries, and the duration of the last one in milliseconds.
    ended: u64,
    took: u64,
}

#[derive(Debug)]
struct Text<W> {
    keys: Rc<[ImportedKey]>,
    waiters: Vec<Waiter<W>>,
    is_deferred: bool,
    since: u64,
    /// The query in flight for it.
    query: Option<u64>,
}

#[derive(Debug)]
struct Waiter<W> {
    number: u64,
    is_deferred: bool,
    handle: W,
}

/// The answer of D1 about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupAnswer {
    /// It is a key. The index of its id.
    Key(usize),
    /// It is not a key.
    NoKey,
    /// D1 is unreachable, or the queue is full.
    None,
}

/// The place where a waiting request finds its answer.
#[derive(Debug, Default)]
pub struct AnswerSlot(Cell<Option<LookupAnswer>>);

impl AnswerSlot {
    /// Stores the answer.
    pub fn put(&self, answer: LookupAnswer) {
        self.0.set(Some(answer));
    }

    /// The answer, if there is one yet.
    pub fn take(&self) -> Option<LookupAnswer> {
        self.0.take()
    }
}

/// The place of a request in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    text: u64,
    waiter: u64,
}

/// The action of a request in its turn.
#[derive(Debug)]
pub enum Turn {
    /// Run this query.
    Query(LookupBatch),
    /// Wait so many milliseconds, then take the next turn with this value.
    Wait(u32, Waited),
    /// The text has been answered, or the request has waited too long.
    Over,
}

/// How long a request has waited, by its own timers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    milliseconds: u32,
    /// The part of it since a query last ended, and the number of queries that had ended then.
    without_progress: u32,
    ended: u64,
    /// The number of queries led by deferred texts when the last timer was set.
    paced: Option<u64>,
}

/// The texts of one query, each as its ids under every secret.
#[derive(Debug)]
pub struct LookupBatch {
    /// For [`LookupQueue::finish`].
    pub number: u64,
    /// Never empty.
    pub texts: Vec<Rc<[ImportedKey]>>,
}

/// A queried text and its waiting requests.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct QueriedText<W> {
    pub keys: Rc<[ImportedKey]>,
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
    /// Adds a request that waits for a text. Returns its place, and the requests that are evicted
    /// for it. `None` if there is no room.
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

    /// Takes a turn for a request that has waited so long.
    pub fn turn(&mut self, ticket: Ticket, waited: Waited, now: u64) -> Turn {
        self.requeue_lost_queries(now);
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
            return Turn::Query(self.query(ticket.text, now));
        }
        if waited.milliseconds >= PATIENCE {
            self.leave(ticket);
            return Turn::Over;
        }
        let without_progress = if waited.ended == self.ended { waited.without_progress } else { 0 };
        let pause = if is_deferred { PAUSE } else { self.pause(ticket.text, without_progress) };
        let next = Waited {
            milliseconds: waited.milliseconds.saturating_add(pause),
            without_progress: without_progress.saturating_add(pause),
            ended: self.ended,
            paced: Some(self.paced),
        };
        Turn::Wait(pause, next)
    }

    fn pause(&mut self, text: u64, without_progress: u32) -> u32 {
        let first = line(&mut self.lines, false).first().copied().unwrap_or(text);
        // Texts are numbered consecutively, so the difference bounds the number ahead.
        let rounds = text.saturating_sub(first) / (BATCH * LANES) as u64;
        let expected = (self.took / 2).saturating_add(rounds.saturating_mul(self.took));
        let (least, most) = TURNS.into_inner();
        u32::try_from(expected.max(u64::from(without_progress / 4)).clamp(least, most)).unwrap_or(PAUSE)
    }

    /// Ends a query, answered or not. Returns its texts with their waiting requests.
    pub fn finish(&mut self, number: u64, now: u64) -> Vec<QueriedText<W>> {
        if let Some(since) = self.queries.remove(&number) {
            self.took = now.abs_diff(since);
            self.ended = self.ended.wrapping_add(1);
        }
        let its_texts = self.texts.iter().filter(|(_, text)| text.query == Some(number)).map(|(&number, _)| number);
        let its_texts: Vec<u64> = its_texts.collect();
        its_texts.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Records an import: queries in flight may not see it, so no further request joins them.
    pub fn imported(&mut self) {
        let texts = &self.texts;
        self.joinable.retain(|_, number| texts.get(number).is_some_and(|text| text.query.is_none()));
    }

    /// Removes a request that no longer waits.
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

    /// Makes a query of a text and of the texts that wait beside it, in the order of the lines.
    fn query(&mut self, first: u64, now: u64) -> LookupBatch {
        let number = self.number();
        let [normal, deferred] = &self.lines;
        let others = normal.iter().chain(deferred).copied().filter(|&other| other != first);
        let queried: Vec<u64> = std::iter::once(first).chain(others).take(BATCH).collect();
        let mut texts = Vec::with_capacity(queried.len());
        for one in queried {
            if let Some(text) = self.texts.get_mut(&one) {
                text.query = Some(number);
                line(&mut self.lines, text.is_deferred).remove(&one);
                texts.push(Rc::clone(&text.keys));
            }
        }
        self.queries.insert(number, now);
        LookupBatch { number, texts }
    }

    /// Ends queries that were lost with their requests: their texts wait again, ahead of later
    /// ones.
    fn requeue_lost_queries(&mut self, now: u64) {
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

    /// Makes room for a request. Returns the requests that are evicted for it. `None` if there is
    /// no room.
    fn make_room(&mut self, is_deferred: bool, now: u64) -> Option<Vec<W>> {
        let limit = if is_deferred { DEFERRED } else { WAITING };
        if *line(&mut self.waiting, is_deferred) < limit {
            return Some(Vec::new());
        }
        let oldest = *line(&mut self.lines, is_deferred).first()?;
        let is_stale = self.texts.get(&oldest).is_some_and(|text| now.abs_diff(text.since) >= STALE);
        if is_stale { self.remove(oldest).map(|queried| queried.waiters) } else { None }
    }

    fn remove(&mut self, number: u64) -> Option<QueriedText<W>> {
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
        Some(QueriedText { keys, waiters: waiters.into_iter().map(|waiter| waiter.handle).collect() })
    }
}

fn count_out(waiting: &mut [usize; 2], is_deferred: bool) {
    let waiting = line(waiting, is_deferred);
    *waiting = waiting.saturating_sub(1);
}

/// The element for deferred requests, or for others.
const fn line<T>(lines: &mut [T; 2], is_deferred: bool) -> &mut T {
    let [normal, deferred] = lines;
    if is_deferred { deferred } else { normal }
}

#[cfg(test)]
mod tests;
