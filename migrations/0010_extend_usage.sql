-- What the calls of a month cost, in requests and in tokens: absolute totals, like `calls`.
ALTER TABLE usage_monthly ADD COLUMN cost INTEGER NOT NULL DEFAULT 0 CHECK (cost >= 0);
ALTER TABLE usage_monthly ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0 CHECK (tokens >= 0);

-- The same by hour and class of route. Rows hold absolute totals, never increments.
CREATE TABLE usage_hourly (
  key_id     TEXT    NOT NULL,
  hour       TEXT    NOT NULL
             CONSTRAINT "hour is YYYY-MM-DDTHH:00:00Z"
             CHECK (hour IS strftime('%Y-%m-%dT%H:00:00Z', hour)),
  class      TEXT    NOT NULL,
  epoch      TEXT    NOT NULL,
  calls      INTEGER NOT NULL DEFAULT 0 CHECK (calls >= 0),
  denied     INTEGER NOT NULL DEFAULT 0 CHECK (denied >= 0),
  cost       INTEGER NOT NULL DEFAULT 0 CHECK (cost >= 0),
  -- RFC 3339, UTC.
  updated_at TEXT    NOT NULL,
  PRIMARY KEY (key_id, hour, class, epoch)
) STRICT, WITHOUT ROWID;
