// Keys made by the tests, tagged with the Worker's secret or another one.
import { env } from "cloudflare:workers";
import { base32 } from "../../support/base32.mjs";

const encoder = new TextEncoder();

const random = (bytes) => base32(crypto.getRandomValues(new Uint8Array(bytes)));

async function hmac(secret, text) {
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, encoder.encode(text)));
}

/** A well-formed key with a tag under `secret`; id and secret part are random unless given. */
export async function forge({ secret = env.KEY_SECRET, id = random(10), part = random(20) } = {}) {
  const untagged = `tg_${id}_${part}`;
  return untagged + base32((await hmac(secret, `tollgate key v1\0${untagged}`)).slice(0, 10));
}

/** The id and hash of a key imported under `secret`. */
export async function derive(secret, key) {
  const id = base32((await hmac(secret, `tollgate import v1\0${key}`)).slice(0, 10));
  const hash = await hmac(secret, `tollgate import secret v1\0${key}`);
  return { id, hash: [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
}

/** A key with its last character changed. */
export function mistype(key) {
  return key.slice(0, -1) + (key.endsWith("a") ? "b" : "a");
}

/** The secret part of a key. */
export const secretPart = (key) => key.split("_")[2].slice(0, 32);
