// Counts what crosses between JavaScript and wasm while the chunks of an answer pass. Imported
// before the module that creates the instance. For one call at a time.

/**
 * `chunks` are those that readers of responses' bodies have returned, `passes` those that the wasm
 * has read. Calls are counted from an answer's first chunk to its end.
 */
export const counts = { chunks: 0, passes: 0, bytesIn: 0, bytesOut: 0, callsIn: 0, callsOut: 0 };

const PASS = "heldanswer_pass";

let isPassing = false;

const { fetch } = globalThis;
globalThis.fetch = async (...args) => {
  const response = await fetch(...args);
  const { body } = response;
  if (body !== null) countReads(body);
  return response;
};

function countReads(body) {
  const getReader = body.getReader.bind(body);
  body.getReader = (...options) => {
    const reader = getReader(...options);
    const read = reader.read.bind(reader);
    reader.read = async (...args) => {
      const result = await read(...args);
      isPassing = !result.done;
      if (isPassing) counts.chunks += 1;
      return result;
    };
    return reader;
  };
}

const into = (name, call) => (...args) => {
  if (isPassing) counts.callsIn += 1;
  const result = call(...args);
  if (name === PASS) {
    const [, , length] = args;
    const [pointer, replaced] = result;
    counts.passes += 1;
    counts.bytesIn += length;
    if (pointer !== 0) counts.bytesOut += replaced;
  }
  return result;
};

const outOf = (_, call) => (...args) => {
  if (isPassing) counts.callsOut += 1;
  return call(...args);
};

const wrapped = (values, wrap) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, typeof value === "function" ? wrap(name, value) : value]));

const { Instance } = WebAssembly;
WebAssembly.Instance = function (module, imports) {
  const counted = Object.fromEntries(Object.entries(imports).map(([name, values]) => [name, wrapped(values, outOf)]));
  return { exports: wrapped(new Instance(module, counted).exports, into) };
};
