-- Keys that have used so much of a month policy, once per threshold, month and quota, and what became of telling so.
CREATE TABLE alerts (
  key_id          TEXT    NOT NULL,
  policy          TEXT    NOT NULL,
  -- A share of the quota: 0.8 is 80 %.
  threshold       REAL    NOT NULL CHECK (threshold > 0),
  month           TEXT    NOT NULL
                  CONSTRAINT "month is YYYY-MM" CHECK (month GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]'),
  quota           INTEGER NOT NULL CHECK (quota >= 0),
  used            INTEGER NOT NULL CHECK (used >= 0),
  -- RFC 3339, UTC.
  at              TEXT    NOT NULL,
  -- `none`: there is nobody to tell. `dead`: given up.
  state           TEXT    NOT NULL
                  CONSTRAINT "state is pending, delivered, dead or none" CHECK (state IN ('pending', 'delivered', 'dead', 'none')),
  attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  next_attempt_at TEXT,
  last_error      TEXT,
  PRIMARY KEY (key_id, policy, threshold, month, quota)
) STRICT, WITHOUT ROWID;
