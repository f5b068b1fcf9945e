// The origin of these tests, a Worker that receives every request that tollgate sends out of its
// isolate. It records them and responds by path. `ORIGIN_CONTROL` reaches it under the host
// `control.test`.
let requests = [];
let release = () => {};
/** How many answers were cut off by the gate. */
let cuts = 0;
let hookStatus = 200;

const ANSWERS = {
  "/status": (_request, url) => {
    const status = Number(url.searchParams.get("code"));
    return new Response([204, 304].includes(status) ? null : "as the origin said", { status });
  },
  "/redirect": () => new Response(null, { status: 302, headers: { location: "https://elsewhere.test/landing" } }),
  "/cookies": () => new Response("ok", { headers: [["set-cookie", "a=1; Path=/"], ["set-cookie", "b=2; Path=/"]] }),
  "/own-fields": () =>
    new Response("ok", { headers: { ratelimit: '"origin";r=1;t=1', "x-ratelimit-limit": "77", "x-own": "kept" } }),
  "/cacheable": (request) =>
    new Response(request.headers.get("x-tollgate-key-id"), { headers: { "cache-control": "public, max-age=3600" } }),
  "/headers": (_request, url) => new Response("ok", { headers: [...url.searchParams] }),
  "/echo": (request) => new Response(request.body),
  "/early": () => new Response("early"),
  "/in-two-parts": () => inTwoParts(),
  "/held": async (_request, url) => {
    let isHeld = true;
    const [releaseOthers, group] = [release, url.search];
    release = (released) => {
      releaseOthers(released);
      if (released === "" || released === group) isHeld = false;
    };
    // A timer, because the runtime aborts a request that waits for nothing of its own as hanging.
    while (isHeld) await new Promise((resolve) => setTimeout(resolve, 10));
    return new Response("ok", { headers: [...url.searchParams].filter(([name]) => name.startsWith("x-tollgate-")) });
  },
  "/down": () => {
    throw new Error("the origin is down");
  },
  "/hook": (request, url) => hookStatus === 0 ? ANSWERS["/held"](request, url) : new Response(null, { status: hookStatus, headers: { location: "https://elsewhere.test/" } }),
  // The parts of a body, each as one chunk; a part that is null waits for a release by the test.
  "/answer": (_request, url) => answerInParts(url.searchParams),
  "/socket": () => {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", ({ data }) => server.send(`echo ${data}`));
    return new Response(null, { status: 101, webSocket: client });
  },
};
// Paths whose body is not awaited.
const STREAMED = ["/echo", "/early", "/socket"];

/** Sends the second part once the test releases it. */
function inTwoParts() {
  const { readable, writable } = new TransformStream();
  const released = new Promise((resolve) => (release = resolve));
  const writer = writable.getWriter();
  const encoder = new TextEncoder();
  (async () => {
    await writer.write(encoder.encode("first"));
    await released;
    await writer.write(encoder.encode("second"));
    await writer.close();
  })();
  return new Response(readable);
}

function answerInParts(parameters) {
  const parts = JSON.parse(parameters.get("parts") ?? "[]");
  const headers = new Headers(JSON.parse(parameters.get("headers") ?? "{}"));
  const status = Number(parameters.get("status") ?? 200);
  const { readable, writable } = new TransformStream();
  let [releases, used] = [0, 0];
  const releaseOthers = release;
  release = (released) => {
    releaseOthers(released);
    releases += 1;
  };
  // A timer, as for /held.
  const released = async () => {
    used += 1;
    while (releases < used) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  const writer = writable.getWriter();
  const encoder = new TextEncoder();
  (async () => {
    for (const part of parts) await (part === null ? released() : writer.write(encoder.encode(part)));
    await writer.close();
  })().catch(() => (cuts += 1));
  return new Response(readable, { status, headers });
}

function control(url) {
  if (url.pathname === "/reset") {
    requests = [];
    release = () => {};
  }
  if (url.pathname === "/release") release(url.search);
  if (url.pathname === "/hook") hookStatus = Number(url.searchParams.get("status"));
  if (url.pathname === "/cuts") return Response.json(cuts);
  return Response.json(requests);
}

export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.hostname === "control.test") return control(url);
    const { method, headers } = request;
    const path = url.pathname.replace(/^\/base/, "");
    const received = { method, url: request.url, path: url.pathname + url.search, headers: Object.fromEntries(headers) };
    requests.push(received);
    if (!STREAMED.includes(path)) received.body = await request.text();
    return ANSWERS[path]?.(request, url) ?? new Response("ok", { headers: { "x-from": "origin" } });
  },
};
