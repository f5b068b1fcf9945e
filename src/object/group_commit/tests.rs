//! Every state that the machine can reach is visited, with what storage and the event loop may do in each.

use super::*;
use crate::key_state::state::judging::{ReportOutcome, ReportedUsage};
use crate::time::UnixMicros;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Calls in a batch at most: the machine tells apart none, one and more.
const CALLS: u32 = 3;
/// Turns and questions that are on their way at most. When one more is asked for, the oldest never comes.
const ON_THEIR_WAY: u32 = 3;

/// The object and its surroundings. Times are relative, so that equal situations are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    machine: GroupCommit,
    /// Turns that were asked for.
    turns: u32,
    /// Questions without an answer, oldest first: the number, and how many writes were issued since it was asked.
    questions: Vec<(u32, u32)>,
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
    /// The answer to one of the questions.
    Confirmed {
        index: usize,
        throws: bool,
    },
    Lost {
        index: usize,
    },
    /// Nothing for so long that all that was asked for is late.
    Late,
}

const START: u64 = 1_000_000;

impl World {
    fn new() -> Self {
        Self { machine: GroupCommit::default(), turns: 0, questions: Vec::new(), unconfirmed: 0 }
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
        for index in 0..self.questions.len() {
            all.extend(both.map(|throws| Happening::Confirmed { index, throws }));
            all.push(Happening::Lost { index });
        }
        if with_late {
            all.push(Happening::Late);
        }
        all
    }

    /// Lets it happen, and checks what must hold of each step. `None` if a write was to throw and there is none.
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
                let (number, since) = world.questions.remove(index);
                world.unconfirmed = world.unconfirmed.min(since);
                (Event::Confirmed(number), throws, false)
            }
            Happening::Lost { index } => {
                let (number, since) = world.questions.remove(index);
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
        check(actions.distrust == is_failed, "memory is distrusted when rows are lost, and only then")?;
        check(!(is_failed && actions.write), "nothing is written for calls that have failed")?;
        check(is_call || had > 0 || !actions.write, "a row without a call")?;
        if let Some(rest) = actions.confirmed_but {
            check(rest >= world.unconfirmed, "a write is confirmed that was issued after the question")?;
        }
        let in_batch = if is_failed { 0 } else { had + u32::from(actions.join) };
        check(world.machine.waiting == in_batch, "the batch is not those who joined")?;
        world.ask_for(actions)?;
        if actions.write {
            let outcome = if throws { Event::Threw } else { Event::Written };
            if !throws {
                world.unconfirmed += 1;
                world.questions.iter_mut().for_each(|(_, since)| *since += 1);
            }
            let actions = world.machine.step(outcome, START);
            check(world.machine.waiting == 0, "a call of the batch is left after its outcome")?;
            check(!actions.write && !actions.join && !actions.distrust, "a write asks for no other")?;
            world.ask_for(actions)?;
        } else if throws {
            return Ok(None);
        }
        world.rebase(0);
        world.check()?;
        Ok(Some(world))
    }

    fn ask_for(&mut self, actions: Actions) -> Result<(), String> {
        if actions.turn {
            self.turns = (self.turns + 1).min(ON_THEIR_WAY);
        }
        if let Some(number) = actions.ask {
            if self.questions.iter().any(|(other, _)| *other == number) {
                return Err(format!("question {number} was asked twice"));
            }
            self.questions.push((number, 0));
            if self.questions.len() > ON_THEIR_WAY as usize {
                self.questions.remove(0);
            }
        }
        Ok(())
    }

    /// Moves the world back in time so that its present is `START` again, and forgets differences that make none.
    fn rebase(&mut self, elapsed: u64) {
        let aged = |since: u64| if is_due(since, START + elapsed) { START } else { START - OVERDUE - 1 };
        self.machine.pace = match self.machine.pace {
            Pace::Confirming { since } => Pace::Confirming { since: aged(since) },
            Pace::Gathering { since } => Pace::Gathering { since: aged(since) },
            pace => pace,
        };
        // Numbers in the order of the questions, the last asked highest.
        let numbers: BTreeMap<u32, u32> =
            self.questions.iter().rev().map(|(number, _)| *number).zip((1..=ON_THEIR_WAY).rev()).collect();
        let renumbered = |number: u32| numbers.get(&number).copied().unwrap_or_default();
        if let Some(question) = &mut self.machine.question {
            question.at = aged(question.at);
            question.number = renumbered(question.number);
        }
        for (number, since) in &mut self.questions {
            *number = renumbered(*number);
            *since = (*since).min(self.unconfirmed);
        }
        self.machine.asked = ON_THEIR_WAY;
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        let GroupCommit { pace, waiting, unconfirmed, question, .. } = self.machine;
        let is_open =
            question.is_some_and(|question| self.questions.iter().any(|(number, _)| *number == question.number));
        let comes = match pace {
            Pace::Confirming { .. } => is_open,
            Pace::Gathering { .. } => self.turns > 0,
            Pace::Idle | Pace::Busy => waiting == 0,
        };
        let holds = [
            (comes, "nothing that was asked for will end the wait"),
            (unconfirmed <= UNCONFIRMED, "too many unconfirmed writes"),
            (self.unconfirmed <= unconfirmed, "a write counts as confirmed that is not"),
            (question.is_none() || is_open, "a question counts as open that was not asked"),
        ];
        holds.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err((*what).to_owned()))
    }

    /// Whether all who wait are answered when all that was asked for comes, oldest first, and nobody calls.
    fn comes_to_rest(&self) -> bool {
        let mut world = self.clone();
        for _ in 0..50 {
            let next = if world.turns > 0 {
                Happening::Turn { throws: false }
            } else if !world.questions.is_empty() {
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

/// What happened on the way to `world`, and what is to be said of it.
fn way_to(ways: &Ways, world: &World, last: String) -> String {
    let (mut way, mut at) = (vec![last], world);
    while let Some(Some((before, happening))) = ways.get(at) {
        way.push(format!("{happening:?}"));
        at = before;
    }
    way.reverse();
    way.join("\n")
}

/// Visits every state that can be reached, breadth first. Gives how many there are and, if a check fails, the shortest way there.
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
fn in_every_state_that_can_be_reached_all_who_wait_will_be_answered() {
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

/// Runs a machine against storage that confirms when it is told to.
#[derive(Default)]
struct Run {
    machine: GroupCommit,
    now: u64,
    rows: u32,
    asked: Vec<u32>,
    turns: u32,
}

impl Run {
    fn event(&mut self, event: Event) {
        let actions = self.machine.step(event, self.now);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Actions) {
        self.asked.extend(actions.ask);
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
        for number in std::mem::take(&mut self.asked) {
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
fn calls_one_by_one_write_a_row_each_and_ask_at_every_eighth() {
    let mut run = Run::default();
    let mut questions = 0;
    for calls in 1..=80 {
        run.call(false);
        assert_eq!((run.rows, run.turns), (calls, 0));
        questions += run.asked.len();
        run.confirm();
    }
    assert_eq!(questions, 10);
}

#[test]
fn calls_in_company_share_rows() {
    let mut run = Run::default();
    for _ in 0..30 {
        run.call(true);
    }
    assert_eq!((run.rows, run.asked.len()), (1, 1), "the first writes, the others wait until that is confirmed");
    run.confirm();
    assert_eq!((run.rows, run.turns), (1, 1));
    run.turn();
    assert_eq!((run.rows, run.asked.len()), (2, 1), "one row for the other 29");
    // From here on a row a turn, whether the last is confirmed or not.
    for turn in 1..=6 {
        (0..30).for_each(|_| run.call(true));
        run.turn();
        assert_eq!((run.rows, run.asked.len()), (2 + turn, 1));
    }
    run.call(true);
    run.turn();
    assert_eq!((run.rows, run.asked.len(), run.turns), (9, 1, 0), "hardly anybody comes any more");
    run.confirm();
    run.confirm();
    run.call(false);
    assert_eq!(run.rows, 10, "and a call alone is written at once again");
}

#[test]
fn a_call_in_company_waits_for_the_write_of_the_one_before() {
    let mut run = Run::default();
    run.call(false);
    assert_eq!((run.rows, run.asked.len()), (1, 0));
    run.call(true);
    assert_eq!((run.rows, run.asked.len()), (1, 1), "it may still be under way");
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
        (run.rows, run.turns, run.asked.len()),
        (2, 0, 1),
        "one in the batch: written when the last row is confirmed"
    );
    run.call(true);
    run.call(true);
    run.confirm();
    assert_eq!((run.rows, run.turns), (2, 1), "two in the batch: a turn");
    run.turn();
    run.call(true);
    assert_eq!((run.rows, run.turns, run.asked.len()), (3, 1, 1), "and the next call waits for another");
    run.turn();
    assert_eq!((run.rows, run.turns, run.asked.len()), (4, 0, 1));
    // The open question was asked before that row. The next batch of one waits until the row itself is confirmed.
    run.call(true);
    run.confirm();
    assert_eq!((run.rows, run.asked.len()), (4, 1));
    run.confirm();
    assert_eq!((run.rows, run.asked.len()), (5, 1));
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
    assert_eq!((run.rows, run.asked.len()), (2, 2), "the question is asked again");
    // The first answer may still come: what it says is old.
    let late = run.asked.remove(0);
    assert_eq!(run.machine.step(Event::Confirmed(late), run.now), Actions::default());
    run.confirm();
    assert_eq!(run.machine, GroupCommit { asked: 2, ..GroupCommit::default() });
    // A clock that steps back does not prolong the wait.
    run.call(true);
    run.now -= OVERDUE;
    run.call(true);
    assert_eq!(run.rows, 4);
}

#[test]
fn a_ledger_learns_of_its_own_rows_alone() {
    let commit = |key_state: &mut KeyState, nonce: u64| {
        let report = ReportedUsage { nonce, calls: 1, ..ReportedUsage::default() };
        key_state.apply_report(&[], UnixMicros::from_millis(START), &report);
        let row = key_state.to_row();
        key_state.committed();
        (row.slot, row.body)
    };
    let mut key_state = KeyState::new("e".to_owned());
    let mut row = (0, String::new());
    for nonce in 1..=20 {
        row = commit(&mut key_state, nonce);
    }
    assert_eq!(key_state.unconfirmed(), 20);
    note_confirmed(&mut key_state, 18);
    assert_eq!(key_state.unconfirmed(), 18);

    // A write threw, and memory was read again. Of the 20 rows that may not be confirmed, nonces are kept until one after them is.
    let mut key_state = KeyState::from_rows([row]).unwrap();
    note_confirmed(&mut key_state, 3);
    let row = commit(&mut key_state, 21);
    note_confirmed(&mut key_state, 1);
    assert_eq!(key_state.unconfirmed(), 1, "the confirmation of a row before it");
    let row_after = commit(&mut key_state, 22);
    for row in [row, row_after] {
        let mut read = KeyState::from_rows([row]).unwrap();
        let mut report = |nonce| {
            let report = ReportedUsage { nonce, calls: 1, ..ReportedUsage::default() };
            read.apply_report(&[], UnixMicros::from_millis(START), &report)
        };
        assert!((3..=21).all(|nonce| report(nonce) == ReportOutcome::Duplicate));
    }
    note_confirmed(&mut key_state, 0);
    assert_eq!(key_state.unconfirmed(), 0);
}
