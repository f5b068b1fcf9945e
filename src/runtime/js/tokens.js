// The bodies of calls that spend tokens, and of their responses.
import { currentInstance, requireInstance } from "./instance.js";
import { clearTimer, startTimer } from "./timer.js";

/**
 * Reads a body of at most `limit` bytes. Resolves to `[bytes, length, rest]`: all of it, or of a
 * longer one its beginning, its declared length (-1 without one) and the reader of the rest.
 * Resolves to `undefined`, and gives the body up, if that takes more than so many milliseconds.
 */
export async function readTokenBody(request, limit, milliseconds) {
  if (request.body === null) return [new Uint8Array(0), 0, undefined];
  const reader = request.body.getReader();
  const timer = startTimer(milliseconds);
  const late = timer.promise.then(() => void reader.cancel().catch(() => {}));
  try {
    return await Promise.race([readStart(request, reader, limit), late]);
  } finally {
    clearTimer(timer);
  }
}

async function readStart(request, reader, limit) {
  const buffer = new GrowingBuffer();
  while (buffer.length <= limit) {
    const { done, value } = await reader.read();
    if (done) return [buffer.bytes, buffer.length, undefined];
    buffer.add(value);
  }
  return [buffer.bytes, Number(request.headers.get("content-length") ?? -1), reader];
}

/** Gives up a body of which something was not read. */
export function cancelTokenBody([, , rest]) {
  rest?.cancel().catch(() => {});
}

/** Copies chunks, of which each would take much more than its bytes if a client sends one at a time. */
class GrowingBuffer {
  #room = new Uint8Array(0);
  length = 0;

  add(chunk) {
    const length = this.length + chunk.byteLength;
    if (this.length === 0) {
      this.#room = chunk;
    } else {
      if (length > this.#room.byteLength) {
        const larger = new Uint8Array(Math.max(length, 2 * this.#room.byteLength));
        larger.set(this.#room);
        this.#room = larger;
      }
      this.#room.set(chunk, this.length);
    }
    this.length = length;
  }

  get bytes() {
    return this.#room.subarray(0, this.length);
  }
}

/**
 * A body that begins with `bytes` and goes on with what `reader` reads. `length` is its length, or
 * -1 if that is not known.
 */
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
  return length < 0 ? source : source.pipeThrough(new FixedLengthStream(length));
}

/** Whether a response may have this status, which origins can send outside of 200 to 599. */
export function canBeRelayed(response) {
  return response.webSocket || (response.status >= 200 && response.status <= 599);
}

/**
 * Passes the response to a call with a hold to `answer`: its beginning, its bytes, its end. `answer`
 * settles the hold once: with `end`, or with `cut` if the client leaves or the response breaks off.
 */
export class AnswerWatch {
  #answer;
  #instance = currentInstance();
  #isOver = false;
  #reader;
  #aborted = new AbortController();
  #settled = Promise.withResolvers();

  constructor(answer, request, context) {
    this.#answer = answer;
    // The context lives until the hold is settled, even if the client has left.
    context.waitUntil(this.#settled.promise);
    const { signal } = request;
    if (signal?.aborted) this.cut();
    else signal?.addEventListener("abort", () => this.cut());
  }

  /** Aborts the request to the origin if the client leaves. */
  get signal() {
    return this.#aborted.signal;
  }

  /** Settles the hold, unless it is. Resolves when that is durable, or takes too long. */
  async #settle(method) {
    if (this.#isOver) return this.#settled.promise;
    this.#isOver = true;
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

  /** The origin has not responded. */
  fail() {
    return this.#settle("end");
  }

  /** The response with a body that is read while it passes. */
  async begin(response) {
    if (this.#isOver) return response;
    requireInstance(this.#instance);
    if (!canBeRelayed(response)) {
      await this.fail();
      return response;
    }
    const { headers } = response;
    const field = (name) => headers.get(name) ?? undefined;
    this.#answer.begin(
      response.status, field("content-type"), field("x-tollgate-tokens"), field("x-tollgate-cost"), Date.now(),
    );
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
        const changed = this.#answer.pass(value, Date.now());
        if (changed === undefined) return controller.enqueue(value);
        if (changed.byteLength > 0) return controller.enqueue(changed);
      }
    } catch (error) {
      await this.cut();
      controller.error(error);
    }
  }
}
