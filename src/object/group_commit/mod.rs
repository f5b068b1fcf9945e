//! Which calls share a row, and when it is written.
//!
//! A state machine without clock, storage or event loop: [`GroupCommit::step`] takes an [`Event`] and the time, and gives
//! [`Actions`]. The object reports every event and carries out every action.
//!
//! - A call that arrives alone while no write is pending is written immediately.
//! - A call that arrives while a confirmation or a turn is pending joins the batch, which the next write covers.
//! - A batch of fewer than [`BUSY_CALLS`] calls is written when the last write is confirmed.
//! - With [`BUSY_CALLS`] calls or more in a batch the object is busy. It then writes once a turn of the event loop, confirmed or
//!   not: the runtime's output gate holds the answers back until their write is confirmed.
//! - At most [`UNCONFIRMED`] writes are unconfirmed. Each row names the calls of all of them, so that a call that is asked about
//!   again after a crash is recognised.
//!
//! Asking for a confirmation costs about a tenth of a call. Calls that arrive one by one ask for it only when [`UNCONFIRMED`]
//! writes are reached.

use crate::key_state::state::KeyState;

/// From this many calls in a batch on, the object is busy.
pub const BUSY_CALLS: u32 = 2;
/// A confirmation or a turn that has not come after this time, in milliseconds, no longer delays the next write.
pub const OVERDUE: u64 = 1_000;
/// Writes that may be unconfirmed at the same time.
pub const UNCONFIRMED: u32 = 8;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A call was counted. It is answered when a row holds that.
    Call {
        /// Whether its isolate has other questions about the key open.
        is_concurrent: bool,
    },
    /// [`Actions::write`] was carried out.
    Written,
    /// [`Actions::write`] failed: no row holds what was counted since the last.
    Threw,
    /// The turn of [`Actions::turn`] has come.
    Turn,
    /// The question of this number is answered: every row that was written when it was asked is confirmed.
    Confirmed(u32),
    /// The question of this number is answered: a row that was written when it was asked is lost.
    Lost(u32),
}

/// What is to be done, in the order of the fields. Nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each action is asked for by itself")]
pub struct Actions {
    /// Storage has confirmed all but this many of the rows that were written: see [`note_confirmed`].
    pub confirmed_but: Option<u32>,
    /// Storage has lost rows: memory is to be read from it again, and the calls of the batch have failed.
    pub distrust: bool,
    /// The call joins the batch.
    pub join: bool,
    /// Everything counted so far is to be written. The call that did not join and the calls of the batch are answered with the
    /// outcome, which is the next event.
    pub write: bool,
    /// A turn of the event loop is to be asked for.
    pub turn: bool,
    /// Storage is to be asked, under this number, when everything written so far is confirmed.
    pub ask: Option<u32>,
}

/// When the next write comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Pace {
    /// With the next call.
    #[default]
    Idle,
    /// With a confirmation. In milliseconds since 1970.
    Confirming { since: u64 },
    /// With a turn.
    Gathering { since: u64 },
    /// With the turn after the next call: the last write was shared.
    Busy,
}

/// A question that storage has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Confirmation {
    number: u32,
    /// How many of the unconfirmed writes had been issued when it was asked.
    covers: u32,
    /// In milliseconds since 1970.
    at: u64,
}

/// The state of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GroupCommit {
    pace: Pace,
    /// Calls in the batch.
    waiting: u32,
    /// Writes that may not be confirmed yet, those of memory that was thrown away included.
    unconfirmed: u32,
    /// The last question, while it has no answer. Answers to earlier ones confirm nothing.
    question: Option<Confirmation>,
    /// How many questions there were.
    asked: u32,
}

impl GroupCommit {
    /// Takes note of an event at `now`, in milliseconds since 1970.
    pub fn step(&mut self, event: Event, now: u64) -> Actions {
        let mut actions = Actions::default();
        match event {
            Event::Call { is_concurrent } => self.call(is_concurrent, now, &mut actions),
            Event::Written => {
                self.waiting = 0;
                self.unconfirmed = self.unconfirmed.saturating_add(1);
                if self.pace != Pace::Idle {
                    self.ask(now, &mut actions);
                }
            }
            Event::Threw => {
                self.waiting = 0;
                self.pace = Pace::Idle;
            }
            Event::Turn => self.turn(now, &mut actions),
            Event::Confirmed(number) => {
                if self.is_answered(number) {
                    actions.confirmed_but = Some(self.unconfirmed);
                    self.go_on(now, &mut actions);
                }
            }
            Event::Lost(number) => {
                actions.distrust = true;
                self.waiting = 0;
                if self.is_answered(number) {
                    self.go_on(now, &mut actions);
                }
            }
        }
        actions
    }

    fn call(&mut self, is_concurrent: bool, now: u64, actions: &mut Actions) {
        let is_full = self.unconfirmed >= UNCONFIRMED;
        match self.pace {
            Pace::Idle if is_full || is_concurrent && self.unconfirmed > 0 => {
                // The others' write may still be under way.
                self.join(actions);
                self.wait_for_confirmation(now, actions);
            }
            Pace::Idle => {
                if is_concurrent || self.unconfirmed.saturating_add(1) >= UNCONFIRMED {
                    self.pace = Pace::Confirming { since: now };
                }
                actions.write = true;
            }
            Pace::Confirming { since } | Pace::Gathering { since } if is_due(since, now) => self.join(actions),
            Pace::Confirming { .. } | Pace::Gathering { .. } if is_full => {
                self.join(actions);
                self.wait_for_confirmation(now, actions);
            }
            Pace::Confirming { .. } | Pace::Gathering { .. } => {
                self.pace = Pace::Confirming { since: now };
                actions.write = true;
            }
            Pace::Busy => {
                self.join(actions);
                self.gather(now, actions);
            }
        }
    }

    fn turn(&mut self, now: u64, actions: &mut Actions) {
        if !matches!(self.pace, Pace::Gathering { .. }) {
            return;
        }
        if self.waiting == 0 {
            self.pace = Pace::Idle;
        } else if self.unconfirmed >= UNCONFIRMED {
            // Storage does not keep up.
            self.wait_for_confirmation(now, actions);
        } else {
            self.pace = if self.waiting >= BUSY_CALLS { Pace::Busy } else { Pace::Confirming { since: now } };
            actions.write = true;
        }
    }

    /// Goes on after the answer to the last question.
    fn go_on(&mut self, now: u64, actions: &mut Actions) {
        if !matches!(self.pace, Pace::Confirming { .. }) {
            return;
        }
        if self.unconfirmed > 0 {
            // It was asked before the last write.
            self.ask(now, actions);
        } else if self.waiting == 0 {
            self.pace = Pace::Idle;
        } else if self.waiting >= BUSY_CALLS {
            self.gather(now, actions);
        } else {
            self.pace = Pace::Confirming { since: now };
            actions.write = true;
        }
    }

    fn join(&mut self, actions: &mut Actions) {
        self.waiting = self.waiting.saturating_add(1);
        actions.join = true;
    }

    fn gather(&mut self, now: u64, actions: &mut Actions) {
        self.pace = Pace::Gathering { since: now };
        actions.turn = true;
    }

    /// The only way to wait for a confirmation without a write: whoever does so sees to it that one is asked for.
    fn wait_for_confirmation(&mut self, now: u64, actions: &mut Actions) {
        self.pace = Pace::Confirming { since: now };
        self.ask(now, actions);
    }

    /// Asks when the writes so far are confirmed, unless an answer is due.
    fn ask(&mut self, now: u64, actions: &mut Actions) {
        if self.question.is_some_and(|question| is_due(question.at, now)) {
            return;
        }
        self.asked = self.asked.wrapping_add(1);
        self.question = Some(Confirmation { number: self.asked, covers: self.unconfirmed, at: now });
        actions.ask = Some(self.asked);
    }

    /// Takes note of the answer to a question. False if that was not the last.
    fn is_answered(&mut self, number: u32) -> bool {
        match self.question {
            Some(question) if question.number == number => {
                self.question = None;
                self.unconfirmed = self.unconfirmed.saturating_sub(question.covers);
                true
            }
            _ => false,
        }
    }
}

/// Whether something that was asked for at `since` may still come in time. A clock that stepped back makes it late.
const fn is_due(since: u64, now: u64) -> bool {
    match now.checked_sub(since) {
        Some(elapsed) => elapsed <= OVERDUE,
        None => false,
    }
}

/// Tells `key_state` that storage has confirmed all rows but the last `rest`. Rows that were confirmed before it was read from storage
/// are none of its own.
pub fn note_confirmed(key_state: &mut KeyState, rest: u32) {
    if key_state.unconfirmed() > rest as usize {
        key_state.confirmed(key_state.last_commit().saturating_sub(u64::from(rest)));
    }
}

#[cfg(test)]
mod tests;
