//! Visits every state that the machine can reach, with everything that storage and the event loop
//! may do in each.

use super::*;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Calls in a batch at most: the machine distinguishes none, one and more.
const CALLS: u32 = 3;
/// Turns and confirmations that are pending at most. When one more is requested, the oldest never
/// comes.
const PENDING: u32 = 3;

/// The object and its surroundings. Times are relative, so that equal situations are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    machine: GroupCommit,
    /// Turns that were requested.
    turns: u32,
    /// Requests for a confirmation without an answer, oldest first: the number, and how many writes
    /// were issued since.
    confirmations: Vec<(u32, u32)>,
    /// Writes that storage has not confirmed.
    unconfirmed: u32,
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Call {
        is_concurrent: bool,
        throws: bool,
    },
    Turn {
        throws: bool,
    },
    /// The answer to one of the requests for a confirmation.
    Confirmed {
        index: usize,
        throws: bool,
    },
    Lost {
        index: usize,
    },
    /// Nothing for so long that everything that was requested is late.
    Late,
}

const START: u64 = 1_000_000;

impl World {
    fn new() -> Self {
        Self { machine: GroupCommit::default(), turns: 0, confirmations: Vec::new(), unconfirmed: 0 }
    }

    fn happenings(&self, with_late: bool) -> Vec<Happening> {
        let both = [false, true];
        let mut all = Vec::new();
        if self.machine.waiting < CALLS {
            all.extend(both.map(|is_concurrent| both.map(|throws| Happening::Call { is_concurrent, throws })).concat());
        }
        if self.turns > 0 {
            all.extend(both.map(|throws| Happening::Turn { throws }));
        }
        for index in 0..self.confirmations.len() {
            all.extend(both.map(|throws| Happening::Confirmed { index, throws }));
            all.push(Happening::Lost { index });
        }
        if with_late {
            all.push(Happening::Late);
        }
        all
    }

    /// Lets it happen, and checks what must hold of each step. `None` if a write was to throw and
    /// there is none.
    fn after(&self, happening: Happening) -> Result<Option<Self>, String> {
        let mut world = self.clone();
        let (event, throws, is_call) = match happening {
            Happening::Late => {
                world.rebase(OVERDUE + 1);
                return Ok(Some(world));
            }
            Happening::Call { is_concurrent, throws } => (Event::Call { is_concurrent }, throws, true),
            Happening::Turn { throws } => {
                world.turns -= 1;
                (Event::Turn, throws, false)
            }
            Happening::Confirmed { index, throws } => {
                let (number, since) = world.confirmations.remove(index);
                world.unconfirmed = world.unconfirmed.min(since);
                (Event::Confirmed(number), throws, false)
            }
            Happening::Lost { index } => {
                let (number, since) = world.confirmations.remove(index);
                world.unconfirmed = world.unconfirmed.min(since);
                (Event::Lost(number), false, false)
            }
        };
        let had = self.machine.waiting;
        let actions = world.machine.step(event, START);
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let is_failed = matches!(event, Event::Lost(_));
        check(actions.join != actions.write || !is_call, "a call joins or is written, once")?;
        check(is_call || !actions.join, "only calls join")?;
        check(actions.discard_memory == is_failed, "memory is discarded when rows are lost, and only then")?;
        check(!(is_failed && actions.write), "nothing is written for calls that have failed")?;
        check(is_call || had > 0 || !actions.write, "a row without a call")?;
        if let Some(rest) = actions.confirmed_but {
            check(rest >= world.unconfirmed, "a write is confirmed that was issued after the request")?;
        }
        let in_batch = if is_failed { 0 } else { had + u32::from(actions.join) };
        check(world.machine.waiting == in_batch, "the batch is not the calls that joined")?;
        world.request(actions)?;
        if actions.write {
            let outcome = if throws { Event::Threw } else { Event::Written };
            if !throws {
                world.unconfirmed += 1;
                world.confirmations.iter_mut().for_each(|(_, since)| *since += 1);
            }
            let actions = world.machine.step(outcome, START);
            check(world.machine.waiting == 0, "a call of the batch is left after its outcome")?;
            check(!actions.write && !actions.join && !actions.discard_memory, "a write leads to another")?;
            world.request(actions)?;
        } else if throws {
            return Ok(None);
        }
        world.rebase(0);
        world.check()?;
        Ok(Some(world))
    }

    fn request(&mut self, actions: Actions) -> Result<(), String> {
        if actions.turn {
            self.turns = (self.turns + 1).min(PENDING);
        }
        if let Some(number) = actions.confirm {
            if self.confirmations.iter().any(|(other, _)| *other == number) {
                return Err(format!("confirmation {number} was requested twice"));
            }
            self.confirmations.push((number, 0));
            if self.confirmations.len() > PENDING as usize {
                self.confirmations.remove(0);
            }
        }
        Ok(())
    }

    /// Moves the world back in time so that its present is `START` again, and forgets differences
    /// that make none.
    fn rebase(&mut self, elapsed: u64) {
        let aged = |since: u64| if is_due(since, START + elapsed) { START } else { START - OVERDUE - 1 };
        self.machine.pace = match self.machine.pace {
            Pace::Confirming { since } => Pace::Confirming { since: aged(since) },
            Pace::Gathering { since } => Pace::Gathering { since: aged(since) },
            pace => pace,
        };
        // Numbers in the order of the requests, the last highest.
        let numbers: BTreeMap<u32, u32> =
            self.confirmations.iter().rev().map(|(number, _)| *number).zip((1..=PENDING).rev()).collect();
        let renumbered = |number: u32| numbers.get(&number).copied().unwrap_or_default();
        if let Some(pending) = &mut self.machine.pending {
            pending.at = aged(pending.at);
            pending.number = renumbered(pending.number);
        }
        for (number, since) in &mut self.confirmations {
            *number = renumbered(*number);
            *since = (*since).min(self.unconfirmed);
        }
        self.machine.requested = PENDING;
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        let GroupCommit { pace, waiting, unconfirmed, pending, .. } = self.machine;
        let is_open =
            pending.is_some_and(|pending| self.confirmations.iter().any(|(number, _)| *number == pending.number));
        let comes = match pace {
            Pace::Confirming { .. } => is_open,
            Pace::Gathering { .. } => self.turns > 0,
            Pace::Idle | Pace::Busy => waiting == 0,
        };
        let holds = [
            (comes, "nothing that was requested will end the wait"),
            (unconfirmed <= UNCONFIRMED, "too many unconfirmed writes"),
            (self.unconfirmed <= unconfirmed, "a write counts as confirmed that is not"),
            (pending.is_none() || is_open, "a confirmation counts as pending that was not requested"),
        ];
        holds.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err((*what).to_owned()))
    }

    /// Whether all calls in the batch are answered when everything that was requested comes, oldest
    /// first, and no call arrives.
    fn comes_to_rest(&self) -> bool {
        let mut world = self.clone();
        for _ in 0..50 {
            let next = if world.turns > 0 {
                Happening::Turn { throws: false }
            } else if !world.confirmations.is_empty() {
                Happening::Confirmed { index: 0, throws: false }
            } else {
                return world.machine.waiting == 0;
            };
            world = world.after(next).unwrap().unwrap();
        }
        false
    }
}

/// How each state was reached first.
type Ways = HashMap<World, Option<(World, Happening)>>;

/// What happened on the way to `world`, and `last`.
fn way_to(ways: &Ways, world: &World, last: String) -> String {
    let (mut way, mut at) = (vec![last], world);
    while let Some(Some((before, happening))) = ways.get(at) {
        way.push(format!("{happening:?}"));
        at = before;
    }
    way.reverse();
    way.join("\n")
}

/// Visits every state that can be reached, breadth first. Returns how many there are or, if a check
/// fails, the shortest way there.
fn explore(with_late: bool) -> Result<usize, String> {
    let mut came_from = Ways::new();
    let start = World::new();
    came_from.insert(start.clone(), None);
    let mut next = VecDeque::from([start]);
    while let Some(world) = next.pop_front() {
        if !world.comes_to_rest() {
            return Err(way_to(&came_from, &world, format!("does not come to rest: {world:#?}")));
        }
        for happening in world.happenings(with_late) {
            match world.after(happening) {
                Ok(None) => {}
                Ok(Some(after)) => {
                    if let Entry::Vacant(entry) = came_from.entry(after) {
                        next.push_back(entry.key().clone());
                        entry.insert(Some((world.clone(), happening)));
                    }
                }
                Err(what) => {
                    return Err(way_to(&came_from, &world, format!("{happening:?}: {what}; before: {world:#?}")));
                }
            }
        }
    }
    Ok(came_from.len())
}

#[test]
fn in_every_state_that_can_be_reached_all_waiting_calls_will_be_answered() {
    let states = explore(false).unwrap_or_else(|way| panic!("{way}"));
    println!("{states} states");
    assert!(states > 300, "{states}");
}

#[test]
fn the_same_when_turns_and_confirmations_are_late_or_never_come() {
    let states = explore(true).unwrap_or_else(|way| panic!("{way}"));
    println!("{states} states");
    assert!(states > 2_000, "{states}");
}

/// Runs a machine against storage that confirms on command.
#[derive(Default)]
struct Run {
    machine: GroupCommit,
    now: u64,
    rows: u32,
    pending: Vec<u32>,
    turns: u32,
}

impl Run {
    fn event(&mut self, event: Event) {
        let actions = self.machine.step(event, self.now);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Actions) {
        self.pending.extend(actions.confirm);
        self.turns += u32::from(actions.turn);
        if actions.write {
            self.rows += 1;
            self.event(Event::Written);
        }
    }

    fn call(&mut self, is_concurrent: bool) {
        self.event(Event::Call { is_concurrent });
    }

    fn confirm(&mut self) {
        for number in std::mem::take(&mut self.pending) {
            self.event(Event::Confirmed(number));
        }
    }

    fn turn(&mut self) {
        for _ in 0..std::mem::take(&mut self.turns) {
            self.event(Event::Turn);
        }
    }
}

#[test]
fn calls_one_by_one_write_a_row_each_and_request_a_confirmation_at_every_eighth() {
    let mut run = Run::default();
    let mut requested = 0;
    for calls in 1..=80 {
        run.call(false);
        assert_eq!((run.rows, run.turns), (calls, 0));
        requested += run.pending.len();
        run.confirm();
    }
    assert_eq!(requested, 10);
}

#[test]
fn concurrent_calls_share_rows() {
    let mut run = Run::default();
    for _ in 0..30 {
        run.call(true);
    }
    assert_eq!((run.rows, run.pending.len()), (1, 1), "the first writes, the others wait until that is confirmed");
    run.confirm();
    assert_eq!((run.rows, run.turns), (1, 1));
    run.turn();
    assert_eq!((run.rows, run.pending.len()), (2, 1), "one row for the other 29");
    // From here on a row a turn, whether the last is confirmed or not.
    for turn in 1..=6 {
        (0..30).for_each(|_| run.call(true));
        run.turn();
        assert_eq!((run.rows, run.pending.len()), (2 + turn, 1));
    }
    run.call(true);
    run.turn();
    assert_eq!((run.rows, run.pending.len(), run.turns), (9, 1, 0), "a batch of one");
    run.confirm();
    run.confirm();
    run.call(false);
    assert_eq!(run.rows, 10, "and a call alone is written at once again");
}

#[test]
fn a_concurrent_call_waits_for_the_write_of_the_one_before() {
    let mut run = Run::default();
    run.call(false);
    assert_eq!((run.rows, run.pending.len()), (1, 0));
    run.call(true);
    assert_eq!((run.rows, run.pending.len()), (1, 1), "it may still be pending");
    run.confirm();
    assert_eq!(run.rows, 2);
}

#[test]
fn two_calls_in_a_batch_make_the_object_busy_and_one_does_not() {
    let mut run = Run::default();
    run.call(true);
    run.call(true);
    run.confirm();
    assert_eq!(
        (run.rows, run.turns, run.pending.len()),
        (2, 0, 1),
        "one in the batch: written when the last row is confirmed"
    );
    run.call(true);
    run.call(true);
    run.confirm();
    assert_eq!((run.rows, run.turns), (2, 1), "two in the batch: a turn");
    run.turn();
    run.call(true);
    assert_eq!((run.rows, run.turns, run.pending.len()), (3, 1, 1), "and the next call waits for another");
    run.turn();
    assert_eq!((run.rows, run.turns, run.pending.len()), (4, 0, 1));
    // The pending confirmation was requested before that row. The next batch of one waits until the
    // row itself is confirmed.
    run.call(true);
    run.confirm();
    assert_eq!((run.rows, run.pending.len()), (4, 1));
    run.confirm();
    assert_eq!((run.rows, run.pending.len()), (5, 1));
}

#[test]
fn a_wait_that_is_overdue_ends_with_the_next_call() {
    let mut run = Run::default();
    run.call(true);
    run.call(true);
    run.now += OVERDUE;
    run.call(true);
    assert_eq!(run.rows, 1);
    run.now += 1;
    run.call(true);
    assert_eq!((run.rows, run.pending.len()), (2, 2), "the confirmation is requested again");
    // The first confirmation may still come: it covers nothing new.
    let late = run.pending.remove(0);
    assert_eq!(run.machine.step(Event::Confirmed(late), run.now), Actions::default());
    run.confirm();
    assert_eq!(run.machine, GroupCommit { requested: 2, ..GroupCommit::default() });
    // A clock that steps back does not prolong the wait.
    run.call(true);
    run.now -= OVERDUE;
    run.call(true);
    assert_eq!(run.rows, 4);
}
