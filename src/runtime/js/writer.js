// Writes that several calls await. `writer` is a plain object for a key's object in one wasm
// instance. It holds the open batch.

/** Opens the batch of the calls that wait for the next write. */
export function openBatch(writer) {
  writer.batch = Promise.withResolvers();
  return writer.batch;
}

/** Ends a batch. `failure` is the response to all calls in it if the write failed. */
export function closeBatch(batch, failure) {
  batch.resolve(failure);
}

/** Resolves to the object's response once the batch is closed. */
export function answerWith(batch, line) {
  return batch.promise.then((failure) => failure ?? line);
}

/** Resolves to the failure, or to `undefined`, once the batch is closed. */
export function batchClosed(batch) {
  return batch.promise;
}

/**
 * Calls `callback`. If a trap has ended its instance of the wasm, the calls in the open batch fail.
 */
function callBack(writer, callback, number, error) {
  try {
    callback(number, error);
  } catch (trap) {
    console.error(`tollgate: the instance of the wasm of an object's write has ended: ${trap?.message ?? trap}`);
    writer.batch?.reject(trap);
  }
}

/** Calls back when every event that has already arrived has been handled. */
export function nextTurn(writer, callback) {
  setTimeout(callBack, 0, writer, callback, 0);
}

/**
 * Calls back with `number` when every write so far is confirmed, with the error if that failed.
 */
export function whenConfirmed(storage, writer, callback, number) {
  storage.sync().then(() => callBack(writer, callback, number), (error) => callBack(writer, callback, number, error));
}
