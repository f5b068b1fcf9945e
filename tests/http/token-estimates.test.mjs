// `bytes_per_token` 1 and 3 on the same traffic, with OpenAI's own tokenizer at the origin. Makes the
// tables of docs/tokens.md, and checks that they are what it finds.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { ROOT, startGate, startOrigin } from "../../scripts/lib/gate.mjs";
import { until } from "../support/until.mjs";
import { tokenizer } from "./clients/models.mjs";
import { adminOf, issueKey, send } from "./lib/client.mjs";

const BUDGET = 10_000;
const CALLS = 60;
const CAP = 50;
const LENGTH = 600;

const ENGLISH =
  "The gate holds the most that a call may use before the call is forwarded, and charges what was used when the answer has ended. " +
  "Whoever sends many calls at once can therefore not spend more than the budget, whatever the order in which they end. ";
const CODE =
  "export function first(list, test) {\n  for (const [index, item] of list.entries()) {\n    if (test(item, index)) return { index, item };\n  }\n  return undefined;\n}\n\n";
const CHINESE = "在转发请求之前，网关会预留该请求可能使用的最大令牌数，并在响应结束后按实际用量收费。";
/** Text that looks random, as keys and encoded files do. The same in each run. */
const NOISE = Array.from({ length: LENGTH }, (_, n) => "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[(n * n * 31 + n * 17 + 7 * (n >> 3)) % 62]).join("");
const TEXTS = { "English": ENGLISH, "JavaScript": CODE, "Chinese": CHINESE, "random letters and digits": NOISE };

const o200k = tokenizer();
const bodies = Object.entries(TEXTS).map(([what, text]) => {
  let content = "";
  while (Buffer.byteLength(content) < LENGTH) content += text;
  const body = JSON.stringify({ model: "demo", max_tokens: CAP, messages: [{ role: "user", content }] });
  return { what, body, tokens: o200k.encode(content).length };
});

let origin;
let gate;
/** Responses that wait for `release`. */
let waiting = [];

before(async () => {
  origin = await startOrigin({ respond });
  gate = await startGate({ origin: origin.url });
  await gate.d1(`INSERT INTO token_routes (pattern, method, format, default_output, max_output, bytes_per_token) VALUES
      ('/1', 'POST', 'openai', ${CAP}, ${CAP}, 1), ('/3', 'POST', 'openai', ${CAP}, ${CAP}, 3);
    INSERT INTO tiers (name) VALUES ('app');
    INSERT INTO tier_limits (tier, policy, unit, quota, period) VALUES ('app', 'month', 'tokens', ${BUDGET}, 'month')`);
});

after(async () => {
  await gate?.stop();
  await origin?.stop();
});

/** Generates as many tokens as the call has asked for, once it is released. */
async function respond(req, res) {
  const { tokens } = bodies[Number(req.headers["x-body"])];
  await new Promise((resolve) => waiting.push(resolve));
  res.writeHead(200, { "content-type": "application/json" });
  res.end(JSON.stringify({ usage: { prompt_tokens: tokens, completion_tokens: CAP, total_tokens: tokens + CAP } }));
}

/** Sends the calls, one after the other and none ended before the last is judged. */
async function traffic(bytesPerToken, indices) {
  const key = await issueKey(gate, "app");
  const usage = () => adminOf(gate).usageOf(key);
  const passed = [];
  let denied = 0;
  waiting = [];
  for (let n = 0; n < CALLS; n += 1) {
    const index = indices[n % indices.length];
    const headers = { "X-API-Key": key.key, "Content-Type": "application/json", "X-Body": String(index) };
    let isDenied = false;
    const before = waiting.length;
    const response = send(gate, `/${bytesPerToken}`, { method: "POST", headers, body: bodies[index].body }).then((answer) => {
      isDenied = answer.status === 429;
      return answer.status;
    });
    await until("a decision", () => isDenied || waiting.length > before);
    if (isDenied) denied += 1;
    else passed.push(response);
  }
  const held = (await usage()).policies[0].held;
  for (const release of waiting) release();
  for (const response of passed) assert.equal(await response, 200);
  await until("all are settled", async () => (await usage()).policies[0].held === 0);
  const { tokens, overdraft } = await usage();
  return { passed: passed.length, denied, held, tokens, overdraft };
}

test("a bound never passes the budget, and an estimate lets more calls through", { timeout: 120_000 }, async () => {
  const rows = [];
  for (const [what, indices] of [["all four in turn", [0, 1, 2, 3]], ["random letters and digits", [3]]]) {
    const bound = await traffic(1, indices);
    const estimate = await traffic(3, indices);
    assert.ok(bound.tokens <= BUDGET && bound.overdraft === 0);
    assert.ok(estimate.passed > bound.passed && estimate.overdraft > 0 && estimate.held <= BUDGET);
    rows.push([what, 1, bound], [what, 3, estimate]);
  }

  const number = (n) => n.toLocaleString("en");
  const texts = [
    "| text | bytes of the body | tokens of input | held with 1 | held with 3 |",
    "|---|---:|---:|---:|---:|",
    ...bodies.map(({ what, body, tokens }) => {
      const bytes = Buffer.byteLength(body);
      return `| ${what} | ${bytes} | ${tokens} | ${bytes} | ${Math.ceil(bytes / 3)} |`;
    }),
  ];
  const results = [
    "| texts | `bytes_per_token` | passed | denied | held at once | charged | overdraft |",
    "|---|---:|---:|---:|---:|---:|---:|",
    ...rows.map(
      ([what, name, { passed, denied, held, tokens, overdraft }]) =>
        `| ${what} | ${name} | ${passed} | ${denied} | ${number(held)} | ${number(tokens)} | ${number(overdraft)} |`,
    ),
  ];
  const docs = await readFile(path.join(ROOT, "docs/tokens.md"), "utf8");
  const tables = [texts, results].map((table) => table.join("\n"));
  for (const table of tables) assert.ok(docs.includes(table), `docs/tokens.md must have:\n${tables.join("\n\n")}`);
});
