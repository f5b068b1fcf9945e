//! API keys: their form, their tag, and the part that is stored.
//!
//! A key is `tg_<id>_<secret><tag>` in lower-case base32 (RFC 4648 alphabet, whole 5-byte groups,
//! so that each key has exactly one spelling). It has an 80-bit id, a 160-bit secret and an 80-bit
//! tag. The tag is an HMAC-SHA-256 under `KEY_SECRET` over id and secret, truncated to 10 bytes
//! (RFC 2104 §5 allows no less than 80 bits or half of the hash). With it an isolate refuses a
//! forged or mistyped key without a lookup. The secret authenticates the key; only its hash is
//! stored.

use crate::encoding::{base32, hex, unbase32};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::ops::RangeInclusive;
use subtle::ConstantTimeEq;

const PREFIX: &str = "tg_";
const ID_BYTES: usize = 10;
const SECRET_BYTES: usize = 20;
const TAG_BYTES: usize = 10;
/// Length of an id.
pub const ID_LENGTH: usize = ID_BYTES / 5 * 8;
const SECRET_LENGTH: usize = SECRET_BYTES / 5 * 8;
const TAG_LENGTH: usize = TAG_BYTES / 5 * 8;
/// Length of a key.
pub const KEY_LENGTH: usize = PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH + TAG_LENGTH;
/// Number of random bytes that [`issue`] takes.
pub const ENTROPY_BYTES: usize = ID_BYTES + SECRET_BYTES;

/// Creates and verifies the tags of keys, under the current `KEY_SECRET` and previous ones.
#[derive(Clone)]
pub struct Signer {
    current: Hmac<Sha256>,
    previous: Vec<Hmac<Sha256>>,
}

impl Signer {
    /// A signer that tags new keys under `current` and also accepts tags under `previous`. `None`
    /// if `current` is empty.
    #[must_use]
    pub fn new<'a>(current: &str, previous: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let keyed = |secret: &str| {
            // HMAC accepts keys of any length, but an empty one would not be secret.
            (!secret.is_empty()).then(|| Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()).flatten()
        };
        Some(Self { current: keyed(current)?, previous: previous.into_iter().filter_map(keyed).collect() })
    }

    fn mac(keyed: &Hmac<Sha256>, untagged: &str) -> Hmac<Sha256> {
        keyed.clone().chain_update(b"tollgate key v1\0").chain_update(untagged.as_bytes())
    }

    fn verifies(&self, untagged: &str, tag: &[u8]) -> bool {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .any(|keyed| Self::mac(keyed, untagged).verify_truncated_left(tag).is_ok())
    }
}

/// Allowed lengths of an imported key.
pub const IMPORTED_LENGTH: RangeInclusive<usize> = 16..=256;

/// Whether `text` can be an imported key: visible ASCII of an allowed length. A comma would read as
/// a repeated header field. A text in the form of tollgate's own keys and tokens is refused.
#[must_use]
pub fn is_importable(text: &str) -> bool {
    IMPORTED_LENGTH.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
        && !(text.len() == KEY_LENGTH && text.starts_with(PREFIX))
        && token_id(text).is_none()
}

/// The stored form of an imported key. Both fields are HMACs under `KEY_SECRET`: imported keys may
/// be easy to guess, and access to D1 alone must not allow a brute-force search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedKey {
    /// Names the key's Durable Object and its row in D1.
    pub id: String,
    /// The stored hash of the key.
    pub secret_hash: String,
}

impl ImportedKey {
    /// The stored forms of `key` under each secret, the current one first.
    #[must_use]
    pub fn derive(key: &str, signer: &Signer) -> Vec<Self> {
        let mac = |keyed: &Hmac<Sha256>, label: &[u8]| {
            keyed.clone().chain_update(label).chain_update(key.as_bytes()).finalize().into_bytes()
        };
        let under = |keyed| Self {
            id: base32(mac(keyed, b"tollgate import v1\0").get(..ID_BYTES).unwrap_or_default()),
            secret_hash: hex(&mac(keyed, b"tollgate import secret v1\0")),
        };
        std::iter::once(&signer.current).chain(&signer.previous).map(under).collect()
    }
}

/// A new key. Only this value ever holds its text.
pub struct IssuedKey {
    /// Names the key's Durable Object and its row in D1.
    pub id: String,
    /// The key itself, to be shown once.
    pub key: String,
    /// The stored hash of its secret.
    pub secret_hash: String,
    /// The last four characters, which help people to tell keys apart.
    pub hint: String,
}

/// Creates a key from random bytes.
#[must_use]
pub fn issue(signer: &Signer, entropy: &[u8; ENTROPY_BYTES]) -> IssuedKey {
    let (id, secret) = entropy.split_at(ID_BYTES);
    issue_for(base32(id), signer, secret)
}

/// Creates another key with the same id, with a secret from random bytes.
#[must_use]
pub fn reissue(id: &str, signer: &Signer, entropy: &[u8; ENTROPY_BYTES]) -> IssuedKey {
    let (_, secret) = entropy.split_at(ID_BYTES);
    issue_for(id.to_owned(), signer, secret)
}

fn issue_for(id: String, signer: &Signer, secret: &[u8]) -> IssuedKey {
    let secret = base32(secret);
    let untagged = format!("{PREFIX}{id}_{secret}");
    let tag = Signer::mac(&signer.current, &untagged).finalize().into_bytes();
    let tag = base32(tag.get(..TAG_BYTES).unwrap_or_default());
    let hint = tag.get(TAG_LENGTH - 4..).unwrap_or_default().to_owned();
    IssuedKey { secret_hash: secret_hash(&id, &secret), key: untagged + &tag, id, hint }
}

/// A presented key with a valid tag: a Worker with this secret issued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PresentedKey<'a> {
    pub id: &'a str,
    secret: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Verifies a presented key. `None` if it is malformed or its tag is invalid.
    #[must_use]
    pub fn verify(presented: &'a str, signer: &Signer) -> Option<Self> {
        let (id, rest) = Self::split(presented)?;
        let (secret, tag) = rest.strip_prefix('_')?.split_at_checked(SECRET_LENGTH)?;
        let is_base32 = |text: &str| text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        if !is_base32(id) || !is_base32(secret) {
            return None;
        }
        let untagged = presented.get(..KEY_LENGTH - TAG_LENGTH)?;
        let tag = unbase32(tag)?;
        signer.verifies(untagged, &tag).then_some(Self { id, secret })
    }

    /// The id of a text in the form of a key. The tag is not verified.
    #[must_use]
    pub fn id_of(presented: &'a str) -> Option<&'a str> {
        Self::split(presented).map(|(id, _)| id)
    }

    fn split(presented: &'a str) -> Option<(&'a str, &'a str)> {
        if presented.len() != KEY_LENGTH {
            return None;
        }
        presented.strip_prefix(PREFIX)?.split_at_checked(ID_LENGTH)
    }

    /// The hash that is stored of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> String {
        secret_hash(self.id, self.secret)
    }
}

/// Whether `text` has the form of a key id, which is safe in URLs, log lines and object names.
#[must_use]
pub fn is_key_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

/// The stored hash of a secret. 160 random bits cannot be guessed, so a slow hash would add
/// nothing.
fn secret_hash(id: &str, secret: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tollgate secret v1\0");
    hash.update(id.as_bytes());
    hash.update(b"\0");
    hash.update(secret.as_bytes());
    hex(&hash.finalize())
}

const TOKEN_PREFIX: &str = "tga_";

/// Creates an admin token, `tga_<id>_<secret>`, from random bytes.
#[must_use]
pub fn issue_token(entropy: &[u8; ENTROPY_BYTES]) -> IssuedKey {
    let (id, secret) = entropy.split_at(ID_BYTES);
    let id = base32(id);
    let key = format!("{TOKEN_PREFIX}{id}_{}", base32(secret));
    let hint = key.get(key.len() - 4..).unwrap_or_default().to_owned();
    IssuedKey { secret_hash: token_hash(&key), id, key, hint }
}

/// The id of a presented token. `None` if it does not have the form of a token.
#[must_use]
pub fn token_id(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    (is_key_id(id) && secret.len() == SECRET_LENGTH).then_some(id)
}

/// The hash that is stored of a token.
#[must_use]
pub fn token_hash(token: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tollgate admin token v1\0");
    hash.update(token.as_bytes());
    hex(&hash.finalize())
}

/// Compares two texts in constant time: timing reveals nothing about where they differ.
#[must_use]
pub fn same_secret(a: &str, b: &str) -> bool {
    // The hashes have equal lengths, so timing does not reveal the lengths either.
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    digest(a).as_slice().ct_eq(digest(b).as_slice()).into()
}

/// Compares two texts of equal, public length in constant time.
#[must_use]
pub fn same_hash(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new("one", []).unwrap()
    }

    fn entropy(seed: u8) -> [u8; ENTROPY_BYTES] {
        std::array::from_fn(|i| seed.wrapping_mul(31).wrapping_add(u8::try_from(i).unwrap().wrapping_mul(7)))
    }

    #[test]
    fn an_issued_key_verifies_and_hashes_to_what_was_stored() {
        let issued = issue(&signer(), &entropy(1));
        assert_eq!(issued.key.len(), KEY_LENGTH);
        assert!(issued.key.ends_with(&issued.hint));
        assert!(is_key_id(&issued.id));
        let signer = signer();
        let presented = PresentedKey::verify(&issued.key, &signer).unwrap();
        assert_eq!(presented.id, issued.id);
        assert!(same_hash(&presented.secret_hash(), &issued.secret_hash));
        assert!(!issued.secret_hash.contains(presented.secret));
    }

    #[test]
    fn a_reissued_key_has_the_same_id_and_another_secret() {
        let (first, signer) = (issue(&signer(), &entropy(1)), signer());
        let second = reissue(&first.id, &signer, &entropy(4));
        let presented = PresentedKey::verify(&second.key, &signer).unwrap();
        assert_eq!(presented.id, first.id);
        assert_eq!(presented.secret_hash(), second.secret_hash);
        assert_ne!(first.secret_hash, second.secret_hash);
    }

    /// Tokens live for years too.
    #[test]
    fn tokens_of_the_admin_api_are_frozen() {
        let token = issue_token(&[0; ENTROPY_BYTES]);
        assert_eq!(token.key, "tga_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        assert_eq!(token.secret_hash, TOKEN_HASH);
        assert_eq!((token_id(&token.key), token.hint.as_str()), (Some(token.id.as_str()), "aaaa"));
        for other in ["", "tga_", "tga_aaaaaaaaaaaaaaaa_", &token.key[1..], &format!("{}a", token.key)] {
            assert_eq!(token_id(other), None, "{other}");
        }
    }
    const TOKEN_HASH: &str = "5f251bba8e0da065aa3a82b153147cdcf06f276a454c1df1e46691982dd1ac99";

    /// The form is public and keys live for years: a change here strands every key in the field.
    #[test]
    fn the_form_is_frozen() {
        let issued = issue(&signer(), &[0; ENTROPY_BYTES]);
        assert_eq!(issued.id, "aaaaaaaaaaaaaaaa");
        assert!(issued.key.starts_with("tg_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        assert_eq!(&issued.key[52..], FROZEN_TAG);
        assert_eq!(issued.secret_hash, FROZEN_HASH);
    }
    const FROZEN_TAG: &str = "lvsye2b54znvnmsk";
    const FROZEN_HASH: &str = "06e5354c08ed3f80c649d70fad86387e846c189992c4ce85e8d251fcb2522690";

    #[test]
    fn imported_keys_are_visible_ascii_and_not_of_our_form() {
        let issued = issue(&signer(), &entropy(1)).key;
        for (key, may_be) in [
            ("x".repeat(16), true),
            ("x".repeat(256), true),
            ("~sk_live!\"#$%&'()*+".to_owned(), true),
            (format!("{issued}a"), true),
            (issued.to_uppercase(), true),
            ("x".repeat(15), false),
            ("x".repeat(257), false),
            ("x".repeat(8) + " " + &"x".repeat(8), false),
            ("x".repeat(16) + "\u{7f}", false),
            ("x".repeat(16) + "ä", false),
            ("x".repeat(16) + ",", false),
            (mistyped(&issued), false),
            (issued, false),
            (issue_token(&entropy(1)).key, false),
        ] {
            assert_eq!(is_importable(&key), may_be, "{key}");
        }
    }

    fn mistyped(key: &str) -> String {
        format!("{}{}", &key[..KEY_LENGTH - 1], if key.ends_with('a') { 'b' } else { 'a' })
    }

    /// The rows of imported keys are found by this for years.
    #[test]
    fn the_ids_of_imported_keys_are_frozen() {
        let [under] = ImportedKey::derive("sk_live_0123456789", &signer()).try_into().unwrap();
        assert_eq!((under.id.as_str(), under.secret_hash.as_str()), (IMPORTED_ID, IMPORTED_HASH));
        assert!(is_key_id(&under.id));
        let rotated = ImportedKey::derive("sk_live_0123456789", &Signer::new("two", ["one"]).unwrap());
        assert_eq!(rotated.len(), 2);
        assert_ne!(rotated[0].id, under.id);
        assert_eq!(rotated[1], under);
    }
    const IMPORTED_ID: &str = "bvpsk3d4h7mlplpv";
    const IMPORTED_HASH: &str = "078c02218158812ec4beb884faa88520ecc986fd980394e1c6086e3feedbbcda";

    #[test]
    fn every_single_character_counts() {
        let issued = issue(&signer(), &entropy(2));
        let signer = signer();
        for at in 0..issued.key.len() {
            for other in ["a", "b", "A", "_", "0", "-", "é", ","] {
                let mut changed = issued.key.clone();
                changed.replace_range(at..=at, other);
                if changed != issued.key {
                    assert_eq!(PresentedKey::verify(&changed, &signer), None, "{changed}");
                }
            }
        }
        for wrong in ["", "tg_", &issued.key[1..], &format!("{} ", issued.key), &issued.key.to_uppercase()] {
            assert_eq!(PresentedKey::verify(wrong, &signer), None);
        }
    }

    #[test]
    fn a_replaced_secret_still_verifies_its_keys_until_it_is_dropped() {
        let issued = issue(&signer(), &entropy(3));
        let rotated = Signer::new("two", ["zero", "one"]).unwrap();
        assert!(PresentedKey::verify(&issued.key, &rotated).is_some());
        let dropped = Signer::new("two", [""]).unwrap();
        assert!(PresentedKey::verify(&issued.key, &dropped).is_none());
        assert!(Signer::new("", ["one"]).is_none());
    }
}
