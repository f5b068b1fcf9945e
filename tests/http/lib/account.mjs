// One key's calls as clients and the origin saw them, and the bounds that follow for the gate's
// counts.
import assert from "node:assert/strict";

/** Number of free repeats of a call under its idempotency key. */
const FREE_REPEATS = 5;
export const HOUR = 3_600_000;

/** Number of charged calls among those admitted under one idempotency key. */
const chargedOf = (admitted) => (admitted === 0 ? 0 : Math.max(1, admitted - FREE_REPEATS));

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** The integers of a range. */
const range = ([least, most]) => Array.from({ length: most - least + 1 }, (_, n) => least + n);

/**
 * The account of one key. `policies` are those of its tier, `{ quota, period, algorithm, burst }`.
 */
export class Account {
  #calls = [];
  #unsettled = [];
  /** By idempotency key: bounds of the number of calls admitted before the unsettled ones. */
  #admitted = new Map();
  #counted = { calls: 0, cost: 0 };

  constructor(key, policies) {
    Object.assign(this, { key, policies });
  }

  /** Records a call: cost, idempotency key if any, and time. */
  send(cost, order, now) {
    const call = { cost, order, sent: now, arrived: undefined, status: undefined };
    this.#calls.push(call);
    this.#unsettled.push(call);
    return call;
  }

  /** Number and cost of the calls that reached the origin. */
  get arrived() {
    const calls = this.#calls.filter(({ arrived }) => arrived !== undefined);
    return { calls: calls.length, cost: sum(calls.map(({ cost }) => cost)) };
  }

  /** Number of responses with this status. */
  count(status) {
    return this.#calls.filter((call) => call.status === status).length;
  }

  /**
   * Compares the gate's total with the events since the last comparison. A call that the origin saw
   * or that was answered 200 is counted once. A refused call is not counted. A call without a
   * response may be counted. No call is in flight.
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
   * Checks that the origin never saw more than the policies allow. The time of a judgement is
   * unknown, but lies between the sending of the call and its arrival. So only calls that were
   * certainly judged within an interval count against its allowance.
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

/** The minimum charge of the arrived calls to a month. */
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
 * The excess of calls over the allowance of any interval: for a sliding policy the quota per
 * period, for a bucket the burst and what drains meanwhile.
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
