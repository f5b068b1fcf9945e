-- Keys that the operator issued before tollgate: their id is derived from the key, so the gate has to ask whether it is here.
ALTER TABLE keys ADD COLUMN imported INTEGER NOT NULL DEFAULT 0
  CONSTRAINT "imported is 0 or 1" CHECK (imported IN (0, 1));

CREATE INDEX keys_imported ON keys (id) WHERE imported = 1;
