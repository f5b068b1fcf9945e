// Reads properties of client requests.

/**
 * The properties of a request that the gateway uses, one per line, in one crossing: ten crossings
 * would cost more than all computation for a request. "+" marks a field or body that is present.
 * Fields that only some methods need are read only for these.
 */
export function facts(request) {
  const { method, url, headers } = request;
  let text = method + "\n" + url + "\n" + present(headers.get("x-api-key")) + "\n" + present(headers.get("authorization"));
  text += "\n" + present(headers.get("idempotency-key")) + "\n" + present(headers.get("x-tollgate-loop"));
  if (method === "GET") {
    if (request.body !== null) text += "\n" + bodyLength(headers);
  } else {
    text += "\n" + (request.body === null ? "" : bodyLength(headers)) + "\n" + present(headers.get("upgrade"));
    if (method === "OPTIONS") text += PREFLIGHT_FIELDS.map((name) => "\n" + present(headers.get(name))).join("");
  }
  return text;
}

const PREFLIGHT_FIELDS = ["origin", "access-control-request-method", "access-control-request-headers"];

function present(value) {
  return value === null ? "" : "+" + value;
}

function bodyLength(headers) {
  return "+" + (headers.get("content-length") ?? "");
}

/** The value of one header field. */
export function header(request, name) {
  return request.headers.get(name) ?? undefined;
}

/** The names of all header fields, one a line. */
export function headerNames(request) {
  return [...request.headers.keys()].join("\n");
}

/** Reads at most `limit` bytes of a body; null if there are more. */
export async function readBody(request, limit) {
  if (Number(request.headers.get("content-length") ?? 0) > limit) return null;
  const chunks = [];
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.byteLength;
    if (length > limit) return null;
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}
