//! What a call costs, and of which class it is: by method and path, the longest pattern that matches first.
//!
//! A pattern is a path of which each segment is literal or `*`, which stands for one segment; a last `*` stands for one or more.
//! Paths are compared as origins read them: decoded, runs of slashes as one, without a slash at the end; so spelling a path
//! differently does not make it cheaper.

use crate::target::percent_decode;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// What calls cost that no pattern matches.
pub const DEFAULT_COST: u64 = 1;

/// A row of `route_costs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCost {
    /// A path pattern.
    pub pattern: String,
    /// A method, or `*` for all.
    pub method: String,
    /// Requests that a call counts as, at least 1.
    pub cost: u64,
}

impl RouteCost {
    fn matches(&self, method: &str, path: &[&str]) -> bool {
        (self.method == "*" || self.method == method) && matches_path(&self.pattern, path)
    }
}

/// The cost of a call.
#[must_use]
pub fn cost(routes: &[RouteCost], method: &str, path: &str) -> u64 {
    if routes.is_empty() {
        return DEFAULT_COST;
    }
    closest(routes, method, &segments(&percent_decode(path)).collect::<Vec<_>>())
        .map_or(DEFAULT_COST, |route| route.cost)
}

/// What is not left as it is in a class.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
/// Characters of a method at most; a longer one is no method that anybody knows.
const METHOD_LENGTH: usize = 16;

/// The class under which a call is counted: the pattern that sets its cost, with its method if it is for one only; without one,
/// the method and the first segment of the path. All methods that are not a few capital letters are `OTHER`.
#[must_use]
pub fn class(routes: &[RouteCost], method: &str, path: &str) -> String {
    let path = percent_decode(path);
    let mut segments = segments(&path);
    if !routes.is_empty() {
        let segments: Vec<&str> = segments.clone().collect();
        match closest(routes, method, &segments) {
            Some(route) if route.method == "*" => return route.pattern.clone(),
            Some(route) => return [route.method.as_str(), " ", route.pattern.as_str()].concat(),
            None => {}
        }
    }
    let is_method = (1..=METHOD_LENGTH).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
    let mut class = [if is_method { method } else { "OTHER" }, " /"].concat();
    class.extend(utf8_percent_encode(segments.next().unwrap_or_default(), ESCAPED));
    class
}

fn closest<'a>(routes: &'a [RouteCost], method: &str, path: &[&str]) -> Option<&'a RouteCost> {
    // Of two of one length, the one with fewer wildcards, then the one for this method alone, is the closer match.
    routes.iter().filter(|route| route.matches(method, path)).max_by_key(|route| {
        let wildcards = segments(&route.pattern).filter(|segment| *segment == "*").count();
        (route.pattern.len(), usize::MAX - wildcards, route.method != "*")
    })
}

fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn matches_path(pattern: &str, path: &[&str]) -> bool {
    let mut pattern = segments(pattern).peekable();
    let mut rest = path.iter();
    while let Some(expected) = pattern.next() {
        let Some(segment) = rest.next() else { return false };
        if expected == "*" && pattern.peek().is_none() {
            return true;
        }
        if expected != "*" && expected != *segment {
            return false;
        }
    }
    rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Vec<RouteCost> {
        let rows: [(&str, &str, u64); 8] = [
            ("/search", "*", 5),
            ("/search", "POST", 6),
            ("/v1/*", "*", 2),
            ("/v1/*/export", "GET", 50),
            ("/v1/reports/*", "*", 10),
            ("/v1/reports/a", "*", 11),
            ("/*", "DELETE", 3),
            ("/", "*", 4),
        ];
        let row = |(pattern, method, cost): (&str, &str, u64)| RouteCost {
            pattern: pattern.into(),
            method: method.into(),
            cost,
        };
        rows.into_iter().map(row).collect()
    }

    #[test]
    fn the_longest_match_wins() {
        for (method, path, expected) in [
            ("GET", "/", 4),
            ("GET", "/other", 1),
            ("DELETE", "/other/x", 3),
            ("GET", "/search", 5),
            ("POST", "/search", 6),
            ("GET", "/search/x", 1),
            ("GET", "/v1", 1),
            ("GET", "/v1/x", 2),
            ("GET", "/v1/x/y/z", 2),
            ("GET", "/v1/x/export", 50),
            ("PUT", "/v1/x/export", 2),
            ("GET", "/v1/reports/x", 10),
            ("GET", "/v1/reports/a", 11),
            ("GET", "/v1/reports/export", 10),
            ("DELETE", "/search", 5),
        ] {
            assert_eq!(cost(&routes(), method, path), expected, "{method} {path}");
        }
        assert_eq!(cost(&[], "GET", "/search"), DEFAULT_COST);
    }

    #[test]
    fn another_spelling_of_a_path_costs_the_same() {
        for path in ["/search/", "//search", "/%73earch", "/se%61rch//", "%2fsearch"] {
            assert_eq!(cost(&routes(), "GET", path), 5, "{path}");
        }
        assert_eq!(cost(&routes(), "GET", "/v1%2fx%2Fexport"), 50);
    }

    #[test]
    fn a_class_is_a_pattern_or_the_first_segment() {
        for (method, path, expected) in [
            ("GET", "/search", "/search"),
            ("POST", "/%73earch/", "POST /search"),
            ("GET", "/v1/x%2Fexport", "GET /v1/*/export"),
            ("PUT", "/v1/x/export", "/v1/*"),
            ("GET", "/", "/"),
            ("GET", "/other/x", "GET /other"),
            ("DELETE", "/other/x", "DELETE /*"),
            ("get", "/other/x", "OTHER /other"),
            ("", "/other", "OTHER /other"),
            ("ABCDEFGHIJKLMNOP", "/other", "ABCDEFGHIJKLMNOP /other"),
            ("ABCDEFGHIJKLMNOPQ", "/other", "OTHER /other"),
            ("GET", "//a%20b%0a%C3%a9%25/c", "GET /a%20b%0A%C3%A9%25"),
        ] {
            assert_eq!(class(&routes(), method, path), expected, "{method} {path}");
        }
        assert_eq!(class(&[], "GET", "/v1/x"), "GET /v1");
        assert_eq!(class(&[], "GET", "/"), "GET /");
    }
}
