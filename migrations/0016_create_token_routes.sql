-- Which calls spend tokens, by method and path pattern, and how many they may use; a call that no row matches spends none.
-- Patterns as in route_costs.
CREATE TABLE token_routes (
  pattern         TEXT NOT NULL
                  CONSTRAINT "a pattern is a path such as /v1/*/export" CHECK (pattern GLOB '/*' AND length(pattern) <= 512),
  method          TEXT NOT NULL DEFAULT '*'
                  CONSTRAINT "method is * or upper-case letters" CHECK (method = '*' OR (method <> '' AND method NOT GLOB '*[^A-Z]*')),
  -- Where the origin's answer says what was used.
  format          TEXT NOT NULL
                  CONSTRAINT "format is header, openai, anthropic or gemini" CHECK (format IN ('header', 'openai', 'anthropic', 'gemini')),
  -- Tokens of output of an answer, for a request that sets no cap, and at most.
  default_output  INTEGER NOT NULL
                  CONSTRAINT "default_output is 0 to max_output" CHECK (default_output BETWEEN 0 AND max_output),
  max_output      INTEGER NOT NULL
                  CONSTRAINT "max_output is 0 to 1000000000" CHECK (max_output BETWEEN 0 AND 1000000000),
  -- Bytes of a request's body that are held as one token: 1 is a bound for text, more is an estimate.
  bytes_per_token INTEGER NOT NULL DEFAULT 1
                  CONSTRAINT "bytes_per_token is 1 to 10000" CHECK (bytes_per_token BETWEEN 1 AND 10000),
  -- Tokens of input that are held at least; null if the body's bytes are the bound.
  max_input       INTEGER
                  CONSTRAINT "max_input is null, or 1 to 1000000000" CHECK (max_input BETWEEN 1 AND 1000000000),
  PRIMARY KEY (pattern, method)
) STRICT, WITHOUT ROWID;
