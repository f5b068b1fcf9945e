//! A key for tests.

use crate::key_state::state::KeyState;
use crate::keys::profile::Profile;
use crate::object::memory::Memory;
use crate::object::settings::Settings;
use crate::protocol::object_request::{Call, CallOutcomes, Check};
use crate::time::UnixMicros;

pub(crate) const NOW: u64 = 1_930_564_800_000;
pub(crate) const SECRET: &str = "hash";

pub(crate) const fn at(milliseconds: u64) -> UnixMicros {
    UnixMicros::from_millis(milliseconds)
}

/// A profile with policies of minute and month. `rest` are further fields of its row, with a comma
/// before each.
pub(crate) fn profile(minute: u64, month: u64, rest: &str) -> Profile {
    let row = format!(
        r#"{{"id":"k","tier":"free","status":"active","secret_hash":"{SECRET}","policies":[
        {{"policy":"minute","unit":"requests","quota":{minute},"period":"minute","algorithm":"fixed"}},
        {{"policy":"month","unit":"requests","quota":{month},"period":"month","algorithm":"fixed"}}]{rest}}}"#
    );
    Profile::new(serde_json::from_str(&row).unwrap()).unwrap()
}

/// The memory of an object that has written nothing, with a profile that D1 confirmed at [`NOW`].
pub(crate) fn memory(profile: Profile) -> Memory {
    let mut memory = Memory::default();
    memory.begin("e".to_owned());
    let read = memory.freshness.begin_read(NOW);
    memory.apply_answer(read, Some((profile, serde_json::from_str(r#"{"calls":0,"cost":0,"tokens":0}"#).unwrap())));
    memory
}

pub(crate) fn settings() -> Settings {
    Settings { flush_seconds: 60, ..Settings::default() }
}

pub(crate) const fn check(nonce: u64) -> Check<'static> {
    Check {
        call: Call { id: "k", secret_hash: SECRET, method: "POST", path: "/a" },
        nonce,
        is_repeat: false,
        age: None,
        is_concurrent: false,
        is_found: false,
        report: None,
        idempotency_key: None,
        fingerprint: None,
        has_malformed_key: false,
        held: None,
        outcomes: CallOutcomes(""),
    }
}

/// Writes a row.
pub(crate) fn commit(key_state: &mut KeyState) {
    let _ = key_state.to_rows();
    key_state.committed();
}
