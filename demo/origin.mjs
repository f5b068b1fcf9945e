// A small origin for tollgate: it answers every request with what it received, as JSON, and counts
// requests. On the paths of models.mjs it answers as a model's API and counts tokens. `npm run
// origin` starts it alone (PORT=… for a fixed port). The tour and the HTTP tests start it in their
// own process.
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { pathToFileURL } from "node:url";
import { createModels } from "./models.mjs";

const KEPT_REQUESTS = 1000;

/**
 * Starts the origin on a loopback port (0: any free one). `respond(req, res, received)` replaces
 * models and echo once the body has arrived; `upgrade(req, socket, head)` takes WebSocket upgrades,
 * which are refused otherwise.
 */
export async function startOrigin({ port = 0, respond, upgrade } = {}) {
  let count = 0;
  let requests = [];
  const models = createModels();

  const server = http.createServer(async (req, res) => {
    count += 1;
    const received = describe(req, count);
    if (requests.push(received) > KEPT_REQUESTS) requests.shift();
    try {
      const model = respond ? undefined : models.find(req);
      const body = [];
      const hash = createHash("sha256");
      for await (const chunk of req) {
        received.body_bytes += chunk.length;
        hash.update(chunk);
        if (model) body.push(chunk);
      }
      received.body_sha256 = hash.digest("hex");
      if (model) await model(res, Buffer.concat(body));
      else await (respond ?? echo)(req, res, received);
    } catch (error) {
      // The client left during the body, or `respond` failed.
      res.destroy(error);
    }
  });
  // A gate keeps its connections. The default of 5 s would sometimes close one during a request.
  server.keepAliveTimeout = 60_000;
  if (upgrade) {
    server.on("upgrade", (req, socket, head) => {
      count += 1;
      requests.push(describe(req, count));
      upgrade(req, socket, head);
    });
  }
  server.listen(port, "127.0.0.1");
  await once(server, "listening");

  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    port: server.address().port,
    /** Number of requests since the start or the last `reset()`. */
    count: () => count,
    /** The requests, oldest first: method, path, headers, raw_headers, body_bytes, body_sha256. */
    requests: () => [...requests],
    /** Tokens that the models have spent for a key. */
    tokens: ({ id }) => models.tokens(id),
    reset() {
      count = 0;
      requests = [];
      models.reset();
    },
    async stop() {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, "close");
    },
  };
}

function describe(req, count) {
  return {
    count,
    method: req.method,
    path: req.url,
    headers: req.headers,
    raw_headers: req.rawHeaders,
    body_bytes: 0,
    body_sha256: undefined,
  };
}

function echo(_req, res, received) {
  const { raw_headers: _, ...shown } = received;
  res.writeHead(200, { "content-type": "application/json" });
  res.end(`${JSON.stringify(shown, null, 2)}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const origin = await startOrigin({ port: Number(process.env.PORT ?? 0) });
  console.log(`demo origin on ${origin.url}`);
}
