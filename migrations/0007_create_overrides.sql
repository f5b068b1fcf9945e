-- Policies of one key: each replaces the one of its name in the key's tier, or is added to them, from `from_at` on and before
-- `until_at`, where these are given.
CREATE TABLE overrides (
  key_id     TEXT    NOT NULL REFERENCES keys (id) ON UPDATE CASCADE ON DELETE CASCADE,
  policy     TEXT    NOT NULL
             CONSTRAINT "a policy's name is 1 to 32 of a-z 0-9 _ -"
             CHECK (length(policy) BETWEEN 1 AND 32 AND policy NOT GLOB '*[^a-z0-9_-]*'),
  unit       TEXT    NOT NULL DEFAULT 'requests'
             CONSTRAINT "unit is requests or tokens" CHECK (unit IN ('requests', 'tokens')),
  quota      INTEGER NOT NULL
             CONSTRAINT "quota is 0 to 1000000000" CHECK (quota BETWEEN 0 AND 1000000000),
  period     TEXT    NOT NULL
             CONSTRAINT "period is minute, hour, day or month" CHECK (period IN ('minute', 'hour', 'day', 'month')),
  algorithm  TEXT    NOT NULL DEFAULT 'fixed'
             CONSTRAINT "algorithm is fixed, sliding or bucket" CHECK (algorithm IN ('fixed', 'sliding', 'bucket')),
  burst      INTEGER
             CONSTRAINT "burst is 1 to 1000000000" CHECK (burst IS NULL OR burst BETWEEN 1 AND 1000000000),
  -- RFC 3339, UTC.
  from_at    TEXT
             CONSTRAINT "from_at is an RFC 3339 UTC time" CHECK (from_at IS NULL OR unixepoch(from_at) IS NOT NULL),
  until_at   TEXT
             CONSTRAINT "until_at is an RFC 3339 UTC time" CHECK (until_at IS NULL OR unixepoch(until_at) IS NOT NULL),
  created_at TEXT    NOT NULL,
  PRIMARY KEY (key_id, policy),
  CONSTRAINT "a month is fixed: sliding and bucket are for minute, hour and day"
    CHECK (algorithm = 'fixed' OR period <> 'month'),
  CONSTRAINT "a sliding quota is 1 to 10000: for a larger one use algorithm bucket"
    CHECK (algorithm <> 'sliding' OR quota BETWEEN 1 AND 10000),
  CONSTRAINT "a bucket's quota is at least 1" CHECK (algorithm <> 'bucket' OR quota >= 1)
) STRICT, WITHOUT ROWID;
