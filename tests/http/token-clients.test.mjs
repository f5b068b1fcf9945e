// Token budgets as the npm clients of OpenAI, Anthropic and Google see them: the same as without a
// gate, and charged what the origin has counted itself.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { Anthropic, ApiError, GoogleGenAI, OpenAI } from "./clients/models.mjs";
import { until } from "../support/until.mjs";
import { issueKey, usageOf } from "./lib/client.mjs";

const BUDGET = 10_000;
const CAP = 30;
const MESSAGES = [{ role: "user", content: "Say something." }];
const CHAT = { model: "m", messages: MESSAGES, max_tokens: CAP };
/** What the origin counts for the texts of MESSAGES. */
const INPUT_TOKENS = Math.ceil("userSay something.".length / 4);
/** Bytes of the body that the client sends, and its cap. */
const HOLD = JSON.stringify(CHAT).length + CAP;
/** Fits one call, and not another. */
const NARROW = 2 * HOLD - CAP;

let origin;
let gate;

before(async () => {
  origin = await startOrigin();
  gate = await startGate({ origin: origin.url });
  const routes = { "/v1/chat/*": "openai", "/v1/responses": "openai", "/v1/messages": "anthropic", "/v1/models/*": "gemini" };
  const rows = Object.entries(routes).map(([pattern, format]) => `('${pattern}', 'POST', '${format}', 100, 400)`);
  await gate.d1(`INSERT INTO token_routes (pattern, method, format, default_output, max_output) VALUES ${rows},
      ('/v1/embeddings', 'POST', 'openai', 0, 0);
    INSERT INTO tiers (name) VALUES ('budget'), ('narrow'), ('refilled');
    INSERT INTO tier_limits (tier, policy, unit, quota, period, algorithm, burst) VALUES
      ('budget', 'budget', 'tokens', ${BUDGET}, 'day', 'fixed', NULL), ('narrow', 'budget', 'tokens', ${NARROW}, 'day', 'fixed', NULL),
      ('refilled', 'budget', 'tokens', ${60 * HOLD}, 'minute', 'bucket', ${HOLD})`);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

/** A `fetch` with these header fields. */
const withFields = (fields) => (url, init) => {
  const headers = new Headers(init.headers);
  for (const [name, value] of Object.entries(fields)) headers.set(name, value);
  return fetch(url, { ...init, headers });
};

/** The same, which keeps what it has received in `seen`. */
function recorded(seen, fields) {
  return async (url, init) => {
    const response = await withFields(fields)(url, init);
    const field = (name) => response.headers.get(name);
    seen.push({ status: response.status, type: field("content-type"), wait: field("retry-after"), bytes: response.clone().text() });
    return response;
  };
}

/** The clients, of the gate or of the origin. */
function clientsOf(url, key, { fetch, maxRetries = 0 } = {}) {
  const more = { apiKey: key, maxRetries, fetch };
  return {
    openai: new OpenAI({ baseURL: `${url}/v1`, ...more }),
    anthropic: new Anthropic({ baseURL: url, ...more }),
    gemini: new GoogleGenAI({ apiKey: "a key of Google's", httpOptions: { baseUrl: url, headers: { "x-api-key": key }, fetch } }),
  };
}

/** The events of a stream. */
const all = async (stream) => Array.fromAsync(await stream);

const INPUT = { model: "m", input: "Say something." };
const PROMPT = { model: "m", contents: "Say something." };

const CALLS = {
  "openai chat": ({ openai }) => openai.chat.completions.create(CHAT),
  "openai chat, several answers": ({ openai }) => openai.chat.completions.create({ ...CHAT, n: 3 }),
  "openai chat, streamed without include_usage": ({ openai }) => all(openai.chat.completions.create({ ...CHAT, stream: true })),
  "openai chat, streamed with include_usage false": ({ openai }) =>
    all(openai.chat.completions.create({ ...CHAT, stream: true, stream_options: { include_usage: false } })),
  "openai chat, streamed with include_usage": ({ openai }) =>
    all(openai.chat.completions.create({ ...CHAT, stream: true, stream_options: { include_usage: true } })),
  "openai chat, several answers streamed without a cap": ({ openai }) =>
    all(openai.chat.completions.create({ model: "m", messages: MESSAGES, n: 2, stream: true })),
  "openai chat, by its stream helper": ({ openai }) => openai.chat.completions.stream(CHAT).finalChatCompletion(),
  "openai responses": ({ openai }) => openai.responses.create({ ...INPUT, max_output_tokens: CAP }),
  "openai responses, streamed": ({ openai }) => all(openai.responses.create({ ...INPUT, stream: true })),
  "openai embeddings": ({ openai }) => openai.embeddings.create({ model: "m", input: ["one text", "another"] }),
  "openai embeddings as floats": ({ openai }) => openai.embeddings.create({ ...INPUT, encoding_format: "float" }),
  "anthropic messages": ({ anthropic }) => anthropic.messages.create(CHAT),
  "anthropic messages, streamed": ({ anthropic }) => all(anthropic.messages.create({ ...CHAT, stream: true })),
  "anthropic messages, by its stream helper": ({ anthropic }) => anthropic.messages.stream(CHAT).finalMessage(),
  "gemini generateContent": ({ gemini }) => gemini.models.generateContent({ ...PROMPT, config: { maxOutputTokens: CAP } }),
  "gemini generateContent, several answers": ({ gemini }) => gemini.models.generateContent({ ...PROMPT, config: { candidateCount: 2 } }),
  "gemini generateContentStream": ({ gemini }) => all(gemini.models.generateContentStream({ ...PROMPT, config: { maxOutputTokens: CAP } })),
};

/** What a client sees: its own result without the header fields, and the response. */
async function seenBy(call, url, key, fields) {
  const seen = [];
  const result = await call(clientsOf(url, key, { fetch: recorded(seen, fields) }));
  const responses = await Promise.all(seen.map(async ({ bytes, ...rest }) => ({ ...rest, bytes: await bytes })));
  const shown = JSON.stringify(result, (name, value) => (name === "sdkHttpResponse" ? undefined : value));
  return { result: JSON.parse(shown), responses };
}

/** What the gate has charged a key for tokens. */
async function chargedTo(key) {
  const { tokens, policies: [{ used, held }] } = await usageOf(gate, key);
  assert.deepEqual({ used, held }, { used: tokens, held: 0 });
  return tokens;
}

describe("a client sees through the gate what the origin sends, and its key is charged what the origin has counted", () => {
  for (const [name, call] of Object.entries(CALLS)) {
    test(name, async () => {
      for (const fields of [{ "accept-encoding": "identity" }, { "x-demo-gzip": "always" }]) {
        const key = await issueKey(gate, "budget");
        const direct = await seenBy(call, origin.url, "no key", fields);
        assert.deepEqual(await seenBy(call, gate.url, key.key, fields), direct);
        assert.equal(direct.responses.length, 1);
        assert.equal(direct.responses[0].status, 200);
        assert.ok(origin.tokens(key) > 0, "the origin has spent tokens for the key");
        assert.equal(await chargedTo(key), origin.tokens(key));
      }
    });
  }

  test("gemini's stream as a list", async () => {
    const body = JSON.stringify({ contents: [{ parts: [{ text: "Say something." }] }] });
    const key = await issueKey(gate, "budget");
    const ask = async (url) => {
      const headers = { "x-api-key": key.key, "content-type": "application/json" };
      return (await fetch(`${url}/v1/models/m:streamGenerateContent`, { method: "POST", headers, body })).text();
    };
    const text = await ask(gate.url);
    const counted = origin.tokens(key);
    assert.equal(await chargedTo(key), counted);
    assert.equal(text, await ask(origin.url));
    assert.equal(JSON.parse(text).at(-1).usageMetadata.totalTokenCount, counted);
  });
});

test("an openai stream has usage only if the client wants it", async () => {
  const key = await issueKey(gate, "budget");
  const { openai } = clientsOf(gate.url, key.key);
  const usages = async (more) => (await all(openai.chat.completions.create({ ...CHAT, stream: true, ...more }))).filter((chunk) => "usage" in chunk);
  assert.deepEqual(await usages({}), []);
  const wanted = await usages({ stream_options: { include_usage: true } });
  assert.deepEqual(wanted.at(-1).choices, []);
  assert.equal(2 * wanted.at(-1).usage.total_tokens, origin.tokens(key));
});

const ENDLESS = { ...CHAT, max_tokens: 400, stream: true };

const LEAVERS = {
  openai: [({ openai }) => openai.chat.completions.create(ENDLESS), (chunk) => chunk.choices[0].delta.content],
  anthropic: [({ anthropic }) => anthropic.messages.create(ENDLESS), (event) => event.delta?.text],
};

for (const [name, [call, wordOf]] of Object.entries(LEAVERS)) {
  test(`a client that stops in mid-stream has got the words as they came, and is charged for them (${name})`, async () => {
    const key = await issueKey(gate, "budget");
    let words = 0;
    // The whole answer would take 40 seconds.
    const fields = { "x-demo-words": "400", "x-demo-delay": "100" };
    for await (const event of await call(clientsOf(gate.url, key.key, { fetch: withFields(fields) }))) {
      if (wordOf(event)) words += 1;
      if (words === 3) break;
    }
    await until("the hold is settled", async () => (await usageOf(gate, key)).policies[0].held === 0);
    const charged = await chargedTo(key);
    assert.ok(charged >= INPUT_TOKENS + words, `${charged} charged`);
    assert.ok(charged < JSON.stringify(ENDLESS).length + ENDLESS.max_tokens, `${charged} charged`);
    assert.ok(origin.tokens(key) < INPUT_TOKENS + ENDLESS.max_tokens, "the origin has stopped");
  });
}

/** The error of a call that is refused before the origin gets it. */
async function refusal(key, call, options) {
  const spent = origin.tokens(key);
  const error = await call(clientsOf(gate.url, key.key, options)).then(() => assert.fail("the call is refused"), (error) => error);
  assert.equal(origin.tokens(key), spent);
  return error;
}

const REFUSALS = {
  openai: [({ openai }) => openai.chat.completions.create(CHAT), OpenAI.RateLimitError, OpenAI.BadRequestError],
  "openai, streamed": [({ openai }) => openai.chat.completions.create({ ...CHAT, stream: true }), OpenAI.RateLimitError, OpenAI.BadRequestError],
  anthropic: [({ anthropic }) => anthropic.messages.create(CHAT), Anthropic.RateLimitError, Anthropic.BadRequestError],
  gemini: [({ gemini }) => gemini.models.generateContent({ ...PROMPT, config: { maxOutputTokens: CAP } }), ApiError, ApiError],
};

for (const [name, [call, RateLimitError, BadRequestError]] of Object.entries(REFUSALS)) {
  test(`what does not fit into the budget is the client's error of a rate limit (${name})`, async () => {
    const key = await issueKey(gate, "narrow");
    await clientsOf(gate.url, key.key, { fetch: withFields({ "x-demo-usage": "none" }) }).openai.chat.completions.create(CHAT);
    const seen = [];
    const error = await refusal(key, call, { fetch: recorded(seen, {}) });
    assert.ok(error instanceof RateLimitError, String(error));
    assert.equal(error.status, 429);
    assert.equal(seen.length, 1, "without a retry");
    assert.match(seen[0].wait, /^[1-9]\d*$/);
    if (error.headers) assert.equal(error.headers.get("retry-after"), seen[0].wait);
    assert.deepEqual(JSON.parse(await seen[0].bytes)["violated-policies"], ["budget"]);
  });

  test(`what no budget ever fits is the client's error of a bad request (${name})`, async () => {
    const key = await issueKey(gate, "narrow");
    const text = "word ".repeat(100);
    const long = { ...CHAT, messages: [{ role: "user", content: text }] };
    const calls = {
      openai: ({ openai }) => openai.chat.completions.create(long),
      "openai, streamed": ({ openai }) => openai.chat.completions.create({ ...long, stream: true }),
      anthropic: ({ anthropic }) => anthropic.messages.create(long),
      gemini: ({ gemini }) => gemini.models.generateContent({ ...PROMPT, contents: text }),
    };
    const seen = [];
    const error = await refusal(key, calls[name], { fetch: recorded(seen, {}) });
    assert.ok(error instanceof BadRequestError, String(error));
    assert.equal(error.status, 400);
    assert.match(JSON.parse(await seen[0].bytes).detail, /may use \d+ tokens, more than the quota of/);
    assert.equal(await chargedTo(key), 0);
  });
}

test("a client that retries waits as long as Retry-After says, once, and then passes", async () => {
  const key = await issueKey(gate, "refilled");
  const seen = [];
  const { openai } = clientsOf(gate.url, key.key, { fetch: recorded(seen, { "x-demo-usage": "none" }), maxRetries: 1 });
  for (let n = 0; n < 3; n += 1) await openai.chat.completions.create(CHAT);
  const statuses = seen.map(({ status }) => status);
  assert.equal(statuses.filter((status) => status === 200).length, 3);
  assert.ok(statuses.includes(429), String(statuses));
});
