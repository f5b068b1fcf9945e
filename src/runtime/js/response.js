// Builds responses.
import { headersOf } from "./fields.js";

export function reply(status, body, fields) {
  return new Response(body, { status, headers: headersOf(fields) });
}

/** A response whose header fields are shared with others. */
export function replyShared(status, body, headers) {
  return new Response(body, { status, headers });
}
