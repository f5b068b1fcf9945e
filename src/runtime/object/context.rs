//! What the parts of one object share.

use crate::object::memory::Memory;
use crate::object::settings::Settings;
use crate::runtime::error::Error;
use crate::runtime::object::settings;
use crate::runtime::object::storage::Storage;
use crate::runtime::store::database::Database;
use std::cell::{OnceCell, RefCell};
use wasm_bindgen::JsValue;
use worker::{Env, State};

/// See the module.
pub(super) struct ObjectContext {
    pub(super) state: State,
    pub(super) env: Env,
    pub(super) storage: Storage,
    pub(super) memory: RefCell<Memory>,
    settings: OnceCell<Settings>,
}

impl ObjectContext {
    pub(super) fn new(state: State, env: Env) -> Self {
        let storage = Storage::new(AsRef::<JsValue>::as_ref(state.storage().as_raw()).clone());
        Self { state, env, storage, memory: RefCell::default(), settings: OnceCell::new() }
    }

    pub(super) fn settings(&self) -> &Settings {
        self.settings.get_or_init(|| settings::read(&self.env))
    }

    pub(super) fn database(&self) -> Result<Database, Error> {
        Database::of(&self.env)
    }

    /// The key's id, which is the object's name.
    pub(super) fn key_id(&self) -> Option<String> {
        self.state.id().name()
    }

    /// Reads storage into memory, once in the object's life and after every failed write.
    pub(super) fn load(&self) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        if memory.key_state.is_some() {
            return Ok(());
        }
        match self.storage.load()? {
            Some(stored) => memory.restore(stored),
            None => memory.begin(new_epoch()?),
        }
        Ok(())
    }
}

/// Names one life of an object's storage: 64 random bits.
fn new_epoch() -> Result<String, Error> {
    Ok(format!("{:016x}", getrandom::u64().map_err(Error::new)?))
}
