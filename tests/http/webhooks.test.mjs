// The receivers of docs/webhooks.md, as printed there, against a real gate.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { freePort, freshSecret, ROOT, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { isPortFree, startGroup } from "../../scripts/lib/processes.mjs";
import { until } from "../support/until.mjs";
import { addTiers, adminOf, call, issueKey } from "./lib/client.mjs";

const LANGUAGES = { javascript: ["receiver.mjs", process.execPath], python: ["receiver.py", "python3"] };
// Hex digits, as the documentation creates secrets. The key is their text, not the decoded bytes.
const SECRET = freshSecret();

let directory;
let origin;
let gate;
let recorder;
let key;
const receivers = {};
const posts = [];

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-webhooks-"));
  const manual = await readFile(path.join(ROOT, "docs/webhooks.md"), "utf8");
  for (const [language, [file, program]] of Object.entries(LANGUAGES)) {
    const [, code] = manual.match(new RegExp(`<!-- receiver: ${language} -->\n\`\`\`\\w+\n([\\s\\S]*?)\n\`\`\``));
    await writeFile(path.join(directory, file), `${code}\n`);
    const port = await freePort();
    const env = { ...process.env, ALERT_WEBHOOK_SECRET: `${SECRET}\n`, PORT: String(port) };
    const group = startGroup(program, [path.join(directory, file)], { env });
    receivers[language] = { url: `http://127.0.0.1:${port}`, ...group };
    await until(`the receiver in ${language}`, async () => {
      assert.ok(!group.exited(), group.log());
      return !(await isPortFree(port));
    });
  }

  // Both receive what the gate posts. The gate gets a success if both accept it.
  recorder = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { "x-tollgate-timestamp": timestamp, "x-tollgate-signature": signature } = request.headers;
    const post = { timestamp, signature, body: Buffer.concat(chunks) };
    post.statuses = await Promise.all(Object.keys(LANGUAGES).map((language) => deliver(language, post)));
    posts.push(post);
    response.writeHead(post.statuses.every((status) => status === 204) ? 204 : 500).end();
  });
  recorder.listen(0, "127.0.0.1");
  await once(recorder, "listening");

  origin = await startOrigin();
  const url = `http://127.0.0.1:${recorder.address().port}/hook`;
  gate = await startGate({ origin: origin.url, vars: { ALERT_WEBHOOK_URL: url, ALERT_WEBHOOK_SECRET: SECRET } });
  await addTiers(gate, { five: [{ quota: 5, period: "month" }] });
  key = await issueKey(gate, "five");
  for (let n = 0; n < 4; n += 1) assert.equal((await call(gate, key)).status, 200);
  await until("an alert is posted", () => posts.length > 0);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
  recorder?.close();
  for (const receiver of Object.values(receivers)) await receiver.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

/** The status of a receiver's response to a post. An `undefined` field is omitted. */
async function deliver(language, { timestamp, signature, body }) {
  const headers = { "content-type": "application/json", "x-tollgate-timestamp": timestamp, "x-tollgate-signature": signature };
  for (const name of Object.keys(headers)) if (headers[name] === undefined) delete headers[name];
  const response = await fetch(receivers[language].url, { method: "POST", headers, body });
  await response.arrayBuffer();
  return response.status;
}

function sign(secret, timestamp, body) {
  return `v1=${createHmac("sha256", secret).update(`${timestamp}.`).update(body).digest("hex")}`;
}

test("both receivers accept what the gate posts, and it is listed as delivered", async () => {
  const [post] = posts;
  assert.deepEqual(post.statuses, [204, 204]);
  assert.deepEqual({ ...JSON.parse(post.body), at: "" }, {
    type: "quota_threshold", key_id: key.id, policy: "month", unit: "requests", threshold: 0.8, used: 4, quota: 5,
    month: new Date().toISOString().slice(0, 7), at: "",
  });
  for (const { log } of Object.values(receivers)) {
    await until("the receiver has read the alert", () => log().includes(`key ${key.id} has used 4 of 5 requests\n`));
  }
  await until("the alert is delivered", async () => {
    const { deliveries } = await adminOf(gate).json("GET", "/alerts/deliveries");
    return deliveries.some(({ key_id, state }) => key_id === key.id && state === "delivered");
  });
  assert.equal(posts.length, 1);
});

for (const language of Object.keys(LANGUAGES)) {
  describe(`the receiver in ${language}`, () => {
    const genuine = () => ({ timestamp: posts[0].timestamp, signature: posts[0].signature, body: posts[0].body });
    const at = (seconds, secret = SECRET) => {
      const timestamp = String(Math.floor(Date.now() / 1000) + seconds);
      return { timestamp, signature: sign(secret, timestamp, posts[0].body), body: posts[0].body };
    };

    test("accepts what is signed with the secret, up to five minutes old", async () => {
      for (const seconds of [0, -290, 290]) assert.equal(await deliver(language, at(seconds)), 204, `${seconds} s`);
      const body = Buffer.from('{"key_id":"ä","used":1,"quota":2,"unit":"tokens"}');
      const { timestamp } = at(0);
      assert.equal(await deliver(language, { timestamp, signature: sign(SECRET, timestamp, body), body }), 204);
    });

    test("refuses a body that is too large, and survives a sender that disconnects", async () => {
      // The receiver closes the connection without reading on, which can overtake its response.
      const tooLarge = deliver(language, { ...genuine(), body: Buffer.alloc(70_000, " ") });
      assert.equal(await tooLarge.catch(() => 413), 413);
      const socket = net.connect(new URL(receivers[language].url).port, "127.0.0.1");
      await once(socket, "connect");
      socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{");
      await new Promise((resolve) => socket.end(resolve));
      socket.destroy();
      assert.equal(await deliver(language, genuine()), 204);
      assert.ok(!receivers[language].exited());
    });

    for (const [what, post] of [
      ["another body", () => ({ ...genuine(), body: Buffer.from(String(posts[0].body).replace('"used":4', '"used":1')) })],
      ["the same JSON in other bytes", () => ({ ...genuine(), body: Buffer.from(`${posts[0].body}\n`) })],
      ["another timestamp", () => ({ ...genuine(), timestamp: String(Number(posts[0].timestamp) + 1) })],
      ["a request that is too old", () => at(-310)],
      ["a request from the future", () => at(310)],
      ["another secret", () => at(0, freshSecret())],
      ["the bytes that the secret spells as hex", () => at(0, Buffer.from(SECRET, "hex"))],
      ["no timestamp", () => ({ ...genuine(), timestamp: undefined })],
      ["no signature", () => ({ ...genuine(), signature: undefined })],
      ["a timestamp that is no number", () => ({ ...genuine(), timestamp: `${posts[0].timestamp}x` })],
      ["a signature without its version", () => ({ ...genuine(), signature: posts[0].signature.slice(3) })],
      ["half a signature", () => ({ ...genuine(), signature: posts[0].signature.slice(0, 40) })],
      ["a signature that is no ASCII", () => ({ ...genuine(), signature: `v1=${"\u00e4".repeat(64)}` })],
    ]) {
      test(`refuses ${what}`, async () => {
        assert.equal(await deliver(language, post()), 401);
      });
    }
  });
}
