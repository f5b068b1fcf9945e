// The floor: what the platform requires of any gate for an admitted call, in JavaScript, and
// nothing else. It sends, stores, forwards and answers as tollgate does, but parses, checks and
// computes nothing: its messages are constant, and as long as tollgate's for the same call.
import { DurableObject } from "cloudflare:workers";

const HASH = "0123456789abcdef".repeat(4);
const NONCE = "12345678901234567890";
const CONCURRENT_MARK = "&g=1";
const ANSWER = "1 admitted admit 1795160894123 minute:rm:1000000000:60:999876543:45877 month:rM:1000000000:2592000:987654321:922305877";
const FIELDS = [
  ["RateLimit-Policy", '"minute";q=1000000000;w=60, "month";q=1000000000;w=2592000'],
  ["RateLimit", '"minute";r=999876543;t=46, "month";r=987654321;t=922306'],
  ["X-RateLimit-Limit", "1000000000"],
  ["X-RateLimit-Remaining", "999876543"],
  ["X-RateLimit-Reset", "1795160940"],
  ["X-Monthly-Remaining", "987654321"],
];
// The key in both spellings, and every header that tollgate sends to the origin.
const OURS = /^x[-_](api[-_]key|tollgate[-_].*)$/;

/** Requests in flight by key: concurrent calls are marked. */
const open = new Map();

export default {
  async fetch(request, env) {
    const key = request.headers.get("x-api-key");
    if (key === null) return new Response("no key\n", { status: 401 });
    // The object needs method and path, on which the cost may depend.
    const id = key.slice(3, 19);
    const others = open.get(id) ?? 0;
    open.set(id, others + 1);
    const concurrent = others > 0 ? CONCURRENT_MARK : "";
    await env.KEYS.getByName(id).ask(`v1/check?id=${id}&h=${HASH}&n=${NONCE}${concurrent}&m=${request.method}&p=${request.url}`);
    if (open.get(id) === 1) open.delete(id);
    else open.set(id, open.get(id) - 1);
    const response = await fetch(request, { headers: identified(request.headers, id), redirect: "manual", cache: "no-store" });
    const answer = new Response(response.body, response);
    for (const [name, value] of FIELDS) answer.headers.set(name, value);
    return answer;
  },
};

/** The headers for the origin: without the key, with its id. */
function identified(given, id) {
  const headers = new Headers(given);
  const dropped = [];
  for (const name of headers.keys()) if (OURS.test(name)) dropped.push(name);
  for (const name of dropped) headers.delete(name);
  headers.set("X-Tollgate-Key-Id", id);
  headers.set("X-Tollgate-Tier", "admit");
  return headers;
}

const COUNTERS =
  '{"v":1,"seq":123456,"e":"0123456789abcdef","t":1795160894123456,"f":[[[[29919347,123456],[29919348,123456]],[[498655,246912]],' +
  '[[20777,246912]]]],"m":[[202611,246912,0,0,246912,0,123456,0]],"n":[]}';
/** tollgate's row names the calls of this write and the last one, and at least so many. */
const LEAST_NAMED = 8;
/** From this many calls that share a write on, the object is busy. */
const BUSY_CALLS = 2;
/** Maximum number of unconfirmed writes before a lone call requests a confirmation. */
const UNCONFIRMED = 8;

/** Writes as src/runtime/object/writer.rs does; `pace` has the same four values. */
export class Counter extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.storage = ctx.storage;
    this.sql = ctx.storage.sql;
    this.sql.exec("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, body TEXT NOT NULL, count INTEGER NOT NULL)");
    this.count = this.sql.exec("SELECT count FROM counter").toArray()[0]?.count ?? 0;
    this.stored = this.count;
    this.named = 0;
    this.unconfirmed = 0;
    this.rowsWritten = 0;
    this.pace = "idle";
    this.waiting = 0;
    this.next = undefined;
  }

  /** Counts a call. Returns the response if the call is written at once, otherwise a promise. */
  ask(question) {
    this.count += 1;
    if (this.pace === "idle") {
      const hasCompany = question.includes(CONCURRENT_MARK);
      if (!hasCompany || this.unconfirmed === 0) {
        if (!hasCompany && this.unconfirmed + 1 < UNCONFIRMED) this.write();
        else this.writeAndFollow();
        return ANSWER;
      }
      this.pace = "confirming";
      this.follow();
    }
    this.waiting += 1;
    this.next ??= Promise.withResolvers();
    if (this.pace === "busy") this.gather();
    return this.next.promise.then(() => ANSWER);
  }

  /** Rows written so far. */
  fetch() {
    return Response.json({ rows_written: this.rowsWritten });
  }

  gather() {
    this.pace = "gathering";
    setTimeout(() => this.turn(), 0);
  }

  turn() {
    if (this.waiting >= BUSY_CALLS) {
      this.pace = "busy";
      this.write();
    } else {
      this.writeAndFollow();
    }
  }

  writeAndFollow() {
    this.pace = "confirming";
    this.write();
    this.follow();
  }

  follow() {
    // If it fails, the runtime restarts the object.
    this.storage.sync().then(() => this.confirmed());
  }

  confirmed() {
    this.unconfirmed = 0;
    if (this.pace !== "confirming") return;
    if (this.next === undefined) this.pace = "idle";
    else if (this.waiting >= BUSY_CALLS) this.gather();
    else this.writeAndFollow();
  }

  /** Writes the counted calls and resolves those that wait. */
  write() {
    const { next } = this;
    this.next = undefined;
    this.waiting = 0;
    const calls = this.count - this.stored;
    this.unconfirmed += 1;
    const body = COUNTERS + `${NONCE},`.repeat(Math.max(LEAST_NAMED, calls + this.named));
    const upsert =
      "INSERT INTO counter (id, body, count) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body, count = excluded.count";
    try {
      this.rowsWritten += this.sql.exec(upsert, body, this.count).rowsWritten;
    } catch (error) {
      // All waiting calls fail, and the object restarts from storage.
      this.ctx.abort(error);
    }
    this.named = calls;
    this.stored = this.count;
    next?.resolve();
  }
}
