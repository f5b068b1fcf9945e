//! Remembers by which terms the objects hold calls, so that most calls name their hold at once.
//!
//! An object decides which routes spend tokens, and sends a call back that does not name its hold,
//! or one by other terms. So what is remembered here saves a request, and changes no decision.

use crate::keys::token_route::TokenTerms;
use std::collections::HashMap;

/// Maximum number of methods and paths. When it is reached, all are dropped.
pub const CAPACITY: usize = 1_000;
/// Maximum length of a method and path together, in bytes. Longer ones are not remembered.
const LENGTH: usize = 1_024;

/// The terms of methods and paths in the latest responses of the objects.
#[derive(Debug, Default)]
pub struct KnownTerms {
    terms: HashMap<String, TokenTerms>,
}

impl KnownTerms {
    /// The terms of a call's hold; `None` if it may have none.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Option<TokenTerms> {
        // Without a token route, calls cost no more than this.
        if self.terms.is_empty() { None } else { self.terms.get(&route(method, path)).copied() }
    }

    /// Remembers that a call is held by these terms, or that it holds nothing.
    pub fn note(&mut self, method: &str, path: &str, terms: Option<TokenTerms>) {
        let route = route(method, path);
        let Some(terms) = terms else {
            self.terms.remove(&route);
            return;
        };
        if route.len() > LENGTH {
            return;
        }
        if self.terms.len() >= CAPACITY && !self.terms.contains_key(&route) {
            self.terms.clear();
        }
        self.terms.insert(route, terms);
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
    fn memory_is_bounded() {
        let mut known = KnownTerms::default();
        for n in 0..CAPACITY {
            known.note("POST", &format!("/{n}"), Some(TERMS));
        }
        known.note("POST", "/0", Some(TERMS));
        assert_eq!(known.terms.len(), CAPACITY);
        known.note("POST", "/more", Some(TERMS));
        known.note("POST", &"/x".repeat(LENGTH), Some(TERMS));
        assert_eq!((known.terms.len(), known.find("POST", "/more")), (1, Some(TERMS)));
    }
}
