//! Remembers by which terms the objects hold calls, so that most calls name their hold at once.
//!
//! An object decides which routes spend tokens, and sends a call back that does not name its hold,
//! or one by other terms. So what is remembered here saves a request. It decides only which calls
//! `FAIL_MODE=open` forwards uncounted.

use crate::gateway::recent::Recent;
use crate::keys::token_route::TokenTerms;

/// Maximum number of methods and paths. The half that was used last stays in any case.
pub const CAPACITY: usize = 1_000;
/// Maximum length of a method and path together, in bytes. Longer ones are not remembered.
const LENGTH: usize = 1_024;
/// Maximum number of keys.
pub const KEYS: usize = 20_000;

/// The terms of methods and paths in the latest responses of the objects, and the keys whose calls
/// had some.
#[derive(Debug)]
pub struct KnownTerms {
    terms: Recent<String, TokenTerms>,
    keys: Recent<String, ()>,
}

impl Default for KnownTerms {
    fn default() -> Self {
        Self { terms: Recent::new(CAPACITY), keys: Recent::new(KEYS) }
    }
}

impl KnownTerms {
    /// The terms of a call's hold; `None` if it may have none.
    pub fn find(&mut self, method: &str, path: &str) -> Option<TokenTerms> {
        // Without a token route, calls cost no more than this.
        if self.terms.is_empty() { None } else { self.terms.get(&route(method, path)).copied() }
    }

    /// Remembers that a call is held by these terms, or that it holds nothing.
    pub fn note(&mut self, method: &str, path: &str, terms: Option<TokenTerms>) {
        let route = route(method, path);
        match terms {
            None => drop(self.terms.remove(&route)),
            Some(terms) if route.len() <= LENGTH => self.terms.put(&route, terms),
            Some(_) => {}
        }
    }

    /// Remembers that a call of this key is held.
    pub fn note_key(&mut self, id: &str) {
        self.keys.put(id, ());
    }

    /// Whether a call of this key, of which no terms are known, may spend tokens all the same: there
    /// are more paths than are remembered, and longer ones.
    pub fn may_spend(&mut self, id: &str, has_body: bool) -> bool {
        has_body && self.keys.get(id).is_some()
    }
}

fn route(method: &str, path: &str) -> String {
    [method, " ", path].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::token_route::UsageFormat;

    const TERMS: TokenTerms = TokenTerms {
        format: UsageFormat::OpenAi,
        default_output: 1,
        max_output: 2,
        bytes_per_token: 1,
        max_input: None,
    };

    #[test]
    fn the_latest_terms_of_a_method_and_path_are_known() {
        let mut known = KnownTerms::default();
        let later = TokenTerms { max_output: 3, ..TERMS };
        known.note("POST", "/a", Some(TERMS));
        known.note("POST", "/a", Some(later));
        known.note("POST", "/b", Some(TERMS));
        known.note("POST", "/b", None);
        let found = [("POST", "/a"), ("GET", "/a"), ("POST", "/b")].map(|(method, path)| known.find(method, path));
        assert_eq!(found, [Some(later), None, None]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_in_use_stays() {
        let mut known = KnownTerms::default();
        known.note("POST", "/used", Some(TERMS));
        for n in 0..5 * CAPACITY {
            known.note("POST", &format!("/{n}"), Some(TERMS));
            assert!(known.terms.len() <= CAPACITY);
            assert_eq!(known.find("POST", "/used"), Some(TERMS));
        }
        let long = "/x".repeat(LENGTH);
        known.note("POST", &long, Some(TERMS));
        assert_eq!(known.find("POST", &long), None);
        for n in 0..2 * KEYS {
            known.note_key(&n.to_string());
            assert!(known.keys.len() <= KEYS);
        }
    }

    #[test]
    fn the_paths_of_one_key_do_not_make_those_of_another_spend_nothing() {
        let mut known = KnownTerms::default();
        known.note("POST", "/a", Some(TERMS));
        known.note_key("1");
        known.note_key("2");
        for n in 0..5 * CAPACITY {
            known.note("POST", &format!("/{n}"), Some(TERMS));
            known.note_key("2");
        }
        assert_eq!(known.find("POST", "/a"), None);
        assert_eq!(
            [("1", true), ("1", false), ("3", true)].map(|(id, body)| known.may_spend(id, body)),
            [true, false, false]
        );
    }
}
