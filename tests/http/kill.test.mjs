// Repeated kill -9 under twenty clients. After each kill the counts are between the answered and the
// sent calls, and the origin has never received more than any limit allows. A longer run, or another
// one: TOLLGATE_KILLS=500 TOLLGATE_KILL_SEED=7 node --test tests/http/kill.test.mjs
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { test } from "node:test";
import { Account, HOUR } from "./lib/account.mjs";
import { until } from "../support/until.mjs";
import { adminOf, issueKey, send, usageOf } from "./lib/client.mjs";
import { makeClock, PUBLIC_URL, startDirectGate } from "./lib/direct.mjs";

const KILLS = Number(process.env.TOLLGATE_KILLS ?? 30);
const SEED = Number(process.env.TOLLGATE_KILL_SEED ?? 20_261_121);
const CLIENTS = 20;
/** Maximum number of calls with one idempotency key: the first, its free repeats, charged ones. */
const CALLS_OF_ORDER = 9;
/** Costs by path. Others cost 1. */
const COSTS = { "/v1/export": 7, "/v1/reports": 3 };
const PATHS = ["/v1/users", "/v1/users", "/v1/reports", "/v1/export"];
/** The speed of the clock in the second run. */
const SPEED = 240;
/** Timeout of a call, in milliseconds. */
const PATIENCE = 60_000;

/** mulberry32 */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * An origin that calls `arrive(id of a key, number of a call)` for each request, and takes up to
 * five milliseconds to answer.
 */
async function startOrigin(arrive, next) {
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    arrive(request.headers["x-tollgate-key-id"], Number(request.headers["x-call"]));
    request.resume();
    setTimeout(() => response.end("ok"), next() * 5);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = () => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

/** A gate, its origin and its clients, on one clock. */
class Run {
  calls = [];
  accounts = [];
  kills = 0;
  log = [];

  constructor({ seed, from, speed, vars }) {
    this.next = random(seed);
    this.clock = makeClock({ from, speed });
    this.vars = vars;
  }

  async start() {
    this.origin = await startOrigin((id, number) => this.#arrive(id, number), this.next);
    const [vars, onLog] = [{ ORIGIN: this.origin.url, ...this.vars }, (line) => this.log.push(line)];
    this.gate = await startDirectGate({ clock: this.clock, vars, onLog });
    for (const [path, cost] of Object.entries(COSTS)) {
      await this.gate.d1(`INSERT INTO route_costs (pattern, method, cost) VALUES ('${path}', '*', ${cost})`);
    }
  }

  async stop() {
    await this.gate?.stop();
    await this.origin?.stop();
  }

  pick(list) {
    return list[Math.floor(this.next() * list.length)];
  }

  /** A new key of a new tier of these policies, whose calls are in the audit log. */
  async open(name, policies) {
    const named = policies.map((policy) => ({ policy: policy.period, ...policy }));
    await adminOf(this.gate).json("PUT", `/tiers/${name}`, { policies: named, audit_days: 7 }, 201);
    const account = new Account(await issueKey(this.gate, name), policies);
    account.orders = [];
    this.accounts.push(account);
    return account;
  }

  #arrive(id, number) {
    const { account, call } = this.calls[number];
    assert.equal(id, account.key.id);
    assert.equal(call.arrived, undefined, "a call reaches the origin once");
    call.arrived = this.clock.now();
  }

  /** Sends a call, which may repeat another. Resolves to its status, 0 if the connection broke. */
  async #call(account, { path, method, order }, agent) {
    const call = account.send(COSTS[path] ?? 1, order, this.clock.now());
    const number = this.calls.push({ account, call }) - 1;
    const headers = { host: "api.test", "x-api-key": account.key.key, "x-call": number };
    if (order !== undefined) headers["idempotency-key"] = order;
    const signal = AbortSignal.timeout(PATIENCE);
    call.status = await send(this.gate, PUBLIC_URL + path, { agent, method, headers, signal }).then(
      ({ status }) => status,
      () => (signal.aborted ? assert.fail("a call is not answered") : 0),
    );
    assert.ok([0, 200, 409, 429, 500, 503].includes(call.status), `a call was answered ${call.status}`);
    return call.status;
  }

  /** Chooses the next call. A third have an idempotency key, most of them that of another call. */
  #choose(account) {
    const path = this.pick(PATHS);
    if (this.next() > 1 / 3) return { path, method: this.pick(["GET", "POST"]) };
    const open = account.orders.filter(({ left }) => left > 0).slice(-8);
    const order = open.length > 0 && this.next() < 0.7 ? this.pick(open) : this.#newOrder(account, path);
    order.left -= 1;
    return order;
  }

  #newOrder(account, path) {
    const order = { path, method: "POST", order: `order-${account.orders.length}`, left: CALLS_OF_ORDER };
    account.orders.push(order);
    return order;
  }

  /**
   * Twenty clients call until so many responses have arrived. A moment later workerd is killed, with
   * calls in flight.
   */
  async killUnderLoad(accounts, answers) {
    const pid = await this.gate.pid();
    const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });
    let left = answers;
    let isKilled = false;
    const kill = () => {
      isKilled = true;
      process.kill(pid, "SIGKILL");
    };
    const client = async () => {
      while (!isKilled) {
        const account = this.pick(accounts);
        await this.#call(account, this.#choose(account), agent);
        left -= 1;
        if (left === 0) setTimeout(kill, this.next() * 8);
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, client));
    agent.destroy();
    this.kills += 1;
    await this.gate.restarted();
  }

  /** Calls of cost 1 until nothing is left. */
  async useUp(account) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });
    let left = 2_000;
    const client = async () => {
      for (let status = 200; status === 200; left -= 1) {
        assert.ok(left > 0, "it ends");
        status = await this.#call(account, { path: "/v1/users", method: "POST" }, agent);
        assert.ok([200, 429].includes(status));
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, client));
    agent.destroy();
  }

  /** The number of admitted calls in the audit log. */
  async auditOf({ key }) {
    let admitted = 0;
    for (let cursor = ""; cursor !== null; ) {
      const page = await adminOf(this.gate).json("GET", `/keys/${key.id}/audit?limit=500${cursor && `&cursor=${cursor}`}`);
      admitted += page.entries.filter(({ status }) => status === 200).length;
      cursor = page.next_cursor;
    }
    return admitted;
  }
}

/** The counts of the object, of this month. */
async function countedOf(run, { key }) {
  const { calls, policies } = await usageOf(run.gate, key);
  return { calls, cost: policies.find(({ policy }) => policy === "month").used };
}

/** The counts in D1, of this month. Flushes nothing. */
async function meteredOf(run, { key }) {
  const { months } = await adminOf(run.gate).json("GET", `/keys/${key.id}/history?months=1`);
  return { calls: months[0].calls, cost: months[0].cost };
}

/** The counts of all months, equal in the object and D1 after a flush. */
async function reconciledOf(run, { key }) {
  const { state, object, d1 } = await adminOf(run.gate).json("GET", `/keys/${key.id}/reconcile`);
  assert.equal(state, "exact", JSON.stringify({ object, d1 }));
  const months = object.counts.filter((count) => count.class === null);
  const total = (field) => months.reduce((sum, count) => sum + count[field], 0);
  return { calls: total("calls"), cost: total("cost") };
}

const usedOf = async (run, { key }, name) => (await usageOf(run.gate, key)).policies.find(({ policy }) => policy === name).used;

class Totals {
  #sums = { calls: 0, cost: 0, denied: 0, conflicts: 0, unknown: 0 };

  add(account, { calls, cost }) {
    const counts = { calls, cost, denied: account.count(429), conflicts: account.count(409), unknown: account.count(0) };
    for (const [name, count] of Object.entries(counts)) this.#sums[name] += count;
    assert.ok(counts.denied > 0, "each key reached its limit");
  }

  tell(t) {
    assert.ok(this.#sums.unknown > KILLS, "calls were in flight at the kills");
    t.diagnostic(JSON.stringify({ kills: run.kills, ...this.#sums }));
  }
}

let run;

/** Does the work, ends the run, and prints the log of workerd if anything fails. */
async function guarded(work) {
  try {
    await work();
  } catch (error) {
    console.error(`seed ${SEED}, after ${run?.kills} kills; workerd said:\n${run?.log.slice(-20).join("\n")}`);
    throw error;
  } finally {
    await run?.stop();
    run = undefined;
  }
}

const month = (quota) => ({ quota, period: "month", algorithm: "fixed" });
const hour = (quota) => ({ quota, period: "hour", algorithm: "sliding" });
const bucket = (period, quota, burst) => ({ quota, period, algorithm: "bucket", burst });

test(`${KILLS} kills: answered calls are counted, counted ones were sent, no limit is exceeded, D1 gets all counts (seed ${SEED})`, (t) =>
  guarded(async () => {
    // At the speed of the machine's clock, far from the end of a month. Without the deny cache, so that
    // the object judges all calls.
    run = new Run({ seed: SEED, from: "2031-03-12T12:20:00Z", vars: { FLUSH_SECONDS: "1", DENY_CACHE_SECONDS: "0" } });
    await run.start();
    const wide = bucket("minute", 60_000, 1_000);
    const totals = new Totals();

    for (let life = 0; run.kills < KILLS; life += 1) {
      // Each limit has a key that reaches it.
      const byMonth = await run.open(`month-${life}`, [wide, hour(5_000), month(200)]);
      const byHour = await run.open(`hour-${life}`, [wide, hour(200), month(100_000)]);
      const byBucket = await run.open(`bucket-${life}`, [bucket("minute", 60, 100), hour(5_000), month(100_000)]);
      const accounts = [byMonth, byHour, byBucket];
      for (let round = 0; round < 6 && run.kills < KILLS; round += 1) {
        await run.killUnderLoad(accounts, 10 + Math.floor(run.next() * 110));
        for (const account of accounts) {
          const metered = await meteredOf(run, account);
          const counted = await countedOf(run, account);
          account.settle(counted);
          account.checkLimits();
          assert.ok(metered.calls <= counted.calls && metered.cost <= counted.cost, "D1 has nothing that was not counted");
        }
      }

      // The rest of each limit is admitted, and not one call more.
      for (const account of accounts) await run.useUp(account);
      assert.equal(await usedOf(run, byMonth, "month"), 200);
      assert.equal(await usedOf(run, byHour, "hour"), 200);
      for (const account of accounts) {
        const counted = await countedOf(run, account);
        account.settle(counted);
        account.checkLimits();
        assert.equal(await run.auditOf(account), counted.calls, "the audit log has every call that was counted");
        await until("D1 has every call", async () => {
          const metered = await meteredOf(run, account);
          return metered.calls === counted.calls && metered.cost === counted.cost;
        }, { within: PATIENCE });
        assert.deepEqual(await reconciledOf(run, account), counted);
        totals.add(account, counted);
      }
    }
    totals.tell(t);
  }));

test(`${KILLS} kills in two hours of two months, at ${SPEED} times the speed (seed ${SEED + 1})`, (t) =>
  guarded(async () => {
    run = new Run({ seed: SEED + 1, from: "2031-01-31T22:55:00Z", speed: SPEED });
    await run.start();
    const wide = bucket("minute", 60_000, 1_000);
    const byMonth = await run.open("month", [wide, hour(5_000), month(400)]);
    const byHour = await run.open("hour", [wide, hour(300), month(100_000)]);
    const byBucket = await run.open("bucket", [bucket("day", 2_400, 100), hour(5_000), month(100_000)]);
    const totals = new Totals();

    const begun = run.clock.now();
    const isOver = () => run.kills >= KILLS && run.clock.now() >= begun + 1.3 * HOUR;
    while (!isOver()) {
      assert.ok(run.kills < 10 * KILLS, "it ends");
      await run.killUnderLoad(run.accounts, 10 + Math.floor(run.next() * 110));
      for (const account of run.accounts) {
        account.settle(await reconciledOf(run, account));
        account.checkLimits();
      }
    }

    for (const account of run.accounts) await run.useUp(account);
    assert.equal(await usedOf(run, byMonth, "month"), 400);
    for (const account of run.accounts) {
      const counted = await reconciledOf(run, account);
      account.settle(counted);
      account.checkLimits();
      assert.equal(await run.auditOf(account), counted.calls, "the audit log has every call that was counted");
      totals.add(account, counted);
    }
    assert.ok(byMonth.arrived.cost > 400, "there was a second month");
    assert.ok(byHour.arrived.cost > 300, "the hour moved");
    assert.ok(byBucket.arrived.cost > 150, "the bucket refilled");
    totals.tell(t);
  }));
