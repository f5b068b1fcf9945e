//! Query parameters, and pages of lists.

use crate::encoding::{hex, unhex};
use crate::http::problem::Problem;
use crate::http::target::{Query, percent_decode};

/// Entries of a page by default.
pub const PAGE_DEFAULT: usize = 50;
/// The most entries of a page.
pub const PAGE_LIMIT: usize = 500;

/// The parameters of a query. Each name is known and occurs once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query whose parameters must be among `known`.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown or repeated.
    pub fn parse(query: Query<'_>, known: &[&str]) -> Result<Self, Problem> {
        // HTML forms and `URLSearchParams` write a space as `+`.
        let decode = |text: &str| percent_decode(&text.replace('+', " ")).into_owned();
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.pairs().filter(|pair| !(pair.name.is_empty() && pair.value.is_empty())) {
            let name = decode(pair.name);
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::BadRequest(format!("unknown query parameter `{name}`; this path takes: {known}")));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Problem::BadRequest(format!("query parameter `{name}` is given more than once")));
            }
            parameters.push((name, decode(pair.value)));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter; `None` if it is missing or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.number(name).filter(|value| !value.is_empty())
    }

    /// The value of a parameter that must not be empty: an empty value is returned for the caller
    /// to reject.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The page of the list `list` that `limit` and `cursor` select.
    ///
    /// # Errors
    /// 400 for a limit outside 1 to 500, and for a cursor of another list.
    pub fn page(&self, list: &'static str) -> Result<Page, Problem> {
        let limit = match self.number("limit").map(str::parse) {
            None => PAGE_DEFAULT,
            Some(Ok(limit)) if (1..=PAGE_LIMIT).contains(&limit) => limit,
            Some(_) => return Err(Problem::BadRequest(format!("limit: must be a number from 1 to {PAGE_LIMIT}"))),
        };
        let after = self.get("cursor").map(|cursor| {
            let text = String::from_utf8(unhex(cursor)?).ok()?;
            Some(text.strip_prefix(list)?.strip_prefix(':')?.to_owned())
        });
        match after {
            Some(None) => Err(bad_cursor()),
            after => Ok(Page { list, limit, after: after.flatten() }),
        }
    }
}

/// 400 for a cursor that this list did not return.
#[must_use]
pub fn bad_cursor() -> Problem {
    Problem::BadRequest("cursor: must be the next_cursor of a page of this list".to_owned())
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    list: &'static str,
    /// The most entries of the page.
    pub limit: usize,
    /// Position of the entry before the page; `None` for the first page.
    pub after: Option<String>,
}

impl Page {
    /// Rows to read: one more than the page shows, which says whether another page follows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.limit + 1
    }

    /// The cursor of the page that starts after `position`.
    #[must_use]
    pub fn cursor(&self, position: &str) -> String {
        hex(format!("{}:{position}", self.list).as_bytes())
    }

    /// The response body. `entries` are JSON texts; `last` is the position of the last one if
    /// another page follows.
    #[must_use]
    pub fn show(&self, entries: &[String], last: Option<&str>) -> String {
        let cursor = last.map_or("null".to_owned(), |last| format!("\"{}\"", self.cursor(last)));
        format!("{{\"{}\":[{}],\"next_cursor\":{cursor}}}", self.list, entries.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page, Problem> {
        Parameters::parse(Query::new(query), &["limit", "cursor"])?.page("keys")
    }

    #[test]
    fn pages() {
        let first = page("").unwrap();
        assert_eq!((first.limit, first.rows(), first.after.clone()), (50, 51, None));
        assert_eq!(page("limit=500&cursor=").unwrap().limit, 500);
        assert_eq!(first.show(&[], None), r#"{"keys":[],"next_cursor":null}"#);
        let cursor = first.cursor("49\nx");
        let two = ["1".to_owned(), "2".to_owned()];
        assert_eq!(first.show(&two, Some("49\nx")), format!(r#"{{"keys":[1,2],"next_cursor":"{cursor}"}}"#));
        assert_eq!(page(&format!("cursor={cursor}&limit=1")).unwrap().after.as_deref(), Some("49\nx"));
        let other = Parameters::parse(Query::new(&format!("cursor={cursor}")), &["cursor"]).unwrap().page("log");
        assert_eq!(other.unwrap_err().status(), 400);
    }

    #[test]
    fn bad_parameters_are_named() {
        for (query, word) in [
            ("limit=0", "limit: "),
            ("limit=501", "limit: "),
            ("limit=-1", "limit: "),
            ("limit=x", "limit: "),
            ("limit=", "limit: "),
            ("limit=1&limit=2", "`limit`"),
            ("cursor=%%", "cursor: "),
            ("cursor=abc", "cursor: "),
            ("cursor=6b6579733", "cursor: "),
            ("cursor=6b657973", "cursor: "),
            ("page=2", "`page`"),
            ("=2", "``"),
        ] {
            let refusal = page(query).unwrap_err();
            assert_eq!(refusal.status(), 400, "{query}");
            assert!(refusal.body().contains(word), "{query}: {}", refusal.body());
        }
    }

    #[test]
    fn values_are_decoded() {
        let parameters = Parameters::parse(Query::new("q=a%20b+c%2B%C3%A4&&owner="), &["q", "owner"]).unwrap();
        assert_eq!((parameters.get("q"), parameters.get("owner")), (Some("a b c+ä"), None));
    }
}
