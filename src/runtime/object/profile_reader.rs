//! Reads the key's profile from storage when the object wakes, and from D1, as
//! [`profile_freshness`](crate::object::profile_freshness) decides. While D1 is down the object
//! goes on with the profile that it has.

use crate::keys::profile::TierChange;
use crate::object::memory::ProfileWrite;
use crate::object::profile_freshness::{ProfileRead, Readiness};
use crate::runtime::clock;
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::object::alarm::Alarm;
use crate::runtime::object::context::ObjectContext;
use crate::runtime::store;
use crate::runtime::store::profile::StoredKey;
use crate::time::{Month, UnixMicros};
use std::rc::Rc;

/// The longest time for which a read of D1 may delay a key's requests, in milliseconds.
const DEADLINE: u32 = 3_000;

/// The reader of one object.
#[derive(Clone)]
pub(super) struct ProfileReader {
    context: Rc<ObjectContext>,
    alarm: Alarm,
}

impl ProfileReader {
    pub(super) const fn new(context: Rc<ObjectContext>, alarm: Alarm) -> Self {
        Self { context, alarm }
    }

    /// Whether a call can be judged from memory. Reads an old profile again beside the call.
    /// `found` is the hash of the call's secret if its isolate has just found it in D1.
    pub(super) fn is_ready(&self, id: &str, found: Option<&str>, now: UnixMicros) -> bool {
        let readiness = self.context.memory.borrow_mut().readiness(found, now);
        if readiness == Readiness::ReadyAndRead {
            let (reader, id) = (self.clone(), id.to_owned());
            self.context.state.wait_until(async move {
                reader.read(&id).await;
                reader.context.memory.borrow_mut().freshness.read_beside_ended();
            });
        }
        readiness != Readiness::NotReady
    }

    /// Reads storage and, if needed, D1. Returns the reading of the clock that the request is
    /// judged by. `found` as for [`is_ready`](Self::is_ready).
    pub(super) async fn prepare(&self, id: &str, found: Option<&str>) -> Result<UnixMicros, Error> {
        let now = clock::now();
        self.context.load()?;
        self.alarm.find().await?;
        // Flushes at once what a clock that was ahead has left unflushed.
        self.alarm.arm(now);
        let awaited = {
            let memory = self.context.memory.borrow();
            memory.freshness.prepare(memory.is_contradicted(found, now), now.as_millis()).map_err(Error::new)?
        };
        let Some(awaited) = awaited else { return Ok(now) };
        self.read_before_others(id).await?;
        self.context.memory.borrow().freshness.check_read(awaited).map_err(Error::new)?;
        Ok(clock::now())
    }

    /// Reads the key's row in D1 now, because it has just been changed.
    pub(super) async fn refresh(&self, id: &str) -> Result<(), Error> {
        self.context.load()?;
        self.read_before_others(id).await
    }

    /// Reads D1 while other events wait, so that a thousand first calls read D1 once.
    async fn read_before_others(&self, id: &str) -> Result<(), Error> {
        let (reader, id) = (self.clone(), id.to_owned());
        let read = async move {
            reader.read(&id).await;
            Ok(())
        };
        Ok(self.context.state.block_concurrency_while(read).await?)
    }

    /// Reads the key's row in D1. A failure leaves the profile as it was.
    async fn read(&self, id: &str) {
        let began_at = clock::now();
        let (read, epoch) = {
            let mut memory = self.context.memory.borrow_mut();
            let epoch = memory.key_state.as_ref().map(|key_state| key_state.epoch().to_owned());
            (memory.freshness.begin_read(began_at.as_millis()), epoch.unwrap_or_default())
        };
        let answer = async {
            let db = self.context.database()?;
            store::profile::read_profile(&db, id, Month::of(began_at), &epoch).await
        };
        let result = match within(DEADLINE, answer).await {
            Ok(answer) => self.apply(read, answer).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            worker::console_error!("tollgate: key {id} could not be read from D1: {error}");
            self.context.memory.borrow_mut().freshness.failed(read);
        }
    }

    async fn apply(&self, read: ProfileRead, answer: Option<StoredKey>) -> Result<(), Error> {
        {
            let mut memory = self.context.memory.borrow_mut();
            let Some(write) = memory.apply_answer(read, answer.map(|key| (key.profile, key.carried))) else {
                return Ok(());
            };
            match (write, &memory.profile) {
                (ProfileWrite::Save, Some(profile)) => self.context.storage.save_profile(profile)?,
                (ProfileWrite::Delete, _) => self.context.storage.delete_profile()?,
                (ProfileWrite::Save | ProfileWrite::None, _) => {}
            }
        }
        self.delete_if_done().await
    }

    /// Applies a change of the key's tier without reading D1, whatever the age of the profile: D1
    /// may be down when that is over.
    pub(super) fn apply_tier(&self, change: &TierChange) -> Result<(), Error> {
        self.context.load()?;
        let mut memory = self.context.memory.borrow_mut();
        if let Some(profile) = memory.with_tier(change).map_err(Error::new)? {
            if memory.is_saved {
                self.context.storage.save_profile(&profile)?;
            }
            memory.apply_tier(profile);
        }
        Ok(())
    }

    /// Deletes everything once the key is gone and everything is delivered.
    pub(super) async fn delete_if_done(&self) -> Result<(), Error> {
        {
            let mut memory = self.context.memory.borrow_mut();
            if !memory.is_done() {
                return Ok(());
            }
            memory.discard();
        }
        Ok(self.context.state.storage().delete_all().await?)
    }
}
