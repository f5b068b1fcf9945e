-- What each key used in each UTC calendar month. Rows hold absolute totals, never increments: writing one again, or late,
-- changes nothing. `epoch` names one life of the key's Durable Object storage; a key's calls are the sum over its epochs.
-- No foreign key: accounts outlive the keys that they are about.
CREATE TABLE usage_monthly (
  key_id     TEXT    NOT NULL,
  month      TEXT    NOT NULL
             CONSTRAINT "month is YYYY-MM" CHECK (month GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]'),
  epoch      TEXT    NOT NULL,
  calls      INTEGER NOT NULL DEFAULT 0 CHECK (calls >= 0),
  denied     INTEGER NOT NULL DEFAULT 0 CHECK (denied >= 0),
  -- RFC 3339, UTC.
  updated_at TEXT    NOT NULL,
  PRIMARY KEY (key_id, month, epoch)
) STRICT, WITHOUT ROWID;
