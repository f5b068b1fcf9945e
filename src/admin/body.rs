//! Reads JSON bodies field by field, so that each error names its field.
//!
//! `serde`'s derive with errors that name the path of a field would make the Worker larger by a
//! quarter.

use crate::http::problem::Problem;
use crate::time::{UnixMicros, parse_rfc3339};
use serde_json::{Map, Value};
use std::fmt::Display;
use std::str::FromStr;

/// The longest name or other text for people, in characters.
pub const TEXT_LIMIT: usize = 200;

/// Fields with a keyword of JSON Schema and its value.
pub type Limits = &'static [(&'static str, &'static str, u64)];

/// A type that is read from the fields of a JSON object: a body of the admin API, or a row of D1.
pub trait FromFields: Sized {
    /// Limits that [`FromFields::read`] enforces. The `OpenAPI` document takes them from here,
    /// because the attributes of `utoipa` accept only literals.
    const LIMITS: Limits = &[];
    /// Members of `Self` that are flattened: their fields are fields of the JSON object.
    const FLAT: &'static [&'static str] = &[];

    /// Reads and checks the fields.
    ///
    /// # Errors
    /// 422 for a field that is missing or invalid.
    fn read(fields: &mut JsonFields) -> Result<Self, Problem>;
}

/// Reads a body.
///
/// # Errors
/// 400 unless the body is a JSON object, 422 for a field that is missing, unknown or invalid.
pub fn parse<T: FromFields>(body: &[u8]) -> Result<T, Problem> {
    JsonFields::parse(body)?.read()
}

/// Reads a row of D1 from its JSON. Unknown fields are ignored.
///
/// # Errors
/// As [`parse`], if the row violates the schema.
pub fn read_row<T: FromFields>(row: &str) -> Result<T, Problem> {
    T::read(&mut JsonFields::parse(row.as_bytes())?)
}

/// The fields of a JSON object that have not been read yet.
#[derive(Debug)]
pub struct JsonFields {
    map: Map<String, Value>,
    /// Prefix of field names in errors, such as `policies[0].`
    path: String,
}

impl JsonFields {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let not_json = |error: &dyn Display| Problem::BadRequest(format!("the body is not JSON: {error}"));
        let text = str::from_utf8(body).map_err(|error| not_json(&error))?;
        match serde_json::from_str(text).map_err(|error| not_json(&error))? {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            _ => Err(Problem::BadRequest("the body must be a JSON object".to_owned())),
        }
    }

    fn read<T: FromFields>(mut self) -> Result<T, Problem> {
        let body = T::read(&mut self)?;
        match self.map.keys().next() {
            Some(unknown) => Err(self.wrong(unknown, "unknown field")),
            None => Ok(body),
        }
    }

    /// Builds the 422 for a field.
    pub fn wrong(&self, name: &str, reason: impl Into<String>) -> Problem {
        Problem::invalid(format!("{}{name}", self.path), reason)
    }

    /// Requires an optional field.
    ///
    /// # Errors
    /// 422 if it is missing.
    pub fn required<T>(&self, name: &str, field: Option<T>) -> Result<T, Problem> {
        field.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// A string.
    ///
    /// # Errors
    /// 422 for another type.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a string")),
        }
    }

    /// A text for people: at most 200 characters, none of them control characters.
    ///
    /// # Errors
    /// 422 for another text or type.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let text = self.string(name)?;
        if text.as_ref().is_some_and(|text| text.chars().count() > TEXT_LIMIT || text.chars().any(char::is_control)) {
            let reason = format!("must be at most {TEXT_LIMIT} characters, none of them control characters");
            return Err(self.wrong(name, reason));
        }
        Ok(text)
    }

    /// A word of a fixed set.
    ///
    /// # Errors
    /// 422 for another word, and other types.
    pub fn word<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: Display,
    {
        let Some(word) = self.string(name)? else { return Ok(None) };
        word.parse().map(Some).map_err(|error: T::Err| self.wrong(name, error.to_string()))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 422 for another type.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// A whole number of at least 0.
    ///
    /// # Errors
    /// 422 for another type.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, "must be a whole number of at least 0")),
            },
        }
    }

    /// A whole number from 0 to `most`.
    ///
    /// # Errors
    /// 422 for another number or type.
    pub fn number_to(&mut self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let number = self.number(name)?;
        match number {
            Some(number) if number > most => Err(self.wrong(name, format!("must be 0 to {most}"))),
            number => Ok(number),
        }
    }

    /// Consumes the field if it is `null`. The other readers reject `null`.
    pub fn is_null(&mut self, name: &str) -> bool {
        let is_null = self.map.get(name).is_some_and(Value::is_null);
        if is_null {
            self.map.remove(name);
        }
        is_null
    }

    /// An RFC 3339 time with any offset, as whole milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// 422 for another type.
    pub fn time(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        match parse_rfc3339(&text).map(UnixMicros::as_millis) {
            None => Err(self.wrong(name, "must be an RFC 3339 time such as 2031-03-12T12:00:00Z")),
            time => Ok(time),
        }
    }

    /// A JSON object.
    ///
    /// # Errors
    /// 422 for another type.
    pub fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Problem> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong(name, "must be an object")),
        }
    }

    /// A list of at most `most` elements.
    ///
    /// # Errors
    /// 422 for a longer list, and other types.
    pub fn list(&mut self, name: &str, most: usize) -> Result<Option<Vec<Value>>, Problem> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() <= most => Ok(Some(list)),
            Some(Value::Array(_)) => Err(self.wrong(name, format!("may have at most {most} entries"))),
            Some(_) => Err(self.wrong(name, "must be a list")),
        }
    }

    /// A list of objects, each read as `T`.
    ///
    /// # Errors
    /// 422 for another type, and for an invalid field of an element.
    pub fn objects<T: FromFields>(&mut self, name: &str, most: usize) -> Result<Option<Vec<T>>, Problem> {
        let Some(list) = self.list(name, most)? else { return Ok(None) };
        let read = |(at, value)| {
            let entry = format!("{name}[{at}]");
            match value {
                Value::Object(map) => Self { map, path: format!("{}{entry}.", self.path) }.read(),
                _ => Err(self.wrong(&entry, "must be an object")),
            }
        };
        list.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }
}
