//! The storage of a key's object: small tables, created with the first row.
//!
//! - `profile`: one row, the key's profile as it was last read from D1.
//! - `state`: the ring of rows of [`crate::key_state`]; each commit writes one. `checked_at` is
//!   when D1 last confirmed the profile, in milliseconds. It is part of each row so that the age of
//!   the profile is known when the object wakes.
//! - `replays` and `audit`: chunks of idempotency keys and of the audit log, whose tails are part
//!   of the state's row.

use crate::key_state::audit_log::entry::AuditEntry;
use crate::key_state::audit_log::reader::{AuditCursor, AuditQuery, AuditReader};
use crate::key_state::audit_log::retention::{AUDIT_BYTES, audit_surplus};
use crate::key_state::row::Rows;
use crate::key_state::state::KeyState;
use crate::keys::profile::{Profile, ProfileRow};
use crate::object::memory::Stored;
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::time::UnixMicros;
use serde::Deserialize;
use std::cell::Cell;
use wasm_bindgen::JsValue;

const CREATE_PROFILE: &str =
    "CREATE TABLE IF NOT EXISTS profile (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL)";
const CREATE_STATE: &str =
    "CREATE TABLE IF NOT EXISTS state (slot INTEGER PRIMARY KEY, body TEXT NOT NULL, checked_at INTEGER NOT NULL)";
const SELECT_TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table'";
const SELECT_PROFILE: &str = "SELECT body FROM profile";
// Chunks are in the order of their times.
const SELECT_OLDEST_AUDIT: &str = "SELECT to_ms FROM audit ORDER BY seq LIMIT 1";
const SELECT_STATE: &str = "SELECT slot, body, checked_at FROM state";
const UPSERT_PROFILE: &str =
    "INSERT INTO profile (id, body) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body";
/// Created with the first chunk: most keys need neither table.
const CREATE_REPLAYS: &str =
    "CREATE TABLE IF NOT EXISTS replays (id INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL, body TEXT NOT NULL)";
const CREATE_AUDIT: &str = "CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY, from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL, body TEXT NOT NULL)";
const UPSERT_REPLAYS: &str = "INSERT OR REPLACE INTO replays (id, until_ms, body) VALUES (?, ?, ?)";
const UPSERT_AUDIT: &str = "INSERT OR REPLACE INTO audit (seq, from_ms, to_ms, body) VALUES (?, ?, ?, ?)";
const DELETE_OLDEST_AUDIT: &str = "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit ORDER BY seq LIMIT ?)";
const UPSERT_STATE: &str = "INSERT INTO state (slot, body, checked_at) VALUES (?, ?, ?)
  ON CONFLICT (slot) DO UPDATE SET body = excluded.body, checked_at = excluded.checked_at";

/// Chunks of the audit log that are read at a time.
const CHUNKS_AT_ONCE: usize = 64;
/// Expired chunks of the audit log that are deleted at a time.
const DELETED_AT_ONCE: usize = 4_096;

#[derive(Deserialize)]
struct Table {
    name: String,
}

#[derive(Deserialize)]
struct AuditChunk {
    seq: u64,
    body: String,
}

#[derive(Deserialize)]
struct Chunk {
    id: u32,
    body: String,
}

#[derive(Deserialize)]
struct ProfileBody {
    body: String,
}

#[derive(Deserialize)]
struct StoredState {
    slot: u32,
    body: String,
    checked_at: u64,
}

#[derive(Deserialize)]
struct AuditEnd {
    to_ms: u64,
}

/// The database of one object.
pub(super) struct Storage {
    /// The `DurableObjectStorage`.
    raw: JsValue,
    /// The state of `writer.js`: the open batch.
    writer: JsValue,
    /// Whether these tables are known to be there.
    has_replays: Cell<bool>,
    has_audit: Cell<bool>,
}

impl Storage {
    pub(super) fn new(raw: JsValue) -> Self {
        Self { raw, writer: js_sys::Object::new().into(), has_replays: Cell::new(false), has_audit: Cell::new(false) }
    }

    /// Reads everything that is stored; `None` if nothing is. Writes nothing.
    pub(super) fn load(&self) -> Result<Option<Stored>, Error> {
        let tables: Vec<Table> = self.rows(SELECT_TABLES)?;
        let has = |name| tables.iter().any(|table| table.name == name);
        self.has_replays.set(has("replays"));
        self.has_audit.set(has("audit"));
        if !has("state") {
            return Ok(None);
        }
        let rows: Vec<StoredState> = self.rows(SELECT_STATE)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let profile: Vec<ProfileBody> = self.rows(SELECT_PROFILE)?;
        let profile = match profile.first() {
            Some(row) => {
                let row: ProfileRow = serde_json::from_str(&row.body).map_err(Error::new)?;
                Some(Profile::new(row).map_err(Error::new)?)
            }
            None => None,
        };
        let checked_at = rows.iter().map(|row| row.checked_at).max().unwrap_or_default();
        let mut key_state =
            KeyState::from_rows(rows.into_iter().map(|row| (row.slot, row.body))).map_err(Error::new)?;
        if self.has_replays.get() {
            let chunks: Vec<Chunk> = self.rows("SELECT id, body FROM replays ORDER BY id")?;
            key_state.load_replays(chunks.into_iter().map(|chunk| (chunk.id, chunk.body))).map_err(Error::new)?;
        }
        Ok(Some(Stored { key_state, profile, checked_at }))
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Error> {
        serde_json::from_str(&js::storage::query(&self.raw, sql)?).map_err(Error::new)
    }

    /// Creates the tables.
    pub(super) fn create(&self) -> Result<(), Error> {
        for sql in [CREATE_PROFILE, CREATE_STATE] {
            self.write(sql, [])?;
        }
        Ok(())
    }

    /// Stores the profile: one row.
    pub(super) fn save_profile(&self, profile: &Profile) -> Result<(), Error> {
        let body = serde_json::to_string(&profile.row).map_err(Error::new)?;
        self.write(UPSERT_PROFILE, [body.into()])?;
        Ok(())
    }

    /// Deletes the profile.
    pub(super) fn delete_profile(&self) -> Result<(), Error> {
        self.write("DELETE FROM profile", [])?;
        Ok(())
    }

    /// Stores what changed in the state: one row, and sometimes chunks, in one transaction. Returns
    /// the number of rows written.
    pub(super) fn save_state(&self, state: &mut KeyState, checked_at: u64) -> Result<f64, Error> {
        let Rows { row, replays, expired_replays, audit } = state.to_rows();
        let row = [row.slot.into(), row.body.into(), number(checked_at)];
        let (has_replays, has_audit) = (!replays.is_empty(), !audit.is_empty());
        let written = if has_replays || has_audit || !expired_replays.is_empty() {
            let statements = js_sys::Array::new();
            if has_audit && !self.has_audit.get() {
                statements.push(&statement(CREATE_AUDIT, []));
            }
            let size = if has_audit { js::storage::database_size(&self.raw) } else { 0.0 };
            for chunk in audit {
                let surplus = audit_surplus(bytes(size), AUDIT_BYTES, chunk.body.len());
                if surplus > 0 {
                    statements.push(&statement(DELETE_OLDEST_AUDIT, [JsValue::from(surplus)]));
                }
                let (from, to) = (number(chunk.from.as_millis()), number(chunk.to.as_millis()));
                statements.push(&statement(UPSERT_AUDIT, [number(chunk.seq), from, to, chunk.body.into()]));
            }
            // First, because a chunk that is left from a failed write may have the number of a new
            // one.
            for id in expired_replays {
                statements.push(&statement("DELETE FROM replays WHERE id = ?", [id.into()]));
            }
            if has_replays && !self.has_replays.get() {
                statements.push(&statement(CREATE_REPLAYS, []));
            }
            for chunk in replays {
                let until = number(chunk.until.as_millis());
                statements.push(&statement(UPSERT_REPLAYS, [chunk.id.into(), until, chunk.body.into()]));
            }
            statements.push(&statement(UPSERT_STATE, row));
            let written = js::storage::write_all(&self.raw, &statements)?;
            self.has_replays.set(self.has_replays.get() || has_replays);
            self.has_audit.set(self.has_audit.get() || has_audit);
            written
        } else {
            self.write(UPSERT_STATE, row)?
        };
        state.committed();
        Ok(written)
    }

    /// Reads a page of the audit log from the chunks that it needs, the tail last.
    pub(super) fn read_audit(
        &self,
        state: &KeyState,
        query: AuditQuery,
    ) -> Result<(Vec<AuditEntry>, Option<AuditCursor>), Error> {
        let mut reader = AuditReader::new(query);
        let mut next = query.cursor.map_or(0, |cursor| cursor.seq);
        let from = query.from.as_millis();
        let tail = state.audit_tail();
        // An earlier version may have left chunks of rows that were not written.
        let end = tail.first().map_or(0, |(seq, _)| *seq);
        while self.has_audit.get() {
            let select = format!(
                "SELECT seq, body FROM audit WHERE seq >= {next} AND seq < {end} AND to_ms >= {from} ORDER BY seq LIMIT {CHUNKS_AT_ONCE}"
            );
            let chunks: Vec<AuditChunk> = self.rows(&select)?;
            let is_last = chunks.len() < CHUNKS_AT_ONCE;
            for chunk in chunks {
                next = chunk.seq.saturating_add(1);
                if !reader.feed(chunk.seq, &chunk.body).map_err(Error::new)? {
                    return Ok(reader.finish());
                }
            }
            if is_last {
                break;
            }
        }
        for (seq, text) in tail {
            reader.feed(seq, &text).map_err(Error::new)?;
        }
        Ok(reader.finish())
    }

    /// Calls back with `number` when every write so far is confirmed, and with the error if that
    /// failed.
    pub(super) fn when_confirmed(&self, callback: &JsValue, number: u32) {
        js::writer::when_confirmed(&self.raw, &self.writer, callback, number);
    }

    /// Calls back when every event that has already arrived has been handled.
    pub(super) fn next_turn(&self, callback: &JsValue) {
        js::writer::next_turn(&self.writer, callback);
    }

    /// Opens the batch of the calls that wait for the next write.
    pub(super) fn open_batch(&self) -> JsValue {
        js::writer::open_batch(&self.writer)
    }

    /// Deletes chunks of the audit log that have ended by `until`: at most [`DELETED_AT_ONCE`].
    /// Returns when the oldest chunk that is left ends.
    pub(super) fn delete_audit_until(&self, until: UnixMicros) -> Result<Option<UnixMicros>, Error> {
        let oldest = self.oldest_audit()?;
        if oldest.is_none_or(|oldest| oldest > until) {
            return Ok(oldest);
        }
        let until = number(until.as_millis());
        let delete = format!(
            "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE to_ms <= ? ORDER BY seq LIMIT {DELETED_AT_ONCE})"
        );
        self.write(&delete, [until])?;
        self.oldest_audit()
    }

    /// When the oldest chunk of the audit log ends; `None` if there is none.
    pub(super) fn oldest_audit(&self) -> Result<Option<UnixMicros>, Error> {
        if !self.has_audit.get() {
            return Ok(None);
        }
        let oldest: Vec<AuditEnd> = self.rows(SELECT_OLDEST_AUDIT)?;
        Ok(oldest.first().map(|row| UnixMicros::from_millis(row.to_ms)))
    }

    /// Runs a statement; returns how many rows it wrote.
    fn write<const N: usize>(&self, sql: &str, values: [JsValue; N]) -> Result<f64, Error> {
        Ok(js::storage::write(&self.raw, sql, values.into())?)
    }
}

/// A statement as [`js::storage::write_all`] takes it.
fn statement<const N: usize>(sql: &str, values: [JsValue; N]) -> js_sys::Array {
    std::iter::once(sql.into()).chain(values).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a database, less than 2^53")]
fn bytes(size: f64) -> u64 {
    size as u64
}

/// SQL numbers cross as f64.
#[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
fn number(value: u64) -> JsValue {
    JsValue::from_f64(value as f64)
}
