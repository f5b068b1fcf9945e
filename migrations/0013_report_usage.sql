-- Calls that were counted before there was a column for what they cost.
UPDATE usage_monthly SET cost = calls WHERE cost = 0 AND tokens = 0;

-- Reports go through all keys of a month.
CREATE INDEX usage_monthly_by_month ON usage_monthly (month, key_id);

-- Keys of which D1 has other counts than their objects: what was found, and when.
CREATE TABLE drift (
  key_id   TEXT NOT NULL,
  -- RFC 3339, UTC.
  found_at TEXT NOT NULL,
  detail   TEXT NOT NULL CHECK (json_valid(detail)),
  PRIMARY KEY (key_id, found_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX drift_by_time ON drift (found_at, key_id);
