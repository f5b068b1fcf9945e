-- What the admin API keeps of a key beside its limits, and the secret that a rotation replaced: it is valid until
-- `previous_until`.
ALTER TABLE keys ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}'
  CONSTRAINT "metadata is a JSON object of at most 4096 bytes"
  CHECK (CASE WHEN json_valid(metadata) THEN json_type(metadata) = 'object' ELSE 0 END AND length(CAST(metadata AS BLOB)) <= 4096);
ALTER TABLE keys ADD COLUMN previous_hash TEXT
  CONSTRAINT "previous_hash is 64 lower-case hex digits"
  CHECK (previous_hash IS NULL OR (length(previous_hash) = 64 AND previous_hash NOT GLOB '*[^0-9a-f]*'));
-- RFC 3339, UTC.
ALTER TABLE keys ADD COLUMN previous_until TEXT
  CONSTRAINT "previous_until is an RFC 3339 UTC time" CHECK (previous_until IS NULL OR unixepoch(previous_until) IS NOT NULL);

-- Lists are in the order of issue; the keys of a tier are gone through when it changes.
CREATE INDEX keys_by_time ON keys (created_at, id);
CREATE INDEX keys_by_owner ON keys (owner, created_at, id);
CREATE INDEX keys_by_tier ON keys (tier, id);
