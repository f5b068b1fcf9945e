-- What calls cost, by method and path pattern; a call that no row matches costs 1. `*` stands for one segment of a path, at the
-- end for one or more; the longest pattern that matches counts.
CREATE TABLE route_costs (
  pattern TEXT NOT NULL
          CONSTRAINT "a pattern is a path such as /v1/*/export" CHECK (pattern GLOB '/*' AND length(pattern) <= 512),
  method  TEXT NOT NULL DEFAULT '*'
          CONSTRAINT "method is * or upper-case letters" CHECK (method = '*' OR (method <> '' AND method NOT GLOB '*[^A-Z]*')),
  cost    INTEGER NOT NULL
          CONSTRAINT "cost is 1 to 10000" CHECK (cost BETWEEN 1 AND 10000),
  PRIMARY KEY (pattern, method)
) STRICT, WITHOUT ROWID;
