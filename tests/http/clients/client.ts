// A client with the types of openapi-typescript. `tsc` checks it; then it makes real calls and prints
// the results.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.d.ts";

declare const process: { argv: string[] };
const [baseUrl = "", token = ""] = process.argv.slice(2);

type Problem = components["schemas"]["Problem"];

const admin = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

/** What a call gave, which must not be a problem. */
function good<T>({ data, error }: { data?: T; error?: Problem }): T {
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

const metadata = { plan: "trial", seats: 3 };
const issued = good(await admin.POST("/_tollgate/keys", { body: { tier: "free", name: "typescript", metadata } }));
const secret: string = issued.key;
const path = { id: issued.id };

const key = good(await admin.GET("/_tollgate/keys/{id}", { params: { path } }));
// @ts-expect-error: the key itself is shown once.
key.key;
const plan: unknown = key.metadata["plan"];

const usage = good(await admin.GET("/_tollgate/keys/{id}/usage", { params: { path } }));
const quotas: number[] = usage.policies.map(({ quota }) => quota);

const tiers: string[] = good(await admin.GET("/_tollgate/tiers", { params: { query: { limit: 500 } } })).tiers.map(({ name }) => name);

// @ts-expect-error: a policy has a quota.
const incomplete: components["schemas"]["PutPolicy"] = { policy: "minute", period: "minute" };
const policies = [{ policy: "minute", quota: 60, period: "minute", algorithm: "bucket", burst: 120 } as const];
const tier = good(await admin.PUT("/_tollgate/tiers/{name}", { params: { path: { name: "typescript" } }, body: { policies } }));
const pushed: number = tier.pushed;

const { error: unknownTier } = await admin.POST("/_tollgate/keys", { body: { tier: "gold" } });
const { error: unknownKey } = await admin.GET("/_tollgate/keys/{id}", { params: { path: { id: "aaaaaaaaaaaaaaaa" } } });
const field: string | undefined = unknownTier?.field;

const holder = createClient<paths>({ baseUrl, headers: { "X-API-Key": secret } });
const me = good(await holder.GET("/_tollgate/me"));

const line = JSON.stringify({ key: "typescripts-own-key", tier: "free" });
const imported: string = good(await admin.POST("/_tollgate/keys/import", { body: line, bodySerializer: (lines) => lines, parseAs: "text" }));

const [entry] = good(await admin.GET("/_tollgate/log", { params: { query: { target: `keys/${issued.id}` } } })).entries;
const after: unknown = entry?.after?.["metadata"];

console.log(
  JSON.stringify({
    plan, quotas, tiers, pushed, field, after, imported,
    is_same: me.key_id === issued.id && key.id === issued.id && incomplete.policy === "minute",
    statuses: [unknownTier?.status, unknownKey?.status],
  }),
);
