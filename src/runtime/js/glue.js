// The crossings between wasm and JavaScript on the way of a request, each one call. A crossing costs about as much as all
// that tollgate computes for a request, so what would take ten of them is written here once. Nothing here decides anything.

/** Header values to set, as "name\nvalue\nname\nvalue"; header values have no line feeds. */
function setAll(headers, fields) {
  if (fields === "") return;
  const parts = fields.split("\n");
  for (let i = 0; i + 1 < parts.length; i += 2) headers.set(parts[i], parts[i + 1]);
}

function present(value) {
  return value === null ? "" : "+" + value;
}

/** What the gate judges of a request, one per line; a header that is there is marked by "+". */
export function facts(request) {
  const { method, url, headers } = request;
  let text = method + "\n" + url + "\n" + present(headers.get("x-api-key")) + "\n" + present(headers.get("authorization"));
  text += "\n" + present(headers.get("idempotency-key")) + "\n" + present(headers.get("x-tollgate-loop"));
  if (method === "GET") {
    if (request.body !== null) text += "\n" + bodyLength(headers);
  } else {
    text += "\n" + (request.body === null ? "" : bodyLength(headers)) + "\n" + present(headers.get("upgrade"));
    if (method === "OPTIONS") text += ASKED_BY_PREFLIGHTS.map((name) => "\n" + present(headers.get(name))).join("");
  }
  return text;
}

const ASKED_BY_PREFLIGHTS = ["origin", "access-control-request-method", "access-control-request-headers"];

function bodyLength(headers) {
  return "+" + (headers.get("content-length") ?? "");
}

/** One header field's value. */
export function header(request, name) {
  return request.headers.get(name) ?? undefined;
}

// Servers that pass header fields as variables replace every character that is no letter or digit by "_" (as RFC 3875 §4.1.18 does
// for "-"), so the origin may read each of these names as one of tollgate's fields, or as that of the key.
const TOLLGATE = /^x[^a-z0-9]+tollgate([^a-z0-9].*)?$/;
const OURS = /^x[^a-z0-9]+(api[^a-z0-9]+key|tollgate([^a-z0-9].*)?)$/;
/** What of a preflight goes on. */
const OF_PREFLIGHTS = /^(origin|user-agent|access-control-.*)$/;

/**
 * Sends a request on: same method, headers less those `dropped` (a line each) and ours, and streamed body, redirects left to the
 * client, nothing read from or left in a cache. The origin's answer is streamed back with `answerFields`; where there is none, the
 * answer is 502. `report` is called with the origin's status, 0 if there is none; if it gives a promise, the answer waits for that.
 */
function send(request, url, dropped, fields, answerFields, report) {
  let sent;
  try {
    const headers = new Headers(request.headers);
    const names = dropped === "" ? [] : dropped.split("\n");
    for (const name of headers.keys()) if (OURS.test(name)) names.push(name);
    for (const name of names) headers.delete(name);
    setAll(headers, fields);
    // One copy of the request, made by `fetch` itself. Its own URL is left as it came.
    const { method } = request;
    const init = { headers, redirect: "manual", cache: "no-store" };
    if (url === undefined) {
      sent = fetch(request, init);
    } else {
      // For workerd `Content-Length: 0` is a body, which `fetch` does not take with these methods.
      const body = method === "GET" || method === "HEAD" ? undefined : request.body;
      sent = fetch(url, { ...init, method, body });
    }
  } catch (error) {
    sent = Promise.reject(error);
  }
  return relayed(sent, answerFields, report);
}

/** Sends a preflight on, with nothing but what makes it one. */
export function forwardPreflight(request, url, fields) {
  const headers = new Headers();
  for (const [name, value] of request.headers) if (OF_PREFLIGHTS.test(name)) headers.set(name, value);
  setAll(headers, fields);
  // Nothing caches an OPTIONS; with `cache` the runtime would add fields.
  const init = { method: "OPTIONS", headers, body: null, redirect: "manual" };
  return relayed(fetch(url ?? request, init), "", undefined);
}

function relayed(sent, answerFields, report) {
  return sent.then(
    (response) => {
      const told = report?.(response.status);
      const answer = relay(response, answerFields);
      return told === undefined ? answer : told.then(() => answer);
    },
    (error) => {
      console.error(`tollgate: the origin did not answer: ${error?.message ?? error}`);
      const told = report?.(0);
      const answer = reply(502, badGateway.body, answerFields + badGateway.fields);
      return told === undefined ? answer : told.then(() => answer);
    },
  );
}

/** Sends a request on whose end nobody asks for. */
export function forward(request, url, dropped, fields, answerFields) {
  return send(request, url, dropped, fields, answerFields, undefined);
}

/**
 * Sends a call on and tells the key's object how it ended. That goes along with the next question about the key, or alone after a
 * second. Where others may repeat the call it goes at once, and the answer waits for it, so that who repeats a call that is answered is
 * not told that it is in flight; it goes even if the client does not wait.
 */
export function forwardCall(request, url, dropped, fields, answerFields, context, namespace, name, nonce, isAwaited) {
  const begun = Date.now();
  const report = (status) => {
    const end = `${nonce}.${status}.${Math.max(0, Date.now() - begun)}`;
    if (!isAwaited) return addEnd(context, namespace, name, end);
    const told = tellEnds(namespace, name, "&w=1", [end]).catch((error) => {
      console.error(`tollgate: the end of a call of key ${name} was not noted yet: ${error?.message ?? error}`);
      addEnd(context, namespace, name, end);
    });
    return Promise.race([told, after(LONGEST_TELLING)]);
  };
  const answer = send(request, url, dropped, fields, answerFields, report);
  if (isAwaited) context.waitUntil(answer.then(() => {}, () => {}));
  return answer;
}

/** How long an answer waits for its object to know of it, in milliseconds. */
const LONGEST_TELLING = 5_000;
/** How long an end waits for a question to go along with, in milliseconds. */
const END_PATIENCE = 1_000;
/** After this time in milliseconds a timer is taken to have died with its request. */
const TIMER_LIFE = 30_000;
/** Ends of one key, and keys with ends, that an isolate keeps at most; beyond that the oldest are never told. */
const ENDS_OF_KEY = 256;
const KEYS_WITH_ENDS = 4_096;

/**
 * How calls ended, by key: `lines` are to go along with the next question, even those that have been told alone meanwhile, because an
 * object writes no row for them. Of `untold` lines, the last, that is not so.
 */
const ends = new Map();

function addEnd(context, namespace, name, end) {
  let account = ends.get(name);
  if (account === undefined) {
    if (ends.size >= KEYS_WITH_ENDS) ends.delete(ends.keys().next().value);
    account = { lines: [], untold: 0, timerSince: -Infinity };
    ends.set(name, account);
  }
  account.lines.push(end);
  if (account.lines.length > ENDS_OF_KEY) account.lines.shift();
  account.untold = Math.min(account.untold + 1, account.lines.length);
  const now = Date.now();
  if (Math.abs(now - account.timerSince) < TIMER_LIFE) return;
  account.timerSince = now;
  const tell = async () => {
    await after(END_PATIENCE);
    account.timerSince = -Infinity;
    const { untold, lines } = account;
    account.untold = 0;
    if (untold > 0) await tellEnds(namespace, name, "", lines.slice(-untold));
  };
  context.waitUntil(tell().catch((error) => console.error(`tollgate: ends of calls of key ${name} wait: ${error?.message ?? error}`)));
}

function tellEnds(namespace, name, flags, lines) {
  return namespace.getByName(name).ask(`https://key.object/v1/end?id=${name}${flags}#${lines.join(",")}`);
}

/** What a question takes along. */
function takeEnds(name) {
  const account = ends.get(name);
  if (account === undefined || account.lines.length === 0) return undefined;
  const { lines } = account;
  account.lines = [];
  account.untold = 0;
  return lines;
}

function putBackEnds(name, lines) {
  const account = ends.get(name) ?? { lines: [], untold: 0, timerSince: -Infinity };
  account.lines = [...lines, ...account.lines].slice(-ENDS_OF_KEY);
  ends.set(name, account);
}

function relay(response, fields) {
  const answer = new Response(response.webSocket ? null : response.body, response);
  const { headers } = answer;
  for (const name of response.headers.keys()) {
    if (!TOLLGATE.test(name)) continue;
    if (response.status === 508) seenLoop = true;
    headers.delete(name);
  }
  setAll(headers, fields);
  if (fields !== "" && headers.has("access-control-allow-origin")) expose(headers, fields);
  return answer;
}

/** Exposes the added fields to scripts, in an answer that the origin lets scripts of another origin read. */
function expose(headers, fields) {
  const listed = (headers.get("access-control-expose-headers") ?? "").split(",").map((name) => name.trim());
  const names = listed.filter((name) => name !== "");
  // `*` is every name, but with credentials it is a name (Fetch standard §4.10).
  const isLiteral = headers.get("access-control-allow-credentials") === "true";
  if (names.includes("*") && !isLiteral) return;
  const known = new Set(names.map((name) => name.toLowerCase()));
  const added = fields.split("\n").filter((name, i) => i % 2 === 0 && name !== "" && !known.has(name.toLowerCase()));
  headers.set("access-control-expose-headers", [...names, ...added].join(", "));
}

/** Whether an answer of the origin looked like that of a gate that was called by itself. */
let seenLoop = false;

/** Whether one did since the last time that this was called. */
export function hasSeenLoop() {
  const seen = seenLoop;
  seenLoop = false;
  return seen;
}

/** How long `askItself` waits, in milliseconds. */
const LONGEST_ASKING = 2_000;

/** Sends a mark to a URL; resolves to the proof in its answer ("" if there is none), or to nothing if there is no answer. */
export async function askItself(url, mark) {
  try {
    const signal = AbortSignal.timeout(LONGEST_ASKING);
    const response = await fetch(url, { headers: { "x-tollgate-loop": mark }, redirect: "manual", cache: "no-store", signal });
    await response.body?.cancel();
    return response.status === 508 ? (response.headers.get("x-tollgate-loop") ?? "") : "";
  } catch {
    return undefined;
  }
}

const badGateway = { body: "", fields: "" };

/** What `forward` answers when the origin does not; set once for an isolate. */
export function setBadGateway(body, fields) {
  Object.assign(badGateway, { body, fields });
}

/** Header fields that many answers share. */
export function shareFields(fields) {
  const headers = new Headers();
  setAll(headers, fields);
  return headers;
}

/** An answer of our own whose fields are shared. */
export function replyShared(status, body, headers) {
  return new Response(body, { status, headers });
}

/** An answer of our own. */
export function reply(status, body, fields) {
  const headers = new Headers();
  setAll(headers, fields);
  return new Response(body, { status, headers });
}

/** Reads at most `limit` bytes of a body; null if there are more. */
export async function readBody(request, limit) {
  if (Number(request.headers.get("content-length") ?? 0) > limit) return null;
  const chunks = [];
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.byteLength;
    if (length > limit) return null;
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

const readFailure = (error) =>
  `!${error?.retryable ? "r" : ""}${error?.overloaded ? "o" : ""} ${error?.message ?? error}`;

/** Numbers the instances of the wasm; a trap ends one. */
function currentLife() {
  return globalThis.__worker_init_state.instanceId;
}

/** What an instance has left behind must not be called in the next: wasm-bindgen 0.2.130 throws, but moves the stack pointer. */
function checkLife(life) {
  if (currentLife() !== life) throw new Error("the instance of the wasm that asked has ended");
}

function resume(call, life, line) {
  checkLife(life);
  return call.resume(line);
}

/**
 * Asks a key's object and lets the call go on with what comes back: the answer's line, or "!" + flags + " " + message. A
 * fresh stub each time, because a stub that has failed once may fail for ever.
 */
export function ask(namespace, name, question, call) {
  const life = currentLife();
  const lines = ends.size === 0 ? undefined : takeEnds(name);
  return namespace
    .getByName(name)
    .ask(lines === undefined ? question : `${question}#${lines.join(",")}`)
    .then(
      (line) => resume(call, life, line),
      (error) => {
        if (lines !== undefined) putBackEnds(name, lines);
        return resume(call, life, readFailure(error));
      },
    );
}

/** Pays what an isolate owes to a key's counts, some time after the answer. */
export function payLater(context, milliseconds, namespace, name, payment) {
  const life = currentLife();
  const next = () => {
    checkLife(life);
    return payment.url();
  };
  const pay = async () => {
    await after(milliseconds);
    for (let url = next(); url !== undefined; url = next()) await ask(namespace, name, url, payment);
  };
  context.waitUntil(pay());
}

/** Asks a key's object for JSON; resolves to its text. */
export async function askText(namespace, name, url) {
  const response = await namespace.getByName(name).fetch(url);
  if (!response.ok) throw new Error(`the object answered ${response.status}`);
  return response.text();
}

/** What waits for one write of `desk`, which stands for an object in one instance of the wasm. */
export function openBatch(desk) {
  desk.batch = Promise.withResolvers();
  return desk.batch;
}

/** The write is done, or has failed: then `failure` is the answer to all who wait. */
export function closeBatch(batch, failure) {
  batch.resolve(failure);
}

/** Calls an object back. A trap may have taken the object's instance of the wasm meanwhile; then those who wait for it are told. */
function callBack(desk, callback, number, error) {
  try {
    callback(number, error);
  } catch (trap) {
    console.error(`tollgate: an object's write lost its instance of the wasm: ${trap?.message ?? trap}`);
    desk.batch?.reject(trap);
  }
}

/** The object's answer once the batch is closed. */
export function answerWith(batch, line) {
  return batch.promise.then((failure) => failure ?? line);
}

/** Resolves to the failure, if there is one. */
export function batchClosed(batch) {
  return batch.promise;
}

/** Resolves after that many milliseconds. Not for objects: a timer of theirs that is left running is billed. */
export function after(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** The same, but it can be cleared. */
export function startTimer(milliseconds) {
  const { promise, resolve } = Promise.withResolvers();
  return { promise, id: setTimeout(resolve, milliseconds) };
}

export function timerPromise(timer) {
  return timer.promise;
}

export function clearTimer(timer) {
  clearTimeout(timer.id);
}

/** Calls back when everything that has already arrived has been handled. */
export function nextTurn(desk, callback) {
  setTimeout(callBack, 0, desk, callback, 0);
}

/** Calls back with `number` when every write so far is confirmed, and with the error if that failed. */
export function whenConfirmed(storage, desk, callback, number) {
  storage.sync().then(() => callBack(desk, callback, number), (error) => callBack(desk, callback, number, error));
}

/** All rows of a query, as JSON. */
export function query(storage, sql) {
  return JSON.stringify(storage.sql.exec(sql).toArray());
}

/** One statement; how many rows it wrote, indexes included. */
export function write(storage, sql, values) {
  return storage.sql.exec(sql, ...values).rowsWritten;
}

/** Statements `[sql, ...values]`, all of them or none; how many rows they wrote, indexes included. */
export function writeAll(storage, statements) {
  return storage.transactionSync(() => {
    let rows = 0;
    for (const [sql, ...values] of statements) rows += storage.sql.exec(sql, ...values).rowsWritten;
    return rows;
  });
}

/** What the object's database takes, in bytes. */
export function databaseSize(storage) {
  return storage.sql.databaseSize;
}

/** Runs statements `[[sql, values], …]` in D1, as one transaction; resolves to the rows of the last one, as JSON. */
export async function runSql(database, statements) {
  const prepared = JSON.parse(statements).map(([sql, values]) => database.prepare(sql).bind(...values));
  const results = await database.batch(prepared);
  return JSON.stringify(results.at(-1).results);
}

/**
 * The `row`s of a query, after `head`, as a stream of text. The query gives pages: it is asked again with the `position` of the
 * last row until it has no more.
 */
export async function streamRows(database, sql, value, head) {
  const statement = database.prepare(sql);
  const page = async (after) => (await statement.bind(value, after).all()).results;
  const encoder = new TextEncoder();
  let rows = await page("");
  return new ReadableStream({
    start(controller) {
      controller.enqueue(encoder.encode(head));
    },
    async pull(controller) {
      if (rows.length === 0) return controller.close();
      controller.enqueue(encoder.encode(rows.map(({ row }) => row).join("")));
      rows = await page(rows.at(-1).position);
    },
  });
}

/** Posts to somebody else's server; resolves to nothing if that took it, otherwise to why not. */
export async function postOut(url, fields, body, milliseconds) {
  const controller = new AbortController();
  const { signal } = controller;
  // AbortSignal.timeout cannot be cleared: it would keep the object awake for as long as the receiver might have taken.
  const timer = setTimeout(() => controller.abort(new Error(`no answer within ${milliseconds} ms`)), milliseconds);
  try {
    const headers = new Headers();
    setAll(headers, fields);
    const response = await fetch(url, { method: "POST", headers, body, redirect: "manual", signal });
    await response.body?.cancel();
    return response.ok ? undefined : `status ${response.status}`;
  } catch (error) {
    return String(error?.message ?? error);
  } finally {
    clearTimeout(timer);
  }
}

/** Sends a key's object a body; resolves to the text of its answer. */
async function postText(namespace, name, url, body) {
  const response = await namespace.getByName(name).fetch(url, { method: "POST", body });
  if (!response.ok) throw new Error(`the object answered ${response.status}`);
  return response.text();
}

/** Sends `body` to the objects of all `names` (JSON), at `url` + name, so many at a time; resolves to how many took it. */
export async function postToAll(namespace, names, url, body, width) {
  let taken = 0;
  let failure;
  const rest = JSON.parse(names).values();
  const lane = async () => {
    for (const name of rest) {
      try {
        await postText(namespace, name, url + name, body);
        taken += 1;
      } catch (error) {
        failure ??= `key ${name}: ${error?.message ?? error}`;
      }
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  // One line, however many there were.
  if (failure !== undefined) console.error(`tollgate: a change did not reach every object: ${failure}`);
  return taken;
}

/**
 * Sends a change to the objects of all `names` (JSON), a page of them through one object of each page, all pages at once; should
 * that one be out of order, through another one. Resolves to how many objects took it.
 */
export async function relayToAll(namespace, names, urlOf, change, size) {
  const all = JSON.parse(names);
  const pages = Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.slice(n * size, (n + 1) * size));
  const taken = await Promise.all(
    pages.map(async (page) => {
      for (const name of page.slice(0, 2)) {
        const ids = JSON.stringify(page.filter((other) => other !== name));
        try {
          return JSON.parse(await postText(namespace, name, urlOf + name, `{"change":${change},"ids":${ids}}`)).taken;
        } catch (error) {
          console.error(`tollgate: key ${name} did not pass a change of its tier on: ${error?.message ?? error}`);
        }
      }
      return 0;
    }),
  );
  return taken.reduce((sum, one) => sum + one, 0);
}

/** The instance of the wasm has ended: nothing of it may be called again, and what begins next has to make a new one. */
export function noteEnd() {
  globalThis.__worker_init_state.criticalError = true;
}

/** Lets work go on after the answer. */
export function keepAlive(context, work) {
  context.waitUntil(work);
}
