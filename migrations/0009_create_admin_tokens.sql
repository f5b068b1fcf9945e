-- Named tokens of the admin API, beside ADMIN_TOKEN. The token itself is never stored: `secret_hash` is its SHA-256, `hint` its
-- last four characters.
CREATE TABLE admin_tokens (
  id          TEXT NOT NULL PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE
              CONSTRAINT "a token's name is 1 to 100 characters, and not root" CHECK (length(name) BETWEEN 1 AND 100 AND name <> 'root'),
  scopes      TEXT NOT NULL
              CONSTRAINT "scopes is a JSON array of read and write"
              CHECK (scopes IN ('["read"]', '["write"]', '["read","write"]')),
  secret_hash TEXT NOT NULL
              CONSTRAINT "secret_hash is 64 lower-case hex digits"
              CHECK (length(secret_hash) = 64 AND secret_hash NOT GLOB '*[^0-9a-f]*'),
  hint        TEXT NOT NULL DEFAULT '',
  -- RFC 3339, UTC.
  created_at  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
