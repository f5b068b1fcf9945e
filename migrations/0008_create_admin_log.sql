-- Every change made through the admin API: who, what, when, and the thing before and after. Rows are added, never changed.
CREATE TABLE admin_log (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  -- RFC 3339, UTC.
  at     TEXT NOT NULL,
  -- The name of the token, or `root`.
  actor  TEXT NOT NULL,
  -- A change that finds something else than what was read leaves this out, and so undoes its whole transaction.
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  before TEXT CHECK (before IS NULL OR json_valid(before)),
  after  TEXT CHECK (after IS NULL OR json_valid(after))
) STRICT;

CREATE INDEX admin_log_by_target ON admin_log (target, id);
CREATE INDEX admin_log_by_actor ON admin_log (actor, id);

CREATE TRIGGER admin_log_is_never_changed BEFORE UPDATE ON admin_log
BEGIN
  SELECT RAISE(ABORT, 'the admin log is append-only');
END;

CREATE TRIGGER admin_log_is_never_cut BEFORE DELETE ON admin_log
BEGIN
  SELECT RAISE(ABORT, 'the admin log is append-only');
END;
