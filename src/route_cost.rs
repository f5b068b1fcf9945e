//! What a call costs: by method and path, the longest pattern that matches first.
//!
//! A pattern is a path of which each segment is literal or `*`, which stands for one segment; a last `*` stands for one or more.
//! Paths are compared as origins read them: decoded, runs of slashes as one, without a slash at the end; so spelling a path
//! differently does not make it cheaper.

use crate::target::percent_decode;
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
    let path = percent_decode(path);
    let path: Vec<&str> = segments(&path).collect();
    let matching = routes.iter().filter(|route| route.matches(method, &path));
    // Of two of one length, the one with fewer wildcards, then the one for this method alone, is the closer match.
    let closest = matching.max_by_key(|route| {
        let wildcards = segments(&route.pattern).filter(|segment| *segment == "*").count();
        (route.pattern.len(), usize::MAX - wildcards, route.method != "*")
    });
    closest.map_or(DEFAULT_COST, |route| route.cost)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
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
}
