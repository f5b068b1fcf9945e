// The encoding of ids, secrets and tags in keys.
const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

/** Lower-case base32 of whole 5-byte groups. */
export function base32(bytes) {
  let bits = "";
  for (const byte of bytes) bits += byte.toString(2).padStart(8, "0");
  return bits.match(/.{5}/g).map((five) => ALPHABET[Number.parseInt(five, 2)]).join("");
}
