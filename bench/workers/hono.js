// hono-rate-limiter with its Durable Object store, used as its README shows.
import { DurableObjectRateLimiter, DurableObjectStore } from "@hono-rate-limiter/cloudflare";
import { Hono } from "hono";
import { rateLimiter } from "hono-rate-limiter";

/** Keys that begin so have a quota of one call a minute, the others one that no run reaches. */
const EXHAUSTED = "exhausted";

const app = new Hono();
app.use((context, next) =>
  rateLimiter({
    windowMs: 60_000,
    limit: (c) => (c.req.header("x-api-key").startsWith(EXHAUSTED) ? 1 : 1e9),
    keyGenerator: (c) => c.req.header("x-api-key"),
    store: new DurableObjectStore({ namespace: context.env.KEYS }),
  })(context, next),
);
app.all("*", (context) => fetch(context.req.raw));

export default app;
export { DurableObjectRateLimiter };
