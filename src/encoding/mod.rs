//! Encodings of bytes as text, for keys and hashes. Written by hand, because a general codec would
//! be a tenth of the Worker's size.

pub(crate) mod record;

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
        }
    }
    text
}

/// Decodes the output of [`hex`]. `None` for any other text.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    });
    pairs.collect()
}

/// Encodes whole groups of 5 bytes as lower-case base32 (RFC 4648). An incomplete group at the end
/// is ignored.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        bits = (bits << 8 | u32::from(*byte)) & 0xfff;
        count += 8;
        while count >= 5 {
            count -= 5;
            let [value, ..] = (bits >> count & 31).to_le_bytes();
            text.push(char::from(if value < 26 { b'a' + value } else { b'2' + value - 26 }));
        }
    }
    text
}

/// Decodes the output of [`base32`]. `None` for any other text.
#[must_use]
pub fn unbase32(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(8) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 8 * 5);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            let [byte, ..] = (bits >> count & 0xff).to_le_bytes();
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// Characters of a number in [`base32_number`].
pub const NUMBER_LENGTH: usize = 13;

/// Encodes a number as 13 lower-case characters of base32, the most significant first.
#[must_use]
pub fn base32_number(number: u64) -> String {
    let digits = (0..NUMBER_LENGTH).rev().map(|digit| {
        let [value, ..] = (number >> (5 * digit) & 31).to_le_bytes();
        char::from(if value < 26 { b'a' + value } else { b'2' + value - 26 })
    });
    digits.collect()
}

/// Decodes the output of [`base32_number`]. `None` for any other text.
#[must_use]
pub fn unbase32_number(text: &str) -> Option<u64> {
    if text.len() != NUMBER_LENGTH {
        return None;
    }
    text.bytes().try_fold(0_u64, |number, byte| {
        let value = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        Some(number.checked_mul(32)? | u64::from(value))
    })
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Encodes whole groups of 3 bytes as base64url (RFC 4648). An incomplete group at the end is
/// ignored.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 3 * 4);
    let (groups, _) = bytes.as_chunks();
    for [a, b, c] in groups {
        let bits = u32::from_be_bytes([0, *a, *b, *c]);
        for shift in [18, 12, 6, 0] {
            let value = usize::try_from(bits >> shift & 63).unwrap_or_default();
            text.push(BASE64.get(value).copied().map_or('A', char::from));
        }
    }
    text
}

/// Decodes the output of [`base64`]. `None` for any other text.
#[must_use]
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (groups, []) = text.as_bytes().as_chunks::<4>() else { return None };
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for group in groups {
        let mut bits = 0_u32;
        for byte in group {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend([a, b, c]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD, HEXLOWER};
    use proptest::prelude::*;

    #[test]
    fn numbers_are_spelled_in_one_way() {
        for (number, text) in
            [(0, "aaaaaaaaaaaaa"), (1, "aaaaaaaaaaaab"), (32, "aaaaaaaaaaaba"), (u64::MAX, "p777777777777")]
        {
            assert_eq!((base32_number(number).as_str(), unbase32_number(text)), (text, Some(number)));
        }
        for wrong in
            ["", "aaaaaaaaaaaa", "aaaaaaaaaaaaaa", "qaaaaaaaaaaaa", "7777777777777", "Aaaaaaaaaaaaa", "aaaaaaaaaaaa1"]
        {
            assert_eq!(unbase32_number(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn all_are_what_the_rfc_says(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(hex(&bytes), HEXLOWER.encode(&bytes));
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes.clone()));
            let whole = &bytes[..bytes.len() / 5 * 5];
            prop_assert_eq!(base32(whole), BASE32_NOPAD.encode(whole).to_lowercase());
            prop_assert_eq!(unbase32(&base32(whole)), Some(whole.to_vec()));
            let whole = &bytes[..bytes.len() / 3 * 3];
            prop_assert_eq!(base64(whole), BASE64URL_NOPAD.encode(whole));
            prop_assert_eq!(unbase64(&base64(whole)), Some(whole.to_vec()));
        }

        #[test]
        fn a_text_has_one_reading_or_none(text in "[a-z0-9A-Z=_é-]{0,24}") {
            if let Some(bytes) = unbase64(&text) {
                prop_assert_eq!(base64(&bytes), text.clone());
            }
            if let Some(bytes) = unbase32(&text) {
                prop_assert_eq!(base32(&bytes), text.clone());
            }
            if let Some(bytes) = unhex(&text) {
                prop_assert_eq!(hex(&bytes), text);
            }
        }
    }
}
