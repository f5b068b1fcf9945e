//! Caches verified keys, so that a key in use is not hashed for every call.
//!
//! Verifying the tag and hashing the secret takes five blocks of SHA-256, more than all other work
//! of a cached denial. The result depends only on the key and `KEY_SECRET`, which is constant
//! within an isolate, so it never expires. It admits no call: the object decides whether the key
//! may be used.

use crate::keys::key::{PresentedKey, Signer, same_hash};
use std::collections::HashMap;

/// Maximum number of keys, about 1 MB. When it is reached, all are dropped and verified again.
pub const CAPACITY: usize = 4_096;

/// Keys with a valid tag, by id.
#[derive(Debug, Default)]
pub struct VerifiedKeys {
    keys: HashMap<String, Verified>,
}

#[derive(Debug)]
struct Verified {
    text: String,
    secret_hash: String,
}

impl VerifiedKeys {
    /// The id of a presented key and the hash of its secret. `None` if it is malformed or its tag
    /// is invalid.
    pub fn verify<'a>(&mut self, presented: &'a str, signer: &Signer) -> Option<(&'a str, &str)> {
        let id = PresentedKey::id_of(presented)?;
        // Compared in constant time: timing reveals nothing about a guessed key. A rotated key has
        // two valid texts for a while.
        let is_known = self.keys.get(id).is_some_and(|known| same_hash(&known.text, presented));
        if !is_known {
            let key = PresentedKey::verify(presented, signer)?;
            let verified = Verified { text: presented.to_owned(), secret_hash: key.secret_hash() };
            if self.keys.len() >= CAPACITY {
                self.keys.clear();
            }
            self.keys.insert(id.to_owned(), verified);
        }
        let known = self.keys.get(id)?;
        Some((id, &known.secret_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key::{ENTROPY_BYTES, IssuedKey, KEY_LENGTH, issue, reissue};

    fn signer() -> Signer {
        Signer::new("one", []).unwrap()
    }

    fn issued(seed: u16) -> IssuedKey {
        let [high, low] = seed.to_be_bytes();
        let mut entropy = [7; ENTROPY_BYTES];
        (entropy[0], entropy[1]) = (high, low);
        issue(&signer(), &entropy)
    }

    #[test]
    fn a_cached_key_equals_the_result_of_verifying_it() {
        let (mut keys, key) = (VerifiedKeys::default(), issued(1));
        for _ in 0..3 {
            assert_eq!(keys.verify(&key.key, &signer()), Some((key.id.as_str(), key.secret_hash.as_str())));
        }
        assert_eq!(keys.keys.len(), 1);
    }

    #[test]
    fn no_other_text_passes_for_a_known_key() {
        let (mut keys, key) = (VerifiedKeys::default(), issued(1));
        keys.verify(&key.key, &signer()).unwrap();
        for at in 0..KEY_LENGTH {
            for other in ["a", "b", "2", "_", "A", "é"] {
                let mut changed = key.key.clone();
                changed.replace_range(at..=at, other);
                if changed != key.key {
                    assert_eq!(keys.verify(&changed, &signer()), None, "{changed}");
                }
            }
        }
        for other in ["", &key.key[1..], &format!("{}a", key.key), &"é".repeat(KEY_LENGTH / 2)] {
            assert_eq!(keys.verify(other, &signer()), None, "{other}");
        }
    }

    #[test]
    fn both_secrets_of_a_rotated_key_have_their_own_hash() {
        let (mut keys, old) = (VerifiedKeys::default(), issued(1));
        let new = reissue(&old.id, &signer(), &[9; ENTROPY_BYTES]);
        for key in [&old, &new, &old, &new, &new] {
            assert_eq!(keys.verify(&key.key, &signer()), Some((old.id.as_str(), key.secret_hash.as_str())));
        }
        assert_eq!(keys.keys.len(), 1);
    }

    #[test]
    fn it_holds_no_more_than_its_capacity_and_no_forged_key() {
        let mut keys = VerifiedKeys::default();
        for seed in 0..=u16::try_from(CAPACITY).unwrap() {
            let key = issued(seed);
            assert_eq!(keys.verify(&key.key, &signer()), Some((key.id.as_str(), key.secret_hash.as_str())));
            // All of them, until there are too many.
            assert_eq!(keys.keys.len(), usize::from(seed) % CAPACITY + 1);
        }
        assert_eq!(keys.keys.len(), 1);
        assert_eq!(keys.verify(&issue(&Signer::new("two", []).unwrap(), &[1; ENTROPY_BYTES]).key, &signer()), None);
        assert_eq!(keys.keys.len(), 1);
    }
}
