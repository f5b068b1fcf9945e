//! Finds the key that a request presents: exactly one, in exactly one place.
//!
//! A Worker sees duplicate header fields as one value joined by `", "`, so a comma reveals a
//! repeat. A request with two credentials is refused; none of them takes precedence.

use crate::http::target::{Query, percent_decode};
use std::borrow::Cow;

/// Where a request presents its key. It is removed there before the request is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `X-API-Key: <key>`
    Header,
    /// `Authorization: Bearer <key>`
    Bearer,
    /// `?api_key=<key>`
    Query,
}

/// The text that a request presents as its key, before verification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credential<'a> {
    pub key: Cow<'a, str>,
    pub source: Source,
}

impl Credential<'_> {
    /// A copy that does not borrow from the request.
    #[must_use]
    pub fn into_owned(self) -> Credential<'static> {
        Credential { key: Cow::Owned(self.key.into_owned()), source: self.source }
    }
}

/// Why a request has no usable credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The request has no credential.
    #[error("this API needs a key: send it as X-API-Key: <key> or Authorization: Bearer <key>")]
    Missing,
    /// The request has credentials in two places.
    #[error("the request has two credentials: send the key once, in one place")]
    Conflict,
    /// A place has more than one credential.
    #[error("{0} is given more than once: send the key once")]
    Repeated(&'static str),
}

/// The name of the query parameter.
pub const QUERY_NAME: &str = "api_key";

/// Finds the credential in the raw header values and the query. `query` is `None` if keys in
/// queries are not allowed.
///
/// # Errors
/// See [`CredentialError`]. An empty or malformed credential is returned, for verification to
/// refuse.
pub fn find<'a>(
    api_key: Option<&'a str>,
    authorization: Option<&'a str>,
    query: Option<Query<'a>>,
) -> Result<Credential<'a>, CredentialError> {
    let mut found = None;
    let mut add = |key: Cow<'a, str>, source| match found.replace(Credential { key, source }) {
        None => Ok(()),
        Some(_) => Err(CredentialError::Conflict),
    };
    if let Some(value) = api_key {
        if value.contains(',') {
            return Err(CredentialError::Repeated("X-API-Key"));
        }
        add(Cow::Borrowed(value.trim()), Source::Header)?;
    }
    if let Some(value) = authorization
        && let Some(token) = bearer(value)?
    {
        add(Cow::Borrowed(token), Source::Bearer)?;
    }
    if let Some(query) = query {
        let mut values = query.pairs().filter(|pair| pair.is_named(QUERY_NAME));
        if let Some(pair) = values.next() {
            if values.next().is_some() {
                return Err(CredentialError::Repeated("api_key"));
            }
            add(percent_decode(pair.value), Source::Query)?;
        }
    }
    found.ok_or(CredentialError::Missing)
}

/// The token of a `Bearer` value. `None` for any other scheme, which is for the origin.
fn bearer(value: &str) -> Result<Option<&str>, CredentialError> {
    let mut parts = value.split(',').map(bearer_token);
    let first = parts.next().flatten();
    let mut rest = parts.peekable();
    if rest.peek().is_none() {
        return Ok(first);
    }
    // Other schemes, such as Digest, use commas themselves. Only a list with a Bearer is a repeat.
    if first.is_some() || rest.any(|token| token.is_some()) {
        return Err(CredentialError::Repeated("Authorization"));
    }
    Ok(None)
}

/// Schemes are case-insensitive (RFC 9110 §11.1). Most servers accept a tab in place of the space.
fn bearer_token(part: &str) -> Option<&str> {
    let part = part.trim();
    let (scheme, token) = part.split_once([' ', '\t']).unwrap_or((part, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(found: &Result<Credential<'_>, CredentialError>) -> String {
        match found {
            Ok(credential) => format!("{:?} {}", credential.source, credential.key),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn one_credential_from_one_place() {
        let query = Some(Query::new("a=1&api_key=k%31&b"));
        for (api_key, authorization, query, expected) in [
            (None, None, None, "Missing"),
            (Some("k"), None, None, "Header k"),
            (Some(" k "), None, None, "Header k"),
            (Some(""), None, None, "Header "),
            (None, Some("Bearer k"), None, "Bearer k"),
            (None, Some("bEARER  k"), None, "Bearer k"),
            (None, Some("Bearer"), None, "Bearer "),
            (None, Some("Bearer\tk"), None, "Bearer k"),
            (Some("k"), Some("Bearer\tk"), None, "Conflict"),
            (None, Some("Basic dTpw"), None, "Missing"),
            (Some("k"), Some("Basic dTpw"), None, "Header k"),
            (Some("k"), Some(r#"Digest a="1", b="2""#), None, "Header k"),
            (None, None, query, "Query k1"),
            (None, None, Some(Query::new("api%5Fkey=k")), "Query k"),
            (None, None, Some(Query::new("xapi_key=k&API_KEY=k")), "Missing"),
            (Some("k"), Some("Bearer k"), None, "Conflict"),
            (Some("k"), None, query, "Conflict"),
            (None, Some("Bearer k"), query, "Conflict"),
            (Some("k, k"), None, None, "Repeated(\"X-API-Key\")"),
            (Some(", "), None, None, "Repeated(\"X-API-Key\")"),
            (None, Some("Bearer 1, Bearer 2"), None, "Repeated(\"Authorization\")"),
            (None, Some("Basic dTpw, Bearer 2"), None, "Repeated(\"Authorization\")"),
            (None, Some("Bearer 1, Basic dTpw"), None, "Repeated(\"Authorization\")"),
            (None, None, Some(Query::new("api_key=1&api_key=2")), "Repeated(\"api_key\")"),
        ] {
            assert_eq!(text(&find(api_key, authorization, query)), expected, "{api_key:?} {authorization:?}");
        }
    }
}
