//! What a key's object has in memory. Storage is the truth, memory a copy that is ahead by the
//! write that is pending.

use crate::key_state::audit_log::retention::{audit_cutoff, next_audit_deletion};
use crate::key_state::state::KeyState;
use crate::keys::profile::{Profile, TierChange};
use crate::limiter::policy::PolicyError;
use crate::metering::months::Carried;
use crate::object::alarm_schedule::{AlarmSchedule, Backlog, NextAlarm};
use crate::object::denials::Later;
use crate::object::profile_freshness::{ProfileFreshness, ProfileRead, Readiness};
use crate::time::{Month, UnixMicros};

/// The memory of one object.
#[derive(Debug, Default)]
pub struct Memory {
    /// `None` until storage has been read, and again after a write has failed.
    pub key_state: Option<KeyState>,
    /// `None` if D1 has no such key, or has not answered yet.
    pub profile: Option<Profile>,
    /// When to read the profile.
    pub freshness: ProfileFreshness,
    /// When the alarm comes.
    pub alarm: AlarmSchedule,
    /// Whether the tables exist and hold `profile`.
    pub is_saved: bool,
}

/// What an object has stored.
#[derive(Debug)]
pub struct Stored {
    /// The state.
    pub key_state: KeyState,
    /// The profile as D1 last had it; `None` if D1 had no such key.
    pub profile: Option<Profile>,
    /// When D1 last confirmed the profile, in milliseconds.
    pub checked_at: u64,
}

/// What to do with the stored profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileWrite {
    /// Nothing.
    None,
    /// Store the one in memory.
    Save,
    /// Delete it.
    Delete,
}

/// Storage has to be read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("storage has not been read")]
pub struct NotLoaded;

impl Memory {
    /// Storage has rows.
    pub fn restore(&mut self, stored: Stored) {
        let Stored { key_state, profile, checked_at } = stored;
        self.freshness.loaded(profile.is_some(), checked_at);
        self.key_state = Some(key_state);
        self.profile = profile;
        self.is_saved = true;
    }

    /// Storage has no rows: begins a state under a new `epoch`.
    pub fn begin(&mut self, epoch: String) {
        self.key_state = Some(KeyState::new(epoch));
        self.alarm.storage_is_empty();
        self.is_saved = false;
    }

    /// Storage has to be read again before anything else is judged: a write has failed, or storage
    /// is deleted.
    pub fn discard(&mut self) {
        self.key_state = None;
        self.alarm.discard();
    }

    /// The key's state, and its profile with the policies that hold at `now`. `None` if D1 has no
    /// such key.
    ///
    /// # Errors
    /// [`NotLoaded`].
    pub fn key(&mut self, now: UnixMicros) -> Result<Option<(&mut KeyState, &Profile)>, NotLoaded> {
        let key_state = self.key_state.as_mut().ok_or(NotLoaded)?;
        let Some(profile) = &mut self.profile else { return Ok(None) };
        profile.turn_to(key_state.effective_time(now));
        Ok(Some((key_state, profile)))
    }

    /// Whether something is counted that no row holds.
    #[must_use]
    pub fn has_unwritten_counts(&self) -> bool {
        self.key_state.as_ref().is_some_and(|state| state.is_dirty() || state.has_uncommitted_denials())
    }

    /// Whether something is counted or noted that no row holds.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.has_unwritten_counts() || self.key_state.as_ref().is_some_and(KeyState::has_uncommitted_notes)
    }

    /// Whether the profile does not accept `found`, the hash of a secret that an isolate has just
    /// found in D1.
    #[must_use]
    pub fn is_contradicted(&self, found: Option<&str>, now: UnixMicros) -> bool {
        let accepts = |hash| self.profile.as_ref().is_some_and(|profile| profile.accepts(hash, now));
        found.is_some_and(|hash| !accepts(hash))
    }

    /// Whether a call can be judged from memory. Before storage and the alarm have been read it
    /// cannot, and no read of D1 begins beside it.
    pub fn readiness(&mut self, found: Option<&str>, now: UnixMicros) -> Readiness {
        if self.key_state.is_none() || self.alarm.is_unknown() {
            return Readiness::NotReady;
        }
        let is_contradicted = self.is_contradicted(found, now);
        self.freshness.call(is_contradicted, now.as_millis())
    }

    /// Applies the answer to a read of D1: the profile and what earlier epochs used of this month,
    /// or none if there is no such key. `None` if it comes too late to be applied.
    pub fn apply_answer(&mut self, read: ProfileRead, answer: Option<(Profile, Carried)>) -> Option<ProfileWrite> {
        if !self.freshness.answered(read, answer.is_some()) {
            return None;
        }
        let Some((profile, carried)) = answer else {
            self.profile = None;
            return Some(if self.is_saved { ProfileWrite::Delete } else { ProfileWrite::None });
        };
        let is_changed = self.profile.as_ref().map(|profile| &profile.row) != Some(&profile.row);
        if let (false, Some(key_state)) = (self.is_saved, &mut self.key_state) {
            // This storage has counted nothing yet, so D1's counts of this month are of earlier
            // epochs.
            key_state.carry_over(Month::of(UnixMicros::from_millis(read.began_at())), carried);
        }
        self.profile = Some(profile);
        Some(if is_changed && self.is_saved { ProfileWrite::Save } else { ProfileWrite::None })
    }

    /// The profile after a change of its tier; `None` if that changes nothing.
    ///
    /// # Errors
    /// If the change has an invalid policy.
    pub fn with_tier(&self, change: &TierChange) -> Result<Option<Profile>, PolicyError> {
        let Some(mut profile) = self.profile.clone() else { return Ok(None) };
        Ok(profile.apply_tier(change)?.then_some(profile))
    }

    /// Replaces the profile with that of [`with_tier`](Self::with_tier), which is stored.
    pub fn apply_tier(&mut self, profile: Profile) {
        self.profile = Some(profile);
        self.freshness.tier_applied();
    }

    /// Whether everything can be deleted: the key is gone, no hold is left to be charged, D1 has all
    /// its counts, and its alerts are delivered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let is_done = |state: &KeyState| {
            state.next_hold_expiry().is_none() && state.meter().is_flushed() && state.pending_alerts().is_empty()
        };
        self.is_saved && self.profile.is_none() && self.key_state.as_ref().is_some_and(is_done)
    }

    /// The time to set the alarm to, if something is due and no alarm comes in time.
    pub fn arm(&mut self, flush_seconds: u64, now: UnixMicros, random: impl FnOnce() -> f64) -> Option<u64> {
        let backlog = Backlog::of(self.key_state.as_ref()?, now);
        self.alarm.arm(backlog, flush_seconds, now.as_millis(), random)
    }

    /// What to do about counts that no call waits for; nothing if there are none.
    pub fn counted(&mut self, now: UnixMicros) -> Later {
        if self.has_unwritten() { self.alarm.counted(now.as_millis()) } else { Later::Wait }
    }

    /// The alarm's work begins. Returns the time to set the alarm to first.
    pub fn begin_work(&mut self, flush_seconds: u64, now: UnixMicros, random: impl FnOnce() -> f64) -> u64 {
        let begun = self.alarm.begin_work(flush_seconds, now.as_millis(), random);
        if let (true, Some(key_state)) = (begun.is_clock_right, &mut self.key_state) {
            key_state.trust_clock();
        }
        begun.alarm
    }

    /// Charges holds that have expired, and raises the alerts that are due then.
    pub fn expire_holds(&mut self, thresholds: &[u16], now: UnixMicros) {
        let Some(key_state) = self.key_state.as_mut().filter(|_| self.is_saved) else { return };
        key_state.expire(now);
        if let Some(profile) = &mut self.profile {
            profile.turn_to(key_state.effective_time(now));
            key_state.check_alerts(profile.schedule(), now, thresholds);
        }
    }

    /// What becomes of the alarm after its work.
    pub fn end_work(&mut self, expiry: Option<UnixMicros>, now: UnixMicros) -> NextAlarm {
        let Some(key_state) = &self.key_state else { return NextAlarm::Keep };
        let expiry = expiry.map(UnixMicros::as_millis_ceil);
        self.alarm.work_ended(Backlog::of(key_state, now), expiry, now.as_millis())
    }

    /// Drops expired idempotency keys, and the tail of the audit log if it has expired. Returns the
    /// time up to which stored chunks of the audit log have expired; `None` if there is no profile
    /// that says for how long they are kept.
    pub fn expire(&mut self, now: UnixMicros) -> Option<UnixMicros> {
        let key_state = self.key_state.as_mut()?;
        key_state.expire(now);
        let over = audit_cutoff(now, audit_days(self.profile.as_ref()?));
        key_state.forget_audit(over);
        Some(over)
    }

    /// When something next expires. `oldest_chunk` is when the oldest stored chunk of the audit log
    /// ends.
    #[must_use]
    pub fn next_expiry(&self, oldest_chunk: Option<UnixMicros>, now: UnixMicros) -> Option<UnixMicros> {
        let key_state = self.key_state.as_ref()?;
        let audit = self.profile.as_ref().and_then(|profile| {
            // The age of the tail is not known, but it does not expire before a new entry.
            let has_tail = || key_state.audit_tail().iter().any(|(_, text)| !text.is_empty());
            let oldest = oldest_chunk.or_else(|| has_tail().then_some(now))?;
            Some(next_audit_deletion(oldest, audit_days(profile)))
        });
        key_state.next_expiry().into_iter().chain(audit).min()
    }
}

fn audit_days(profile: &Profile) -> u32 {
    u32::try_from(profile.row.audit_days).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
