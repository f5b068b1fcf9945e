// Requests to the objects of keys.
import { currentInstance, requireInstance } from "./instance.js";
import { after } from "./timer.js";

/**
 * Sends a line to a key's object, and passes the response to `request.resume` or the error to
 * `request.fail`. Uses a new stub each time, because a stub that has failed may fail for ever.
 */
export function ask(namespace, name, line, request) {
  const instance = currentInstance();
  return namespace
    .getByName(name)
    .ask(line)
    .then(
      (answer) => {
        requireInstance(instance);
        return request.resume(answer);
      },
      (error) => {
        requireInstance(instance);
        return request.fail(error?.retryable === true, error?.overloaded === true, String(error?.message ?? error));
      },
    );
}

/** Sends the lines of `delivery`, one after the other. */
async function deliver(namespace, name, delivery, instance) {
  const next = () => {
    requireInstance(instance);
    return delivery.next();
  };
  for (let line = next(); line !== undefined; line = next()) await ask(namespace, name, line, delivery);
}

/** Delivers so many milliseconds after now, even if the response has been sent. */
export function deliverLater(context, milliseconds, namespace, name, delivery) {
  const instance = currentInstance();
  const work = after(milliseconds).then(() => deliver(namespace, name, delivery, instance));
  // Fails only if the instance has ended: `delivery` handles all results of the object.
  const log = (error) => console.error(`tollgate: a delivery to key ${name} failed: ${error?.message ?? error}`);
  context.waitUntil(work.catch(log));
}

/** Delivers now. Resolves when that is done, or after so many milliseconds. */
export function deliverNow(namespace, name, delivery, milliseconds) {
  return Promise.race([deliver(namespace, name, delivery, currentInstance()), after(milliseconds)]);
}

/** Sends one line. Nothing depends on the response. */
export function sendOnce(namespace, name, line) {
  const log = (error) => console.error(`tollgate: the object of key ${name} did not respond: ${error?.message ?? error}`);
  namespace.getByName(name).ask(line).catch(log);
}

/** Sends a request with an optional body to a key's object. Resolves to the text of the response. */
export async function askText(namespace, name, url, body) {
  const init = body === undefined ? undefined : { method: "POST", body };
  const response = await namespace.getByName(name).fetch(url, init);
  if (!response.ok) throw new Error(`the object responded with ${response.status}`);
  return response.text();
}

/**
 * Sends `body` to many objects, `[[name, url], …]` as JSON, `width` of them at a time. Resolves to
 * the number of objects that accepted it.
 */
export async function postToAll(namespace, targets, body, width) {
  let accepted = 0;
  let failure;
  const rest = JSON.parse(targets).values();
  const lane = async () => {
    for (const [name, url] of rest) {
      try {
        await askText(namespace, name, url, body);
        accepted += 1;
      } catch (error) {
        failure ??= `key ${name}: ${error?.message ?? error}`;
      }
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  // One log line for all failures.
  if (failure !== undefined) console.error(`tollgate: a change did not reach every object: ${failure}`);
  return accepted;
}
