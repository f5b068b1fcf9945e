// Costs that the origin lowers, over real connections: races, clients that leave, kill -9.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { addTiers, adminOf, call, issueKey, send, usageOf } from "./lib/client.mjs";
import { PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";
import { connect, head } from "./lib/raw.mjs";

const [QUOTA, COST] = [100, 10];

let origin;
let gate;
/** Requests that the origin has begun and not ended, the most of these at a time, and the sum of all final costs. */
let open = 0;
let most = 0;
let spent = 0;
/** The answers that wait for the test. */
const held = [];

function respond(req, res) {
  const cost = Number(new URL(req.url, "http://origin").searchParams.get("cost"));
  const answer = () => {
    open -= 1;
    spent += cost;
    res.writeHead(200, { "x-tollgate-cost": cost }).end("ok");
  };
  if (!req.url.startsWith("/priced")) return res.end("ok");
  open += 1;
  most = Math.max(most, open);
  if (req.url.startsWith("/priced/held")) held.push(answer);
  else setTimeout(answer, 20);
}

before(async () => {
  origin = await startOrigin({ respond });
  gate = await startGate({ origin: origin.url });
  await addTiers(gate, { narrow: [{ quota: QUOTA, period: "month" }] });
  await adminOf(gate).json("PUT", "/route-costs", { pattern: "/priced/**", cost: COST, reprice: true }, 201);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

const used = async (key) => (await usageOf(gate, key)).policies[0].used;

test("64 calls at once: no more run than fit at their full cost, and the sum of their final costs is used", async () => {
  const key = await issueKey(gate, "narrow");
  const answers = await Promise.all(Array.from({ length: 64 }, (_, n) => call(gate, key, `/priced?cost=${n % 8}`)));
  assert.ok(most <= QUOTA / COST, `${most} ran at once`);
  assert.ok(answers.every(({ status, headers }) => [200, 429].includes(status) && !("x-tollgate-cost" in headers)));
  assert.ok(spent > 0 && spent <= QUOTA, `${spent} spent`);
  assert.equal(await used(key), spent);
});

test("a client that leaves before the answer: its call costs what the answer says", async () => {
  const key = await issueKey(gate, "narrow");
  const socket = await connect(gate);
  socket.write(head("POST /priced/held?cost=3 HTTP/1.1", ["Host: api.test", `X-API-Key: ${key.key}`, "Content-Length: 0"]));
  await until("the origin has the call", () => held.length === 1);
  assert.equal(await used(key), COST);
  socket.resetAndDestroy();
  await new Promise((resolve) => setImmediate(resolve));
  held.pop()();
  await until("it is given back", async () => (await used(key)) === 3);
});

test("kill -9 before the answer: the call keeps its cost", async () => {
  const direct = await startDirectGate({ vars: { ORIGIN: origin.url } });
  try {
    const api = adminOf(direct);
    await api.json("PUT", "/route-costs", { pattern: "/priced/**", cost: COST, reprice: true }, 201);
    const policies = [{ policy: "month", unit: "requests", quota: QUOTA, period: "month" }];
    await api.json("PUT", "/tiers/narrow", { description: "", audit_days: 0, policies }, 201);
    const key = await issueKey(direct, "narrow");
    const ask = (path) => send(direct, `${PUBLIC_URL}${path}`, { headers: { host: "api.test", "x-api-key": key.key } });
    const left = async () => Number(/"month";r=(\d+)/.exec((await ask("/free")).headers.ratelimit)[1]);
    const waiting = ask("/priced/held?cost=0").catch(() => "cut");
    await until("the origin has the call", () => held.length === 1);
    process.kill(await direct.pid(), "SIGKILL");
    assert.equal(await waiting, "cut");
    held.pop()();
    await direct.restarted();
    assert.equal(await left(), QUOTA - COST - 1);
    assert.equal((await ask("/priced?cost=2")).status, 200);
    assert.equal(await left(), QUOTA - COST - 1 - 2 - 1);
  } finally {
    await direct.stop();
  }
});
