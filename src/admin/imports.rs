//! Bulk import of keys that were issued elsewhere: each line of JSON is answered with one.

use crate::admin::body::{FromFields, JsonFields, parse};
use crate::admin::keys::{CreateKey, KeyRow};
use crate::http::problem::Problem;
use crate::keys::key::{IMPORTED_LENGTH, ImportedKey, IssuedKey, Signer, is_importable, same_secret};
use crate::keys::profile::Status;
use crate::time::UnixMicros;
use serde_json::Value;
use std::collections::HashMap;

/// Bytes of a body at most.
pub const BODY_LIMIT: usize = 16 * 1024 * 1024;
/// Lines of a body at most.
pub const LINES: usize = 10_000;
/// Bytes of a line at most.
const LINE_LIMIT: usize = 8 * 1024;
/// Lines of a batch at most. A batch is one of the 50 subrequests that a Worker has on the free
/// plan; this limit and the next make at most 30 batches.
const BATCH_LINES: usize = 1_000;
/// The same in bytes: D1 takes values of up to 2 MB.
const BATCH_BYTES: usize = 1024 * 1024;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ImportKey {
    key: String,
    rest: CreateKey,
}

impl FromFields for ImportKey {
    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let key = fields.string("key")?;
        let key = fields.required("key", key)?;
        if !is_importable(&key) {
            let (least, most) = (IMPORTED_LENGTH.start(), IMPORTED_LENGTH.end());
            let reason = format!(
                "must be {least} to {most} visible ASCII characters, none of them a comma, and not of the form of tollgate's own keys and tokens"
            );
            return Err(fields.wrong("key", reason));
        }
        Ok(Self { key, rest: CreateKey::read(fields)? })
    }
}

/// The lines of a body that are not blank, with their numbers from 1 on.
///
/// # Errors
/// 413 if there are too many.
pub fn lines(body: &[u8]) -> Result<impl Iterator<Item = (usize, &[u8])>, Problem> {
    let lines = || (1..).zip(body.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    if lines().nth(LINES).is_some() { Err(Problem::TooManyLines(LINES)) } else { Ok(lines()) }
}

/// What became of each line.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order of the lines.
    lines: Vec<(usize, String)>,
    has_stored: bool,
}

impl Results {
    /// Whether any line was stored.
    #[must_use]
    pub const fn has_stored(&self) -> bool {
        self.has_stored
    }

    /// The place of the result of a line that has none yet.
    fn open(&mut self, line: usize) -> usize {
        self.lines.push((line, String::new()));
        self.lines.len() - 1
    }

    /// A line that was not stored.
    pub fn refuse(&mut self, line: usize, error: &str) {
        let place = self.open(line);
        self.set(place, "error", error);
    }

    fn set(&mut self, place: usize, name: &str, text: &str) {
        if let Some((line, result)) = self.lines.get_mut(place) {
            *result = format!("{{\"line\":{line},\"{name}\":{}}}\n", Value::from(text));
        }
    }

    /// All of them, in the order of the lines.
    #[must_use]
    pub fn into_text(self) -> String {
        self.lines.into_iter().map(|(_, text)| text).collect()
    }
}

/// The secrets that an import needs.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    /// Derives what is stored of a key.
    pub signer: &'a Signer,
    /// `ADMIN_TOKEN`, which is no key.
    pub admin_token: Option<&'a str>,
}

/// A line on its way into D1.
#[derive(Debug)]
struct ImportEntry {
    /// Of its result.
    place: usize,
    /// What its key is under each secret.
    keys: Vec<ImportedKey>,
    row: KeyRow,
    /// Whether an earlier line has the same key.
    is_repeat: bool,
}

/// Lines that go into D1 together.
#[derive(Debug, Default)]
pub struct ImportBatch {
    entries: Vec<ImportEntry>,
    /// JSON of the rows to add, each key once.
    rows: String,
    /// JSON of all ids under which the keys may be stored.
    ids: String,
    /// The ids of the rows.
    added: HashMap<String, u64>,
}

impl ImportBatch {
    /// Reads as many lines as one batch takes; those that cannot be imported become results at
    /// once.
    pub fn read<'a>(
        lines: &mut impl Iterator<Item = (usize, &'a [u8])>,
        authority: Authority<'_>,
        now: UnixMicros,
        results: &mut Results,
    ) -> Self {
        let mut batch = Self::default();
        while batch.entries.len() < BATCH_LINES && batch.rows.len() < BATCH_BYTES {
            let Some((number, line)) = lines.next() else { break };
            match ImportEntry::read(line, authority, now) {
                Ok(entry) => batch.add(ImportEntry { place: results.open(number), ..entry }, now),
                Err(refusal) => results.refuse(number, &refusal.detail().replacen("the body", "the line", 1)),
            }
        }
        batch
    }

    fn add(&mut self, mut entry: ImportEntry, now: UnixMicros) {
        // Of a key that comes twice the first line counts; the second is compared with it.
        entry.is_repeat = self.added.insert(entry.row.id.clone(), 0).is_some();
        if !entry.is_repeat {
            let mut ids = String::new();
            for key in &entry.keys {
                push(&mut ids, &[r#"""#, &key.id, r#"""#]);
            }
            push(&mut self.ids, &[&ids]);
            let key = serde_json::to_string(&entry.row.clone().view(None, now)).unwrap_or_default();
            let hash = &entry.row.secret_hash;
            push(&mut self.rows, &[r#"{"key":"#, &key, r#","hash":""#, hash, r#"","ids":["#, &ids, "]}"]);
        }
        self.entries.push(entry);
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The rows to add, as JSON: `[{key, hash, ids}]` with the key as the admin API shows it.
    #[must_use]
    pub fn rows(&self) -> String {
        format!("[{}]", self.rows)
    }

    /// All ids under which its keys may be stored, as JSON.
    #[must_use]
    pub fn ids(&self) -> String {
        format!("[{}]", self.ids)
    }

    /// Reports each line by what is stored now, in the order of ids.
    pub fn report(&self, stored: &[KeyRow], results: &mut Results) {
        let find = |key: &ImportedKey| {
            let at = stored.binary_search_by(|row| row.id.as_str().cmp(&key.id)).ok()?;
            stored.get(at)
        };
        for entry in &self.entries {
            let error = match entry.keys.iter().find_map(|key| Some((key, find(key)?))) {
                Some((key, row)) => match entry.difference(key, row) {
                    None => {
                        results.has_stored = true;
                        results.set(entry.place, "id", &row.id);
                        continue;
                    }
                    Some(error) => error,
                },
                None if entry.is_repeat => "key: an earlier line has the same key: send this one again".to_owned(),
                None => format!("tier: there is no tier `{}`", entry.row.tier),
            };
            results.set(entry.place, "error", &error);
        }
    }

    /// Reports that the lines may or may not be stored.
    pub fn fail(&self, results: &mut Results) {
        for entry in &self.entries {
            results.set(entry.place, "error", "could not be stored now: send the line again");
        }
    }
}

/// Adds to a JSON list.
fn push(list: &mut String, parts: &[&str]) {
    if !list.is_empty() {
        list.push(',');
    }
    for part in parts {
        list.push_str(part);
    }
}

impl ImportEntry {
    fn read(line: &[u8], authority: Authority<'_>, now: UnixMicros) -> Result<Self, Problem> {
        if line.len() > LINE_LIMIT {
            return Err(Problem::BadRequest(format!("the line has more than {LINE_LIMIT} bytes")));
        }
        let ImportKey { key, rest } = parse(line)?;
        if authority.admin_token.is_some_and(|token| same_secret(token, &key)) {
            return Err(Problem::invalid("key", "admits to the admin API, so it must not be shown at the gate"));
        }
        let keys = ImportedKey::derive(&key, authority.signer);
        let Some(ImportedKey { id, secret_hash }) = keys.first().cloned() else {
            return Err(Problem::Internal);
        };
        let hint = key.get(key.len().saturating_sub(4)..).unwrap_or_default().to_owned();
        let row = rest.into_row(&IssuedKey { id, key, secret_hash, hint }, now);
        Ok(Self { place: 0, keys, row, is_repeat: false })
    }

    /// How this line differs from the row of its key; `None` if it does not.
    fn difference(&self, key: &ImportedKey, stored: &KeyRow) -> Option<String> {
        let row = &self.row;
        if stored.secret_hash != key.secret_hash {
            return Some("key: is imported already and was rotated since".to_owned());
        }
        if stored.status == Status::Revoked {
            return Some("key: is imported already and revoked".to_owned());
        }
        if stored.tier != row.tier {
            return Some(format!("tier: the key is imported already, in tier `{}`", stored.tier));
        }
        let fields = [
            ("name", stored.name == row.name),
            ("owner", stored.owner == row.owner),
            ("metadata", stored.metadata == row.metadata),
            ("expires_at", stored.expires_at == row.expires_at),
        ];
        let (field, _) = fields.into_iter().find(|(_, same)| !same)?;
        Some(format!("{field}: the key is imported already, with another {field}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk_live_0123456789";
    const ADMIN_TOKEN: &str = "0123456789-admin-token";

    fn signer() -> Signer {
        Signer::new("two", ["one"]).unwrap()
    }

    fn now() -> UnixMicros {
        UnixMicros::from_millis(1_000)
    }

    fn read<'a>(lines: &mut impl Iterator<Item = (usize, &'a [u8])>, results: &mut Results) -> ImportBatch {
        ImportBatch::read(lines, Authority { signer: &signer(), admin_token: Some(ADMIN_TOKEN) }, now(), results)
    }

    fn batch(body: &str, results: &mut Results) -> ImportBatch {
        read(&mut lines(body.as_bytes()).unwrap(), results)
    }

    fn report(body: &str, stored: &[KeyRow]) -> String {
        let mut results = Results::default();
        let batch = batch(body, &mut results);
        batch.report(stored, &mut results);
        results.into_text()
    }

    fn line(rest: &str) -> String {
        format!(r#"{{"key":"{KEY}","tier":"free"{rest}}}"#)
    }

    #[test]
    fn a_line_that_is_stored_gets_its_id_and_blank_ones_are_counted() {
        let body = format!("\n\r\n{}\r\n", line(r#","name":"n","metadata":{"a":1}"#));
        let mut results = Results::default();
        let batch = batch(&body, &mut results);
        let row = batch.entries[0].row.clone();
        assert_eq!((row.hint.as_str(), row.name.as_str()), ("6789", "n"));
        assert!(!batch.rows().contains(KEY) && batch.rows().contains(&row.secret_hash));
        assert_eq!(batch.ids().matches(',').count(), 1);
        assert_eq!(report(&body, std::slice::from_ref(&row)), format!("{{\"line\":3,\"id\":\"{}\"}}\n", row.id));
        let older = batch.entries[0].keys[1].clone();
        let row = KeyRow { id: older.id.clone(), secret_hash: older.secret_hash, ..row };
        assert!(report(&body, &[row]).contains(&older.id), "imported under an earlier secret");
    }

    #[test]
    fn a_bad_line_is_told_what_is_wrong_and_the_key_is_not_repeated() {
        let long = format!(r#"{{"key":"{KEY}","tier":"free","owner":"{}"}}"#, "x".repeat(8_200));
        for (line, word) in [
            ("{", "the line is not JSON"),
            ("[]", "the line must be a JSON object"),
            (r#"{"tier":"free"}"#, "key: is missing"),
            (r#"{"key":"0123456789abcde","tier":"free"}"#, "key: must be 16 to 256"),
            (r#"{"key":"0123456789abcdef,","tier":"free"}"#, "key: must be 16 to 256"),
            (r#"{"key":"0123456789-admin-token","tier":"free"}"#, "key: admits to the admin API"),
            (r#"{"key":7,"tier":"free"}"#, "key: must be a string"),
            (r#"{"key":"0123456789abcdef"}"#, "tier: is missing"),
            (r#"{"key":"0123456789abcdef","tier":"free","x":1}"#, "x: there is no such field"),
            (r#"{"key":"0123456789abcdef","tier":"gold"}"#, "tier: there is no tier `gold`"),
            (long.as_str(), "the line has more than 8192 bytes"),
        ] {
            let told = report(line, &[]);
            assert!(told.starts_with(r#"{"line":1,"error":""#) && told.contains(word), "{line}: {told}");
            assert!(!told.contains("0123456789"), "{told}");
        }
    }

    #[test]
    fn a_key_that_is_there_must_be_the_same() {
        let stored = batch(&line(""), &mut Results::default()).entries.remove(0).row;
        let told = |rest: &str| report(&line(rest), std::slice::from_ref(&stored));
        assert!(told("").contains(&stored.id));
        assert!(told(r#","name":"x""#).contains("name: the key is imported already"));
        assert!(told(r#","owner":"x""#).contains("owner: "));
        assert!(told(r#","metadata":{"a":1}"#).contains("metadata: "));
        assert!(told(r#","expires_at":"2031-01-01T00:00:00Z""#).contains("expires_at: "));
        let other = |change: fn(&mut KeyRow)| {
            let mut row = stored.clone();
            change(&mut row);
            report(&line(""), &[row])
        };
        assert!(other(|row| row.tier = "pro".to_owned()).contains("tier: the key is imported already, in tier `pro`"));
        assert!(other(|row| row.status = Status::Revoked).contains("revoked"));
        assert!(other(|row| row.secret_hash = "x".to_owned()).contains("rotated"));
        assert!(other(|row| row.status = Status::Disabled).contains(&stored.id));
    }

    #[test]
    fn a_key_that_comes_twice_is_added_once() {
        let body = format!("{}\n{}", line(""), line(r#","name":"second""#));
        let mut results = Results::default();
        let batch = batch(&body, &mut results);
        assert_eq!((batch.entries.len(), batch.rows().matches("hash").count()), (2, 1));
        batch.report(&[batch.entries[0].row.clone()], &mut results);
        let text = results.into_text();
        assert!(text.starts_with("{\"line\":1,\"id\"") && text.contains("name: the key is imported already"));
    }

    #[test]
    fn batches_are_bounded_in_lines_and_bytes() {
        let entry = |n: usize, size: usize| {
            format!("{{\"key\":\"key-{n:016}\",\"tier\":\"free\",\"metadata\":{{\"a\":\"{}\"}}}}\n", "x".repeat(size))
        };
        let body: String = (0..LINES).map(|n| entry(n, 1)).collect();
        let mut results = Results::default();
        let mut rest = lines(body.as_bytes()).unwrap();
        assert_eq!(read(&mut rest, &mut results).entries.len(), BATCH_LINES);
        assert_eq!(rest.next().unwrap().0, BATCH_LINES + 1);
        let heavy: String = (0..400).map(|n| entry(n, 4_000)).collect();
        let batch = batch(&heavy, &mut results);
        assert!(batch.entries.len() < 400 && batch.rows().len() < BATCH_BYTES + 2 * LINE_LIMIT);
        assert_eq!(lines(format!("{body}x").as_bytes()).err().map(|refusal| refusal.status()), Some(413));
    }

    #[test]
    fn what_is_not_known_to_be_stored_is_said_so() {
        let mut results = Results::default();
        batch(&line(""), &mut results).fail(&mut results);
        assert!(!results.has_stored());
        assert!(results.into_text().contains("send the line again"));
    }
}
