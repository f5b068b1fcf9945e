-- Whether the tier's calls are recognised by their `Idempotency-Key`: `off` passes the field on and otherwise ignores it.
ALTER TABLE tiers ADD COLUMN idempotency TEXT NOT NULL DEFAULT 'on'
  CONSTRAINT "idempotency is on or off" CHECK (idempotency IN ('on', 'off'));
