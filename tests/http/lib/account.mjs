// One key's calls as its clients and the origin saw them, and what the gate may have counted and
// let through, given that.
import assert from "node:assert/strict";

/** How often a call may be repeated under its idempotency key without being charged to the month. */
const FREE_REPEATS = 5;
export const HOUR = 3_600_000;

/** How many of the calls that were admitted under one idempotency key are charged to the month. */
const chargedOf = (admitted) => (admitted === 0 ? 0 : Math.max(1, admitted - FREE_REPEATS));

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** The whole numbers from one to the other. */
const range = ([least, most]) => Array.from({ length: most - least + 1 }, (_, n) => least + n);

/** What is known of one key: `policies` are those of its tier, `{ quota, period, algorithm, burst }`. */
export class Account {
  #calls = [];
  #unsettled = [];
  /** By idempotency key: how many of its calls were admitted before the unsettled ones, at least and at most. */
  #admitted = new Map();
  #counted = { calls: 0, cost: 0 };

  constructor(key, policies) {
    Object.assign(this, { key, policies });
  }

  /** A call is sent: what it costs, its idempotency key if it has one, and the time. */
  send(cost, order, now) {
    const call = { cost, order, sent: now, arrived: undefined, status: undefined };
    this.#calls.push(call);
    this.#unsettled.push(call);
    return call;
  }

  /** How many calls have come to the origin, and what they cost. */
  get arrived() {
    const calls = this.#calls.filter(({ arrived }) => arrived !== undefined);
    return { calls: calls.length, cost: sum(calls.map(({ cost }) => cost)) };
  }

  /** How many answers had this status. */
  count(status) {
    return this.#calls.filter((call) => call.status === status).length;
  }

  /**
   * Compares what the gate has counted in all with what happened since the last time. A call that
   * the origin saw or that was answered 200 is counted, once; one that was refused is not; one
   * whose client was told nothing may be. None is under way any more.
   */
  settle(counted) {
    const calls = { least: 0, most: 0 };
    const cost = { least: 0, most: 0 };
    const orders = new Map();
    for (const { cost: price, order, arrived, status } of this.#unsettled) {
      const isRefused = status >= 400 && status < 500;
      assert.ok(!isRefused || arrived === undefined, `a call that was answered ${status} came to the origin`);
      assert.ok(status !== 200 || arrived !== undefined, "a call that was answered 200 came to the origin");
      if (isRefused) continue;
      const least = arrived === undefined ? 0 : 1;
      calls.least += least;
      calls.most += 1;
      if (order === undefined) {
        cost.least += least * price;
        cost.most += price;
        continue;
      }
      const seen = orders.get(order) ?? { price, admitted: [0, 0] };
      seen.admitted = [seen.admitted[0] + least, seen.admitted[1] + 1];
      orders.set(order, seen);
    }
    for (const [order, { price, admitted }] of orders) {
      const before = this.#admitted.get(order) ?? [0, 0];
      const charged = range(before).flatMap((n) => range(admitted).map((more) => chargedOf(n + more) - chargedOf(n)));
      cost.least += price * Math.min(...charged);
      cost.most += price * Math.max(...charged);
      this.#admitted.set(order, [before[0] + admitted[0], before[1] + admitted[1]]);
    }
    const more = { calls: counted.calls - this.#counted.calls, cost: counted.cost - this.#counted.cost };
    const said = JSON.stringify({ key: this.key.id, more, calls, cost });
    assert.ok(calls.least <= more.calls && more.calls <= calls.most, `counted calls: ${said}`);
    assert.ok(cost.least <= more.cost && more.cost <= cost.most, `counted cost: ${said}`);
    this.#counted = counted;
    this.#unsettled = [];
  }

  /**
   * Checks that the origin never saw more than any policy allows. When a call was judged is not
   * known, but it was after it was sent and before it came, so only calls that were surely judged
   * within a time are held against what may pass in that time.
   */
  checkLimits() {
    const calls = this.#calls.filter(({ arrived }) => arrived !== undefined);
    for (const policy of this.policies) {
      const said = `more than ${JSON.stringify(policy)} of key ${this.key.id}`;
      if (policy.period === "month") assert.ok(mostInMonth(calls) <= policy.quota, said);
      else assert.ok(mostExcess(calls, policy) <= 0, said);
    }
  }
}

const monthOf = (time) => new Date(time).toISOString().slice(0, 7);

/** What the calls that came are charged to a month at least. */
function mostInMonth(calls) {
  const orders = Map.groupBy(calls, ({ order }) => order);
  const charges = [];
  for (const [order, repeated] of orders) {
    if (order === undefined) charges.push(...repeated.map((call) => ({ calls: [call], cost: call.cost })));
    else charges.push({ calls: repeated, cost: chargedOf(repeated.length) * repeated[0].cost });
  }
  const months = {};
  for (const { calls: charged, cost } of charges) {
    const [month, ...others] = new Set(charged.flatMap(({ sent, arrived }) => [monthOf(sent), monthOf(arrived)]));
    if (others.length === 0) months[month] = (months[month] ?? 0) + cost;
  }
  return Math.max(0, ...Object.values(months));
}

/**
 * By how much the calls of any time exceed what may pass in it: of a sliding policy the quota in a
 * period, of a bucket the burst and what drains meanwhile.
 */
function mostExcess(calls, { quota, period, algorithm, burst }) {
  const span = { minute: HOUR / 60, hour: HOUR, day: 24 * HOUR }[period];
  const byArrival = calls.toSorted((a, b) => a.arrived - b.arrived);
  let most = -Infinity;
  for (const { sent: from } of calls) {
    let cost = 0;
    for (const call of byArrival) {
      if (call.sent < from) continue;
      if (algorithm === "sliding" && call.arrived >= from + span) break;
      cost += call.cost;
      const allowed = algorithm === "sliding" ? quota : burst + (quota * (call.arrived - from)) / span;
      most = Math.max(most, cost - allowed);
    }
  }
  return most;
}
