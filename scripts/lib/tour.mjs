// What `make demo` and `make dev` show, each step with a check that it shows what it should.
import { setTimeout as sleep } from "node:timers/promises";
import { queryD1 } from "./gate.mjs";

const REQUESTS = 12;
const QUOTA = 10;
const ROW_WAIT_MS = 30_000;

const BUDGET = 1000;
const CALLS = 12;
/** `max_tokens` of a call, and the words that the origin generates for it. */
const CAP = 200;
const WORDS = 24;

export class Failure extends Error {}

/** Uses a key of tier free past its quota, and reads the count in D1. */
export async function showLimit(gate, origin, { id, key }, state) {
  const left = 60 - (Date.now() / 1000) % 60;
  if (left < 5) {
    console.log(`the UTC minute ends in ${left.toFixed(1)} s, and a new one gives a new quota: waiting for it\n`);
    await sleep(left * 1000 + 100);
  }

  origin.reset();
  const answers = [];
  for (let n = 1; n <= REQUESTS; n += 1) {
    const response = await fetch(`${gate.url}/hello?n=${n}`, { headers: { "x-api-key": key } });
    await response.arrayBuffer();
    const retryAfter = response.headers.get("retry-after");
    const remaining = response.headers.get("ratelimit")?.match(/"minute";r=(\d+)/)?.[1];
    answers.push({ status: response.status, remaining, retryAfter });
    console.log(
      `request ${String(n).padStart(2)}: ${response.status}, ${remaining ?? "?"} left in this minute` +
        (retryAfter === null ? "" : `, Retry-After ${retryAfter}`),
    );
  }
  const passed = answers.filter((answer) => answer.status === 200).length;
  const denied = answers.filter((answer) => answer.status === 429 && Number(answer.retryAfter) >= 1).length;
  console.log(`\nthe origin saw ${origin.count()} requests`);

  const row = await flushedRow(id, state);
  console.log(`D1 usage_monthly: ${row ? JSON.stringify(row) : `no row after ${ROW_WAIT_MS / 1000} s`}\n`);

  check([
    passed !== QUOTA && `${passed} requests were answered 200, not ${QUOTA}`,
    denied !== REQUESTS - QUOTA && `${denied} were answered 429 with Retry-After, not ${REQUESTS - QUOTA}`,
    answers.some(({ remaining }) => remaining === undefined) && "an answer had no RateLimit field",
    origin.count() !== QUOTA && `the origin saw ${origin.count()} requests, not ${QUOTA}`,
    row?.calls !== QUOTA && `D1 has ${row?.calls ?? "no"} calls, not ${QUOTA}`,
  ]);
}

/** The key's row in D1 once the object has flushed it, or what D1 has after the wait. */
async function flushedRow(id, state) {
  if (!/^[A-Za-z0-9_-]+$/.test(id)) throw new Failure(`a key id of unexpected form: ${id}`);
  const sql = `SELECT key_id, month, calls, denied, updated_at FROM usage_monthly WHERE key_id = '${id}'`;
  const deadline = Date.now() + ROW_WAIT_MS;
  for (;;) {
    const isLast = Date.now() > deadline;
    // The database may be locked by the gate.
    const [row] = await queryD1(sql, state).catch((error) => (isLast ? Promise.reject(error) : []));
    if (row?.calls === QUOTA || isLast) return row;
    await sleep(500);
  }
}

/** Streams more completions at once than a token budget has room for. */
export async function showBudget(gate, origin, admin) {
  const policy = { policy: "day", unit: "tokens", quota: BUDGET, period: "day" };
  await put(admin, "/tiers/demo-tokens", { description: "The demo's token budget", policies: [policy] });
  const route = { pattern: "/v1/chat/completions", method: "POST", format: "openai", default_output: CAP, max_output: CAP };
  await put(admin, "/token-routes", route);
  const key = await admin.issueKey("demo-tokens", "demo");

  const body = JSON.stringify({ model: "demo", stream: true, max_tokens: CAP, messages: [{ role: "user", content: "Hello" }] });
  const hold = body.length + CAP;
  const fitting = Math.floor(BUDGET / hold);
  console.log(`a budget of ${BUDGET} tokens a day, and ${CALLS} streams at once that each hold ${hold} tokens:`);
  origin.reset();
  const headers = { "x-api-key": key.key, "content-type": "application/json", "x-demo-words": String(WORDS), "x-demo-delay": "100" };
  const statuses = await Promise.all(
    Array.from({ length: CALLS }, async () => {
      const response = await fetch(`${gate.url}/v1/chat/completions`, { method: "POST", headers, body });
      await response.text();
      return response.status;
    }),
  );
  const passed = statuses.filter((status) => status === 200).length;
  const denied = statuses.filter((status) => status === 429).length;
  const spent = origin.tokens(key);
  const [{ used, held }] = (await admin.usageOf(key)).policies;
  console.log(`${passed} passed, ${denied} got 429; the origin generated for ${spent} tokens, ${used} are charged, ${held} held\n`);

  check([
    passed < 1 && "no stream passed",
    passed + denied !== CALLS && `the streams were answered ${statuses.join(", ")}`,
    // Those that come after the first have ended fit again.
    denied < 1 && `all passed, and ${fitting} fit`,
    (spent > BUDGET || used > BUDGET) && `the origin has spent ${spent} of ${BUDGET} tokens`,
    (used !== spent || held !== 0) && `${used} tokens are charged and ${held} held, and the origin has spent ${spent}`,
  ]);
}

/** Creates or replaces. */
async function put(admin, path, body) {
  const response = await admin.request("PUT", path, body);
  if (!response.ok) throw new Failure(`PUT ${path} was answered ${response.status}: ${await response.text()}`);
}

function check(faults) {
  const wrong = faults.filter(Boolean);
  if (wrong.length > 0) throw new Failure(wrong.join("; "));
}
