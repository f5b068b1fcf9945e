//! What the admin API takes and gives: bodies, parameters, pages, their validation, their JSON. No storage, no HTTP.

pub mod attempts;
pub mod keys;
pub mod log;
pub mod overrides;
pub mod tiers;
pub mod tokens;

use crate::refusal::Refusal;
use crate::target::{Query, percent_decode};
use crate::time::{UnixMicros, parse_rfc3339};
use data_encoding::BASE64URL_NOPAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// The largest body that is read, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;
/// Entries of a page unless the caller chooses.
const PAGE_DEFAULT: usize = 50;
/// Entries of a page at most.
const PAGE_LIMIT: usize = 500;
/// Characters of a name, or of any other text for people, at most.
const TEXT_LIMIT: usize = 200;

/// Reads a body.
///
/// # Errors
/// 400 for what is no JSON object, 422 for a field that is missing, unknown, or not as it must be.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(object(body)?)
        .map_err(|error| wrong_field(error.path().to_string(), &error.into_inner().to_string()))
}

fn object(body: &[u8]) -> Result<serde_json::Value, Refusal> {
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(format!("the body is not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(Refusal::BadRequest("the body must be a JSON object".to_owned())) }
}

/// Names the field that a message is about: where it is missing or unknown, the path ends at the object around it.
fn wrong_field(path: String, message: &str) -> Refusal {
    let named = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split_once('`'))
        .map(|(name, _)| name);
    let around = if path == "." { "" } else { path.as_str() };
    let field = match named {
        Some(name) if around.is_empty() => name.to_owned(),
        Some(name) if around == name || around.ends_with(&format!(".{name}")) => path,
        Some(name) => format!("{around}.{name}"),
        None if around.is_empty() => "body".to_owned(),
        None => path,
    };
    Refusal::invalid(field, message)
}

/// Reads a field whose absence and whose `null` are two things, or whose `null` is none.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A text for people: at most 200 characters, none of them control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Text(pub String);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.chars().count() > TEXT_LIMIT || text.chars().any(char::is_control) {
            return Err(format!("must be at most {TEXT_LIMIT} characters, none of them control characters"));
        }
        Ok(Self(text))
    }
}

/// A time in a body: RFC 3339, with any offset. What is below a millisecond is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Timestamp(pub UnixMicros);

impl TryFrom<String> for Timestamp {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let time = parse_rfc3339(&text).ok_or("must be an RFC 3339 time such as 2031-03-12T12:00:00Z")?;
        Ok(Self(UnixMicros::from_millis(time.as_millis())))
    }
}

/// The parameters of a query, each known and given once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query of which `known` are the parameters.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown or repeated.
    pub fn parse(query: Query<'_>, known: &[&str]) -> Result<Self, Refusal> {
        // `+` is a space in what forms and `URLSearchParams` write.
        let decode = |text: &str| percent_decode(&text.replace('+', " ")).into_owned();
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.pairs().filter(|pair| !(pair.name.is_empty() && pair.value.is_empty())) {
            let name = decode(pair.name);
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Refusal::BadRequest(format!("unknown query parameter `{name}`; known here: {known}")));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::BadRequest(format!("query parameter `{name}` is given more than once")));
            }
            parameters.push((name, decode(pair.value)));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter; `None` if it is not there, or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The page of the list `list` that `limit` and `cursor` ask for.
    ///
    /// # Errors
    /// 400 for a limit that is no number from 1 to 500, and for a cursor that this list has not given.
    pub fn page(&self, list: &'static str) -> Result<Page, Refusal> {
        let limit = match self.get("limit").map(str::parse) {
            None => PAGE_DEFAULT,
            Some(Ok(limit)) if (1..=PAGE_LIMIT).contains(&limit) => limit,
            Some(_) => return Err(Refusal::BadRequest(format!("limit: must be a number from 1 to {PAGE_LIMIT}"))),
        };
        let after = self.get("cursor").map(|cursor| {
            let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            Some(text.strip_prefix(list)?.strip_prefix(':')?.to_owned())
        });
        match after {
            Some(None) => Err(Refusal::BadRequest("cursor: is not one that this list has given".to_owned())),
            after => Ok(Page { list, limit, after: after.flatten() }),
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    list: &'static str,
    /// How many entries.
    pub limit: usize,
    /// The position of the entry that comes before them.
    pub after: Option<String>,
}

impl Page {
    /// How many rows to read: one more than is shown, to know whether there are more.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.limit + 1
    }

    /// Cuts `rows` to the page. Gives the cursor of the next one, if there are more; `position` is what [`Page::after`] will be.
    pub fn cut<T>(&self, rows: &mut Vec<T>, position: impl Fn(&T) -> String) -> Option<String> {
        if rows.len() <= self.limit {
            return None;
        }
        rows.truncate(self.limit);
        rows.last().map(|last| BASE64URL_NOPAD.encode(format!("{}:{}", self.list, position(last)).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page, Refusal> {
        Parameters::parse(Query::new(query), &["limit", "cursor"])?.page("keys")
    }

    #[test]
    fn pages() {
        let first = page("").unwrap();
        assert_eq!((first.limit, first.rows(), first.after.clone()), (50, 51, None));
        assert_eq!(page("limit=500&cursor=").unwrap().limit, 500);
        let mut rows: Vec<u32> = (0..3).collect();
        assert_eq!(first.cut(&mut rows, u32::to_string), None);
        let mut rows: Vec<u32> = (0..51).collect();
        let cursor = first.cut(&mut rows, |last| format!("{last}\nx")).unwrap();
        assert_eq!((rows.len(), rows[49]), (50, 49));
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
            ("limit=1&limit=2", "`limit`"),
            ("cursor=%%", "cursor: "),
            ("cursor=abc", "cursor: "),
            ("cursor=a2V5czo=", "cursor: "),
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
