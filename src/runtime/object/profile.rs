//! What an object knows of its key, and how it stays true: read from storage when the object wakes, from D1 on first use and from
//! then on while the key is in use. D1 may be down; then the object goes on with what it knows.

use crate::gateway::deny_cache::REFUSAL_LIFE;
use crate::key_state::state::KeyState;
use crate::keys::profile::TierChange;
use crate::protocol::object_request::Check;
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::object::flush;
use crate::runtime::object::key_object::{Alarm, Memory, Shared, json};
use crate::runtime::object::storage::Stored;
use crate::runtime::store;
use crate::runtime::store::database::Database;
use crate::runtime::store::profile::StoredKey;
use crate::runtime::{clock, http};
use crate::time::{Month, UnixMicros};
use std::rc::Rc;

/// How old a profile may be and still judge. Changes made in D1 by hand take effect within 60 s, of which an isolate may go on
/// refusing for some.
const PROFILE_LIFE: u64 = 60_000 - REFUSAL_LIFE;
/// From this age on a profile is read again beside the request, so that a busy key never waits for D1.
const PROFILE_RENEWAL: u64 = 30_000;
/// How long not to ask D1 again after it failed, or after it said that there is no such key.
const PROFILE_RETRY: u64 = 5_000;
/// The same while nothing can be judged without it: no longer than clients are told to wait.
const FIRST_PROFILE_RETRY: u64 = 1_000;
/// How long a read of D1 may hold up a key's requests, in milliseconds.
const PROFILE_DEADLINE: u32 = 3_000;
impl Memory {
    /// How old the profile is, in milliseconds; as good as new while D1 is not to be asked again. One from the future is as
    /// old as can be: the clock was wrong then or is now.
    const fn profile_age(&self, now: UnixMicros) -> u64 {
        match now.as_millis().checked_sub(self.checked_at) {
            _ if !self.may_ask_d1(now) => 0,
            Some(age) => age,
            None => u64::MAX,
        }
    }

    /// Whether this is the hash of no secret of the key, as far as is known.
    pub(crate) fn misses(&self, secret_hash: &str, now: UnixMicros) -> bool {
        !self.profile.as_ref().is_some_and(|profile| profile.accepts(secret_hash, now))
    }

    /// Whether D1 may be asked. A pause that is longer than any was set by a clock that was ahead.
    const fn may_ask_d1(&self, now: UnixMicros) -> bool {
        match self.retry_at.checked_sub(now.as_millis()) {
            Some(pause) => pause == 0 || pause > PROFILE_RETRY,
            None => true,
        }
    }
}

impl Shared {
    /// Whether a call can be judged on memory alone. Reads an old profile again beside the call.
    pub(crate) fn is_ready(self: &Rc<Self>, check: &Check<'_>, now: UnixMicros) -> bool {
        let id = check.call.id;
        let memory = self.memory.borrow();
        if check.is_found && memory.misses(check.call.secret_hash, now) {
            return false;
        }
        if memory.key_state.is_none() || memory.alarm == Alarm::Unknown || memory.profile.is_none() {
            return false;
        }
        match memory.profile_age(now) {
            age if age >= PROFILE_LIFE => return false,
            age if age >= PROFILE_RENEWAL && !memory.is_renewing => {
                drop(memory);
                self.renew_beside(id);
            }
            _ => {}
        }
        true
    }

    fn renew_beside(self: &Rc<Self>, id: &str) {
        self.memory.borrow_mut().is_renewing = true;
        let (shared, id) = (Rc::clone(self), id.to_owned());
        self.state.wait_until(async move {
            shared.renew(&id).await;
            shared.memory.borrow_mut().is_renewing = false;
        });
    }

    /// Reads storage and, where that is needed, D1. Gives the one reading of the clock that judges this question.
    pub(crate) async fn prepare(self: &Rc<Self>, id: &str) -> Result<UnixMicros, Error> {
        self.prepare_for(id, None).await
    }

    /// The same for a question that presents a secret. `found` is its hash if the asking isolate has just found it in D1: where it is
    /// not the key's as far as the object knows, D1 is asked again, however lately it was.
    pub(crate) async fn prepare_for(self: &Rc<Self>, id: &str, found: Option<&str>) -> Result<UnixMicros, Error> {
        let now = clock::now();
        self.load()?;
        self.look_for_alarm().await?;
        // What a clock that was ahead has left unflushed does not wait for the next call.
        flush::arm(self, now);
        let adopted = self.memory.borrow().adopted;
        let is_missed = found.is_some_and(|hash| self.memory.borrow().misses(hash, now));
        let needs_d1 = {
            let memory = self.memory.borrow();
            let may_ask = memory.may_ask_d1(now);
            match &memory.profile {
                _ if is_missed => true,
                Some(_) => memory.profile_age(now) >= PROFILE_LIFE,
                None if memory.is_unknown => may_ask,
                None if may_ask => true,
                None => return Err(Error::new("D1 could not be asked a moment ago")),
            }
        };
        if !needs_d1 {
            return Ok(now);
        }
        // Other events wait, so that a thousand first calls ask D1 once.
        let (shared, id) = (Rc::clone(self), id.to_owned());
        let renewal = self.state.block_concurrency_while(async move {
            shared.renew(&id).await;
            Ok(())
        });
        renewal.await?;
        let memory = self.memory.borrow();
        if is_missed && memory.adopted == adopted {
            return Err(Error::new("D1 could not be asked about a key that it had a moment ago"));
        }
        if memory.profile.is_none() && !memory.is_unknown {
            return Err(Error::new("D1 could not be asked about a key that is not known here yet"));
        }
        Ok(clock::now())
    }

    /// Reads storage into memory, once in the object's life and after every failed write.
    pub(crate) fn load(&self) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        if memory.key_state.is_some() {
            return Ok(());
        }
        if let Some(Stored { state, profile, checked_at }) = self.storage.load()? {
            memory.key_state = Some(state);
            memory.is_saved = true;
            memory.checked_at = checked_at;
            memory.profile = profile;
        } else {
            memory.key_state = Some(KeyState::new(new_epoch()?));
            memory.is_saved = false;
            memory.alarm = Alarm::Unset;
        }
        Ok(())
    }

    /// Finds out, once, whether an alarm is set: counts that are not flushed must have one.
    async fn look_for_alarm(&self) -> Result<(), Error> {
        if self.memory.borrow().alarm != Alarm::Unknown {
            return Ok(());
        }
        let found = self.state.storage().get_alarm().await?.and_then(|at| u64::try_from(at).ok());
        let mut memory = self.memory.borrow_mut();
        if memory.alarm == Alarm::Unknown {
            memory.alarm = found.map_or(Alarm::Unset, Alarm::Set);
        }
        Ok(())
    }

    /// Reads the key's row in D1. What fails here leaves everything as it was: the object goes on with what it knows.
    async fn renew(&self, id: &str) {
        let asked_at = clock::now();
        let read_number = {
            let mut memory = self.memory.borrow_mut();
            memory.reads += 1;
            memory.reads
        };
        let epoch =
            self.memory.borrow().key_state.as_ref().map(|key_state| key_state.epoch().to_owned()).unwrap_or_default();
        let read = async {
            let db = Database::of(&self.env)?;
            store::profile::read_profile(&db, id, Month::of(asked_at), &epoch).await
        };
        let result = match within(PROFILE_DEADLINE, read).await {
            Ok(_) if self.memory.borrow().adopted > read_number => return,
            Ok(stored) => match self.adopt(stored, asked_at, read_number) {
                Ok(()) => self.forget_if_gone().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            worker::console_error!("tollgate: key {id} could not be read from D1: {error}");
            let mut memory = self.memory.borrow_mut();
            let pause = if memory.profile.is_some() { PROFILE_RETRY } else { FIRST_PROFILE_RETRY };
            memory.retry_at = asked_at.as_millis() + pause;
        }
    }

    /// Takes over what D1 said when it was read at `asked_at`.
    fn adopt(&self, stored: Option<StoredKey>, asked_at: UnixMicros, read_number: u64) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        memory.adopted = read_number;
        let Some(stored) = stored else {
            memory.profile = None;
            memory.is_unknown = true;
            memory.retry_at = asked_at.as_millis() + PROFILE_RETRY;
            if memory.is_saved {
                self.storage.delete_profile()?;
            }
            return Ok(());
        };
        let is_new = !memory.is_saved;
        let is_changed = memory.profile.as_ref().map(|profile| &profile.row) != Some(&stored.profile.row);
        if let (true, Some(key_state)) = (is_new, &mut memory.key_state) {
            // This storage has counted nothing yet: what D1 has of this month was counted by an earlier life of it.
            key_state.carry_over(Month::of(asked_at), stored.carried);
        }
        memory.is_unknown = false;
        memory.checked_at = asked_at.as_millis();
        memory.profile = Some(stored.profile);
        if is_changed
            && !is_new
            && let Some(profile) = &memory.profile
        {
            self.storage.save_profile(profile)?;
        }
        Ok(())
    }

    /// Takes over a change of the key's tier without asking D1, whatever the age of the profile: D1 may be down when it is over.
    pub(crate) fn apply_tier(&self, change: &TierChange) -> Result<(), Error> {
        self.load()?;
        let mut memory = self.memory.borrow_mut();
        let Some(mut profile) = memory.profile.clone() else { return Ok(()) };
        if profile.apply_tier(change).map_err(Error::new)? {
            if memory.is_saved {
                self.storage.save_profile(&profile)?;
            }
            memory.profile = Some(profile);
            // What a read that is under way brings may be older than this.
            memory.adopted = memory.reads + 1;
        }
        Ok(())
    }

    /// Deletes everything once its key is gone, D1 has all that it counted, and its alerts have been told.
    pub(crate) async fn forget_if_gone(&self) -> Result<(), Error> {
        {
            let mut memory = self.memory.borrow_mut();
            let is_done =
                |key_state: &KeyState| key_state.meter().is_flushed() && key_state.pending_alerts().is_empty();
            if !memory.is_saved || memory.profile.is_some() || !memory.key_state.as_ref().is_some_and(is_done) {
                return Ok(());
            }
            memory.key_state = None;
            memory.alarm = Alarm::Unknown;
        }
        Ok(self.state.storage().delete_all().await?)
    }

    /// The key's id, which is the object's name.
    pub(crate) fn key_id(&self) -> Option<String> {
        self.state.id().name()
    }

    /// Reads the key's row in D1 now, because it has just been changed.
    pub(crate) async fn refresh(self: &Rc<Self>, id: &str) -> http::HttpResult {
        let (shared, owned) = (Rc::clone(self), id.to_owned());
        self.load()?;
        self.state
            .block_concurrency_while(async move {
                shared.renew(&owned).await;
                Ok(())
            })
            .await?;
        json(&())
    }
}

/// Names one life of an object's storage: 64 random bits.
fn new_epoch() -> Result<String, Error> {
    Ok(format!("{:016x}", getrandom::u64().map_err(Error::new)?))
}
