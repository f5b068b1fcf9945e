//! The request target, judged exactly as it is forwarded.
//!
//! A Worker sees `request.url` as the client sent it. URL parsers resolve dot segments and turn `\`
//! into `/`. A gate that judges one form and forwards the other can be bypassed. So paths that
//! parsers would rewrite are refused. All others are judged, matched and forwarded byte for byte.

use std::borrow::Cow;

/// Path and query of a request, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Begins with `/`.
    pub path: &'a str,
    /// The part after the `?`, if there is one.
    pub query: Option<&'a str>,
}

/// Why a target cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The URL does not have the form `http(s)://host/…`.
    #[error("the request target is not a valid URL")]
    NotHttp,
    /// The origin might resolve the path to a different one.
    #[error("the path has a dot segment, a backslash, a NUL or a fragment, plain or encoded: send it resolved")]
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
        // `Host: user@evil` becomes userinfo in the URL and would change its host.
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

    /// The query, for access to its parameters.
    #[must_use]
    pub fn query(&self) -> Query<'a> {
        Query::new(self.query.unwrap_or_default())
    }
}

fn is_ambiguous(path: &str) -> bool {
    // Decoded until nothing changes, so that `%2e%2e`, `..%2f`, `%5c` and `%252e` are found. `%2f`
    // as data within a segment is allowed.
    let decoded = decode_fully(path);
    if decoded.contains(&0) || may_be_resolved(&text_of(&decoded)) {
        return true;
    }
    let visible = decode_visible(path);
    visible.as_bytes() != &*decoded && may_be_resolved(&visible)
}

fn may_be_resolved(path: &str) -> bool {
    path.contains('\\')
        || path.split('/').any(|segment| {
            // Some servers ignore parameters and spaces: they read `..;x` as `..`.
            let end = segment.find(|c| c == ';' || is_cut_at(c)).unwrap_or(segment.len());
            let mut dots = segment.get(..end).unwrap_or_default().chars().filter(|c| !is_space(*c));
            dots.next() == Some('.') && matches!((dots.next(), dots.next()), (None, _) | (Some('.'), None))
        })
}

/// Characters that end the path for servers that decode it before they split off the query.
pub(crate) const fn is_cut_at(c: char) -> bool {
    matches!(c, '?' | '#')
}

/// White space, and `+`, which servers that decode paths like forms read as a space.
pub(crate) fn is_space(c: char) -> bool {
    c == '+' || c.is_whitespace()
}

/// Control characters and invisible ones, which some servers drop. U+FFFD replaces a byte that is
/// not UTF-8.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}')
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

    /// The parameters, as sent.
    pub fn pairs(self) -> impl Iterator<Item = Pair<'a>> {
        self.0.split('&').map(|raw| {
            let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
            Pair { raw, name, value }
        })
    }

    /// The query without the parameters for which `dropped` is true, otherwise as sent. `None` if
    /// nothing is left.
    #[must_use]
    pub fn without(self, dropped: impl Fn(&Pair<'_>) -> bool) -> Option<String> {
        let kept: Vec<&str> = self.pairs().filter(|pair| !dropped(pair)).map(|pair| pair.raw).collect();
        (!kept.is_empty()).then(|| kept.join("&"))
    }
}

/// Decodes `%xx`. Bytes that are not UTF-8 become U+FFFD, which never equals a compared text.
#[must_use]
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// Decodes `%xx`, once, to bytes.
pub(crate) fn percent_decode_bytes(text: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(text).into()
}

/// Decodes `%xx`, `%uxxxx` (as IIS does) and ASCII characters in overlong UTF-8 until nothing
/// changes: `%2565`, `%u0065` and `%c1%a5` become `e`. A server that decodes less, or in steps, can
/// only arrive at a form that decodes to the same result.
#[must_use]
pub fn decode_fully(text: &str) -> Cow<'_, [u8]> {
    if text.contains('%') { Cow::Owned(decode(text, false)) } else { Cow::Borrowed(text.as_bytes()) }
}

/// As [`decode_fully`], without invisible characters and bytes that are not UTF-8.
pub(crate) fn decode_visible(text: &str) -> String {
    let decoded = decode(text, true);
    decoded.utf8_chunks().map(|chunk| chunk.valid()).collect()
}

fn decode(text: &str, drops_invisible: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        decoded.push(byte);
        // No escape can begin within another, so decoding each as soon as it is complete equals
        // decoding in repeated passes.
        while let Some((length, character)) = escape_at_end(&decoded) {
            decoded.truncate(decoded.len().saturating_sub(length));
            match character {
                Escaped::Byte(byte) => decoded.push(byte),
                Escaped::Character(c) => decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if drops_invisible && let Some(length) = invisible_at_end(&decoded) {
            decoded.truncate(decoded.len().saturating_sub(length));
        }
    }
    decoded
}

/// The length of the invisible character at the end of the bytes, if there is one.
fn invisible_at_end(bytes: &[u8]) -> Option<usize> {
    (1..=4).find(|length| {
        let end = bytes.len().checked_sub(*length).and_then(|at| bytes.get(at..));
        let mut end = end.and_then(|end| std::str::from_utf8(end).ok()).unwrap_or_default().chars();
        matches!((end.next(), end.next()), (Some(c), None) if is_invisible(c))
    })
}

enum Escaped {
    Byte(u8),
    Character(char),
}

/// The length and the meaning of the escape at the end of the bytes, if there is one.
fn escape_at_end(bytes: &[u8]) -> Option<(usize, Escaped)> {
    let long = || match *bytes {
        [.., b'%', b'u' | b'U', a, b, c, d] => Some((6, Escaped::Character(char::from_u32(hex(&[a, b, c, d])?)?))),
        _ => None,
    };
    let short = || match *bytes {
        [.., b'%', a, b] => Some((3, Escaped::Byte(u8::try_from(hex(&[a, b])?).ok()?))),
        _ => None,
    };
    let overlong = || {
        let (length, next, last) = match *bytes {
            [.., lead @ (0xc0 | 0xc1), last] => (2, lead, last),
            [.., 0xe0, next, last] => (3, next, last),
            [.., 0xf0, 0x80, next, last] => (4, next, last),
            [.., 0xf8, 0x80, 0x80, next, last] => (5, next, last),
            [.., 0xfc, 0x80, 0x80, 0x80, next, last] => (6, next, last),
            _ => return None,
        };
        let is_ascii = matches!(last, 0x80..=0xbf) && matches!(next, 0x80 | 0x81 | 0xc0 | 0xc1);
        is_ascii.then_some((length, Escaped::Byte((next & 1) << 6 | last & 0x3f)))
    };
    long().or_else(short).or_else(overlong)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

/// The bytes as text. Each byte that is not UTF-8 becomes its Latin-1 character.
pub(crate) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| char::from(*byte)));
    }
    Cow::Owned(text)
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
            ("http://h/..a/a../a;./100%25/%2525/%c3%a9/a%20b", "/..a/a../a;./100%25/%2525/%c3%a9/a%20b", None),
            ("http://h/%7Bid%7D;v=1/{x}|y", "/%7Bid%7D;v=1/{x}|y", None),
            ("http://h/a%0ab%e2%80%8b/%ff", "/a%0ab%e2%80%8b/%ff", None),
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
            "/%252e%252e/b",
            "/a/%25252e%2525252E",
            "/a%25%32%66%2e./b",
            "/a%255cb",
            "/a%2500",
            "/..%20/b",
            "/a/%0a./b",
            "/a/.%09.",
            "/..%3fx/b",
            "/..%2523/b",
            "/a/%u002e%U002E/b",
            "/a/%c0%ae%C0%AE/b",
            "/a/%e0%80%ae./b",
            "/a/.%f0%80%80%ae",
            "/a%c0%80",
            "/a%c1%9cb",
            "/a/.%ff./b",
            "/a/.%e2%80%8b/b",
            "/a%%0a5cb",
            "/a/x%%0a2f+.%20./b",
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
    fn decoding_ends_where_every_way_of_decoding_does() {
        for (text, decoded) in [
            ("a", "a"),
            ("%", "%"),
            ("%2", "%2"),
            ("%25", "%"),
            ("100%25", "100%"),
            ("%%%", "%%%"),
            ("%65", "e"),
            ("%2565", "e"),
            ("%252565", "e"),
            ("%%36%35", "e"),
            ("%2%35%36%35", "e"),
            ("%25%36%35", "e"),
            ("%u0065%U0065", "ee"),
            ("%25u0065%u0025%36%35", "ee"),
            ("%u1%65", "%u1e"),
            ("%ud800", "%ud800"),
            ("%u00e9%C3%A9", "éé"),
            ("%c1%a5%e0%81%a5%f0%80%81%a5%f8%80%80%81%a5%fc%80%80%80%81%a5", "eeeee"),
            ("%c0%a565", "e"),
            ("%e9t%e9", "été"),
        ] {
            assert_eq!(text_of(&decode_fully(text)), decoded, "{text}");
        }
        // In time that grows with the length alone.
        let deep = format!("%{}65", "25".repeat(500_000));
        assert_eq!(text_of(&decode_fully(&deep)), "e");
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
