//! The cost and the class of a call, by method and path. The closest matching pattern decides.

use crate::http::target::percent_decode;
use crate::keys::route_pattern::{RouteCase, Routes};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// The cost of calls that match no pattern.
pub const DEFAULT_COST: u64 = 1;

/// A row of `route_costs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCost {
    /// A path pattern.
    pub pattern: String,
    /// A method, or `*` for all.
    pub method: String,
    /// The number of requests that a call counts as. At least 1.
    pub cost: u64,
    /// Whether the origin's answer may lower the cost. 1 or 0, as in D1.
    #[serde(default, deserialize_with = "flag", serialize_with = "number", skip_serializing_if = "is_false")]
    pub reprice: bool,
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(u64::deserialize(deserializer)? > 0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn number<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::from(*flag))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl RouteCost {
    /// The class of the calls that match.
    fn class(&self) -> String {
        match self.method.as_str() {
            "*" => self.pattern.clone(),
            method => [method, " ", &self.pattern].concat(),
        }
    }
}

/// The compiled table of `route_costs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCosts(Routes<Charge>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Charge {
    cost: u64,
    class: String,
    reprice: bool,
}

/// The cost of a call, and the class in which it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price<'a> {
    /// In requests.
    pub cost: u64,
    /// The pattern that decides the cost, with its method unless it is for all. Without a pattern,
    /// the method and the first segment of the path; any method that is not a few capital letters
    /// is `OTHER`.
    pub class: Cow<'a, str>,
    /// Whether the origin's answer may lower the cost.
    pub is_repriced: bool,
}

impl RouteCosts {
    /// Compiles the table.
    #[must_use]
    pub fn new(rows: &[RouteCost]) -> Self {
        let charge = |row: &RouteCost| Charge { cost: row.cost, class: row.class(), reprice: row.reprice };
        Self(Routes::new(rows.iter().map(|row| (row.pattern.as_str(), row.method.as_str(), charge(row)))))
    }

    /// The price of a call.
    #[must_use]
    pub fn price(&self, method: &str, path: &str, case: RouteCase) -> Price<'_> {
        match self.0.dearest(method, path, case, |charge| charge.cost, |charge| charge.reprice) {
            Some((Charge { cost, class, .. }, is_repriced)) => {
                Price { cost: *cost, class: Cow::Borrowed(class), is_repriced }
            }
            None => Price { cost: DEFAULT_COST, class: Cow::Owned(unpriced_class(method, path)), is_repriced: false },
        }
    }
}

/// Characters that are escaped in a class.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
/// Maximum length of a method. Longer ones are classed as `OTHER`.
const METHOD_LENGTH: usize = 16;

fn unpriced_class(method: &str, path: &str) -> String {
    let path = percent_decode(path);
    let first = path.split('/').find(|segment| !segment.is_empty());
    let is_method = (1..=METHOD_LENGTH).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
    let mut class = [if is_method { method } else { "OTHER" }, " /"].concat();
    class.extend(utf8_percent_encode(first.unwrap_or_default(), ESCAPED));
    class
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
        rows.into_iter().map(|(pattern, method, cost)| row(pattern, method, cost)).collect()
    }

    fn row(pattern: &str, method: &str, cost: u64) -> RouteCost {
        RouteCost { pattern: pattern.into(), method: method.into(), cost, reprice: false }
    }

    fn cost(rows: &[RouteCost], method: &str, path: &str) -> u64 {
        RouteCosts::new(rows).price(method, path, RouteCase::Sensitive).cost
    }

    fn class(rows: &[RouteCost], method: &str, path: &str) -> String {
        RouteCosts::new(rows).price(method, path, RouteCase::Sensitive).class.into_owned()
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

    /// Each of these is `/v1/a/export` to some origin.
    #[test]
    fn no_spelling_of_a_path_hides_its_price() {
        let table = [row("/v1/*/export", "GET", 25)];
        for path in [
            "//v1//a//export",
            "/v1/a/export/",
            "/v1/a/%65xport",
            "/v1%2fa%2Fexport",
            "/v1/a/export;x=1",
            "/v1;x/a;y=2,3/export;",
            "/;x/v1/a/;/export",
            "/v1/a/export;x=%2fy",
            "/v1/a/export%3bx=1",
            "/v1/a/export%20",
            "/v1/a/export%20%09",
            "/v1/a/export%C2%A0",
            "/v1/a/%20export",
            "/v1/a/+export+%20",
            "/v1/a/+export",
            "/v1/a/export+",
            "/v1/a/export%0a",
            "/v1/a/ex%0dport",
            "/v1/a/export%7f",
            "/v1/a/%0a/export",
            "/v1/a/e%ffxport",
            "/v1/a/e\u{fffd}xport",
            "/v1/a/export%bb/%ef%bb%bf",
            "/%ef%bb%bfv1/a/export%c2%ad%3f",
            "/v1/a/%%0a65xport",
            "/v1/a%%0a2fexport",
            "/v1/a/export.",
            "/v1/a/export.%20.",
            "/v1/a/export%2e;x",
            "/v1/a/%2565xport",
            "/v1/a/%25%36%35xport",
            "/v1/a/%252565xport",
            "/v1/a%252fexport",
            "/v1/a/%u0065xport",
            "/v1/a/%c1%a5xport",
            "/v1/a%c0%afexport",
            "/v1/a/export%3f",
            "/v1/a/export%3fx/y",
            "/v1/a/export%2523x",
            "/(S(x))/v1/a/(A(b)F(c))/export",
            // For a server that takes an encoded slash for data, `*` is `a/b`.
            "/v1/a%2fb/export",
            "/v1/a%2fb%252fc/export",
        ] {
            for method in ["GET", "HEAD"] {
                assert_eq!(cost(&table, method, path), 25, "{method} {path}");
                assert_eq!(class(&table, method, path), "GET /v1/*/export", "{method} {path}");
            }
            assert_eq!(cost(&table, "POST", path), 1, "{path}");
        }
        for path in [
            "/v1/a/exports",
            "/v1/a/Export",
            "/v1/a/export/x",
            "/v1/a/export.json",
            "/v1/a/x;export",
            "/v1/a/export/%20x",
            "/v1/a%2eb",
            "/v1/a/ex%20port",
            // A segment without parameters ends at an encoded slash, or has it in its name.
            "/v1/a/export%2fx",
            "/v1/a/%65xport%2fx",
            // No sessions.
            "/(S(x)/v1/a/export",
            "/(Sx))/v1/a/export",
            "/(S/v1/a/export",
            "/x))/v1/a/export",
        ] {
            assert_eq!(cost(&table, "GET", path), 1, "{path}");
        }
    }

    /// A client picks the spelling of a path. One that some origin reads as another route must not
    /// let that route's answer lower the cost.
    #[test]
    fn a_cost_may_be_lowered_only_if_every_reading_says_so() {
        let repriced = |row| RouteCost { reprice: true, ..row };
        let table = [
            repriced(row("/ai/*", "*", 5)),
            row("/ai/echo", "*", 2),
            row("/public/*", "*", 1),
            repriced(row("/dear", "POST", 9)),
        ];
        let is_repriced = |rows: &[RouteCost], method: &str, path: &str| {
            RouteCosts::new(rows).price(method, path, RouteCase::Sensitive).is_repriced
        };
        for (method, path, expected) in [
            ("GET", "/ai/chat", true),
            ("GET", "/ai/chat/", true),
            ("GET", "/ai/a%20b", true),
            ("POST", "/dear", true),
            ("GET", "/dear", false),
            ("GET", "/other", false),
            ("GET", "/ai/echo", false),
            // Some origins read these as `/ai/echo`, as `/echo` and as `/ai`.
            ("GET", "/ai/echo;x", false),
            ("GET", "/ai/%2565cho", false),
            ("GET", "/ai/echo%20", false),
            ("GET", "/ai;x%2fecho", false),
            ("GET", "/ai;/echo/chat", false),
            ("GET", "/ai/;x", false),
            ("GET", "/ai%2fchat", false),
        ] {
            assert_eq!(is_repriced(&table, method, path), expected, "{method} {path}");
        }
        let everything = [repriced(row("/**", "*", 5))];
        for path in ["/", "/ai/echo;x", "/ai%2fchat", "/ai/;x"] {
            assert!(is_repriced(&everything, "GET", path), "{path}");
        }
        assert!(!is_repriced(&everything, "GET", &"/%2f".repeat(300)), "its readings are not compared");
    }

    #[test]
    fn of_several_readings_the_dearest_is_charged() {
        let table = [
            row("/v1/*", "*", 10),
            row("/v1/health", "*", 1),
            row("/v1/x", "*", 30),
            row("/v1/caf%C3%A9", "*", 3),
            row("/v1/a b", "*", 4),
            row("/v1/B b", "*", 5),
            row("/static/*", "*", 2),
        ];
        for (path, expected) in [
            ("/v1/health", 1),
            ("/v1/health/", 1),
            // An escape that a path cannot do without is not odd.
            ("/v1/caf%c3%a9", 3),
            ("/v1/a%20b", 4),
            ("/v1/B%20b", 5),
            ("/v1/%61%20b", 10),
            ("/v1/health;x", 10),
            ("/v1/he%61lth", 10),
            ("/v1/%2568ealth", 10),
            ("/v1/health%20", 10),
            ("/v1/x;health", 30),
            ("/v1/health%2fx", 10),
            ("/v1/x%3fhealth", 30),
            // Whatever is made of the end of these, one row has them all.
            ("/static/a;b/c%2Fd%20.", 2),
        ] {
            assert_eq!(cost(&table, "GET", path), expected, "{path}");
        }
    }

    #[test]
    fn case_is_compared_as_the_table_specifies() {
        let table = [row("/v1/*/Export", "GET", 25), row("/CAF%C3%89", "*", 7), row("/kiss", "*", 3)];
        for (path, sensitive, insensitive) in [
            ("/v1/a/Export", 25, 25),
            ("/v1/a/export", 1, 25),
            ("/V1/a/EXPORT;x", 1, 25),
            ("/v1/a/%45xport", 25, 25),
            ("/v1/a/%45XPORT", 1, 25),
            ("/CAF%c3%89", 7, 7),
            ("/caf%c3%a9", 1, 7),
            // In Latin-1.
            ("/caf%e9", 1, 7),
            ("/KI%C5%BF%C5%BF", 1, 3),
            ("/%E2%84%AAiss", 1, 3),
        ] {
            let of = |case| RouteCosts::new(&table).price("GET", path, case).cost;
            assert_eq!((of(RouteCase::Sensitive), of(RouteCase::Insensitive)), (sensitive, insensitive), "{path}");
        }
        // Whether letters beyond ASCII are the same depends on the origin.
        let table = [row("/*", "*", 10), row("/kiss b", "*", 3)];
        let of = |path| RouteCosts::new(&table).price("GET", path, RouteCase::Insensitive).cost;
        assert_eq!(["/KISS%20b", "/ki%C5%BF%C5%BF%20b", "/%E2%84%AAiss%20b"].map(of), [3, 10, 10]);
    }

    #[test]
    fn a_table_may_price_everything() {
        let table =
            [row("/**", "*", 5), row("/", "*", 2), row("/v1/**", "*", 7), row("/v1/*", "*", 8), row("/v1", "PUT", 9)];
        for (method, path, expected) in [
            ("GET", "/", 2),
            ("GET", "/other", 5),
            ("GET", "/other/x/y", 5),
            ("GET", "/v1", 7),
            ("PUT", "/v1", 9),
            ("GET", "/v1/a", 8),
            ("GET", "/v1/a/b/c", 8),
        ] {
            assert_eq!(cost(&table, method, path), expected, "{method} {path}");
        }
        assert_eq!(class(&table, "GET", "/other/x"), "/**");
        assert_eq!(cost(&[row("/**", "*", 5)], "GET", "/"), 5);
        assert_eq!(cost(&[row("/*", "*", 5)], "GET", "/"), 1);
        let within = [row("/a/**/z", "*", 5)];
        let of = |path| cost(&within, "GET", path);
        assert_eq!(["/a/z", "/a/b/z", "/a/b/c/z", "/a/b", "/z"].map(of), [5, 5, 5, 1, 1]);
        let last = [row("/**/z", "*", 5)];
        assert_eq!(["/z", "/a/z", "/a/b/z", "/a/b"].map(|path| cost(&last, "GET", path)), [5, 5, 5, 1]);
    }

    #[test]
    fn head_has_its_own_cost_if_a_row_has_one() {
        let table =
            [row("/a", "GET", 25), row("/a", "*", 3), row("/b", "GET", 25), row("/b", "HEAD", 2), row("/*", "HEAD", 9)];
        let of = |path| cost(&table, "HEAD", path);
        assert_eq!(["/a", "/b", "/c"].map(of), [25, 2, 9]);
    }

    #[test]
    fn a_path_of_any_length_is_priced_in_time() {
        let table = [row("/**/x/**/y", "*", 5), row("/*/*/*", "*", 2)];
        for part in ["/a", "%2fx", "/x;", "%2525", "/%20", "%2f%2f"] {
            assert!((1..=5).contains(&cost(&table, "GET", &format!("/{}", part.repeat(8_000)))), "{part}");
        }
        // A path with several readings and more segments than any route may match the dearest route of
        // its method.
        let table = [row("/a/b", "GET", 9), row("/a/**", "*", 2), row("/x", "POST", 50)];
        let of = |start: &str, segments: usize| cost(&table, "GET", &format!("{start}{}", "/x".repeat(segments)));
        assert_eq!([of("/a/b;", 254), of("/a/b;", 255), of("/a/b", 255)], [2, 9, 2]);
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
