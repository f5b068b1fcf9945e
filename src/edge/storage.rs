//! The storage of a key's object: two small tables, made with the first row that is worth keeping.
//!
//! - `profile`: one row, the key's profile as it was last read from D1.
//! - `state`: the ring of rows of [`crate::limit`]; each commit writes one. `checked_at` is when D1 last confirmed the profile, in
//!   milliseconds; it rides along so that an object that wakes up knows how old its profile is.

use super::js::{self, Fault};
use crate::limit::State;
use crate::profile::{Profile, ProfileRow};
use serde::Deserialize;
use wasm_bindgen::JsValue;

const CREATE_PROFILE: &str =
    "CREATE TABLE IF NOT EXISTS profile (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL)";
const CREATE_STATE: &str =
    "CREATE TABLE IF NOT EXISTS state (slot INTEGER PRIMARY KEY, body TEXT NOT NULL, checked_at INTEGER NOT NULL)";
const SELECT_TABLES: &str = "SELECT name FROM sqlite_master WHERE name = 'state'";
const SELECT_PROFILE: &str = "SELECT body FROM profile";
const SELECT_STATE: &str = "SELECT slot, body, checked_at FROM state";
const UPSERT_PROFILE: &str =
    "INSERT INTO profile (id, body) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body";
const UPSERT_STATE: &str = "INSERT INTO state (slot, body, checked_at) VALUES (?, ?, ?)
  ON CONFLICT (slot) DO UPDATE SET body = excluded.body, checked_at = excluded.checked_at";

/// What an object had stored.
pub(crate) struct Stored {
    pub(crate) state: State,
    pub(crate) profile: Option<Profile>,
    pub(crate) checked_at: u64,
}

#[derive(Deserialize)]
struct ProfileBody {
    body: String,
}

#[derive(Deserialize)]
struct StateRow {
    slot: u32,
    body: String,
    checked_at: u64,
}

/// The database of one object.
pub(crate) struct Storage {
    /// The `DurableObjectStorage`.
    raw: JsValue,
}

impl Storage {
    pub(crate) fn new(raw: JsValue) -> Self {
        Self { raw }
    }

    /// Everything that is stored; `None` in an object that has stored nothing. Writes nothing.
    pub(crate) fn load(&self) -> Result<Option<Stored>, Fault> {
        if self.rows::<serde::de::IgnoredAny>(SELECT_TABLES)?.is_empty() {
            return Ok(None);
        }
        let rows: Vec<StateRow> = self.rows(SELECT_STATE)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let profile: Vec<ProfileBody> = self.rows(SELECT_PROFILE)?;
        let profile = match profile.first() {
            Some(row) => {
                let row: ProfileRow = serde_json::from_str(&row.body).map_err(Fault::new)?;
                Some(Profile::new(row).map_err(Fault::new)?)
            }
            None => None,
        };
        let checked_at = rows.iter().map(|row| row.checked_at).max().unwrap_or_default();
        let state = State::from_rows(rows.into_iter().map(|row| (row.slot, row.body))).map_err(Fault::new)?;
        Ok(Some(Stored { state, profile, checked_at }))
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Fault> {
        serde_json::from_str(&js::query(&self.raw, sql)?).map_err(Fault::new)
    }

    /// Makes the tables.
    pub(crate) fn create(&self) -> Result<(), Fault> {
        for sql in [CREATE_PROFILE, CREATE_STATE] {
            self.write(sql, [JsValue::UNDEFINED, JsValue::UNDEFINED, JsValue::UNDEFINED])?;
        }
        Ok(())
    }

    /// Stores the profile: one row.
    pub(crate) fn save_profile(&self, profile: &Profile) -> Result<(), Fault> {
        let body = serde_json::to_string(&profile.row).map_err(Fault::new)?;
        self.write(UPSERT_PROFILE, [body.into(), JsValue::UNDEFINED, JsValue::UNDEFINED])?;
        Ok(())
    }

    /// Forgets the profile.
    pub(crate) fn delete_profile(&self) -> Result<(), Fault> {
        self.write("DELETE FROM profile", [JsValue::UNDEFINED, JsValue::UNDEFINED, JsValue::UNDEFINED])?;
        Ok(())
    }

    /// Stores what changed in the state: one row. Gives the number of rows that the cursor counted.
    pub(crate) fn save_state(&self, state: &mut State, checked_at: u64) -> Result<f64, Fault> {
        let row = state.to_row();
        let written = self.write(UPSERT_STATE, [row.slot.into(), row.body.into(), number(checked_at)])?;
        state.committed();
        Ok(written)
    }

    /// Calls back when every write so far is confirmed, with the error if that failed.
    pub(crate) fn when_confirmed(&self, callback: &JsValue) {
        js::when_confirmed(&self.raw, callback);
    }

    fn write(&self, sql: &str, [a, b, c]: [JsValue; 3]) -> Result<f64, Fault> {
        Ok(js::write(&self.raw, sql, a, b, c)?)
    }
}

/// SQL numbers cross as f64.
#[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
fn number(value: u64) -> JsValue {
    JsValue::from_f64(value as f64)
}
