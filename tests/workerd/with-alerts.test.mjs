// Delivery of alerts.
import { env } from "cloudflare:workers";
import { beforeAll, expect, test, vi } from "vitest";
import { makeTier, sql, takeAway } from "./lib/database.mjs";
import { admin, admit, api, denied, issue, received, releaseOrigin, wait } from "./lib/gate.mjs";
import { alarmIn, crash, inObject, runAlarm } from "./lib/object.mjs";
import { takeTimeOver } from "./lib/timers.mjs";

const AT = "2031-03-12T11:59:00Z";

// Without an audit log, whose expiry would set the alarm.
beforeAll(() => sql("UPDATE tiers SET audit_days = 0"));

/** A key whose object has a pending alert. */
async function alerted(...thresholds) {
  const key = await issue();
  await admit(key, 1);
  await runAlarm(key);
  const [{ body }] = await inObject(key, "SELECT body FROM state");
  const w = thresholds.map((threshold) => `month|${threshold}|203103|1000|801|${Date.parse(AT) * 1000};`).join("");
  await inObject(key, "UPDATE state SET body = ?", JSON.stringify({ ...JSON.parse(body), w }));
  await crash(key);
  await admit(key, 1);
  return key;
}

const answerWith = (status) => env.ORIGIN_CONTROL.fetch(`https://control.test/hook?status=${status}`);
const hooks = async () => (await received()).filter(({ path }) => path.startsWith("/hook"));
const listed = (key) =>
  sql("SELECT threshold, used, quota, month, at, state, attempts, next_attempt_at, last_error FROM alerts WHERE key_id = ? ORDER BY threshold", key.id);

async function hmac(secret, text) {
  const encode = (text) => new TextEncoder().encode(text);
  const key = await crypto.subtle.importKey("raw", encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return [...new Uint8Array(await crypto.subtle.sign("HMAC", key, encode(text)))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

test("an alert is delivered within a second, signed, and once", async () => {
  const key = await alerted(80, 100);
  expect(await alarmIn(key)).toBeLessThanOrEqual(1000);
  await runAlarm(key);
  const posts = await hooks();
  expect(posts).toHaveLength(2);
  const [{ method, url, headers, body }] = posts;
  expect([method, url]).toEqual(["POST", env.ALERT_WEBHOOK_URL]);
  expect(JSON.parse(body)).toEqual({
    type: "quota_threshold", key_id: key.id, policy: "month", unit: "requests", threshold: 0.8, used: 801, quota: 1000, month: "2031-03", at: AT,
  });
  const timestamp = headers["x-tollgate-timestamp"];
  expect(timestamp).toBe(String(Date.now() / 1000));
  expect(headers["x-tollgate-signature"]).toBe(`v1=${await hmac(env.ALERT_WEBHOOK_SECRET, `${timestamp}.${body}`)}`);
  const row = { used: 801, quota: 1000, month: "2031-03", at: AT, state: "delivered", attempts: 1, next_attempt_at: null, last_error: null };
  expect(await listed(key)).toEqual([{ threshold: 0.8, ...row }, { threshold: 1, ...row }]);
  expect(await alarmIn(key)).toBe(null);
  await crash(key);
  await admit(key, 1);
  await runAlarm(key);
  expect(await hooks()).toHaveLength(2);
});

test("a key that reaches a threshold raises the alert: once for the month, and for each threshold", async () => {
  const key = await issue(await makeTier({ quota: 5, period: "month" }));
  await admit(key, 3);
  await runAlarm(key);
  expect(await hooks()).toHaveLength(0);
  await admit(key, 1);
  expect(await alarmIn(key)).toBeLessThanOrEqual(1000);
  await runAlarm(key);
  await admit(key, 1);
  await runAlarm(key);
  await denied(key);
  await runAlarm(key);
  const told = (await hooks()).map(({ body }) => JSON.parse(body)).map(({ threshold, used, quota }) => [threshold, used, quota]);
  expect(told).toEqual([[0.8, 4, 5], [1, 5, 5]]);
  const { alerts } = await (await admin("GET", "/alerts?threshold=1")).json();
  const [mine] = alerts.filter(({ key_id }) => key_id === key.id);
  expect(mine).toMatchObject({ policy: "month", used: 5, quota: 5, share: 1, at: "2031-03-12T12:00:00Z" });
});

test("an alert about tokens says so, to the receiver and in the list", async () => {
  const key = await issue();
  await admit(key, 1);
  await runAlarm(key);
  const [{ body }] = await inObject(key, "SELECT body FROM state");
  const w = `tpm|80|203103|1000|801|${Date.parse(AT) * 1000}|1;`;
  await inObject(key, "UPDATE state SET body = ?", JSON.stringify({ ...JSON.parse(body), w }));
  await crash(key);
  await admit(key, 1);
  await runAlarm(key);
  const [{ body: posted }] = await hooks();
  expect(JSON.parse(posted)).toMatchObject({ policy: "tpm", unit: "tokens", used: 801, quota: 1000 });
  const { deliveries } = await (await admin("GET", "/alerts/deliveries?state=delivered")).json();
  expect(deliveries.find(({ key_id }) => key_id === key.id)).toMatchObject({ policy: "tpm", unit: "tokens" });
});

test("tokens that are settled or expire raise alerts of the month", async () => {
  const policies = [{ policy: "tpm", unit: "tokens", quota: 1000, period: "month" }];
  expect((await admin("PUT", "/tiers/metered", { policies })).status).toBe(201);
  const key = await issue("metered");
  const reserve = (body) => api.json("POST", `/keys/${key.id}/reservations`, body, 201);
  const { id } = await reserve({ tokens: 850 });
  await runAlarm(key);
  expect(await hooks()).toHaveLength(0);
  await api.json("POST", `/keys/${key.id}/reservations/${id}/settle`, { tokens: 800 });
  await runAlarm(key);
  await reserve({ tokens: 200, ttl_seconds: 30 });
  wait(31);
  await runAlarm(key);
  const told = (await hooks()).map(({ body }) => JSON.parse(body)).map(({ policy, unit, threshold, used }) => [policy, unit, threshold, used]);
  expect(told).toEqual([["tpm", "tokens", 0.8, 800], ["tpm", "tokens", 1, 1000]]);
});

test("an alert that the receiver refuses is retried, with pauses that double, also by an evicted object", async () => {
  const key = await alerted(80);
  await answerWith(500);
  await runAlarm(key);
  const [first] = await listed(key);
  expect(first).toMatchObject({ state: "pending", attempts: 1, last_error: "status 500", next_attempt_at: "2031-03-12T12:00:30Z" });
  expect(await alarmIn(key)).toBe(30_000);
  await crash(key);
  wait(5);
  await admit(key, 1);
  expect(await alarmIn(key)).toBeLessThanOrEqual(1000);
  await runAlarm(key);
  expect(await hooks()).toHaveLength(1);
  expect(await alarmIn(key)).toBe(25_000);
  wait(25);
  await runAlarm(key);
  expect(await alarmIn(key)).toBe(60_000);
  await answerWith(204);
  wait(60);
  await runAlarm(key);
  expect(await hooks()).toHaveLength(3);
  expect(await listed(key)).toMatchObject([{ state: "delivered", attempts: 3, next_attempt_at: null, last_error: null }]);
  expect(await alarmIn(key)).toBe(null);
});

test("a receiver has ten seconds to respond, and a response leaves no timer", async () => {
  const key = await alerted(80);
  const uncleared = vi.spyOn(AbortSignal, "timeout");
  const { seen, pass } = await takeTimeOver(key);
  await answerWith(0);
  const told = runAlarm(key);
  await vi.waitFor(async () => expect(await hooks()).toHaveLength(1));
  await pass(9);
  expect(await listed(key)).toMatchObject([{ state: "pending", attempts: 0 }]);
  await pass(1);
  await told;
  expect(await listed(key)).toMatchObject([{ state: "pending", attempts: 1, last_error: expect.stringContaining("no answer within 10000 ms") }]);
  await releaseOrigin();
  await answerWith(200);
  await pass(60);
  expect(await listed(key)).toMatchObject([{ state: "delivered", attempts: 2 }]);
  expect(seen.awake).toBe(10_000);
  expect(uncleared).not.toHaveBeenCalled();
});

test("after 12 attempts it is given up, and listed as dead", async () => {
  const key = await alerted(80);
  await answerWith(302);
  for (let n = 0; n < 12; n += 1) {
    await runAlarm(key);
    wait(3600);
  }
  expect(await hooks()).toHaveLength(12);
  expect(await listed(key)).toMatchObject([{ state: "dead", attempts: 12, next_attempt_at: null, last_error: "status 302" }]);
  expect(await alarmIn(key)).toBe(null);
  const { deliveries } = await (await admin("GET", "/alerts/deliveries?state=dead")).json();
  expect(deliveries.map(({ key_id }) => key_id)).toEqual([key.id]);
  await answerWith(200);
});

test("without D1 an alert waits", async () => {
  const key = await alerted(80);
  const giveBack = await takeAway("alerts");
  await runAlarm(key);
  expect(await hooks()).toHaveLength(0);
  expect(await alarmIn(key)).toBeGreaterThan(0);
  await giveBack();
  wait(60);
  await runAlarm(key);
  expect(await listed(key)).toMatchObject([{ state: "delivered", attempts: 1 }]);
});
