// docs/benchmarks.svg: bars for the comparisons, lines for growth.
import { number } from "./tables.mjs";

const WIDTH = 960;
const MARGIN = 20;
const BAR = { height: 20, gap: 6, label: 280 };
const COLORS = { tollgate: "#c2410c", "js-same": "#0f766e" };
const THEIRS = "#64748b";
const LINES = ["#c2410c", "#0f766e", "#4338ca"];

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const label = (x, y, text, attributes = "") => `<text x="${x}" y="${y}" ${attributes}>${escape(text)}</text>`;

/** Horizontal bars of requests per second; returns the drawing and where it ends. */
function bars(title, results, top) {
  const widest = WIDTH - BAR.label - 2 * MARGIN - 80;
  const most = Math.max(...results.map(({ perSecond }) => perSecond));
  const drawn = results.map(({ name, title: text, perSecond }, i) => {
    const y = top + 28 + i * (BAR.height + BAR.gap);
    const width = Math.max(1, (perSecond / most) * widest);
    const color = COLORS[name] ?? THEIRS;
    return [
      label(MARGIN + BAR.label - 8, y + 15, text, 'text-anchor="end"'),
      `<rect x="${MARGIN + BAR.label}" y="${y}" width="${width.toFixed(1)}" height="${BAR.height}" fill="${color}"/>`,
      label(MARGIN + BAR.label + width + 6, y + 15, number(perSecond)),
    ].join("\n");
  });
  const end = top + 28 + results.length * (BAR.height + BAR.gap) + 22;
  return { svg: [label(MARGIN, top + 14, title, 'class="title"'), ...drawn].join("\n"), end };
}

/** Lines over ordered categories, with zero at the bottom. */
function lines(title, axis, names, series, { left, top, width, height }) {
  const most = Math.max(...series.flatMap(({ values }) => values)) || 1;
  const x = (i) => left + 12 + (i * (width - 24)) / Math.max(1, names.length - 1);
  const y = (value) => top + 26 + (1 - value / most) * height;
  const drawn = series.flatMap(({ name, values }, line) => {
    const color = LINES[line % LINES.length];
    const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    return [
      `<polyline points="${points}" fill="none" stroke="${color}" stroke-width="2"/>`,
      ...values.map((value, i) => `<circle cx="${x(i).toFixed(1)}" cy="${y(value).toFixed(1)}" r="3" fill="${color}"/>`),
      label(left, top + height + 78 + line * 16, `— ${name}: ${values.map((value) => number(value)).join(", ")}`, `fill="${color}" font-size="10"`),
    ];
  });
  return [
    label(left, top + 14, title, 'class="title"'),
    `<line x1="${left}" y1="${y(0)}" x2="${left + width}" y2="${y(0)}" stroke="#94a3b8"/>`,
    ...names.map((name, i) => label(x(i).toFixed(1), y(0) + 16, name, 'text-anchor="middle"')),
    label(left + width / 2, y(0) + 32, axis, 'text-anchor="middle"'),
    ...drawn,
  ].join("\n");
}

const at = (comparison, connections) => comparison.tables.find((one) => one.connections === connections).results;

/** The whole plot. */
export function plot({ admit, deny, keys, policies, quota }) {
  const parts = [];
  let top = MARGIN;
  const add = (title, results) => {
    const { svg, end } = bars(title, results, top);
    parts.push(svg);
    top = end;
  };
  for (const one of admit) add(`Admitted requests per second, 64 connections, storage: ${one.storage}`, at(one, 64));
  add("Denied requests per second, 64 connections", at(deny[0], 64));

  const panel = (i) => ({ left: MARGIN + i * 313, top, width: 294, height: 120 });
  const rates = (rows, pick) => rows.map((row) => pick(row).perSecond);
  parts.push(
    lines("Requests per second by keys", "keys", keys.rows.map((row) => number(row.keys)), [
      { name: "admitted", values: rates(keys.rows, (row) => row.admit) },
      { name: "denied", values: rates(keys.rows, (row) => row.deny) },
    ], panel(0)),
    lines("by policies", "policies", policies.rows.map((row) => number(row.policies)), [
      { name: "admitted", values: rates(policies.rows, (row) => row.admit) },
      { name: "denied", values: rates(policies.rows, (row) => row.deny) },
    ], panel(1)),
    lines("Admitted per second by quota", "quota", quota.rows.map((row) => number(row.quota)),
      Object.keys(quota.rows[0].algorithms).map((name) => ({ name, values: rates(quota.rows, (row) => row.algorithms[name]) })), panel(2)),
  );
  const height = top + 250;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="12" fill="#0f172a">
<style>.title { font-size: 14px; font-weight: bold; }</style>
<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>
${parts.join("\n")}
</svg>
`;
}
