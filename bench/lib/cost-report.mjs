// Counted mixes of calls and their cost, for people: docs/cost.md and the table in README.md.
import { GIGABYTES, MONTH_SECONDS, PRICES } from "./cost.mjs";
import { machine } from "./machine.mjs";
import { markdownTable, number } from "./tables.mjs";

/** The place of the table in README.md. */
const BLOCK = /(<!-- cost -->\n)[\s\S]*?(<!-- \/cost -->)/;

const dollars = (value) => (value > 0 && value < 0.005 ? "< $0.01" : `$${number(value, 2)}`);

/** Dollars of a month, by what is billed. */
export function costTable({ mixes }) {
  return {
    head: ["a month of 30 days", "requests", "CPU", "requests of objects", "duration", "rows of objects", "rows of D1", "together", "a million requests"],
    rows: mixes.map(({ title, month: { requests, dollars: parts, total, perMillion } }) => [
      `${title}: ${number(requests / 1e6, requests < 1e7 ? 1 : 0)} M requests`,
      ...[parts.requests, parts.cpu, parts.objectRequests, parts.duration, parts.objectRows, parts.d1Rows, total, perMillion].map(dollars),
    ]),
  };
}

/** What was counted, by request. */
export function countedTable({ mixes }) {
  const perRequest = ({ counted }, value, digits = 4) => number(value / counted.requests, digits);
  return {
    head: ["by request", "requests counted", "CPU µs", "requests of objects", "alarms among them", "awake µs", "rows written", "alarms set", "rows read", "D1 rows written", "D1 rows read"],
    rows: mixes.map((mix) => {
      const { requests, cpuMs, objects, d1 } = mix.counted;
      return [
        mix.name,
        number(requests),
        perRequest(mix, cpuMs * 1000, 0),
        perRequest(mix, objects.requests),
        perRequest(mix, objects.alarms),
        perRequest(mix, objects.activeMs * 1000, 1),
        perRequest(mix, objects.rowsWritten),
        perRequest(mix, objects.alarmsSet),
        perRequest(mix, objects.rowsRead),
        perRequest(mix, d1.rowsWritten),
        perRequest(mix, d1.rowsRead),
      ];
    }),
  };
}

/** How long an object of each mix is awake: a share of the time. */
function awakeTable({ mixes }) {
  return {
    head: ["", "an object is awake", "at most, if it always was"],
    rows: mixes.map(({ title, month, counted, monthKeys }) => {
      const seconds = (counted.objects.activeMs / 1000) * (month.requests / counted.requests);
      const most = monthKeys * MONTH_SECONDS * GIGABYTES * PRICES.gigabyteSeconds;
      return [title, `${number((100 * seconds) / (monthKeys * MONTH_SECONDS), 3)} % of the time`, dollars(most)];
    }),
  };
}

export const costText = (results) => [costTable(results), countedTable(results)].map(markdownTable).join("\n\n");

/** README.md with the table in it. */
export function withCostTable(readme, results) {
  if (!BLOCK.test(readme)) throw new Error("README.md: there is no place for the table of costs");
  return readme.replace(BLOCK, (_, begin, end) => `${begin}${markdownTable(costTable(results))}\n${end}`);
}

const price = (value, unit) => `$${number(value * 1e6, value < 1e-8 ? 3 : 2)} per million ${unit}`;

/** docs/cost.md. */
export async function costDocument(results) {
  const facts = [...(await machine()).slice(0, 3), ["counted", `${results.date.slice(0, 16).replace("T", " ")} UTC; load of the machine ${number(results.load, 1)} before`]];
  const sections = [
    "# What tollgate costs",
    "Written by `npm run bench -- --only cost`, which also writes the first table into README.md. It runs\neach mix on workerd with the real clock, counts everything that Cloudflare bills, and multiplies by\nthe list prices. It takes about ten minutes.",
    markdownTable(costTable(results)),
    "The volume that the paid plan includes is not deducted, its $5 a month is not added, and storage is\nleft out.",
    "## Formula",
    [
      `- requests × ${price(PRICES.requests, "requests")} (Workers)`,
      `- CPU × ${price(PRICES.cpuMs, "ms")} (Workers)`,
      `- requests of objects × ${price(PRICES.objectRequests, "requests")}: calls, their outcomes, reports of denials,\n  alarms`,
      `- time awake × ${GIGABYTES} GB × ${price(PRICES.gigabyteSeconds, "GB-s")}`,
      `- rows written in objects and alarms set × ${price(PRICES.rowsWritten, "rows")}, rows read × ${price(PRICES.rowsRead, "rows").replace("million rows", "million\n  rows")}`,
      "- rows of D1: written and read at the same prices",
    ].join("\n"),
    "Prices are those of Cloudflare's pages [Workers](https://developers.cloudflare.com/workers/platform/pricing/),\n[Durable Objects](https://developers.cloudflare.com/durable-objects/platform/pricing/) and\n[D1](https://developers.cloudflare.com/d1/platform/pricing/), November 2026, paid plan.",
    "## What was counted",
    markdownTable(countedTable(results)),
    markdownTable(awakeTable(results)),
    ASSUMPTIONS,
    markdownTable({ head: ["", ""], rows: facts }).replaceAll("--:", "---"),
  ];
  return `${sections.join("\n\n")}\n`;
}

const ASSUMPTIONS = `## Assumptions

- An object is billed while it handles an event, and while it waits for anything that keeps it from
  hibernating: a timer, a promise of \`waitUntil\`, a response from D1. An object that is idle and may
  hibernate is not billed, even before it has hibernated
  ([When does a Durable Object incur duration charges?](https://developers.cloudflare.com/durable-objects/platform/pricing/)).
  A set alarm does not keep it awake.
- An event is assumed to last until its response leaves the object, which is when its rows are
  confirmed. In production that takes longer than on a local disk. The second column of the last
  table is the bound: the cost of an object that is never idle.
- CPU is that of the whole workerd process, including objects, origin and the stand-in for D1.
  Cloudflare bills that of the Worker alone, so this is more than is billed.
- A flush comes 45 s after the first unflushed call, on average (\`FLUSH_SECONDS\` is 60). Denials are
  kept for 10 s (\`DENY_CACHE_SECONDS\`). Tiers have an audit log, as the shipped ones do.
- The isolates of the measurement are separate Workers before the same objects. A flood that reaches
  more than ten isolates makes more object requests: about 0.4 a second for each, as counted here.
- Rows that D1 writes for its indexes are counted, as reported by its own cursors.`;
