//! Caches what D1 returned about imported keys.
//!
//! The tag of tollgate's own keys is verified without a lookup. Any other text needs D1, which must
//! not be read for each call, and an object must not be started for an arbitrary text. So answers
//! are kept:
//!
//! - *imported*: as long as there is room and no object disagrees. This admits no call: the object
//!   compares the hash for each call, and reads changes and deletions of the key itself. So calls
//!   pass while D1 is down, too.
//! - *not imported*: for a minute.
//! - *no key was ever imported*: for a minute. Without imports, texts that are not keys cost one
//!   query a minute.

use crate::gateway::recent::Recent;

/// Maximum number of imported keys that are kept: about 2 MB.
pub const KNOWN: usize = 16_384;
/// Maximum number of texts that are known not to be keys.
pub const UNKNOWN: usize = 4_096;
/// How long negative answers are kept, in milliseconds.
pub const LIFE: u64 = 60_000;

/// The answers of D1 that one isolate keeps. Times are milliseconds on its clock.
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

/// The cached answer about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The text is a key. The index of its id.
    Imported(usize),
    /// The text is not a key.
    Unknown,
    /// No answer is cached: D1 must be read.
    Needed,
}

/// The number of imports through this isolate when D1 was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportGeneration(u64);

/// The answer of D1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// This id belongs to an imported key.
    Imported(&'a str),
    /// None of the ids belongs to one.
    Unknown,
    /// There are no imported keys.
    Nothing,
}

impl KeyLookups {
    /// The cached answer about a text. `ids` has one id per secret, the current one first.
    pub fn find(&mut self, ids: &[&str], now: u64) -> Lookup {
        if let Some(at) = ids.iter().position(|id| self.known.get(*id).is_some()) {
            return Lookup::Imported(at);
        }
        let is_fresh = |since: u64| now.checked_sub(since).is_some_and(|age| age < LIFE);
        let refused = ids.first().and_then(|id| self.unknown.get(*id)).copied();
        if refused.is_some_and(is_fresh) || self.none_since.is_some_and(is_fresh) {
            return Lookup::Unknown;
        }
        Lookup::Needed
    }

    /// The current generation. Take it before D1 is read and pass it to [`KeyLookups::keep`].
    #[must_use]
    pub const fn mark(&self) -> ImportGeneration {
        ImportGeneration(self.imports)
    }

    /// Keeps the answer of D1 about `ids`. A negative answer is dropped if keys were imported since
    /// `mark`.
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

    /// Records an import through this isolate, which invalidates negative answers.
    pub fn imported(&mut self) {
        self.imports = self.imports.wrapping_add(1);
        self.unknown.clear();
        self.none_since = None;
    }

    /// Records that the object has no such key: it was deleted or replaced. The next call reads D1
    /// again.
    pub fn disown(&mut self, id: &str) {
        self.known.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &[&str] = &["new", "old"];

    fn needed(lookups: &mut KeyLookups, now: u64) -> ImportGeneration {
        assert_eq!(lookups.find(IDS, now), Lookup::Needed);
        lookups.mark()
    }

    #[test]
    fn an_imported_key_is_known_until_its_object_disagrees() {
        let mut lookups = KeyLookups::default();
        let mark = needed(&mut lookups, 0);
        lookups.keep(IDS, Found::Imported("old"), mark, 0);
        assert_eq!(lookups.find(IDS, 1_000 * LIFE), Lookup::Imported(1));
        assert_eq!(lookups.find(&["other"], 0), Lookup::Needed);
        lookups.imported();
        assert_eq!(lookups.find(&["old"], 0), Lookup::Imported(0));
        lookups.disown("old");
        assert_eq!(lookups.find(&["old"], 0), Lookup::Needed);
    }

    #[test]
    fn an_unknown_text_is_looked_up_once_a_minute_and_after_an_import() {
        let mut lookups = KeyLookups::default();
        let mark = needed(&mut lookups, 100);
        lookups.keep(IDS, Found::Unknown, mark, 100);
        assert_eq!(lookups.find(IDS, 100), Lookup::Unknown);
        assert_eq!(lookups.find(IDS, 99 + LIFE), Lookup::Unknown);
        needed(&mut lookups, 100 + LIFE);
        needed(&mut lookups, 99);
        lookups.imported();
        let mark = needed(&mut lookups, 101);
        lookups.keep(IDS, Found::Unknown, mark, 101);
        assert_eq!(lookups.find(IDS, 101), Lookup::Unknown);
    }

    #[test]
    fn without_any_import_nothing_is_looked_up_for_a_minute() {
        let mut lookups = KeyLookups::default();
        let mark = needed(&mut lookups, 0);
        lookups.keep(IDS, Found::Nothing, mark, 0);
        assert_eq!(lookups.find(&["other"], LIFE - 1), Lookup::Unknown);
        assert_eq!(lookups.find(&["other"], LIFE), Lookup::Needed);
        lookups.imported();
        needed(&mut lookups, 1);
    }

    #[test]
    fn a_negative_answer_from_before_an_import_is_not_kept() {
        for found in [Found::Unknown, Found::Nothing] {
            let mut lookups = KeyLookups::default();
            let mark = needed(&mut lookups, 0);
            lookups.imported();
            lookups.keep(IDS, found, mark, 0);
            needed(&mut lookups, 0);
            lookups.keep(IDS, Found::Imported("new"), mark, 0);
            assert_eq!(lookups.find(IDS, 0), Lookup::Imported(0));
        }
    }
}
