//! When a key's object reads the key's profile from D1, and which answers it applies.
//!
//! A state machine without clock, storage or D1. All times are in milliseconds since 1970.
//!
//! - A profile that D1 confirmed less than [`RENEWAL`] ago is used. An older one is used too, and
//!   is read again beside the request. From the age of [`LIFE`] on it is read before the request.
//! - A profile from the future counts as infinitely old: the clock was wrong then, or is now.
//! - After a read that failed there is none for [`RETRY`]; until then a known profile counts as
//!   fresh. Without a profile no call can be judged, so the pause is [`FIRST_RETRY`].
//! - After D1 answered that there is no such key there is no read for [`RETRY`].
//! - A request whose secret an isolate has just found in D1, and which the profile does not accept,
//!   always waits for a read.
//! - Reads are numbered in the order in which they began. An answer changes nothing if the answer
//!   to a later read was applied before it, or a change of the tier that came after its read began.

use crate::gateway::deny_cache::REFUSAL_LIFE;

/// The age up to which a profile is used. A change made in D1 by hand takes effect within 60 s, of
/// which an isolate may go on refusing for [`REFUSAL_LIFE`].
pub const LIFE: u64 = 60_000 - REFUSAL_LIFE;
/// From this age on a profile is read again beside the request, so that a key in use never waits
/// for D1.
pub const RENEWAL: u64 = 30_000;
/// The pause after a failed read, and after D1 answered that there is no such key.
pub const RETRY: u64 = 5_000;
/// The pause after a failed read while there is no profile. Must not exceed the advertised
/// `Retry-After`.
pub const FIRST_RETRY: u64 = 1_000;

/// What D1 has said of the key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum LastAnswer {
    #[default]
    None,
    NoSuchKey,
    Profile,
}

/// Whether a call can be judged from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It can, and D1 is to be read beside it. [`ProfileFreshness::read_beside_ended`] follows.
    ReadyAndRead,
    /// It cannot: [`ProfileFreshness::prepare`] comes first.
    NotReady,
}

/// A read that a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwaitedRead {
    is_contradicted: bool,
    /// The answers that had been applied before.
    answers: u64,
}

/// A read of D1 that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileRead {
    number: u64,
    began_at: u64,
}

impl ProfileRead {
    /// When it began, in milliseconds since 1970.
    #[must_use]
    pub const fn began_at(self) -> u64 {
        self.began_at
    }
}

/// Why a request cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProfileUnavailable {
    /// The last read failed less than a pause ago.
    #[error("the profile could not be read from D1 a moment ago")]
    Paused,
    /// The secret was found in D1 a moment ago, but the object's own read failed.
    #[error("the profile could not be read from D1, which had the key a moment ago")]
    Contradicted,
    /// No read has succeeded yet.
    #[error("the profile could not be read from D1, and none is stored")]
    NeverRead,
}

/// The state of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ProfileFreshness {
    last_answer: LastAnswer,
    /// When the read began that confirmed the profile.
    checked_at: u64,
    /// When D1 may be read again.
    retry_at: u64,
    is_read_beside: bool,
    /// Reads that have begun.
    begun: u64,
    /// The read that was applied last. A change of the tier counts as the read after all that have
    /// begun.
    applied: u64,
    /// How many answers have been applied.
    answers: u64,
}

impl ProfileFreshness {
    /// Storage was read. It holds a profile, or not; `checked_at` is when D1 last confirmed it.
    pub fn loaded(&mut self, has_profile: bool, checked_at: u64) {
        self.checked_at = checked_at;
        self.last_answer = match self.last_answer {
            _ if has_profile => LastAnswer::Profile,
            LastAnswer::Profile => LastAnswer::None,
            other => other,
        };
    }

    /// A call is to be judged. `is_contradicted` if an isolate has just found its secret in D1 and
    /// the profile does not accept it.
    pub fn call(&mut self, is_contradicted: bool, now: u64) -> Readiness {
        if is_contradicted || self.last_answer != LastAnswer::Profile {
            return Readiness::NotReady;
        }
        match self.age(now) {
            age if age >= LIFE => Readiness::NotReady,
            age if age >= RENEWAL && !self.is_read_beside => {
                self.is_read_beside = true;
                Readiness::ReadyAndRead
            }
            _ => Readiness::Ready,
        }
    }

    /// The read beside a call has ended, successfully or not.
    pub const fn read_beside_ended(&mut self) {
        self.is_read_beside = false;
    }

    /// A request can wait for D1. If it needs a read, returns what to [check](Self::check_read)
    /// afterwards.
    ///
    /// # Errors
    /// If it needs a read and a pause has not ended.
    pub fn prepare(&self, is_contradicted: bool, now: u64) -> Result<Option<AwaitedRead>, ProfileUnavailable> {
        let may_read = self.may_read(now);
        let needs_read = match self.last_answer {
            _ if is_contradicted => true,
            LastAnswer::Profile => self.age(now) >= LIFE,
            LastAnswer::NoSuchKey => may_read,
            LastAnswer::None if may_read => true,
            LastAnswer::None => return Err(ProfileUnavailable::Paused),
        };
        Ok(needs_read.then_some(AwaitedRead { is_contradicted, answers: self.answers }))
    }

    /// The read that a request waited for has ended, successfully or not.
    ///
    /// # Errors
    /// If the request still cannot be judged.
    pub fn check_read(&self, awaited: AwaitedRead) -> Result<(), ProfileUnavailable> {
        if awaited.is_contradicted && self.answers == awaited.answers {
            return Err(ProfileUnavailable::Contradicted);
        }
        if self.last_answer == LastAnswer::None {
            return Err(ProfileUnavailable::NeverRead);
        }
        Ok(())
    }

    /// A read of D1 begins.
    pub const fn begin_read(&mut self, now: u64) -> ProfileRead {
        self.begun = self.begun.saturating_add(1);
        ProfileRead { number: self.begun, began_at: now }
    }

    /// D1 has answered, with a profile or with none. `false` if the answer comes too late to be
    /// applied.
    #[must_use]
    pub const fn answered(&mut self, read: ProfileRead, is_found: bool) -> bool {
        if self.applied > read.number {
            return false;
        }
        self.applied = read.number;
        self.answers = self.answers.wrapping_add(1);
        if is_found {
            self.last_answer = LastAnswer::Profile;
            self.checked_at = read.began_at;
        } else {
            self.last_answer = LastAnswer::NoSuchKey;
            self.retry_at = read.began_at.saturating_add(RETRY);
        }
        true
    }

    /// D1 has not answered, or its answer could not be stored.
    pub fn failed(&mut self, read: ProfileRead) {
        let pause = if self.last_answer == LastAnswer::Profile { RETRY } else { FIRST_RETRY };
        self.retry_at = read.began_at.saturating_add(pause);
    }

    /// A change of the key's tier was applied. A read that has begun may return the tier as it was.
    pub const fn tier_applied(&mut self) {
        self.applied = self.begun.saturating_add(1);
    }

    /// When D1 last confirmed the profile.
    #[must_use]
    pub const fn checked_at(&self) -> u64 {
        self.checked_at
    }

    /// How many reads have begun.
    #[must_use]
    pub const fn reads(&self) -> u64 {
        self.begun
    }

    /// The profile's age; 0 during a pause.
    const fn age(&self, now: u64) -> u64 {
        match now.checked_sub(self.checked_at) {
            _ if !self.may_read(now) => 0,
            Some(age) => age,
            None => u64::MAX,
        }
    }

    /// Whether no pause holds. One that is longer than [`RETRY`] was set by a clock that was ahead.
    const fn may_read(&self, now: u64) -> bool {
        let pause = self.retry_at.saturating_sub(now);
        pause == 0 || pause > RETRY
    }
}

#[cfg(test)]
mod tests;
