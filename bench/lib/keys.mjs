// API keys in the form that src/keys/key.rs gives them, so that ten thousand need no ten thousand
// calls of the admin API.
import { createHash, createHmac, randomBytes } from "node:crypto";
import { base32 } from "../../tests/support/base32.mjs";

/** A new key: `{ id, key, secretHash }`. */
export function issueKey(keySecret) {
  const id = base32(randomBytes(10));
  const secret = base32(randomBytes(20));
  const signed = `tg_${id}_${secret}`;
  const tag = createHmac("sha256", keySecret).update(`tollgate key v1\0${signed}`).digest().subarray(0, 10);
  const secretHash = createHash("sha256").update(`tollgate secret v1\0${id}\0${secret}`).digest("hex");
  return { id, key: signed + base32(tag), secretHash };
}

/** The id in a key. */
export const idOf = (key) => key.split("_")[1];
