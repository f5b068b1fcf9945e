//! What an isolate knows of the keys that were issued elsewhere: which were imported, and which were not a moment ago.
//!
//! The tag of our own keys shows on the CPU alone that they are ours. Another text could be anything, and an object is not to be
//! started for it, nor D1 asked again and again. So D1 is asked once, and the answer is kept:
//! - *imported* for as long as there is room and no object disagrees. Nothing is admitted by it: the object judges each call by the
//!   hash, and finds out by itself when the key is changed or deleted. So D1 may be down, too.
//! - *not imported* for a minute.
//! - *no key was ever imported* for a minute: without imports, texts that are no keys cost D1 one question a minute.

use crate::gateway::recent::Recent;

/// Imported keys at most that are remembered: about 2 MB.
pub const KNOWN: usize = 16_384;
/// Texts at most that are remembered to be no keys.
pub const UNKNOWN: usize = 4_096;
/// For how long they are, in milliseconds.
pub const LIFE: u64 = 60_000;

/// The answers of D1 that one isolate remembers. Times are milliseconds on its clock.
#[derive(Debug)]
pub struct KeyLookups {
    known: Recent<String, u64>,
    unknown: Recent<String, u64>,
    none_since: Option<u64>,
    imports: u64,
}

impl Default for KeyLookups {
    fn default() -> Self {
        Self { known: Recent::new(KNOWN), unknown: Recent::new(UNKNOWN), none_since: None, imports: 0 }
    }
}

/// What is known of a text without asking D1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// It was imported; which of the ids is its own.
    Imported(usize),
    /// It was not.
    Unknown,
    /// D1 has to be asked.
    Ask,
}

/// When D1 was asked, seen from the imports of this isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportGeneration(u64);

/// What D1 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// This id is that of an imported key.
    Imported(&'a str),
    /// None of the ids is.
    Unknown,
    /// No id at all is.
    Nothing,
}

impl KeyLookups {
    /// What is known of a text with these ids (one for each secret, the current one first).
    pub fn find(&mut self, ids: &[&str], now: u64) -> Lookup {
        if let Some(at) = ids.iter().position(|id| self.known.get(*id).is_some()) {
            return Lookup::Imported(at);
        }
        let is_fresh = |since: u64| now.checked_sub(since).is_some_and(|age| age < LIFE);
        let refused = ids.first().and_then(|id| self.unknown.get(*id)).copied();
        if refused.is_some_and(is_fresh) || self.none_since.is_some_and(is_fresh) {
            return Lookup::Unknown;
        }
        Lookup::Ask
    }

    /// To be taken before D1 is asked, for [`KeyLookups::keep`].
    #[must_use]
    pub const fn mark(&self) -> ImportGeneration {
        ImportGeneration(self.imports)
    }

    /// Keeps what D1 has said to a question about `ids`. What was imported meanwhile it may not have seen.
    pub fn keep(&mut self, ids: &[&str], found: Found<'_>, mark: ImportGeneration, now: u64) {
        match found {
            Found::Imported(id) => self.known.put(id, now),
            _ if mark != ImportGeneration(self.imports) => {}
            Found::Unknown => {
                if let Some(id) = ids.first() {
                    self.unknown.put(*id, now);
                }
            }
            Found::Nothing => self.none_since = Some(now),
        }
    }

    /// Keys were imported through this isolate: what it knew about others may be wrong now.
    pub fn imported(&mut self) {
        self.imports = self.imports.wrapping_add(1);
        self.unknown.clear();
        self.none_since = None;
    }

    /// The object knows no such key: it was deleted, or is another one by now. D1 is asked again.
    pub fn disown(&mut self, id: &str) {
        self.known.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &[&str] = &["new", "old"];

    fn ask(lookups: &mut KeyLookups, now: u64) -> ImportGeneration {
        assert_eq!(lookups.find(IDS, now), Lookup::Ask);
        lookups.mark()
    }

    #[test]
    fn an_imported_key_is_known_until_its_object_disagrees() {
        let mut lookups = KeyLookups::default();
        let mark = ask(&mut lookups, 0);
        lookups.keep(IDS, Found::Imported("old"), mark, 0);
        assert_eq!(lookups.find(IDS, 1_000 * LIFE), Lookup::Imported(1));
        assert_eq!(lookups.find(&["other"], 0), Lookup::Ask);
        lookups.imported();
        assert_eq!(lookups.find(&["old"], 0), Lookup::Imported(0));
        lookups.disown("old");
        assert_eq!(lookups.find(&["old"], 0), Lookup::Ask);
    }

    #[test]
    fn an_unknown_text_is_asked_about_once_a_minute_and_anew_after_an_import() {
        let mut lookups = KeyLookups::default();
        let mark = ask(&mut lookups, 100);
        lookups.keep(IDS, Found::Unknown, mark, 100);
        assert_eq!(lookups.find(IDS, 100), Lookup::Unknown);
        assert_eq!(lookups.find(IDS, 99 + LIFE), Lookup::Unknown);
        ask(&mut lookups, 100 + LIFE);
        ask(&mut lookups, 99);
        lookups.imported();
        let mark = ask(&mut lookups, 101);
        lookups.keep(IDS, Found::Unknown, mark, 101);
        assert_eq!(lookups.find(IDS, 101), Lookup::Unknown);
    }

    #[test]
    fn without_any_import_nothing_is_asked_for_a_minute() {
        let mut lookups = KeyLookups::default();
        let mark = ask(&mut lookups, 0);
        lookups.keep(IDS, Found::Nothing, mark, 0);
        assert_eq!(lookups.find(&["other"], LIFE - 1), Lookup::Unknown);
        assert_eq!(lookups.find(&["other"], LIFE), Lookup::Ask);
        lookups.imported();
        ask(&mut lookups, 1);
    }

    #[test]
    fn an_answer_from_before_an_import_is_no_refusal_afterwards() {
        for found in [Found::Unknown, Found::Nothing] {
            let mut lookups = KeyLookups::default();
            let mark = ask(&mut lookups, 0);
            lookups.imported();
            lookups.keep(IDS, found, mark, 0);
            ask(&mut lookups, 0);
            lookups.keep(IDS, Found::Imported("new"), mark, 0);
            assert_eq!(lookups.find(IDS, 0), Lookup::Imported(0));
        }
    }
}
