//! Paths and queries of the admin API.

use std::fmt::{self, Display, Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Encodes all but the unreserved characters of RFC 3986, so that an id cannot change the path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path under `/_tollgate/` with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

impl Endpoint {
    /// The path with these segments.
    pub(crate) fn new(segments: &[&str]) -> Self {
        let encoded = segments.iter().map(|segment| utf8_percent_encode(segment, ENCODED).to_string());
        Self(format!("/_tollgate/{}", encoded.collect::<Vec<_>>().join("/")))
    }

    /// Adds a query parameter, if it has a value.
    pub(crate) fn with(mut self, name: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let start = if self.0.contains('?') { '&' } else { '?' };
            let value = value.to_string();
            let _ = write!(self.0, "{start}{name}={}", utf8_percent_encode(&value, ENCODED));
        }
        self
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_values_cannot_change_the_path() {
        let endpoint = Endpoint::new(&["keys", "../tiers?a#b"]).with("q", Some("50% & more")).with("tier", Some("ö"));
        assert_eq!(endpoint.to_string(), "/_tollgate/keys/..%2Ftiers%3Fa%23b?q=50%25%20%26%20more&tier=%C3%B6");
    }

    #[test]
    fn a_parameter_without_a_value_is_not_sent() {
        let endpoint = Endpoint::new(&["keys"]).with("q", None::<&str>).with("limit", Some(5));
        assert_eq!(endpoint.to_string(), "/_tollgate/keys?limit=5");
    }
}
