//! The request target, judged exactly as it is forwarded.
//!
//! A Worker sees `request.url` as the client sent it, while URL parsers resolve dot segments and turn `\` into `/`. Judging
//! one and forwarding the other is how gates are walked around. So paths that parsers would rewrite are refused, and every
//! other path and query is judged, matched and forwarded byte for byte.

use std::borrow::Cow;

/// Path and query of a request, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// From the first `/`, at least `/`.
    pub path: &'a str,
    /// What follows the `?`, if there is one.
    pub query: Option<&'a str>,
}

/// Why a target cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an `http(s)://host/…` URL.
    #[error("the request target is not a valid URL")]
    NotHttp,
    /// A path of which the origin might make another one.
    #[error("the path has a dot segment, a backslash, a NUL or a fragment: send it resolved")]
    Ambiguous,
}

impl<'a> Target<'a> {
    /// Splits the raw URL of a request.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(url: &'a str) -> Result<Self, TargetError> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or(TargetError::NotHttp)?;
        let at = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        // `Host: user@evil` reaches the URL as userinfo and would change which host it names.
        if authority.is_empty() || authority.contains(['@', ',', ' ']) {
            return Err(TargetError::NotHttp);
        }
        if target.contains('#') {
            return Err(TargetError::Ambiguous);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        if is_ambiguous(path) {
            return Err(TargetError::Ambiguous);
        }
        Ok(Self { path, query })
    }

    /// The query, for looking at its parameters.
    #[must_use]
    pub fn query(&self) -> Query<'a> {
        Query::new(self.query.unwrap_or_default())
    }
}

fn is_ambiguous(path: &str) -> bool {
    // Decoded whole, so that `%2e%2e`, `..%2f` and `%5c` show; `%2f` as mere data in a segment is fine.
    let decoded = percent_decode(path);
    decoded.contains(['\\', '\0'])
        || decoded.split('/').any(|segment| {
            // Parameters of a segment do not hide its dots from every server: `..;x` is `..` to some.
            matches!(segment.split(';').next(), Some("." | ".."))
        })
}

/// A raw query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a>(&'a str);

/// One parameter of a query, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    raw: &'a str,
    /// The name, still encoded.
    pub name: &'a str,
    /// The value, still encoded.
    pub value: &'a str,
}

impl Pair<'_> {
    /// Whether the decoded name is `name`.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        percent_decode(self.name) == name
    }
}

impl<'a> Query<'a> {
    /// A query without its `?`.
    #[must_use]
    pub const fn new(query: &'a str) -> Self {
        Self(query)
    }

    /// Its parameters, as sent.
    pub fn pairs(self) -> impl Iterator<Item = Pair<'a>> {
        self.0.split('&').map(|raw| {
            let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
            Pair { raw, name, value }
        })
    }

    /// The query without the parameters that `dropped` names, the rest as sent; `None` if nothing is left.
    #[must_use]
    pub fn without(self, dropped: impl Fn(&Pair<'_>) -> bool) -> Option<String> {
        let kept: Vec<&str> = self.pairs().filter(|pair| !dropped(pair)).map(|pair| pair.raw).collect();
        (!kept.is_empty()).then(|| kept.join("&"))
    }
}

/// Decodes `%xx`; bytes that are not UTF-8 become U+FFFD, which equals nothing that is compared here.
#[must_use]
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_stay_as_sent() {
        for (url, path, query) in [
            ("http://h", "/", None),
            ("http://h/", "/", None),
            ("https://h:8787/a%2Fb/c%20d?x=%20+&&y", "/a%2Fb/c%20d", Some("x=%20+&&y")),
            ("http://h//a///b/", "//a///b/", None),
            ("http://h/a?", "/a", Some("")),
            ("http://h?x=/../y", "/", Some("x=/../y")),
            ("http://h/.well-known/a..b/...", "/.well-known/a..b/...", None),
            ("http://h/%7Bid%7D;v=1/{x}|y", "/%7Bid%7D;v=1/{x}|y", None),
        ] {
            assert_eq!(Target::parse(url), Ok(Target { path, query }), "{url}");
        }
    }

    #[test]
    fn what_a_parser_would_rewrite_is_refused() {
        for path in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/a/%2E%2e",
            "/a/.%2e/b",
            "/a\\b",
            "/a%5Cb",
            "/a%5c..",
            "/a%00",
            "/a/..%2fb",
            "/a%2f..%2Fb",
            "/..;/b",
            "/..;x=1/b",
            "/a#b",
        ] {
            assert_eq!(Target::parse(&format!("http://h{path}")), Err(TargetError::Ambiguous), "{path}");
        }
        for url in ["", "h/a", "ftp://h/a", "http://", "http:///a", "http://u:p@h/a", "http://a,b/c"] {
            assert_eq!(Target::parse(url), Err(TargetError::NotHttp), "{url}");
        }
    }

    #[test]
    fn a_parameter_is_removed_and_the_rest_left_alone() {
        for (query, rest) in [
            ("api_key=k", None),
            ("a=1&api_key=k&b=%20", Some("a=1&b=%20")),
            ("api%5fkey=k&&b", Some("&b")),
            ("xapi_key=k", Some("xapi_key=k")),
        ] {
            let without = Query::new(query).without(|pair| pair.is_named("api_key"));
            assert_eq!(without.as_deref(), rest, "{query}");
        }
    }

    #[test]
    fn decoding_is_total() {
        for (text, decoded) in
            [("a%2", "a%2"), ("%", "%"), ("%zz%41", "%zzA"), ("%+1", "%+1"), ("%ff", "\u{fffd}"), ("é%41", "éA")]
        {
            assert_eq!(percent_decode(text), decoded);
        }
    }
}
