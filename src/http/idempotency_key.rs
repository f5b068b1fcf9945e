//! `Idempotency-Key`: the calls that it applies to, and what a repeat must have in common with the
//! first call.
//!
//! The field applies to unsafe methods (RFC 9110, section 9.2.1). On all others it is forwarded and
//! otherwise ignored. A repeat has the method, the path and the query of the first call, byte for
//! byte as they are forwarded. Of calls that spend tokens the gate reads the body, and a repeat has
//! that too: what it says decides what the call may use, and a free repeat holds nothing. Other
//! bodies are not read.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Characters of a key at most.
pub const MAX_KEY: usize = 255;
/// Repeats of one call that are charged to no policy of a month or of tokens; further ones are
/// charged like new calls.
pub const FREE_REPEATS: u32 = 5;

/// Whether `Idempotency-Key` marks repeats of a call. `off`: the field is forwarded and otherwise
/// ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum Idempotency {
    /// Repeats are recognised.
    #[default]
    On,
    /// The field is forwarded and otherwise ignored.
    Off,
}

impl Idempotency {
    /// Whether this is the default.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self == Self::On
    }

    /// The word of the API and of D1.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// Whether the field applies to calls of this method.
    #[must_use]
    pub fn applies_to(self, method: &str) -> bool {
        self.is_on() && !is_safe(method)
    }
}

/// The text is no value of a tier's `idempotency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be on or off")]
pub struct IdempotencyError;

impl FromStr for Idempotency {
    type Err = IdempotencyError;

    fn from_str(word: &str) -> Result<Self, IdempotencyError> {
        [Self::On, Self::Off].into_iter().find(|value| value.as_str() == word).ok_or(IdempotencyError)
    }
}

/// The field of one request, where it applies to the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// There is none, or the method is safe.
    Absent,
    /// A key.
    Key(&'a str),
    /// A value that is no key.
    Malformed,
}

impl<'a> Field<'a> {
    /// Reads the value of a request's field. It is compared as sent: the quotes of a Structured
    /// Field string are part of the key.
    #[must_use]
    pub fn read(method: &str, value: Option<&'a str>) -> Self {
        let Some(value) = value.filter(|_| !is_safe(method)) else { return Self::Absent };
        let is_key = (1..=MAX_KEY).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if is_key { Self::Key(value) } else { Self::Malformed }
    }
}

fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// A hash of a request's method, path and query. It travels and is compared in place of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of a request as it is forwarded: `path` from its first slash, `query`
    /// without its question mark.
    #[must_use]
    pub fn of(method: &str, path: &str, query: Option<&str>) -> Self {
        let mut hash = Sha256::new_with_prefix(b"tollgate request v1\0")
            .chain_update(method)
            .chain_update(b"\0")
            .chain_update(path);
        if let Some(query) = query {
            hash = hash.chain_update(b"?").chain_update(query);
        }
        Self(hash.finalize().first_chunk().map_or(0, |head| u128::from_be_bytes(*head)))
    }

    /// The fingerprint of this request with a body, of which the gate has read `start`. `length` is
    /// its length, if that is known.
    #[must_use]
    pub fn with_body(self, start: &[u8], length: Option<u64>) -> Self {
        let hash = Sha256::new_with_prefix(b"tollgate body v1\0")
            .chain_update(self.to_bytes())
            .chain_update(length.unwrap_or(u64::MAX).to_be_bytes())
            .chain_update(start);
        Self(hash.finalize().first_chunk().map_or(0, |head| u128::from_be_bytes(*head)))
    }

    /// Reads what this prints: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| is_hex).map(Self)
    }

    /// The bytes that are hashed further.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Names the call with this fingerprint and this idempotency key among the calls of one API
    /// key.
    #[must_use]
    pub fn with_key(self, key: &str) -> u64 {
        let hash = Sha256::new_with_prefix(self.to_bytes()).chain_update(key).finalize();
        hash.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_applies_to_unsafe_methods() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            for value in [Some("k"), Some(""), Some("ü"), None] {
                assert_eq!(Field::read(method, value), Field::Absent, "{method} {value:?}");
            }
            assert!(!Idempotency::On.applies_to(method));
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "get", "PURGE"] {
            assert_eq!(Field::read(method, Some("k")), Field::Key("k"), "{method}");
            assert_eq!(Field::read(method, None), Field::Absent, "{method}");
            assert!(Idempotency::On.applies_to(method) && !Idempotency::Off.applies_to(method));
        }
    }

    #[test]
    fn a_key_is_visible_ascii_and_spaces() {
        let (longest, longer) = ("x".repeat(MAX_KEY), "x".repeat(MAX_KEY + 1));
        for key in ["k", " ", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "a;b|c~", &longest] {
            assert_eq!(Field::read("POST", Some(key)), Field::Key(key));
        }
        for wrong in ["", "a\tb", "\u{7f}", "ü", &longer] {
            assert_eq!(Field::read("POST", Some(wrong)), Field::Malformed, "{wrong}");
        }
    }

    /// Objects keep them for a day: what makes them must not change.
    #[test]
    fn fingerprints_are_frozen() {
        let of = |method, path, query| Fingerprint::of(method, path, query).to_string();
        assert_eq!(of("POST", "/orders", None), FIRST);
        let parts = [
            ("POST", "/orders", Some("")),
            ("POST", "/orders", Some("a")),
            ("POST", "/orders/", None),
            ("PUT", "/orders", None),
            ("POST", "/Orders", None),
            ("POS", "T/orders", None),
        ];
        let mut all: Vec<String> = parts.into_iter().map(|(method, path, query)| of(method, path, query)).collect();
        all.push(FIRST.to_owned());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), parts.len() + 1);
        let first = Fingerprint::of("POST", "/orders", None);
        assert_eq!(Fingerprint::parse(FIRST), Some(first));
        for wrong in ["", "00ff", &FIRST.replace('2', "g"), &format!("+{}", &FIRST[1..]), &format!("{FIRST}0")] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
        let bodies: [(&[u8], Option<u64>); 5] =
            [(b"", Some(0)), (b"a", Some(1)), (b"a", Some(2)), (b"b", Some(2)), (b"a", None)];
        let mut all = bodies.map(|(start, length)| first.with_body(start, length).to_string());
        assert_eq!(all[1], WITH_BODY);
        all.sort_unstable();
        assert!(!all.contains(&FIRST.to_owned()) && all.is_sorted_by(|before, after| before < after));
        assert_ne!(first.with_body(b"a", None), Fingerprint::of("PUT", "/orders", None).with_body(b"a", None));
        assert_ne!(first.with_key("a"), first.with_key("b"));
        assert_ne!(first.with_key("a"), Fingerprint::of("PUT", "/orders", None).with_key("a"));
    }

    const WITH_BODY: &str = "1803c5cec94e45c6be755e51d11fe77b";
    const FIRST: &str = "3597ea7d1937509fef6ed26a0dbd6b15";
}
