-- Issued keys. The key itself is never stored: `secret_hash` is the SHA-256 of its secret part, `hint` its last four
-- characters. Expiry is derived from `expires_at`, so it is not a status.
CREATE TABLE keys (
  id          TEXT NOT NULL PRIMARY KEY,
  tier        TEXT NOT NULL REFERENCES tiers (name) ON UPDATE CASCADE,
  name        TEXT NOT NULL DEFAULT '',
  status      TEXT NOT NULL DEFAULT 'active'
              CONSTRAINT "status is active, disabled or revoked" CHECK (status IN ('active', 'disabled', 'revoked')),
  secret_hash TEXT NOT NULL
              CONSTRAINT "secret_hash is 64 lower-case hex digits"
              CHECK (length(secret_hash) = 64 AND secret_hash NOT GLOB '*[^0-9a-f]*'),
  hint        TEXT NOT NULL DEFAULT '',
  -- RFC 3339, UTC.
  created_at  TEXT NOT NULL,
  expires_at  TEXT
              CONSTRAINT "expires_at is an RFC 3339 UTC time" CHECK (expires_at IS NULL OR unixepoch(expires_at) IS NOT NULL)
) STRICT;
