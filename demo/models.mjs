// The model endpoints of the demo origin: OpenAI's, Anthropic's and Gemini's protocols, without a
// model. An answer repeats one sentence, and each of its words is a token. The same request always
// gets the same answer.
//
//   POST /v1/chat/completions, /v1/responses, /v1/embeddings: OpenAI
//   POST /v1/messages: Anthropic
//   POST /v1/models/{model}:generateContent, :streamGenerateContent: Gemini, also under /v1beta;
//        a stream is a list, or with ?alt=sse events
//   GET /demo/tokens: the tokens that each key has spent, by id, as counted here
//
// Four bytes of text are a token of input. Output ends at the cap of the request. Fields of the
// request change the answer:
//
//   X-Demo-Words: 500     its length without a cap, in words (24)
//   X-Demo-Delay: 20      milliseconds between the events of a stream (0)
//   X-Demo-Usage: none    no usage in it
//   X-Demo-Gzip: always   compressed, also where the request does not accept that
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { constants, createGzip, gzipSync } from "node:zlib";

const SENTENCE = "every word of this answer is a token and the origin counts each of them once".split(" ");
const DEFAULT_WORDS = 24;
const BYTES_PER_TOKEN = 4;
const DIMENSIONS = 8;
/** Of all answers, in seconds. */
const CREATED = 1_767_225_600;

/**
 * `find(req)` returns what responds to a request, `(res, body) => Promise`, if it is for a model.
 * `tokens(id)` is what a key has spent: its input when a call arrives, each word when it is made.
 */
export function createModels() {
  const spent = new Map();

  function find(req) {
    const { pathname, searchParams } = new URL(req.url, "http://origin");
    if (req.method === "GET" && pathname === "/demo/tokens") return (res) => sendJson(req, res, 200, Object.fromEntries(spent));
    const found = req.method === "POST" && ENDPOINTS.find(({ path }) => path.test(pathname));
    if (!found) return undefined;
    return (res, body) => respond(req, res, found, { body, pathname, searchParams });
  }

  async function respond(req, res, endpoint, { body: bytes, ...target }) {
    let body;
    try {
      body = JSON.parse(bytes);
    } catch {
      return sendJson(req, res, 400, { error: { type: "invalid_request_error", message: "the body is not JSON" } });
    }
    const id = req.headers["x-tollgate-key-id"] ?? "";
    const spend = (tokens) => spent.set(id, (spent.get(id) ?? 0) + tokens);
    const { text, caps = [], ...asked } = endpoint.read(body ?? {}, target);
    const length = numberField(req, "x-demo-words", DEFAULT_WORDS);
    const count = Math.min(length, ...caps.filter((cap) => Number.isInteger(cap) && cap > 0));
    const call = {
      model: body?.model,
      answers: 1,
      ...asked,
      count,
      isCapped: count < length,
      input: tokensOf(text),
      reports: req.headers["x-demo-usage"] !== "none",
      word(n) {
        spend(1);
        return wordAt(n);
      },
      text: () => Array.from({ length: count }, (_, n) => call.word(n)).join(""),
    };
    spend(call.input);
    if (!call.streams) return sendJson(req, res, 200, endpoint.answer(call));
    const delay = numberField(req, "x-demo-delay", 0);
    res.writeHead(200, { "content-type": call.contentType ?? "text/event-stream", ...encoding(req) });
    const stages = [Readable.from(paced(endpoint.events(call), delay)), res];
    if (isGzipped(req)) stages.splice(1, 0, createGzip({ flush: constants.Z_SYNC_FLUSH }));
    // It fails if the client leaves; nothing more is made then.
    await pipeline(stages).catch(() => {});
  }

  return { find, tokens: (id) => spent.get(id) ?? 0, reset: () => spent.clear() };
}

function numberField(req, name, otherwise) {
  const value = req.headers[name];
  return /^\d{1,9}$/.test(value ?? "") ? Number(value) : otherwise;
}

const isGzipped = ({ headers }) => headers["x-demo-gzip"] === "always" || /\bgzip\b/.test(headers["accept-encoding"] ?? "");
const encoding = (req) => (isGzipped(req) ? { "content-encoding": "gzip" } : {});

function sendJson(req, res, status, value) {
  const text = `${JSON.stringify(value)}\n`;
  res.writeHead(status, { "content-type": "application/json", ...encoding(req) });
  res.end(isGzipped(req) ? gzipSync(text) : text);
}

async function* paced(events, delay) {
  for (const event of events) {
    yield event;
    if (delay > 0) await sleep(delay);
  }
}

const wordAt = (n) => `${n === 0 ? "" : " "}${SENTENCE[n % SENTENCE.length]}`;

/** Tokens of all texts in a JSON value. */
const tokensOf = (value) => Math.ceil(bytesOf(value) / BYTES_PER_TOKEN);

function bytesOf(value) {
  if (typeof value === "string") return Buffer.byteLength(value);
  if (typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce((sum, item) => sum + bytesOf(item), 0);
}

/** The words of all answers: `[index of the answer, number of the word]`. */
function* positions({ answers, count }) {
  for (let n = 0; n < count; n += 1) for (let index = 0; index < answers; index += 1) yield [index, n];
}

const indices = ({ answers }) => Array.from({ length: answers }, (_, index) => index);
const dataEvent = (value) => `data: ${JSON.stringify(value)}\n\n`;
const namedEvent = (value) => `event: ${value.type}\n${dataEvent(value)}`;

const CHAT = {
  path: /^\/v1\/chat\/completions$/,
  read: ({ messages, max_tokens, max_completion_tokens, n, stream, stream_options }) => ({
    text: messages,
    caps: [max_tokens, max_completion_tokens],
    answers: n ?? 1,
    streams: stream === true,
    includesUsage: stream_options?.include_usage === true,
  }),
  usage: ({ input, count, answers }) => ({ prompt_tokens: input, completion_tokens: count * answers, total_tokens: input + count * answers }),
  finish: ({ isCapped }) => (isCapped ? "length" : "stop"),
  answer: (call) => ({
    id: "chatcmpl-demo",
    object: "chat.completion",
    created: CREATED,
    model: call.model,
    choices: indices(call).map((index) => ({
      index,
      message: { role: "assistant", content: call.text(), refusal: null },
      logprobs: null,
      finish_reason: CHAT.finish(call),
    })),
    ...(call.reports && { usage: CHAT.usage(call) }),
  }),
  *events(call) {
    const says = call.reports && call.includesUsage;
    const chunk = (choices, usage = null) =>
      dataEvent({ id: "chatcmpl-demo", object: "chat.completion.chunk", created: CREATED, model: call.model, choices, ...(says && { usage }) });
    for (const index of indices(call)) yield chunk([{ index, delta: { role: "assistant", content: "" }, finish_reason: null }]);
    for (const [index, n] of positions(call)) yield chunk([{ index, delta: { content: call.word(n) }, finish_reason: null }]);
    for (const index of indices(call)) yield chunk([{ index, delta: {}, finish_reason: CHAT.finish(call) }]);
    if (says) yield chunk([], CHAT.usage(call));
    yield "data: [DONE]\n\n";
  },
};

const RESPONSES = {
  path: /^\/v1\/responses$/,
  read: ({ input, instructions, max_output_tokens, stream }) => ({ text: [input, instructions], caps: [max_output_tokens], streams: stream === true }),
  usage: ({ input, count }) => ({
    input_tokens: input,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: count,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: input + count,
  }),
  response: ({ model }, status, more) => ({
    id: "resp_demo", object: "response", created_at: CREATED, status, error: null, incomplete_details: null, model,
    output: [], parallel_tool_calls: true, tool_choice: "auto", tools: [], ...more,
  }),
  message: (status, content) => ({ id: "msg_demo", type: "message", status, role: "assistant", content }),
  part: (text) => ({ type: "output_text", text, annotations: [] }),
  whole: (call, text) =>
    RESPONSES.response(call, call.isCapped ? "incomplete" : "completed", {
      incomplete_details: call.isCapped ? { reason: "max_output_tokens" } : null,
      output: [RESPONSES.message("completed", [RESPONSES.part(text)])],
      ...(call.reports && { usage: RESPONSES.usage(call) }),
    }),
  answer: (call) => RESPONSES.whole(call, call.text()),
  *events(call) {
    const { response, message, part, whole } = RESPONSES;
    const item = { item_id: "msg_demo", output_index: 0, content_index: 0 };
    let sequence = 0;
    const event = (type, value) => namedEvent({ type, sequence_number: sequence++, ...value });
    yield event("response.created", { response: response(call, "in_progress", { usage: null }) });
    yield event("response.output_item.added", { output_index: 0, item: message("in_progress", []) });
    yield event("response.content_part.added", { ...item, part: part("") });
    let text = "";
    for (const [, n] of positions(call)) {
      const delta = call.word(n);
      text += delta;
      yield event("response.output_text.delta", { ...item, delta, logprobs: [] });
    }
    yield event("response.output_text.done", { ...item, text, logprobs: [] });
    yield event("response.content_part.done", { ...item, part: part(text) });
    yield event("response.output_item.done", { output_index: 0, item: message("completed", [part(text)]) });
    yield event(call.isCapped ? "response.incomplete" : "response.completed", { response: whole(call, text) });
  },
};

const EMBEDDINGS = {
  path: /^\/v1\/embeddings$/,
  read: ({ input, encoding_format, dimensions = DIMENSIONS }) => ({
    text: input, texts: Array.isArray(input) ? input : [input], encodes: encoding_format === "base64", dimensions,
  }),
  answer: ({ model, texts, encodes, dimensions, input, reports }) => ({
    object: "list",
    model,
    data: texts.map((text, index) => ({ object: "embedding", index, embedding: embed(text, dimensions, encodes) })),
    ...(reports && { usage: { prompt_tokens: input, total_tokens: input } }),
  }),
};

function embed(text, dimensions, encodes) {
  const digest = createHash("sha256").update(JSON.stringify(text ?? null)).digest();
  const vector = Float32Array.from({ length: dimensions }, (_, n) => digest[n % digest.length] / 255);
  return encodes ? Buffer.from(vector.buffer).toString("base64") : Array.from(vector);
}

const MESSAGES = {
  path: /^\/v1\/messages$/,
  read: ({ messages, system, max_tokens, stream }) => ({ text: [messages, system], caps: [max_tokens], streams: stream === true }),
  usage: ({ input, reports }, output) =>
    reports && { usage: { input_tokens: input, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: output } },
  stop: ({ isCapped }) => ({ stop_reason: isCapped ? "max_tokens" : "end_turn", stop_sequence: null }),
  message: ({ model }, more) => ({ id: "msg_demo", type: "message", role: "assistant", model, ...more }),
  answer: (call) => MESSAGES.message(call, { content: [{ type: "text", text: call.text() }], ...MESSAGES.stop(call), ...MESSAGES.usage(call, call.count) }),
  *events(call) {
    const { message, stop, usage } = MESSAGES;
    const started = message(call, { content: [], stop_reason: null, stop_sequence: null, ...usage(call, 1) });
    yield namedEvent({ type: "message_start", message: started });
    yield namedEvent({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } });
    yield namedEvent({ type: "ping" });
    for (const [, n] of positions(call)) yield namedEvent({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: call.word(n) } });
    yield namedEvent({ type: "content_block_stop", index: 0 });
    yield namedEvent({ type: "message_delta", delta: stop(call), ...usage(call, call.count) });
    yield namedEvent({ type: "message_stop" });
  },
};

const GEMINI = {
  path: /^\/v1(?:beta)?\/models\/[^/:]+:(generateContent|streamGenerateContent)$/,
  read({ contents, systemInstruction, generationConfig }, { pathname, searchParams }) {
    const isSse = searchParams.get("alt") === "sse";
    return {
      text: [contents, systemInstruction],
      caps: [generationConfig?.maxOutputTokens],
      answers: generationConfig?.candidateCount ?? 1,
      streams: pathname.endsWith(":streamGenerateContent"),
      model: /models\/(.*):/.exec(pathname)[1],
      isSse,
      contentType: isSse ? "text/event-stream" : "application/json",
    };
  },
  response: ({ model, input, reports }, candidates, output) => ({
    candidates,
    ...(reports && { usageMetadata: { promptTokenCount: input, candidatesTokenCount: output, totalTokenCount: input + output } }),
    modelVersion: model,
  }),
  candidate: ({ isCapped }, index, text, isLast) => ({
    content: { parts: [{ text }], role: "model" },
    ...(isLast && { finishReason: isCapped ? "MAX_TOKENS" : "STOP" }),
    index,
  }),
  answer: (call) => GEMINI.response(call, indices(call).map((index) => GEMINI.candidate(call, index, call.text(), true)), call.count * call.answers),
  *events(call) {
    let output = 0;
    for (const [index, n] of positions(call)) {
      const candidate = GEMINI.candidate(call, index, call.word(n), n === call.count - 1);
      output += 1;
      const json = JSON.stringify(GEMINI.response(call, [candidate], output));
      if (call.isSse) yield `data: ${json}\r\n\r\n`;
      else yield `${output === 1 ? "[" : ",\r\n"}${json}`;
    }
    if (!call.isSse) yield output === 0 ? "[]" : "\n]";
  },
};

const ENDPOINTS = [CHAT, RESPONSES, EMBEDDINGS, MESSAGES, GEMINI];
