// Token routes: streamed chat completions through tollgate with token budgets, beside forwards
// without any and beside LiteLLM's proxy.
import path from "node:path";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { caseOf, compare, warm } from "./compare.mjs";
import { FORWARD, PASS, services, tollgate } from "./contenders.mjs";
import { excess, startCounted } from "./crossings.mjs";
import { hasLitellm, litellmVersion, pythonVersion, startLitellm } from "./litellm.mjs";
import { load, startUpstream } from "./load.mjs";
import { machine, machineLoad, sizes } from "./machine.mjs";
import { TOKEN_SETS } from "./tiers.mjs";
import { startWorkerd } from "./workerd.mjs";

const SET = "tokens";
const ROUTE = "/v1/chat/completions";
const OTHER_ROUTE = "/v1/other";
/** The upstream's forms: an event in each HTTP chunk, or many. */
const FORMS = ["events", "blocks"];

/** Tokens of a short answer, and the connections that ask for one. */
const SHORT = { tokens: 16, connections: [1, 16], mostRounds: 3, share: 0.75, leadMs: 300 };
/** LiteLLM's calls take so long that a shorter measurement would count too few of those begun. */
const SHORT_LITELLM = { leadMs: 1_500, seconds: 3 };
/** Tokens of long answers, by form. */
const LONG = { tokens: { events: 10_000, blocks: 100_000 }, rounds: 3, seconds: 30 };
/** LiteLLM passes a few thousand events a second. */
const LONG_LITELLM = 3_000;
/** Tokens of the answers whose crossings are counted. */
const COUNTED = 4_000;

const SQL = [
  `INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ('${ROUTE}', 'POST', 'openai', 1000, 1000000)`,
];

const OURS = { sets: TOKEN_SETS, sql: SQL };

/** A request for an answer of so many tokens. `asksUsage` says that the client asks for its usage. */
function completion({ form = "events", tokens, asksUsage = true, route = ROUTE }) {
  const usage = asksUsage ? { stream_options: { include_usage: true } } : {};
  const messages = [{ role: "user", content: "Say something about tokens." }];
  return { path: route, body: JSON.stringify({ model: form, stream: true, ...usage, max_tokens: tokens, messages }) };
}

const KEYS = { [SET]: ["open"] };

/** The Workers of one workerd: where each runs, and how its requests differ. */
function workersOn({ workerd, ours }) {
  const forward = (one) => ({ contender: { ...one, keys: KEYS }, runtime: workerd });
  const tollgateOn = (more) => ({ contender: ours, runtime: workerd, ...more });
  return [
    forward(FORWARD),
    forward(PASS),
    tollgateOn({ name: "tollgate-other", title: "tollgate, a route without tokens", route: OTHER_ROUTE }),
    tollgateOn({ name: "tollgate-asked", title: "tollgate, token route, the client asks for usage", rowsEach: 2 }),
    tollgateOn({ title: "tollgate, token route", rowsEach: 2, asksUsage: false }),
  ];
}

/** What is compared: the Workers, the upstream before which they are, and LiteLLM. */
function contenders({ workerd, upstream, litellm, ours }) {
  const outside = (name, title, { address, ...rest }, more) => ({
    contender: { name, title, keys: KEYS },
    runtime: { ...rest, address: () => address },
    ...more,
  });
  const other = litellm && outside("litellm", `LiteLLM ${litellm.version}, no budget`, litellm, { header: "authorization", values: [`Bearer ${litellm.key}`] });
  return [outside("upstream", "the upstream itself", upstream), ...workersOn({ workerd, ours }), ...(other ? [other] : [])];
}

/** A workerd with all Workers, and tollgate in it. */
async function startWorkers({ upstream, stateIn }) {
  const ours = tollgate(OURS);
  const workerd = await startWorkerd(services([FORWARD, PASS, ours], upstream.address), { stateIn });
  try {
    await ours.prepare(workerd);
  } catch (error) {
    await workerd.stop();
    throw error;
  }
  return { workerd, ours, stop: workerd.stop };
}

/** LiteLLM's proxy, or `undefined` if it cannot be had. */
async function litellmBefore({ upstream, say }) {
  if (!(await hasLitellm())) {
    say("LiteLLM is not installed in .tools/litellm (`make setup-bench` installs it): left out");
    return undefined;
  }
  try {
    const [version, python] = [await litellmVersion(), await pythonVersion()];
    return { ...(await startLitellm({ upstream: upstream.address, models: FORMS })), version, python };
  } catch (error) {
    say(`LiteLLM is left out: ${error.message}`);
    return undefined;
  }
}

/** A case for each of them. */
function casesOf(all, { form, tokens, ...each }) {
  return all.map(({ contender, runtime, route, asksUsage, header, ...more }) => {
    const own = tokens(contender.name);
    const request = { ...completion({ form, tokens: own, asksUsage, route }), ...(header ? { header } : {}) };
    return caseOf(runtime, contender, SET, { request, tokens: own, ...each, ...more });
  });
}

/** Bytes of an answer as the upstream sends it to all who ask for the usage. */
async function answerBytes(upstream, form, tokens) {
  const plan = { address: upstream.address, values: ["open"], connections: 1, warmup_ms: 0, measure_ms: 30_000, most_requests: 1 };
  return (await load({ ...plan, ...completion({ form, tokens }) })).bytes;
}

/** Short answers: calls a second, time to first byte, CPU and rows of a call. */
async function short({ all, counts = SHORT.connections, rounds, seconds }) {
  const before = machineLoad();
  const cases = casesOf(all, { form: "events", tokens: () => SHORT.tokens, leadMs: SHORT.leadMs });
  for (const one of cases) if (one.name === "litellm") Object.assign(one, SHORT_LITELLM);
  await warm(cases);
  const tables = [];
  for (const connections of counts) {
    tables.push({ connections, results: await compare({ cases, connections, rounds, seconds }) });
  }
  return { load: before, tokens: SHORT.tokens, tables };
}

/** Long answers, one after the other. */
async function long({ all, upstream }) {
  const before = machineLoad();
  const tables = [];
  for (const form of FORMS) {
    const tokens = (name) => (name === "litellm" ? LONG_LITELLM : LONG.tokens[form]);
    const cases = casesOf(all, { form, tokens, mostRequests: 1 });
    const results = await compare({ cases, connections: 1, rounds: LONG.rounds, seconds: LONG.seconds });
    for (const [i, one] of results.entries()) {
      one.answerBytes = await answerBytes(upstream, form, cases[i].tokens);
      expectBytes(one);
    }
    tables.push({ form, tokens: LONG.tokens[form], results });
  }
  return { load: before, tables };
}

/** Fails if an answer is not whole. */
function expectBytes({ name, bytesPerCall, answerBytes: whole }) {
  const isChanged = name === "tollgate" || name === "litellm";
  if (isChanged ? bytesPerCall < whole / 2 : bytesPerCall !== whole) throw new Error(`${name}: answers of ${bytesPerCall} bytes, and not of ${whole}`);
}

/** What crosses into the wasm for each chunk. */
async function crossings({ upstream, stateIn }) {
  const counted = await startCounted({ upstream: upstream.address, stateIn, ...OURS });
  try {
    const ask = (more) => (address, key) =>
      load({ address, values: [key], connections: 1, warmup_ms: 0, measure_ms: 30_000, most_requests: 1, ...completion(more) });
    const rows = [];
    for (const form of FORMS) {
      for (const asksUsage of [true, false]) {
        const counts = await counted.call(ask({ form, tokens: COUNTED, asksUsage }));
        const row = { form, asksUsage, ...counts, bytes: await answerBytes(upstream, form, COUNTED) };
        const wrong = excess(row, row.bytes) ?? (asksUsage && row.bytesOut > 0 ? `${row.bytesOut} bytes were copied back unchanged` : undefined);
        if (wrong) throw new Error(`crossings, ${form}: ${wrong}`);
        rows.push(row);
      }
    }
    return rows;
  } finally {
    await counted.stop();
  }
}

/** The whole group; `light` is a storage without a disk. */
export async function tokens({ storage, light, rounds: most, seconds: given, say }) {
  const rounds = Math.min(most, SHORT.mostRounds);
  const seconds = given * SHORT.share;
  const begun = Date.now();
  const before = machineLoad();
  const opened = [];
  const open = async (starting) => {
    const one = await starting;
    if (one) opened.push(one);
    return one;
  };
  try {
    const upstream = await open(startUpstream());
    const litellm = await open(litellmBefore({ upstream, say }));
    const workers = await open(startWorkers({ upstream, stateIn: storage.directory }));
    const all = contenders({ ...workers, upstream, litellm });
    const inMemory = async () => {
      const others = workersOn(await open(startWorkers({ upstream, stateIn: light.directory })));
      return { storage: light.name, ...(await short({ all: others, counts: [1], rounds, seconds })) };
    };
    const results = {
      load: before,
      rounds,
      seconds,
      longRounds: LONG.rounds,
      storage: storage.name,
      litellm: litellm?.version,
      python: litellm?.python,
      machine: await machine(),
      sizes: await sizes(path.join(ROOT, "build")),
      short: await short({ all, rounds, seconds }),
      light: light === storage ? undefined : await inMemory(),
      long: await long({ all, upstream }),
      crossings: await crossings({ upstream, stateIn: storage.directory }),
    };
    return { ...results, loadAfter: machineLoad(), minutes: (Date.now() - begun) / 60_000 };
  } finally {
    for (const one of opened.reverse()) await one.stop();
  }
}
