// The bodies of calls that spend tokens, and of their answers.
import { currentInstance, requireInstance } from "./instance.js";

/**
 * Reads a body of at most `limit` bytes. Resolves to `[bytes, length, rest]`: all of it, or of a
 * longer one its beginning, its declared length (-1 without one) and the reader of the rest.
 */
export async function readTokenBody(request, limit) {
  if (request.body === null) return [new Uint8Array(0), 0, undefined];
  const reader = request.body.getReader();
  const chunks = [];
  let length = 0;
  while (length <= limit) {
    const { done, value } = await reader.read();
    if (done) return [joined(chunks, length), length, undefined];
    chunks.push(value);
    length += value.byteLength;
  }
  const declared = request.headers.get("content-length");
  if (declared === null) {
    await reader.cancel();
    return [new Uint8Array(0), -1, undefined];
  }
  return [joined(chunks, length), Number(declared), reader];
}

function joined(chunks, length) {
  if (chunks.length === 1) return chunks[0];
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}

/** A body of this length that begins with `bytes` and goes on with what `reader` reads. */
export function continued(bytes, length, reader) {
  let begun = false;
  const source = new ReadableStream({
    async pull(controller) {
      if (!begun) {
        begun = true;
        return controller.enqueue(bytes);
      }
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return source.pipeThrough(new FixedLengthStream(length));
}

/**
 * Watches the answer of a call with a hold. `answer` is told how it begins, goes on and ends, and
 * settles the hold once: with `end`, with `cut` if the client leaves or the answer breaks off.
 */
export class AnswerWatch {
  #answer;
  #instance = currentInstance();
  #isOver = false;
  #reader;
  #timer;
  #aborted = new AbortController();
  #settled = Promise.withResolvers();

  constructor(answer, request, context, renewal) {
    this.#answer = answer;
    // The context lives until the hold is settled, also if the client has left.
    context.waitUntil(this.#settled.promise);
    this.#timer = setInterval(() => this.#renew(), renewal);
    const { signal } = request;
    if (signal?.aborted) this.cut();
    else signal?.addEventListener("abort", () => this.cut());
  }

  /** Aborts the request to the origin if the client leaves. */
  get signal() {
    return this.#aborted.signal;
  }

  #renew() {
    try {
      requireInstance(this.#instance);
      this.#answer.renew();
    } catch (error) {
      console.error(`tollgate: a hold was not renewed: ${error?.message ?? error}`);
    }
  }

  /** Settles the hold, unless it is. Resolves when that is durable, or takes too long. */
  async #settle(method) {
    if (this.#isOver) return this.#settled.promise;
    this.#isOver = true;
    clearInterval(this.#timer);
    try {
      requireInstance(this.#instance);
      await this.#answer[method](Date.now());
    } catch (error) {
      // The hold expires.
      console.error(`tollgate: a hold was not settled: ${error?.message ?? error}`);
    }
    this.#settled.resolve();
  }

  /** Nothing more comes. */
  cut() {
    const settled = this.#settle("cut");
    this.#aborted.abort();
    this.#reader?.cancel().catch(() => {});
    return settled;
  }

  /** The origin has not answered. */
  fail() {
    return this.#settle("end");
  }

  /** The answer with a body that is read while it passes. */
  async begin(response) {
    if (this.#isOver) return response;
    requireInstance(this.#instance);
    const { headers } = response;
    const field = (name) => headers.get(name) ?? undefined;
    this.#answer.begin(response.status, field("content-type"), field("x-tollgate-tokens"), field("x-tollgate-cost"));
    if (response.body === null || response.webSocket) {
      this.#answer.last();
      await this.#settle("end");
      return response;
    }
    this.#reader = response.body.getReader();
    let body = new ReadableStream({ pull: (controller) => this.#pull(controller), cancel: () => this.cut() }, { highWaterMark: 0 });
    const length = field("content-length");
    const keepsLength = length !== undefined && !headers.has("content-encoding") && !this.#answer.changes_length();
    if (keepsLength) body = body.pipeThrough(new FixedLengthStream(Number(length)));
    const answer = new Response(body, response);
    if (!keepsLength) answer.headers.delete("content-length");
    return answer;
  }

  async #pull(controller) {
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (this.#isOver) return controller.error(new Error("the client has left"));
        requireInstance(this.#instance);
        if (done) {
          const last = this.#answer.last();
          if (last?.byteLength > 0) controller.enqueue(last);
          // The client's next call finds what is given back.
          await this.#settle("end");
          return controller.close();
        }
        const changed = this.#answer.pass(value);
        if (changed === undefined) return controller.enqueue(value);
        if (changed.byteLength > 0) return controller.enqueue(changed);
      }
    } catch (error) {
      await this.cut();
      controller.error(error);
    }
  }
}
