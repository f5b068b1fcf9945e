//! Bulk import of keys that were issued elsewhere. The response has one line for each line of the
//! request.

use crate::admin::body::{FromFields, JsonFields, parse};
use crate::admin::keys::{CreateKey, KeyRow};
use crate::http::problem::Problem;
use crate::keys::key::{IMPORTED_LENGTH, ImportedKey, IssuedKey, Signer, is_importable, same_secret};
use crate::keys::profile::Status;
use crate::time::UnixMicros;
use serde_json::Value;
use std::collections::HashMap;

/// The most lines of a body.
pub const LINES: usize = 10_000;
/// The longest line, in bytes.
const LINE_LIMIT: usize = 8 * 1024;
/// The most lines of a batch. Each batch is a subrequest, of which a Worker on the free plan has
/// 50; this limit and the next result in at most 30 batches.
const BATCH_LINES: usize = 1_000;
/// The largest batch, in bytes. D1 accepts values of up to 2 MB.
const BATCH_BYTES: usize = 1024 * 1024;

/// A line of the request.
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
                "must be {least} to {most} visible ASCII characters without commas, and not have the form of tollgate's own keys and tokens"
            );
            return Err(fields.wrong("key", reason));
        }
        Ok(Self { key, rest: CreateKey::read(fields)? })
    }
}

/// The lines of a body that are not blank, numbered from 1; blank lines are counted.
///
/// # Errors
/// 413 if there are too many.
pub fn lines(body: &[u8]) -> Result<impl Iterator<Item = (usize, &[u8])>, Problem> {
    let lines = || (1..).zip(body.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    if lines().nth(LINES).is_some() { Err(Problem::TooManyLines(LINES)) } else { Ok(lines()) }
}

/// The result of each line.
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

    /// Reserves the place of a line's result.
    fn open(&mut self, line: usize) -> usize {
        self.lines.push((line, String::new()));
        self.lines.len() - 1
    }

    /// Records the error of a line that was not stored.
    pub fn refuse(&mut self, line: usize, error: &str) {
        let place = self.open(line);
        self.set(place, "error", error);
    }

    fn set(&mut self, place: usize, name: &str, text: &str) {
        if let Some((line, result)) = self.lines.get_mut(place) {
            *result = format!("{{\"line\":{line},\"{name}\":{}}}\n", Value::from(text));
        }
    }

    /// The body of the response.
    #[must_use]
    pub fn into_text(self) -> String {
        self.lines.into_iter().map(|(_, text)| text).collect()
    }
}

/// The secrets that imported keys are checked against and stored under.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    /// Derives the id and hash of a key.
    pub signer: &'a Signer,
    /// `ADMIN_TOKEN`, which cannot be imported as a key.
    pub admin_token: Option<&'a str>,
}

/// A valid line of a batch.
#[derive(Debug)]
struct ImportEntry {
    /// The place of its result.
    place: usize,
    /// Its key under each secret.
    keys: Vec<ImportedKey>,
    row: KeyRow,
    /// Whether an earlier line has the same key.
    is_repeat: bool,
}

/// Lines that are stored in one transaction.
#[derive(Debug, Default)]
pub struct ImportBatch {
    entries: Vec<ImportEntry>,
    /// JSON of the rows to insert, each key once.
    rows: String,
    /// JSON of all ids under which the keys may be stored.
    ids: String,
    /// Ids of the rows to insert.
    added: HashMap<String, u64>,
}

impl ImportBatch {
    /// Reads the next batch. Invalid lines are recorded in `results` instead.
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
        // If two lines have the same key, the first is stored and the second compared with it.
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

    /// Whether it has no lines.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The rows to insert, as JSON: `[{key, hash, ids}]`. `key` is the response body of the key.
    #[must_use]
    pub fn rows(&self) -> String {
        format!("[{}]", self.rows)
    }

    /// All ids under which the keys may be stored, as JSON.
    #[must_use]
    pub fn ids(&self) -> String {
        format!("[{}]", self.ids)
    }

    /// Sets the result of each line from the rows now `stored`, which are sorted by id.
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
                None if entry.is_repeat => "key: an earlier line has the same key: send this line again".to_owned(),
                None => format!("tier: there is no tier `{}`", entry.row.tier),
            };
            results.set(entry.place, "error", &error);
        }
    }

    /// Sets the results after a failure, when each line may or may not be stored.
    pub fn fail(&self, results: &mut Results) {
        for entry in &self.entries {
            results.set(entry.place, "error", "may not be stored, because the database failed: send the line again");
        }
    }
}

/// Appends an element to a JSON list.
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
            return Err(Problem::invalid("key", "is the ADMIN_TOKEN, which cannot be an API key"));
        }
        let keys = ImportedKey::derive(&key, authority.signer);
        let Some(ImportedKey { id, secret_hash }) = keys.first().cloned() else {
            return Err(Problem::Internal);
        };
        let hint = key.get(key.len().saturating_sub(4)..).unwrap_or_default().to_owned();
        let row = rest.into_row(&IssuedKey { id, key, secret_hash, hint }, now);
        Ok(Self { place: 0, keys, row, is_repeat: false })
    }

    /// The error if the line differs from the stored row of its key.
    fn difference(&self, key: &ImportedKey, stored: &KeyRow) -> Option<String> {
        let row = &self.row;
        if stored.secret_hash != key.secret_hash {
            return Some("key: is already imported and was rotated since".to_owned());
        }
        if stored.status == Status::Revoked {
            return Some("key: is already imported and revoked".to_owned());
        }
        if stored.tier != row.tier {
            return Some(format!("tier: the key is already imported with tier `{}`", stored.tier));
        }
        let fields = [
            ("name", stored.name == row.name),
            ("owner", stored.owner == row.owner),
            ("metadata", stored.metadata == row.metadata),
            ("expires_at", stored.expires_at == row.expires_at),
        ];
        let (field, _) = fields.into_iter().find(|(_, same)| !same)?;
        Some(format!("{field}: the key is already imported with another {field}"))
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
    fn the_error_of_a_line_names_the_field_and_does_not_repeat_the_key() {
        let long = format!(r#"{{"key":"{KEY}","tier":"free","owner":"{}"}}"#, "x".repeat(8_200));
        for (line, word) in [
            ("{", "the line is not JSON"),
            ("[]", "the line must be a JSON object"),
            (r#"{"tier":"free"}"#, "key: is missing"),
            (r#"{"key":"0123456789abcde","tier":"free"}"#, "key: must be 16 to 256"),
            (r#"{"key":"0123456789abcdef,","tier":"free"}"#, "key: must be 16 to 256"),
            (r#"{"key":"0123456789-admin-token","tier":"free"}"#, "key: is the ADMIN_TOKEN"),
            (r#"{"key":7,"tier":"free"}"#, "key: must be a string"),
            (r#"{"key":"0123456789abcdef"}"#, "tier: is missing"),
            (r#"{"key":"0123456789abcdef","tier":"free","x":1}"#, "x: unknown field"),
            (r#"{"key":"0123456789abcdef","tier":"gold"}"#, "tier: there is no tier `gold`"),
            (long.as_str(), "the line has more than 8192 bytes"),
        ] {
            let result = report(line, &[]);
            assert!(result.starts_with(r#"{"line":1,"error":""#) && result.contains(word), "{line}: {result}");
            assert!(!result.contains("0123456789"), "{result}");
        }
    }

    #[test]
    fn a_key_that_is_there_must_be_the_same() {
        let stored = batch(&line(""), &mut Results::default()).entries.remove(0).row;
        let result = |rest: &str| report(&line(rest), std::slice::from_ref(&stored));
        assert!(result("").contains(&stored.id));
        assert!(result(r#","name":"x""#).contains("name: the key is already imported"));
        assert!(result(r#","owner":"x""#).contains("owner: "));
        assert!(result(r#","metadata":{"a":1}"#).contains("metadata: "));
        assert!(result(r#","expires_at":"2031-01-01T00:00:00Z""#).contains("expires_at: "));
        let other = |change: fn(&mut KeyRow)| {
            let mut row = stored.clone();
            change(&mut row);
            report(&line(""), &[row])
        };
        assert!(other(|row| row.tier = "pro".to_owned()).contains("tier: the key is already imported with tier `pro`"));
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
        assert!(text.starts_with("{\"line\":1,\"id\"") && text.contains("name: the key is already imported"));
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
    fn a_line_that_may_not_be_stored_is_reported() {
        let mut results = Results::default();
        batch(&line(""), &mut results).fail(&mut results);
        assert!(!results.has_stored());
        assert!(results.into_text().contains("send the line again"));
    }
}
