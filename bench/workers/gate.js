// The Worker before the JavaScript objects: sends a request to the key's object, then forwards, or
// answers 429. It neither checks the key nor adds fields: the least that a gate can do.

/** Keys that begin so have a quota of one call a minute, the others one that no run reaches. */
const EXHAUSTED = "exhausted";

export default {
  async fetch(request, env) {
    const key = request.headers.get("x-api-key");
    if (key === null) return new Response("no key\n", { status: 401 });
    const quota = key.startsWith(EXHAUSTED) ? 1 : 1e9;
    const verdict = await env.KEYS.getByName(key).fetch(`https://key.object/?quota=${quota}`);
    if (verdict.status === 200) return fetch(request);
    return new Response("too many requests\n", { status: 429, headers: { "retry-after": verdict.headers.get("retry-after") } });
  },
};

/** A fixed window of one minute. `store` is what the three objects differ in. */
export class Window {
  constructor(ctx) {
    this.sql = ctx.storage.sql;
    this.sql.exec("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, start INTEGER, count INTEGER)");
    this.start = 0;
    this.count = 0;
    this.rowsWritten = 0;
    const [row] = this.sql.exec("SELECT start, count FROM counter").toArray();
    if (row) ({ start: this.start, count: this.count } = row);
  }

  async fetch(request) {
    const quota = Number(request.url.slice(request.url.indexOf("=") + 1));
    if (Number.isNaN(quota)) return Response.json({ rows_written: this.rowsWritten });
    const now = Date.now();
    const start = now - (now % 60_000);
    if (start > this.start) {
      this.start = start;
      this.count = 0;
    }
    if (this.count >= quota) {
      const seconds = Math.ceil((this.start + 60_000 - now) / 1000);
      return new Response(null, { status: 429, headers: { "retry-after": String(seconds) } });
    }
    this.count += 1;
    await this.store();
    return new Response(null);
  }

  write() {
    const upsert =
      "INSERT INTO counter (id, start, count) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET start = excluded.start, count = excluded.count";
    this.rowsWritten += this.sql.exec(upsert, this.start, this.count).rowsWritten;
  }
}
