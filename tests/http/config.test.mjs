// Secrets and vars: a missing or invalid one never opens the gate, and KEY_SECRET can be rotated.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { freshSecret, isHealthy, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { assertRefused, call, issueKey, send, usageOf } from "./lib/client.mjs";

const ADMIN_TOKEN = freshSecret();
const SECRETS = [freshSecret(), freshSecret(), freshSecret()];

let origin;
let directory;
let gate;
/** Keys issued under the first and the second secret. */
const keys = [];

before(async () => {
  origin = await startOrigin();
  directory = await mkdtemp(path.join(tmpdir(), "tollgate-state-"));
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

/** Gates on the same state, one after the other. */
function withVars(vars) {
  before(async () => {
    await gate?.stop();
    gate = undefined;
    gate = await startGate({ origin: origin.url, persistTo: directory, vars: { ADMIN_TOKEN, ...vars } });
    origin.reset();
  });
}

function createKey(headers = {}) {
  return send(gate, "/_tollgate/keys", { method: "POST", headers, body: '{"tier":"free","name":"x"}' });
}

describe("the first KEY_SECRET", () => {
  withVars({ KEY_SECRET: SECRETS[0] });

  test("a key works under the secret that issued it", async () => {
    keys.push(await issueKey(gate, "pro"));
    assert.equal((await call(gate, keys[0])).status, 200);
  });

  test("the admin API requires ADMIN_TOKEN", async () => {
    for (const authorization of ["Bearer wrong", "Bearer", `Basic ${ADMIN_TOKEN}`]) {
      assertRefused(await createKey({ authorization }), 401);
    }
    for (const headers of [{}, { "x-api-key": ADMIN_TOKEN }]) assertRefused(await createKey(headers), 401);
  });
});

describe("a new KEY_SECRET with KEY_SECRET_PREVIOUS", () => {
  withVars({ KEY_SECRET: SECRETS[1], KEY_SECRET_PREVIOUS: SECRETS[0] });

  test("keys issued under the previous secret still work, under the same counters", async () => {
    assert.equal((await call(gate, keys[0])).status, 200);
    assert.equal((await usageOf(gate, keys[0])).calls, 2);
  });

  test("new keys are issued under the new secret", async () => {
    keys.push(await issueKey(gate, "pro"));
    assert.equal((await call(gate, keys[1])).status, 200);
  });
});

describe("the previous secret removed, and ADMIN_TOKEN unset", () => {
  withVars({ KEY_SECRET: SECRETS[1], ADMIN_TOKEN: null });

  test("keys of a removed secret are refused with 401, later ones work", async () => {
    assertRefused(await call(gate, keys[0]), 401);
    assert.equal((await call(gate, keys[1])).status, 200);
    assert.equal(origin.count(), 1);
  });

  test("without ADMIN_TOKEN the admin API answers 503 to every request", async () => {
    const key = `/_tollgate/keys/${keys[0].id}`;
    for (const authorization of ["", `Bearer ${ADMIN_TOKEN}`, "Bearer ", "Bearer undefined", "Bearer null"]) {
      const headers = authorization ? { authorization } : {};
      assertRefused(await createKey(headers), 503);
      for (const target of [key, `${key}/usage`]) assertRefused(await send(gate, target, { headers }), 503);
    }
  });
});

describe("KEY_SECRET unset", () => {
  withVars({ KEY_SECRET: null, PUBLIC_PATHS: "/public" });

  test("without KEY_SECRET every key is answered 503, and no key is issued", async () => {
    for (const key of keys) assertRefused(await call(gate, key), 503);
    assertRefused(await createKey({ authorization: `Bearer ${ADMIN_TOKEN}` }), 503);
    assert.equal(origin.count(), 0);
    await until("the log has it", () => /KEY_SECRET is not set/.test(gate.log()));
  });

  test("a public path and the health check need no KEY_SECRET", async () => {
    assert.equal((await send(gate, "/public")).status, 200);
    assert.ok(await isHealthy(gate.url));
  });
});

describe("a var with an invalid value", () => {
  withVars({ KEY_SECRET: SECRETS[1], FAIL_MODE: "maybe", PUBLIC_PATHS: "/public" });

  test("an invalid value is answered 503 everywhere but at the health check, and the log names the var", async () => {
    assertRefused(await call(gate, keys[1]), 503);
    assertRefused(await send(gate, "/public"), 503);
    assertRefused(await createKey({ authorization: `Bearer ${ADMIN_TOKEN}` }), 503);
    assert.equal(origin.count(), 0);
    assert.ok(await isHealthy(gate.url));
    await until("the log names it", () => /FAIL_MODE: must be `closed` or `open`/.test(gate.log()));
  });
});
