// Imported keys: import, use and rotation, and lookups of unknown texts.
import { env } from "cloudflare:workers";
import { describe, expect, test, vi } from "vitest";
import { databaseText, listenToD1, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, call, denied, issue, problem, rateLimitPolicy, received, send, usage, wait } from "./lib/gate.mjs";
import { importKey, importLines, madeUp } from "./lib/imports.mjs";
import { mistype } from "./lib/keys.mjs";
import { countObjects, crash, intercept, objectText, runAlarm } from "./lib/object.mjs";
import { logged } from "./lib/setup.mjs";

const read = async ({ id }) => (await admin("GET", `/keys/${id}`)).json();

const isLookup = (sql) => /FROM json_each\(\?\) AS c (CROSS )?JOIN keys/.test(sql);

/**
 * How often D1 was read for a key, in lookups or by its object. The alarms of other keys' objects may
 * come at any time, since they go by the real clock.
 */
function readsFor({ id }, asked) {
  return asked.filter((sql, n) => isLookup(sql) || (sql.startsWith("SELECT") && asked.values[n].includes(id))).length;
}

/** Runs `work` while lookups of keys in D1 fail. */
async function withoutD1(work) {
  const giveBack = await takeAway("keys");
  try {
    return await work();
  } finally {
    await giveBack();
  }
}

test("an admin token cannot be imported", async () => {
  const { token } = await (await admin("POST", "/tokens", { name: "importer", scopes: ["read"] })).json();
  const results = await importLines({ key: env.ADMIN_TOKEN, tier: "free" }, { key: token, tier: "free" }, { key: `${env.ADMIN_TOKEN}.`, tier: "free" });
  expect(results.slice(0, 2)).toEqual([
    { line: 1, error: expect.stringMatching(/^key: /) },
    { line: 2, error: expect.stringMatching(/^key: /) },
  ]);
  expect(JSON.stringify(results)).not.toContain(env.ADMIN_TOKEN);
  expect(results[2].id).toBeDefined();
  for (const text of [env.ADMIN_TOKEN, token]) await problem(await call(text), 401);
});

describe("an imported key", () => {
  test("works like an issued key", async () => {
    const metadata = { plan: { seats: 3, price: 1.5 }, "ä": null };
    const key = await importKey({ name: "n", owner: "o", metadata, expires_at: "2031-03-12T14:00:00+01:00" });
    expect(await read(key)).toEqual({
      id: key.id, tier: "free", name: "n", owner: "o", status: "active", hint: key.key.slice(-4), metadata,
      created_at: "2031-03-12T12:00:00Z", expires_at: "2031-03-12T13:00:00Z",
    });
    await admit(key, 10);
    await denied(key);
    expect((await usage(key)).calls).toBe(10);
    const [request] = await received();
    expect(request.headers["x-tollgate-key-id"]).toBe(key.id);
    await admin("PATCH", `/keys/${key.id}`, { tier: "pro" });
    const response = await call(key);
    expect([response.status, rateLimitPolicy(response)]).toMatchObject([200, { minute: { q: 200 } }]);
    await admin("POST", `/keys/${key.id}/revoke`);
    await problem(await call(key), 403);
    await admin("DELETE", `/keys/${key.id}`);
    await problem(await call(key), 401);
  });

  test.each([["X-API-Key", (key) => key], ["Authorization", (key) => `Bearer ${key}`]])(
    "in %s never reaches the origin, wherever else it stands",
    async (name, value) => {
      const { key } = await importKey();
      const path = `/?a=1&token=${key}&${encodeURIComponent(key)}=x&other=sk_live_of_somebody_else`;
      expect((await send(path, { headers: { [name]: value(key) } })).status).toBe(200);
      const [request] = await received();
      expect(JSON.stringify(request)).not.toContain(key);
      expect(request.path).toBe("/?a=1&other=sk_live_of_somebody_else");
    },
  );

  test("may have any visible characters but commas, 16 to 256 of them", async () => {
    for (const key of ["x".repeat(16), "y".repeat(256), `!"#$%&'()*+-./:;<=>?@[\\]^_\`{|}~${madeUp()}`, `tg_${madeUp()}`]) {
      await importKey({ key });
      await admit({ key }, 1);
    }
  });

  test("is rotated to an issued one of the same id and counters, and stays valid for the grace period", async () => {
    const key = await importKey({ name: "kept" });
    await admit(key, 4);
    const response = await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 90 });
    const rotated = await response.json();
    expect(rotated).toMatchObject({ id: key.id, name: "kept" });
    expect(rotated.key).toMatch(new RegExp(`^tg_${key.id}_`));
    await admit(rotated, 3);
    await admit(key, 3);
    await denied(rotated);
    wait(90);
    await problem(await call(key), 401);
    await problem(await call(key), 401);
    await admit(rotated, 1);
    expect((await usage(key)).calls).toBe(11);
    const [line] = await importLines({ key: key.key, tier: "free", name: "kept" });
    expect(line.error).toContain("rotated");
  });

  test("is not in D1, in the object, or in a log", async () => {
    const key = await importKey();
    await call(key);
    await call(key, "/down");
    await runAlarm(key);
    await withoutD1(() => call(`${key.key}x`));
    for (const text of [await databaseText(), await objectText(key), logged.join("\n")]) {
      expect(text).not.toContain(key.key.slice(0, -4));
    }
    expect(await databaseText()).toContain(key.id);
  });

  test("that is deleted and imported again has the same id and starts again", async () => {
    const key = await importKey();
    await admit(key, 1);
    await admin("DELETE", `/keys/${key.id}`);
    await problem(await call(key), 401);
    await runAlarm(key);
    expect((await importKey({ key: key.key })).id).toBe(key.id);
    await admit(key, 1);
  });

  describe("that is deleted and imported again is admitted at once", () => {
    const again = async (key) => expect((await importKey({ key: key.key })).id).toBe(key.id);

    test("repeatedly", async () => {
      const key = await importKey();
      for (let n = 0; n < 4; n += 1) {
        await admit(key, 2);
        await admin("DELETE", `/keys/${key.id}`);
        await problem(await call(key), 401);
        await problem(await call(key, "/_tollgate/me"), 401);
        await again(key);
      }
      expect((await call(key, "/_tollgate/me")).status).toBe(200);
      await admit(key, 1);
    });

    test("without a call in between, by an isolate that has it cached", async () => {
      const [key, mine] = [await importKey(), await importKey()];
      for (let n = 0; n < 4; n += 1) {
        for (const one of [key, mine]) await admit(one, 1);
        for (const one of [key, mine]) await admin("DELETE", `/keys/${one.id}`);
        for (const one of [key, mine]) await again(one);
        expect((await call(mine, "/_tollgate/me")).status).toBe(200);
      }
    });

    test("after its denials", async () => {
      const key = await importKey();
      await admit(key, 10);
      await denied(key);
      await denied(key);
      await admin("DELETE", `/keys/${key.id}`);
      await problem(await call(key), 401);
      await again(key);
      wait(60);
      await admit(key, 10);
      await denied(key);
    });

    test("if its object was not notified that it was rotated and deleted", async () => {
      const key = await importKey();
      await admit(key, 1);
      await admin("POST", `/keys/${key.id}/rotate`, { grace_seconds: 0 });
      await problem(await call(key), 401);
      await intercept(key, () => {
        throw new Error("unreachable");
      });
      await admin("DELETE", `/keys/${key.id}`);
      await again(key);
      await crash(key);
      await admit(key, 1);
    });

    test("and reads D1 no more often than necessary", async () => {
      const key = await importKey();
      await admit(key, 1);
      await admin("DELETE", `/keys/${key.id}`);
      const asked = listenToD1();
      for (let n = 0; n < 5; n += 1) await problem(await call(key), 401);
      // The isolate reads D1 once and caches the answer; the object was notified.
      expect(readsFor(key, asked)).toBe(1);
      await again(key);
      const before = readsFor(key, asked);
      for (let n = 0; n < 5; n += 1) await admit(key, 1);
      // One read each by the isolate and the object.
      expect(readsFor(key, asked) - before).toBe(2);
    });
  });

  test("that is unknown to its object is 503 while the object cannot read D1", async () => {
    const key = await importKey();
    await admin("DELETE", `/keys/${key.id}`);
    await importKey({ key: key.key });
    listenToD1((answer, sql) => (sql.includes("'profile'") ? Promise.reject(new Error("D1 is down")) : answer()));
    await problem(await call(key), 503);
    vi.restoreAllMocks();
    await admit(key, 1);
  });
});

describe("a text that may be an imported key", () => {
  test("is 401, and no object is started for it", async () => {
    await importKey();
    const [unknown, before] = [madeUp(), await countObjects()];
    const bodies = new Set();
    for (const presented of [unknown, unknown, "hello", madeUp()]) {
      const response = await call(presented);
      bodies.add(JSON.stringify([await problem(response, 401), [...response.headers]]));
    }
    expect([...bodies]).toHaveLength(1);
    expect(await countObjects()).toBe(before);
    expect(await received()).toEqual([]);
  });

  test("is looked up once a minute, and again after an import", async () => {
    await importKey();
    const unknown = madeUp();
    await problem(await call(unknown), 401);
    await withoutD1(async () => {
      await problem(await call(unknown), 401);
      wait(59.999);
      await problem(await call(unknown), 401);
      wait(0.001);
      await problem(await call(unknown), 503);
    });
    await problem(await call(unknown), 401);
    await importKey({ key: unknown });
    await admit({ key: unknown }, 1);
  });

  test("is 503 while D1 is down, and cached keys pass", async () => {
    const [known, other] = [await importKey(), await importKey()];
    await admit(known, 1);
    await withoutD1(async () => {
      wait(3600);
      await admit(known, 1);
      const response = await call(other);
      expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
      await problem(response, 503);
      await problem(await call(madeUp()), 503);
    });
    await admit(other, 1);
  });

  test("is refused without D1 if it is malformed or has the form of an issued key", async () => {
    await importKey();
    const { key } = await issue();
    const refused = ["x".repeat(15), "x".repeat(257), `${"x".repeat(20)} ${"x".repeat(20)}`, `${"x".repeat(20)}ä`, mistype(key)];
    await withoutD1(async () => {
      for (const presented of refused) await problem(await call(presented), 401);
    });
  });
});

describe("lookups that wait together", () => {
  const from = (address, key, init) => call(key, "/", { ...init, headers: { "CF-Connecting-IP": address } });
  /** Counts lookups; each takes so many milliseconds, by a timer of the request that runs it. */
  function listen(milliseconds = 0) {
    const asked = listenToD1(async (answer, sql) => {
      if (isLookup(sql) && milliseconds > 0) await new Promise((resolve) => setTimeout(resolve, milliseconds));
      return answer();
    });
    return () => asked.filter(isLookup).length;
  }
  const statusesOf = async (requests) => (await Promise.all(requests)).map(({ status }) => status);
  let addresses = 0;
  const freshAddress = () => {
    addresses += 1;
    return `198.51.${Math.floor(addresses / 250)}.${addresses % 250}`;
  };

  test("are few queries, from any address", async () => {
    const lines = Array.from({ length: 60 }, () => ({ key: madeUp(), tier: "free" }));
    await importLines(...lines);
    const texts = [...lines.map(({ key }) => key), ...Array.from({ length: 440 }, madeUp)];
    let isHeld = true;
    setTimeout(() => (isHeld = false), 2_000);
    const asked = listenToD1(async (answer, sql) => {
      while (isHeld && isLookup(sql)) await new Promise((resolve) => setTimeout(resolve, 20));
      return answer();
    });
    const all = await statusesOf(texts.map((text) => from(freshAddress(), text)));
    expect(all).toEqual(texts.map((_, n) => (n < 60 ? 200 : 401)));
    // Two queries of one text each while the others arrive, two for the others, and more if those
    // arrive late.
    expect(asked.filter(isLookup).length).toBeLessThanOrEqual(2 + 2 + 2);
    const before = asked.length;
    for (const { key } of lines.slice(0, 5)) expect((await from("203.0.113.1", key)).status).toBe(200);
    expect(asked).toHaveLength(before);
  });

  test("query the same text once", async () => {
    const [key, unknown, count] = [await importKey(), madeUp(), listen(20)];
    expect(await statusesOf(Array.from({ length: 9 }, () => from("203.0.113.2", key)))).toEqual(Array(9).fill(200));
    expect(count()).toBe(1);
    expect(await statusesOf(Array.from({ length: 9 }, () => from("203.0.113.2", unknown)))).toEqual(Array(9).fill(401));
    expect(count()).toBe(2);
  });

  test("wait behind others if they come from an address that was just refused, four queries a second", async () => {
    const [key, other] = [await importKey(), await importKey()];
    await problem(await from("203.0.113.3", madeUp()), 401);
    const count = listen(5);
    const begun = performance.now();
    let flooding = true;
    const flood = Array.from({ length: 20 }, async () => {
      while (flooding) await problem(await from("203.0.113.3", madeUp()), 401);
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    const before = count();
    expect((await from("203.0.113.4", key)).status).toBe(200);
    // Its own query, and on a slow machine one of the others.
    expect(count() - before).toBeLessThanOrEqual(2);
    const honest = from("203.0.113.3", other);
    await new Promise((resolve) => setTimeout(resolve, 600));
    flooding = false;
    await Promise.all(flood);
    expect((await honest).status).toBe(200);
    const seconds = (performance.now() - begun) / 1000;
    // The one of the other network, and a first one.
    expect(count()).toBeLessThanOrEqual(1 + 1 + seconds * 4);
  });

  test("wait a quarter of a second then, and cached keys do not", async () => {
    const [key, count] = [await importKey(), listen()];
    const waits = async (text) => {
      const [begun, before] = [performance.now(), count()];
      const { status } = await from("2001:db8:1:2::1", text);
      return { status, isAsked: count() > before, hasWaited: performance.now() - begun >= 240 };
    };
    expect((await waits(madeUp())).status).toBe(401);
    expect(await waits(key)).toEqual({ status: 200, isAsked: true, hasWaited: true });
    expect(await waits(key)).toMatchObject({ status: 200, isAsked: false });
    expect(await waits(mistype(key.key))).toMatchObject({ status: 401, isAsked: true });
    expect(await waits(madeUp())).toEqual({ status: 401, isAsked: true, hasWaited: true });
  });

  test.each([
    ["asks about all of them", 1],
    ["asks about one, and goes on with the others", 2],
  ])("are answered if the client leaves whose request %s", async (_what, leavers) => {
    const [keys, count] = [await Promise.all([importKey(), importKey(), importKey()]), listen(400)];
    const leave = new AbortController();
    // The first ones run the queries.
    const gone = Array.from({ length: leavers }, () => from(freshAddress(), madeUp(), { signal: leave.signal }).catch(() => "gone"));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(count()).toBe(leavers);
    const begun = performance.now();
    const waiting = statusesOf([...keys, madeUp(), madeUp()].map((key) => from(freshAddress(), key)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    leave.abort();
    expect(await Promise.all(gone)).toEqual(Array(leavers).fill("gone"));
    expect(await waiting).toEqual([200, 200, 200, 401, 401]);
    expect(performance.now() - begun).toBeLessThan(2_000);
    expect(count()).toBeLessThanOrEqual(leavers + 2);
  });

  test("are 503 while D1 does not respond, which is logged once", async () => {
    const [a, b] = [await importKey(), await importKey()];
    const count = listen();
    await withoutD1(async () => {
      logged.length = 0;
      const all = await Promise.all(Array.from({ length: 20 }, (_, n) => from("203.0.113.6", n % 2 ? a : madeUp())));
      for (const response of all) {
        expect(response.headers.get("retry-after")).toBe("1");
        await problem(response, 503);
      }
      expect(logged).toHaveLength(count());
      expect(count()).toBeLessThan(20);
    });
    await admit(b, 1);
    await admit(a, 1);
  });

  test("include an import that ended before them", async () => {
    await importKey();
    const [key, count] = [madeUp(), listen(300)];
    const early = from("203.0.113.7", key);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await importKey({ key });
    // The query in flight may not see it.
    expect((await from("203.0.113.7", key)).status).toBe(200);
    expect([200, 401]).toContain((await early).status);
    expect(count()).toBe(2);
  });
});

describe("POST /_tollgate/keys/import", () => {
  test("answers line by line: valid ones are stored, the others get the error", async () => {
    const [a, b, c] = [madeUp(), madeUp(), madeUp()];
    const { key: own } = await issue();
    const lines = await importLines(
      { key: a, tier: "free" }, "", "{", { key: c, tier: "gold" }, { key: "short", tier: "free" }, { key: own, tier: "free" },
      { key: b, tier: "pro", expires_at: null }, { key: a, tier: "free" }, { key: a, tier: "pro" }, { key: b, tier: "free", nam: "x" }, { key: c, tier: "free" },
    );
    expect(lines.map(({ line }) => line)).toEqual([1, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    const errors = lines.map(({ error }) => error);
    const words = [/^the line is not JSON/, /there is no tier `gold`/, /^key: must be/, /^key: must be/];
    words.forEach((word, n) => expect(errors[n + 1]).toMatch(word));
    expect([errors[0], errors[5], errors[6]]).toEqual([undefined, undefined, undefined]);
    expect(errors[7]).toMatch(/^tier: .*`free`/);
    expect(errors[8]).toMatch(/^nam: /);
    expect(errors[9]).toContain("send this line again");
    expect(lines[6].id).toBe(lines[0].id);
    await admit({ key: a }, 1);
    await admit({ key: b }, 1);
    expect(rateLimitPolicy(await call(b))).toMatchObject({ minute: { q: 200 } });
  });

  test("can be repeated, and leaves one line in the log for each key", async () => {
    const line = { key: madeUp(), tier: "free", name: "twice", metadata: { n: 1.0, big: 9007199254740993 } };
    const [first] = await importLines(line);
    wait(60);
    expect(await importLines(line)).toEqual([first]);
    const { entries } = await (await admin("GET", `/log?target=keys/${first.id}`)).json();
    expect(entries).toHaveLength(1);
    const view = await read(first);
    expect(entries[0]).toMatchObject({ action: "import", actor: "root", at: "2031-03-12T12:00:00Z", before: null, after: view });
    expect((await importLines({ ...line, tier: "pro" }))[0].error).toMatch(/^tier: .*`free`/);
    expect((await importLines({ ...line, name: "thrice" }))[0].error).toMatch(/^name: /);
    await admin("POST", `/keys/${first.id}/revoke`);
    expect((await importLines(line))[0].error).toContain("revoked");
  });

  test("that fails midway reports what is stored and what is not, and a repetition imports the rest", async () => {
    const lines = Array.from({ length: 2500 }, (_, n) => ({ key: madeUp(), tier: "free", name: n === 1500 ? "broken" : "fine" }));
    await sql("CREATE TRIGGER broken BEFORE INSERT ON keys WHEN NEW.name = 'broken' BEGIN SELECT RAISE(ABORT, 'disk full'); END");
    const results = await importLines(...lines);
    const kinds = results.map(({ id, error }) => (id ? "stored" : error.split(":")[0]));
    expect(kinds).toEqual([
      ...Array(1000).fill("stored"),
      ...Array(1000).fill("may not be stored, because the database failed"),
      ...Array(500).fill("was not tried, because an earlier line could not be stored"),
    ]);
    expect(logged.join("\n")).toContain("an import stopped at a batch that could not be stored");
    await problem(await admin("POST", "/keys/import", JSON.stringify(lines[1500])), 503);
    await sql("DROP TRIGGER broken");
    const again = await importLines(...lines);
    expect(again.every(({ id }) => id)).toBe(true);
    expect(again.slice(0, 1000)).toEqual(results.slice(0, 1000));
    for (const { key } of [lines[0], lines[1500], lines[2499]]) await admit({ key }, 1);
    const [{ n }] = await sql("SELECT COUNT(*) AS n FROM admin_log WHERE action = 'import' AND target = ?", `keys/${again[1500].id}`);
    expect(n).toBe(1);
  });

  test("accepts 10,000 lines", async () => {
    const lines = Array.from({ length: 10_000 }, (_, n) => ({ key: madeUp(), tier: "free", name: `customer ${n}`, metadata: { n } }));
    const results = await importLines(...lines);
    expect(results.every(({ id }, n) => id && results[n].line === n + 1)).toBe(true);
    expect(new Set(results.map(({ id }) => id)).size).toBe(10_000);
    for (const n of [0, 5000, 9999]) await admit(lines[n], 1);
  });

  test("accepts 16 MiB, also in long lines", async () => {
    const metadata = { a: "x".repeat(4000) };
    const lines = Array.from({ length: 4000 }, () => ({ key: madeUp(), tier: "free", metadata }));
    const results = await importLines(...lines);
    expect(results.every(({ id }) => id)).toBe(true);
    expect((await read(results[3999])).metadata).toEqual(metadata);
  });

  test("is 413 for more lines or bytes", async () => {
    await problem(await admin("POST", "/keys/import", "{}\n".repeat(10_001)), 413);
    await problem(await admin("POST", "/keys/import", "x".repeat(16 * 1024 * 1024 + 1)), 413);
    expect((await importLines(`{"key":"${"x".repeat(8200)}"}`))[0].error).toContain("8192 bytes");
  });

  test("needs the scope write, and POST", async () => {
    const response = await admin("POST", "/tokens", { name: "import-reader", scopes: ["read"] });
    const { token } = await response.json();
    await problem(await admin("POST", "/keys/import", "{}", { Authorization: `Bearer ${token}` }), 403);
    await problem(await admin("GET", "/keys/import"), 405);
    await problem(await admin("POST", "/keys/import?x=1", "{}"), 400);
    expect(env.ALLOW_IMPORTED_KEYS).toBe("true");
  });
});

test("the results are NDJSON, and bytes for a client that accepts bytes", async () => {
  const line = JSON.stringify({ key: madeUp(), tier: "free" });
  const answers = ["*/*", "application/octet-stream", "text/plain, Application/Octet-Stream;q=0.5", "application/octet-stream;q=0"].map(
    (Accept) => admin("POST", "/keys/import", line, { Accept }),
  );
  const types = (await Promise.all(answers)).map(({ headers }) => headers.get("content-type"));
  expect(types).toEqual(["application/x-ndjson", "application/octet-stream", "application/octet-stream", "application/x-ndjson"]);
});
