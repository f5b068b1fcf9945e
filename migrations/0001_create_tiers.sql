-- Tiers and the policies that each of them grants. A tier with no row for a period has no limit there.
-- The names of the constraints are what SQLite prints when one bites, so they say what to do.
CREATE TABLE tiers (
  name        TEXT NOT NULL PRIMARY KEY
              CONSTRAINT "a tier's name is 1 to 32 of a-z 0-9 _ -"
              CHECK (length(name) BETWEEN 1 AND 32 AND name NOT GLOB '*[^a-z0-9_-]*'),
  description TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE tier_limits (
  tier      TEXT    NOT NULL REFERENCES tiers (name) ON UPDATE CASCADE ON DELETE CASCADE,
  policy    TEXT    NOT NULL
            CONSTRAINT "a policy's name is 1 to 32 of a-z 0-9 _ -"
            CHECK (length(policy) BETWEEN 1 AND 32 AND policy NOT GLOB '*[^a-z0-9_-]*'),
  unit      TEXT    NOT NULL DEFAULT 'requests'
            CONSTRAINT "unit is requests or tokens" CHECK (unit IN ('requests', 'tokens')),
  quota     INTEGER NOT NULL
            CONSTRAINT "quota is 0 to 1000000000" CHECK (quota BETWEEN 0 AND 1000000000),
  period    TEXT    NOT NULL
            CONSTRAINT "period is minute, hour, day or month" CHECK (period IN ('minute', 'hour', 'day', 'month')),
  algorithm TEXT    NOT NULL DEFAULT 'fixed'
            CONSTRAINT "algorithm is fixed, sliding or bucket" CHECK (algorithm IN ('fixed', 'sliding', 'bucket')),
  -- How many units a bucket admits at once; NULL means the quota. Only buckets have one.
  burst     INTEGER
            CONSTRAINT "burst is 1 to 1000000000" CHECK (burst IS NULL OR burst BETWEEN 1 AND 1000000000),
  PRIMARY KEY (tier, policy),
  CONSTRAINT "a month is fixed: sliding and bucket are for minute, hour and day"
    CHECK (algorithm = 'fixed' OR period <> 'month'),
  CONSTRAINT "a sliding quota is 1 to 10000: for a larger one use algorithm bucket"
    CHECK (algorithm <> 'sliding' OR quota BETWEEN 1 AND 10000),
  CONSTRAINT "a bucket's quota is at least 1" CHECK (algorithm <> 'bucket' OR quota >= 1)
) STRICT, WITHOUT ROWID;

INSERT INTO tiers (name, description) VALUES
  ('free',       '10 requests a minute, 1,000 a month'),
  ('basic',      '50 requests a minute, 10,000 a month'),
  ('pro',        '200 requests a minute, 100,000 a month'),
  ('enterprise', '1,000 requests a minute, 1,000,000 a month'),
  ('unlimited',  'no limits; calls are still counted');

INSERT INTO tier_limits (tier, policy, unit, quota, period, algorithm) VALUES
  ('free',       'minute', 'requests',      10, 'minute', 'fixed'),
  ('free',       'month',  'requests',    1000, 'month',  'fixed'),
  ('basic',      'minute', 'requests',      50, 'minute', 'fixed'),
  ('basic',      'month',  'requests',   10000, 'month',  'fixed'),
  ('pro',        'minute', 'requests',     200, 'minute', 'fixed'),
  ('pro',        'month',  'requests',  100000, 'month',  'fixed'),
  ('enterprise', 'minute', 'requests',    1000, 'minute', 'fixed'),
  ('enterprise', 'month',  'requests', 1000000, 'month',  'fixed');
