// The tiers of the measurements, and their sets of keys.

/** A quota that no run reaches. */
const ENDLESS = 1_000_000_000;

const policy = (period, { name = period, quota = ENDLESS, algorithm = "fixed", unit = "requests" } = {}) => ({
  name,
  unit,
  quota,
  period,
  algorithm,
});

/** The policies of most tiers: a minute and a month. */
const USUAL = [policy("minute"), policy("month")];
/** The first call exhausts it for the rest of the month. */
const EXHAUSTED = policy("month", { quota: 1 });

/** One to six policies, the month first, so that one of them can be the exhausted one. */
const SIX = [
  policy("month"),
  policy("minute"),
  policy("hour"),
  policy("day"),
  policy("minute", { name: "minute-bucket", algorithm: "bucket" }),
  policy("hour", { name: "hour-bucket", algorithm: "bucket" }),
];

export const POLICY_COUNTS = [1, 2, 3, 4, 5, 6];
export const ALGORITHMS = ["fixed", "sliding", "bucket"];
export const QUOTAS = [10, 100, 1000, 10_000];
/** Calls that all keys of a set of the quota measurement can make together. */
const CALLS_PER_QUOTA_SET = 10_000;

/**
 * A set of keys: their tier, its policies, how many keys. Calls of a set whose name begins with
 * `deny` are denied but for each key's first.
 */
const set = (name, policies, keys = 1, auditDays = 0) => ({ name, tier: name, policies, keys, auditDays });

export const BASIC_SETS = [set("admit", USUAL), set("deny", [policy("minute"), EXHAUSTED])];

/** Sets of so many keys each. */
export const keySets = (kind, counts) =>
  counts.map((keys) => set(`${kind}-keys-${keys}`, kind === "deny" ? [policy("minute"), EXHAUSTED] : USUAL, keys));

export const POLICY_SETS = POLICY_COUNTS.flatMap((count) => [
  set(`admit-policies-${count}`, SIX.slice(0, count)),
  set(`deny-policies-${count}`, [EXHAUSTED, ...SIX.slice(1, count)]),
]);

/** One policy of a day. A smaller quota has more keys, so that all sets admit equally many calls. */
export const QUOTA_SETS = ALGORITHMS.flatMap((algorithm) =>
  QUOTAS.map((quota) => set(`admit-${algorithm}-${quota}`, [policy("day", { quota, algorithm })], CALLS_PER_QUOTA_SET / quota)),
);

/** Keys of the cost measurement: with an audit log, as the tiers that ship have one. */
export const costSets = (counts) => [
  set("quiet", [policy("minute", { quota: 50 }), policy("month", { quota: 10_000 })], counts.quiet, 30),
  set("busy", USUAL, counts.busy, 365),
  set("flood", [policy("minute"), EXHAUSTED], counts.flood, 7),
  set("knocking", [policy("minute"), EXHAUSTED], counts.knocking, 7),
];

/** Keys with token budgets beside the usual policies. */
const BUDGETS = ["day", "month"].map((period) => policy(period, { name: `tokens-${period}`, unit: "tokens" }));
export const TOKEN_SETS = [set("tokens", [...USUAL, ...BUDGETS])];

/** The SQL that creates the tiers of some sets. */
export function insertTiers(sets) {
  const tiers = sets.map(({ tier, auditDays }) => `('${tier}', ${auditDays})`);
  const limits = sets.flatMap(({ tier, policies }) =>
    policies.map(({ name, unit, quota, period, algorithm }) => `('${tier}', '${name}', '${unit}', ${quota}, '${period}', '${algorithm}')`),
  );
  return [
    `INSERT INTO tiers (name, audit_days) VALUES ${tiers.join(", ")}`,
    `INSERT INTO tier_limits (tier, policy, unit, quota, period, algorithm) VALUES ${limits.join(", ")}`,
  ];
}
