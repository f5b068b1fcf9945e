// A client of the admin API over any transport, for Node and workerd. The tour and the tests use it.
import assert from "node:assert/strict";

export class AdminClient {
  #fetch;
  #token;

  /** `fetch(path, init)` sends a request to the gate and resolves to a `Response`. */
  constructor({ fetch, token }) {
    this.#fetch = fetch;
    this.#token = token;
  }

  /**
   * Sends a request; `path` is below `/_tollgate`. An object becomes JSON, other bodies are sent as
   * they are.
   */
  request(method, path, body, headers = {}) {
    const isJson = typeof body === "object" && !(body instanceof ReadableStream);
    return this.#fetch(`/_tollgate${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.#token}`, ...headers },
      body: isJson ? JSON.stringify(body) : body,
    });
  }

  /** Sends a request and resolves to the JSON of the response, which must have this status. */
  async json(method, path, body, status = 200) {
    return JSON.parse(await textOf(await this.request(method, path, body), status, `${method} ${path}`));
  }

  /** Issues a key: `{ id, key, tier, … }`. */
  issueKey(tier, name) {
    return this.json("POST", "/keys", { tier, name }, 201);
  }

  /** Imports lines, objects or text; resolves to the result of each. */
  async importLines(lines) {
    const body = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n");
    const response = await this.request("POST", "/keys/import", body);
    const results = await textOf(response, 200, "import");
    assert.equal(response.headers.get("content-type"), "application/x-ndjson");
    return results.trim().split("\n").map((text) => JSON.parse(text));
  }

  /** The usage of a key, from its object. */
  usageOf({ id }) {
    return this.json("GET", `/keys/${id}/usage`);
  }
}

async function textOf(response, status, what) {
  const text = await response.text();
  assert.equal(response.status, status, `${what}: ${text}`);
  return text;
}
