// A minimal WebSocket client and server (RFC 6455), because the tests need custom headers.
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT = 1;
const CLOSE = 8;

function accept(key) {
  return createHash("sha1").update(key + GUID).digest("base64");
}

/**
 * Requests an upgrade: `{ status, headers, body }` and, after a 101, `exchange(text)`, `close()`.
 */
export function openWebSocket(gate, target, headers = {}) {
  const { hostname, port } = new URL(gate.url);
  const key = randomBytes(16).toString("base64");
  const upgrade = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": key,
  };
  const request = http.request({ hostname, port, path: target, headers: { ...upgrade, ...headers } });
  request.end();
  return new Promise((resolve, reject) => {
    request.on("error", reject);
    request.on("response", async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) });
    });
    request.on("upgrade", (response, socket, rest) => {
      const frames = frameReader(socket, rest);
      resolve({
        status: response.statusCode,
        headers: response.headers,
        isAccepted: response.headers["sec-websocket-accept"] === accept(key),
        async exchange(text) {
          socket.write(frame(TEXT, Buffer.from(text), true));
          return (await frames.next()).payload.toString();
        },
        async close() {
          socket.write(frame(CLOSE, Buffer.from([0x03, 0xe8]), true));
          const { opcode } = await frames.next();
          socket.destroy();
          return opcode === CLOSE;
        },
      });
    });
  });
}

/** The origin's side: accepts the upgrade, echoes texts, and answers a close. */
export async function echoUpgrade(request, socket, rest) {
  socket.on("error", () => socket.destroy());
  socket.write(
    [
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${accept(request.headers["sec-websocket-key"])}`,
      "X-Origin: echo",
      "",
      "",
    ].join("\r\n"),
  );
  const frames = frameReader(socket, rest);
  for (;;) {
    const { opcode, payload } = await frames.next();
    socket.write(frame(opcode, payload, false));
    if (opcode === CLOSE) return socket.end();
  }
}

function frame(opcode, payload, isMasked) {
  const short = payload.length < 126;
  const header = Buffer.alloc(short ? 2 : 4);
  header[0] = 0x80 | opcode;
  header[1] = (isMasked ? 0x80 : 0) | (short ? payload.length : 126);
  if (!short) header.writeUInt16BE(payload.length, 2);
  if (!isMasked) return Buffer.concat([header, payload]);
  const mask = randomBytes(4);
  return Buffer.concat([header, mask, payload.map((byte, i) => byte ^ mask[i % 4])]);
}

/** `next()` resolves to each frame; the end of the connection reads as a close. */
function frameReader(socket, rest) {
  let buffer = Buffer.from(rest);
  let isEnded = false;
  let wake = () => {};
  socket.on("data", (chunk) => {
    buffer = Buffer.concat([buffer, chunk]);
    wake();
  });
  socket.on("close", () => {
    isEnded = true;
    wake();
  });
  return {
    async next() {
      for (;;) {
        const parsed = parseFrame(buffer);
        if (parsed) {
          buffer = buffer.subarray(parsed.length);
          return parsed;
        }
        if (isEnded) return { opcode: CLOSE, payload: Buffer.alloc(0), length: 0 };
        await new Promise((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

function parseFrame(buffer) {
  if (buffer.length < 2) return undefined;
  const isMasked = (buffer[1] & 0x80) !== 0;
  let length = buffer[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (buffer.length < 4) return undefined;
    length = buffer.readUInt16BE(2);
    at = 4;
  }
  const mask = isMasked ? buffer.subarray(at, at + 4) : undefined;
  if (isMasked) at += 4;
  if (buffer.length < at + length) return undefined;
  const body = buffer.subarray(at, at + length);
  const payload = mask ? body.map((byte, i) => byte ^ mask[i % 4]) : body;
  return { opcode: buffer[0] & 0x0f, payload: Buffer.from(payload), length: at + length };
}
