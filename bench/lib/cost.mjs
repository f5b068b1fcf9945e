// What mixes of calls cost on Cloudflare: everything that is billed is counted for a while and
// multiplied.
import { readdir, readFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { metered, services } from "./contenders.mjs";
import { machineLoad } from "./machine.mjs";
import { costSets } from "./tiers.mjs";
import { startWorkerd } from "./workerd.mjs";

/**
 * Dollars, beyond what the paid plan includes: Cloudflare's pricing pages of Workers, Durable
 * Objects and D1, November 2026.
 */
export const PRICES = {
  requests: 0.3e-6,
  cpuMs: 0.02e-6,
  objectRequests: 0.15e-6,
  gigabyteSeconds: 12.5e-6,
  rowsWritten: 1e-6,
  rowsRead: 0.001e-6,
};
/** The memory that an object is billed for while it is awake, as in Cloudflare's examples: 128 MB. */
export const GIGABYTES = 0.128;

const DAYS = 30;
export const MONTH_SECONDS = DAYS * 86_400;

/**
 * Seconds of a steady load before it is measured, and while it is measured. A flush comes every
 * 45 s on average.
 */
const WARM = 20;
const STEADY = 90;
/** Seconds until all counts of a visit are in D1 and its objects sleep. */
const SETTLED = 75;

/** A visit of the quiet API. */
const VISIT = { calls: 10, pause: 2, aDay: 10, keys: 1_000 };

/**
 * The mixes. `keys` and `isolates` are those of the measurement; the result is scaled to
 * `monthKeys` keys with as many isolates each.
 */
const MIXES = {
  quiet: {
    title: `a quiet API: ${VISIT.keys.toLocaleString("en-US")} keys, each called ten times in twenty seconds, ten times a day`,
    keys: 20,
    monthKeys: VISIT.keys,
    isolates: 1,
    monthly: ({ requests }) => (VISIT.calls * VISIT.aDay * DAYS * VISIT.keys) / requests,
  },
  busy: {
    title: "one busy key: 100 calls a second, day and night",
    keys: 3,
    monthKeys: 1,
    isolates: 2,
    perSecond: 100,
    monthly: ({ requests }) => (100 * MONTH_SECONDS) / requests,
  },
  flood: {
    title: "a flood of a month: one used-up key, 200 calls a second through 10 isolates",
    keys: 3,
    monthKeys: 1,
    isolates: 10,
    perSecond: 200,
    monthly: ({ requests }) => (200 * MONTH_SECONDS) / requests,
  },
  knocking: {
    title: "1,000 used-up keys, each called every five seconds",
    keys: 40,
    monthKeys: 1_000,
    isolates: 1,
    perSecond: 0.2,
    monthly: ({ requests }) => (200 * MONTH_SECONDS) / requests,
  },
};

/** CPU time of a process so far, in milliseconds. `undefined` without Linux's `/proc`. */
async function cpuOf(pid) {
  try {
    const tasks = await readdir(`/proc/${pid}/task`);
    const texts = await Promise.all(tasks.map((task) => readFile(`/proc/${pid}/task/${task}/schedstat`, "utf8").catch(() => "0")));
    return texts.reduce((sum, text) => sum + Number(text.split(" ")[0]), 0) / 1e6;
  } catch {
    return undefined;
  }
}

/** Sends each call at its time, even if earlier ones are pending. Counts responses by status. */
function caller() {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const open = new Set();
  const answers = {};
  const call = (address, key) => {
    const [host, port] = address.split(":");
    const answered = new Promise((resolve) => {
      const note = (status) => (answers[status] = (answers[status] ?? 0) + 1);
      const send = () => {
        const sent = request({ agent, host, port, path: "/v1/things", headers: { "x-api-key": key } }, (response) => {
          note(response.statusCode);
          response.resume().once("end", resolve);
        });
        sent.once("error", (error) => {
          // workerd closes connections that are idle for seconds; this one while the call was in
          // flight.
          if (sent.reusedSocket && error.code === "ECONNRESET") return send();
          resolve(note(error.code ?? error.message));
        });
        sent.end();
      };
      send();
    });
    open.add(answered);
    return answered.finally(() => open.delete(answered));
  };
  return { call, answers, idle: () => Promise.all(open), close: () => agent.destroy() };
}

/** Runs one mix. Resolves to the counts: requests, CPU of workerd, objects, D1. */
async function measure(name, storage) {
  const { keys: count, isolates, perSecond } = MIXES[name];
  const gate = metered({ sets: costSets({ quiet: 1, busy: 1, flood: 1, knocking: 1, [name]: count }), isolates });
  const runtime = await startWorkerd(services([gate]), { stateIn: storage.directory });
  const { call, answers, idle, close } = caller();
  try {
    await gate.prepare(runtime);
    const values = gate.keys[name];
    const addresses = gate.gates.map((one) => runtime.address(one));
    let turn = 0;
    const next = (key) => call(addresses[(turn += 1) % addresses.length], key);
    const look = async () => ({ ...(await gate.totals(runtime)), cpuMs: await cpuOf(runtime.pid), answers: { ...answers } });

    const visit = async () => {
      const one = async (key, i) => {
        await sleep((i / values.length) * 1000 * VISIT.pause);
        for (let n = 0; n < VISIT.calls; n += 1) await Promise.all([next(key), sleep(1000 * VISIT.pause)]);
      };
      await Promise.all(values.map(one));
      await sleep(SETTLED * 1000);
    };
    const steady = async (seconds) => {
      const begun = performance.now();
      const all = Math.round(values.length * perSecond * seconds);
      for (let sent = 0; sent < all; ) {
        const due = Math.min(all, Math.floor(((performance.now() - begun) / 1000) * values.length * perSecond) + 1);
        // Keys and isolates take turns, so each gets calls at even intervals.
        for (; sent < due; sent += 1) next(values[sent % values.length]);
        await sleep(5);
      }
      await idle();
      await sleep(Math.max(0, seconds * 1000 - (performance.now() - begun)));
    };
    // The first call of both creates tables and profiles, and exhausts quotas.
    const run = perSecond === undefined ? visit : steady;
    await run(WARM);
    const before = await look();
    await run(STEADY);
    const after = await look();
    return difference(before, after);
  } catch (error) {
    throw new Error(`cost of ${name}: ${error.message}; workerd's log:\n${runtime.log()}`, { cause: error });
  } finally {
    close();
    await runtime.stop();
  }
}

function difference(before, after) {
  const less = (a, b) => Object.fromEntries(Object.entries(b).map(([name, value]) => [name, value - (a[name] ?? 0)]));
  const answered = Object.fromEntries(Object.entries(less(before.answers, after.answers)).filter(([, count]) => count > 0));
  return {
    requests: Object.values(answered).reduce((sum, count) => sum + count, 0),
    answered,
    cpuMs: after.cpuMs - before.cpuMs,
    objects: less(before.objects, after.objects),
    d1: less(before.d1, after.d1),
  };
}

/** What a month of a mix costs, by what is billed. */
export function monthOf(name, counted) {
  const times = MIXES[name].monthly(counted);
  const { objects, d1 } = counted;
  const requests = counted.requests * times;
  const dollars = {
    requests: requests * PRICES.requests,
    cpu: counted.cpuMs * times * PRICES.cpuMs,
    objectRequests: objects.requests * times * PRICES.objectRequests,
    duration: (objects.activeMs / 1000) * times * GIGABYTES * PRICES.gigabyteSeconds,
    objectRows: times * ((objects.rowsWritten + objects.alarmsSet) * PRICES.rowsWritten + objects.rowsRead * PRICES.rowsRead),
    d1Rows: times * (d1.rowsWritten * PRICES.rowsWritten + d1.rowsRead * PRICES.rowsRead),
  };
  const total = Object.values(dollars).reduce((sum, one) => sum + one, 0);
  return { requests, dollars, total, perMillion: (total / requests) * 1e6 };
}

/** All mixes. Fails on unexpected statuses and on timers of objects that expired. */
export async function cost({ storage, onMix }) {
  const load = machineLoad();
  const mixes = [];
  for (const name of Object.keys(MIXES)) {
    const counted = await measure(name, storage);
    const wanted = ["quiet", "busy"].includes(name) ? "200" : "429";
    if (Object.keys(counted.answered).join() !== wanted) throw new Error(`cost of ${name}: answered ${JSON.stringify(counted.answered)}`);
    if (counted.objects.timersRunOut > 0) throw new Error(`cost of ${name}: ${counted.objects.timersRunOut} timers of objects ran out`);
    mixes.push({ name, title: MIXES[name].title, monthKeys: MIXES[name].monthKeys, counted, month: monthOf(name, counted) });
    onMix?.(mixes.at(-1));
  }
  return { load, mixes };
}
