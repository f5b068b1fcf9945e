//! Finds credentials that must not reach the origin, in any form in which a client sends them.
//!
//! The presented key is removed where it is. This module finds others: a second key in
//! `Authorization` under another scheme, an admin token, the key again in a `Basic` password. A
//! text is recognised as a credential of tollgate by its tag or form, or by the isolate's caches; an
//! imported key only by the caches. So on paths that need no key, any text in the place of a key is
//! treated as a key if it could be one.

use crate::http::target::Target;
use crate::keys::key::{PresentedKey, token_id};

/// Header fields that only tollgate may send to an origin, as a regular expression over names in
/// lower case, which JavaScript applies. Servers that expose header fields as variables replace
/// every character other than letters and digits by `_` (RFC 3875 §4.1.18 does so for `-`). So an
/// origin may read any of these names as one of tollgate's.
pub const RESERVED: &str = "^x[^a-z0-9]+(api[^a-z0-9]+key|tollgate([^a-z0-9].*)?)$";
/// Header fields that only tollgate may send to a client.
pub const RESERVED_IN_RESPONSES: &str = "^x[^a-z0-9]+tollgate([^a-z0-9].*)?$";

/// Maximum number of texts that are examined per value. A value with more does not pass.
const TEXT_LIMIT: usize = 64;
/// Maximum length of base64 that is decoded: a user name and a password of 256 characters each.
const BASE64_LIMIT: usize = 688;
/// Schemes whose single token is not a key: it is decoded, or belongs to another protocol.
const NO_KEYS: [&str; 4] = ["basic", "digest", "negotiate", "ntlm"];

/// Whether `text` has the form of tollgate's keys or admin tokens.
#[must_use]
pub fn has_own_form(text: &str) -> bool {
    PresentedKey::id_of(text).is_some() || token_id(text).is_some()
}

/// The URL to which a request for `url` is forwarded, with the query replaced by `query`. `None` if
/// it can be forwarded unchanged. `origin` is the configured base, if any.
#[must_use]
pub fn upstream_url(origin: Option<&str>, url: &str, target: Target<'_>, query: Option<&str>) -> Option<String> {
    let base = match origin {
        Some(origin) => origin,
        None if query == target.query => return None,
        None => own_base(url),
    };
    let mut upstream = String::with_capacity(base.len() + url.len());
    upstream.push_str(base);
    upstream.push_str(target.path);
    if let Some(query) = query {
        upstream.push('?');
        upstream.push_str(query);
    }
    Some(upstream)
}

/// The scheme and authority of a URL.
#[must_use]
pub fn own_base(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(authority..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| authority + at);
    url.get(..end).unwrap_or(url)
}

/// Whether an `Authorization` value contains a text for which `is_ours` is true.
pub fn holds(value: &str, mut is_ours: impl FnMut(&str) -> bool) -> bool {
    let mut seen = 0;
    let mut look = |text: &str| {
        seen += 1;
        seen > TEXT_LIMIT || is_ours(text)
    };
    words(value).any(|word| {
        look(word)
            || pieces(word).any(&mut look)
            || decoded(word).is_some_and(|text| {
                // User names have no colon, but a key that is sent as one may have.
                let credentials = [text.split_once(':'), text.rsplit_once(':')];
                look(&text) || credentials.into_iter().flatten().any(|(user, password)| look(user) || look(password))
            })
    })
}

/// Whether an `Authorization` value has a text for which `could_be_key` is true in the place of a
/// key: after `Bearer`, alone, or as the single token of an unknown scheme.
pub fn presents(value: &str, mut could_be_key: impl FnMut(&str) -> bool) -> bool {
    let is_list = value.contains(',');
    value.split(',').any(|part| {
        let mut words = words(part);
        let (first, second, third) = (words.next(), words.next(), words.next());
        match (first, second) {
            (Some(scheme), _) if scheme.eq_ignore_ascii_case("bearer") => {
                second.into_iter().chain(third).chain(words).any(&mut could_be_key)
            }
            (Some(word), None) => !is_list && could_be_key(word),
            (Some(scheme), Some(token)) => {
                let has_keys = !NO_KEYS.iter().any(|other| scheme.eq_ignore_ascii_case(other));
                !is_list && third.is_none() && has_keys && is_token68(token) && could_be_key(token)
            }
            _ => false,
        }
    })
}

/// The words of a value. Any character other than visible ASCII separates them, because some
/// servers treat it so.
fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| !c.is_ascii_graphic() || c == ',').filter(|word| !word.is_empty())
}

/// The parts of a word such as `token="…"`.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let separators = ['=', ':', ';', '"', '\''];
    // A key may contain a separator. Then it is the text after the first one.
    let rest = word.split_once(['=', ':']).map(|(_, rest)| rest.trim_matches(['"', '\'']));
    let parts = word.contains(separators).then(|| word.split(separators).filter(|part| !part.is_empty()));
    rest.into_iter().chain(parts.into_iter().flatten())
}

/// The text that a word encodes in base64, in either alphabet, padded or not.
fn decoded(word: &str) -> Option<String> {
    let word = word.trim_end_matches('=');
    if word.len() > BASE64_LIMIT {
        return None;
    }
    let mut bytes = Vec::with_capacity(word.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in word.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xfff;
        count += 6;
        if count >= 8 {
            count -= 8;
            let [byte, ..] = (bits >> count & 0xff).to_le_bytes();
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// Whether `text` is a `token68` (RFC 9110 §11.2).
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::{BASE64, BASE64URL_NOPAD};

    const KEY: &str = "sk=live:0123456789";

    #[test]
    fn reserved_names_in_every_spelling() {
        let matches = |pattern, name| regex::Regex::new(pattern).unwrap().is_match(name);
        for (name, is_reserved) in [
            ("x-tollgate", true),
            ("x_tollgate", true),
            ("x.-tollgate-key-id", true),
            ("x-tollgate!anything at all", true),
            ("xtollgate", false),
            ("x-tollgated", false),
            ("x-tollgate2", false),
            ("my-x-tollgate", false),
            ("tollgate", false),
            ("x-toll-gate", false),
        ] {
            assert_eq!(matches(RESERVED, name), is_reserved, "{name}");
            assert_eq!(matches(RESERVED_IN_RESPONSES, name), is_reserved, "{name}");
        }
        for (name, is_reserved) in [
            ("x-api-key", true),
            ("x_api__key", true),
            ("x--api.key", true),
            ("x-apikey", false),
            ("x-api-key-2", false),
            ("api-key", false),
            ("x-my-api-key", false),
        ] {
            assert_eq!(matches(RESERVED, name), is_reserved, "{name}");
            assert!(!matches(RESERVED_IN_RESPONSES, name), "{name}");
        }
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    #[test]
    fn the_url_of_the_origin() {
        let base = Some("http://origin.test:81/base");
        for (origin, url, query, expected) in [
            (None, "https://a.test/b?c", Some("c"), None),
            (None, "https://a.test/b", None, None),
            (None, "https://a.test:9/b//%41?c&api_key=k", Some("c"), Some("https://a.test:9/b//%41?c")),
            (None, "https://a.test/?api_key=k", None, Some("https://a.test/")),
            (None, "https://a.test?x", None, Some("https://a.test/")),
            (base, "https://a.test/b?c", Some("c"), Some("http://origin.test:81/base/b?c")),
            (base, "https://a.test/b?c", None, Some("http://origin.test:81/base/b")),
            (base, "https://a.test/b?", Some(""), Some("http://origin.test:81/base/b?")),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(upstream_url(origin, url, target, query).as_deref(), expected, "{url}");
        }
        for (url, base) in [("https://a.test", "https://a.test"), ("https://a.test:1?x/y", "https://a.test:1")] {
            assert_eq!(own_base(url), base);
        }
    }

    #[test]
    fn a_known_text_is_found_in_every_spelling() {
        for value in [
            KEY.to_owned(),
            format!("Bearer {KEY}"),
            format!("Bearer\t{KEY}"),
            format!("Token   {KEY}  "),
            format!("Token\u{a0}{KEY}"),
            format!("Token\u{fffd}{KEY}"),
            format!("Token token=\"{KEY}\""),
            format!("ApiKey key={KEY}"),
            format!("ApiKey:{KEY}"),
            format!("Basic dTpw, Token {KEY}"),
            format!("Token {KEY}, Basic dTpw"),
            basic(&format!("{KEY}:")),
            basic(&format!("user:{KEY}")),
            basic(KEY),
            format!("Basic {}", BASE64URL_NOPAD.encode(format!("user:{KEY}").as_bytes())),
        ] {
            assert!(holds(&value, |text| text == KEY), "{value}");
        }
        // One without separators among others.
        for value in ["Custom a=1;key=plain", "Custom a:b:plain", "Custom 'plain';x"] {
            assert!(holds(value, |text| text == "plain"), "{value}");
        }
        // One whose base64 has the signs in which the alphabets differ.
        for value in ["Basic c2s+Pj4/Pz8=", "Basic c2s-Pj4_Pz8"] {
            assert!(holds(value, |text| text == "sk>>>???"), "{value}");
        }
        for value in ["", "Basic dTpw", "Token sk=live:012345678", "Negotiate YIIB", &basic("user:password")] {
            assert!(!holds(value, |text| text == KEY), "{value}");
        }
    }

    #[test]
    fn what_is_too_much_to_look_through_holds_anything() {
        let value = |n: usize| vec!["!"; n].join(" ");
        assert!(!holds(&value(TEXT_LIMIT), |_| false));
        assert!(holds(&value(TEXT_LIMIT + 1), |_| false));
        assert!(!holds(&format!("Negotiate {}", "YIIB".repeat(5_000)), |_| false));
        // 516 bytes are 688 characters of base64.
        let is_seen = |user: usize| {
            holds(&basic(&format!("{}:{}", "u".repeat(user), "k".repeat(256))), |text| text.starts_with('k'))
        };
        assert_eq!([256, 259, 260].map(is_seen), [true, true, false]);
    }

    #[test]
    fn where_a_key_would_stand() {
        for (value, presented) in [
            ("Bearer k", true),
            ("bEARER\tk", true),
            ("Bearer  k", true),
            ("Basic dTpw, Bearer k", true),
            ("Bearer x k", true),
            ("k", true),
            ("Token k", true),
            ("ApiKey\u{a0}k", true),
            ("Basic k", false),
            ("NTLM k", false),
            ("Negotiate k", false),
            ("Digest k", false),
            ("Token k, x", false),
            ("Digest username=\"k\", realm=\"k\"", false),
            ("AWS4-HMAC-SHA256 Credential=k, Signature=k", false),
            ("Hawk id=\"k\"", false),
            ("a k b", false),
            ("Bearer", false),
            ("", false),
        ] {
            assert_eq!(presents(value, |text| text.contains('k') && text != "Token"), presented, "{value}");
        }
    }

    #[test]
    fn own_forms() {
        let key = format!("tg_{}_{}", "a".repeat(16), "b".repeat(48));
        let token = format!("tga_{}_{}", "a".repeat(16), "b".repeat(32));
        assert!(has_own_form(&key) && has_own_form(&token));
        for other in [&key[1..], &token[1..], "", "tg_", "sk_live_0123456789"] {
            assert!(!has_own_form(other), "{other}");
        }
    }
}
