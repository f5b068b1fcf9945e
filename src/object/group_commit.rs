//! Which calls share a row, and when it is written.
//!
//! A state machine without clock, storage or event loop: [`GroupCommit::step`] takes an [`Event`]
//! and the time, and returns [`Actions`]. The object reports every event and carries out every
//! action.
//!
//! - A call that arrives alone while no write is pending is written immediately.
//! - A call that arrives while a confirmation or a turn is pending joins the batch, which the next
//!   write covers.
//! - A batch of fewer than [`BUSY_CALLS`] calls is written when the last write is confirmed.
//! - With [`BUSY_CALLS`] calls or more in a batch the object is busy. It then writes once a turn of
//!   the event loop, confirmed or not: the runtime's output gate holds the responses back until
//!   their write is confirmed.
//! - At most [`UNCONFIRMED`] writes are unconfirmed. Each row names the calls of all of them, so
//!   that a call that is repeated after a crash is recognised.
//!
//! Requesting a confirmation costs about a tenth of a call. Calls that arrive one by one request it
//! only when [`UNCONFIRMED`] writes are reached.

/// From this many calls in a batch on, the object is busy.
pub const BUSY_CALLS: u32 = 2;
/// A confirmation or a turn that has not come after this time, in milliseconds, no longer delays
/// the next write.
pub const OVERDUE: u64 = 1_000;
/// Writes that may be unconfirmed at the same time.
pub const UNCONFIRMED: u32 = 8;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A call was counted. It is answered when a row holds the count.
    Call {
        /// Whether its isolate has other requests to the object in flight.
        is_concurrent: bool,
    },
    /// [`Actions::write`] was carried out.
    Written,
    /// [`Actions::write`] failed: nothing since the last row is durable.
    Threw,
    /// The turn of [`Actions::turn`] has come.
    Turn,
    /// Storage has confirmed every row that was written when this confirmation was requested.
    Confirmed(u32),
    /// Storage has lost a row that was written when this confirmation was requested.
    Lost(u32),
}

/// What to do, in the order of the fields. Nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an action of its own")]
pub struct Actions {
    /// Storage has confirmed all but this many of the rows that were written: see
    /// [`KeyState::note_confirmed`](crate::key_state::state::KeyState::note_confirmed).
    pub confirmed_but: Option<u32>,
    /// Storage has lost rows: discard memory, and fail the calls of the batch.
    pub discard_memory: bool,
    /// The call joins the batch.
    pub join: bool,
    /// Write everything that has been counted. The outcome answers the call that did not join and
    /// the calls of the batch, and is the next event.
    pub write: bool,
    /// Request a turn of the event loop.
    pub turn: bool,
    /// Request, under this number, a confirmation of everything that has been written.
    pub confirm: Option<u32>,
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
    /// With the turn after the next call: several calls shared the last write.
    Busy,
}

/// A request for a confirmation that storage has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Confirmation {
    number: u32,
    /// How many of the unconfirmed writes had been issued before it.
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
    /// Writes that may not be confirmed yet, those of discarded memory included.
    unconfirmed: u32,
    /// The last request, while it has no answer. Answers to earlier ones confirm nothing.
    pending: Option<Confirmation>,
    /// How many confirmations have been requested.
    requested: u32,
}

impl GroupCommit {
    /// Handles an event at `now`, in milliseconds since 1970.
    pub fn step(&mut self, event: Event, now: u64) -> Actions {
        let mut actions = Actions::default();
        match event {
            Event::Call { is_concurrent } => self.call(is_concurrent, now, &mut actions),
            Event::Written => {
                self.waiting = 0;
                self.unconfirmed = self.unconfirmed.saturating_add(1);
                if self.pace != Pace::Idle {
                    self.confirm(now, &mut actions);
                }
            }
            Event::Threw => {
                self.waiting = 0;
                self.pace = Pace::Idle;
            }
            Event::Turn => self.turn(now, &mut actions),
            Event::Confirmed(number) => {
                if self.answered(number) {
                    actions.confirmed_but = Some(self.unconfirmed);
                    self.go_on(now, &mut actions);
                }
            }
            Event::Lost(number) => {
                actions.discard_memory = true;
                self.waiting = 0;
                if self.answered(number) {
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
                // The write of the other calls may still be pending.
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

    /// Goes on after the answer to the last request.
    fn go_on(&mut self, now: u64, actions: &mut Actions) {
        if !matches!(self.pace, Pace::Confirming { .. }) {
            return;
        }
        if self.unconfirmed > 0 {
            // It was requested before the last write.
            self.confirm(now, actions);
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

    /// The only way to wait for a confirmation without a write: it ensures that one is requested.
    fn wait_for_confirmation(&mut self, now: u64, actions: &mut Actions) {
        self.pace = Pace::Confirming { since: now };
        self.confirm(now, actions);
    }

    /// Requests a confirmation of the writes so far, unless one may still come.
    fn confirm(&mut self, now: u64, actions: &mut Actions) {
        if self.pending.is_some_and(|confirmation| is_due(confirmation.at, now)) {
            return;
        }
        self.requested = self.requested.wrapping_add(1);
        self.pending = Some(Confirmation { number: self.requested, covers: self.unconfirmed, at: now });
        actions.confirm = Some(self.requested);
    }

    /// Handles the answer to a request. `false` if it was not the last.
    fn answered(&mut self, number: u32) -> bool {
        match self.pending {
            Some(confirmation) if confirmation.number == number => {
                self.pending = None;
                self.unconfirmed = self.unconfirmed.saturating_sub(confirmation.covers);
                true
            }
            _ => false,
        }
    }
}

/// Whether something that was requested at `since` may still come in time. A clock that stepped
/// back makes it late.
const fn is_due(since: u64, now: u64) -> bool {
    match now.checked_sub(since) {
        Some(elapsed) => elapsed <= OVERDUE,
        None => false,
    }
}

#[cfg(test)]
mod tests;
