// Requests byte by byte over raw sockets, for what no HTTP client sends.
import { once } from "node:events";
import net from "node:net";

const CRLF = "\r\n";

/** The head of a request as text; `headers` are lines. */
export function head(requestLine, headers) {
  return [requestLine, ...headers, "", ""].join(CRLF);
}

/** A connected socket to the gate. */
export async function connect(gate) {
  const { hostname, port } = new URL(gate.url);
  const socket = net.connect(Number(port), hostname);
  await once(socket, "connect");
  return socket;
}

/** Sends bytes (text is Latin-1) and reads the response: `{ status, headers, body }`. */
export async function exchange(gate, bytes) {
  const isHead = bytes.startsWith("HEAD ");
  const socket = await connect(gate);
  socket.write(Buffer.from(bytes, "latin1"));
  try {
    return await readAnswer(socket, isHead);
  } finally {
    socket.destroy();
  }
}

/** Sends a request without a body and reads the response. */
export function request(gate, requestLine, headers) {
  return exchange(gate, head(requestLine, [...headers, "Connection: close"]));
}

/**
 * Reads one response: up to its length, its last chunk, or the end of the connection. A response to
 * HEAD has no body.
 */
export async function readAnswer(socket, isHead = false) {
  let text = "";
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    text += chunk.toString("latin1");
    const answer = parseAnswer(text, isHead, false);
    if (answer) return answer;
  }
  const answer = parseAnswer(text, isHead, true);
  if (!answer) throw new Error(`the connection ended in mid-answer: ${JSON.stringify(text)}`);
  return answer;
}

function parseAnswer(text, isHead, isEnded) {
  const at = text.indexOf(CRLF + CRLF);
  if (at < 0) return undefined;
  const [statusLine, ...lines] = text.slice(0, at).split(CRLF);
  const headers = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  const rest = text.slice(at + 4);
  const status = Number(statusLine.split(" ")[1]);
  if (isHead) return { status, headers, body: "" };
  if (headers["transfer-encoding"] === "chunked") {
    const body = dechunk(rest);
    return body === undefined ? undefined : { status, headers, body };
  }
  const length = headers["content-length"];
  if (length === undefined ? !isEnded : rest.length < Number(length)) return undefined;
  return { status, headers, body: length === undefined ? rest : rest.slice(0, Number(length)) };
}

function dechunk(text) {
  let body = "";
  for (let at = 0; ; ) {
    const end = text.indexOf(CRLF, at);
    if (end < 0) return undefined;
    const size = Number.parseInt(text.slice(at, end), 16);
    if (size === 0) return body;
    if (text.length < end + 2 + size + 2) return undefined;
    body += text.slice(end + 2, end + 2 + size);
    at = end + 2 + size + 2;
  }
}
