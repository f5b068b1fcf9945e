// Keys that tollgate did not issue, made with the secret that it would have used, or with another one.
import { env } from "cloudflare:workers";

const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";
const encoder = new TextEncoder();

function base32(bytes) {
  let bits = "";
  for (const byte of bytes) bits += byte.toString(2).padStart(8, "0");
  return bits.match(/.{5}/g).map((five) => ALPHABET[parseInt(five, 2)]).join("");
}

const random = (bytes) => base32(crypto.getRandomValues(new Uint8Array(bytes)));

/** A well-formed key with a tag under `secret`: of a random id and secret part, unless given. */
export async function forge({ secret = env.KEY_SECRET, id = random(10), part = random(20) } = {}) {
  const untagged = `tg_${id}_${part}`;
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), hmac, false, ["sign"]);
  const tag = await crypto.subtle.sign("HMAC", key, encoder.encode(`tollgate key v1\0${untagged}`));
  return untagged + base32(new Uint8Array(tag).slice(0, 10));
}

/** A key with its last character changed. */
export function mistype(key) {
  return key.slice(0, -1) + (key.endsWith("a") ? "b" : "a");
}

/** The secret part of a key. */
export const secretPart = (key) => key.split("_")[2].slice(0, 32);
