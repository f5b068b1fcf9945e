// Counts what crosses into the wasm while the chunks of answers pass: imported before the module
// that creates the instance.

/** `chunks` are those that any body's reader has returned, those of requests too. */
export const counts = { chunks: 0, passes: 0, bytesIn: 0, bytesOut: 0, callsIn: 0, callsOut: 0 };

const PASS = "heldanswer_pass";
/** What wasm-bindgen calls around a call that takes and returns bytes. */
const AROUND = ["__wbindgen_malloc", "__wbindgen_free"];

const { read } = ReadableStreamDefaultReader.prototype;
ReadableStreamDefaultReader.prototype.read = async function (...args) {
  const result = await read.apply(this, args);
  if (!result.done) counts.chunks += 1;
  return result;
};

let isPassing = false;
/** Calls of `AROUND` since the last call of another export: they belong to the next pass. */
let before = 0;
/** Whether the last call was a pass: calls of `AROUND` that follow belong to it. */
let isAfter = false;

function counted(name, call) {
  if (AROUND.includes(name)) {
    return (...args) => {
      if (isAfter && name === "__wbindgen_free") counts.callsIn += 1;
      else if (!isPassing) before += 1;
      return call(...args);
    };
  }
  const isPass = name === PASS;
  return (...args) => {
    isAfter = false;
    if (isPass) {
      counts.passes += 1;
      counts.callsIn += 1 + before;
      counts.bytesIn += args[2];
    }
    before = 0;
    isPassing = isPass;
    try {
      const result = call(...args);
      if (isPass && result[0] !== 0) counts.bytesOut += result[1];
      return result;
    } finally {
      isPassing = false;
      isAfter = isPass;
    }
  };
}

const isFunction = ([, value]) => typeof value === "function";
const mapped = (from, each) => Object.fromEntries(Object.entries(from).map((entry) => [entry[0], isFunction(entry) ? each(...entry) : entry[1]]));

const { Instance } = WebAssembly;
WebAssembly.Instance = function (module, imports) {
  const noted = (_, call) => (...args) => {
    if (isPassing) counts.callsOut += 1;
    return call(...args);
  };
  const own = Object.fromEntries(Object.entries(imports).map(([name, functions]) => [name, mapped(functions, noted)]));
  return { exports: mapped(new Instance(module, own).exports, counted) };
};
